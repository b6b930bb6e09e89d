"""The verb table: everything the command line knows of a verb before it loads the verb's own module.

A family of verbs is two modules of one name, such as domain.listing: ``qkvm.cli.verbs.FAMILY`` says what the verbs
are called and take, ``qkvm.cli.FAMILY`` does what they do. A start pays for this module and for one family's table, so these hold
constants only: a synopsis is parsed for the one verb that was asked for, and its code is imported when it is
called.

A synopsis is in virsh's notation:

    <domain>                  required; by position or by name
    <count:int> <size:size>   the same, checked as a whole number or as a size with its suffix
    [--live]                  a flag
    [--time <number:signed>]  a number that may be negative
    [--mac <string>]          optional value; by name or, as in virsh, by position after the required ones
    [--timeout=<number>]      optional value by name only: what virsh doesn't have may not shift what it has
    {[--cmd] <string>}...     all remaining words, at least one; [[--cmd] <string>]... may be none

A module imports only what is listed before it:

options: what options mean that many verbs have
values: what an option's value is, for completion
virsh: virsh's own verbs and options
domain, net, storage, host, install, shell: the tables
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType

GROUPS = {
    "domain": "Domain Management",
    "monitor": "Domain Monitoring",
    "events": "Domain Events",
    "host": "Host and Hypervisor",
    "checkpoint": "Checkpoint",
    "interface": "Interface",
    "network": "Networking",
    "snapshot": "Snapshot",
    "backup": "Backup",
    "pool": "Storage Pool",
    "volume": "Storage Volume",
    "qkvm": "Qkvm itself",
}
"""Keyword and title of each help group, in virsh's order."""

FAMILIES: dict[str, tuple[str, ...]] = {
    "domain.listing": ("dominfo", "domstate", "list"),
    "domain.lifecycle": (
        "destroy", "dompmsuspend", "dompmwakeup", "reboot", "reset", "resume", "shutdown", "start", "suspend",
    ),
    "domain.saving": (
        "dump", "managedsave", "managedsave-define", "managedsave-dumpxml", "managedsave-edit",
        "managedsave-remove", "restore", "save", "save-image-define", "save-image-dumpxml", "save-image-edit",
    ),
    "domain.jobs": ("domdirtyrate-calc", "domjobabort", "domjobinfo"),
    "domain.defining": (
        "create", "define", "domargv", "domid", "domname", "domrename", "domuuid", "domxml-from-native",
        "domxml-to-native", "set-lifecycle-action", "undefine",
    ),
    "domain.describing": ("desc", "dumpxml", "edit", "metadata"),
    "domain.devices": (
        "attach-device", "attach-interface", "detach-device", "detach-device-alias", "detach-interface",
        "domif-getlink", "domif-setlink", "domifaddr", "domiflist", "domifstat", "domiftune", "update-device",
    ),
    "domain.vcpus": (
        "emulatorpin", "iothreadadd", "iothreaddel", "iothreadinfo", "iothreadpin", "iothreadset", "setvcpu",
        "setvcpus", "vcpucount", "vcpuinfo", "vcpupin",
    ),
    "domain.statistics": ("domcontrol", "domstats"),
    "domain.tuning": (
        "blkiotune", "cpu-stats", "dommemstat", "memtune", "numatune", "perf", "schedinfo", "setmaxmem", "setmem",
    ),
    "domain.blockio": (
        "blkdeviotune", "blockresize", "domblkerror", "domblkinfo", "domblkstat", "domblkthreshold",
        "domthrottlegroupdel", "domthrottlegroupinfo", "domthrottlegrouplist", "domthrottlegroupset",
    ),
    "domain.blockjobs": ("blockcommit", "blockcopy", "blockjob", "blockpull"),
    "domain.backups": (
        "backup", "backup-begin", "backup-dumpxml", "checkpoint-create", "checkpoint-create-as",
        "checkpoint-delete", "checkpoint-dumpxml", "checkpoint-edit", "checkpoint-info", "checkpoint-list",
        "checkpoint-parent", "restore-backup",
    ),
    "domain.disks": ("attach-disk", "change-media", "detach-disk", "domblklist"),
    "domain.screen": (
        "console", "domdisplay", "inject-nmi", "screenshot", "send-key", "ttyconsole", "view", "vncdisplay",
    ),
    "install": ("install",),
    "domain.monitor": ("guest-agent-timeout", "qemu-agent-command", "qemu-monitor-command"),
    "host.boot": ("autostart", "autostart-all", "setup-boot", "shutdown-all"),
    "domain.guest": (
        "domfsfreeze", "domfsinfo", "domfsthaw", "domfstrim", "domhostname", "domtime", "get-user-sshkeys",
        "guestinfo", "guestvcpus", "set-user-password", "set-user-sshkeys",
    ),
    "domain.events": ("event", "qemu-monitor-event"),
    "host.host": (
        "capabilities", "domcapabilities", "host-validate", "hostname", "maxvcpus", "nodesevinfo", "sysinfo",
        "uri", "version",
    ),
    "host.node": (
        "allocpages", "freecell", "freepages", "node-memory-tune", "nodecpumap", "nodecpustats", "nodeinfo",
        "nodememstats", "nodesuspend",
    ),
    "host.cpumodels": (
        "cpu-baseline", "cpu-compare", "cpu-models", "hypervisor-cpu-baseline", "hypervisor-cpu-compare",
        "hypervisor-cpu-models",
    ),
    "net.forwards": ("net-forward",),
    "net.grants": ("net-grant",),
    "net.interfaces": ("iface-bridge", "iface-dumpxml", "iface-list", "iface-mac", "iface-name", "iface-unbridge"),
    "net.health": ("net-check", "net-repair"),
    "net.networks": (
        "net-autostart", "net-create", "net-define", "net-desc", "net-destroy", "net-dhcp-leases", "net-dump",
        "net-dumpxml", "net-edit", "net-info", "net-list", "net-metadata", "net-name", "net-start", "net-undefine",
        "net-update", "net-uuid",
    ),
    "net.events": ("net-event",),
    "net.ports": ("net-port-dumpxml", "net-port-list"),
    "storage.pools": (
        "find-storage-pool-sources", "find-storage-pool-sources-as", "pool-autostart", "pool-build",
        "pool-capabilities", "pool-create", "pool-create-as", "pool-define", "pool-define-as", "pool-delete",
        "pool-destroy", "pool-dumpxml", "pool-edit", "pool-info", "pool-list", "pool-name", "pool-refresh",
        "pool-start", "pool-undefine", "pool-uuid",
    ),
    "storage.volumes": (
        "vol-clone", "vol-create", "vol-create-as", "vol-create-from", "vol-delete", "vol-download", "vol-dumpxml",
        "vol-import", "vol-info", "vol-key", "vol-list", "vol-name", "vol-path", "vol-pool", "vol-resize",
        "vol-upload", "vol-wipe",
    ),
    "domain.snapshots": (
        "snapshot-create", "snapshot-create-as", "snapshot-current", "snapshot-delete", "snapshot-dumpxml",
        "snapshot-edit", "snapshot-info", "snapshot-list", "snapshot-parent", "snapshot-revert",
    ),
    "host.upkeep": ("gc", "setup-read", "upgrade-check"),
    "shell.help": ("help",),
    "shell.itself": ("cd", "connect", "echo", "exit", "pwd", "quit"),
    "shell.completion": ("complete", "completion"),
}  # fmt: skip
"""Which family each verb is of. A test holds this against the families' tables."""

