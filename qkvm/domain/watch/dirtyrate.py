"""Measure how fast a guest changes its memory (virsh domdirtyrate-calc)."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from qkvm import units
from qkvm.errors import InvalidState, InvalidValue, NotReached
from qkvm.qemu.quirks import Quirk

if TYPE_CHECKING:
    from qkvm.domain.handle import Handle
    from qkvm.qmp.session import Session

MODES = ("page-sampling", "dirty-bitmap", "dirty-ring")
"""Ways to measure (QMP's DirtyRateMeasureMode)."""

SECONDS = range(1, 61)

_GRACE = 10.0
"""Seconds that a measurement may take longer than asked; sampling a large guest takes some."""


def calculate(domain: Handle, *, seconds: int = 1, mode: str = "page-sampling", wait: bool = False) -> int | None:
    """Start a measurement, and with ``wait`` return its result in MiB per second.

    :param seconds: how long it takes, 1 to 60.
    :raises InvalidState: this mode needs KVM.
    :raises NotReached: the measurement has not begun, or not ended in time.
    """
    if seconds not in SECONDS:
        raise InvalidValue(f"seconds={seconds} is invalid, please choose value within [1, 60]")
    if mode not in MODES:
        raise InvalidValue(f"Unknown calculation mode '{units.printable(mode)}'", hint=", ".join(MODES))
    with domain.lock():
        run = domain.live
        needs_kvm = mode == "dirty-ring" or (mode == "dirty-bitmap" and run.needs(Quirk.DIRTY_RATE))
        if needs_kvm and run.record["accel"] != "kvm":
            raise InvalidState(f"mode {mode} needs KVM, and the guest runs under TCG", hint="--mode page-sampling")
        with domain.monitor() as session:
            session.execute("calc-dirty-rate", {"calc-time": seconds, "mode": mode})
            _await(session, ("measuring", "measured"), _GRACE)
            if not wait:
                return None
            found = _await(session, ("measured",), seconds + _GRACE)
    return int(found["dirty-rate"])


def _await(session: Session, states: tuple[str, ...], timeout: float) -> dict[str, Any]:
    deadline = time.monotonic() + timeout
    while (found := session.execute("query-dirty-rate"))["status"] not in states:
        if time.monotonic() >= deadline:
            raise NotReached(
                f"the measurement is {found['status']} after {timeout:g} s",
                asked=states[-1],
                reached=found["status"],
            )
        time.sleep(0.01)
    return dict(found)
