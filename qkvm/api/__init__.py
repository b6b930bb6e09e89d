"""qkvm as a library: a host, its domains, networks and pools, and verbs on them, grouped by noun.

A module imports only what is listed before it:

verb: attributes that load a function at first use
devices, tuning, guest, snapshots: parts of a domain
domain: a domain
network, storage, templates, node: networks, pools and volumes, templates of clones, this machine
emulator: what QEMU can do
host: the host
"""
