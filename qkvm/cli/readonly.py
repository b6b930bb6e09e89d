"""Verbs that only look: which of them --readonly allows, and what root shows of its tree to a group."""

from __future__ import annotations

import os

from qkvm.cli.verbs import listed
from qkvm.errors import HostError, QkvmError
from qkvm.paths import SESSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.cli.parse import Args
    from qkvm.cli.verbs import Verb
    from qkvm.paths import Tree


def only_looks(verb: Verb, args: Args) -> bool:
    """Return whether a verb changes nothing."""
    return verb.looks and not args.changes


def check(verb: Verb, args: Args) -> None:
    """Refuse a verb that changes something.

    :raises QkvmError: in virsh's words.
    """
    if not only_looks(verb, args):
        raise QkvmError(f"operation forbidden: read only access prevents {verb.name}")


def view(tree: Tree, verb: Verb, args: Args) -> Tree:
    """Return what root shows of its tree to a group (:mod:`qkvm.host.view`), for a member of the group.

    :raises HostError: this user may not look, or the verb changes something or needs what is not shown.
    """
    shown = tree.view()
    if not os.access(shown.state, os.R_OK | os.X_OK):
        raise HostError(
            f"the tree {tree.root} belongs to another user: this needs root",
            hint=f"without root, your own guests are in {SESSION}, the default; setup-read lets a group look",
        )
    if "shown" not in verb.marks:
        allowed = " ".join(other.name for other in listed() if "shown" in other.marks)
        raise HostError(f"{verb.name} needs root: you may look at root's tree, by {allowed}")
    if verb.name == "dumpxml" and args.flag("security-info"):
        raise HostError("passwords are root's alone: this needs root", hint="leave --security-info out")
    return shown
