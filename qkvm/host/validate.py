"""Whether this host is fit for guests: single checks, each with advice where it fails (virt-host-validate).

``root`` is a prefix for /dev, /proc and /sys, empty for this host's own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

from qkvm.errors import QkvmError
from qkvm.host import cgroup, process, programs, settings
from qkvm.host.node import accel, cpu, firmware, sysfs
from qkvm.paths import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Level = Literal["PASS", "NOTE", "WARN", "FAIL"]

QEMU_OLDEST = (7, 2)
"""The oldest QEMU that is supported."""

SPACE_MINIMUM = 1 << 30
"""Bytes; less free space is worth a warning."""


class Check(NamedTuple):
    """One check: an id for programs, what was looked for, the result, and advice.

    NOTE: a feature that few need is missing. WARN: guests run, but worse. FAIL: guests don't run, or as slowly as
    without virtualization.
    """

    id: str
    what: str
    level: Level
    advice: str = ""

    def line(self, level: str = "") -> str:
        """Return the check as virt-host-validate prints it; ``level`` is its level in colour."""
        advice = f" ({self.advice})" if self.advice else ""
        return f"  QEMU: Checking {self.what:<60}: {level or self.level}{advice}\n"


def checks(tree: Tree, firewall: Callable[[], str], start: Callable[[], str], root: str = "") -> Iterator[Check]:
    """Yield all checks in order, as they are made.

    :param firewall: returns the name of the packet filter's backend, or raises what is wrong with it.
    :param start: makes a trial start and returns its accelerator, or raises why QEMU did not start.
    """
    yield from _kvm(root)
    yield from _devices(root)
    yield from _cgroups(root)
    yield from _hardware(root)
    yield from _network(root)
    yield _packet_filter(firewall)
    yield _xtables_lock()
    yield _emulator(tree)
    yield _trial(start)
    yield from _programs()
    yield _firmware(root)
    yield from _folders(tree)


def _judge(ident: str, what: str, ok: bool, otherwise: Level, advice: str) -> Check:
    return Check(ident, what, "PASS" if ok else otherwise, "" if ok else advice)


def _kvm(root: str) -> Iterator[Check]:
    flags = cpu.model(root).flags
    real = accel.has_hardware_virtualization(root)
    advice = (
        "HW virtualization CPU features not found. Only emulated CPUs are available; performance will be "
        "significantly limited; switch VT-x or AMD-V on in the firmware, or nesting on in the outer hypervisor"
    )
    yield _judge("hardware", "for hardware virtualization", real, "FAIL", advice)
    module = "kvm_intel" if "vmx" in flags else "kvm_amd" if "svm" in flags else "kvm_intel or kvm_amd"
    loaded = any(os.path.isdir(f"{root}/sys/module/{name}") for name in ("kvm_intel", "kvm_amd"))
    # Without the hardware, no module or device helps.
    severe: Level = "FAIL" if real else "NOTE"
    load = f"modprobe {module}"
    advice = load if real else "there is no hardware for one"
    yield _judge("kvm-module", "if a KVM module is loaded", loaded, severe, advice)
    path = f"{root}/dev/kvm"
    there = os.path.exists(path)
    advice = load if real else "there is no hardware for it"
    yield _judge("kvm-device", "if device /dev/kvm exists", there, severe, advice)
    if not there:
        return
    opens = os.access(path, os.R_OK | os.W_OK)
    advice = "run qkvm as root, or join the group that /dev/kvm belongs to"
    yield _judge("kvm-access", "if device /dev/kvm is accessible", opens, severe, advice)
    advice = 'it is a KVM in software, in which ordinary 64-bit guests hang; accel = "auto" takes TCG here'
    yield _judge("kvm-real", "if /dev/kvm has hardware behind it", real, "WARN", advice)
    if loaded:
        files = [f"{root}/sys/module/{name}/parameters/nested" for name in ("kvm_intel", "kvm_amd")]
        nested = any(sysfs.text(file) in ("Y", "1") for file in files)
        advice = f"guests can't use KVM themselves; options {module} nested=1 in /etc/modprobe.d"
        yield _judge("nested", "for nested virtualization", nested, "NOTE", advice)


def _devices(root: str) -> Iterator[Check]:
    wanted: tuple[tuple[str, Level, str], ...] = (
        ("vhost-net", "WARN", "Load the 'vhost_net' module to improve performance of virtio networking"),
        ("net/tun", "FAIL", "Load the 'tun' module to enable networking for QEMU guests"),
        ("vhost-vsock", "NOTE", "Load the 'vhost_vsock' module for sockets between host and guests"),
    )
    for name, level, advice in wanted:
        there = os.path.exists(f"{root}/dev/{name}")
        yield _judge(f"device-{name.replace('/', '-')}", f"if device /dev/{name} exists", there, level, advice)


CONTROLLERS = ("cpu", "cpuset", "memory", "io", "pids")
"""The cgroup controllers that a domain's limits need."""


