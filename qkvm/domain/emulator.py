"""What an emulator can do, by asking it.

A QEMU without a machine is started with a script of QMP commands that ends in ``quit`` as its whole input: it
answers them and ends, also when whoever asked is killed meanwhile. Three such runs tell everything; what they
said is kept under var/lib/ and holds for the same program, boot and KVM.
"""

from __future__ import annotations

import os
from typing import Any

import msgspec
from msgspec import Struct

from qkvm import files, units
from qkvm.errors import HostError, InvalidValue, ProgramFailed
from qkvm.host import process, record, settings, sysfs
from qkvm.paths import Tree

_VERSION = 1
"""Of the kept answers; others are asked for anew."""

_KEPT_MAX = 16
"""Emulators whose answers are kept; one host rarely has more than two."""


class Machine(Struct, frozen=True, kw_only=True):
    """A machine type: its name, the other one that it also goes by, and the most vCPUs it takes."""

    name: str
    alias: str = ""
    cpu_max: int = 1
    deprecated: bool = False
    default: bool = False


class CpuModel(Struct, frozen=True, kw_only=True):
    """A named CPU: the features of its definition, and those that each accelerator can't give it here.

    ``lacks`` has one entry for each accelerator that works: tcg, kvm. Where an emulator can't tell a
    definition's features (all but x86), vendor and features are empty.
    """

    name: str
    vendor: str = ""
    family: int = 0
    model: int = 0
    features: frozenset[str] = frozenset()
    lacks: dict[str, tuple[str, ...]] = {}
    deprecated: bool = False


class Emulator(Struct, frozen=True, kw_only=True):
    """What one emulator program can do.

    ``best`` has the features of the fullest CPU that each working accelerator gives, in QEMU's names.
    ``tpms`` are the kinds of TPM backends, ``features`` all the CPU features that it has a name for. ``sev`` is
    what it told of AMD's SEV; where that is not there, ``sev_refusal`` has its words.
    """

    path: str
    version: str
    package: str
    arch: str
    machines: tuple[Machine, ...]
    devices: frozenset[str]
    commands: frozenset[str]
    tpms: tuple[str, ...]
    features: frozenset[str]
    models: tuple[CpuModel, ...]
    best: dict[str, CpuModel]
    sev: dict[str, Any]
    sev_refusal: str

    @property
    def accels(self) -> list[str]:
        """The accelerators that work, the faster one first."""
        return [name for name in ("kvm", "tcg") if name in self.best]

    def machine(self, name: str) -> Machine | None:
        """The machine type of that name or alias."""
        return next((entry for entry in self.machines if name in (entry.name, entry.alias)), None)

    def model(self, name: str) -> CpuModel | None:
        """The CPU model of that name."""
        return next((entry for entry in self.models if entry.name == name), None)


class _Kept(Struct, frozen=True, kw_only=True):
    """The answers, and what they hold for."""

    version: int
    key: list[str | int]
    emulator: Emulator


def find(tree: Tree, *, binary: str = "", arch: str = "") -> Emulator:
    """What an emulator can do; asked once, then read.

    :param binary: its path; default: the one that the settings name, or the one of ``arch``.
    :raises InvalidValue: no architecture of QEMU's, or the program is of another.
    :raises HostError: there is no such program, or it is no QEMU that answers.
    """
    wanted = check_arch(arch) if arch else ""
    path = _program(tree, binary, wanted)
    key = _key(path)
    folder = os.path.join(tree.state, "emulators")
    if os.path.lexists(folder):
        files.check_private_dir(folder)
    kept = os.path.join(folder, f"{os.path.basename(path)}.json")
    found = _load(kept, key)
    if found is None:
        found = _ask(path)
        _keep(tree, kept, _Kept(version=_VERSION, key=key, emulator=found))
    if wanted and wanted != found.arch:
        raise InvalidValue(f"invalid argument: emulator '{path}' is for {found.arch}, not for {wanted}")
    return found


_ARCHES = {
    "aarch64": "arm", "alpha": "misc", "armv7l": "arm", "i686": "x86", "loongarch64": "misc", "m68k": "misc",
    "mips": "mips", "mips64": "mips", "mips64el": "mips", "mipsel": "mips", "ppc": "ppc", "ppc64": "ppc",
    "ppc64le": "ppc", "riscv32": "misc", "riscv64": "misc", "s390x": "misc", "sparc": "sparc",
    "sparc64": "sparc", "x86_64": "x86",
}  # fmt: skip
"""libvirt's name of an architecture -> which of Debian's packages qemu-system-* brings its emulator."""

