"""--readonly: which verbs only look. Those that are not named here change something, and are refused."""

from __future__ import annotations

import os

from qkvm.errors import QkvmError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.cli.parse import Args
    from qkvm.cli.verbs import Verb
    from qkvm.paths import Tree

_LOOK = """
dominfo domstate list domblkerror domblkinfo domblklist domblkstat domcontrol domif-getlink domifaddr
domiflist domifstat domstats domthrottlegroupinfo domthrottlegrouplist
domid domname domuuid domargv domdisplay domfsinfo domhostname domjobinfo
view domlaunchsecinfo dumpxml domxml-to-native domxml-from-native iothreadinfo ttyconsole vncdisplay vcpucount
vcpuinfo cpu-stats guestinfo get-user-sshkeys managedsave-dumpxml save-image-dumpxml
migrate-getmaxdowntime migrate-getspeed event qemu-monitor-event net-event pool-event nodedev-event
secret-event capabilities cpu-baseline cpu-compare cpu-models domcapabilities freecell freepages hostname
hypervisor-cpu-baseline hypervisor-cpu-compare hypervisor-cpu-models maxvcpus
nodecpumap nodecpustats nodeinfo nodememstats
nodesevinfo sysinfo uri version host-validate upgrade-check
net-dhcp-leases net-dump net-dumpxml net-info net-list net-name net-uuid
net-port-list net-port-dumpxml iface-dumpxml iface-list iface-mac iface-name nwfilter-dumpxml
nwfilter-list nwfilter-binding-dumpxml nwfilter-binding-list nodedev-dumpxml nodedev-info nodedev-list
secret-dumpxml secret-list snapshot-dumpxml snapshot-info snapshot-list snapshot-parent
checkpoint-dumpxml checkpoint-info checkpoint-list checkpoint-parent backup-dumpxml pool-capabilities
pool-dumpxml pool-info pool-list pool-name pool-uuid vol-dumpxml vol-info vol-key vol-list vol-name
vol-path vol-pool cd complete completion connect echo exit help pwd quit
"""
"""Verbs that only look, whether they are there yet or not."""

_LOOK_UNLESS: dict[str, tuple[str, ...]] = {
    "blkdeviotune": (
        *(f"{what}-{unit}-sec{end}" for what in ("total", "read", "write") for unit in ("bytes", "iops")
          for end in ("", "-max", "-max-length")),
        "size-iops-sec", "group-name",
    ),
    "blkiotune": (
        "weight", "device-weights", "device-read-iops-sec", "device-write-iops-sec", "device-read-bytes-sec",
        "device-write-bytes-sec",
    ),
    "blockjob": ("abort", "async", "pivot", "bandwidth"),
    "desc": ("edit", "new-desc"),
    "domiftune": ("inbound", "outbound"),
    "dommemstat": ("period",),
    "domtime": ("now", "sync", "time"),
    "emulatorpin": ("cpulist",),
    "guestvcpus": ("cpulist", "enable", "disable"),
    "memtune": ("hard-limit", "soft-limit", "swap-hard-limit", "min-guarantee"),
    "metadata": ("edit", "set", "remove"),
    "migrate-compcache": ("size",),
    "net-desc": ("edit", "new-desc"),
    "net-metadata": ("edit", "set", "remove"),
    "node-memory-tune": ("shm-pages-to-scan", "shm-sleep-millisecs", "shm-merge-across-nodes"),
    "numatune": ("mode", "nodeset"),
    "perf": ("enable", "disable"),
    "schedinfo": ("set", "weight", "cap"),
    "snapshot-current": ("snapshotname",),
    "vcpupin": ("cpulist",),
}  # fmt: skip
"""Verbs that look, unless one of these options is given."""


def only_looks(verb: Verb, args: Args) -> bool:
    """Whether a verb changes nothing."""
    changing = _LOOK_UNLESS.get(verb.name)
    return verb.name in _LOOK.split() or (changing is not None and not any(args.given(name) for name in changing))


def check(verb: Verb, args: Args) -> None:
    """Refuse a verb that would change something.

    :raises QkvmError: in virsh's words.
    """
    if not only_looks(verb, args):
        raise QkvmError(f"operation forbidden: read only access prevents {verb.name}")


_VIEW = """
dominfo domstate list domblklist domdisplay domid domifaddr domiflist domifstat domname domuuid dumpxml
net-dhcp-leases net-dump net-dumpxml net-info net-list net-name net-uuid vcpucount vncdisplay
"""
"""Verbs that answer from definitions, records and the kernel alone: what those see whom root lets look."""


def view(tree: Tree, verb: Verb, args: Args) -> Tree:
    """What root shows of its tree to a group (:mod:`qkvm.host.view`), for a verb of one of the members.

    :raises HostError: this user may not look, or the verb does more, or needs what is not shown.
    """
    from qkvm.errors import HostError
    from qkvm.paths import SESSION

    shown = tree.view()
    if not os.access(shown.state, os.R_OK | os.X_OK):
        raise HostError(
            f"the tree {tree.root} belongs to another user: this needs root",
            hint=f"without root, your own guests are in {SESSION}, the default; setup-read lets a group look",
        )
    if verb.name not in _VIEW.split():
        raise HostError(f"{verb.name} needs root: you may look at root's tree, by {' '.join(_VIEW.split())}")
    if verb.name == "dumpxml" and args.flag("security-info"):
        raise HostError("passwords are root's alone: this needs root", hint="leave --security-info out")
    return shown
