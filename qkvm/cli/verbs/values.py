"""What the value of an option can be, for completion only. A kind is a function of :mod:`qkvm.cli.candidates`."""

from __future__ import annotations

DOMAINS: dict[str, str] = {
    **dict.fromkeys(
        (
            "console", "cpu-stats", "destroy", "domblkerror", "domblkstat", "domcontrol", "domdisplay", "domfsfreeze",
            "domfsinfo", "domfsthaw", "domfstrim", "domhostname", "domifaddr", "domifstat", "domjobabort",
            "domjobinfo", "dommemstat", "dompmsuspend", "dompmwakeup", "dump", "get-user-sshkeys", "guestinfo",
            "guestvcpus", "inject-nmi", "managedsave", "migrate", "qemu-agent-command", "qemu-monitor-command",
            "reboot", "reset", "save", "screenshot", "send-key", "set-user-password", "set-user-sshkeys", "shutdown",
            "suspend", "ttyconsole", "vncdisplay", "domtime", "domdirtyrate-calc", "domblkthreshold", "blockcommit",
            "blockcopy", "blockjob", "blockpull", "blockresize", "backup-begin", "backup-dumpxml", "domname",
        ),
        "running",
    ),
    **dict.fromkeys(("start", "domrename"), "inactive"),
    "resume": "paused",
    "autostart": "persistent", "domargv": "persistent", "edit": "persistent", "undefine": "persistent",
}  # fmt: skip
"""Verb -> which domains it can act upon, where that is not all."""

NETWORKS: dict[str, str] = {"net-start": "inactive", "net-destroy": "active", "net-dhcp-leases": "active"}
"""Verb -> which networks it can act upon, where that is not all."""

POOLS: dict[str, str] = {
    **dict.fromkeys(("pool-build", "pool-delete", "pool-start", "pool-undefine"), "inactive"),
    **dict.fromkeys(("pool-destroy", "pool-refresh", "vol-create", "vol-create-as", "vol-list"), "active"),
}
"""Verb -> which pools it can act upon, where that is not all."""

KINDS: dict[str | tuple[str, str], str | tuple[str, ...]] = {
    "domain": "domain",
    "network": "network",
    "pool": "pool",
    "inputpool": "pool",
    "vol": "volume",
    "backing-vol": "volume",
    "backing-vol-format": ("qcow2", "raw"),
    "input-format": ("qcow2", "raw"),
    "file": "file",
    "xml": "file",
    "xmlfile": "file",
    "snapshotname": "snapshot",
    ("snapshot-list", "from"): "snapshot",
    "template": "file",
    "dir": "folder",
    "mac": "mac",
    "interface": "interface",
    "device": "disk",
    "path": "disk",
    "mode": ("acpi", "agent"),
    "event": "event",
    "emulator": "file",
    "emulatorbin": "file",
    "virttype": ("kvm", "qemu"),
    ("attach-disk", "source"): "file",
    ("attach-interface", "mac"): (),
    ("attach-interface", "model"): ("virtio", "e1000e", "e1000", "rtl8139"),
    ("attach-interface", "source"): "source",
    ("attach-interface", "type"): ("network", "bridge", "user", "direct"),
    ("change-media", "source"): "file",
    ("completion", "shell"): ("bash", "zsh"),
    ("cpu-models", "arch"): ("x86_64", "i686"),
    ("connect", "name"): ("qemu:///session", "qemu:///system"),
    ("detach-disk", "target"): "disk",
    ("detach-interface", "type"): ("network", "bridge", "user", "direct"),
    ("domdirtyrate-calc", "mode"): ("page-sampling", "dirty-bitmap", "dirty-ring"),
    ("domif-setlink", "state"): ("up", "down"),
    ("domifaddr", "source"): ("lease", "arp", "agent"),
    ("dump", "format"): ("elf", "kdump-zlib", "kdump-lzo", "kdump-snappy", "win-dmp"),
    ("help", "command"): "topic",
    ("iface-bridge", "interface"): "link",
    ("iface-dumpxml", "interface"): "link",
    ("iface-mac", "interface"): "link",
    ("iface-name", "interface"): (),
    ("iface-unbridge", "bridge"): "uplink",
    ("maxvcpus", "type"): ("kvm", "qemu"),
    ("nodesuspend", "target"): ("mem", "disk", "hybrid"),
    ("net-event", "event"): ("lifecycle",),
    ("net-forward", "action"): ("add", "delete", "list", "refresh"),
    ("net-forward", "guest"): "domain",
    ("net-forward", "protocol"): ("tcp", "udp"),
    ("net-update", "command"): ("add", "add-first", "add-last", "delete", "modify"),
    ("net-update", "section"): (
        "ip-dhcp-host",
        "ip-dhcp-range",
        "dns-host",
        "dns-txt",
        "dns-srv",
        "forward-interface",
    ),
    ("numatune", "mode"): ("strict", "interleave", "preferred", "restrictive"),
    ("pool-create-as", "target"): "folder",
    ("find-storage-pool-sources", "type"): ("logical",),
    ("find-storage-pool-sources-as", "type"): ("logical",),
    ("pool-create-as", "type"): ("dir", "logical"),
    ("pool-define-as", "target"): "folder",
    ("pool-define-as", "type"): ("dir", "logical"),
    ("pool-list", "type"): ("dir", "logical"),
    ("reboot", "mode"): ("acpi",),
    ("vol-clone", "format"): ("qcow2", "raw"),
    ("vol-create-as", "format"): ("qcow2", "raw"),
    ("vol-resize", "format"): ("qcow2", "raw"),
    ("vol-wipe", "algorithm"): ("zero",),
    ("shutdown", "mode"): ("acpi",),
}
"""An option, everywhere or in one verb -> the kind of its values, or the values themselves."""
