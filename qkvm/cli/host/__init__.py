"""Verbs on this host and on qkvm as it is installed here.

A module imports only what is listed before it:

host: what the host and this program are
node: the machine
cpumodels: CPU models
boot: what happens at the machine's boot and shutdown
upkeep: leftovers, a group that may look, another QEMU
"""
