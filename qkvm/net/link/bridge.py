"""Bridges of networks: made with the host's addresses, found by their tag, removed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qkvm.errors import AlreadyExists, HostError, InvalidValue, NotFound
from qkvm.net.link import link, sysctl
from qkvm.net.link.link import connection, kind, lookup, network_tag, words

if TYPE_CHECKING:
    from qkvm.spec.dhcp import Interface

_IFA_F_NODAD = 0x02
"""linux/if_addr.h: no duplicate address detection (RFC 4862, section 5.4)."""

_IFF_UP = 0x1
"""linux/if.h."""


def make(
    name: str, addresses: Sequence[Interface], mac: str, alias: str, *, mtu: int = 0, ipr: Any = None
) -> None:
    """Make a bridge with the host's addresses and set it up, or leave nothing.

    :param mac: fixed, so that ports do not change it. :param mtu: 0 leaves it to the ports.
    :raises AlreadyExists: a link has that name.
    """
    with connection(ipr) as route, words(f"cannot make bridge {name}"):
        if lookup(route, name) is not None:
            raise AlreadyExists(f"interface {name} exists already", hint="another bridge name for the network")
        route.link("add", ifname=name, kind="bridge", address=mac, br_stp_state=0, br_forward_delay=0)
        # The kernel ignores an ifalias when it makes a link, and forgets link addresses set before it is up.
        made = link.require(route, name)
        try:
            route.link("set", index=made["index"], ifalias=alias, **({"mtu": mtu} if mtu else {}))
            settle(name, addresses, ipr=route)
        except BaseException:
            route.link("del", index=made["index"])
            raise


def tag(name: str, alias: str, *, ipr: Any = None) -> None:
    """Give a bridge its tag. :raises NotFound: there is no such link."""
    with connection(ipr) as route, words(f"cannot tag bridge {name}"):
        route.link("set", index=link.require(route, name)["index"], ifalias=alias)


def settle(name: str, addresses: Sequence[Interface], *, ipr: Any = None) -> None:
    """Give a bridge the addresses that it lacks, and set it up."""
    from socket import AF_INET6

    with connection(ipr) as route, words(f"cannot set up bridge {name}"):
        index = link.require(route, name)["index"]
        _rule_ipv6(name, wanted=any(one.version == 6 for one in addresses))
        present = addresses_of(name, ipr=route)
        for one in addresses:
            if one in present:
                continue
            if one.version == 4:
                extra: dict[str, Any] = {"broadcast": str(one.network.broadcast_address)}
            else:
                # No other host can have it, and duplicate address detection never ends on a bridge without ports.
                extra = {"family": AF_INET6, "flags": _IFA_F_NODAD}
            route.addr("add", index=index, address=str(one.ip), prefixlen=one.network.prefixlen, **extra)
        route.link("set", index=index, state="up")


def addresses_of(name: str, *, ipr: Any = None) -> list[Interface]:
    """Return the host's addresses on a link, without link-local ones."""
    from ipaddress import ip_interface

    with connection(ipr) as route, words(f"cannot read the addresses of {name}"):
        found = lookup(route, name)
        listed = [
            ip_interface(f"{item.get_attr('IFA_LOCAL') or item.get_attr('IFA_ADDRESS')}/{item['prefixlen']}")
            for item in (route.get_addr(index=found["index"]) if found is not None else ())
            if item["index"] == found["index"]
        ]
    return [one for one in listed if not one.ip.is_link_local]


def is_up(name: str, *, ipr: Any = None) -> bool:
    """Whether a link is there and set up."""
    with connection(ipr) as route, words(f"cannot read {name}"):
        found = lookup(route, name)
        return found is not None and bool(found["flags"] & _IFF_UP)


def _rule_ipv6(name: str, *, wanted: bool) -> None:
    """Turn IPv6 on or off; without it the host has no link-local address on the bridge.

    A host with IPv6 there is a router, and ignores its guests' router advertisements.
    """
    for key, value in (("accept_ra", "0"), ("disable_ipv6", "0" if wanted else "1")):
        sysctl.write(f"net/ipv6/conf/{name}/{key}", value, optional=not wanted)


def remove(name: str, alias: str, *, mac: str = "", ipr: Any = None) -> bool:
    """Remove a bridge of ours; False where it is gone already.

    :param mac: the MAC in the record, which identifies a bridge that a crash left without its tag.
    :raises HostError: the link of that name is not ours.
    """
    with connection(ipr) as route, words(f"cannot remove bridge {name}"):
        found = lookup(route, name)
        if found is None:
            return False
        if not _is_owned(found, alias, mac):
            raise HostError(
                f"interface {name} was not made for this network: it is left as it is",
                hint=f"its alias should be {alias}; ip link show {name}",
            )
        route.link("del", index=found["index"])
        return True


def is_ours(name: str, alias: str, *, mac: str = "", ipr: Any = None) -> bool:
    """Whether a bridge of that name carries our tag, or ``mac`` and no tag."""
    with connection(ipr) as route, words(f"cannot read {name}"):
        found = lookup(route, name)
        return found is not None and _is_owned(found, alias, mac)


def _is_owned(found: Any, alias: str, mac: str) -> bool:
    tag = found.get_attr("IFLA_IFALIAS") or ""
    untagged = not tag and bool(mac) and found.get_attr("IFLA_ADDRESS") == mac
    return kind(found) == "bridge" and (tag == alias or untagged)


def require(name: str, *, ipr: Any = None) -> Any:
    """Return the bridge of that name. :raises NotFound: there is none. :raises InvalidValue: it is no bridge."""
    with connection(ipr) as route, words(f"cannot read {name}"):
        found = lookup(route, name)
    if found is None:
        raise NotFound(f"no bridge {name} on this host", kind="bridge", name=name)
    if kind(found) != "bridge":
        raise InvalidValue(f"interface {name} is not a bridge")
    return found


def tagged(*, ipr: Any = None) -> dict[str, str]:
    """Return name and tag of each network's bridge that any qkvm made in this network namespace."""
    with connection(ipr) as route, words("cannot list the links"):
        links = route.get_links()
    found = {link.get_attr("IFLA_IFNAME"): link.get_attr("IFLA_IFALIAS") or "" for link in links}
    return {name: tag for name, tag in found.items() if tag.startswith(network_tag(""))}
