"""Fill in what a definition leaves to qkvm when it is defined: subnets, ranges, the bridge's name."""

from __future__ import annotations

import secrets
import tomllib
from collections.abc import Callable, Iterable
from ipaddress import IPv4Interface, IPv6Address, IPv6Interface
from typing import Any

from qkvm.errors import AlreadyExists, QkvmError
from qkvm.net.place import Subnet, free_subnet
from qkvm.spec import toml
from qkvm.spec.network import AUTO

_PREFIX = 24
_DHCP6 = 0x100, 0x1FF
"""The hosts of a /64 that DHCPv6 gives where qkvm chooses the range."""


def resolve(
    text: str,
    path: str,
    *,
    stored: Callable[[str], bytes],
    used: Callable[[str], Iterable[tuple[Subnet, str]]],
    free_bridge: Callable[[], str],
) -> str:
    """Return TOML text with each 'auto' and a missing bridge filled in; comments stay.

    A value that the network has already is kept.

    :param stored: gives the text of a network by name. :param used: gives the subnets that are taken, without that
        network's, each with words for its owner. :param free_bridge: gives a name for the bridge.
    """
    plain = toml.loads(text, dict, path)
    name = str(plain.get("name", ""))
    known = _plain(stored, name)
    if "bridge" not in plain and plain.get("mode") != "bridge":
        plain["bridge"] = str(known.get("bridge") or free_bridge())
        # In front of everything else it is in no table.
        text = f'bridge = "{plain["bridge"]}"\n{text}'
    changes: dict[tuple[str, ...], str] = {}
    if plain.get("address") == AUTO:
        changes["address",] = str(known.get("address") or _free(name, used(name)))
    six = _table(plain, "ipv6")
    if six.get("address") == AUTO:
        changes["ipv6", "address"] = str(_table(known, "ipv6").get("address") or _unique_local())
    _ranges(plain, six, changes)
    return _written(text, plain, changes) if changes else text


def _plain(stored: Callable[[str], bytes], name: str) -> dict[str, Any]:
    """Return a network's present definition as plain data; empty where there is none or it is damaged."""
    try:
        return tomllib.loads(stored(name).decode())
    except (ValueError, QkvmError):
        return {}


def _table(plain: dict[str, Any], key: str) -> dict[str, Any]:
    found = plain.get(key)
    return found if isinstance(found, dict) else {}


def _free(name: str, taken: Iterable[tuple[Subnet, str]]) -> str:
    subnet = free_subnet(taken, _PREFIX)
    if subnet is None:
        raise AlreadyExists(f"network '{name}': no /{_PREFIX} is free", hint="give it an address")
    return f"{subnet[1]}/{_PREFIX}"


def _unique_local() -> str:
    """Return the first host of a unique local prefix with a random global id (RFC 4193, 3.2)."""
    address = IPv6Address(b"\xfd" + secrets.token_bytes(5) + bytes(9) + b"\x01")
    return f"{address}/64"


def _ranges(plain: dict[str, Any], six: dict[str, Any], changes: dict[tuple[str, ...], str]) -> None:
    """Fill in the ends of ranges: all hosts on the longer side of the host's own address."""
    try:
        dhcp, address = _table(plain, "dhcp"), changes.get(("address",)) or str(plain.get("address", ""))
        if AUTO in (dhcp.get("start"), dhcp.get("end")):
            own = IPv4Interface(address)
            first, last = own.network[1], own.network[-2]
            upper = int(last) - int(own.ip) >= int(own.ip) - int(first)
            ends = (own.ip + 1, last) if upper else (first, own.ip - 1)
            _fill(dhcp, ("dhcp",), (str(ends[0]), str(ends[1])), changes)
        dhcp6, address6 = _table(six, "dhcp"), changes.get(("ipv6", "address")) or str(six.get("address", ""))
        if AUTO in (dhcp6.get("start"), dhcp6.get("end")):
            subnet = IPv6Interface(address6).network
            _fill(dhcp6, ("ipv6", "dhcp"), (str(subnet[_DHCP6[0]]), str(subnet[_DHCP6[1]])), changes)
    except (ValueError, IndexError):
        # A wrong address is refused, with its place, when the whole is read.
        return


def _fill(
    dhcp: dict[str, Any], keys: tuple[str, ...], ends: tuple[str, str], changes: dict[tuple[str, ...], str]
) -> None:
    for key, value in zip(("start", "end"), ends, strict=True):
        if dhcp.get(key) == AUTO:
            changes[(*keys, key)] = value


def _written(text: str, plain: dict[str, Any], changes: dict[tuple[str, ...], str]) -> str:
    """Return the text with some values replaced; as a new text where tomlkit can't do that."""
    import tomlkit

    document: Any = tomlkit.parse(text)
    for keys, value in changes.items():
        for target in (document, plain):
            for key in keys[:-1]:
                target = target[key]
            target[keys[-1]] = value
    changed = tomlkit.dumps(document)
    try:
        if tomllib.loads(changed) == plain:
            return changed
    except tomllib.TOMLDecodeError:
        pass
    return tomlkit.dumps(plain)
