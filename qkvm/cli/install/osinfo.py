"""What --osinfo means: a few kinds of guests and the hardware that each of them has drivers for.

virt-install asks libosinfo's database, which knows each release. This table knows families: names are libosinfo's
short ids, and which hardware they get is what virt-install 4.1 gives them. A name that is not in it gets the
hardware of a modern Linux and a warning. Nothing is detected from install media.
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
    """The hardware for a kind of guests. ``enlightened``: as Hyper-V; ``windows11``: UEFI, Secure Boot, a TPM."""

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
"""Names, as patterns; the first that fits counts."""


def profile(options: Options, warn: Callable[[str], object]) -> Profile:
    """The hardware for what --osinfo names; that of a modern Linux where it names nothing.

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
    """A short id from libosinfo's long one: http://microsoft.com/win/10 is win10."""
    return "".join(url.rstrip("/").split("/")[-2:])


def metadata(options: Options) -> dict[str, str]:
    """What virt-install keeps of the operating system in <metadata>, where its long id is said."""
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
    """What --osinfo list prints."""
    lines = [f"  {summary}:\n    {pattern.replace('|', ' ')}\n" for pattern, _, summary in TABLE]
    return "Names are those of libosinfo, as patterns; the first that fits counts.\n" + "".join(lines)
