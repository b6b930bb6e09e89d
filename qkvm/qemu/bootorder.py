"""In which order the firmware tries the devices. Pure."""

from __future__ import annotations

from qkvm.spec.domain import BootDevice, DiskKind, Domain

_KINDS = {BootDevice.DISK: DiskKind.DISK, BootDevice.CDROM: DiskKind.CDROM, BootDevice.FLOPPY: DiskKind.FLOPPY}


def boot_indexes(domain: Domain) -> dict[str, int]:
    """Target of a disk, or MAC address of a NIC -> its number in the order, from 1 on; others are not tried.

    A device's own boot_order counts, else boot.order; where neither is said the disks come first, in their
    order, and then CD-ROMs.
    """
    own = {disk.target: disk.boot_order for disk in domain.disks} | {
        nic.mac: nic.boot_order for nic in domain.nics
    }
    if any(own.values()):
        return {name: number for name, number in own.items() if number}
    order = domain.boot.order or (BootDevice.DISK, BootDevice.CDROM)
    names: list[str] = []
    for kind in order:
        if kind is BootDevice.NETWORK:
            names += [nic.mac for nic in domain.nics]
        else:
            names += [disk.target for disk in domain.disks if disk.device is _KINDS[kind]]
    return {name: number for number, name in enumerate(names, 1)}
