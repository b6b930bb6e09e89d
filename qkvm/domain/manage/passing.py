"""Guests that go when the process that runs them ends (qkvm run), however it ends.

That process holds a lock for as long as it lives, on a file that is made before anything else of the guest and
removed after all else. Where the file is there and nobody holds the lock, the process was killed, and what it has
left goes: every process that takes the lock of that domain sees to it, and gc and the next run for all of them.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from qkvm.domain.definition import started_with
from qkvm.domain.device import tpm
from qkvm.domain.handle import Handle
from qkvm.domain.launch.end import end, forget, release
from qkvm.domain.run import settle
from qkvm.errors import Busy, InvalidState
from qkvm.files import entries, locked, make_private_dir, remove, remove_dir

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qkvm.paths import Tree


@contextmanager
def owned(domain: Handle) -> Iterator[None]:
    """Own a guest of that name for a block, which makes it; at the end it is gone with all that belongs to it.

    :raises Busy: another process owns a guest of that name.
    """
    tree = domain.tree
    sweep(tree)
    make_private_dir(tree.passing_guests)
    held = locked(_lock(domain), f"guest '{domain.name}' of another qkvm run", timeout=0.0)
    held.__enter__()
    try:
        make_private_dir(tree.passing_disks(domain.name))
        yield
    finally:
        # Where this fails, the file stays, and the next one to pass tries again.
        with domain.lock():
            _clear(domain)
        held.__exit__()


def pass_by(domain: Handle) -> None:
    """Remove what a killed process has left of a guest; call it under the domain's lock."""
    if os.path.lexists(_lock(domain)):
        with suppress(Busy), locked(_lock(domain), domain.name, timeout=0.0):
            _clear(domain)


def sweep(tree: Tree) -> list[str]:
    """Remove what killed processes have left of their guests; return the guests' names."""
    swept = []
    for name in entries(tree.passing_guests, ".lock"):
        domain = Handle(tree, name)
        with suppress(Busy), locked(_lock(domain), name, timeout=0.0), domain.lock():
            _clear(domain)
            swept.append(name)
    return swept


def _lock(domain: Handle) -> str:
    return domain.tree.passing_lock(domain.name)


def _clear(domain: Handle) -> None:
    """End the guest and remove all that belongs to it; one of the same name that is not of this kind stays."""
    tree, name = domain.tree, domain.name
    settle(tree, name)
    run = domain.run
    if not domain.is_persistent and (run is None or run.record.get("passing")):
        definition = started_with(run.record) if run is not None else None
        if run is not None and run.pid is not None:
            try:
                end(domain, run, "destroyed")
            except InvalidState:
                # Its QEMU has just ended by itself.
                release(run)
        forget(domain, definition, {})
        remove(tree.nvram(name))
        tpm.remove_folder(tree.tpm(name))
    remove_dir(tree.passing_disks(name))
