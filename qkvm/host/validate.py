"""Is this host fit for guests? One check at a time, each with what to do where it isn't (virt-host-validate).

``root`` is put in front of /dev, /proc and /sys; it is empty for this host's own.
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
"""Bytes; less free space than this is worth a warning."""


class Check(NamedTuple):
    """One check: an id for programs, what was looked for, how it went, and what to do or know about it.

    PASS; NOTE: only a feature that few need is missing; WARN: guests run, but worse; FAIL: guests don't run, or
    as slowly as without virtualization.
    """

    id: str
    what: str
    level: Level
    advice: str = ""

    def line(self) -> str:
        """The check as virt-host-validate prints it."""
        return f"  QEMU: Checking {self.what:<60}: {self.level}{f' ({self.advice})' if self.advice else ''}\n"


def checks(
    tree: Tree, firewall: Callable[[], str], start: Callable[[], str], root: str = ""
) -> Iterator[Check]:  # fmt: skip
    """All checks, in order, as they are made.

    :param firewall: gives the name of the packet filter's backend, or raises what is wrong with it.
    :param start: makes a trial start and gives its accelerator, or raises why QEMU did not come up.
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
    yield _judge(
        "hardware", "for hardware virtualization", real, "FAIL",
        "HW virtualization CPU features not found. Only emulated CPUs are available; performance will be "
        "significantly limited; switch VT-x or AMD-V on in the firmware, or nesting on in the outer hypervisor",
    )  # fmt: skip
    module = "kvm_intel" if "vmx" in flags else "kvm_amd" if "svm" in flags else "kvm_intel or kvm_amd"
    loaded = any(os.path.isdir(f"{root}/sys/module/{name}") for name in ("kvm_intel", "kvm_amd"))
    # Without the hardware there is nothing that a module or a device could mend.
    severe: Level = "FAIL" if real else "NOTE"
    yield _judge(
        "kvm-module", "if a KVM module is loaded", loaded, severe,
        f"modprobe {module}" if real else "there is no hardware for one",
    )  # fmt: skip
    path = f"{root}/dev/kvm"
    there = os.path.exists(path)
    yield _judge(
        "kvm-device", "if device /dev/kvm exists", there, severe,
        f"modprobe {module}" if real else "there is no hardware for it",
    )  # fmt: skip
    if not there:
        return
    yield _judge(
        "kvm-access", "if device /dev/kvm is accessible", os.access(path, os.R_OK | os.W_OK), severe,
        "run qkvm as root, or join the group that /dev/kvm belongs to",
    )  # fmt: skip
    yield _judge(
        "kvm-real", "if /dev/kvm has hardware behind it", real, "WARN",
        'it is a KVM in software, in which ordinary 64-bit guests hang; accel = "auto" takes TCG here',
    )  # fmt: skip
    if loaded:
        states = [sysfs.text(f"{root}/sys/module/{name}/parameters/nested") for name in ("kvm_intel", "kvm_amd")]
        yield _judge(
            "nested", "for nested virtualization", any(state in ("Y", "1") for state in states), "NOTE",
            f"guests can't use KVM themselves; options {module} nested=1 in /etc/modprobe.d",
        )  # fmt: skip


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
"""The cgroup controllers that limits of a domain need."""


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
        yield _judge(
            "cgroup-delegation", "if cgroup controllers can be handed on",
            os.access(f"{top}/cgroup.subtree_control", os.W_OK), "WARN",
            f"{mount} can't be written: limits of domains can't be set",
        )  # fmt: skip


_IOMMUS = {"DMAR": "intel_iommu=on", "IVRS": "iommu=pt"}
"""The ACPI table that tells of an IOMMU, and what has the kernel use it."""


