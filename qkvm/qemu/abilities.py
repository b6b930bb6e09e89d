"""What a QEMU program can do on any host: the questions, and the answers as data. Pure."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

PROPERTIES_OF = ("max-x86_64-cpu", "virtio-blk-pci")
"""Types whose properties are asked for, since workarounds depend on them."""

QUESTIONS: list[tuple[str, dict[str, Any]]] = [
    ("query-version", {}), ("query-target", {}), ("query-machines", {}), ("qom-list-types", {}),
    ("query-qmp-schema", {}), ("query-command-line-options", {}),
    *(("device-list-properties", {"typename": name}) for name in PROPERTIES_OF),
]  # fmt: skip
"""The QMP commands whose answers :func:`read` takes."""


class MachineType(Struct, frozen=True, kw_only=True):
    """A machine type: its name, its alias, and the most vCPUs that it takes."""

    name: str
    alias: str = ""
    cpu_max: int = 1
    deprecated: bool = False
    default: bool = False


class Abilities(Struct, frozen=True, kw_only=True):
    """What one QEMU program can do.

    ``devices`` are the names of all types of objects. ``commands`` has the arguments of each QMP command (of all
    variants, without nested ones). ``options`` has the parameters of each option of the command line that
    query-command-line-options shows; plain ones such as -runas are not there. ``properties`` are by type, of
    PROPERTIES_OF.
    """

    path: str
    version: str
    package: str
    arch: str
    machines: tuple[MachineType, ...]
    devices: frozenset[str]
    commands: dict[str, frozenset[str]]
    options: dict[str, frozenset[str]] = {}
    properties: dict[str, frozenset[str]] = {}

    @property
    def release(self) -> tuple[int, ...]:
        """Return the version as numbers that can be compared: (7, 2, 22)."""
        return tuple(int(part) for part in self.version.split("."))

    def machine(self, name: str) -> MachineType | None:
        """Return the machine type with that name or alias."""
        return next((entry for entry in self.machines if name in (entry.name, entry.alias)), None)

    def takes(self, option: str, parameter: str) -> bool:
        """Tell whether an option of the command line has a parameter: ('run-with', 'user')."""
        return parameter in self.options.get(option, ())

    def has(self, device: str, prop: str) -> bool:
        """Tell whether a type of PROPERTIES_OF has a property."""
        return prop in self.properties.get(device, ())


def read(path: str, answers: list[Any]) -> Abilities | None:
    """Read the answers to :data:`QUESTIONS`; None if they are not a QEMU's."""
    version, target, machines, types, schema, options, *properties = answers
    if not all(isinstance(part, dict) for part in (version, target)) or not isinstance(schema, list):
        return None
    number = version["qemu"]
    return Abilities(
        path=path,
        version=f"{number['major']}.{number['minor']}.{number['micro']}",
        package=version.get("package", ""),
        arch={"i386": "i686", "arm": "armv7l"}.get(target["arch"]) or target["arch"],
        machines=tuple(_machine(entry) for entry in machines),
        devices=frozenset(entry["name"] for entry in types),
        commands=_commands(schema),
        options={
            entry["option"]: frozenset(one["name"] for one in entry["parameters"])
            for entry in (options if isinstance(options, list) else ())
        },
        # The QEMU of another architecture may not have a type at all.
        properties={
            name: frozenset(entry["name"] for entry in listed)
            for name, listed in zip(PROPERTIES_OF, properties, strict=True)
            if isinstance(listed, list)
        },
    )


def _machine(entry: dict[str, Any]) -> MachineType:
    return MachineType(
        name=entry["name"], alias=entry.get("alias", ""), cpu_max=entry["cpu-max"],
        deprecated=entry.get("deprecated", False), default=entry.get("is-default", False),
    )  # fmt: skip


def _commands(schema: list[dict[str, Any]]) -> dict[str, frozenset[str]]:
    """Return the arguments of each command, of all variants (qapi/introspect.json)."""
    types = {entry["name"]: entry for entry in schema}

    def members(name: str) -> set[str]:
        found = {one["name"] for one in types[name].get("members", ())}
        return found.union(*(members(one["type"]) for one in types[name].get("variants", ())))

    return {
        name: frozenset(members(entry["arg-type"]))
        for name, entry in types.items()
        if entry["meta-type"] == "command"
    }
