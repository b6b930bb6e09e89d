"""What is being done with a domain's snapshots, written to a file before it begins.

What is interrupted is undone (a snapshot that is not yet taken) or completed (a deletion, a revert). After an
error the process itself does so; after a kill or a power failure the next verb on the domain, or ``qkvm gc``.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from qkvm import files
from qkvm.domain.handle import Handle
from qkvm.domain.run import Run, settle
from qkvm.domain.store import snapshots as store
from qkvm.errors import QkvmError
from qkvm.spec.snapshot import Snapshot, from_plain

if TYPE_CHECKING:
    from collections.abc import Iterator


class Work:
    """Something that is being done, and the facts about it in the file."""

    def __init__(self, domain: Handle, facts: dict[str, Any]) -> None:
        self._domain = domain
        self.facts = facts

    def note(self, **facts: Any) -> None:
        """Add facts, and write the file."""
        self.facts |= facts
        files.write_atomic(store.pending_file(self._domain), json.dumps(self.facts))


@contextmanager
def work(domain: Handle, do: str, **facts: Any) -> Iterator[Work]:
    """Note what the block does, and undo or complete it where it fails; call it under the domain's lock."""
    store.prepare(domain)
    begun = Work(domain, {"do": do, **facts})
    begun.note()
    try:
        yield begun
    except BaseException as error:
        try:
            recover(domain)
        except QkvmError as failure:
            error.add_note(f"while undoing: {failure}")
        raise
    files.remove(store.pending_file(domain))


_recoverers: list[Callable[[Handle, Run | None, Snapshot, dict[str, Any]], None]] = []


def recovered_by(recoverer: Callable[[Handle, Run | None, Snapshot, dict[str, Any]], None]) -> None:
    """Register what undoes or completes work: it gets the domain, its live run, the snapshot and the facts."""
    _recoverers.append(recoverer)


def recover(domain: Handle) -> None:
    """Undo or complete what was being done, if anything; call it under the domain's lock.

    :raises QkvmError: it can't be done now: an image is in use, the disk is full, QEMU does not answer.
    """
    raw = files.read_bytes(store.pending_file(domain))
    if raw is None:
        return
    settle(domain.tree, domain.name)
    facts = json.loads(raw)
    snapshot = from_plain(facts["snapshot"], store.pending_file(domain))
    for recoverer in _recoverers:
        recoverer(domain, domain.live_run, snapshot, facts)
    files.remove(store.pending_file(domain))


def pass_by(domain: Handle) -> None:
    """Call :func:`recover` for a verb that does not depend on it, and ignore its errors."""
    try:
        recover(domain)
    except QkvmError:
        return
