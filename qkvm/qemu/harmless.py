"""Make a guest's command line harmless: the same hardware, with nothing of the host behind it. Pure.

A probe is started with it while the guest itself may run. Disks are empty, NICs and ports lead nowhere; no file,
socket or tap of the guest is named; memory is not preallocated. Unknown options are left out.
"""

from __future__ import annotations

from typing import Any

from qkvm.qemu.render import Option

_SAME = frozenset((
    "-accel", "-action", "-bios", "-boot", "-cpu", "-display", "-global", "-k", "-m", "-machine", "-name",
    "-no-user-config", "-nodefaults", "-rtc", "-run-with", "-runas", "-S", "-sandbox", "-smp", "-uuid",
))  # fmt: skip
"""Options that use nothing outside of QEMU."""

_OUTSIDE = ("vhost-", "vfio-", "usb-host", "usb-redir", "virtio-input-host", "ivshmem")
"""How the names of drivers begin that use a device of the host or another process."""

_BACKENDS = ("tpmdev",)
"""Properties that name something that was left out; a device that has one is left out too."""

SIZE = 1474560
"""Bytes of an empty disk: it fits a floppy drive, and is a multiple of flash sectors."""


def harmless(options: list[Option]) -> tuple[list[Option], list[str]]:
    """Return the options of a probe, and the names of what they leave out."""
    kept: list[Option] = []
    left: list[str] = []
    for option in options:
        made = _substitute(option, len(kept))
        if made is not None:
            kept.append(made)
        elif option.name not in _SILENT:
            left.append(_name(option))
    if not any(option.name == "-S" for option in kept):
        kept.append(Option("-S", None))
    return kept, list(dict.fromkeys(left))


_SILENT = frozenset((
    "-add-fd", "-append", "-blockdev", "-chardev", "-incoming", "-initrd", "-kernel", "-mon", "-object",
    "-overcommit", "-pidfile", "-tpmdev", "-vnc",
))  # fmt: skip
"""Options that can be left out without changing the hardware."""


def _name(option: Option) -> str:
    """Return the name of an option for the user: of a device its type."""
    return str(option.value["driver"]) if isinstance(option.value, dict) else option.name


def _substitute(option: Option, number: int) -> Option | None:
    """Return what replaces an option, None to leave it out; ``number`` is unique."""
    name, value = option
    if name in _SAME:
        return option
    if name == "-chardev" and isinstance(value, str):
        ident = next((part for part in option.parts() if part.startswith("id=")), "")
        return Option(name, f"null,{ident}")
    if name == "-fsdev" and isinstance(value, str):
        # A folder that always exists; QEMU opens it and reads nothing in it.
        parts = ["path=/" if part.startswith("path=") else part for part in option.parts()]
        return Option(name, ",".join(parts))
    if name == "-smbios":
        # A structure in a file has secrets for the guest; it is of the same type.
        return Option(name, "type=11,value=") if option.parts()[0].startswith("file=") else option
    if not isinstance(value, dict):
        return None
    if name == "-netdev":
        return Option(name, {"type": "hubport", "id": value["id"], "hubid": number})
    change = {"-blockdev": _node, "-device": _device, "-object": _object}.get(name)
    made = change(value) if change is not None else None
    return Option(name, made) if made is not None else None


_NODE_KEYS = frozenset(("node-name", "read-only", "discard", "detect-zeroes", "cache"))
"""Properties that every block node has."""


def _node(value: dict[str, Any]) -> dict[str, Any]:
    """Return an empty disk with the name of a node, for format and protocol nodes alike."""
    common = {key: value[key] for key in value if key in _NODE_KEYS}
    if isinstance(value.get("file"), str):
        return {"driver": "raw", "file": value["file"], **common}
    return {"driver": "null-co", "size": SIZE, "read-zeroes": True, **common}


def _device(value: dict[str, Any]) -> dict[str, Any] | None:
    if str(value["driver"]).startswith(_OUTSIDE) or any(key in value for key in _BACKENDS):
        return None
    return value


_MEMORY_KEYS = frozenset(("id", "size", "share", "merge", "dump", "host-nodes", "policy"))
"""Properties that every memory backend has; huge pages and files are not among them."""


def _object(value: dict[str, Any]) -> dict[str, Any] | None:
    kind = value["qom-type"]
    if kind == "secret":
        return None
    if kind.startswith("memory-backend-"):
        common = {key: value[key] for key in value if key in _MEMORY_KEYS}
        return {"qom-type": "memory-backend-ram", **common, "prealloc": False}
    return value
