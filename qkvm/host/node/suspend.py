"""Suspend this host for some time (virsh nodesuspend).

The alarm that wakes it is set before, and unset where suspending fails: without an alarm, the host sleeps until
somebody presses its button.
"""

from __future__ import annotations

import os
import time

from qkvm.errors import HostError, InvalidValue
from qkvm.files import Undo
from qkvm.host.node import sysfs

DURATION_MINIMUM = 60
"""Seconds; a shorter time could be over before the host sleeps."""

_TARGETS = {"mem": "Suspend-to-RAM", "disk": "Suspend-to-Disk", "hybrid": "Hybrid-Suspend"}


def supported(root: str = "") -> list[str]:
    """Return which of mem, disk and hybrid this kernel can do (Documentation/admin-guide/pm/sleep-states.rst).

    Hybrid suspends to disk, and then to RAM instead of powering off.
    """
    states = (sysfs.text(f"{root}/sys/power/state") or "").split()
    modes = (sysfs.text(f"{root}/sys/power/disk") or "").replace("[", "").replace("]", "").split()
    found: list[str] = [target for target in ("mem", "disk") if target in states]
    return [*found, "hybrid"] if "disk" in found and "suspend" in modes else found


def suspend(target: str, duration: int, root: str = "") -> None:
    """Suspend for ``duration`` seconds; return when the host is awake again.

    :raises InvalidValue: no such target, or too short. :raises HostError: this host can't.
    """
    if target not in _TARGETS:
        raise InvalidValue("Invalid target", hint="mem, disk or hybrid")
    if duration < DURATION_MINIMUM:
        words = f"invalid argument: a suspend of {duration} s is too short"
        raise InvalidValue(words, hint=f"{DURATION_MINIMUM} seconds or more")
    if target not in supported(root):
        states = sysfs.text(f"{root}/sys/power/state") or "none"
        hint = f"sleep states of this host's kernel: {states}"
        raise HostError(f"argument unsupported: {_TARGETS[target]}", hint=hint)
    alarm = _alarm(root)
    with Undo() as undo:
        # A set alarm can't be overwritten, only unset (Documentation/admin-guide/rtc.rst).
        sysfs.write(alarm, 0, "cannot unset the alarm of the clock")
        undo.add(sysfs.write, alarm, 0, "cannot unset the alarm of the clock")
        sysfs.write(alarm, int(time.time()) + duration, "cannot set the alarm of the clock")
        if target == "hybrid":
            before = _mode(root)
            undo.add(sysfs.write, f"{root}/sys/power/disk", before, "cannot put the mode of suspend to disk back")
            sysfs.write(f"{root}/sys/power/disk", "suspend", "cannot choose hybrid suspend")
        sysfs.write(f"{root}/sys/power/state", "mem" if target == "mem" else "disk", "the kernel did not suspend")
        undo.commit()
    if target == "hybrid":
        sysfs.write(f"{root}/sys/power/disk", before, "cannot put the mode of suspend to disk back")


def _alarm(root: str) -> str:
    """Return the wake alarm of the first clock that has one."""
    for number in sysfs.numbered(f"{root}/sys/class/rtc", "rtc"):
        path = f"{root}/sys/class/rtc/rtc{number}/wakealarm"
        if os.path.exists(path):
            return path
    raise HostError("argument unsupported: this host has no clock that could wake it", hint="/sys/class/rtc")


def _mode(root: str) -> str:
    """Return the chosen mode of suspend to disk, which is in brackets."""
    words = (sysfs.text(f"{root}/sys/power/disk") or "").split()
    return next((word[1:-1] for word in words if word.startswith("[")), "platform")
