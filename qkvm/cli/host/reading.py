"""The verb that lets a group look at root's tree."""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args

_GROUP = "qkvm-read"


def setup_read(context: Context, args: Args) -> None:
    """Let a group look, or nobody any more."""
    from qkvm.errors import HostError
    from qkvm.host import view

    args.exclusive("group", "remove")
    if os.geteuid() != 0:
        raise HostError("setup-read needs root", hint="your own tree is yours alone")
    if args.flag("remove"):
        gone = view.remove_view(context.tree)
        return context.say("Nobody but root may look any more\n" if gone else "Nobody but root could look\n")
    name = args.text("group") or _GROUP
    view.make(context.tree, _gid(name))
    return context.say(f"Members of group {name} may look: qkvm -c qemu:///system list --all\n")


def _gid(name: str) -> int:
    import grp

    from qkvm.errors import NotFound
    from qkvm.units import printable

    try:
        return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
    except (KeyError, ValueError):
        raise NotFound(
            f"there is no group '{printable(name)}'", kind="group", name=name, hint=f"groupadd --system {_GROUP}"
        ) from None
