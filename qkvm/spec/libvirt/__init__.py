"""libvirt's XML, read into definitions and written from them.

A module imports only what is listed before it:

node: a reader that refuses what it does not know
metadata: <metadata>, and what libvirt has no words for
place: what devices of all kinds have in common
tuning: limits and shares of a domain
cpu, system: <cpu>, and the board of a domain
disk, interface, port, screen, controller, fittings: one kind of devices each
devices: <devices>
domain: <domain>
text: domains and their devices as text
backup, checkpoint, snapshot: what is stored of a domain's disks
network: <network>
pool: <pool> and <volume>
"""
