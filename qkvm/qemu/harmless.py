"""A guest's command line made harmless: the same hardware, with nothing behind it. Pure.

What a probe is started with beside the guest itself. Disks are empty, NICs and ports lead nowhere; no file, socket
or tap of the guest's is named; no memory is taken before it is used. What is not known here is left out.
"""

from __future__ import annotations

from typing import Any

from qkvm.qemu.render import Option

_SAME = frozenset((
    "-accel", "-action", "-bios", "-boot", "-cpu", "-display", "-global", "-k", "-m", "-machine", "-name",
    "-no-user-config", "-nodefaults", "-rtc", "-run-with", "-runas", "-S", "-sandbox", "-smbios", "-smp", "-uuid",
))  # fmt: skip
"""Options that concern nothing outside of QEMU."""

_OUTSIDE = ("vhost-", "vfio-", "usb-host", "usb-redir", "virtio-input-host", "ivshmem")
"""What devices are called that are made of something of the host's or of another process."""

_BACKENDS = ("tpmdev",)
"""Properties that name what was left out: a device with one is left out too."""

SIZE = 1474560
"""Bytes of an empty disk: a floppy's, and whole sectors of flash."""


def harmless(options: list[Option]) -> tuple[list[Option], list[str]]:
    """The options of a probe, and what of the guest's is not in them, in words."""
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
"""Options without which the hardware is what it is."""


def _name(option: Option) -> str:
    """How a user finds an option again: a device by its type."""
    return str(option.value["driver"]) if isinstance(option.value, dict) else option.name


def _substitute(option: Option, number: int) -> Option | None:
    """What stands for an option, None for nothing; ``number`` is of no other one."""
    name, value = option
    if name in _SAME:
        return option
    if name == "-chardev" and isinstance(value, str):
        ident = next((part for part in option.parts() if part.startswith("id=")), "")
        return Option(name, f"null,{ident}")
    if name == "-fsdev" and isinstance(value, str):
        # A folder that is always there; QEMU opens it and looks at nothing in it.
        parts = ["path=/" if part.startswith("path=") else part for part in option.parts()]
        return Option(name, ",".join(parts))
    if not isinstance(value, dict):
        return None
    if name == "-netdev":
        return Option(name, {"type": "hubport", "id": value["id"], "hubid": number})
    change = {"-blockdev": _node, "-device": _device, "-object": _object}.get(name)
    made = change(value) if change is not None else None
    return Option(name, made) if made is not None else None


_NODE_KEYS = frozenset(("node-name", "read-only", "discard", "detect-zeroes", "cache"))
"""What a block node has whatever it is."""


def _node(value: dict[str, Any]) -> dict[str, Any]:
    """An empty disk in the place of a node, under its name, be it an image or what lies below one."""
    common = {key: value[key] for key in value if key in _NODE_KEYS}
    if isinstance(value.get("file"), str):
        return {"driver": "raw", "file": value["file"], **common}
    return {"driver": "null-co", "size": SIZE, "read-zeroes": True, **common}


def _device(value: dict[str, Any]) -> dict[str, Any] | None:
    if str(value["driver"]).startswith(_OUTSIDE) or any(key in value for key in _BACKENDS):
        return None
    return value


_MEMORY_KEYS = frozenset(("id", "size", "share", "merge", "dump", "host-nodes", "policy"))
"""What memory has whatever it lies in: neither huge pages nor another one's file."""


def _object(value: dict[str, Any]) -> dict[str, Any] | None:
    kind = value["qom-type"]
    if kind == "secret":
        return None
    if kind.startswith("memory-backend-"):
        common = {key: value[key] for key in value if key in _MEMORY_KEYS}
        return {"qom-type": "memory-backend-ram", **common, "prealloc": False}
    return value