_QEMU_NAMES = {"armv7l": "arm", "i686": "i386", "ppc64le": "ppc64"}
"""QEMU's name of an architecture where it is not libvirt's."""


def check_arch(name: str) -> str:
    """An architecture's name as libvirt has it; gives it back.

    :raises InvalidValue: nobody knows it.
    """
    if name not in _ARCHES:
        raise InvalidValue(f"invalid argument: unknown architecture: {units.printable(name)}")
    return name


def _program(tree: Tree, binary: str, arch: str) -> str:
    if binary:
        if not os.access(binary, os.X_OK) or not os.path.isfile(binary):
            problem = "it is no program" if os.path.exists(binary) else "No such file or directory"
            raise HostError(f"Cannot check QEMU binary {units.printable(binary)}: {problem}")
        return os.path.abspath(binary)
    chosen = settings.load(tree).qemu
    if arch and arch != "x86_64":
        chosen = f"qemu-system-{_QEMU_NAMES.get(arch, arch)}"
    needed = f"a guest of architecture {arch}" if arch else "every domain"
    return process.find_program(chosen, needed, f"qemu-system-{_ARCHES[arch or 'x86_64']}")


def _key(path: str) -> list[str | int]:
    """What the answers hold for: the program, this boot (kernel, microcode), and the KVM that there is now."""
    try:
        info = os.stat(path)
    except OSError as error:
        raise files.os_error(error, f"Cannot check QEMU binary {path}") from error
    nested = (sysfs.text(f"/sys/module/{module}/parameters/nested") or "" for module in ("kvm_intel", "kvm_amd"))
    return [
        path, os.path.realpath(path), info.st_size, info.st_mtime_ns, record.boot_id(), int(_opens_kvm()), *nested
    ]  # fmt: skip


def _opens_kvm() -> bool:
    return os.access("/dev/kvm", os.R_OK | os.W_OK)


def _load(path: str, key: list[str | int]) -> Emulator | None:
    """The kept answers, None where there are none that hold; damaged ones are none."""
    raw = files.read_bytes(path)
    if raw is None:
        return None
    try:
        kept = msgspec.json.decode(raw, type=_Kept)
    except msgspec.DecodeError:
        return None
    return kept.emulator if kept.version == _VERSION and kept.key == key else None


def _keep(tree: Tree, path: str, kept: _Kept) -> None:
    """Keep the answers; where that can't be done the next one asks again."""
    folder = os.path.dirname(path)
    if not os.path.isdir(tree.root):
        return
    try:
        files.make_private_dir(tree.state)
        files.make_private_dir(folder)
        others = files.entries(folder, ".json")
        if len(others) >= _KEPT_MAX:
            for name in others:
                files.remove(os.path.join(folder, f"{name}.json"))
        files.write_atomic(path, msgspec.json.encode(kept))
    except HostError:
        pass


def _ask(path: str) -> Emulator:
    """Ask the program everything."""
    answers = _converse(path, "tcg", [
        ("query-version", {}), ("query-target", {}), ("query-machines", {}), ("qom-list-types", {}),
        ("query-qmp-schema", {}), ("query-cpu-definitions", {}), ("query-kvm", {}), ("query-tpm-types", {}),
        _expansion("max"),
    ])  # fmt: skip
    version, target, machines, types, schema, definitions, kvm, tpms, best = answers
    if not isinstance(version, dict) or not isinstance(target, dict) or not isinstance(schema, list):
        raise HostError(f"{path} is no QEMU that answers QMP", hint="qkvm needs QEMU 7.2 or newer")
    names = [entry["name"] for entry in definitions if _is_offered(entry)] if isinstance(definitions, list) else []
    expanded = _converse(path, "tcg", [_expansion(name) for name in names])
    lacking = {"tcg": _lacking(definitions)}
    fullest = {"tcg": _model("max", best)}
    sev: Any = "KVM is not available"
    if isinstance(kvm, dict) and kvm["present"] and _opens_kvm():
        try:
            found, best, sev = _converse(path, "kvm", [
                ("query-cpu-definitions", {}), _expansion("host"), ("query-sev-capabilities", {}),
            ])  # fmt: skip
            lacking["kvm"], fullest["kvm"] = _lacking(found), _model("host", best)
        except ProgramFailed:
            # QEMU opens /dev/kvm and finds that it is of no use: then it is not there.
            pass
    number = version["qemu"]
    return Emulator(
        path=path,
        version=f"{number['major']}.{number['minor']}.{number['micro']}",
        package=version.get("package", ""),
        arch={"i386": "i686", "arm": "armv7l"}.get(target["arch"]) or target["arch"],
        machines=tuple(_machine(entry) for entry in machines),
        devices=frozenset(entry["name"] for entry in types),
        commands=frozenset(entry["name"] for entry in schema if entry["meta-type"] == "command"),
        tpms=tuple(tpms) if isinstance(tpms, list) else (),
        features=_features(answers[-1]),
        models=tuple(
            _model(name, answer, lacking, definitions)
            for name, answer in sorted(zip(names, expanded, strict=True), key=lambda pair: pair[0].lower())
        ),
        best=fullest,
        sev=sev if isinstance(sev, dict) else {},
        sev_refusal=sev if isinstance(sev, str) else "",
    )


