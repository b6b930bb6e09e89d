"""Ask an emulator what it can do on this host.

abilities.py asks what does not depend on the host. The answers are kept, and are valid for the same program, boot
and KVM.
"""

from __future__ import annotations

import os
from typing import Any

from msgspec import Struct, structs

from qkvm import units
from qkvm.emulator import abilities, kept
from qkvm.errors import HostError, InvalidValue, ProgramFailed
from qkvm.host import process, programs, record, settings
from qkvm.host.node import sysfs
from qkvm.paths import Tree
from qkvm.qemu.abilities import Abilities
from qkvm.qmp import oneshot


class CpuModel(Struct, frozen=True, kw_only=True):
    """A named CPU: the features of its definition, and those that an accelerator does not have on this host.

    ``lacks`` has an entry for each working accelerator: tcg, kvm. Vendor and features are empty if the emulator
    does not show a definition's features (all but x86). ``old_features`` are those that QEMU calls deprecated
    (deprecated-props of qapi/machine-target.json; s390x has some).
    """

    name: str
    vendor: str = ""
    family: int = 0
    model: int = 0
    features: frozenset[str] = frozenset()
    lacks: dict[str, tuple[str, ...]] = {}
    deprecated: bool = False
    old_features: tuple[str, ...] = ()


class Emulator(Abilities, frozen=True, kw_only=True):
    """What one emulator program can do on this host.

    ``best`` has, for each working accelerator, the CPU with all features that it offers. ``tpms`` are the kinds of
    TPM backends, ``features`` all CPU features that it knows. ``sev`` describes AMD's SEV; if that is not
    available, ``sev_refusal`` says why in QEMU's words.
    """

    tpms: tuple[str, ...]
    features: frozenset[str]
    models: tuple[CpuModel, ...]
    best: dict[str, CpuModel]
    sev: dict[str, Any]
    sev_refusal: str

    @property
    def accels(self) -> list[str]:
        """Return the working accelerators, the fastest first."""
        return [name for name in ("kvm", "tcg") if name in self.best]

    def model(self, name: str) -> CpuModel | None:
        """Return the CPU model with that name."""
        return next((entry for entry in self.models if entry.name == name), None)


def find(tree: Tree, *, binary: str = "", arch: str = "") -> Emulator:
    """Return what an emulator can do, from the cache if possible.

    :param binary: its path; default: the emulator of the settings, or of ``arch``.
    :raises InvalidValue: an unknown architecture, or the program is for another one.
    :raises HostError: there is no such program, or it does not answer as QEMU does.
    """
    wanted = check_arch(arch) if arch else ""
    path = _program(tree, binary, wanted)
    found = kept.recall(tree, path, "host", _key(path), Emulator, lambda: _ask(tree, path))
    if wanted and wanted != found.arch:
        raise InvalidValue(f"invalid argument: emulator '{path}' is for {found.arch}, not for {wanted}")
    return found


_ARCHES = {
    "aarch64": "arm", "alpha": "misc", "armv7l": "arm", "i686": "x86", "loongarch64": "misc", "m68k": "misc",
    "mips": "mips", "mips64": "mips", "mips64el": "mips", "mipsel": "mips", "ppc": "ppc", "ppc64": "ppc",
    "ppc64le": "ppc", "riscv32": "misc", "riscv64": "misc", "s390x": "misc", "sparc": "sparc",
    "sparc64": "sparc", "x86_64": "x86",
}  # fmt: skip
"""libvirt's name of an architecture -> the end of Debian's package qemu-system-* with its emulator."""

_QEMU_NAMES = {"armv7l": "arm", "i686": "i386", "ppc64le": "ppc64"}
"""libvirt's name of an architecture -> QEMU's, where they differ."""