def _cgroups(root: str) -> Iterator[Check]:
    mount = cgroup.mount_point(root)
    top = f"{root}{mount}"
    there = (sysfs.text(f"{top}/cgroup.controllers") or "").split() if mount else []
    for name in CONTROLLERS:
        advice = f"Enable '{name}' in kernel Kconfig file or mount/enable cgroup controller in your system"
        if cgroup.v1_has(name, root):
            advice = (
                f"'{name}' is bound to cgroup v1, and qkvm uses v2; add systemd.unified_cgroup_hierarchy=1 to the "
                "kernel's command line"
            )
        yield _judge(f"cgroup-{name}", f"for cgroup '{name}' controller support", name in there, "WARN", advice)
    if mount:
        ok, what = os.access(f"{top}/cgroup.subtree_control", os.W_OK), "if cgroup controllers can be handed on"
        advice = f"{mount} can't be written: limits of domains can't be set"
        yield _judge("cgroup-delegation", what, ok, "WARN", advice)


_IOMMUS = {"DMAR": "intel_iommu=on", "IVRS": "iommu=pt"}
"""The ACPI table of each kind of IOMMU, and the kernel's option that uses it."""


def _hardware(root: str) -> Iterator[Check]:
    flags, vendor = cpu.model(root).flags, cpu.model(root).vendor
    expected = {"GenuineIntel": "DMAR", "AuthenticAMD": "IVRS", "HygonGenuine": "IVRS"}.get(vendor, "")
    # In a virtual machine, an Intel IOMMU may serve an AMD CPU.
    there = [name for name in _IOMMUS if os.path.exists(f"{root}/sys/firmware/acpi/tables/{name}")]
    advice = "Unknown if this platform has IOMMU support"
    if expected:
        why = "IOMMU either disabled in BIOS or not supported by this hardware platform"
        advice = f"No ACPI {expected} table found, {why}"
    yield _judge("iommu", "for device assignment IOMMU support", bool(there), "NOTE", advice)
    if there:
        enabled = bool(sysfs.numbered(f"{root}/sys/kernel/iommu_groups", ""))
        advice = f"IOMMU appears to be disabled in kernel. Add {_IOMMUS[there[0]]} to kernel cmdline arguments"
        yield _judge("iommu-kernel", "if IOMMU is enabled by kernel", enabled, "NOTE", advice)
    files = [f"{root}/sys/module/{name}" for name in ("kvm_amd/parameters/sev", "kvm_intel/parameters/tdx")]
    secure = any(sysfs.text(file) in ("Y", "1") for file in files)
    advice = "Unknown if this platform has Secure Guest support"
    if "sev" in flags:
        advice = "AMD Secure Encrypted Virtualization appears to be disabled in kernel; kvm_amd.sev=1"
    yield _judge("secure-guest", "for secure guest support", secure, "NOTE", advice)


def _network(root: str) -> Iterator[Check]:
    sysctl = f"{root}/proc/sys/net"
    on = sysfs.text(f"{sysctl}/ipv4/ip_forward") == "1"
    advice = "it is off; a NAT network switches it on while it is active"
    yield _judge("ip-forward", "for IPv4 forwarding", on, "NOTE", advice)
    called = sysfs.text(f"{sysctl}/bridge/bridge-nf-call-iptables") == "1"
    advice = (
        "br_netfilter is on: the host's FORWARD rules see what guests on one bridge say to each other; "
        "sysctl net.bridge.bridge-nf-call-iptables=0"
    )
    yield _judge("bridge-nf", "if bridged frames bypass the packet filter", not called, "NOTE", advice)


