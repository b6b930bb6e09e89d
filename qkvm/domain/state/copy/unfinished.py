"""Clones that are being made: what there is of one is written down, and removed where its maker was killed.

Every process that takes the lock of such a domain removes it first (qkvm gc does so for all).
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

from qkvm import files
from qkvm.domain.launch.end import end, forget
from qkvm.domain.run import settle
from qkvm.errors import HostError, NotFound
from qkvm.storage.pool import making
from qkvm.storage.pool.volume import lookup

if TYPE_CHECKING:
    from qkvm.domain.handle import Handle


class Making:
    """A clone that is being made, for use with ``with`` under its domain's lock: an error undoes all of it."""

    def __init__(self, domain: Handle) -> None:
        self._domain = domain
        self._made: list[list[object]] = []
        self._done = False

    def __enter__(self) -> Making:
        files.make_private_dir(self._domain.tree.makings)
        self._write()
        return self

    def add(self, path: str, made: str = "") -> None:
        """Write down a file or volume that was just made.

        :param made: its present name, where it gets the other one now.
        """
        self._made.append([path, _mark(made or path)])
        self._write()

    def commit(self) -> None:
        """The clone is complete."""
        self._done = True
        files.remove(self._domain.tree.making(self._domain.name))

    def _write(self) -> None:
        files.write_atomic(self._domain.tree.making(self._domain.name), json.dumps(self._made))

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if self._done:
            return
        try:
            pass_by(self._domain)
        except (HostError, OSError) as failure:
            if error is not None:
                error.add_note(f"while undoing: {failure}")


def pass_by(domain: Handle) -> None:
    """Remove a clone that is not complete; call it under its domain's lock."""
    tree, path = domain.tree, domain.tree.making(domain.name)
    raw = files.read_bytes(path)
    if raw is None:
        return
    files.remove(tree.domain_definition(domain.name))
    take_away(domain)
    for name, mark in json.loads(raw):
        # What has the name now may be another file.
        if _mark(name) == mark:
            _remove(domain, name)
    files.remove(path)


def take_away(domain: Handle) -> None:
    """End the QEMU of a domain without a definition, and forget the domain."""
    settle(domain.tree, domain.name)
    run = domain.live_run
    if run is not None:
        end(domain, run, "failed")
    else:
        forget(domain)


def _remove(domain: Handle, path: str) -> None:
    try:
        volume = lookup(domain.tree, path)
    except NotFound:
        files.remove(path)
    else:
        making.delete(volume)


def _mark(path: str) -> list[int]:
    """Return what no other file has that gets the same name; a block device's number."""
    try:
        info = os.stat(path)
    except OSError:
        return []
    return [info.st_dev, info.st_ino, info.st_rdev]
