"""The machine of an install line: memory, vCPUs, CPU, topology, features, clock, power management, SMBIOS."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from qkvm import units
from qkvm.cli.install.reader import choose
from qkvm.cli.parse import UsageError
from qkvm.spec import domain as spec
from qkvm.spec.size import Size

if TYPE_CHECKING:
    from qkvm.cli.install.osinfo import Profile
    from qkvm.cli.install.reader import Options, Suboptions


class Board(NamedTuple):
    """Machine type, its version ('' is the newest), and the accelerator."""

    machine: spec.Machine
    version: str
    accel: spec.Accel


_FILE = ",file"
"""What follows the name of a credential whose value is in a file."""

LEAST_MEMORY = 32 * 1024
"""KiB below which not even a small Linux boots."""


def board(options: Options, profile: Profile) -> Board:
    """Return the board of --machine, --arch and --virt-type; as in virt-install, qemu means TCG."""
    boot = options.first("boot")
    if options.single("arch", boot.text("arch", "x86_64")) not in ("x86_64", "amd64"):
        raise UsageError("--arch: x86_64 is the only architecture", hint="leave it out")
    name = options.single("machine", boot.text("machine", str(profile.machine)))
    try:
        machine, version = spec.Machine.parse(name)
    except ValueError:
        machine, version = choose(spec.Machine, name, "--machine"), ""
    wanted = options.single("virt-type", "auto")
    accel = spec.Accel.TCG if wanted == "qemu" else choose(spec.Accel, wanted, "--virt-type")
    return Board(machine, version, accel)


def memory(options: Options) -> spec.Memory:
    """Return the memory; MiB without a suffix, as in virt-install. With currentMemory, memory is the maximum."""
    given = options.first("memory")

    def size(key: str, default: str) -> Size:
        return Size(units.parse_size(given.text(key, default), default="MiB", what=key))

    if given.has("currentMemory"):
        given.exclude("maxmemory", reason="memory is the maximum beside currentMemory")
        return spec.Memory(current=size("currentMemory", ""), maximum=size("memory", "1024"))
    current = size("memory", "1024")
    return spec.Memory(current=current, maximum=size("maxmemory", f"{current}KiB"))


def doubt_memory(given: spec.Memory) -> str:
    """Return a warning about memory in which no guest boots; '' if it is enough."""
    if given.current >= LEAST_MEMORY:
        return ""
    mib = given.current / 1024
    return f"{mib:g} MiB of memory: hardly any guest boots with that (--memory is in MiB; 2G, 512M are sizes too)"


def memory_backing(options: Options) -> spec.MemoryBacking:
    """Return the memory backing of --memorybacking and --memory hugepages=."""
    given = options.first("memorybacking")
    sizes = given.numbered("hugepages.page")
    if len(sizes) > 1:
        raise UsageError("--memorybacking: huge pages of one size are for all of the memory")
    given.only("access.mode", "shared", "private")
    given.only("allocation.mode", "immediate", "ondemand")
    page = Size(0)
    if sizes:
        unit = sizes[0].text("unit", "KiB")
        page = Size(units.parse_size(sizes[0].text("size"), default=unit, what="hugepages.page.size"))
    return spec.MemoryBacking(
        source=given.choice("source.type", spec.MemorySource, spec.MemorySource.ANONYMOUS),
        shared=given.text("access.mode") == "shared",
        hugepages=given.flag("hugepages") or bool(sizes) or options.first("memory").flag("hugepages"),
        hugepage_size=page,
        locked=given.flag("locked"),
        mergeable=not given.flag("nosharepages"),
        preallocated=given.text("allocation.mode") == "immediate",
    )


_PARTS = ("sockets", "dies", "cores", "threads")


def vcpus(options: Options) -> tuple[spec.Vcpus, spec.Topology | None]:
    """Return the vCPUs and their topology; fill missing parts, cores first, as virt-install does."""
    given = options.first("vcpus")
    parts = {part: given.count(part, minimum=1, maximum=1024) for part in _PARTS if given.has(part)}
    cpu = options.first("cpu")
    for part in _PARTS:
        if cpu.has(f"topology.{part}"):
            parts[part] = cpu.count(f"topology.{part}", minimum=1, maximum=1024)
    product = 1
    for number in parts.values():
        product *= number
    total = given.count("vcpus", product, minimum=1, maximum=spec.VCPU_LIMIT)
    current = given.count("vcpu.current", total, minimum=1, maximum=spec.VCPU_LIMIT)
    maximum = given.count("maxvcpus", total, minimum=1, maximum=spec.VCPU_LIMIT)
    if given.text("cpuset") == "auto":
        raise UsageError("--vcpus cpuset=auto is not supported", hint="name the CPUs: cpuset=0-3")
    made = spec.Vcpus(current=current, maximum=maximum, cpuset=given.text("cpuset"))
    return made, _topology(parts, maximum) if parts else None


def _topology(parts: dict[str, int], maximum: int) -> spec.Topology:
    known = 1
    for number in parts.values():
        known *= number
    for part in ("cores", "sockets", "threads", "dies"):
        if part not in parts:
            parts[part] = max(1, maximum // known)
            known *= parts[part]
    return spec.Topology(**parts)


_MODELS = {
    "host-passthrough": "host", "host-model": "", "host": "", "host-copy": "", "hv-default": "", "none": "",
    "maximum": "max",
}  # fmt: skip

_CACHE = {
    "passthrough": {"host-cache-info": "on", "l3-cache": "off"},
    "emulate": {"host-cache-info": "off", "l3-cache": "on"},
    "disable": {"host-cache-info": "off", "l3-cache": "off"},
}


def cpu(options: Options, profile: Profile) -> str:
    """Return the value of QEMU's -cpu, model and features; '' means all that the accelerator offers.

    If features are given without a model, use max: it also offers all that the accelerator has.
    """
    given = options.first("cpu")
    given.only("mode", "host-passthrough", "host-model", "maximum", "custom")
    given.only("match", "exact")
    model = given.text("model")
    if not model or model == "custom":
        model = given.text("mode") if given.text("mode") != "custom" else ""
    flags: dict[str, str] = {}
    if given.has("model.vendor_id"):
        flags["vendor"] = given.text("model.vendor_id")
    if given.switch("migratable") is False:
        flags["migratable"] = "off"
    given.only("cache.mode", *_CACHE)
    flags |= _CACHE.get(given.text("cache.mode"), {})
    for policy, value in (
        ("force", "on"),
        ("require", "on"),
        ("optional", "on"),
        ("disable", "off"),
        ("forbid", "off"),
    ):
        flags |= {name: value for name in given.several(policy)}
    flags |= _board_flags(options, profile)
    model = _MODELS.get(model, model)
    return ",".join([model or "max", *(f"{name}={value}" for name, value in flags.items())]) if flags else model


_STATES = {
    "apic": "apic", "pmu.state": "pmu", "hyperv.relaxed.state": "hv-relaxed", "hyperv.vapic.state": "hv-vapic",
    "hyperv.synic.state": "hv-synic", "hyperv.reset.state": "hv-reset",
}  # fmt: skip
"""--features that are properties of QEMU's CPU."""


