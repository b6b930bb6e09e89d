"""CPU models in libvirt's XML: name a CPU, compare two, find what several have in common.

The features of a model are taken from QEMU's own definitions, so the answers agree with what QEMU does. This
module uses QEMU's names of features; only the XML has libvirt's.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from qkvm import xml
from qkvm.emulator.survey import CpuModel, Emulator
from qkvm.errors import DefinitionError, HostError, InvalidValue
from qkvm.host.node import accel
from qkvm.host.node import cpu as host_cpu
from qkvm.units import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

_LIBVIRT_NAMES = {
    "cmp-legacy": "cmp_legacy", "ds-cpl": "ds_cpl", "fxsr-opt": "fxsr_opt", "lahf-lm": "lahf_lm",
    "nodeid-msr": "nodeid_msr", "pclmulqdq": "pclmuldq", "perfctr-core": "perfctr_core",
    "perfctr-nb": "perfctr_nb", "tsc-adjust": "tsc_adjust",
}  # fmt: skip
_QEMU_NAMES = {libvirt: qemu for qemu, libvirt in _LIBVIRT_NAMES.items()}

_NOT_THE_GUESTS = frozenset(("osxsave", "ospke", "cvt16", "cmt", "mbm_total", "mbm_local", "hypervisor"))
"""Features in libvirt's XML that can't be set for a guest: its system sets them, or only the host has them."""

_VENDORS = {"GenuineIntel": "Intel", "AuthenticAMD": "AMD", "HygonGenuine": "Hygon"}

_ANY_VENDOR = frozenset(("486", "pentium", "pentium2", "pentium3", "qemu32", "qemu64", "kvm32", "kvm64"))
"""Models without a vendor, although QEMU gives them one."""

_UNMIGRATABLE = frozenset(("invtsc",))
"""Features that a guest can't have if it may be migrated (unmigratable_flags of target/i386/cpu.c)."""

_UNTOLD = frozenset((
    "amd-no-ssb", "arch-capabilities", "core-capability", "fb-clear", "ibrs-all", "mds-no", "pschange-mc-no",
    "rdctl-no", "rsba", "sbdr-ssdp-no", "fbsdp-no", "psdp-no", "skip-l1dfl-vmentry", "split-lock-detect", "ssb-no",
    "taa-no", "tsx-ctrl", "vmx-ept",
))  # fmt: skip
"""Features that /proc/cpuinfo does not show, such as those in MSRs; KVM shows them."""

_LINUX_NAMES = {
    "avx512_bitalg": "avx512bitalg", "avx512_vbmi2": "avx512vbmi2", "avx512_vnni": "avx512vnni",
    "cr8_legacy": "cr8legacy", "dts": "ds", "nonstop_tsc": "invtsc", "pausefilter": "pause-filter",
    "sgx_lc": "sgxlc", "sse4_1": "sse4.1", "sse4_2": "sse4.2", "tsc_deadline_timer": "tsc-deadline",
    "tsxldtrk": "tsx-ldtrk",
}  # fmt: skip
"""Flag of /proc/cpuinfo -> QEMU's name, where more differs than the hyphens."""

_SHARED_FLAGS = {
    "GenuineIntel": {"ibrs": "spec-ctrl", "ibpb": "", "stibp": "stibp", "ssbd": "ssbd"},
    "AuthenticAMD": {"stibp": "amd-stibp", "ssbd": "amd-ssbd"},
}
"""Flags whose feature depends on the vendor (init_speculation_control of arch/x86/kernel/cpu)."""


OWN = "own"
"""The name of the host's own CPU; QEMU's model "host" is what KVM offers of it."""


class Described(NamedTuple):
    """A CPU that XML describes: its model, and policies for single features (QEMU's names)."""

    path: str
    line: int
    model: str
    vendor: str
    arch: str
    match: str
    policies: dict[str, str]


class Named(NamedTuple):
    """A CPU as a model with features added and removed."""

    model: str
    vendor: str
    required: list[str]
    disabled: list[str]


def plain(model: str) -> Described:
    """Describe a model without changes."""
    return Described("", 0, model, "", "", "exact", {})


def libvirt_name(feature: str) -> str:
    """Return libvirt's name of a feature."""
    return _LIBVIRT_NAMES.get(feature, feature)


def vendor_name(vendor: str) -> str:
    """Return libvirt's name of a CPUID vendor string."""
    return _VENDORS.get(vendor, "unknown")


def model_vendor(model: CpuModel) -> str:
    """Return libvirt's name of a model's vendor."""
    return "unknown" if model.name in _ANY_VENDOR else vendor_name(model.vendor)


def features(model: CpuModel) -> list[str]:
    """Return libvirt's names of a model's features."""
    return sorted(libvirt_name(name) for name in model.features)


