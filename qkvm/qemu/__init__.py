"""From the definition to the command line; pure.

A module imports only what is listed before it:

render: from a template to a command line
abilities: what a QEMU can do by itself
needs: what a command line asks of a QEMU
quirks: what some QEMUs need to be treated differently for
harmless: a command line with nothing behind it
slots: where devices sit
firmware, disks, devices, shares, inputs, ports, controllers: each kind of devices as templates see it
launch: the context of a domain's template
"""