def _packet_filter(firewall: Callable[[], str]) -> Check:
    try:
        return Check("packet-filter", f"for a packet filter ({firewall()})", "PASS")
    except QkvmError as error:
        return Check("packet-filter", "for a packet filter", "WARN", _words(error))


def _xtables_lock() -> Check:
    path = os.environ.get("XTABLES_LOCKFILE") or "/run/xtables.lock"
    ok = os.access(path if os.path.exists(path) else os.path.dirname(path), os.W_OK)
    advice = f"{path} can't be written: networks with the iptables backend can't start"
    return _judge("xtables-lock", "for the lock of the legacy tables", ok, "NOTE", advice)


def _emulator(tree: Tree) -> Check:
    what = "for QEMU 7.2 or newer"
    try:
        path = programs.emulator(settings.load(tree).qemu)
        words = process.run([path, "--version"]).decode("utf-8", "replace").split()
    except QkvmError as error:
        return Check("qemu", what, "FAIL", _words(error))
    # It says: QEMU emulator version 7.2.22 (Debian …).
    version = words[3] if len(words) > 3 else "unknown"
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    return _judge("qemu", what, numbers >= QEMU_OLDEST, "FAIL", f"{path} is version {version}")


def _trial(start: Callable[[], str]) -> Check:
    try:
        return Check("start", f"if QEMU starts as for a guest ({start()})", "PASS")
    except QkvmError as error:
        return Check("start", "if QEMU starts as for a guest", "FAIL", _words(error))


_PROGRAM_LEVELS: dict[str, Level] = {"qemu-img": "FAIL", "dnsmasq": "WARN", "fallocate": "WARN"}
"""How bad it is that a program is missing; the default is NOTE."""


def _programs() -> Iterator[Check]:
    for name, program in programs.KNOWN.items():
        level, installed = _PROGRAM_LEVELS.get(name, "NOTE"), programs.is_installed(name)
        advice = f"{program.purpose} needs it; on Debian: apt install {program.package}"
        yield _judge(f"program-{name}", f"for {name}", installed, level, advice)


def _firmware(root: str) -> Check:
    found = bool(firmware.images(os.uname().machine, "pc-q35-7.2", root))
    advice = 'firmware = "uefi" needs it; on Debian: apt install ovmf'
    return _judge("uefi", "for UEFI firmware", found, "NOTE", advice)


def _folders(tree: Tree) -> Iterator[Check]:
    for ident, path, minimum in (("space-images", tree.images, SPACE_MINIMUM), ("space-run", tree.run, 16 << 20)):
        try:
            info = os.statvfs(_existing(path))
            free = info.f_bavail * info.f_frsize
        except OSError as error:
            yield Check(ident, f"for free space in {path}", "WARN", os.strerror(error.errno or 0))
            continue
        advice = f"{free >> 20} MiB are left there"
        yield _judge(ident, f"for free space in {path}", free >= minimum, "WARN", advice)
    kind = _file_system(_existing(tree.run))
    advice = f"it is on {kind or 'an unknown file system'}: what runs now is written to a disk"
    yield _judge("run-tmpfs", f"if {tree.run} is on a tmpfs", kind in ("tmpfs", "ramfs"), "NOTE", advice)


def _existing(path: str) -> str:
    """Return the path, or the nearest folder above it that exists."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path


def _file_system(path: str) -> str:
    """Return the kind of file system that a path is on: that of the longest mount point above it."""
    path = os.path.realpath(path)
    best, kind = "", ""
    for line in (sysfs.text("/proc/self/mounts") or "").splitlines():
        words = line.split()
        if len(words) > 2:
            point = words[1].replace("\\040", " ")
            inside = path == point or path.startswith(point.rstrip("/") + "/")
            if inside and len(point) >= len(best):
                best, kind = point, words[2]
    return kind


def _words(error: QkvmError) -> str:
    return f"{error}; {error.hint}" if error.hint else str(error)
