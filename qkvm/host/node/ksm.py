"""Kernel samepage merging: equal pages of guests are kept once (virsh node-memory-tune)."""

from __future__ import annotations

import os

from qkvm.errors import HostError, InvalidValue
from qkvm.host.node import sysfs

_FOLDER = "/sys/kernel/mm/ksm"

FILES = {
    "shm_pages_to_scan": "pages_to_scan",
    "shm_sleep_millisecs": "sleep_millisecs",
    "shm_pages_shared": "pages_shared",
    "shm_pages_sharing": "pages_sharing",
    "shm_pages_unshared": "pages_unshared",
    "shm_pages_volatile": "pages_volatile",
    "shm_full_scans": "full_scans",
    "shm_merge_across_nodes": "merge_across_nodes",
}
"""libvirt's name of each value and the kernel's file for it (Documentation/admin-guide/mm/ksm.rst of Linux)."""

TUNABLE = ("shm_pages_to_scan", "shm_sleep_millisecs", "shm_merge_across_nodes")
"""The values that can be set."""


def read(root: str = "") -> dict[str, int]:
    """Return all values by libvirt's names. :raises HostError: the kernel has no KSM."""
    folder = _folder(root)
    found = {name: sysfs.number(f"{folder}/{file}") for name, file in FILES.items()}
    # Kernels without NUMA have no merge_across_nodes.
    return {name: value for name, value in found.items() if value is not None}


def tune(values: dict[str, int], root: str = "") -> None:
    """Set values by libvirt's names; where the kernel refuses one, none is changed.

    :raises InvalidValue: not 0 or 1 where only these are possible. :raises HostError: no KSM, or the kernel
        refuses.
    """
    folder = _folder(root)
    if values.get("shm_merge_across_nodes", 0) not in (0, 1):
        words = f"invalid argument: shm_merge_across_nodes {values['shm_merge_across_nodes']} is not 0 or 1"
        raise InvalidValue(words, hint="0 merges within a cell only, 1 across cells too")
    before = read(root)
    done: list[str] = []
    try:
        for name, value in values.items():
            if before.get(name) == value:
                continue
            hint = " while pages are shared" if name == "shm_merge_across_nodes" else ""
            sysfs.write(f"{folder}/{FILES[name]}", value, f"failed to set {name}{hint}")
            done.append(name)
    except HostError:
        for name in reversed(done):
            sysfs.write(f"{folder}/{FILES[name]}", before[name], f"failed to put {name} back")
        raise


def _folder(root: str) -> str:
    folder = root + _FOLDER
    if not os.path.isdir(folder):
        words = "Operation not supported: this kernel has no samepage merging"
        raise HostError(words, hint="it is built with CONFIG_KSM=y")
    return folder
