"""Verbs on what is done to the images of a running guest's disks: commit, copy, pull, and what is under way."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "blockcommit": (
        "domain",
        "Start a block commit operation.",
        "<domain> <path> [--bandwidth <string>] [--base <string>] [--shallow] [--top <string>] [--active] [--delete] [--wait] [--verbose] [--timeout <number>] [--pivot] [--keep-overlay] [--async] [--keep-relative] [--bytes]",
        "",
        "Commit changes from an image of a disk's chain down to its base, while the guest runs.",
    ),
    "blockcopy": (
        "domain",
        "Start a block copy operation.",
        "<domain> <path> [--dest <string>] [--bandwidth <string>] [--shallow] [--reuse-external] [--blockdev] [--wait] [--verbose] [--timeout <number>] [--pivot] [--finish] [--async] [--xml <string>] [--format <string>] [--granularity <number>] [--buf-size <number>] [--bytes] [--transient-job] [--synchronous-writes] [--print-xml]",
        "",
        "Copy a disk to another image, and keep it the same until the guest is to go over to it, or the copy to end.",
    ),
    "blockjob": (
        "domain",
        "Manage active block operations",
        "<domain> <path> [--abort] [--async] [--pivot] [--info] [--bytes] [--raw] [--bandwidth <string>] [--json]",
        "",
        "Show, limit or end the operation on a disk's images.",
    ),
    "blockpull": (
        "domain",
        "Populate a disk from its backing image.",
        "<domain> <path> [--bandwidth <string>] [--base <string>] [--wait] [--verbose] [--timeout <number>] [--async] [--keep-relative] [--bytes]",
        "",
        "Read a disk's base images up into it, while the guest runs; then it needs them no more.",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    **{
        (verb, option): text
        for verb in ("blockcommit", "blockcopy", "blockpull")
        for option, text in (
            ("async", "with --wait, don't wait for the end of what is canceled"),
            ("bandwidth", "bandwidth limit in MiB/s"),
            ("bytes", "the bandwidth limit is in bytes/s rather than MiB/s"),
            ("keep-relative", "keep the images' names of their bases relative"),
            ("path", "target or source path of the disk"),
            ("timeout", "with --wait, cancel the operation after so many seconds"),
            ("verbose", "with --wait, display the progress"),
            ("wait", "wait for the operation to finish, or to be synchronized"),
        )
    },
    ("blockcommit", "active"): "commit what the guest writes to, in two stages",
    ("blockcommit", "base"): "image to commit into (default: the last of the chain)",
    ("blockcommit", "delete"): "delete the files that were committed, when it has succeeded",
    (
        "blockcommit",
        "keep-overlay",
    ): "--active --wait, and the guest stays on its image when they are synchronized",
    ("blockcommit", "pivot"): "--active --wait, and the guest goes over to the base when they are synchronized",
    ("blockcommit", "shallow"): "commit into the image just below top",
    ("blockcommit", "top"): "uppermost image that is committed (default: what the guest writes to)",
    ("blockcopy", "blockdev"): "the destination is a block device, not a file",
    ("blockcopy", "buf-size"): "maximum amount of data in flight, in bytes",
    ("blockcopy", "dest"): "path of the copy to create",
    ("blockcopy", "finish"): "--wait, and end the copy when it is synchronized",
    ("blockcopy", "format"): "format of the copy: qcow2 or raw (default: the disk's own)",
    ("blockcopy", "granularity"): "bytes of a piece that is copied at once, a power of 2",
    ("blockcopy", "pivot"): "--wait, and the guest goes over to the copy when it is synchronized",
    ("blockcopy", "print-xml"): "print the XML of the destination, and copy nothing",
    ("blockcopy", "reuse-external"): "write to an image that is there already",
    ("blockcopy", "shallow"): "copy the uppermost image alone; the copy has the same base",
    ("blockcopy", "synchronous-writes"): "the guest's writes wait until the copy has them too",
    ("blockcopy", "transient-job"): "the operation does not outlive this run of the guest (none does)",
    ("blockcopy", "xml"): "file with the XML of the destination",
    ("blockjob", "abort"): "end the operation",
    ("blockjob", "async"): "end it, and don't wait for the end",
    ("blockjob", "bandwidth"): "set the bandwidth limit, in MiB/s",
    ("blockjob", "bytes"): "the bandwidth limit is in bytes/s rather than MiB/s",
    ("blockjob", "info"): "show what is under way (default)",
    ("blockjob", "path"): "target or source path of the disk",
    ("blockjob", "pivot"): "end it, and have the guest go over to the copy or base",
    ("blockjob", "raw"): "show it in a form for programs",
    ("blockpull", "base"): "image that stays the disk's base (default: none)",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
