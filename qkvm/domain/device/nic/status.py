"""List and find a domain's NICs and their counters, and make their entries in the record."""

from __future__ import annotations

import os

from qkvm.errors import InvalidState, NotFound
from qkvm.net.link import table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from qkvm.domain.handle import Handle
    from qkvm.paths import Tree
    from qkvm.spec import domain as spec


class NicStatus:
    """A NIC as domiflist shows it; ``interface`` is '-' without a tap (not running, or type user)."""

    __slots__ = ("interface", "link", "mac", "model", "source", "type")

    def __init__(self, entry: dict[str, Any]) -> None:
        self.interface = str(entry.get("target") or "-")
        self.type = str(entry["type"])
        self.source = str(entry["source"] or "-")
        self.model = str(entry["model"])
        self.mac = str(entry["mac"])
        self.link = bool(entry["link"])


def interfaces(domain: Handle, *, inactive: bool = False) -> list[NicStatus]:
    """Return the NICs of the running guest, else or with ``inactive`` those of the definition."""
    run = domain.live_run
    if run is not None and not inactive:
        return [NicStatus(entry) for entry in run.devices("nics")]
    return [
        NicStatus({"type": nic.type, "source": nic.source, "model": nic.model, "mac": nic.mac, "link": nic.link})
        for nic in domain.definition.nics
    ]


def free_slots(domain: Handle) -> int | None:
    """Return how many more devices can be plugged while it runs; None if it does not run or can plug none."""
    run = domain.live_run
    if run is None or not run.record["slots"]:
        return None
    used = run.used_places()
    return sum(slot not in used for slot in run.record["slots"])


def nic_entry(ident: str, place: str, nic: spec.Nic, tap: str, bridge: str, *, since: int) -> dict[str, Any]:
    """Return a NIC's entry for the record; ``since`` is the journal's length when it was plugged."""
    from qkvm.spec import toml

    return {
        "id": ident, "since": since, "place": place, "mac": nic.mac, "type": str(nic.type), "source": nic.source,
        "model": str(nic.model), "target": tap, "bridge": bridge, "link": nic.link, "spec": toml.to_plain(nic),
    }  # fmt: skip


def by_grant(nic: spec.Nic) -> bool:
    """Return whether root's helper makes its tap, filtered and plugged: users can't do that themselves."""
    return nic.type == "network" and os.geteuid() != 0


def bridge_for(tree: Tree, nic: spec.Nic) -> str:
    """Return the bridge to plug a NIC into; '' for types user and direct, and where root's helper plugs it.

    :raises NotFound: no such network or bridge. :raises InvalidState: the network is not active.
    """
    if nic.type == "user" or by_grant(nic):
        return ""
    if nic.type == "direct":
        if not table.present(nic.source):
            from qkvm.net.link.macvtap import no_source

            raise no_source(nic.source)
        return ""
    if nic.type == "network":
        from qkvm.net.network.handle import bridge_of

        return bridge_of(tree, nic.source)
    if not table.present(nic.source):
        raise NotFound(
            f"Cannot get interface MTU on '{nic.source}': No such device",
            kind="bridge",
            name=nic.source,
            hint="the bridge must exist: ip link add NAME type bridge",
        )
    return nic.source


def find(listed: list[NicStatus], text: str) -> NicStatus:
    """Return the NIC with that MAC address or interface name.

    :raises NotFound: none has it.
    """
    for nic in listed:
        if text.lower().replace("-", ":") == nic.mac or (text == nic.interface != "-"):
            return nic
    raise NotFound(f"Interface (dev: {text}) not found", kind="interface", name=text, hint="domiflist shows them")


def counters(domain: Handle, interface: str) -> dict[str, int]:
    """Return bytes, packets, errors and drops from the guest's view (virsh domifstat)."""
    domain.live  # noqa: B018  raises where it does not run
    nic = find(interfaces(domain), interface)
    if nic.interface == "-":
        raise InvalidState(f"NIC {nic.mac} has no tap, and QEMU counts nothing for it")
    seen = table.seen_by_guest(table.counters(nic.interface), macvtap=nic.type == "direct")
    return {
        "rx_bytes": seen.rx_bytes,
        "rx_packets": seen.rx_packets,
        "rx_errs": seen.rx_errors,
        "rx_drop": seen.rx_dropped,
        "tx_bytes": seen.tx_bytes,
        "tx_packets": seen.tx_packets,
        "tx_errs": seen.tx_errors,
        "tx_drop": seen.tx_dropped,
    }
