"""Verbs on this host and on the installed qkvm.

A module imports only what is listed before it:

host: properties of the host and of qkvm
node: the machine's CPUs, memory and sleep
cpumodels: CPU models
boot: actions at the machine's boot and shutdown
upkeep: leftovers, read access for a group, QEMU upgrades
"""
