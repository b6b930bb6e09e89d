"""Bridges of networks: made with the host's addresses on them, found by their tag, removed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from qkvm.errors import AlreadyExists, HostError, InvalidValue, NotFound
from qkvm.net.link import sysctl
from qkvm.net.link.link import connection, kind, lookup, network_tag, words
from qkvm.net.link.table import no_link

if TYPE_CHECKING:
    from qkvm.spec.dhcp import Interface

_IFA_F_NODAD = 0x02
"""linux/if_addr.h: no duplicate address detection (RFC 4862, section 5.4)."""

_IFF_UP = 0x1
"""linux/if.h."""


def make(
    name: str, addresses: Sequence[Interface], mac: str, alias: str, *, mtu: int = 0, ipr: Any = None
) -> None:
    """Make a bridge with the host's addresses on it and set it up; nothing stays where a step fails.

    :param mac: fixed, so that ports do not change it. :param mtu: 0 leaves it to the ports.
    :raises AlreadyExists: there is a link of that name, whosever it is.
    """
    with connection(ipr) as route, words(f"cannot make bridge {name}"):
        if lookup(route, name) is not None:
            raise AlreadyExists(f"interface {name} exists already", hint="another bridge name for the network")
        route.link("add", ifname=name, kind="bridge", address=mac, br_stp_state=0, br_forward_delay=0)
        # The kernel ignores an ifalias when it makes a link, and forgets link addresses that come before up.
        made = lookup(route, name)
        if made is None:
            raise no_link(name)
        try:
            route.link("set", index=made["index"], ifalias=alias, **({"mtu": mtu} if mtu else {}))
            settle(name, addresses, ipr=route)
        except BaseException:
            route.link("del", index=made["index"])
            raise


def tag(name: str, alias: str, *, ipr: Any = None) -> None:
    """Give a bridge its tag. :raises NotFound: there is no such link."""
    with connection(ipr) as route, words(f"cannot tag bridge {name}"):
        found = lookup(route, name)
        if found is None:
            raise no_link(name)
        route.link("set", index=found["index"], ifalias=alias)


def settle(name: str, addresses: Sequence[Interface], *, ipr: Any = None) -> None:
    """Give a bridge those of its addresses that it lacks, and set it up."""
    from socket import AF_INET6

    with connection(ipr) as route, words(f"cannot set up bridge {name}"):
        found = lookup(route, name)
        if found is None:
            raise no_link(name)
        _rule_ipv6(name, wanted=any(one.version == 6 for one in addresses))
        present = addresses_of(name, ipr=route)
        for one in addresses:
            if one in present:
                continue
            if one.version == 4:
                extra: dict[str, Any] = {"broadcast": str(one.network.broadcast_address)}
            else:
                # Nobody else can have it: a bridge without ports would wait for ever to find that out.
                extra = {"family": AF_INET6, "flags": _IFA_F_NODAD}
            route.addr(
                "add", index=found["index"], address=str(one.ip), prefixlen=one.network.prefixlen, **extra
            )  # fmt: skip
        route.link("set", index=found["index"], state="up")


def addresses_of(name: str, *, ipr: Any = None) -> list[Interface]:
    """The host's addresses on a link, but for those that the kernel made itself."""
    from ipaddress import ip_interface

    with connection(ipr) as route, words(f"cannot read the addresses of {name}"):
        found = lookup(route, name)
        listed = [
            ip_interface(f"{item.get_attr('IFA_LOCAL') or item.get_attr('IFA_ADDRESS')}/{item['prefixlen']}")
            for item in (route.get_addr(index=found["index"]) if found is not None else ())
            if item["index"] == found["index"]
        ]  # fmt: skip
    return [one for one in listed if not one.ip.is_link_local]


def is_up(name: str, *, ipr: Any = None) -> bool:
    """Whether a link is there and set up."""
    with connection(ipr) as route, words(f"cannot read {name}"):
        found = lookup(route, name)
        return found is not None and bool(found["flags"] & _IFF_UP)


def _rule_ipv6(name: str, *, wanted: bool) -> None:
    """Keep the host from giving itself a link-local address on a bridge whose network has no IPv6.

    One that has it is a router there, and takes no router advertisements from its guests.
    """
    for key, value in (("accept_ra", "0"), ("disable_ipv6", "0" if wanted else "1")):
        sysctl.write(f"net/ipv6/conf/{name}/{key}", value, optional=not wanted)


def remove(name: str, alias: str, *, mac: str = "", ipr: Any = None) -> bool:
    """Remove a bridge of ours; False where it is gone already.

    :param mac: what the record says it was made with; it tells a bridge that a crash left without its tag.
    :raises HostError: a link of that name is not ours.
    """
    with connection(ipr) as route, words(f"cannot remove bridge {name}"):
        found = lookup(route, name)
        if found is None:
            return False
        tag = found.get_attr("IFLA_IFALIAS") or ""
        untagged = not tag and bool(mac) and found.get_attr("IFLA_ADDRESS") == mac
        if kind(found) != "bridge" or not (tag == alias or untagged):
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
        if found is None or kind(found) != "bridge":
            return False
        tag = found.get_attr("IFLA_IFALIAS") or ""
        return tag == alias or (not tag and bool(mac) and found.get_attr("IFLA_ADDRESS") == mac)


def ports(bridge: str, *, ipr: Any = None) -> list[str]:
    """The links on a bridge, sorted by name. :raises NotFound: there is no such bridge."""
    with connection(ipr) as route, words(f"cannot list the ports of {bridge}"):
        master = lookup(route, bridge)
        if master is None:
            raise NotFound(f"no bridge {bridge} on this host", kind="bridge", name=bridge)
        return sorted(
            link.get_attr("IFLA_IFNAME")
            for link in route.get_links()
            if link.get_attr("IFLA_MASTER") == master["index"]
        )


def require(name: str, *, ipr: Any = None) -> None:
    """See that there is a bridge of that name.

    :raises NotFound: there is none. :raises InvalidValue: the link of that name is no bridge.
    """
    with connection(ipr) as route, words(f"cannot read {name}"):
        found = lookup(route, name)
    if found is None:
        raise NotFound(f"no bridge {name} on this host", kind="bridge", name=name)
    if kind(found) != "bridge":
        raise InvalidValue(f"interface {name} is not a bridge")


def tagged(*, ipr: Any = None) -> dict[str, str]:
    """Name and tag of every network bridge that any qkvm made in this network namespace."""
    with connection(ipr) as route, words("cannot list the links"):
        found = {link.get_attr("IFLA_IFNAME"): link.get_attr("IFLA_IFALIAS") or "" for link in route.get_links()}
    return {name: tag for name, tag in found.items() if tag.startswith(network_tag(""))}
