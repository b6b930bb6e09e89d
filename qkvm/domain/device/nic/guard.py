"""Isolate a NIC from other guests, and filter what its guest sends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qkvm.domain.device.nic.status import by_grant
from qkvm.domain.run import write
from qkvm.net.firewall import guard
from qkvm.net.link import link
from qkvm.net.link.port import Port
from qkvm.spec import domain as spec
from qkvm.spec import toml

if TYPE_CHECKING:
    from qkvm.domain.run import Run
    from qkvm.paths import Tree


def port_of(nic: spec.Nic) -> Port:
    """Return the settings of a NIC's port on its bridge: isolation and VLANs."""
    if nic.vlan is None:
        return Port(isolated=nic.isolated)
    untagged = nic.vlan.native if nic.vlan.trunk else nic.vlan.tags[0]
    return Port(isolated=nic.isolated, vlans=nic.vlan.tags, untagged=untagged)


def own_addresses(tree: Tree, nic: spec.Nic) -> tuple[str, ...]:
    """Return the addresses that a NIC's filter lets through, besides those that follow from its MAC address.

    If the network's DHCP does not keep an address for it yet, it does from now on.

    :raises InvalidState: its address is not known.
    """
    if nic.type is not spec.NicType.NETWORK:
        return nic.ip
    from qkvm.net.network.network import Network

    network, found = Network.lookup(tree, nic.source), list(nic.ip)
    if nic.filter.needs_ipv4:
        wanted = next((text for text in nic.ip if ":" not in text), "")
        found.append(network.keep_address(nic.mac, wanted))
    definition = network.actual
    found += [host.ip for host in definition.hosts if host.mac == nic.mac and host.ip]
    if definition.interface6 is not None and definition.interface6.network.prefixlen == 64:
        found.append(guard.in_prefix(definition.interface6.network, nic.mac))
    return tuple(dict.fromkeys(found))


def learn(tree: Tree, definition: spec.Domain) -> dict[str, tuple[str, ...]]:
    """Return the own addresses of all NICs of a definition with a filter, by MAC; see :func:`own_addresses`."""
    return {nic.mac: own_addresses(tree, nic) for nic in definition.nics if nic.filter and not by_grant(nic)}


def apply(run: Run, entry: dict[str, Any], nic: spec.Nic, addresses: tuple[str, ...]) -> None:
    """Apply the filter of a NIC to the tap of its entry, or remove a former one."""
    if not nic.filter:
        release(entry)
        return write(run)
    # Recorded before it is made.
    entry["guard"] = guard.table_name(entry["target"])
    entry["own"] = list(addresses)
    write(run)
    return guard.apply(entry["target"], nic.filter, guard.own(nic.mac, addresses), link.domain_tag(run.name))


def apply_all(run: Run, addresses: dict[str, tuple[str, ...]]) -> None:
    """Apply the filters of a run that starts."""
    for entry in run.record["nics"]:
        if entry["mac"] in addresses:
            nic = toml.from_plain(entry["spec"], spec.Nic, "record")
            apply(run, entry, nic, addresses[nic.mac])


def release(entry: dict[str, Any]) -> None:
    """Remove the filter of an unplugged NIC; the caller writes the record."""
    entry.pop("own", None)
    table = entry.pop("guard", "")
    if table:
        guard.remove(table)


def forget(tree: Tree) -> None:
    """Release the addresses that DHCP keeps for NICs of domains that no longer exist."""
    from qkvm.domain.handle import Handle
    from qkvm.domain.run import live_runs
    from qkvm.errors import DefinitionError
    from qkvm.files import entries
    from qkvm.net.dhcp import reservations
    from qkvm.net.grant import handout

    networks = reservations.networks(tree)
    if not networks:
        return
    macs = {entry["mac"] for run in live_runs(tree) for entry in run.record["nics"]}
    for name in entries(tree.domain_definitions, ".toml"):
        try:
            macs |= {nic.mac for nic in Handle(tree, name).definition.nics}
        except DefinitionError:
            # A damaged definition may have any of them.
            return
    for network in networks:
        known = macs | handout.macs(tree, network)
        reservations.release(tree, network, known.__contains__)
