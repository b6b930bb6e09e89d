"""Tables of verbs on this host, one for each module of qkvm.cli.host that has verbs; none imports another.

boot, cpumodels, host, node, upkeep: constants
"""
