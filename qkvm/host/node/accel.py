"""Which accelerator this machine has."""

from __future__ import annotations

import errno
import os

from qkvm.errors import HostError, Notice


def has_hardware_virtualization(root: str = "") -> bool:
    """Whether the CPU shows vmx or svm, or a vendor's KVM module is loaded.

    A /dev/kvm that opens is not enough: some virtual machines have KVM in software, in which ordinary 64-bit
    kernels hang. :param root: a prefix for /proc and /sys, empty for this host's own.
    """
    if any(os.path.isdir(f"{root}/sys/module/{module}") for module in ("kvm_intel", "kvm_amd")):
        return True
    with open(f"{root}/proc/cpuinfo", encoding="ascii", errors="replace") as stream:
        for line in stream:
            if line.startswith("flags"):
                return not {"vmx", "svm"}.isdisjoint(line.split())
    return False


def choose(wanted: str) -> tuple[str, str]:
    """Return the accelerator for 'auto', 'kvm' or 'tcg', and a warning or ''.

    :raises HostError: 'kvm' is not available.
    """
    if wanted == "tcg":
        return "tcg", ""
    problem, remedy = _kvm_problem(forced=wanted == "kvm")
    if not problem:
        return "kvm", ""
    if wanted == "kvm":
        hint = 'accel = "tcg" or "auto" runs without it'
        raise HostError(f"KVM is not available: {problem}", hint=f"{remedy}; {hint}" if remedy else hint)
    problem = f"{problem}: {remedy}" if remedy else problem
    return "tcg", Notice(f"KVM is not available ({problem}); the guest runs under TCG, some ten times slower")


def _kvm_problem(*, forced: bool) -> tuple[str, str]:
    """Return why KVM is not available, and what would help; '' where it is."""
    if not forced and not has_hardware_virtualization():
        return "no vmx or svm in /proc/cpuinfo", ""
    try:
        os.close(os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        remedy = _remedy() if error.errno == errno.EACCES else ""
        return f"/dev/kvm: {os.strerror(error.errno or 0)}", remedy
    return "", ""


def _remedy() -> str:
    """Return how a user gets access to /dev/kvm: through its group."""
    import grp
    import pwd

    info = os.stat("/dev/kvm")
    try:
        group, user = grp.getgrgid(info.st_gid).gr_name, pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        group, user = "kvm", "USER"
    if info.st_gid == 0 or info.st_mode & 0o060 != 0o060:
        return "root has to give it to a group of its users: chgrp kvm /dev/kvm; chmod g+rw /dev/kvm"
    return f"root lets users in by group {group}: usermod -aG {group} {user}, and log in anew"