def _board_flags(options: Options, profile: Profile) -> dict[str, str]:
    """Return the settings of --features and --clock that QEMU has as properties of the CPU."""
    given, clock = options.first("features"), options.first("clock")
    flags = {}
    if profile.enlightened:
        flags = {"hv-relaxed": "on", "hv-vapic": "on", "hv-spinlocks": "0x1fff", "hv-time": "on"}
    for key, flag in _STATES.items():
        state = given.switch(key)
        if state is False and flag in ("apic", "pmu"):
            flags[flag] = "off"
        elif state is False:
            flags.pop(flag, None)
        elif state and flag != "apic":
            flags[flag] = "on"
    spinlocks = given.switch("hyperv.spinlocks.state")
    if spinlocks is False:
        flags.pop("hv-spinlocks", None)
    elif spinlocks or given.has("hyperv.spinlocks.retries"):
        flags["hv-spinlocks"] = hex(given.count("hyperv.spinlocks.retries", 0x1FFF, minimum=4095))
    if given.flag("kvm.hidden.state"):
        flags["kvm"] = "off"
    if given.switch("pae") is False:
        raise UsageError("--features pae=off is not supported: x86_64 always has it")
    timers = _timers(clock)
    if "present" in timers.get("kvmclock", {}):
        flags["kvmclock"] = "on" if timers["kvmclock"]["present"] else "off"
    if timers.get("hypervclock", {}).get("present"):
        flags["hv-time"] = "on"
    elif "hypervclock" in timers:
        flags.pop("hv-time", None)
    return flags


def features(options: Options) -> spec.Features:
    """Return the features of the board (--features, --pm); as in virt-install, guests can't suspend by default."""
    given, pm = options.first("features"), options.first("pm")
    return spec.Features(
        acpi=given.flag("acpi", True),
        vmport=given.flag("vmport.state"),
        smm=given.switch("smm.state"),
        suspend_to_mem=pm.flag("suspend_to_mem.enabled"),
        suspend_to_disk=pm.flag("suspend_to_disk.enabled"),
    )


