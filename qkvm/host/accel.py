"""Which accelerator this machine really has."""

from __future__ import annotations

import os

from qkvm.errors import HostError


def has_hardware_virtualization(root: str = "") -> bool:
    """Whether the CPU shows vmx or svm, or a vendor's KVM module is loaded.

    :param root: what /proc and /sys are looked for under; empty for this host's own.

    A /dev/kvm that opens is not enough: some virtual machines have a software KVM behind it, in which
    ordinary 64-bit kernels hang.
    """
    if any(os.path.isdir(f"{root}/sys/module/{module}") for module in ("kvm_intel", "kvm_amd")):
        return True
    with open(f"{root}/proc/cpuinfo", encoding="ascii", errors="replace") as stream:
        for line in stream:
            if line.startswith("flags"):
                return not {"vmx", "svm"}.isdisjoint(line.split())
    return False


def choose(wanted: str) -> tuple[str, str]:
    """The accelerator for 'auto', 'kvm' or 'tcg', and a warning (empty when there is nothing to warn of).

    :raises HostError: 'kvm' was asked for and is not there.
    """
    if wanted == "tcg":
        return "tcg", ""
    problem = _kvm_problem(forced=wanted == "kvm")
    if not problem:
        return "kvm", ""
    if wanted == "kvm":
        raise HostError(f"KVM is not available: {problem}", hint='accel = "tcg" or "auto" runs without it')
    return "tcg", f"KVM is not available ({problem}); the guest runs under TCG, some ten times slower"


def _kvm_problem(*, forced: bool) -> str:
    if not forced and not has_hardware_virtualization():
        return "no vmx or svm in /proc/cpuinfo"
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return f"/dev/kvm: {os.strerror(error.errno or 0)}"
    return ""
