"""The programs that qkvm starts beside QEMU, what each is for, and the Debian package that brings it."""

from __future__ import annotations

import os
from typing import NamedTuple

from qkvm.errors import HostError, MissingProgram
from qkvm.host import process


class Program(NamedTuple):
    """One program; ``places`` are where it lies when it is not on PATH."""

    purpose: str
    package: str
    places: tuple[str, ...] = ()


EMULATOR = "qemu-system-x86_64"
"""What QEMU's program is called, by QEMU itself."""

_RHEL_EMULATOR = "/usr/libexec/qemu-kvm"

KNOWN = {
    "qemu-img": Program("making and looking at disks", "qemu-utils"),
    "dnsmasq": Program("DHCP and DNS of networks", "dnsmasq-base"),
    "fallocate": Program("capping a journal", "util-linux"),
    "lvm": Program("pools of type logical", "lvm2"),
    "passt": Program("a NIC of type user with the host's addresses", "passt"),
    "swtpm": Program("a TPM in a guest", "swtpm"),
    "swtpm_setup": Program("making a TPM for a guest", "swtpm-tools"),
    "virtiofsd": Program(
        "sharing a folder by virtiofs", "qemu-system-common", ("/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd")
    ),
    "xorriso": Program("a cloud-init seed", "xorriso"),
}
"""By name; QEMU itself has :func:`emulator`, the packet filter's programs are looked for by those who use them."""


def find(name: str) -> str:
    """The path of a known program.

    :raises MissingProgram: it is not installed.
    """
    program = KNOWN[name]
    for path in program.places:
        if os.access(path, os.X_OK):
            return path
    return process.find_program(name, program.purpose, program.package)


def emulator(name: str, purpose: str = "every domain") -> str:
    """The path of the QEMU that the settings or a definition name.

    Where they leave it at QEMU's own name and there is none, it is the one under which RHEL and its kin have it.

    :raises MissingProgram: it is not installed.
    """
    try:
        return process.find_program(name, purpose, "qemu-system-x86")
    except MissingProgram:
        if name == EMULATOR and os.access(_RHEL_EMULATOR, os.X_OK):
            return _RHEL_EMULATOR
        raise


def is_installed(name: str) -> bool:
    """Whether a known program is there."""
    try:
        return bool(find(name))
    except HostError:
        return False
