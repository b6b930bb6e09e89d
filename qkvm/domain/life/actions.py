"""What a guest's power-off, reboot or crash leads to (virsh set-lifecycle-action)."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from msgspec.structs import replace

from qkvm.domain import definition as definitions
from qkvm.domain.definition import together
from qkvm.domain.run import write
from qkvm.errors import InvalidValue
from qkvm.qemu import launch
from qkvm.scope import Scope
from qkvm.spec import domain as spec
from qkvm.spec import toml
from qkvm.units import printable

if TYPE_CHECKING:
    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run
    from qkvm.files import Undo

_KINDS: dict[str, type[StrEnum]] = {
    "poweroff": spec.OnPoweroff,
    "reboot": spec.OnReboot,
    "crash": spec.OnCrash,
}

_EVENTS = {"poweroff": "shutdown", "reboot": "reboot", "crash": "panic"}
"""QEMU's names of these events."""


def set_action(domain: Handle, kind: str, action: str, *, scope: Scope = Scope.CURRENT) -> None:
    """Set what an event leads to: live (QMP set-action), in the definition, or both.

    :param kind: poweroff, reboot or crash. :param action: destroy, restart, preserve, ignore; not all for each.
    """
    if kind not in _KINDS:
        raise InvalidValue(f"Invalid lifecycle type '{printable(kind)}'.", hint=", ".join(_KINDS))
    try:
        chosen = _KINDS[kind](action)
    except ValueError:
        raise InvalidValue(
            f"Invalid lifecycle action '{printable(action)}'.", hint=f"of {kind}: {', '.join(_KINDS[kind])}"
        ) from None

    def edit(present: spec.Domain) -> spec.Domain:
        return replace(present, **{f"on_{kind}": chosen})

    def live(run: Run, undo: Undo) -> None:
        changed = edit(definitions.started_with(run.record))
        event = _EVENTS[kind]
        if kind == "reboot":
            # A QEMU that would not survive a reset ends at a reboot; that must stay so.
            run.require_sound()
        with domain.monitor() as session:
            session.execute(
                "set-action", {event: launch.actions(changed).get(event, launch.DEFAULT_ACTIONS[event])}
            )
        run.record["definition"] = toml.to_plain(changed)
        write(run)

    together(domain, scope, live, edit)
