"""--osinfo: a few families of guests, and the hardware for which each has drivers.

virt-install uses libosinfo's database, which knows each release. This table knows families. The names are
libosinfo's short ids, and the hardware is what virt-install 4.1 chooses. A name that is not in the table gets the
hardware of a modern Linux and a warning. qkvm detects nothing from install media.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from qkvm.cli.parse import UsageError
from qkvm.spec.domain import ClockOffset, DiskBus, Machine, NicModel
from qkvm.units import check_text, printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from qkvm.cli.install.reader import Options


class Profile(NamedTuple):
    """The hardware for a family of guests.

    ``enlightened``: has Hyper-V enlightenments; ``windows11``: needs UEFI, Secure Boot and a TPM.
    """

    machine: Machine
    disk: DiskBus
    nic: NicModel
    clock: ClockOffset = ClockOffset.UTC
    enlightened: bool = False
    windows11: bool = False


MODERN = Profile(Machine.Q35, DiskBus.VIRTIO, NicModel.VIRTIO)
_VIRTIO_PC = Profile(Machine.PC, DiskBus.VIRTIO, NicModel.VIRTIO)
_OLD = Profile(Machine.PC, DiskBus.IDE, NicModel.E1000)
_SOLARIS = _OLD._replace(clock=ClockOffset.LOCALTIME)
_WINDOWS = Profile(Machine.Q35, DiskBus.SATA, NicModel.E1000E, ClockOffset.LOCALTIME, enlightened=True)
_WINDOWS_11 = _WINDOWS._replace(windows11=True)
_OLD_WINDOWS = _OLD._replace(clock=ClockOffset.LOCALTIME, enlightened=True)

TABLE: tuple[tuple[str, Profile, str], ...] = (
    ("generic|unknown", _OLD, "any guest: IDE disk, e1000 NIC, machine pc"),
    (
        r"rhl.*|rhel[2-5](\..*|-.*)?|centos[2-5](\..*)?|oel[45].*|ol[45]\..*|fedora[1-8]|fedora-core.*|debian[1-4](\..*)?"
        r"|ubuntu[4-7]\..*|ubuntu8\..*|sle[ds]?(9|10|11)(sp.*)?|opensuse1[01]\..*|mandrake.*|mandriva.*",
        _OLD,
        "Linux without virtio drivers",
    ),
    (
        r"(alma|alpine|alt|arch|clear|eu?ro|hyperbola|miracle|scientific|void|xbo)?linux.*|alt\..*|android-x86.*|asianux.*"
        r"|caasp.*|centos.*|circle.*|cirros.*|debian.*|elementary.*|endless.*|eos.*|fedora.*|gentoo|gnome.*|guix.*|kali.*"
        r"|mageia.*|manjaro.*|mbs.*|mes.*|nixos.*|oel.*|ol\d.*|opensuse.*|popos.*|pureos.*|rhel.*|rocky.*|silverblue.*"
        r"|slackware.*|sle.*|slem.*|trisquel.*|ubuntu.*|ucs.*",
        MODERN,
        "Linux with virtio drivers",
    ),
    ("win11|win2k25", _WINDOWS_11, "Windows with UEFI, Secure Boot and a TPM"),
    (r"win(7|8|8\.1|10|2k8r2|2k12.*|2k16|2k19|2k22)", _WINDOWS, "Windows from 7 on: SATA disk, e1000e NIC"),
    (r"win.*", _OLD_WINDOWS, "older Windows: IDE disk, e1000 NIC, machine pc"),
    (r"freebsd[1-8](\..*)?|netbsd.*|openbsd[1-4]\..*|dragonflybsd.*", _OLD, "BSD without virtio drivers"),
    (r"freebsd.*|openbsd.*", _VIRTIO_PC, "BSD with virtio drivers, machine pc"),
    (r"solaris.*|opensolaris.*", _SOLARIS, "Solaris"),
    (r"msdos.*|freedos.*|netware.*|macosx.*|haiku.*", _OLD, "others"),
)
"""Patterns of names; the first match counts."""


def profile(options: Options, warn: Callable[[str], object]) -> Profile:
    """Return the hardware for the name in --osinfo; that of a modern Linux without a name.

    :raises UsageError: require=on without a name.
    """
    given = options.first("os-variant")
    name = given.text("name") or _short(given.text("id"))
    if name in ("detect", "none"):
        name = ""
    given.flag("detect")
    if not name:
        if given.flag("require"):
            raise UsageError(
                "--osinfo require=on: no operating system is named, and none is ever detected",
                hint="--osinfo debian12",
            )
        return MODERN
    for pattern, found, _ in TABLE:
        if re.fullmatch(pattern, name.lower()):
            return found
    warn(f"--osinfo {printable(name)} is not known: the hardware is that of a modern Linux")
    return MODERN


def _short(url: str) -> str:
    """Return the short id for libosinfo's long one: win10 for http://microsoft.com/win/10."""
    return "".join(url.rstrip("/").split("/")[-2:])


def metadata(options: Options) -> dict[str, str]:
    """Return what virt-install stores in <metadata> about the operating system, if its long id is given."""
    url = options.first("os-variant").text("id") or options.first("metadata").text("os_full_id")
    if not url:
        return {}
    from html import escape

    uri = "http://libosinfo.org/xmlns/libvirt/domain/1.0"
    check_text(url, "--osinfo id")
    return {
        uri: f'<libosinfo:libosinfo xmlns:libosinfo="{uri}">\n'
        f'  <libosinfo:os id="{escape(url)}"/>\n</libosinfo:libosinfo>'
    }


def listing() -> str:
    """Return what --osinfo list prints."""
    lines = [f"  {summary}:\n    {pattern.replace('|', ' ')}\n" for pattern, _, summary in TABLE]
    return "Names are those of libosinfo, as patterns; the first that fits counts.\n" + "".join(lines)
