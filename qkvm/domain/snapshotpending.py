"""What is being done about snapshots, written down before it is begun, and brought to an end whatever happens.

Each step is either taken back or completed: a snapshot that was not yet taken is taken back, what removes or
replaces a state is completed. Who fails or is interrupted does so himself; after a kill or a power failure the
next verb on the domain does, or ``qkvm gc``.
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from qkvm import files
from qkvm.domain import snapshotstore as store
from qkvm.errors import QkvmError
from qkvm.spec.snapshot import from_plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qkvm.domain.domain import Domain


class Work:
    """Something that is being done: ``facts`` are what is written down of it."""

    def __init__(self, domain: Domain, facts: dict[str, Any]) -> None:
        self._domain = domain
        self.facts = facts

    def note(self, **facts: Any) -> None:
        """Write down how far it has come."""
        self.facts |= facts
        files.write_atomic(store.pending_file(self._domain), json.dumps(self.facts))


@contextmanager
def work(domain: Domain, do: str, **facts: Any) -> Iterator[Work]:
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


def recover(domain: Domain) -> None:
    """Bring to an end what was being done; call it under the domain's lock.

    :raises QkvmError: it can't be done now: an image is in use, the disk is full, QEMU does not answer.
    """
    raw = files.read_bytes(store.pending_file(domain))
    if raw is None:
        return
    from qkvm.domain.run import settle

    settle(domain.tree, domain.name)
    facts = json.loads(raw)
    snapshot = from_plain(facts["snapshot"], store.pending_file(domain))
    run = domain.run
    live = run if run is not None and run.pid is not None else None
    if facts["do"] == "create":
        from qkvm.domain.snapshot import recover_create

        recover_create(domain, live, snapshot, facts)
    elif facts["do"] == "revert":
        from qkvm.domain.snapshotrevert import recover_revert

        recover_revert(domain, live, snapshot, facts)
    else:
        from qkvm.domain.snapshotdelete import recover_delete

        recover_delete(domain, live, snapshot, facts)
    files.remove(store.pending_file(domain))


def pass_by(domain: Domain) -> None:
    """As :func:`recover`, for a verb that is about something else: it goes on where that can't be done now.

    Whatever needs the disks to be of one piece (a start, the next snapshot) calls :func:`recover` itself.
    """
    try:
        recover(domain)
    except QkvmError:
        return
