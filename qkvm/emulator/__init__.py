"""What the QEMU programs of this host can do: asked once, kept, and described in libvirt's words.

A module imports only what is listed before it:

kept: the cache of their answers
abilities: what a QEMU can do
hardware: whether it has the devices that a definition names
machinetype: the version of a machine that a definition is pinned to
survey: its machines, devices and CPU models
cpu: CPU models compared, and their baseline
capabilities, domcapabilities: libvirt's documents
"""
