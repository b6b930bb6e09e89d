"""Verbs on networks and on the host's own interfaces.

A module imports only what is listed before it:

networks: networks themselves
forwards, grants, ports: parts of a network
events, health: what happens to networks, and what is wrong with them
interfaces: the host's own interfaces
"""
