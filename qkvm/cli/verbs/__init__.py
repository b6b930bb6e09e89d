"""The verb tables: everything that the command line knows of a verb before it loads the verb's own module.

A family of verbs is a table and a module of the same name: ``domain/listing.txt`` has the names and options of the
verbs, and ``qkvm.cli.domain.listing`` implements them. Help, completion, manual pages, parity with virsh and
read-only mode all use the tables. Each start loads one table. To keep that fast, a table is text: its entries are
separated by blank lines and parsed when they are needed:

    NAME (GROUP, MARK, ...): SUMMARY
        the description, as many lines as it needs
        error: the text before the error message of the verb; it may name options in braces
        partly: what the verb accepts and cannot do, or does differently from virsh
        the options, one a line, with two blanks before the meaning; or several in a line, if they have
        the usual meaning (options.py)

The marks; the first three say who may use the verb, and a verb has at most one of them:

    looks    changes nothing: --readonly allows it
    shown    the same, and it needs no more than what root shows of its tree to a group
    anybody  the same, and it reads no tree, or only what any user may see
    own      virsh has no such verb
    raw      parses its words itself: the options are not virsh's
    plain    no empty line follows its output
    hidden   help does not list it
    words    what follows the first of the last words is data, also if it looks like an option
    x=NAME   -x is short for the option --NAME, before those words

An option is in virsh's notation. ``!`` after it means that it makes a verb change something that else only looks:

    <domain>                  required; by position or by name
    <count:number>            the same, checked as a whole number (number), or as a size with its suffix (size)
    [--live]                  a flag
    [--mac <string>]          optional value; by name or, as in virsh, by position after the required ones
    [--time <number:signed>]  a number that may be negative
    [--timeout=<number>]      optional value by name only: qkvm's own options must not shift virsh's positions
    <cmd>... [cmd]...         all remaining words: at least one, or any number
    <shell:bash|zsh>          possible values, for completion: one of these words,
    <dir:folder>              or the results of a provider of :mod:`qkvm.cli.shell.candidates`,
    <domain:running>          or those of the usual values that are in this state

Modules:

options: usual meanings of options
"""

from __future__ import annotations

FAMILIES = """
domain.listing: dominfo domstate list
domain.lifecycle: destroy dompmsuspend dompmwakeup reboot reset resume shutdown start suspend
domain.saving: dump managedsave managedsave-define managedsave-dumpxml managedsave-edit managedsave-remove
domain.saving: restore save save-image-define save-image-dumpxml save-image-edit
domain.jobs: domdirtyrate-calc domjobabort domjobinfo
domain.defining: create define delete domargv domid domname domrename domuuid domxml-from-native domxml-to-native
domain.defining: set-lifecycle-action undefine
domain.describing: desc dumpxml edit metadata
domain.devices: attach-device attach-interface detach-device detach-device-alias detach-interface domif-getlink
domain.devices: domif-setlink domifaddr domiflist domifstat domiftune update-device
domain.vcpus: emulatorpin iothreadadd iothreaddel iothreadinfo iothreadpin iothreadset setvcpu setvcpus
domain.vcpus: vcpucount vcpuinfo vcpupin
domain.statistics: domcontrol domstats
domain.tuning: blkiotune cpu-stats dommemstat memtune numatune perf schedinfo setmaxmem setmem
domain.blockio: blkdeviotune blockresize domblkerror domblkinfo domblkstat domblkthreshold domthrottlegroupdel
domain.blockio: domthrottlegroupinfo domthrottlegrouplist domthrottlegroupset
domain.blockjobs: blockcommit blockcopy blockjob blockpull
domain.backups: backup backup-begin backup-dumpxml checkpoint-create checkpoint-create-as checkpoint-delete
domain.backups: checkpoint-dumpxml checkpoint-edit checkpoint-info checkpoint-list checkpoint-parent
domain.backups: restore-backup
storage.clones: clone template-create template-delete template-info template-list
domain.disks: attach-disk change-media detach-disk domblklist
inside.access: cp exec ssh vsock-connect
domain.screen: console domdisplay inject-nmi screenshot send-key ttyconsole view vncdisplay
install: install
inside.run: run
domain.monitor: guest-agent-timeout qemu-agent-command qemu-monitor-command
host.boot: autostart autostart-all setup-boot shutdown-all
domain.guest: domfsfreeze domfsinfo domfsthaw domfstrim domhostname domtime get-user-sshkeys guestinfo
domain.guest: guestvcpus set-user-password set-user-sshkeys
domain.events: doctor event qemu-monitor-event wait
host.host: capabilities domcapabilities host-validate hostname maxvcpus nodesevinfo sysinfo uri version
host.node: allocpages freecell freepages node-memory-tune nodecpumap nodecpustats nodeinfo nodememstats
host.node: nodesuspend
host.cpumodels: cpu-baseline cpu-compare cpu-models hypervisor-cpu-baseline hypervisor-cpu-compare
host.cpumodels: hypervisor-cpu-models
net.forwards: net-forward
net.grants: net-grant
net.interfaces: iface-bridge iface-dumpxml iface-list iface-mac iface-name iface-unbridge
net.health: net-check net-repair
net.networks: net-autostart net-create net-define net-desc net-destroy net-dhcp-leases net-dump net-dumpxml
net.networks: net-edit net-info net-list net-metadata net-name net-start net-undefine net-update net-uuid
net.events: net-event
net.ports: net-port-dumpxml net-port-list
storage.images: image-import image-info image-list image-remove
storage.pools: find-storage-pool-sources find-storage-pool-sources-as pool-autostart pool-build
storage.pools: pool-capabilities pool-create pool-create-as pool-define pool-define-as pool-delete pool-destroy
storage.pools: pool-dumpxml pool-edit pool-info pool-list pool-name pool-refresh pool-start pool-undefine
storage.pools: pool-uuid
storage.volumes: vol-clone vol-create vol-create-as vol-create-from vol-delete vol-download vol-dumpxml
storage.volumes: vol-import vol-info vol-key vol-list vol-name vol-path vol-pool vol-resize vol-upload vol-wipe
domain.snapshots: snapshot-create snapshot-create-as snapshot-current snapshot-delete snapshot-dumpxml
domain.snapshots: snapshot-edit snapshot-info snapshot-list snapshot-parent snapshot-revert
host.upkeep: gc setup-read upgrade-check
shell.help: help
shell.itself: cd connect echo exit pwd quit
shell.completion: complete completion
"""
"""The family of each verb, so that a start loads one table. A test compares this with the tables."""