def check_arch(name: str) -> str:
    """Check libvirt's name of an architecture and return it.

    :raises InvalidValue: it is unknown.
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
    needed = f"a guest of architecture {arch}" if arch else "every domain"
    if arch in ("", "x86_64"):
        return programs.emulator(settings.load(tree).qemu, needed)
    return process.find_program(
        f"qemu-system-{_QEMU_NAMES.get(arch, arch)}", needed, f"qemu-system-{_ARCHES[arch]}"
    )


def _key(path: str) -> kept.Key:
    """Return the key of the answers: the program, this boot (kernel, microcode), and the state of KVM."""
    nested = (sysfs.text(f"/sys/module/{module}/parameters/nested") or "" for module in ("kvm_intel", "kvm_amd"))
    return [*kept.program_key(path), record.boot_id(), int(_opens_kvm()), *nested]


def _opens_kvm() -> bool:
    return os.access("/dev/kvm", os.R_OK | os.W_OK)


def _ask(tree: Tree, path: str) -> Emulator:
    """Ask the program everything."""
    able = abilities.find(tree, path)
    definitions, kvm, tpms, fullest_of_tcg = oneshot.ask(path, "tcg", [
        ("query-cpu-definitions", {}), ("query-kvm", {}), ("query-tpm-types", {}), _expansion("max"),
    ])  # fmt: skip
    names = [entry["name"] for entry in definitions if _is_offered(entry)] if isinstance(definitions, list) else []
    expanded = oneshot.ask(path, "tcg", [_expansion(name) for name in names])
    lacking = {"tcg": _lacking(definitions)}
    fullest = {"tcg": _model("max", fullest_of_tcg)}
    sev: Any = "KVM is not available"
    if isinstance(kvm, dict) and kvm["present"] and _opens_kvm():
        try:
            found, best, sev = oneshot.ask(path, "kvm", [
                ("query-cpu-definitions", {}), _expansion("host"), ("query-sev-capabilities", {}),
            ])  # fmt: skip
            lacking["kvm"], fullest["kvm"] = _lacking(found), _model("host", best)
        except ProgramFailed:
            # /dev/kvm opens but QEMU can't use it: this counts as no KVM.
            pass
    return Emulator(
        **structs.asdict(able),
        tpms=tuple(tpms) if isinstance(tpms, list) else (),
        features=_features(fullest_of_tcg),
        models=tuple(
            _model(name, answer, lacking, definitions)
            for name, answer in sorted(zip(names, expanded, strict=True), key=lambda pair: pair[0].lower())
        ),
        best=fullest,
        sev=sev if isinstance(sev, dict) else {},
        sev_refusal=sev if isinstance(sev, str) else "",
    )


def _expansion(name: str) -> tuple[str, dict[str, Any]]:
    """Return the command that shows all features of a model's definition, each under one name."""
    return "query-cpu-model-expansion", {"type": "static", "model": {"name": name}}


def _is_offered(entry: dict[str, Any]) -> bool:
    """Tell whether a definition is offered: not a version of another one, and a fixed model."""
    stem, _, version = entry["name"].rpartition("-v")
    return not (stem and version.isdigit()) and entry.get("migration-safe", True) and not entry.get("static")


def _lacking(definitions: Any) -> dict[str, tuple[str, ...]]:
    """Return the features that each model lacks on this host; QEMU may repeat one, for several reasons."""
    if not isinstance(definitions, list):
        return {}
    return {entry["name"]: tuple(dict.fromkeys(entry.get("unavailable-features", ()))) for entry in definitions}


def _model(
    name: str, answer: Any, lacking: dict[str, dict[str, tuple[str, ...]]] | None = None, definitions: Any = ()
) -> CpuModel:
    """Make a model from its expansion; without one (not x86) it has just a name."""
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
        old_features=tuple(answer.get("deprecated-props", ())) if isinstance(answer, dict) else (),
    )


def _props(answer: Any) -> dict[str, Any]:
    """Return the properties of an expansion; a refusal has none."""
    return dict(answer["model"].get("props", {})) if isinstance(answer, dict) else {}


def _features(answer: Any) -> frozenset[str]:
    """Return all features in an expansion, whether set or not."""
    return frozenset(key for key, value in _props(answer).items() if isinstance(value, bool) and _is_feature(key))


def _is_feature(name: str) -> bool:
    """Tell whether a property is a feature of the CPU, not of the hypervisor."""
    return not name.startswith(("kvm", "hv-", "vmx-")) and name != "hypervisor"
