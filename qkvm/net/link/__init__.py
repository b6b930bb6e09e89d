"""Links of this host as the kernel has them; what is made here dies with QEMU, or carries a tag.

A module imports only what is listed before it:

sysctl: settings of the kernel's network
rtnetlink: the kernel's own messages about links
sockets: what the programs of this host listen on
table: which links there are, and their counters
link: what is common to all links
neighbour: who has which address on which link
arp: who answers for an address on a link
bridge, forwarding: bridges, and whether the host forwards between them and others
tap, macvtap: what a NIC is given to QEMU with
vlan, port: a tap as a port of a bridge
bandwidth: what a tap may receive and send
"""
