"""How qkvm stands to virsh: which of its verbs work, which in part, which are not there (yet), and why.

Nothing here claims that a verb works. That is read off the verb tables: a verb that is in them works, in part
where its synopsis lacks options that virsh 11.3 has or :data:`PARTLY` says so; one that is not in them is not
there yet, or, where :data:`NEVER` says why, not meant to be.
"""

from __future__ import annotations

from qkvm.cli.output import json_text, table
from qkvm.cli.parse import parse_synopsis
from qkvm.cli.verbs import find
from qkvm.cli.verbs.virsh import VIRSH

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.cli.context import Context

PARTLY: dict[str, str] = {
    "ttyconsole": "prints a Unix socket's path where the console is no pseudo terminal",
    "send-key": "code sets linux, qnum, rfb, xt, xt_kbd, atset1, usb, win32",
    "connect": "to qemu:///system, this host, only",
    "shutdown": "modes acpi and agent; the others are containers' and Xen's",
    "reboot": "modes acpi and agent; the others are containers' and Xen's",
    "domfsthaw": "all file systems: the agent takes no mount points (libvirt fails there as well)",
    "domfstrim": "all file systems: the agent takes no mount point (libvirt fails there as well)",
    "dompmsuspend": "duration is 0, as in libvirt",
    "create": "no --autodestroy, which needs a daemon, and no --pass-fds, which are for LXC",
    "start": "no --autodestroy, which needs a daemon, and no --pass-fds, which are for LXC",
    "attach-interface": "no --script and --managed: for what a NIC can't be here",
    "qemu-monitor-command": "with --pass-fds getfd keeps the fd; QEMU 7.2 drops a set that add-fd makes at once",
    "domxml-from-native": "refuses, as libvirt does since 5.5",
    "attach-device": "network interfaces and disks",
    "detach-device": "network interfaces and disks",
    "update-device": "network interfaces, and media of drives",
    "blockcommit": "no active commit of a disk in throttle groups: QEMU would take it out of them",
    "cpu-stats": "in total; cgroup v2 does not count by CPU (libvirt fails there as well)",
    "domiftune": "no floor: no network keeps bandwidth for one of its NICs",
    "backup-begin": "no TLS in mode pull",
    "net-event": "kind lifecycle; a definition is a file, whose change is one of that kind",
    "net-update": "no portgroup; one range of addresses and one forward-interface, as a definition has",
    **dict.fromkeys(("pool-create", "pool-create-as", "pool-define", "pool-define-as"), "types dir and logical"),
    **dict.fromkeys(("find-storage-pool-sources", "find-storage-pool-sources-as"), "type logical"),
    "vol-wipe": "algorithm zero only; no sparse logical volumes (libvirt refuses them as well)",
    "iface-bridge": "until the machine boots; no --no-start: no configuration is kept",
    "iface-unbridge": "bridges that iface-bridge made; no --no-start: no configuration is kept",
    "perf": "shows that no event counts; a counter needs a program that stays: perf stat -p PID",
}
"""Verb -> what it takes but can't do, or does otherwise; options that it does not take need no note."""

_SECRETS = "nothing in qkvm uses a stored secret"
_FILTERS = "a NIC names one of the built-in filters; see: qkvm help firewalls"
_CONFIGURED = "no configuration of the host's is kept: netplan, ifupdown, NetworkManager do"
_SNAPSHOT = "no configuration of the host's is kept to return to: netplan try does"
_DEVICES = "it passes no devices of the host to guests"
_PORTS = "a port is made and removed with its NIC: attach-interface, detach-interface"
_LAUNCH = "no AMD SEV guests"

