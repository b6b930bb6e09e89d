"""<cpu> and other parts of QEMU's -cpu: <hyperv>, <kvm>, <pmu>, three of the timers.

A definition has one text for all of them, such as 'host,vmx=off,hv-relaxed=on'. libvirt's modes maximum and
host-model become the empty text, which means all that the accelerator offers ('max' if features are named).
host-passthrough becomes 'host', custom becomes QEMU's model of that name. QEMU itself checks the host's CPU,
so match, check, fallback and vendor are not kept. The policies require and force mean on, disable and forbid off.
"""

from __future__ import annotations

from qkvm.spec.boot import Topology
from qkvm.spec.libvirt.node import Node
from qkvm.xml import Element

_DEFAULT_MODEL = "qemu64"
"""QEMU's default for pc and q35."""

_TO_QEMU = {
    **{name: name.replace("_", "-") for name in (
        "cmp_legacy", "ds_cpl", "fxsr_opt", "kvm_pv_eoi", "kvm_pv_unhalt", "lahf_lm", "nodeid_msr", "perfctr_core",
        "perfctr_nb", "tsc_adjust",
    )},
    "pclmuldq": "pclmulqdq",
}  # fmt: skip
"""Features that libvirt and QEMU name differently."""

_FROM_QEMU = {theirs: ours for ours, theirs in _TO_QEMU.items()}

_POLICIES = {"force": "on", "require": "on", "disable": "off", "forbid": "off"}

_HYPERV = {
    "relaxed": "hv-relaxed", "vapic": "hv-vapic", "vpindex": "hv-vpindex", "runtime": "hv-runtime",
    "synic": "hv-synic", "stimer": "hv-stimer", "reset": "hv-reset", "frequencies": "hv-frequencies",
    "reenlightenment": "hv-reenlightenment", "tlbflush": "hv-tlbflush", "ipi": "hv-ipi", "evmcs": "hv-evmcs",
    "avic": "hv-avic", "emsr_bitmap": "hv-emsr-bitmap", "xmm_input": "hv-xmm-input",
}  # fmt: skip
"""Enlightenments that are on or off, with QEMU's names (docs/system/i386/hyperv.rst)."""

_KVM = {"hint-dedicated": "kvm-hint-dedicated", "poll-control": "kvm-poll-control"}

_CACHE = {
    "passthrough": {"host-cache-info": "on", "l3-cache": "off"},
    "emulate": {"host-cache-info": "off", "l3-cache": "on"},
    "disable": {"host-cache-info": "off", "l3-cache": "off"},
}

_NOT_FEATURES = frozenset((
    "check", "cpuid", "enforce", "fill-mtrr-mask", "full-cpuid-auto-level", "host-cache-info", "host-phys-bits",
    "kvm", "kvmclock", "l3-cache", "legacy-cache", "lmce", "migratable", "pmu", "start-powered-off",
    "x-consistent-cache",
))  # fmt: skip
"""Boolean properties of QEMU's CPUs that are not CPUID bits."""

_FIRST = (
    "migratable", "vendor", "host-cache-info", "l3-cache", "host-phys-bits", "host-phys-bits-limit", "phys-bits",
)  # fmt: skip
_HYPERV_ORDER = (
    "relaxed", "vapic", "spinlocks", "vpindex", "runtime", "synic", "stimer", "reset", "vendor_id", "frequencies",
    "reenlightenment", "tlbflush", "ipi", "evmcs", "avic", "emsr_bitmap", "xmm_input",
)  # fmt: skip
_LAST = (
    "kvm", *_KVM.values(), "hv-passthrough",
    *(f"hv-{name.replace('_', '-')}" for name in _HYPERV_ORDER), "hv-stimer-direct", "pmu", "kvmclock", "hv-time",
    "tsc-frequency",
)  # fmt: skip
"""_FIRST come before the features of a CPU, _LAST after them."""

Flags = dict[str, str]
"""QEMU's properties of a CPU and their values, in order."""


# Reading.


def read_cpu(node: Node | None) -> tuple[str, Flags, Topology | None]:
    """Return the model, flags and topology of <cpu>."""
    if node is None:
        return _DEFAULT_MODEL, {}, None
    flags: Flags = {}
    with node:
        mode = node.take("mode", "custom" if node.has("match") or node.element.find("model") else "")
        node.only("match", "exact")
        node.drop("check")
        node.drop_children("vendor")
        node.only("deprecated_features", "on")
        if not node.switch("migratable", True):
            flags["migratable"] = "off"
        model = _read_model(node, mode, flags)
        topology = _read_topology(node)
        for feature in node.children("feature"):
            with feature:
                _read_feature(feature, flags)
        _read_cache(node, flags)
        _read_maxphysaddr(node, flags)
        node.spoil("numa", "NUMA nodes of the guest are not supported")
    return model, flags, topology


