"""Parity with virsh: which of its verbs qkvm has, has in part, or does not have, and why.

The tables here list only what is absent. A verb in the verb tables works, or works in part if its table says so. A
test compares the tables with the verbs and options of virsh 11.3.
"""

from __future__ import annotations

from qkvm.cli.output import json_text, table
from qkvm.cli.verbs import listed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.cli.context import Context

_ABSENT = """
domain: no AMD SEV guests
    domlaunchsecinfo domsetlaunchsecstate
domain: libvirt has it for LXC; of a guest's processes QEMU knows nothing
    send-process-signal
domain: it drives QEMU, not LXC
    lxc-enter-namespace
domain:
    migrate migrate-setmaxdowntime migrate-getmaxdowntime migrate-setspeed migrate-getspeed migrate-postcopy
domain: QEMU 7.2's own defaults are used for XBZRLE
    migrate-compcache
domain: a QEMU that qkvm did not start has neither its journal nor its sockets
    qemu-attach
domain: no memory devices: the balloon gives and takes memory
    update-memory-device
domain: fds can't be kept for a later start without a daemon
    dom-fd-associate
domain: the VNC server has no TLS, and so no certificates to read anew
    domdisplay-reload
interface: no configuration of the host's is kept to return to: netplan try does
    iface-begin iface-commit iface-rollback
interface: no configuration of the host's is kept: netplan, ifupdown, NetworkManager do
    iface-define iface-edit iface-undefine
interface: up and down are for what configures the interface: ifdown, nmcli, ip
    iface-destroy
interface: up and down are for what configures the interface: ifup, nmcli, ip
    iface-start
filter: a NIC names one of the built-in filters; see: qkvm help firewalls
    nwfilter-define nwfilter-dumpxml nwfilter-edit nwfilter-list nwfilter-undefine nwfilter-binding-create
    nwfilter-binding-delete nwfilter-binding-dumpxml nwfilter-binding-list
network: a port is made and removed with its NIC: attach-interface, detach-interface
    net-port-create net-port-delete
nodedev: it passes no devices of the host to guests
    nodedev-create nodedev-destroy nodedev-detach nodedev-dumpxml nodedev-list nodedev-reattach
    nodedev-reset nodedev-event nodedev-define nodedev-undefine nodedev-start nodedev-autostart nodedev-info
    nodedev-update
secret: nothing in qkvm uses a stored secret
    secret-define secret-dumpxml secret-event secret-get-value secret-list secret-set-value secret-undefine
pool: nothing stays that would tell; inotify does, of a folder
    pool-event
"""
"""virsh's verbs that qkvm does not have: group, the reason (none means not yet), names."""

_GROUPS = (
    *("domain", "monitor", "events", "host", "checkpoint", "interface", "filter", "network", "nodedev", "secret"),
    *("snapshot", "backup", "pool", "volume", "virsh"),
)
"""virsh's help groups, in its order."""

WORKS, PARTLY, LATER, NOT_MEANT = "works", "partly", "not yet", "not meant"


class Entry:
    """One verb of virsh: its group, its status in qkvm, and a note."""

    __slots__ = ("group", "note", "status", "verb")

    def __init__(self, group: str, verb: str, status: str, note: str = "") -> None:
        self.group = group
        self.verb = verb
        self.status = status
        self.note = note


def entries() -> list[Entry]:
    """Return every verb of virsh 11.3, by group and name."""
    found = _absent()
    for verb in listed():
        if "own" not in verb.marks:
            group = "virsh" if verb.group == "qkvm" else verb.group
            found.append(Entry(group, verb.name, PARTLY if verb.partly else WORKS, verb.partly))
    return sorted(found, key=lambda entry: (_GROUPS.index(entry.group), entry.verb))


def _absent() -> list[Entry]:
    found: list[Entry] = []
    group = why = ""
    for line in _ABSENT.splitlines():
        if line.startswith(" "):
            found += (Entry(group, name, NOT_MEANT if why else LATER, why) for name in line.split())
        else:
            group, _, why = line.partition(": ")
            group = group.rstrip(":")
    return found


def absence(name: str) -> str | None:
    """Return why qkvm does not have a verb of virsh, as the text of an error; None if virsh has no such verb."""
    for entry in _absent():
        if entry.verb == name:
            return f"{name} is not meant for qkvm: {entry.note}" if entry.note else f"{name} is not there yet"
    return None


def show(context: Context, as_json: bool) -> None:
    """Print the table and the counts."""
    every = entries()
    counts = {
        status: sum(entry.status == status for entry in every) for status in (WORKS, PARTLY, LATER, NOT_MEANT)
    }
    if as_json:
        keys = ("verb", "group", "status", "note")
        rows = [{key: getattr(entry, key) for key in keys} for entry in every]
        summed = [{"status": status, "verbs": number} for status, number in counts.items()]
        context.out(json_text({"virsh": "11.3.0", "counts": summed, "verbs": rows}))
        return
    cells = [(entry.verb, entry.status, entry.note) for entry in every]
    context.out(table(("Verb", "Status", "Note"), cells, header=not context.quiet))
    context.out(
        f"\nOf virsh 11.3's {len(every)} verbs {counts[WORKS]} work, {counts[PARTLY]} partly, "
        f"{counts[LATER]} are not there yet, {counts[NOT_MEANT]} are not meant to be.\n"
    )
