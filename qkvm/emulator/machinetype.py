"""The machine type of a definition, pinned so that an upgrade of QEMU leaves the guest its hardware."""

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
    """A definition with the newest version of its machine that a QEMU has, where it names none."""
    if definition.machine_version or not definition.machine.family:
        return definition
    return replace(definition, machine_version=newest(qemu, definition.machine))


def pinned_here(tree: Tree, definition: spec.Domain) -> spec.Domain:
    """The same with its own emulator.

    It stays as it is where that is not there or can't be asked: then the first start pins it.
    """
    if definition.machine_version or not definition.machine.family:
        return definition
    try:
        binary = programs.emulator(definition.emulator or settings.load(tree).qemu)
        return pinned(definition, abilities.find(tree, binary))
    except HostError:
        return definition


def written(text: str, version: str) -> str:
    """The text of a definition with the version in it, beside the machine; all else stays as the user wrote it."""
    return toml.with_string(text, spec.Domain, "machine_version", version, after=("machine", "name"))


def newest(qemu: Abilities, machine: spec.Machine) -> str:
    """The version of a machine that a QEMU takes where none is named; '' where it has no such machine."""
    entry = qemu.machine(str(machine))
    return _version(entry.name, machine) if entry is not None else ""


def versions(qemu: Abilities, machine: spec.Machine, *, deprecated: bool = False) -> list[str]:
    """The versions of a machine that a QEMU has and that are deprecated or not, the oldest first."""
    known = [_version(entry.name, machine) for entry in qemu.machines if entry.deprecated == deprecated]
    return sorted(filter(None, known), key=_order)


def refuse_missing(definition: spec.Domain, qemu: Abilities) -> None:
    """Refuse a definition whose machine type the QEMU that is to run it does not have.

    :raises HostError: naming the versions that it has.
    """
    name = definition.machine.versioned(definition.machine_version)
    if qemu.machine(name) is None:
        raise HostError(
            f"{qemu.path} is QEMU {qemu.version} and has no machine type {name}",
            hint=remaining(qemu, definition.machine),
        )


def remaining(qemu: Abilities, machine: spec.Machine) -> str:
    """Which versions of a machine a QEMU has, as a hint."""
    known, old = versions(qemu, machine), versions(qemu, machine, deprecated=True)
    words = [f"its versions of {machine}: {', '.join(known)}"] if known else []
    words += [f"deprecated: {old[0]} to {old[-1]}"] if old else []
    return "; ".join(words) or f"it has no machine {machine} at all"


def _version(name: str, machine: spec.Machine) -> str:
    """The version in QEMU's name of a type; '' where it is another machine's."""
    version = name.removeprefix(f"{machine.family}-")
    return version if version != name else ""


def _order(version: str) -> tuple[tuple[int, str], ...]:
    """A key that sorts 2.12 behind 2.9."""
    return tuple((int(part) if part.isdigit() else 0, part) for part in version.split("."))
