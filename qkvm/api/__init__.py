"""qkvm from Python: a host, its domains, networks and pools, and verbs on them by noun.

A module imports only what is listed before it:

verb: methods that are functions elsewhere
devices, tuning, guest, snapshots: parts of a domain
domain: a domain
network, storage, node: networks, pools and volumes, the machine itself
host: the host
"""