NEVER: dict[str, str] = {
    "domlaunchsecinfo": _LAUNCH,
    "domsetlaunchsecstate": _LAUNCH,
    "send-process-signal": "libvirt has it for LXC; of a guest's processes QEMU knows nothing",
    "update-memory-device": "no memory devices: the balloon gives and takes memory",
    "lxc-enter-namespace": "it drives QEMU, not LXC",
    "qemu-attach": "a QEMU that qkvm did not start has neither its journal nor its sockets",
    "domdisplay-reload": "the VNC server has no TLS, and so no certificates to read anew",
    "dom-fd-associate": "fds can't be kept for a later start without a daemon",
    "migrate-compcache": "QEMU 7.2's own defaults are used for XBZRLE",
    "pool-event": "nothing stays that would tell; inotify does, of a folder",
    **dict.fromkeys(VIRSH["secret"], _SECRETS),
    **dict.fromkeys(VIRSH["filter"], _FILTERS),
    **dict.fromkeys(("iface-begin", "iface-commit", "iface-rollback"), _SNAPSHOT),
    **dict.fromkeys(("iface-define", "iface-edit", "iface-undefine"), _CONFIGURED),
    "iface-start": "up and down are for what configures the interface: ifup, nmcli, ip",
    "iface-destroy": "up and down are for what configures the interface: ifdown, nmcli, ip",
    **dict.fromkeys(VIRSH["nodedev"], _DEVICES),
    **dict.fromkeys(("net-port-create", "net-port-delete"), _PORTS),
}
"""Verb -> why it is not meant for qkvm. One that qkvm has anyway does not belong here."""

WORKS, PARTLY_WORKS, LATER, NOT_MEANT = "works", "partly", "not yet", "not meant"


class Entry:
    """One verb of virsh: its group, how it stands here, and what is to say about it."""

    __slots__ = ("group", "note", "status", "verb")

    def __init__(self, group: str, verb: str, status: str, note: str = "") -> None:
        self.group = group
        self.verb = verb
        self.status = status
        self.note = note


def entries() -> list[Entry]:
    """Every verb of virsh 11.3, in the order of ``virsh help``."""
    return [_entry(group, verb) for group, verbs in VIRSH.items() for verb in verbs]


def absence(name: str) -> str | None:
    """Why a verb of virsh's is not there, as an error's text; None for what virsh doesn't have either."""
    if name in NEVER:
        return f"{name} is not meant for qkvm: {NEVER[name]}"
    if any(name in verbs for verbs in VIRSH.values()):
        return f"{name} is not there yet"
    return None


def missing_options(verb: str, options: str) -> list[str]:
    """Those of virsh's options that a verb of qkvm's does not take."""
    own = find(verb)
    assert own is not None
    known = parse_synopsis(own.synopsis)
    return [option for option in options.split() if option not in known]


def show(context: Context, as_json: bool) -> None:
    """Print the table and the counts."""
    listed = entries()
    counts = {
        status: sum(entry.status == status for entry in listed)
        for status in (WORKS, PARTLY_WORKS, LATER, NOT_MEANT)
    }
    if as_json:
        keys = ("verb", "group", "status", "note")
        rows = [{key: getattr(entry, key) for key in keys} for entry in listed]
        context.out(json_text({"virsh": "11.3.0", "counts": counts, "verbs": rows}))
        return
    cells = [(entry.verb, entry.status, entry.note) for entry in listed]
    context.out(table(("Verb", "Status", "Note"), cells, header=not context.quiet))
    context.out(
        f"\nOf virsh 11.3's {len(listed)} verbs {counts[WORKS]} work, {counts[PARTLY_WORKS]} partly, "
        f"{counts[LATER]} are not there yet, {counts[NOT_MEANT]} are not meant to be.\n"
    )


def _entry(group: str, verb: str) -> Entry:
    if find(verb) is None:
        return Entry(group, verb, NOT_MEANT, NEVER[verb]) if verb in NEVER else Entry(group, verb, LATER)
    missing = missing_options(verb, VIRSH[group][verb])
    notes = [PARTLY[verb]] if verb in PARTLY else []
    if missing:
        notes.append(f"without {', '.join(f'--{option}' for option in missing)}")
    return Entry(group, verb, PARTLY_WORKS if notes else WORKS, "; ".join(notes))
