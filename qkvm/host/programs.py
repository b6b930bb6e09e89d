"""The programs that qkvm starts beside QEMU, their purposes and their Debian packages."""

from __future__ import annotations

import os
from typing import NamedTuple

from qkvm.errors import HostError, MissingProgram
from qkvm.host import process


class Program(NamedTuple):
    """One program; ``places`` are tried before PATH."""

    purpose: str
    package: str
    places: tuple[str, ...] = ()


EMULATOR = "qemu-system-x86_64"
"""The name of QEMU's program."""

_RHEL_EMULATOR = "/usr/libexec/qemu-kvm"

KNOWN = {
    "qemu-img": Program("making and looking at disks", "qemu-utils"),
    "dnsmasq": Program("DHCP and DNS of networks", "dnsmasq-base"),
    "fallocate": Program("capping a journal", "util-linux"),
    "lvm": Program("pools of type logical", "lvm2"),
    "passt": Program("a NIC of type user with the host's addresses", "passt"),
    "ssh": Program("a way into a guest by ssh", "openssh-client"),
    "ssh-keygen": Program("a key for guests", "openssh-client"),
    "swtpm": Program("a TPM in a guest", "swtpm"),
    "swtpm_setup": Program("making a TPM for a guest", "swtpm-tools"),
    "virtiofsd": Program(
        "sharing a folder by virtiofs", "qemu-system-common", ("/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd")
    ),
}
"""By name. QEMU has :func:`emulator`; the packet filter looks for its own programs."""


def find(name: str) -> str:
    """Return the path of a known program. :raises MissingProgram: it is not installed."""
    program = KNOWN[name]
    for path in program.places:
        if os.access(path, os.X_OK):
            return path
    return process.find_program(name, program.purpose, program.package)


def emulator(name: str, purpose: str = "every domain") -> str:
    """Return the path of the QEMU that the settings or a definition name.

    Where the usual name does not exist, that of RHEL and its kin is tried. :raises MissingProgram: not installed.
    """
    try:
        return process.find_program(name, purpose, "qemu-system-x86")
    except MissingProgram:
        if name == EMULATOR and os.access(_RHEL_EMULATOR, os.X_OK):
            return _RHEL_EMULATOR
        raise


def is_installed(name: str) -> bool:
    """Whether a known program is installed."""
    try:
        return bool(find(name))
    except HostError:
        return False
