"""blockpull: copy the content of a disk's base images into the image that the guest writes to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qkvm.domain.block import chain, job
from qkvm.domain.block.commit import backing_name
from qkvm.errors import InvalidState, InvalidValue

if TYPE_CHECKING:
    from qkvm.domain.block.job import Job
    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run
    from qkvm.qmp.session import Session


def pull(domain: Handle, device: str, *, base: str = "", bandwidth: int = 0, keep_relative: bool = False) -> Job:
    """Begin to pull a disk's base images into it (virsh blockpull); see job.wait.

    :param base: the image that stays its base; '' for none. :param bandwidth: bytes a second, 0 for no limit.
    :param keep_relative: name the new base by a relative path in the image's header.
    """
    with domain.lock():
        run = domain.live
        entry = job.entry_of(run, device)
        depth = chain.find(entry, base) if base else None
        if depth == 0:
            raise InvalidValue(f"'{entry['path']}' is not a base of '{entry['path']}'")
        if keep_relative and depth is None:
            raise InvalidState("keep-relative makes sense only with --base", hint="without one no base is left")
        with domain.monitor() as session:
            return begin(run, session, entry, depth, bandwidth=bandwidth, keep_relative=keep_relative)


def begin(
    run: Run,
    session: Session,
    entry: dict[str, Any],
    base: int | None,
    *,
    bandwidth: int = 0,
    keep_relative: bool = False,
) -> Job:
    """As :func:`pull`, with the depth of the base in the chain; the caller holds the lock.

    :raises InvalidState: there is nothing to pull, or the disk is read-only.
    """
    images = chain.links(entry)
    kept = images[base:] if base is not None else []
    if entry["spec"].get("readonly") or entry["spec"].get("device", "disk") != "disk":
        raise InvalidState(f"disk '{entry['target']}' is read-only")
    if len(images) == 1 + len(kept):
        raise InvalidState(
            f"disk '{entry['target']}' has no images to pull from", hint="domblklist, dumpxml show its chain"
        )
    arguments: dict[str, Any] = {"device": images[0].node, "speed": bandwidth}
    if base is not None:
        name = backing_name(images, 0, base, keep_relative=keep_relative)
        arguments |= {"base-node": images[base].node, "backing-file": name}
    return job.begin(run, session, entry, job.PULL, "block-stream", arguments, after=[images[0], *kept])
