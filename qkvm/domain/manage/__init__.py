"""Manage domains as a whole: install, rename, undefine, mend.

A module imports only what is listed before it:

describe: title, description and metadata of domains and networks
xml: dumpxml
install: make a new domain with its disks, and run its installation
rename: domrename
upgrade: check what another QEMU would do with a domain
volume: delete, resize, wipe, fill, clone volumes that no domain uses
base: add base images, remove those that nothing uses
pool: build, start, stop pools that no domain uses
ownstorage: which images undefine removes with a domain
undefine: undefine
delete: delete
passing: guests that go with the process that runs them
gc: remove what nothing needs any more
mend: mend what killed processes have left, cap logs
"""
