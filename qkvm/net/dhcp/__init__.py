"""DHCP and DNS of networks: one dnsmasq each.

A module imports only what is listed before it:

lease: the leases it has given
reservations: the addresses it keeps for NICs
dnsmasq: its configuration, start and end
reserve: keep an address from now on
address: which guest has which address
"""
