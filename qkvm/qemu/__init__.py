"""Turn a definition into QEMU's command line, without I/O.

A module imports only what is listed before it:

render: templates that give a command line
abilities: what a QEMU can do by itself
needs: what a QEMU must have for a command line
quirks: workarounds for some QEMUs
harmless: a command line that touches nothing of the host
slots: where devices sit
firmware, disks, devices, shares, inputs, ports, controllers: devices by kind, as templates see them
launch: the context of a domain's template
"""
