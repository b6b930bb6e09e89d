"""What needs much of all the rest.

A module imports only what is listed before it:

describe: titles, descriptions, metadata
xml: a domain as libvirt's XML
install: a new domain with its disks and its installation
rename: another name
upgrade: what another QEMU would do
volume, pool, ownstorage: storage, and the domains that need it
undefine: a domain removed
gc: what nobody needs any more
mend: what killed processes have left
"""
