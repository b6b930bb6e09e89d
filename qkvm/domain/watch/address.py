"""IP addresses of a domain's NICs, from the host and from the agent in the guest (virsh domifaddr)."""

from __future__ import annotations

import os
import socket
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
"""Seconds for each step with an agent that the user did not ask for by name."""

_AGAIN = 1.0
"""Seconds between two questions to the agent, or for an old address, while it is waited for an address."""

_DISCARD = 9
"""The port of RFC 863."""


def addresses(domain: Handle, *, sources: Sequence[str] = SOURCES, since: float = 0.0) -> list[Address]:
    """Return the IP addresses of the NICs, matched by MAC address, each from the first source that has it.

    An agent that doesn't answer at once is left out. Its addresses can't be trusted more than the guest;
    :func:`of_guest` returns all of them, with the guest's names of interfaces. With several sources, link-local
    addresses are left out.

    :param since: only addresses that were leased or have answered since then (seconds since 1970).
    """
    from qkvm.net.dhcp import address

    run = domain.live
    networks = {
        entry["mac"]: entry["source"] if entry["type"] == "network" else None for entry in run.devices("nics")
    }
    found = address.addresses(
        domain.tree, networks, [source for source in sources if source != "agent"], since=since
    )
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
    """Return the addresses that NICs of type user are offered, one of each family."""
    from qkvm.net.dhcp.address import Address

    return [
        Address(entry["mac"], ip, int(prefix or 0), "lease", "")
        for entry in entries
        for ip, _, prefix in [text.partition("/") for text in entry.get("offered", ())]
    ]


def _by_agent(domain: Handle) -> list[Address]:
    """Return the agent's addresses if it answers at once, without link-local ones."""
    run = domain.run
    # A guest without any open port has no agent; this check avoids loading the module for agents.
    if run is None or not run.open_ports():
        return []
    # A user who may only look at the domain has no access to its sockets.
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
    """Return whether others can reach the guest by an address: not a loopback's or link-local one."""
    group = ip.partition(":")[0]
    link_local = ip.startswith("169.254.") or (len(group) == 4 and group[:3] in ("fe8", "fe9", "fea", "feb"))
    return bool(ip) and not link_local and not ip.startswith("127.") and ip != "::1"


def of_guest(domain: Handle, *, within: float | None = None) -> list[Address]:
    """Return the addresses of all interfaces of the guest with its names for them (domifaddr --source agent).

    An interface without an address has one entry with the IP address ''.

    :param within: as in agent.session. :raises AgentError: there is no agent, or it doesn't answer.
    """
    from qkvm.domain.guest import info as guestinfo

    return guestinfo.addresses(guestinfo.interfaces(domain, within=within))


def wait(domain: Handle, *, sources: Sequence[str], interface: str | None, timeout: float) -> list[Address]:
    """Wait up to ``timeout`` s for a first address of this run; return them as :func:`addresses`, with their taps.

    A lease of an earlier run does not count until its address answers. With the agent as the only source return
    those of :func:`of_guest`.

    :param interface: only those of the NIC with that MAC address or interface name.
    :raises NotReached: none came in time; with a timeout of 0 all that are known are returned.
    :raises InvalidState: the domain has shut off meanwhile.
    """
    since = float(domain.live.record["started"]) if timeout else 0.0
    deadline = time.monotonic() + timeout
    asked = 0.0
    while True:
        now = time.monotonic()
        due = now - asked >= _AGAIN or now >= deadline
        asked = now if due else asked
        if list(sources) == ["agent"]:
            found = _of_guest_in_time(domain, interface, last=now >= deadline or not timeout) if due else []
        else:
            found = _named(domain, [one for one in sources if one != "agent" or due], interface, since)
        if not timeout or any(_leads_there(entry.ip) for entry in found):
            return found
        old = _ask_old(domain, sources, interface) if due else ""
        if now >= deadline:
            raise NotReached(
                f"no NIC has an address of this run after {timeout:g} s",
                asked="an address", reached=old or None, hint=old,
            )  # fmt: skip
        time.sleep(0.05)


def _ask_old(domain: Handle, sources: Sequence[str], interface: str | None) -> str:
    """Have the kernel ask for the addresses of earlier runs; the guest that still has one answers.

    Any packet makes it ask (ARP, RFC 4861); this one is empty, goes to the discard port, and to no gateway.

    :return: words for the first of these addresses.
    """
    before = [one for one in _named(domain, [one for one in sources if one != "agent"], interface, 0.0)
              if _leads_there(one.ip)]  # fmt: skip
    for one in before:
        with socket.socket(socket.AF_INET6 if ":" in one.ip else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            try:
                sock.sendto(b"", socket.MSG_DONTROUTE, (one.ip, _DISCARD))
            except OSError:
                # The host has no way there.
                continue
    return f"{before[0].ip} was its address in an earlier run, and does not answer" if before else ""


def _named(domain: Handle, sources: Sequence[str], interface: str | None, since: float) -> list[Address]:
    listed = nics.interfaces(domain)
    wanted = listed if interface is None else [nics.find(listed, interface)]
    taps = {nic.mac: nic.interface for nic in wanted}
    return [
        entry._replace(interface=taps[entry.mac])
        for entry in addresses(domain, sources=sources, since=since)
        if entry.mac in taps
    ]


def _of_guest_in_time(domain: Handle, interface: str | None, *, last: bool) -> list[Address]:
    """Return the agent's addresses of one interface or all; none if it has no usable one yet, unless ``last``."""
    try:
        found = of_guest(domain)
    except AgentError:
        if last:
            raise
        return []
    found = [entry for entry in found if interface in (None, entry.interface, entry.mac)]
    return found if last or any(_leads_there(entry.ip) for entry in found) else []