_RENAMED = {"exec": "exec_", "list": "list_", "help": "help_"}


class Verb:
    """One verb. ``headline`` is the text before its errors; ``options`` are the lines of its table."""

    __slots__ = ("description", "family", "group", "headline", "marks", "name", "options", "partly", "summary")

    def __init__(self, family: str, entry: str) -> None:
        """:param entry: the verb's part of the table."""
        head, *lines = entry.rstrip("\n").split("\n    ")
        self.name, _, head = head.partition(" (")
        marks, _, self.summary = head.partition("): ")
        self.group, *self.marks = marks.split(", ")
        self.family = family
        self.headline = self.partly = ""
        description, options = [], []
        for line in lines:
            if line.startswith(("<", "[")):
                options.append(line)
            elif line.startswith("error: "):
                self.headline = line[7:]
            elif line.startswith("partly: "):
                self.partly = line[8:]
            else:
                description.append(line)
        self.description = "\n".join(description)
        self.options = options

    @property
    def module(self) -> str:
        """The module that implements the verb."""
        return f"qkvm.cli.{self.family}"

    @property
    def function(self) -> str:
        """Name of the function in the module: the verb's, or ``list_`` if it would be that of a built-in."""
        return _RENAMED.get(self.name) or self.name.replace("-", "_")

    @property
    def short(self) -> dict[str, str]:
        """The options that have a short form, by its letter."""
        return {mark[0]: mark[2:] for mark in self.marks if mark[1:2] == "="}

    @property
    def looks(self) -> bool:
        """Whether the verb changes nothing, unless one of its options does."""
        return "looks" in self.marks or "shown" in self.marks or "anybody" in self.marks


def names() -> list[str]:
    """Return the names of all verbs, sorted."""
    return sorted(name for line in FAMILIES.split("\n") for name in line.split()[1:])


def find(name: str) -> Verb | None:
    """Return the verb with exactly that name; as in virsh, there are no abbreviations."""
    for line in FAMILIES.split("\n"):
        family, _, listed = line.partition(": ")
        if name in listed.split():
            entry = _table(family).partition(f"\n\n{name} (")[2].partition("\n\n")[0]
            return Verb(family, f"{name} ({entry}")
    return None


def listed() -> list[Verb]:
    """Return all verbs that help lists, sorted by name."""
    families = {line.partition(": ")[0] for line in FAMILIES.strip("\n").split("\n")}
    every = [Verb(family, entry) for family in families for entry in _table(family).split("\n\n")[1:]]
    return sorted((verb for verb in every if "hidden" not in verb.marks), key=lambda verb: verb.name)


def _table(family: str) -> str:
    with open(f"{__path__[0]}/{family.replace('.', '/')}.txt", encoding="utf-8") as stream:
        return stream.read()
