"""<network>, read into definitions and written from them.

A module imports only what is listed before it:

dns: <dns>
ip: <ip>, with its <dhcp>
network: <network>
update: change one part of a network
"""
