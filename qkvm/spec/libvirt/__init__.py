"""libvirt's XML, read into definitions and written from them.

A module imports only what is listed before it:

node: a reader that refuses what it does not know
metadata: <metadata>, and settings that libvirt's XML can't express
place: addresses, aliases and boot order of devices
tuning: limits and shares of a domain
cpu, system: <cpu>, and the board of a domain
disk, interface, port, screen, controller, fittings: one group of devices each
devices: <devices>
domain: <domain>
text: domains and their devices as text
backup, checkpoint, snapshot: stored states of a domain's disks
network: <network>
pool: <pool> and <volume>
"""
