"""What a NIC is meant to be."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from qkvm import units
from qkvm.errors import InvalidValue
from qkvm.spec import check
from qkvm.spec.tuning import Bandwidth, check_bandwidth


class NicType(StrEnum):
    """What a NIC is plugged into: a qkvm network, an existing bridge, or QEMU's own user-mode stack."""

    NETWORK = "network"
    BRIDGE = "bridge"
    USER = "user"


class NicModel(StrEnum):
    """NIC hardware, in libvirt's words."""

    VIRTIO = "virtio"
    E1000E = "e1000e"
    E1000 = "e1000"
    RTL8139 = "rtl8139"


class Nic(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A network interface. ``source`` is a network's or bridge's name; ``target`` the tap's, chosen if empty.

    ``inbound`` is what the guest receives, ``outbound`` what it sends. ``mtu`` 0 is the bridge's.
    """

    mac: str
    type: NicType = NicType.NETWORK
    source: str = ""
    model: NicModel = NicModel.VIRTIO
    target: str = ""
    link: bool = True
    boot_order: int = 0
    mtu: int = 0
    inbound: Bandwidth | None = None
    outbound: Bandwidth | None = None
    alias: str = ""
    address: str = ""


def check_nic(nic: Nic) -> None:
    """Source and names, and limits that make sense."""
    if nic.type is NicType.NETWORK:
        units.check_name(nic.source, "network")
    elif nic.type is NicType.BRIDGE:
        units.check_interface_name(nic.source)
    elif nic.source or nic.target:
        raise InvalidValue("a NIC of type user has neither source nor target")
    elif nic.inbound or nic.outbound:
        raise InvalidValue("a NIC of type user has no bandwidth limits: there is no tap to set them on")
    if nic.target:
        units.check_interface_name(nic.target)
    if nic.mtu:
        check.between(nic.mtu, 68, 65535, f"mtu of {nic.mac}")
    check.between(nic.boot_order, 0, 99, f"boot order of {nic.mac}")
    check_bandwidth(nic.inbound, f"inbound of {nic.mac}")
    check_bandwidth(nic.outbound, f"outbound of {nic.mac}")
    check.address(nic.address, nic.mac)
    check.alias(nic.alias, nic.mac)
