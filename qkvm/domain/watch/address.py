"""IP addresses of a domain: what the host knows of its NICs, and what the agent in the guest says."""

from __future__ import annotations

import os
import time

from qkvm.domain.device.nic import status as nics
from qkvm.errors import AgentError, Busy, InvalidState, NotReached

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from qkvm.domain.handle import Handle
    from qkvm.net.dhcp.address import Address

SOURCES = ("lease", "arp", "agent")
"""DHCP leases, the kernel's neighbour table, and the agent in the guest."""

_WITHIN = 0.5
"""Seconds for each step of an agent that nobody has asked for by name."""

_AGAIN = 1.0
"""Seconds between two questions to the agent while a first address is awaited."""


def addresses(domain: Handle, *, sources: Sequence[str] = SOURCES) -> list[Address]:
    """IP addresses of the NICs (virsh domifaddr), matched by MAC address, each from the first source with it.

    The agent is asked where there is one, and left out where it doesn't answer at once. Its addresses are the
    guest's word. :func:`of_guest` has them all, under the guest's names. Where sources are merged, what holds on
    one link only is left out.
    """
    from qkvm.net.dhcp import address

    run = domain.live
    networks = {
        entry["mac"]: entry["source"] if entry["type"] == "network" else None for entry in run.devices("nics")
    }
    found = address.addresses(domain.tree, networks, [source for source in sources if source != "agent"])
    if "lease" in sources:
        found += _offered(run.devices("nics"))
    if len(sources) > 1:
        found = [entry for entry in found if _leads_there(entry.ip)]
    known = {(entry.mac, entry.ip) for entry in found}
    if "agent" in sources:
        found += [
            entry for entry in _by_agent(domain) if entry.mac in networks and (entry.mac, entry.ip) not in known
        ]
    return found


def _offered(entries: list[dict[str, Any]]) -> list[Address]:
    """The one address of each family that a NIC of type user is given when it asks."""
    from qkvm.net.dhcp.address import Address

    return [
        Address(entry["mac"], ip, int(prefix or 0), "lease", "")
        for entry in entries
        for ip, _, prefix in [text.partition("/") for text in entry.get("offered", ())]
    ]


def _by_agent(domain: Handle) -> list[Address]:
    """What the agent says without being waited for; addresses that hold on one link only are left out."""
    run = domain.run
    # A guest without any open port has no agent: that much is known without loading what speaks with one.
    if run is None or not run.open_ports():
        return []
    # Who may only look at the domain does not get to its sockets.
    if not os.access(run.agent, os.W_OK):
        return []
    from qkvm.domain.guest import agent

    if not agent.is_there(domain):
        return []
    try:
        return [entry for entry in of_guest(domain, within=_WITHIN) if _leads_there(entry.ip)]
    except (AgentError, Busy, InvalidState):
        return []


def _leads_there(ip: str) -> bool:
    """Whether others could reach the guest by an address: not its loopback's, nor one of a single link."""
    group = ip.partition(":")[0]
    link_local = ip.startswith("169.254.") or (len(group) == 4 and group[:3] in ("fe8", "fe9", "fea", "feb"))
    return bool(ip) and not link_local and not ip.startswith("127.") and ip != "::1"


def of_guest(domain: Handle, *, within: float | None = None) -> list[Address]:
    """Every interface of the guest with its addresses, under the guest's names (virsh domifaddr --source agent).

    An interface without any has one entry with the IP address ''.

    :param within: as in agent.session. :raises AgentError: there is no agent, or it doesn't answer.
    """
    from qkvm.domain.guest import info as guestinfo

    return guestinfo.addresses(guestinfo.interfaces(domain, within=within))


def wait(domain: Handle, *, sources: Sequence[str], interface: str | None, timeout: float) -> list[Address]:
    """Addresses as :func:`addresses` gives them, with their taps, waiting up to ``timeout`` s for a first.

    With the agent as the only source they are those of :func:`of_guest`.

    :param interface: only those of the NIC with that MAC address or interface name.
    :raises NotReached: none came in time; with a timeout of 0 there may be none.
    """
    deadline = time.monotonic() + timeout
    asked = 0.0
    while True:
        now = time.monotonic()
        due = now - asked >= _AGAIN or now >= deadline
        asked = now if due else asked
        if list(sources) == ["agent"]:
            found = _of_guest_in_time(domain, interface, last=now >= deadline or not timeout) if due else []
        else:
            found = _named(domain, [one for one in sources if one != "agent" or due], interface)
        if not timeout or any(_leads_there(entry.ip) for entry in found):
            return found
        if now >= deadline:
            raise NotReached(f"no NIC has an address after {timeout:g} s", asked="an address", reached=None)
        time.sleep(0.05)


def _named(domain: Handle, sources: Sequence[str], interface: str | None) -> list[Address]:
    listed = nics.interfaces(domain)
    wanted = listed if interface is None else [nics.find(listed, interface)]
    taps = {nic.mac: nic.interface for nic in wanted}
    return [
        entry._replace(interface=taps[entry.mac])
        for entry in addresses(domain, sources=sources)
        if entry.mac in taps
    ]


def _of_guest_in_time(domain: Handle, interface: str | None, *, last: bool) -> list[Address]:
    """What the agent says of one interface or all; nothing where it isn't up yet and this is not the last try."""
    try:
        found = of_guest(domain)
    except AgentError:
        if last:
            raise
        return []
    found = [entry for entry in found if interface in (None, entry.interface, entry.mac)]
    return found if last or any(_leads_there(entry.ip) for entry in found) else []
