"""blockcopy: mirror a disk of a running guest to another image, which the guest can then use instead."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from qkvm import units
from qkvm.domain.block import chain, job, use
from qkvm.domain.block import nodes as blocknodes
from qkvm.domain.block.chain import Link
from qkvm.domain.block.disk import is_block, top
from qkvm.errors import AlreadyExists, HostError, InvalidState, InvalidValue
from qkvm.qmp import commands
from qkvm.spec.disk import DiskFormat
from qkvm.storage.image import image

if TYPE_CHECKING:
    from qkvm.domain.block.job import Job
    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run
    from qkvm.qmp.session import Session


class Destination(NamedTuple):
    """The image to copy to: its path, its format ('' for the disk's), whether it exists already."""

    path: str
    format: str = ""
    reuse: bool = False


class Tuning(NamedTuple):
    """Limits of a copy: bytes a second (0: no limit), bytes of a piece and of all buffers (0: QEMU's default).

    ``synchronous``: the guest's writes wait for the copy, so that it becomes ready however much the guest writes.
    """

    bandwidth: int = 0
    granularity: int = 0
    buffer: int = 0
    synchronous: bool = False


def copy(
    domain: Handle, device: str, destination: Destination, *, shallow: bool = False, tuning: Tuning | None = None
) -> Job:
    """Begin to copy a disk (virsh blockcopy); see job.wait, job.pivot and job.abort.

    :param shallow: copy only the uppermost image; the copy has the same base.
    :raises AlreadyExists: there is a file at the destination. :raises InvalidValue: the options don't fit.
    """
    tuning = tuning or Tuning()
    _check_tuning(tuning)
    path = units.check_path(os.path.abspath(destination.path), "disk")
    with domain.lock():
        run = domain.live
        entry = job.entry_of(run, device)
        images = chain.links(entry)
        shallow = shallow and len(images) > 1
        fmt = _format(destination, path, images[0].format, shallow)
        _check_destination(path, fmt, destination.reuse)
        tag = blocknodes.next_tag(run)
        name = f"{entry['target']}{tag}"
        with domain.monitor() as session:
            link = Link(path, fmt, f"{fmt}-{name}", f"file-{name}", commands.next_fdset(session))
            arguments: dict[str, Any] = {
                "device": top(entry),
                **({"replaces": images[0].node} if entry.get("filters") else {}),
                "target": link.node,
                "sync": "top" if shallow else "full",
                "speed": tuning.bandwidth,
                **({"granularity": tuning.granularity} if tuning.granularity else {}),
                **({"buf-size": tuning.buffer} if tuning.buffer else {}),
                **({"copy-mode": "write-blocking"} if tuning.synchronous else {}),
            }
            fresh = not destination.reuse and not os.path.exists(path)
            base = images[1] if shallow else None

            def prepare() -> None:
                if fresh:
                    _make(domain, session, images, link, base)
                _open(domain, run, session, entry, link, base)

            with use.explained(domain, [path]):
                return job.begin(
                    run, session, entry, job.COPY, "blockdev-mirror", arguments,
                    after=[link, *(images[1:] if shallow else ())], prepare=prepare, made=[link],
                    path=path if fresh else "",
                )  # fmt: skip


def _check_tuning(tuning: Tuning) -> None:
    grain = tuning.granularity
    if grain and (grain < 512 or grain > 64 << 20 or grain & (grain - 1)):
        raise InvalidValue(f"granularity {grain} must be power of 2", hint="512 bytes to 64 MiB")


def _format(destination: Destination, path: str, own: str, shallow: bool) -> str:
    fmt = destination.format
    if not fmt:
        if destination.reuse:
            raise InvalidValue(f"the format of {units.printable(path)} must be said", hint="--format raw or qcow2")
        fmt = "raw" if is_block(path) else own
    if fmt not in tuple(DiskFormat):
        raise InvalidValue(f"format '{units.printable(fmt)}' is not supported", hint=", ".join(DiskFormat))
    if shallow and fmt != "qcow2":
        raise InvalidValue(f"a {fmt} image has no base", hint="leave --shallow out, or --format qcow2")
    return fmt


def _check_destination(path: str, fmt: str, reuse: bool) -> None:
    if is_block(path):
        if not os.path.exists(path):
            raise HostError(f"block device {path} is not there")
        if not reuse and fmt != "raw":
            raise InvalidValue(
                f"qkvm makes no {fmt} image on block device {path}", hint="--reuse-external uses an existing one"
            )
    elif not reuse and os.path.lexists(path):
        raise AlreadyExists(
            f"external destination file for mirror {path} already exists and is not a block device",
            hint="--reuse-external writes to it",
        )
    elif reuse and not os.path.lexists(path):
        raise HostError(f"missing destination file for disk: {path}")


def _make(domain: Handle, session: Session, images: list[Link], link: Link, base: Link | None) -> None:
    size = commands.nodes(session)[images[0].node]["image"]["virtual-size"]
    if size % 1024:
        raise InvalidState(f"{images[0].path} has {size} bytes, which are no whole KiB")
    backing = (base.path, base.format) if base is not None else None
    image.create(link.path, link.format, size // 1024, owner_folder=domain.tree.images, backing=backing)


def _open(
    domain: Handle, run: Run, session: Session, entry: dict[str, Any], link: Link, base: Link | None
) -> None:
    """Open the destination in QEMU, on top of ``base`` if given."""
    protocol, form = chain.options(
        domain, run, entry, link, readonly=False, backing=base.node if base is not None else ""
    )
    chain.give(run, session, entry, link, backing=base is not None)
    for arguments in (protocol, form):
        session.execute("blockdev-add", arguments)