_TICK_POLICIES = {"rtc": ("delay", "catchup"), "pit": ("delay", "discard")}


def clock(options: Options, profile: Profile) -> spec.Clock:
    """Return the clock: the named timers only, or virt-install's default if none is named."""
    given = options.first("clock")
    offset = given.choice("offset", spec.ClockOffset, profile.clock)
    timers = _timers(given)
    if not timers:
        return spec.Clock(offset=offset, rtc_catchup=True, pit_delay=True, hpet=False)
    return spec.Clock(
        offset=offset,
        rtc_catchup=timers.get("rtc", {}).get("tickpolicy") == "catchup",
        pit_delay=timers.get("pit", {}).get("tickpolicy") == "delay",
        hpet=bool(timers.get("hpet", {}).get("present", True)),
    )


def _timers(given: Suboptions) -> dict[str, dict[str, str | bool]]:
    """Return the settings of each timer; there are two notations for them."""
    found: dict[str, dict[str, str | bool]] = {}
    for name in ("hpet", "kvmclock", "hypervclock"):
        present = given.switch(f"{name}_present")
        if present is not None:
            found.setdefault(name, {})["present"] = present
    for name in _TICK_POLICIES:
        if given.has(f"{name}_tickpolicy"):
            found.setdefault(name, {})["tickpolicy"] = given.text(f"{name}_tickpolicy")
    for timer in given.numbered("timer"):
        name = timer.text("name")
        if name not in ("rtc", "pit", "hpet", "kvmclock", "hypervclock"):
            raise UsageError(
                f"--clock timer '{units.printable(name)}' is not known", hint="rtc, pit, hpet, kvmclock"
            )
        if timer.has("present"):
            found.setdefault(name, {})["present"] = timer.flag("present")
        if timer.has("tickpolicy"):
            found.setdefault(name, {})["tickpolicy"] = timer.text("tickpolicy")
    for name, said in found.items():
        allowed = _TICK_POLICIES.get(name, ())
        if "tickpolicy" in said and said["tickpolicy"] not in allowed:
            raise UsageError(
                f"--clock: tickpolicy '{units.printable(str(said['tickpolicy']))}' of {name} is not supported",
                hint=", ".join(allowed) or "it has none",
            )
        if said.get("present") is False and name in _TICK_POLICIES:
            raise UsageError(f"--clock: a machine always has its {name}")
    return found


def events(options: Options) -> dict[str, Any]:
    """Return what happens on power-off, reboot and panic, as fields of a definition."""
    given = options.first("events")
    return {
        "on_poweroff": given.choice("on_poweroff", spec.OnPoweroff, spec.OnPoweroff.DESTROY),
        "on_reboot": given.choice("on_reboot", spec.OnReboot, spec.OnReboot.RESTART),
        "on_crash": given.choice("on_crash", spec.OnCrash, spec.OnCrash.DESTROY),
    }


def smbios(options: Options) -> dict[str, str]:
    """Return the SMBIOS system information of --sysinfo."""
    given = options.first("sysinfo")
    given.only("type", "smbios", "emulate")
    options.first("boot").only("smbios.mode", "sysinfo", "emulate")
    if given.has("system.uuid"):
        raise UsageError("--sysinfo system.uuid is the domain's own", hint="--uuid")
    return {key.removeprefix("system."): value for key, value in given.values.items() if key.startswith("system.")}


def credentials(options: Options) -> tuple[spec.Credential, ...]:
    """Return the credentials of --credential, and of the OEM strings of --sysinfo. Errors do not show values."""
    found = []
    for text in options.every("credential"):
        head, equals, rest = text.partition("=")
        name = head.removesuffix(_FILE)
        if not equals or (head != name and not rest):
            raise UsageError("--credential: NAME=VALUE or NAME,file=PATH was expected")
        if head == name:
            found.append(spec.Credential(name=name, value=rest))
        else:
            found.append(spec.Credential(name=name, file=os.path.abspath(rest)))
    for given in options.first("sysinfo").numbered("oemStrings.entry"):
        kind, _, rest = given.text("").partition(":")
        name, equals, value = rest.partition("=")
        if kind != "io.systemd.credential" or not equals:
            raise UsageError("--sysinfo oemStrings.entry: io.systemd.credential:NAME=VALUE was expected")
        found.append(spec.Credential(name=name, value=value))
    return tuple(found)
