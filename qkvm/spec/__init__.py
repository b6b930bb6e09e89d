"""What the user wants: definitions, frozen and pure, without I/O.

A module imports only what is listed before it:

size: the type of a size
check: checks that the definitions of several nouns share
toml: definitions as TOML text
forward, dns, dhcp: ports that lead to guests, and what a network's dnsmasq answers and gives away
tuning: what a domain may take of the host
machine, boot, disk, nic, devices: what a domain is made of
domain: a domain
snapshot, checkpoint: what is kept of them
stability: what of a definition a guest can see
network, grant, pool: networks, who may use them, storage pools and volumes
libvirt: all of them as libvirt's XML
"""