def _read_model(node: Node, mode: str, flags: Flags) -> str:
    found = node.child("model")
    name = ""
    if found is not None:
        with found:
            found.drop("fallback")
            vendor = found.take("vendor_id")
            name = found.text()
        if vendor:
            flags["vendor"] = vendor
    if mode in ("maximum", "host-model"):
        # With host-model, libvirt may also write the model that it found.
        return ""
    if mode == "host-passthrough":
        return "host"
    if mode not in ("", "custom"):
        node.unsupported(f"mode '{mode}' is not supported")
    if mode == "custom" and not name:
        raise node.malformed("custom CPU without its model")
    return name or _DEFAULT_MODEL


def _read_topology(node: Node) -> Topology | None:
    found = node.child("topology")
    if found is None:
        return None
    with found:
        found.only("clusters", "1")
        return Topology(
            sockets=found.number("sockets", 1),
            dies=found.number("dies", 1),
            cores=found.number("cores", 1),
            threads=found.number("threads", 1),
        )


def _read_feature(feature: Node, flags: Flags) -> None:
    policy, name = feature.take("policy", "require"), feature.required("name")
    if policy not in _POLICIES:
        feature.unsupported(f"policy '{policy}' of {name} is not supported: it depends on the host's CPU")
        return
    flags[_TO_QEMU.get(name, name)] = _POLICIES[policy]


def _read_cache(node: Node, flags: Flags) -> None:
    found = node.child("cache")
    if found is None:
        return
    with found:
        mode, level = found.take("mode"), found.take("level")
        if mode not in _CACHE or level not in (("3",) if mode == "emulate" else ("",)):
            found.unsupported(f"mode '{mode}' at level '{level}' is not supported")
            return
        flags |= _CACHE[mode]


def _read_maxphysaddr(node: Node, flags: Flags) -> None:
    found = node.child("maxphysaddr")
    if found is None:
        return
    with found:
        if found.required("mode") == "passthrough":
            flags["host-phys-bits"] = "on"
            if found.has("limit"):
                flags["host-phys-bits-limit"] = str(found.number("limit"))
        else:
            flags["phys-bits"] = str(found.number("bits"))


def read_hyperv(node: Node | None, flags: Flags) -> None:
    """Read <hyperv> of <features>."""
    if node is None:
        return
    with node:
        if node.take("mode", "custom") == "passthrough":
            flags["hv-passthrough"] = "on"
        for child in node.every():
            with child:
                _read_enlightenment(child, flags)


def _read_enlightenment(child: Node, flags: Flags) -> None:
    on = child.switch("state")
    if child.tag == "spinlocks":
        retries = child.number("retries", 4095)
        flags |= {"hv-spinlocks": f"0x{retries:x}"} if on else {}
    elif child.tag == "vendor_id":
        value = child.take("value")
        flags |= {"hv-vendor-id": value} if on else {}
    elif child.tag not in _HYPERV:
        child.unsupported("this enlightenment is not known")
    elif on:
        flags[_HYPERV[child.tag]] = "on"
        direct = child.child("direct") if child.tag == "stimer" else None
        if direct is not None:
            with direct:
                flags |= {"hv-stimer-direct": "on"} if direct.switch("state") else {}


def read_kvm(node: Node | None, flags: Flags) -> None:
    """Read <kvm> of <features>."""
    if node is None:
        return
    with node:
        for name, flag, value in (("hidden", "kvm", "off"), *((name, flag, "on") for name, flag in _KVM.items())):
            found = node.child(name)
            if found is not None:
                with found:
                    flags |= {flag: value} if found.switch("state") else {}


def read_timer(timer: Node, flags: Flags) -> bool:
    """Read a timer of <clock> into ``flags``; return False if it is not a timer of the CPU."""
    name = timer.element.get("name")
    if name == "kvmclock":
        flags["kvmclock"] = "on" if timer.switch("present", True) else "off"
    elif name == "hypervclock":
        flags |= {"hv-time": "on"} if timer.switch("present", True) else {}
    elif name == "tsc":
        timer.only("present", "yes")
        timer.only("mode", "auto")
        flags |= {"tsc-frequency": str(timer.number("frequency"))} if timer.has("frequency") else {}
    else:
        return False
    return True


def join(model: str, flags: Flags) -> str:
    """Return the text of a definition; flags with their own libvirt element come in a fixed order."""
    if not flags:
        return model
    features = [name for name in flags if flags[name] in ("on", "off") and _is_feature(name)]
    known = (*_FIRST, *features, *_LAST)
    ordered = [*(name for name in known if name in flags), *(name for name in flags if name not in known)]
    return ",".join((model or "max", *(f"{name}={flags[name]}" for name in ordered)))


