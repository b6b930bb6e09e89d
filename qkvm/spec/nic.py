"""The definition of a NIC."""

from __future__ import annotations

from enum import StrEnum

from msgspec import Struct

from qkvm import units
from qkvm.errors import InvalidValue
from qkvm.spec import check, forward
from qkvm.spec.forward import PortForward
from qkvm.spec.tuning import Bandwidth, check_bandwidth

QUEUES_LIMIT = 256
"""MAX_TAP_QUEUES of Linux's tun driver."""


class NicType(StrEnum):
    """What a NIC connects to: a qkvm network, an existing bridge, a user-space network stack (see UserBackend), or
    a NIC of the host, by a macvtap on top of it.
    """

    NETWORK = "network"
    BRIDGE = "bridge"
    USER = "user"
    DIRECT = "direct"

    @property
    def has_port(self) -> bool:
        """Return whether it is a tap on a bridge."""
        return self in (NicType.NETWORK, NicType.BRIDGE)


class UserBackend(StrEnum):
    """What carries the packets of a NIC of type user: passt, with the host's addresses, or QEMU itself (slirp).

    ``auto`` is passt if it is installed and the host has a default route.
    """

    AUTO = "auto"
    PASST = "passt"
    SLIRP = "slirp"


class SourceMode(StrEnum):
    """How the macvtaps on a NIC of the host reach each other and that NIC (linux/if_link.h, macvlan modes)."""

    VEPA = "vepa"
    BRIDGE = "bridge"
    PRIVATE = "private"
    PASSTHROUGH = "passthrough"


class NicModel(StrEnum):
    """NIC hardware, by libvirt's names."""

    VIRTIO = "virtio"
    E1000E = "e1000e"
    E1000 = "e1000"
    RTL8139 = "rtl8139"


class Vhost(StrEnum):
    """Whether the host's kernel (vhost-net) or QEMU serves a virtio NIC; ``auto`` is the kernel if possible."""

    AUTO = "auto"
    ON = "on"
    OFF = "off"


class NicFilter(StrEnum):
    """Which frames of a guest the host drops, by libvirt's names; ``clean-traffic`` combines all filters."""

    NONE = ""
    CLEAN_TRAFFIC = "clean-traffic"
    NO_MAC_SPOOFING = "no-mac-spoofing"
    NO_IP_SPOOFING = "no-ip-spoofing"
    NO_IPV6_SPOOFING = "no-ipv6-spoofing"
    NO_ARP_SPOOFING = "no-arp-spoofing"
    NO_ARP_MAC_SPOOFING = "no-arp-mac-spoofing"
    NO_ARP_IP_SPOOFING = "no-arp-ip-spoofing"
    NO_OTHER_L2_TRAFFIC = "no-other-l2-traffic"

    @property
    def needs_ipv4(self) -> bool:
        """Return whether it must know the guest's IPv4 address."""
        return self in (
            NicFilter.CLEAN_TRAFFIC,
            NicFilter.NO_IP_SPOOFING,
            NicFilter.NO_ARP_SPOOFING,
            NicFilter.NO_ARP_IP_SPOOFING,
        )


