"""What this machine is and what runs on it.

A module imports only what is listed before it:

record: what is, as JSON in run/
process: who runs, start, end
confine, nosocket: limits of a program that works on the content of strangers
programs, settings: the programs that qkvm starts, and the administrator's settings
cgroup, limits: control groups
systemd: systemd's scopes and its list of machines
node: the machine itself
journal: what a QEMU has told by itself
ids: ids of domains
view: what a group may see of root's tree
mounts, foreignsocket: mounts without a place, and connections of other processes
validate: whether this machine is fit for guests
"""