def _hardware(root: str) -> Iterator[Check]:
    flags, vendor = cpu.model(root).flags, cpu.model(root).vendor
    expected = {"GenuineIntel": "DMAR", "AuthenticAMD": "IVRS", "HygonGenuine": "IVRS"}.get(vendor, "")
    # In a virtual machine an Intel IOMMU may serve an AMD CPU.
    there = [name for name in _IOMMUS if os.path.exists(f"{root}/sys/firmware/acpi/tables/{name}")]
    yield _judge(
        "iommu", "for device assignment IOMMU support", bool(there), "NOTE",
        f"No ACPI {expected} table found, IOMMU either disabled in BIOS or not supported by this hardware platform"
        if expected else "Unknown if this platform has IOMMU support",
    )  # fmt: skip
    if there:
        yield _judge(
            "iommu-kernel", "if IOMMU is enabled by kernel",
            bool(sysfs.numbered(f"{root}/sys/kernel/iommu_groups", "")), "NOTE",
            f"IOMMU appears to be disabled in kernel. Add {_IOMMUS[there[0]]} to kernel cmdline arguments",
        )  # fmt: skip
    states = [
        sysfs.text(f"{root}/sys/module/{module}/parameters/{name}")
        for module, name in (("kvm_amd", "sev"), ("kvm_intel", "tdx"))
    ]
    advice = "Unknown if this platform has Secure Guest support"
    if "sev" in flags:
        advice = "AMD Secure Encrypted Virtualization appears to be disabled in kernel; kvm_amd.sev=1"
    yield _judge(
        "secure-guest", "for secure guest support", any(state in ("Y", "1") for state in states), "NOTE", advice
    )


def _network(root: str) -> Iterator[Check]:
    sysctl = f"{root}/proc/sys/net"
    yield _judge(
        "ip-forward", "for IPv4 forwarding", sysfs.text(f"{sysctl}/ipv4/ip_forward") == "1", "NOTE",
        "it is off; a NAT network switches it on while it is active",
    )  # fmt: skip
    called = sysfs.text(f"{sysctl}/bridge/bridge-nf-call-iptables") == "1"
    yield _judge(
        "bridge-nf", "if bridged frames bypass the packet filter", not called, "NOTE",
        "br_netfilter is on: the host's FORWARD rules see what guests on one bridge say to each other; "
        "sysctl net.bridge.bridge-nf-call-iptables=0",
    )  # fmt: skip


def _packet_filter(firewall: Callable[[], str]) -> Check:
    try:
        return Check("packet-filter", f"for a packet filter ({firewall()})", "PASS")
    except QkvmError as error:
        return Check("packet-filter", "for a packet filter", "WARN", _words(error))


def _xtables_lock() -> Check:
    path = os.environ.get("XTABLES_LOCKFILE") or "/run/xtables.lock"
    ok = os.access(path if os.path.exists(path) else os.path.dirname(path), os.W_OK)
    return _judge(
        "xtables-lock", "for the lock of the legacy tables", ok, "NOTE",
        f"{path} can't be written: networks with the iptables backend can't start",
    )  # fmt: skip


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
"""What it means that a program is missing; where nothing is said, few need it."""


def _programs() -> Iterator[Check]:
    for name, program in programs.KNOWN.items():
        yield _judge(
            f"program-{name}", f"for {name}", programs.is_installed(name), _PROGRAM_LEVELS.get(name, "NOTE"),
            f"{program.purpose} needs it; on Debian: apt install {program.package}",
        )  # fmt: skip


def _firmware(root: str) -> Check:
    machine = os.uname().machine
    return _judge(
        "uefi", "for UEFI firmware", bool(firmware.images(machine, "pc-q35-7.2", root)), "NOTE",
        'firmware = "uefi" needs it; on Debian: apt install ovmf',
    )  # fmt: skip


def _folders(tree: Tree) -> Iterator[Check]:
    for ident, path, minimum in (("space-images", tree.images, SPACE_MINIMUM), ("space-run", tree.run, 16 << 20)):
        try:
            info = os.statvfs(_existing(path))
            free = info.f_bavail * info.f_frsize
        except OSError as error:
            yield Check(ident, f"for free space in {path}", "WARN", os.strerror(error.errno or 0))
            continue
        yield _judge(
            ident, f"for free space in {path}", free >= minimum, "WARN", f"{free >> 20} MiB are left there"
        )
    kind = _file_system(_existing(tree.run))
    yield _judge(
        "run-tmpfs", f"if {tree.run} is on a tmpfs", kind in ("tmpfs", "ramfs"), "NOTE",
        f"it is on {kind or 'an unknown file system'}: what runs now is written to a disk",
    )  # fmt: skip


def _existing(path: str) -> str:
    """The path, or the nearest folder above it that is there."""
    while not os.path.exists(path):
        path = os.path.dirname(path)
    return path


def _file_system(path: str) -> str:
    """The kind of file system that a path lies on: that of the longest mount point above it."""
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
