"""blockcommit and blockpull: merge images of a chain while the guest runs.

A commit writes an image's content into its base, which replaces it in the chain. A pull copies the content of base
images into the image that the guest writes to.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from qkvm.domain.block import chain, job, use
from qkvm.domain.block.disk import top as uppermost
from qkvm.domain.handle import Handle, names
from qkvm.errors import InvalidState, InvalidValue, QkvmError
from qkvm.storage.image import formats, image
from qkvm.units import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qkvm.domain.block.chain import Link
    from qkvm.domain.block.job import Job
    from qkvm.domain.run import Run
    from qkvm.qmp.session import Session


def commit(
    domain: Handle,
    device: str,
    *,
    base: str = "",
    top: str = "",
    shallow: bool = False,
    active: bool = False,
    bandwidth: int = 0,
    delete: bool = False,
    keep_relative: bool = False,
) -> Job:
    """Begin to commit a part of a disk's chain (virsh blockcommit); see job.wait and job.pivot.

    :param base: the image to write to; default the last of the chain, with ``shallow`` the one below ``top``.
    :param top: the uppermost image to commit; default the one that the guest writes to, which needs ``active``.
    :param bandwidth: bytes a second, 0 for no limit. :param delete: remove the committed files at the end.
    :param keep_relative: name the new base by a relative path in the header of the image above.
    :raises InvalidValue: no such image. :raises Busy: another domain uses one of them.
    """
    with domain.lock():
        run = domain.live
        entry = job.entry_of(run, device)
        images = chain.links(entry)
        upper = chain.find(entry, top) if top else 0
        if upper + 1 >= len(images):
            raise InvalidValue(f"top '{images[upper].path}' in chain for '{images[0].path}' has no backing file")
        if shallow and base:
            raise InvalidValue("Options --shallow and --base are mutually exclusive")
        lower = upper + 1 if shallow else chain.find(entry, base) if base else len(images) - 1
        if lower <= upper:
            raise InvalidValue(f"base '{images[lower].path}' is not below top '{images[upper].path}'")
        if upper == 0 and not active:
            raise InvalidValue(f"commit of '{device}' active layer requires active flag", hint="--active")
        if upper and active:
            raise InvalidValue(f"active commit requested but '{images[upper].path}' is not active")
        with domain.monitor() as session:
            return begin_commit(
                domain, run, session, entry, upper, lower, bandwidth=bandwidth, delete=delete,
                keep_relative=keep_relative,
            )  # fmt: skip


def begin_commit(
    domain: Handle,
    run: Run,
    session: Session,
    entry: dict[str, Any],
    top: int,
    base: int,
    *,
    bandwidth: int = 0,
    delete: bool = False,
    keep_relative: bool = False,
) -> Job:
    """Begin a commit by depths in the chain (0 is the image that the guest writes to); the caller holds the lock.

    An active commit (``top`` 0) becomes ready, and job.complete ends it; any other ends by itself.

    :raises InvalidState: the disk is read-only, or another disk's chain has the base.
    """
    _refuse_readonly(entry)
    if not top and entry.get("filters"):
        raise InvalidState(
            f"disk '{entry['target']}' is in throttle groups: QEMU would take it out of them",
            hint="detach it and attach it again without them",
        )
    images = chain.links(entry)
    touched = images[top : base + 1]
    _refuse_shared(domain, entry["target"], touched[1:])
    arguments: dict[str, Any] = {"device": uppermost(entry), "speed": bandwidth}
    kind = job.ACTIVE_COMMIT
    if top:
        kind = job.COMMIT
        name = _backing_name(images, top - 1, base, keep_relative=keep_relative)
        arguments |= {"top-node": images[top].node, "backing-file": name}
        # The header of the image above changes, too.
        if top > 1:
            chain.make_writable(domain, run, session, entry, top - 1)
    with use.explained(domain, [link.path for link in touched]):
        lowest = chain.make_writable(domain, run, session, entry, base)
        images = chain.links(entry)
        return job.begin(
            run, session, entry, kind, "block-commit", {**arguments, "base-node": lowest.node},
            after=[*images[:top], *images[base:]],
            delete=[link.path for link in images[top:base]] if delete else (),
        )  # fmt: skip


def _backing_name(images: Sequence[Link], upper: int, base: int, *, keep_relative: bool = False) -> str:
    """Return the name of the new base for the header of the image at depth ``upper``.

    :raises InvalidState: it must stay relative, but a name in between is not.
    """
    path = images[base].path
    if not keep_relative:
        return path
    for link in images[upper:base]:
        fd = image.open_image(link.path, "raw")
        try:
            if formats.look(fd).backing.startswith(("/", "json:")) or link.format != "qcow2":
                raise InvalidState(
                    "can't keep relative backing relationship",
                    hint=f"{printable(link.path)} names its base by an absolute path",
                )
        finally:
            os.close(fd)
    return os.path.relpath(path, os.path.dirname(images[upper].path))


def _refuse_shared(domain: Handle, target: str, touched: Sequence[Link]) -> None:
    """Refuse to change images that another disk is based on: its content would be destroyed."""
    paths = {os.path.realpath(link.path): link.path for link in touched}
    for name in names(domain.tree):
        try:
            disks = Handle(domain.tree, name).definition.disks
        except QkvmError:
            # Damaged or gone, so it can't be started with them.
            continue
        for disk in disks:
            if name == domain.name and disk.target == target:
                continue
            for path in (disk.path, *(layer.path for layer in disk.backing)):
                if path and os.path.realpath(path) in paths:
                    owner = f"disk {disk.target} of domain '{name}'"
                    raise InvalidState(f"image {path} also belongs to {owner}, which a commit would destroy")


def pull(domain: Handle, device: str, *, base: str = "", bandwidth: int = 0, keep_relative: bool = False) -> Job:
    """Begin to pull a disk's base images into it (virsh blockpull); see job.wait.

    :param base: the image that stays its base; '' for none. :param bandwidth: bytes a second, 0 for no limit.
    :param keep_relative: name the new base by a relative path in the image's header.
    :raises InvalidState: there is nothing to pull, or the disk is read-only.
    """
    with domain.lock():
        run = domain.live
        entry = job.entry_of(run, device)
        depth = chain.find(entry, base) if base else None
        if depth == 0:
            raise InvalidValue(f"'{entry['path']}' is not a base of '{entry['path']}'")
        if keep_relative and depth is None:
            raise InvalidState("keep-relative makes sense only with --base", hint="without one no base is left")
        _refuse_readonly(entry)
        images = chain.links(entry)
        kept = images[depth:] if depth is not None else []
        if len(images) == 1 + len(kept):
            raise InvalidState(
                f"disk '{entry['target']}' has no images to pull from", hint="domblklist, dumpxml show its chain"
            )
        arguments: dict[str, Any] = {"device": images[0].node, "speed": bandwidth}
        if depth is not None:
            name = _backing_name(images, 0, depth, keep_relative=keep_relative)
            arguments |= {"base-node": images[depth].node, "backing-file": name}
        after = [images[0], *kept]
        with domain.monitor() as session:
            return job.begin(run, session, entry, job.PULL, "block-stream", arguments, after=after)


def _refuse_readonly(entry: dict[str, Any]) -> None:
    if entry["spec"].get("readonly") or entry["spec"].get("device", "disk") != "disk":
        raise InvalidState(f"disk '{entry['target']}' is read-only")
