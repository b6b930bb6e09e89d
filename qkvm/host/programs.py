"""The programs that qkvm starts beside QEMU, what each is for, and the Debian package that brings it."""

from __future__ import annotations

import os
from typing import NamedTuple

from qkvm.errors import HostError
from qkvm.host import process


class Program(NamedTuple):
    """One program; ``places`` are where it lies when it is not on PATH."""

    purpose: str
    package: str
    places: tuple[str, ...] = ()


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
"""By name; QEMU itself and the packet filter's programs are looked for by those who use them."""


def find(name: str) -> str:
    """The path of a known program.

    :raises MissingProgram: it is not installed.
    """
    program = KNOWN[name]
    for path in program.places:
        if os.access(path, os.X_OK):
            return path
    return process.find_program(name, program.purpose, program.package)


def is_installed(name: str) -> bool:
    """Whether a known program is there."""
    try:
        return bool(find(name))
    except HostError:
        return False
