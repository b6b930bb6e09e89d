"""Limit the bandwidth of a NIC (virsh domiftune), at a start, a hot plug, and while it runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from qkvm.domain import definition as definitions
from qkvm.domain.device.nic import status
from qkvm.domain.run import write
from qkvm.errors import InvalidState, InvalidValue
from qkvm.files import Undo
from qkvm.net.link import bandwidth, link
from qkvm.scope import Scope
from qkvm.spec import domain as spec
from qkvm.spec import toml
from qkvm.units import printable

if TYPE_CHECKING:
    from typing import Any

    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run

DIRECTIONS = ("inbound", "outbound")
"""Inbound is what the guest receives, outbound what it sends."""

Limits = dict[str, "spec.Bandwidth | None"]


def parse(text: str, direction: str) -> spec.Bandwidth | None:
    """Parse virsh's form of a limit: average[,peak[,burst[,floor]]] in KiB a second and KiB; 0 is none.

    :raises InvalidValue: it has another form, or a floor, which needs a network that distributes bandwidth.
    """
    words = text.split(",")
    if not 1 <= len(words) <= 4 or not all(word.isascii() and (word.isdigit() or not word) for word in words):
        raise InvalidValue(f"{direction} format is incorrect: '{printable(text)}'", hint="average,peak,burst")
    average, peak, burst, floor = (int(word or 0) for word in (*words, "", "", "")[:4])
    if floor:
        raise InvalidValue(
            f"{direction} floor is not supported", hint="networks reserve no bandwidth for single NICs"
        )
    if not average:
        if peak or burst:
            raise InvalidValue(f"{direction} average is mandatory")
        return None
    band = spec.Bandwidth(average=average, peak=peak, burst=burst)
    spec.check_bandwidth(band, direction)
    return band


def limits(domain: Handle, interface: str, *, scope: Scope = Scope.CURRENT) -> Limits:
    """Return the limits of the NIC with that interface name or MAC address.

    :raises NotFound: there is none.
    """
    wanted = domain.resolve(scope)
    if wanted.live:
        return _of_entry(_entry(domain.live, domain, interface))
    mac = status.find(status.interfaces(domain, inactive=True), interface).mac
    nic = next(nic for nic in domain.definition.nics if nic.mac == mac)
    return {name: getattr(nic, name) for name in DIRECTIONS}


def _entry(run: Run, domain: Handle, interface: str) -> dict[str, Any]:
    mac = status.find(status.interfaces(domain), interface).mac
    return next(entry for entry in run.devices("nics") if entry["mac"] == mac)


def _of_entry(entry: dict[str, Any]) -> Limits:
    nic = toml.from_plain(entry["spec"], spec.Nic, "record")
    return {name: getattr(nic, name) for name in DIRECTIONS}


def set_limits(domain: Handle, interface: str, changes: Limits, *, scope: Scope = Scope.CURRENT) -> None:
    """Change limits of a NIC in the running guest, the definition, or both; those not in ``changes`` stay.

    :raises InvalidState: it has no tap. :raises HostError: the kernel does not support it.
    """
    with domain.lock(), Undo() as undo:
        wanted = domain.resolve(scope)
        mac = status.find(status.interfaces(domain, inactive=not wanted.live), interface).mac
        if wanted.config:
            status.find(status.interfaces(domain, inactive=True), mac)
        if wanted.live:
            run = domain.live
            entry = _entry(run, domain, mac)
            before = _of_entry(entry)
            undo.add(apply, domain, run, entry, before)
            apply(domain, run, entry, before | changes)
        if wanted.config:
            definitions.change(domain, lambda present: _with(present, mac, changes))
        undo.commit()


def _with(present: spec.Domain, mac: str, changes: Limits) -> spec.Domain:
    listed = (replace(nic, **changes) if nic.mac == mac else nic for nic in present.nics)
    return replace(present, nics=tuple(listed))


def apply(domain: Handle, run: Run, entry: dict[str, Any], wanted: Limits) -> None:
    """Limit the tap of a NIC's entry, and record the limits there."""
    if not entry["target"]:
        raise InvalidState(f"NIC {entry['mac']} has no tap to limit")
    shaper = entry.get("shaper") or bandwidth.shaper_name(entry["target"])
    entry["spec"] = {
        **{name: value for name, value in entry["spec"].items() if name not in DIRECTIONS},
        **{name: toml.to_plain(band) for name, band in wanted.items() if band is not None},
    }
    leaving, coming = wanted["inbound"], wanted["outbound"]
    if entry["type"] == "direct":
        # A macvtap sends what the guest sends; a tap receives it.
        leaving, coming = coming, leaving
    if coming is not None:
        # Recorded before it is made.
        entry["shaper"] = shaper
    write(run)
    bandwidth.limit(entry["target"], leaving, coming, shaper=shaper, alias=link.domain_tag(domain.name))
    if coming is None and entry.pop("shaper", None):
        write(run)


def apply_all(domain: Handle, run: Run) -> None:
    """Limit the taps of a run that starts as its definition says."""
    for entry in run.record["nics"]:
        wanted = _of_entry(entry)
        if any(wanted.values()):
            apply(domain, run, entry, wanted)


def release(name: str, entry: dict[str, Any]) -> None:
    """Remove the ifb of an unplugged NIC, which outlives its tap; ``name`` is the domain's."""
    shaper = entry.pop("shaper", "")
    if shaper:
        bandwidth.remove(shaper, link.domain_tag(name))
