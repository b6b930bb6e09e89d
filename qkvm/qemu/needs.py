"""What a QEMU must have for a command line: types of devices and objects, properties, options. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from qkvm.qemu.abilities import Abilities
from qkvm.qemu.render import Option

_OPTIONS = {"m": "memory", "smp": "smp-opts", "boot": "boot-opts"}
"""Options that query-command-line-options shows under another name."""

_NO_PROPERTIES = frozenset(("driver", "id", "bus", "qom-type"))
"""Keys of -device and -object that are no property of a type."""


class Needs(NamedTuple):
    """Properties by type, of ``devices`` and of other ``objects`` (also the machine); parameters by option."""

    devices: dict[str, set[str]]
    objects: dict[str, set[str]]
    options: dict[str, set[str]]


def of(options: Iterable[Option]) -> Needs:
    """Return what a command line needs."""
    found = Needs({}, {}, {})
    for option in options:
        name, value = option
        if isinstance(value, dict) and name in ("-device", "-object"):
            kind, types = ("driver", found.devices) if name == "-device" else ("qom-type", found.objects)
            types.setdefault(str(value[kind]), set()).update(set(value) - _NO_PROPERTIES)
        elif isinstance(value, str):
            first, *pairs = option.parts()
            if name == "-machine":
                found.objects[f"{first}-machine"] = {pair.partition("=")[0] for pair in pairs}
            elif name == "-device":
                found.devices.setdefault(first.removeprefix("driver="), set())
            elif name not in ("-append", "-global"):
                keys = {pair.partition("=")[0] for pair in (first, *pairs) if "=" in pair}
                found.options.setdefault(name.removeprefix("-"), set()).update(keys)
    return found


def missing_types(needs: Needs, qemu: Abilities) -> list[str]:
    """Return the types that a QEMU does not have."""
    machines = {f"{entry.name}-machine" for entry in qemu.machines}
    return sorted(
        name
        for name in (*needs.devices, *needs.objects)
        if name not in qemu.devices and name not in machines and not name.endswith("-machine")
    )


def missing_options(needs: Needs, now: Abilities, then: Abilities) -> list[str]:
    """Return the parameters of options that one QEMU has and another does not.

    QEMU does not show all its options: what neither shows does not count as missing.
    """
    found = []
    for option, keys in needs.options.items():
        name = _OPTIONS.get(option, option)
        before, after = now.options.get(name), then.options.get(name)
        if before is not None and after is None:
            found.append(f"-{option}")
        elif before and after:
            found += [f"-{option} {key}=" for key in sorted(keys & before - after)]
    return found


def questions(needs: Needs, qemu: Abilities) -> list[tuple[str, str, set[str]]]:
    """Return QMP command, type and wanted properties for each type that a QEMU has."""
    known = set(qemu.devices) | {f"{entry.name}-machine" for entry in qemu.machines}
    return [
        *(("device-list-properties", name, wanted) for name, wanted in needs.devices.items() if name in known),
        *(("qom-list-properties", name, wanted) for name, wanted in needs.objects.items() if name in known),
    ]
