"""What this machine is and what runs on it.

A module imports only what is listed before it:

record: what runs, as JSON in run/
process: who runs, start, end
confine, nosocket: limits for programs that work on untrusted content
programs, settings: the programs that qkvm starts, and the administrator's settings
sshkey: the key that opens guests to qkvm
cgroup, limits: control groups
systemd: systemd's scopes and its list of machines
node: the machine itself
journal: the events that a QEMU has written
ids: ids of domains
view: what a group may see of root's tree
mounts, foreignsocket: detached mounts, and other processes' connections
validate: whether this machine is fit for guests
"""
