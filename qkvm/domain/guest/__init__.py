"""What the agent in a guest (qemu-guest-agent) is asked.

A module imports only what is listed before it:

agent: a session with the agent, any command of it
script: a script that the agent runs in the guest
clock: domtime
cpus: guestvcpus, setvcpus --guest
info: guestinfo, domhostname, interfaces
power: shut down, reboot, suspend, wake
users: passwords and SSH keys
filesystems: domfsinfo, domfsfreeze, domfsthaw, domfstrim
"""
