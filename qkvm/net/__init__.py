"""Networks of guests: bridges, packet filters, DHCP, and the host's own links that carry guests.

A module imports only what is listed before it:

link: links of this host as the kernel has them
firewall: the packet filter, with two backends
uplink: bridges over NICs of the host
place: where a network can lie
run: the records of networks that run
dhcp: one dnsmasq a network, and which guest has which address
grant: root's networks for other users
network: networks and their verbs
health: find and repair what is wrong with a network
"""
