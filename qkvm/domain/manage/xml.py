"""Describe a domain in libvirt's XML (virsh dumpxml), without its monitor."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qkvm.domain.device import actual
from qkvm.errors import HostError
from qkvm.host.node import accel
from qkvm.qemu.controllers import controller_id
from qkvm.spec import domain as spec
from qkvm.spec import toml
from qkvm.spec.libvirt import text
from qkvm.spec.libvirt.controller import alias_key
from qkvm.spec.libvirt.devices import Live
from qkvm.spec.snapshot import public

if TYPE_CHECKING:
    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run

_FIRST_VNC_PORT = 5900
"""TCP port of VNC's display 0."""

_SINGLE = {"balloon": "balloon0", "rng": "rng0", "video": "video0", "watchdog": "watchdog0", "vsock": "vsock0"}
"""Ids of the devices that a guest has at most one of (templates/parts/pci.j2)."""


def dump(domain: Handle, *, inactive: bool = False, secret: bool = False, migratable: bool = False) -> str:
    """Return a running domain's present description, else its definition.

    :param inactive: the definition of a running domain, too. :param secret: with passwords.
    :param migratable: leave out what belongs to this run.
    """
    definition, run = _now(domain, inactive=inactive)
    if run is None:
        return text.dumps(definition, accel=_accelerator(definition), secret=secret)
    live = None if inactive or migratable else _live(run, definition)
    return text.dumps(definition, accel=str(run.record["accel"]), live=live, secret=secret)


def plain(
    domain: Handle, *, inactive: bool = False, secret: bool = False, migratable: bool = False
) -> dict[str, Any]:
    """Return the same as :func:`dump` as plain dicts, lists and strings, without defaults."""
    definition, run = _now(domain, inactive=inactive)
    found = toml.to_plain(definition)
    if not secret:
        found = public(found)
    return found if run is None or inactive or migratable else {"id": run.id, **found}


def _now(domain: Handle, *, inactive: bool) -> tuple[spec.Domain, Run | None]:
    """Return the present definition and the run, or the stored one and None."""
    run = domain.live_run
    if run is None or (inactive and domain.is_persistent):
        return domain.definition, None
    return actual.definition(run), run


def _accelerator(definition: spec.Domain) -> str:
    """Return the accelerator that would run it here, or the definition's own if that is missing."""
    try:
        return accel.choose(definition.accel)[0]
    except HostError:
        return str(definition.accel)


def _live(run: Run, definition: spec.Domain) -> Live:
    nics, disks = run.devices("nics"), run.devices("disks")
    return Live(
        id=run.id,
        taps={entry["mac"]: entry["target"] for entry in nics},
        bridges={entry["mac"]: entry["bridge"] for entry in nics},
        aliases={
            **_SINGLE,
            **{alias_key(one): controller_id(one) for one in definition.controllers},
            **{entry["mac"]: entry["id"] for entry in nics},
            **{entry["target"]: entry["id"] for entry in disks},
            **{f"filesystem {entry['target']}": entry["id"] for entry in run.devices("filesystems")},
        },
        vnc_port=_vnc_port(run),
        vsock_cid=run.record.get("vsock_cid", 0),
    )


def _vnc_port(run: Run) -> int:
    """Return the port of the VNC server, 0 for none."""
    vnc = run.record.get("vnc")
    display = str(vnc["address"]).rpartition(":")[2] if vnc else ""
    return int(display) + _FIRST_VNC_PORT if display.isdigit() else 0
