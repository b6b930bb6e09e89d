"""What the user wants: definitions, frozen and pure, without I/O.

A module imports only what is listed before it:

size: the type of a size
check: checks for several kinds of definitions
toml: definitions as TOML text
forward, dns, dhcp: ports that lead to guests, and what a network's dnsmasq serves
tuning: limits and shares of a domain
machine, boot, disk, nic, devices: the parts of a domain
domain: a domain
snapshot, checkpoint: what is stored of them
stability: what a guest can see of a definition
network, grant, pool: networks, who may use them, storage pools and volumes
libvirt: all of them as libvirt's XML
"""
