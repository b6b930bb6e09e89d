"""Ask a QEMU program once what it can do; the answers are kept while the file stays the same."""

from __future__ import annotations

import os

from qkvm.emulator import kept
from qkvm.errors import HostError
from qkvm.paths import Tree
from qkvm.qemu import abilities
from qkvm.qemu.abilities import Abilities
from qkvm.qmp import oneshot


def find(tree: Tree, path: str) -> Abilities:
    """Return what the program can do, from the cache if possible.

    :raises HostError: it does not answer as QEMU does. :raises ProgramFailed: it does not start.
    """
    path = os.path.abspath(path)
    return kept.recall(tree, path, "abilities", kept.program_key(path), Abilities, lambda: ask(path))


def ask(path: str) -> Abilities:
    """Ask the program; :raises: as :func:`find`."""
    # The accelerator does not matter, but a QEMU may have been built without TCG.
    found = abilities.read(path, oneshot.ask(path, "tcg:kvm", abilities.QUESTIONS))
    if found is None:
        raise HostError(f"{path} is no QEMU that answers QMP", hint="qkvm needs QEMU 7.2 or newer")
    return found