# Writing.


def split(text: str) -> tuple[str, Flags]:
    """Return the model and flags of a definition's text; '+x' and 'x' mean x=on, '-x' means x=off."""
    model, *words = text.split(",") if text else [""]
    flags: Flags = {}
    for word in filter(None, words):
        name, equals, value = word.partition("=")
        if not equals:
            value = "off" if name.startswith("-") else "on"
            name = name.lstrip("+-")
        flags[name.replace("_", "-")] = value
    return model, flags


def write_cpu(model: str, flags: Flags, topology: Topology | None) -> Element:
    """Write <cpu>; remove the flags written there from ``flags``."""
    mode = {"": "maximum", "max": "maximum", "host": "host-passthrough"}.get(model, "custom")
    match = "exact" if mode == "custom" else None
    element = Element("cpu", {key: value for key, value in (
        ("mode", mode), ("match", match), ("check", "none"),
        ("migratable", flags.pop("migratable", "on") if mode != "custom" else None),
    ) if value})  # fmt: skip
    if mode == "custom":
        element.add("model", model, fallback="forbid", vendor_id=flags.pop("vendor", None))
    if topology is not None:
        element.add(
            "topology", sockets=topology.sockets, dies=topology.dies, cores=topology.cores,
            threads=topology.threads,
        )  # fmt: skip
    _write_cache(element, flags)
    _write_maxphysaddr(element, flags)
    for name in [name for name in flags if flags[name] in ("on", "off") and _is_feature(name)]:
        policy = "require" if flags.pop(name) == "on" else "disable"
        element.add("feature", policy=policy, name=_FROM_QEMU.get(name, name))
    return element


def _is_feature(name: str) -> bool:
    return name not in _NOT_FEATURES and name not in (*_FIRST, *_LAST) and not name.startswith("hv-")


def _write_cache(element: Element, flags: Flags) -> None:
    for mode, wanted in _CACHE.items():
        if all(flags.get(name) == value for name, value in wanted.items()):
            element.add("cache", level="3" if mode == "emulate" else None, mode=mode)
            for name in wanted:
                del flags[name]


def _write_maxphysaddr(element: Element, flags: Flags) -> None:
    if flags.get("host-phys-bits") == "on":
        del flags["host-phys-bits"]
        element.add("maxphysaddr", mode="passthrough", limit=flags.pop("host-phys-bits-limit", None))
    elif flags.get("phys-bits", "").isdigit():
        element.add("maxphysaddr", mode="emulate", bits=flags.pop("phys-bits"))


def write_hyperv(features: Element, flags: Flags) -> None:
    """Write <hyperv>; remove the flags written there from ``flags``."""
    passthrough = flags.get("hv-passthrough") == "on"
    element = Element("hyperv", {"mode": "passthrough" if passthrough else "custom"})
    if passthrough:
        del flags["hv-passthrough"]
    for name in _HYPERV_ORDER:
        if name == "spinlocks":
            _write_spinlocks(element, flags)
        elif name == "vendor_id":
            if "hv-vendor-id" in flags:
                element.add(name, state="on", value=flags.pop("hv-vendor-id"))
        elif flags.get(_HYPERV[name]) == "on":
            del flags[_HYPERV[name]]
            child = element.add(name, state="on")
            if name == "stimer" and flags.get("hv-stimer-direct") == "on":
                del flags["hv-stimer-direct"]
                child.add("direct", state="on")
    if passthrough or element.children:
        features.children.append(element)


def _write_spinlocks(element: Element, flags: Flags) -> None:
    try:
        retries = int(flags.get("hv-spinlocks", ""), 0)
    except ValueError:
        return
    if retries >= 0:
        del flags["hv-spinlocks"]
        element.add("spinlocks", state="on", retries=retries)


def write_kvm(features: Element, flags: Flags) -> None:
    """Write <kvm>; remove the flags written there from ``flags``."""
    element = Element("kvm")
    if flags.get("kvm") == "off":
        del flags["kvm"]
        element.add("hidden", state="on")
    for name, flag in _KVM.items():
        if flags.get(flag) == "on":
            del flags[flag]
            element.add(name, state="on")
    if element.children:
        features.children.append(element)


def write_timers(clock: Element, flags: Flags) -> None:
    """Write the CPU's timers of <clock>; remove their flags from ``flags``."""
    if flags.get("kvmclock") in ("on", "off"):
        clock.add("timer", name="kvmclock", present="yes" if flags.pop("kvmclock") == "on" else "no")
    if flags.get("hv-time") == "on":
        del flags["hv-time"]
        clock.add("timer", name="hypervclock", present="yes")
    if flags.get("tsc-frequency", "").isdigit():
        clock.add("timer", name="tsc", frequency=flags.pop("tsc-frequency"))
