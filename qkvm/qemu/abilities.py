"""What a QEMU program can do by itself, whatever the host: the questions, and the answers as data. Pure."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

PROPERTIES_OF = ("max-x86_64-cpu", "virtio-blk-pci")
"""Types whose properties are asked for: a workaround depends on one of them."""

QUESTIONS: list[tuple[str, dict[str, Any]]] = [
    ("query-version", {}), ("query-target", {}), ("query-machines", {}), ("qom-list-types", {}),
    ("query-qmp-schema", {}), ("query-command-line-options", {}),
    *(("device-list-properties", {"typename": name}) for name in PROPERTIES_OF),
]  # fmt: skip
"""The QMP commands whose answers :func:`read` takes."""


class MachineType(Struct, frozen=True, kw_only=True):
    """A machine type: its name, the other one that it also goes by, and the most vCPUs it takes."""

    name: str
    alias: str = ""
    cpu_max: int = 1
    deprecated: bool = False
    default: bool = False


class Abilities(Struct, frozen=True, kw_only=True):
    """What one QEMU program can do.

    ``devices`` are all types of objects that it knows. ``commands`` has the arguments of each QMP command (of all
    variants, not of what is nested in them), ``options`` the parameters of each option of the command line that
    QEMU tells of: plain ones such as -runas are not among them. ``properties`` are those of PROPERTIES_OF.
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
        """The version's numbers, to compare with: (7, 2, 22)."""
        return tuple(int(part) for part in self.version.split("."))

    def machine(self, name: str) -> MachineType | None:
        """The machine type of that name or alias."""
        return next((entry for entry in self.machines if name in (entry.name, entry.alias)), None)

    def takes(self, option: str, parameter: str) -> bool:
        """Whether the command line has that parameter of that option: ('run-with', 'user')."""
        return parameter in self.options.get(option, ())

    def has(self, device: str, prop: str) -> bool:
        """Whether a type of PROPERTIES_OF has that property."""
        return prop in self.properties.get(device, ())


def read(path: str, answers: list[Any]) -> Abilities | None:
    """What the answers to :data:`QUESTIONS` come to; None where a QEMU does not answer so."""
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
        # What another architecture's QEMU does not have has no properties.
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
    """Each command with its arguments (qapi/introspect.json), of all variants."""
    types = {entry["name"]: entry for entry in schema}

    def members(name: str) -> set[str]:
        found = {one["name"] for one in types[name].get("members", ())}
        return found.union(*(members(one["type"]) for one in types[name].get("variants", ())))

    return {
        name: frozenset(members(entry["arg-type"]))
        for name, entry in types.items()
        if entry["meta-type"] == "command"
    }
