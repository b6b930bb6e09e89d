"""A run of a domain: its QEMU is started, watched until it is up, and ended.

A module imports only what is listed before it:

arrival: wait until a started QEMU is up, or say why it is not
beside: the programs beside QEMU: swtpm, virtiofsd
listening: sockets that QEMU listens on, ports of the VNC server
end: end QEMU, remove what outlives it, forget a domain
bring_up: the whole start, undone where a step fails
preview: the command line of a start, for domxml-to-native
trial: a start of an empty machine, to check the host
"""