RAW = frozenset({"install"})
"""Verbs that read their words themselves: the options are not virsh's."""

ANYBODY = frozenset({
    "cd", "complete", "completion", "connect", "echo", "exit", "freecell", "freepages", "help", "host-validate",
    "hostname", "iface-dumpxml", "iface-list", "iface-mac", "iface-name", "nodecpumap", "nodecpustats", "nodeinfo", "nodememstats", "pwd", "quit", "sysinfo", "uri",
    "version",
})  # fmt: skip
"""Verbs that anybody may use: they look at no tree, or only at what they may."""

LEAVING = frozenset({"exit", "quit"})
"""Verbs after which nothing more is run."""

PLAIN = frozenset({"complete", "completion"})
"""Verbs whose output is for a shell: no empty line ends it."""

HIDDEN = frozenset({"complete"})
"""Verbs that help does not list."""

_RENAMED = {"list": "list_", "help": "help_"}


class Verb:
    """One verb: its group, one line of summary, its synopsis, the headline of its errors, its description.

    The headline stands before the text of an error that the verb itself raises; it may name options in braces.
    """

    __slots__ = ("description", "family", "group", "headline", "name", "summary", "synopsis")

    def __init__(self, name: str, family: str, entry: tuple[str, str, str, str, str]) -> None:
        self.name = name
        self.family = family
        self.group, self.summary, self.synopsis, self.headline, self.description = entry

    @property
    def module(self) -> str:
        """The module that does what the verb says."""
        return f"qkvm.cli.{self.family}"

    @property
    def function(self) -> str:
        """Name of the function in the module: the verb's, and ``list_`` where a built-in has that name."""
        return _RENAMED.get(self.name) or self.name.replace("-", "_")

    @property
    def raw(self) -> bool:
        """Whether the verb gets its words as they are."""
        return self.name in RAW


def names() -> list[str]:
    """The names of all verbs, sorted."""
    return sorted(name for family in FAMILIES.values() for name in family)


def find(name: str) -> Verb | None:
    """The verb of that exact name: as in virsh, there are no abbreviations."""
    for family, listed in FAMILIES.items():
        if name in listed:
            table: dict[str, tuple[str, str, str, str, str]] = _table(family).VERBS
            return Verb(name, family, table[name])
    return None


def option_help(verb: Verb, option: str) -> str:
    """One line about an option of a verb.

    :raises KeyError: nobody wrote one.
    """
    from qkvm.cli.verbs.options import OPTIONS

    own: dict[tuple[str, str], str] = _table(verb.family).OPTIONS
    return own.get((verb.name, option)) or OPTIONS[option]


def _table(family: str) -> ModuleType:
    module = f"qkvm.cli.verbs.{family}"
    # importlib's own function would be one more module to load.
    __import__(module)
    return sys.modules[module]
