"""The machine type of a definition, pinned so that an upgrade of QEMU does not change the guest's hardware."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from qkvm.emulator import abilities
from qkvm.errors import HostError
from qkvm.host import programs, settings
from qkvm.spec import domain as spec
from qkvm.spec import toml

if TYPE_CHECKING:
    from qkvm.paths import Tree
    from qkvm.qemu.abilities import Abilities


def pinned(definition: spec.Domain, qemu: Abilities) -> spec.Domain:
    """Return a definition with the newest version of its machine in a QEMU, if it names none."""
    if definition.machine_version or not definition.machine.family:
        return definition
    return replace(definition, machine_version=newest(qemu, definition.machine))


def pinned_here(tree: Tree, definition: spec.Domain) -> spec.Domain:
    """Do the same with the definition's own emulator.

    If this does not exist or does not answer, the definition is not changed: the first start pins it.
    """
    if definition.machine_version or not definition.machine.family:
        return definition
    try:
        binary = programs.emulator(definition.emulator or settings.load(tree).qemu)
        return pinned(definition, abilities.find(tree, binary))
    except HostError:
        return definition


def written(text: str, version: str) -> str:
    """Return a definition's text with the version put beside the machine; nothing else changes."""
    return toml.with_string(text, spec.Domain, "machine_version", version, after=("machine", "name"))


def newest(qemu: Abilities, machine: spec.Machine) -> str:
    """Return the version that a QEMU uses if none is named; '' if it does not have the machine."""
    entry = qemu.machine(str(machine))
    return _version(entry.name, machine) if entry is not None else ""


def versions(qemu: Abilities, machine: spec.Machine, *, deprecated: bool = False) -> list[str]:
    """Return a QEMU's versions of a machine, the oldest first: the deprecated ones or the others."""
    known = [_version(entry.name, machine) for entry in qemu.machines if entry.deprecated == deprecated]
    return sorted(filter(None, known), key=_order)


def refuse_missing(definition: spec.Domain, qemu: Abilities) -> None:
    """Refuse a definition whose machine type a QEMU does not have.

    :raises HostError: naming the versions that it has.
    """
    name = definition.machine.versioned(definition.machine_version)
    if qemu.machine(name) is None:
        raise HostError(
            f"{qemu.path} is QEMU {qemu.version} and has no machine type {name}",
            hint=remaining(qemu, definition.machine),
        )


def remaining(qemu: Abilities, machine: spec.Machine) -> str:
    """Name a QEMU's versions of a machine, as a hint."""
    known, old = versions(qemu, machine), versions(qemu, machine, deprecated=True)
    words = [f"its versions of {machine}: {', '.join(known)}"] if known else []
    words += [f"deprecated: {old[0]} to {old[-1]}"] if old else []
    return "; ".join(words) or f"it has no machine {machine} at all"


def _version(name: str, machine: spec.Machine) -> str:
    """Return the version in QEMU's name of a machine type; '' if it is another machine."""
    version = name.removeprefix(f"{machine.family}-")
    return version if version != name else ""


def _order(version: str) -> tuple[tuple[int, str], ...]:
    """Return a key that sorts 2.12 after 2.9."""
    return tuple((int(part) if part.isdigit() else 0, part) for part in version.split("."))
