"""Put this host to sleep for a while (virsh nodesuspend).

The clock that wakes it is set first and unset again where the sleep fails: a host that is asleep without an
alarm needs somebody to press its button.
"""

from __future__ import annotations

import os
import time

from qkvm.errors import HostError, InvalidValue
from qkvm.files import Undo
from qkvm.host.node import sysfs

DURATION_MINIMUM = 60
"""Seconds; a shorter sleep could be over before the host has gone to it."""

_TARGETS = {"mem": "Suspend-to-RAM", "disk": "Suspend-to-Disk", "hybrid": "Hybrid-Suspend"}


def supported(root: str = "") -> list[str]:
    """Which of mem, disk and hybrid this host's kernel can do (Documentation/admin-guide/pm/sleep-states.rst).

    Hybrid is a suspend to disk that ends in a suspend to RAM instead of powering off.
    """
    states = (sysfs.text(f"{root}/sys/power/state") or "").split()
    modes = (sysfs.text(f"{root}/sys/power/disk") or "").replace("[", "").replace("]", "").split()
    found: list[str] = [target for target in ("mem", "disk") if target in states]
    return [*found, "hybrid"] if "disk" in found and "suspend" in modes else found


def suspend(target: str, duration: int, root: str = "") -> None:
    """Sleep for ``duration`` seconds; returns when the host is awake again.

    :raises InvalidValue: no such target, or too short. :raises HostError: this host can't.
    """
    if target not in _TARGETS:
        raise InvalidValue("Invalid target", hint="mem, disk or hybrid")
    if duration < DURATION_MINIMUM:
        raise InvalidValue(
            f"invalid argument: a suspend of {duration} s is too short", hint=f"{DURATION_MINIMUM} seconds or more"
        )
    if target not in supported(root):
        states = sysfs.text(f"{root}/sys/power/state") or "none"
        raise HostError(
            f"argument unsupported: {_TARGETS[target]}", hint=f"sleep states of this host's kernel: {states}"
        )
    alarm = _alarm(root)
    with Undo() as undo:
        # An alarm that is set can't be overwritten, only unset (Documentation/admin-guide/rtc.rst).
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
    """The wake alarm of the first clock that has one."""
    for number in sysfs.numbered(f"{root}/sys/class/rtc", "rtc"):
        path = f"{root}/sys/class/rtc/rtc{number}/wakealarm"
        if os.path.exists(path):
            return path
    raise HostError("argument unsupported: this host has no clock that could wake it", hint="/sys/class/rtc")


def _mode(root: str) -> str:
    """The chosen mode of suspend to disk: the one between brackets."""
    words = (sysfs.text(f"{root}/sys/power/disk") or "").split()
    return next((word[1:-1] for word in words if word.startswith("[")), "platform")