def of_host(emulator: Emulator, root: str = "") -> CpuModel:
    """Return the host's own CPU, with the features that the emulator knows.

    Features that only KVM shows are missing if KVM is not available.
    """
    found = host_cpu.model(root)
    by_vendor = _SHARED_FLAGS.get(found.vendor, {})
    names = {by_vendor.get(flag, _LINUX_NAMES.get(flag, flag.replace("_", "-"))) for flag in found.flags}
    if "virt-ssbd" in names:
        names.discard("amd-ssbd")
    features = names & emulator.features
    if told := _told_by_kvm(emulator):
        features |= emulator.best["kvm"].features & told
    return CpuModel(
        name=OWN, vendor=found.vendor, family=found.family, model=found.model, features=frozenset(features)
    )


def _told_by_kvm(emulator: Emulator) -> frozenset[str]:
    """Return the features that KVM shows and /proc/cpuinfo does not; KVM must have real hardware."""
    return _UNTOLD if "kvm" in emulator.best and accel.has_hardware_virtualization() else frozenset()


def of_hypervisor(emulator: Emulator, accelerator: str) -> CpuModel:
    """Return the CPU with all features that an accelerator (kvm or tcg) offers.

    :raises HostError: that accelerator doesn't work here.
    """
    if accelerator not in emulator.best:
        raise HostError(f"{emulator.path} can't use {accelerator} here", hint="see: qkvm host-validate")
    return emulator.best[accelerator]


def read(text: str, path: str) -> list[Described]:
    """Read the CPUs of a file: ``<cpu>`` elements, or XML of a domain, capabilities or domcapabilities.

    :raises DefinitionError: it is not XML, has no CPU, or has one without a model.
    """
    # virsh takes several <cpu> in a row, which is not an XML document, so a root is put around them.
    body = re.sub(r"^\s*<\?xml[^>]*\?>", lambda found: "\n" * found.group().count("\n"), text)
    top = xml.parse(f"<cpus>{body}</cpus>", path)
    nodes: list[xml.Element] = []
    for node in top:
        if node.tag == "cpu":
            nodes.append(node)
        elif node.tag == "domain":
            nodes += [found for found in [node.find("cpu")] if found is not None]
        elif node.tag == "capabilities":
            nodes += [found for found in [node.find("host/cpu")] if found is not None]
        elif node.tag == "domainCapabilities":
            modes = found.all("mode") if (found := node.find("cpu")) is not None else []
            nodes += [mode for mode in modes if mode.get("name") == "host-model"]
    if not nodes:
        raise DefinitionError(path, "no host CPU specified in it", hint="a <cpu> element, or virsh capabilities")
    return [_described(node, path) for node in nodes]


_POLICIES = ("force", "require", "optional", "disable", "forbid")
_MATCHES = ("exact", "minimum", "strict")


def _described(node: xml.Element, path: str) -> Described:
    mode, match = node.get("mode", "custom"), node.get("match", "exact") or "exact"
    model = node.content("model") or ""
    if node.tag == "cpu" and mode != "custom":
        raise DefinitionError(path, f"line {node.line}: a CPU of mode '{mode}' names no model", hint="custom")
    if not model:
        raise DefinitionError(path, f"line {node.line}: XML error: Missing CPU model name")
    if match not in _MATCHES:
        raise DefinitionError(path, f"line {node.line}: match '{match}' is not known", hint=", ".join(_MATCHES))
    policies: dict[str, str] = {}
    for feature in node.all("feature"):
        name, policy = feature.get("name", "") or "", feature.get("policy", "require") or ""
        if policy not in _POLICIES:
            raise DefinitionError(
                path, f"line {feature.line}: policy '{policy}' is not known", hint=", ".join(_POLICIES)
            )
        if name in policies:
            raise DefinitionError(path, f"line {feature.line}: CPU feature '{name}' specified more than once")
        policies[name] = policy
    return Described(
        path, node.line, model, node.content("vendor") or "", node.content("arch") or "", match,
        {_QEMU_NAMES.get(name, name): policy for name, policy in policies.items() if name not in _NOT_THE_GUESTS},
    )  # fmt: skip


def _definition(emulator: Emulator, described: Described) -> CpuModel:
    """Return the model that a description names.

    :raises InvalidValue: there is no such model or feature, or the emulator can't show its definitions.
    """
    found = emulator.model(described.model)
    where = f"{described.path}: line {described.line}: " if described.path else ""
    if found is None:
        raise InvalidValue(
            f"{where}Unknown CPU model {printable(described.model)}", hint=f"qkvm cpu-models {emulator.arch}"
        )
    if not found.features:
        raise InvalidValue(
            f"argument unsupported: QEMU for {emulator.arch} does not tell what its CPU models have",
            hint="it does for x86_64 and i686",
        )
    unknown = sorted(name for name in described.policies if name not in emulator.features)
    if unknown:
        raise InvalidValue(f"{where}Unknown CPU feature {printable(unknown[0])}")
    return found


class Comparison(NamedTuple):
    """The result of a comparison: 'incompatible' (and why), 'identical' or 'superset'."""

    result: str
    reason: str = ""


