"""What is being done about snapshots, written down before it is begun, and brought to an end whatever happens.

Each step is either taken back or completed: a snapshot that was not yet taken is taken back, what removes or
replaces a state is completed. Who fails or is interrupted does so himself; after a kill or a power failure the
next verb on the domain does, or ``qkvm gc``.
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
    """Something that is being done: ``facts`` are what is written down of it."""

    def __init__(self, domain: Handle, facts: dict[str, Any]) -> None:
        self._domain = domain
        self.facts = facts

    def note(self, **facts: Any) -> None:
        """Write down how far it has come."""
        self.facts |= facts
        files.write_atomic(store.pending_file(self._domain), json.dumps(self.facts))


@contextmanager
def work(domain: Handle, do: str, **facts: Any) -> Iterator[Work]:
    """Write down what the block does, and bring it to an end where it fails; call it under the domain's lock."""
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


Finish = Callable[[Handle, Run | None, Snapshot, dict[str, Any]], None]
"""Brings to an end what was being done: of a domain, its live run, the snapshot, and what was written down."""

_ways: dict[str, Finish] = {}


def finished_by(do: str, finish: Finish) -> None:
    """Say what brings this kind of work to an end."""
    _ways[do] = finish


def recover(domain: Handle) -> None:
    """Bring to an end what was being done; call it under the domain's lock.

    :raises QkvmError: it can't be done now: an image is in use, the disk is full, QEMU does not answer.
    """
    raw = files.read_bytes(store.pending_file(domain))
    if raw is None:
        return
    settle(domain.tree, domain.name)
    facts = json.loads(raw)
    snapshot = from_plain(facts["snapshot"], store.pending_file(domain))
    run = domain.run
    live = run if run is not None and run.pid is not None else None
    _ways[facts["do"]](domain, live, snapshot, facts)
    files.remove(store.pending_file(domain))


def pass_by(domain: Handle) -> None:
    """As :func:`recover`, for a verb that is about something else: it goes on where that can't be done now.

    Whatever needs the disks to be of one piece (a start, the next snapshot) calls :func:`recover` itself.
    """
    try:
        recover(domain)
    except QkvmError:
        return
