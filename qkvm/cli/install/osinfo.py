"""--osinfo: what is installed, the hardware for which it has drivers, and the sizes that it needs.

The hardware comes from a table of families, by libosinfo's short ids, and is what virt-install 4.1 chooses. A
name that is not in the table gets the hardware of a modern Linux. Releases, their sizes and their install media
are known where osinfo-db is installed.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from qkvm.cli.parse import UsageError
from qkvm.spec.domain import ClockOffset, DiskBus, Machine, NicModel
from qkvm.storage.base import store
from qkvm.storage.media import osinfo as database
from qkvm.units import check_text, printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from qkvm.cli.install.media import Method
    from qkvm.cli.install.reader import Options
    from qkvm.paths import Tree
    from qkvm.storage.media.osinfo import Sizes, System


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
        r"(alma|alpine|alt|arch|clear|eu?ro|hyperbola|miracle|scientific|void|xbo)?linux.*|alt.*|android-x86.*|anolis.*|asianux.*"
        r"|caasp.*|centos.*|circle.*|cirros.*|debian.*|elementary.*|endless.*|eos.*|fedora.*|freenix.*|gentoo|gnome.*|guix.*|hyperbola.*|kali.*"
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
    (r"(open)?solaris.*|omnios.*|openindiana.*|smartos.*", _SOLARIS, "Solaris"),
    (r"msdos.*|freedos.*|netware.*|macosx.*|haiku.*", _OLD, "others"),
)
"""Patterns of names; the first match counts."""


class Guest(NamedTuple):
    """What is installed: its hardware, and the database's entry, None where it has none.

    ``options`` are the line's and the sizes that the system has for what it leaves out; ``notes`` tell of them.
    """

    profile: Profile
    system: System | None
    options: Options
    notes: tuple[str, ...]


def guest(tree: Tree, options: Options, chosen: Method, warn: Callable[[str], object]) -> Guest:
    """Return what --osinfo names, or what the install medium shows.

    Without --osinfo a medium is looked at, too, but nothing is said where it shows nothing.

    :raises UsageError: the name is not known, or require=on and there is none.
    """
    given = options.first("os-variant")
    key = given.text("name") or given.text("id")
    explicit = key == "detect" or given.flag("detect")
    detects = explicit or key == "auto" or not options.has("os-variant")
    if key in ("detect", "auto", "none"):
        key = ""
    fits, why = _seen(tree, options, chosen, explicit=explicit) if detects else ([], "no system is named")
    system = fits[0] if fits else _named(key, warn)
    if system is None and not key:
        if given.flag("require"):
            raise UsageError(f"--osinfo require=on: {why}", hint="--osinfo debian12 names it")
        if explicit:
            warn(f"--osinfo detect: {why}; the hardware is that of a modern Linux")
    if system is None:
        return Guest(_profile(key, warn), None, options, ())
    told = [f"Using --osinfo {database.line(fits)}"] if fits else []
    added = _missing(options, system.recommended, installs=chosen.is_phase)
    told += [f"Using {system.names[0]} default --{name} {text}" for name, text in added.items()]
    return Guest(_profile(system.names[0], lambda text: None), system, options.plus(added), tuple(told))


def _seen(tree: Tree, options: Options, chosen: Method, *, explicit: bool) -> tuple[list[System], str]:
    """Return the systems that the install medium fits, the best first; why there is none."""
    disc, location = chosen.cdrom or chosen.live, chosen.name == "location"
    image = options.first("image").text("name") if explicit else ""
    if not (disc or location or image):
        return [], "a disk does not show its system, only install media do"
    if not database.is_installed():
        return [], f"{database.PACKAGE}, which knows install media, is not installed"
    fits: list[System] = []
    if disc:
        fits = database.of_disc(disc)
    if not fits and location and chosen.media is not None:
        fits = database.of_tree(chosen.media.location)
    if image:
        base = store.find(tree, image) if image in store.names(tree) else None
        fits = database.of_image(base.path, base.source) if base is not None else database.of_image(image, image)
    return fits, f"{database.PACKAGE} has no system that looks like the medium"


def _named(key: str, warn: Callable[[str], object]) -> System | None:
    """Return the entry of a name or id; None without a database, and for a release that is newer than it.

    :raises UsageError: there is nothing like it.
    """
    if not key or re.fullmatch(TABLE[0][0], key.lower()) or not database.is_installed():
        return None
    found = database.find(key) or database.find(key.lower())
    if found is None and not database.has_release(key.lower()):
        from difflib import get_close_matches

        near = get_close_matches(key, [name for names in database.names() for name in names])
        raise UsageError(f"Unknown OS name '{printable(key)}'", hint=", ".join(near) or "--osinfo list shows all")
    if found is None:
        warn(f"{database.PACKAGE} knows other releases of it, not {printable(key)}: its sizes are not known")
    return found


def _missing(options: Options, sizes: Sizes, *, installs: bool) -> dict[str, str]:
    """Return options for the sizes that a line leaves out.

    :param installs: there is an installer to fill a disk.
    """
    added = {}
    if sizes.memory and not options.has("memory"):
        added["memory"] = str(-(-sizes.memory >> 20))
    if sizes.vcpus and not options.has("vcpus") and "topology" not in options.single("cpu", ""):
        added["vcpus"] = str(sizes.vcpus)
    if sizes.disk and installs and not any(map(options.has, ("disk", "nodisks", "filesystem"))):
        added["disk"] = f"size={-(-sizes.disk >> 30)}"
    return added


def doubt_memory(kib: int, system: System | None) -> str:
    """Return a warning about less memory than the system needs; '' if it is enough, or nothing is known."""
    least = system.minimum.memory >> 10 if system is not None else 0
    if system is None or kib >= least:
        return ""
    return f"{kib / 1024:g} MiB of memory is less than the {least / 1024:g} MiB that {system.names[0]} needs"


def _profile(name: str, warn: Callable[[str], object]) -> Profile:
    """Return the hardware for a short or long id; that of a modern Linux for '' and what is not known."""
    short = "".join(name.lower().rstrip("/").split("/")[-2:])
    for pattern, found, _ in TABLE:
        if re.fullmatch(pattern, short):
            return found
    if name:
        warn(f"--osinfo {printable(name)} is not known: the hardware is that of a modern Linux")
    return MODERN


def metadata(options: Options, system: System | None) -> dict[str, str]:
    """Return what virt-install stores in <metadata> about the operating system, if its long id is known."""
    url = options.first("os-variant").text("id") or options.first("metadata").text("os_full_id")
    url = url or (system.id if system is not None else "")
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
    """Return what --osinfo list prints: the database's names, or else the families."""
    if database.is_installed():
        return "".join(f"{', '.join(names)}\n" for names in [*database.names(), ("generic",)])
    lines = [f"  {summary}:\n    {pattern.replace('|', ' ')}\n" for pattern, _, summary in TABLE]
    return (
        "Names are those of libosinfo, as patterns; the first that fits counts.\n"
        f"Releases are known where {database.PACKAGE} is installed.\n" + "".join(lines)
    )
