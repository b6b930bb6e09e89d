"""Definitions that the user writes: frozen data, without I/O.

A module imports only what is listed before it:

size: the type of a size
check: checks that several kinds of definitions share
toml: definitions as TOML text
forward, dns, dhcp: ports that lead to guests, and what a network's dnsmasq serves
tuning: limits and shares of a domain
machine, boot, disk, nic, devices: the parts of a domain
domain: a domain
snapshot, checkpoint: stored states of domains
stability: the parts of a definition that a guest can see, and its generation id
network, grant, pool: networks, permissions to use them, storage pools and volumes
libvirt: all definitions as libvirt's XML
"""
