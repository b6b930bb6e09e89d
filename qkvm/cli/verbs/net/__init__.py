"""Tables of verbs on networks, one for each module of qkvm.cli.net that has verbs; none imports another.

events, forwards, grants, health, interfaces, networks, ports: constants
"""
