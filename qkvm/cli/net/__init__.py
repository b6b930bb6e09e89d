"""Verbs on networks and on the host's own interfaces.

A module imports only what is listed before it:

networks: define, start, show and change networks
forwards, grants, ports: parts of a network
events, health: events of networks, and finding and repairing faults
interfaces: the host's own interfaces
"""
