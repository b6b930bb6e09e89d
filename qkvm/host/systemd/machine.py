"""systemd-machined's list of machines, where a guest is listed as long as its scope exists (machinectl(1)).

qkvm does not depend on it. Its first call starts machined, which drops machines whose scope has ended.
"""

from __future__ import annotations

import os
import re

from qkvm.host.systemd import unit

SERVICE = "qkvm"
"""The service that registers machines, as machinectl shows it."""

_ACTIVATION = "dbus-1/system-services/org.freedesktop.machine1.service"

_LONGEST = 64
"""Characters of a machine's name, which is a host name too."""


def register(label: str, name: str, uuid: str, pid: int) -> unit.Call | None:
    """Start registering a guest that is in a scope already; None where machined does not take it.

    :param label: its tree's. :param pid: its QEMU's.
    """
    folders = ("/usr/share", "/usr/local/share")
    # Only root can register machines.
    if os.geteuid() != 0 or not any(os.path.exists(os.path.join(folder, _ACTIVATION)) for folder in folders):
        return None
    words = [str(byte) for byte in bytes.fromhex(uuid.replace("-", ""))]
    method = ("machine1", "machine1.Manager", "RegisterMachine")
    identity = (machine_name(label, name), str(len(words)), *words)
    return unit.call_on(*method, "sayssus", *identity, SERVICE, "vm", str(pid), "")


def machine_name(label: str, name: str) -> str:
    """Return a guest's name for machined: its own without what a host name can't have.

    Guests of a tree other than the host's own have its label appended.
    """
    tail = label.removeprefix("qkvm")
    plain = re.sub(r"[^A-Za-z0-9-]+", "-", name)[: _LONGEST - len(tail)].strip("-") or "guest"
    return plain + tail
