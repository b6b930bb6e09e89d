"""systemd-machined's list of machines: a guest is in it as long as its scope is there (machinectl(1)).

Nothing of qkvm's depends on it. machined is started by its first call, and forgets by itself a machine whose scope
has ended.
"""

from __future__ import annotations

import os
import re

from qkvm.host.systemd import unit

SERVICE = "qkvm"
"""Who registers machines, as machinectl shows it."""

_ACTIVATION = "dbus-1/system-services/org.freedesktop.machine1.service"

_LONGEST = 64
"""Characters of a machine's name, which is a host's name too."""


def register(label: str, name: str, uuid: str, pid: int) -> unit.Call | None:
    """Begin to register a guest that lives in a scope already; None where no machined takes it.

    :param label: of its tree. :param pid: of its QEMU.
    """
    folders = ("/usr/share", "/usr/local/share")
    # It takes machines from root alone.
    if os.geteuid() != 0 or not any(os.path.exists(os.path.join(folder, _ACTIVATION)) for folder in folders):
        return None
    words = [str(byte) for byte in bytes.fromhex(uuid.replace("-", ""))]
    return unit.call_on(
        "machine1", "machine1.Manager", "RegisterMachine",
        "sayssus", machine_name(label, name), str(len(words)), *words, SERVICE, "vm", str(pid), "",
    )  # fmt: skip


def machine_name(label: str, name: str) -> str:
    """What a guest is called there: by its own name where that can be a host's, else by what is left of it.

    Guests of another tree than the host's own have its label behind it.
    """
    tail = label.removeprefix("qkvm")
    plain = re.sub(r"[^A-Za-z0-9-]+", "-", name)[: _LONGEST - len(tail)].strip("-") or "guest"
    return plain + tail