def _expansion(name: str) -> tuple[str, dict[str, Any]]:
    """The command for all features of a model's definition, by the one name that each has."""
    return "query-cpu-model-expansion", {"type": "static", "model": {"name": name}}


def _converse(path: str, accel: str, commands: list[tuple[str, dict[str, Any]]]) -> list[Any]:
    """Start the program, run QMP commands and give what each returned; a refusal is its text.

    :raises HostError: it does not speak QMP. :raises ProgramFailed: it does not start.
    """
    script = [("qmp_capabilities", {}), *commands, ("quit", {})]
    lines = (
        {"execute": name, "arguments": arguments, "id": number} for number, (name, arguments) in enumerate(script)
    )
    argv = [
        path, "-S", "-machine", f"none,accel={accel}", "-nodefaults", "-no-user-config", "-display", "none",
        "-qmp", "stdio",
    ]  # fmt: skip
    said = process.run(argv, stdin=b"".join(msgspec.json.encode(line) + b"\n" for line in lines), timeout=60)
    answers: dict[int, Any] = {}
    for line in said.splitlines():
        try:
            answer = msgspec.json.decode(line)
        except msgspec.DecodeError:
            continue
        if isinstance(answer, dict) and isinstance(answer.get("id"), int):
            answers[answer["id"]] = answer["return"] if "return" in answer else answer["error"]["desc"]
    if len(answers) < len(script) - 1:
        raise HostError(f"{path} is no QEMU that answers QMP", hint="qkvm needs QEMU 7.2 or newer")
    return [answers[number] for number in range(1, len(commands) + 1)]


def _machine(entry: dict[str, Any]) -> Machine:
    return Machine(
        name=entry["name"], alias=entry.get("alias", ""), cpu_max=entry["cpu-max"],
        deprecated=entry.get("deprecated", False), default=entry.get("is-default", False),
    )  # fmt: skip


def _is_offered(entry: dict[str, Any]) -> bool:
    """Whether a definition has a name of its own: not a version of another, nor what is no fixed model."""
    stem, _, version = entry["name"].rpartition("-v")
    return not (stem and version.isdigit()) and entry.get("migration-safe", True) and not entry.get("static")


def _lacking(definitions: Any) -> dict[str, tuple[str, ...]]:
    """What each model lacks here, by its name; a feature that fails for several reasons is told once."""
    if not isinstance(definitions, list):
        return {}
    return {entry["name"]: tuple(dict.fromkeys(entry.get("unavailable-features", ()))) for entry in definitions}


def _model(
    name: str, answer: Any, lacking: dict[str, dict[str, tuple[str, ...]]] | None = None, definitions: Any = ()
) -> CpuModel:
    """A model out of its expansion; without one (not x86) its name is all there is."""
    lacks = {accel: found[name] for accel, found in (lacking or {}).items() if name in found}
    props = _props(answer)
    return CpuModel(
        name=name,
        vendor=props.get("vendor", ""),
        family=props.get("family", 0),
        model=props.get("model", 0),
        features=frozenset(key for key, value in props.items() if value is True and _is_feature(key)),
        lacks=lacks,
        deprecated=any(entry["name"] == name and entry.get("deprecated", False) for entry in definitions),
    )


def _props(answer: Any) -> dict[str, Any]:
    """The properties out of an expansion; a refusal has none."""
    return dict(answer["model"].get("props", {})) if isinstance(answer, dict) else {}


def _features(answer: Any) -> frozenset[str]:
    """All features that an expansion has, given or not."""
    return frozenset(key for key, value in _props(answer).items() if isinstance(value, bool) and _is_feature(key))


def _is_feature(name: str) -> bool:
    """Whether a property is a feature of a CPU, not of the hypervisor that it runs under."""
    return not name.startswith(("kvm", "hv-", "vmx-")) and name != "hypervisor"
