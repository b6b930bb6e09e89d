"""libvirt's XML, read into definitions and written from them.

A module imports only what is listed before it:

node: reading so that nothing is passed over
metadata: <metadata>, and what of a definition libvirt has no words for
place: what devices of all kinds have in common
tuning: what a domain gets of the host
cpu, system: <cpu>, and the board of a domain
disk, interface, port, screen, controller, fittings: one kind of devices each
devices: <devices>
domain: <domain>
text: domains and their devices as text
backup, checkpoint, snapshot: what is kept of a domain's disks
network: <network>
pool: <pool> and <volume>
"""