class Vlan(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The VLANs of a NIC (802.1Q). The guest sees no tag of a single VLAN, but all tags of a ``trunk``.

    ``native`` is the trunk's VLAN for frames without a tag; 0 drops them.
    """

    tags: tuple[int, ...]
    trunk: bool = False
    native: int = 0


class Nic(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A network interface. ``source`` names a network, bridge or NIC; ``target`` the tap, chosen if empty.

    ``queues`` is the number of queue pairs. ``inbound`` limits received data of the guest, ``outbound`` sent data.
    ``mtu`` 0 is the bridge's. ``isolated`` NICs of a bridge do not reach each other. ``filter`` drops forged
    packets; ``ip`` then allows more addresses besides those of the network's DHCP and link-local ones. ``backend``
    and ``forwards`` (ports of the host that are forwarded to the guest) are only for type user.
    """

    mac: str
    type: NicType = NicType.NETWORK
    source: str = ""
    source_mode: SourceMode = SourceMode.VEPA
    model: NicModel = NicModel.VIRTIO
    target: str = ""
    link: bool = True
    queues: int = 1
    vhost: Vhost = Vhost.AUTO
    boot_order: int = 0
    mtu: int = 0
    inbound: Bandwidth | None = None
    outbound: Bandwidth | None = None
    isolated: bool = False
    vlan: Vlan | None = None
    filter: NicFilter = NicFilter.NONE
    ip: tuple[str, ...] = ()
    backend: UserBackend = UserBackend.AUTO
    forwards: tuple[PortForward, ...] = ()
    alias: str = ""
    address: str = ""

    @property
    def has_passt(self) -> bool:
        """Return whether passt serves it; ``backend`` must not be auto."""
        return self.type is NicType.USER and self.backend is UserBackend.PASST

    @property
    def fd_count(self) -> int:
        """Return the number of fds that QEMU gets for it, without those of vhost-net; ``backend`` is not auto."""
        return int(self.has_passt) if self.type is NicType.USER else self.queues


def check_nic(nic: Nic) -> None:
    """Check source, names and limits."""
    if nic.type is NicType.NETWORK:
        units.check_name(nic.source, "network")
    elif nic.type is not NicType.USER:
        units.check_interface_name(nic.source)
    elif nic.source or nic.target:
        raise InvalidValue("a NIC of type user has neither source nor target")
    elif nic.inbound or nic.outbound:
        raise InvalidValue("a NIC of type user has no bandwidth limits: there is no tap to set them on")
    if nic.source_mode is not SourceMode.VEPA and nic.type is not NicType.DIRECT:
        raise InvalidValue(f"source_mode of {nic.mac} is for type direct alone")
    if nic.target:
        units.check_interface_name(nic.target)
    if nic.mtu:
        check.between(nic.mtu, 68, 65535, f"mtu of {nic.mac}")
    _check_speed(nic)
    _check_guard(nic)
    _check_user(nic)
    check.between(nic.boot_order, 0, 99, f"boot order of {nic.mac}")
    check_bandwidth(nic.inbound, f"inbound of {nic.mac}")
    check_bandwidth(nic.outbound, f"outbound of {nic.mac}")
    check.address(nic.address, nic.mac)
    check.alias(nic.alias, nic.mac)


def _check_user(nic: Nic) -> None:
    """Check the settings that only a user-space network stack has."""
    if nic.type is not NicType.USER:
        if nic.forwards:
            raise InvalidValue(
                f"forwards of {nic.mac} are for type user", hint="qkvm net-forward, for a NIC on a network"
            )
        if nic.backend is not UserBackend.AUTO:
            raise InvalidValue(f"backend of {nic.mac} is for type user alone")
    forward.check_own(nic.forwards)
    for one in nic.forwards:
        if nic.backend is UserBackend.SLIRP and ":" in one.listen:
            raise InvalidValue(f"forward {one.label} of {nic.mac}: slirp forwards IPv4 alone", hint="passt")


def _check_speed(nic: Nic) -> None:
    """Check queues and vhost; several queues and vhost need virtio and a tap."""
    check.between(nic.queues, 1, QUEUES_LIMIT, f"queues of {nic.mac}")
    for asked, word in ((nic.queues > 1, "several queues"), (nic.vhost is Vhost.ON, "vhost")):
        if asked and (nic.type is NicType.USER or nic.model is not NicModel.VIRTIO):
            raise InvalidValue(f"a NIC of type {nic.type} and model {nic.model} has no {word}", hint="virtio")


def _check_guard(nic: Nic) -> None:
    """Check isolation and filter settings; they need a bridge port, and valid guest addresses."""
    if not nic.type.has_port:
        for asked, word in ((nic.isolated, "isolated"), (nic.filter, "filtered"), (nic.vlan, "in a VLAN")):
            if asked:
                raise InvalidValue(f"a NIC of type {nic.type} can't be {word}: it is on no bridge")
    if nic.vlan is not None:
        _check_vlan(nic.vlan, nic)
    if nic.ip and not nic.filter:
        raise InvalidValue(
            f"ip of {nic.mac} says what a filter lets through, and there is none", hint='filter = "clean-traffic"'
        )
    for text in nic.ip:
        _check_own_address(text, nic.mac)
    check.once(nic.ip, f"ip of {nic.mac}")
    if nic.filter.needs_ipv4 and nic.type is NicType.BRIDGE and not nic.ip:
        raise InvalidValue(
            f"filter {nic.filter} of {nic.mac}: nobody tells the guest's addresses on bridge {nic.source}",
            hint='ip = ["192.0.2.5"] in the NIC, or a network of qkvm\'s with DHCP',
        )


def _check_vlan(vlan: Vlan, nic: Nic) -> None:
    for tag in vlan.tags:
        check.between(tag, 1, 4094, f"VLAN tag of {nic.mac}")
    check.once(map(str, vlan.tags), f"VLAN tag of {nic.mac}")
    if not vlan.tags:
        raise InvalidValue(f"vlan of {nic.mac} has no tags", hint="tags = [42]")
    if len(vlan.tags) > 1 and not vlan.trunk:
        raise InvalidValue(f"several VLAN tags of {nic.mac} are a trunk", hint="trunk = true")
    if vlan.native and (not vlan.trunk or vlan.native not in vlan.tags):
        raise InvalidValue(f"native VLAN {vlan.native} of {nic.mac} is none of its trunk's")
    if vlan.trunk and nic.filter:
        raise InvalidValue(f"filter {nic.filter} of {nic.mac} can't look behind the tags of a trunk")


def _check_own_address(text: str, mac: str) -> None:
    from ipaddress import ip_address

    try:
        address = ip_address(text)
    except ValueError:
        address = None
    if address is None or "%" in text:
        raise InvalidValue(f"ip '{units.printable(text)}' of {mac} is no address", hint="one without a prefix")
    if str(address) != text:
        raise InvalidValue(f"ip '{text}' of {mac} is not in its usual form", hint=str(address))
    if address.is_unspecified or address.is_multicast or address.is_loopback or text == "255.255.255.255":
        raise InvalidValue(f"ip {text} of {mac} can be no guest's address")
