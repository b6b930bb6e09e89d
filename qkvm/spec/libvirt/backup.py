"""<domainbackup>, libvirt's description of a backup: its disks, all data or only changes, and the targets."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from qkvm import units, xml
from qkvm.spec.disk import DiskFormat
from qkvm.spec.libvirt.node import Node, Source, root_of
from qkvm.units import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

_TYPES = {"file": "file", "block": "dev"}
_FULL, _INCREMENTAL = "full", "incremental"

_NAME_MAX = 1023
"""Longest name of a bitmap in bytes (BDRV_BITMAP_MAX_NAME_SIZE of block/dirty-bitmap.h); also used for exports."""


_HOST_MAX = 253
"""Longest host name (RFC 1035, 2.3.4)."""

PUSH, PULL = "push", "pull"
"""PUSH: QEMU copies the disks into images. PULL: QEMU serves the disks over NBD."""

PORT = 10809
"""The default port of NBD (IANA's nbd)."""


class BackupDisk(NamedTuple):
    """One disk: whether it is in the backup, its target image ('' if not given), and the checkpoint to start from.

    ``since`` '' copies all data; None takes the checkpoint of the whole backup. In pull mode ``path`` is the
    scratch image, ``export`` the name of the export and ``marks`` the name of the bitmap of changes; '' is the
    default name.
    """

    target: str
    included: bool
    path: str = ""
    format: str = "qcow2"
    block: bool = False
    since: str | None = None
    export: str = ""
    marks: str = ""


class Server(NamedTuple):
    """Where QEMU serves disks: a Unix socket ('' for one in the domain's folder), or an address and a port."""

    socket: str = ""
    name: str = ""
    port: int = 0


class Read(NamedTuple):
    """The content of a description; ``disks`` None means all disks, ``server`` is set in pull mode only."""

    since: str
    disks: tuple[BackupDisk, ...] | None
    server: Server | None = None


def loads(text: bytes | str, path: str) -> Read:
    """Return a description from libvirt's XML.

    :raises DefinitionError: malformed, or not supported by qkvm; names the line.
    """
    root = root_of(text, Source(path), "domainbackup")
    with root:
        mode = root.take("mode", PUSH)
        if mode not in (PUSH, PULL):
            raise root.malformed(f"mode '{printable(mode)}' is not known")
        root.drop("id")
        since = (root.leaf("incremental") or "").strip()
        server = None
        if mode == PULL:
            where = root.child("server")
            if where is None:
                raise root.malformed("pull mode needs a <server>")
            server = _read_server(where)
        found = root.child("disks")
        if found is None:
            return Read(since, None, server)
        with found:
            disks = tuple(_read_disk(one, pull=mode == PULL) for one in found.children("disk"))
        return Read(since, disks, server)


def _read_server(node: Node) -> Server:
    with node:
        transport = node.take("transport", "tcp")
        if node.take("tls", "no") != "no":
            raise node.refusal("tls is not supported", hint="a unix socket, or a tunnel")
        if transport == "unix":
            path = node.take("socket")
            if path and not path.startswith("/"):
                raise node.malformed(f"socket '{printable(path)}' is not an absolute path")
            return Server(units.check_path(path, "socket") if path else "")
        if transport != "tcp":
            raise node.refusal(f"transport '{printable(transport)}' is not supported", hint="tcp or unix")
        name, port = node.take("name", "localhost"), node.number("port", PORT)
        if not 0 < port < 1 << 16:
            raise node.malformed(f"port {port} is none")
        if not name or len(units.check_text(name, "name of the server")) > _HOST_MAX:
            raise node.malformed(f"name '{printable(name)}' is no host's")
        return Server("", name, port)


def _read_disk(node: Node, *, pull: bool) -> BackupDisk:
    with node:
        target, kind = node.required("name"), node.take("type", "file")
        included = node.take("backup", "yes")
        node.drop("index")
        if kind not in _TYPES:
            raise node.refusal(f"type '{printable(kind)}' is not supported", hint="file or block")
        if included not in ("yes", "no"):
            raise node.malformed(f"backup='{printable(included)}' is neither yes nor no")
        since: str | None = node.take("incremental") or None
        mode = node.take("backupmode", _INCREMENTAL if since else "")
        if mode not in ("", _FULL, _INCREMENTAL):
            raise node.malformed(f"backupmode '{printable(mode)}' is not known")
        if mode == _FULL:
            since = ""
        export, marks = (node.take("exportname"), node.take("exportbitmap")) if pull else ("", "")
        fmt, path = "", ""
        driver, where = node.child("driver"), node.child("scratch" if pull else "target")
        if driver is not None:
            with driver:
                fmt = driver.take("type")
        if where is not None:
            with where:
                where.drop_children("seclabel")
                path = where.take(_TYPES[kind])
        fmt = fmt or ("raw" if kind == "block" and not pull else "qcow2")
        if fmt not in tuple(DiskFormat) or (pull and fmt != "qcow2"):
            raise node.refusal(
                f"format '{printable(fmt)}' is not supported", hint="qcow2" if pull else ", ".join(DiskFormat)
            )
        for text, what in ((export, "exportname"), (marks, "exportbitmap")):
            if text and len(units.check_text(text, what).encode()) > _NAME_MAX:
                raise node.malformed(f"{what} is longer than {_NAME_MAX} bytes")
        return BackupDisk(target, included == "yes", path, fmt, kind == "block", since, export, marks)


def dumps(disks: Sequence[BackupDisk], server: Server | None = None) -> str:
    """Return the description of a running backup; it includes the values that qkvm chose."""
    root = xml.element("domainbackup", mode=PUSH if server is None else PULL)
    if server is not None and server.port:
        root.add("server", transport="tcp", name=server.name, port=str(server.port))
    elif server is not None:
        root.add("server", transport="unix", socket=server.socket)
    parent = root.add("disks")
    for disk in disks:
        if not disk.included:
            parent.add("disk", name=disk.target, backup="no")
            continue
        kind = "block" if disk.block else "file"
        element = parent.add(
            "disk", name=disk.target, backup="yes", type=kind, backupmode=_INCREMENTAL if disk.since else _FULL,
            incremental=disk.since or None, exportname=disk.export or None, exportbitmap=disk.marks or None,
        )  # fmt: skip
        element.add("driver", type=disk.format)
        element.add("target" if server is None else "scratch", **{_TYPES[kind]: disk.path})
    return xml.dump(root)
