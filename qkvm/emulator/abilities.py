"""What a QEMU program can do, by asking it once; the answers hold as long as the program is the same file."""

from __future__ import annotations

import os

from qkvm.emulator import kept
from qkvm.errors import HostError
from qkvm.paths import Tree
from qkvm.qemu import abilities
from qkvm.qemu.abilities import Abilities
from qkvm.qmp import oneshot


def find(tree: Tree, path: str) -> Abilities:
    """What the program can do: asked where nothing that holds is kept, else read.

    :raises HostError: it is no QEMU that answers. :raises ProgramFailed: it does not start.
    """
    path = os.path.abspath(path)
    return kept.recall(tree, path, "abilities", kept.program_key(path), Abilities, lambda: ask(path))


def ask(path: str) -> Abilities:
    """Ask the program; :raises: as :func:`find`."""
    # The accelerator changes none of the answers; a QEMU may have been built without TCG.
    found = abilities.read(path, oneshot.ask(path, "tcg:kvm", abilities.QUESTIONS))
    if found is None:
        raise HostError(f"{path} is no QEMU that answers QMP", hint="qkvm needs QEMU 7.2 or newer")
    return found