def compare(emulator: Emulator, actual: CpuModel, described: Described) -> Comparison:
    """Compare a CPU with what a described one needs (virsh cpu-compare; libvirt's policies).

    :raises InvalidValue: an unknown model or feature. :raises HostError: only KVM could answer.
    """
    model = _definition(emulator, described)
    if described.arch and described.arch != emulator.arch:
        return Comparison("incompatible", f"CPU arch {described.arch} does not match host arch {emulator.arch}")
    if described.vendor not in ("", vendor_name(actual.vendor)):
        return Comparison("incompatible", f"host CPU vendor does not match required CPU vendor {described.vendor}")
    said = described.policies
    forbidden = {name for name in actual.features if said.get(name) == "forbid"}
    if forbidden:
        return Comparison("incompatible", f"Host CPU provides forbidden features: {_list(forbidden)}")
    required = {name for name in model.features if said.get(name, "require") == "require"}
    required |= {name for name, policy in said.items() if policy == "require"}
    missing = required - actual.features
    untold = missing & _UNTOLD - _told_by_kvm(emulator) if actual.name == OWN else set()
    if missing - untold:
        return Comparison("incompatible", f"Host CPU does not provide required features: {_list(missing)}")
    if untold:
        raise HostError(
            f"argument unsupported: only KVM could tell whether the host CPU has {_list(untold)}",
            hint="see: qkvm host-validate",
        )
    more = actual.features - required - set(said)
    if not more:
        return Comparison("identical")
    if described.match == "strict":
        return Comparison("incompatible", f"Host CPU does not strictly match required CPU features: {_list(more)}")
    return Comparison("superset")


def _list(features: Iterable[str]) -> str:
    return ", ".join(sorted(libvirt_name(name) for name in features))


def baseline(
    emulator: Emulator, described: list[Described], *, within: CpuModel | None = None, migratable: bool = False
) -> Named:
    """Return the CPU with all features that the described ones have in common (virsh cpu-baseline).

    :param within: a hypervisor's CPU whose features limit the result; then models may lose features.
    :param migratable: leave out what can't be migrated.
    :raises InvalidValue: they have nothing in common, or one names an unknown model or feature.
    """
    common: frozenset[str] | None = None
    vendors: set[str] = set()
    for entry in described:
        model = _definition(emulator, entry)
        off = {name for name, policy in entry.policies.items() if policy in ("disable", "forbid")}
        on = {name for name, policy in entry.policies.items() if policy in ("force", "require")}
        features = model.features - off | on
        common = features if common is None else common & features
        vendors |= {entry.vendor or ("" if model.name in _ANY_VENDOR else vendor_name(model.vendor))} - {""}
    if len(vendors) > 1:
        raise InvalidValue(f"operation failed: CPU vendors do not match: {', '.join(sorted(vendors))}")
    assert common is not None, "there is at least one"
    if within is not None:
        common &= within.features
    if migratable:
        common -= _UNMIGRATABLE
    if not common:
        raise InvalidValue("operation failed: CPUs are incompatible: they have no feature in common")
    names = {entry.model for entry in described}
    vendor = next(iter(vendors), "")
    # As in libvirt, the result has a vendor only if every description has one.
    told = vendor if all(entry.vendor for entry in described) else ""
    prefer = names.pop() if len(names) == 1 else ""
    found = name_of(emulator, common, vendor=vendor, prefer=prefer, reduce=within is not None)
    return found._replace(vendor=told)


def name_of(
    emulator: Emulator,
    features: Iterable[str],
    *,
    vendor: str = "",
    prefer: str = "",
    signature: tuple[int, int] = (0, 0),
    reduce: bool = False,
) -> Named:
    """Name a CPU with these features by the nearest model.

    :param vendor: libvirt's name; models of others are not used. :param prefer: the model to use if possible.
    :param signature: family and model numbers; a fitting model with the same numbers wins.
    :param reduce: whether features may be removed from a model.
    :raises HostError: no model fits.
    """
    wanted = frozenset(features)
    best: tuple[tuple[bool, bool, int, int, str], Named] | None = None
    for model in emulator.models:
        if not model.features or (vendor and model_vendor(model) not in (vendor, "unknown")):
            continue
        more, less = wanted - model.features, model.features - wanted
        if less and not (reduce or model.name == prefer):
            continue
        same = signature != (0, 0) and signature == (model.family, model.model)
        rank = (model.name != prefer, not same, len(more) + len(less), len(less), model.name)
        if best is None or rank < best[0]:
            best = rank, Named(model.name, vendor, sorted(more), sorted(less))
    if best is None:
        raise HostError(f"{emulator.path} has no CPU model that this CPU could be called by")
    return best[1]


def element(emulator: Emulator, named: Named, *, expand: bool = False, fallback: str = "forbid") -> xml.Element:
    """Write a named CPU as the ``<cpu>`` of a domain's XML.

    :param expand: list the model's own features too (--features).
    """
    top = xml.element("cpu", mode="custom", match="exact")
    top.add("model", named.model, fallback=fallback)
    if named.vendor:
        top.add("vendor", named.vendor)
    policies = {**dict.fromkeys(named.required, "require"), **dict.fromkeys(named.disabled, "disable")}
    if expand and (model := emulator.model(named.model)) is not None:
        policies = {**dict.fromkeys(model.features, "require"), **policies}
    for name, policy in sorted((libvirt_name(name), policy) for name, policy in policies.items()):
        top.add("feature", policy=policy, name=name)
    return top
