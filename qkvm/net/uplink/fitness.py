"""Which NICs can become a bridge's port, and what the user should know first.

Refusals come before any change; warnings name programs that go on configuring the NIC.
"""

from __future__ import annotations

import os

from qkvm.errors import AlreadyExists, InvalidState, InvalidValue, NotFound
from qkvm.net.link import rtnetlink as nl
from qkvm.net.uplink.holding import FOREVER, Holding, address_text, lifetime
from qkvm.units import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NoReturn

SYSFS = "/sys/class/net"
RUN = "/run"

_STACKED = {
    **{kind: f"it is a {kind} of another NIC" for kind in ("macvlan", "macvtap")},
    **{kind: f"it is an {kind} of another NIC" for kind in ("ipvlan", "ipvtap")},
    "vrf": "it is a VRF",
}
"""Kinds of links that the kernel takes for no port, with the reason."""

_TAKEN = ("macvlan", "macvtap", "ipvlan", "ipvtap")
"""Kinds of links that take all that their NIC receives, as a bridge does."""


def check_nic(links: Iterable[nl.Message], name: str) -> nl.Message:
    """Return the link of that name if it can become the port of a bridge.

    :raises NotFound: there is none. :raises InvalidValue: it never can. :raises InvalidState: it can't now.
    """
    links = list(links)
    nic = next((link for link in links if link.text(nl.IFLA_IFNAME) == name), None)
    if nic is None:
        raise NotFound(f"no interface {printable(name)} on this host", kind="interface", name=name)
    if nl.flags_of(nic) & nl.IFF_LOOPBACK:
        raise InvalidValue(f"{name} can't be bridged: it is the loopback interface")
    if nl.kind_of(nic) == "bridge":
        raise InvalidValue(f"Existing device {name} is already a bridge", hint="guests can use it as it is")
    master = nic.number(nl.IFLA_MASTER)
    if master:
        owner = next((link for link in links if nl.index_of(link) == master), None)
        of = owner.text(nl.IFLA_IFNAME) if owner is not None else f"link {master}"
        kind = (nl.kind_of(owner) if owner is not None else "") or "master"
        raise InvalidState(f"{name} belongs to {kind} {of} already", hint=f"ip link set {name} nomaster")
    if nl.type_of(nic) != nl.ARPHRD_ETHER:
        raise InvalidValue(f"{name} can't be bridged: it carries no Ethernet frames", hint="a routed network")
    if why := _STACKED.get(nl.kind_of(nic)):
        raise InvalidValue(f"{name} can't be bridged: {why}", hint="bridge that NIC itself")
    if is_wireless(name):
        raise InvalidValue(
            f"{name} can't be bridged: it is wireless, and access points take frames of one MAC address a client",
            hint="a NAT or routed network",
        )
    if nic.text(nl.IFLA_IFALIAS).startswith("qkvm:dom="):
        raise InvalidState(f"{name} is a guest's own interface")
    for link in links:
        if link.number(nl.IFLA_LINK) == nl.index_of(nic) and nl.kind_of(link) in _TAKEN:
            other = link.text(nl.IFLA_IFNAME)
            raise InvalidState(
                f"{name} can't be bridged while {nl.kind_of(link)} {printable(other)} takes what it receives",
                hint=f"remove {printable(other)} first",
            )
    return nic


def check_bridge(links: Iterable[nl.Message], bridge: str) -> None:
    """Refuse a name for the bridge. :raises AlreadyExists: a link has that name."""
    if any(link.text(nl.IFLA_IFNAME) == bridge for link in links):
        raise AlreadyExists(f"Network device {bridge} already exists", hint="another name for the bridge")


def check_unknown(links: Iterable[nl.Message], bridge: str) -> None:
    """Refuse to unbridge a link that no record names.

    :raises InvalidValue: it is no bridge. :raises InvalidState: it is another tool's.
    """
    for link in links:
        if link.text(nl.IFLA_IFNAME) == bridge:
            if nl.kind_of(link) != "bridge":
                raise InvalidValue(f"Device {bridge} is not a bridge")
            refuse_owned(bridge, link.text(nl.IFLA_IFALIAS))


def refuse_owned(bridge: str, alias: str) -> NoReturn:
    """Refuse to touch a bridge. :raises InvalidState: always, with the owner that the bridge's alias names."""
    _, network, name = alias.partition("qkvm:net=")
    if network:
        shown = printable(name)
        raise InvalidState(f"bridge {bridge} is network '{shown}'s", hint=f"qkvm net-destroy {shown}")
    raise InvalidState(
        f"bridge {bridge} was not made over a NIC by this qkvm: it is left as it is",
        hint="unbridge it with the tool that made it",
    )


def is_wireless(name: str) -> bool:
    """Whether an interface is a station of a wireless network: by /sys or, for another namespace, by /proc."""
    if any(os.path.exists(f"{SYSFS}/{name}/{sign}") for sign in ("wireless", "phy80211")):
        return True
    try:
        with open("/proc/thread-self/net/wireless", encoding="utf-8", errors="surrogateescape") as stream:
            return any(line.partition(":")[0].strip() == name for line in stream.read().splitlines()[2:])
    except OSError:
        return False


def warnings(sock: nl.Socket, nic: nl.Message, held: Holding, bridge: str) -> tuple[str, ...]:
    """Return a sentence for each program that goes on configuring the NIC when the bridge has its addresses."""
    name = nic.text(nl.IFLA_IFNAME)
    found = []
    leased = [message for message in held.addresses if lifetime(message) != FOREVER]
    if leased:
        left = ", ".join(f"{address_text(message)} for {lifetime(message)} s more" for message in leased)
        found.append(f"{left}: whoever renews these (a DHCP client, say) has to do so for {bridge} from now on")
    keeper = _keeper(nl.index_of(nic), name)
    if keeper:
        found.append(f"{keeper} configures {name}, and may give it addresses again: configure {bridge} there")
    for family in (2, 10):
        for rule in sock.dump(nl.GETRULE, family):
            if name in (rule.text(nl.FRA_IIFNAME), rule.text(nl.FRA_OIFNAME)):
                found.append(f"a routing rule (ip rule) names {name}, not {bridge}")
                return tuple(found)
    return tuple(found)


def _keeper(index: int, name: str) -> str:
    """Return the program that configures a link by itself, '' where none is found."""
    if not _first_namespace():
        return ""
    if "managed=true" in _text(f"{RUN}/NetworkManager/devices/{index}"):
        return "NetworkManager"
    if "ADMIN_STATE=configured" in _text(f"{RUN}/systemd/netif/links/{index}"):
        return "systemd-networkd"
    for path in (f"dhclient.{name}.pid", f"dhcpcd/{name}.pid", f"dhcpcd-{name}.pid"):
        pid = _text(f"{RUN}/{path}").strip()
        if pid.isdigit() and os.path.exists(f"/proc/{pid}"):
            return "a DHCP client"
    return ""


def _first_namespace() -> bool:
    """Whether this thread is in the machine's first namespace, whose link numbers those programs' files use."""
    try:
        return os.readlink("/proc/thread-self/ns/net") == os.readlink("/proc/1/ns/net")
    except OSError:
        return False


def _text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""
