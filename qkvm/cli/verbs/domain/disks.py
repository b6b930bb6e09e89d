"""Verbs on which disks a domain has."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "attach-disk": (
        "domain",
        "attach disk device",
        "<domain> <source> <target> [--targetbus <string>] [--driver <string>] [--subdriver <string>] [--iothread <string>] [--cache <string>] [--io <string>] [--type <string>] [--mode <string>] [--sourcetype <string>] [--serial <string>] [--wwn <string>] [--alias <string>] [--rawio] [--address <string>] [--multifunction] [--print-xml] [--source-protocol <string>] [--source-host-name <string>] [--source-host-transport <string>] [--source-host-socket <string>] [--throttle-groups=<string>] [--persistent] [--config] [--live] [--current]",
        "Failed to attach disk",
        "Attach new disk device.\nIts format is raw unless --subdriver says otherwise; what stands in the image is never asked.",
    ),
    "change-media": (
        "domain",
        "Change media of CD or floppy drive",
        "<domain> <path> [--source <string>] [--eject] [--insert] [--update] [--current] [--live] [--config] [--force] [--print-xml] [--block] [--timeout=<number>]",
        "",
        "Change media of CD or floppy drive.\nThe guest has 5 seconds to let go of a tray that it has locked; --force does not ask.",
    ),
    "detach-disk": (
        "domain",
        "detach disk device",
        "<domain> <target> [--persistent] [--config] [--live] [--current] [--print-xml] [--timeout=<number>] [--no-wait]",
        "Failed to detach disk",
        "Detach disk device.",
    ),
    "domblklist": (
        "monitor",
        "list all domain blocks",
        "<domain> [--inactive] [--details] [--json]",
        "",
        "Get the summary of block devices for a domain.",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    ("attach-disk", "address"): "address of disk device",
    ("attach-disk", "alias"): "custom alias name of disk device",
    ("attach-disk", "cache"): "cache mode of disk device",
    ("attach-disk", "driver"): "driver of disk device (qemu)",
    ("attach-disk", "io"): "io policy of disk device",
    ("attach-disk", "iothread"): "IOThread to be used by supported device",
    ("attach-disk", "mode"): "mode of device reading and writing: readonly or shareable",
    ("attach-disk", "multifunction"): "use multifunction pci under specified address",
    ("attach-disk", "print-xml"): "print XML document rather than attach the disk",
    ("attach-disk", "rawio"): "needs rawio capability (not supported)",
    ("attach-disk", "serial"): "serial of disk device",
    ("attach-disk", "source"): "source of disk device: an image or block device; '' for a drive without medium",
    ("attach-disk", "source-host-name"): "host name for source of disk device (not supported)",
    ("attach-disk", "source-host-socket"): "host socket for source of disk device (not supported)",
    ("attach-disk", "source-host-transport"): "host transport for source of disk device (not supported)",
    ("attach-disk", "source-protocol"): "protocol used by disk device source (not supported)",
    ("attach-disk", "sourcetype"): "type of source: file or block",
    ("attach-disk", "subdriver"): "format of disk device: raw (default) or qcow2",
    ("attach-disk", "target"): "target of disk device",
    ("attach-disk", "targetbus"): "target bus of disk device",
    ("attach-disk", "throttle-groups"): "comma separated list of throttle groups to be applied",
    ("attach-disk", "type"): "target device type: disk, cdrom or floppy",
    ("attach-disk", "wwn"): "wwn of disk device",
    ("change-media", "block"): "source media is a block device",
    ("change-media", "eject"): "Eject the media",
    ("change-media", "force"): "force media changing",
    ("change-media", "insert"): "Insert the media",
    ("change-media", "path"): "Fully-qualified path or target of disk device",
    ("change-media", "print-xml"): "print XML document rather than change media",
    ("change-media", "source"): "source of the media",
    ("change-media", "timeout"): "seconds to wait for the guest to open the tray",
    ("change-media", "update"): "Update the media",
    ("detach-disk", "print-xml"): "print XML document rather than detach the disk",
    ("detach-disk", "target"): "target of disk device, or the path of its image",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
