"""DHCP and DNS of networks: one dnsmasq each.

A module imports only what is listed before it:

lease: the leases that it has given
reservations: the addresses that it keeps for NICs
dnsmasq: its configuration, its start and its end
reserve: an address kept from now on
address: which guest has which address
"""
