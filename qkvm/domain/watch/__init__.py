"""Watch guests: addresses, events, statistics.

A module imports only what is listed before it:

address: domifaddr
control: domcontrol
sshd: where the SSH server in a guest is
wait: wait
dirtyrate: domdirtyrate-calc
eventwords: QEMU's events in libvirt's words
events: event, qemu-monitor-event
statgroups: the groups of domstats
stats: domstats
doctor: doctor
"""
