"""Addresses that DHCP keeps for NICs whose filter must know them before the guest asks.

libvirt's daemon reads the guest's DHCP traffic for that. Here dnsmasq learns it before: the address is a
``dhcp-host`` in its configuration, so it is the same however the guest asks, and stays the same.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from qkvm.errors import InvalidState, InvalidValue
from qkvm.files import Undo
from qkvm.host import record
from qkvm.net import run
from qkvm.net.dhcp import dnsmasq, reservations
from qkvm.net.dhcp.lease import leases as leases_in

if TYPE_CHECKING:
    from qkvm.paths import Tree
    from qkvm.spec.network import Network


def keep(tree: Tree, current: dict[str, Any], mac: str, wanted: str = "") -> str:
    """Return the IPv4 address that an active network's DHCP gives to a MAC from now on; call it under its lock.

    It is that of the network's static host, else the one kept before, else ``wanted`` or a free one. dnsmasq
    learns of a new one by a restart, which takes some milliseconds.

    :param current: the network's record. :raises InvalidState: no DHCP, or no address is left.
    :raises InvalidValue: ``wanted`` is another's.
    """
    definition = run.definition_of(current)
    before, static = reservations.kept(tree, definition), reservations.static_hosts(definition)
    found = static.get(mac) or before.get(mac, "")
    if found and wanted in ("", found):
        return found
    if mac in static:
        raise InvalidValue(f"network '{definition.name}' gives {mac} the address {found}, not {wanted}")
    if wanted and (definition.dhcp is None or not reservations.is_host(definition, wanted)):
        return wanted
    if definition.dhcp is None:
        raise InvalidState(
            f"network '{definition.name}' gives no addresses by DHCP", hint='ip = ["ADDRESS"] in the NIC'
        )
    with Undo() as undo:
        # dnsmasq must give no address away while one is chosen.
        undo.add(_restart, tree, definition, current, before)
        dnsmasq.stop_recorded(tree, current)
        taken = {ip: other for other, ip in {**before, **static}.items() if other != mac}
        leases = {lease.ip: lease.mac for lease in leases_in(tree.leases(definition.name))}
        taken |= {ip: other for ip, other in leases.items() if other != mac}
        if wanted in taken:
            raise InvalidValue(f"address {wanted} of {mac} is kept for or used by {taken[wanted]}")
        own = [ip for ip, other in leases.items() if other == mac and reservations.is_host(definition, ip)]
        chosen = wanted or next(iter(own), "") or _free(definition, mac, taken)
        _restart(tree, definition, current, {**before, mac: chosen})
        undo.commit()
    return chosen


def _free(definition: Network, mac: str, taken: Iterable[str]) -> str:
    """Return a free address of the range; the MAC determines where the search begins, as in dnsmasq."""
    from ipaddress import IPv4Address

    assert definition.dhcp is not None
    first, last = (int(IPv4Address(text)) for text in (definition.dhcp.start, definition.dhcp.end))
    size, begin, used = last - first + 1, zlib.crc32(mac.encode()), set(taken)
    for step in range(size):
        candidate = str(IPv4Address(first + (begin + step) % size))
        if candidate not in used:
            return candidate
    raise InvalidState(
        f"network '{definition.name}' has no free address left for {mac}",
        hint="a longer range; qkvm gc forgets addresses of NICs that are gone",
    )


def _restart(tree: Tree, definition: Network, current: dict[str, Any], wanted: dict[str, str]) -> None:
    """Start dnsmasq with these addresses kept, and record that."""
    reservations.write(tree, definition.name, wanted)
    dnsmasq.stop_recorded(tree, current)
    current["dnsmasq"] = None
    record.write(run.record_path(tree, definition.name), current)
    dnsmasq.serve(tree, definition, current)
