"""What the QEMU programs of this host can do, asked of them and kept, and told in libvirt's words.

A module imports only what is listed before it:

kept: answers of programs, as long as they hold
abilities: what a QEMU can do
hardware: whether it has the devices that a definition names
machinetype: the version of a machine that a definition is pinned to
survey: its machines, devices and CPU models
cpu: CPU models: compared, brought to a baseline
capabilities, domcapabilities: libvirt's documents about it
"""
