"""Grants: which users may plug guests into a network of root's; etc/qkvm/grants/NETWORK.toml.

Users and groups are looked up each time, as sudo does: a user who leaves a group loses its grants at once.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from qkvm.errors import AlreadyExists, InvalidState, NotFound
from qkvm.files import entries, make_private_dir, read_bytes, remove, write_atomic
from qkvm.spec.grant import Grant, Grants, check
from qkvm.units import check_name, printable

if TYPE_CHECKING:
    from qkvm.paths import Tree


def load(tree: Tree, network: str) -> tuple[Grant, ...]:
    """Return the grants of a network, in the order of its file. :raises DefinitionError: the file is damaged."""
    from qkvm.spec import toml

    path = tree.grants(check_name(network, "network"))
    raw = read_bytes(path)
    return toml.loads(raw, Grants, path).grants if raw is not None else ()


def networks(tree: Tree) -> list[str]:
    """Return the networks that have grants."""
    return entries(tree.grant_folder, ".toml")


def allow(tree: Tree, network: str, grant: Grant) -> None:
    """Add a grant; it replaces one of the same user or group. :raises NotFound: no such user or group."""
    _require(check(grant).who)
    others = [one for one in load(tree, network) if one.who != grant.who]
    _store(tree, network, (*others, grant))


def revoke(tree: Tree, network: str, who: str) -> None:
    """Remove a grant. :raises NotFound: there is none."""
    before = load(tree, network)
    left = tuple(one for one in before if one.who != who)
    if len(left) == len(before):
        raise NotFound(f"network '{network}' is not granted to {who}", kind="grant", name=who)
    _store(tree, network, left)


def of(tree: Tree, network: str, uid: int) -> Grant | None:
    """Return a user's grant on a network, by name or number, else by a group; None where there is none."""
    grants = {one.who: one for one in load(tree, network)}
    return next((grants[name] for name in (_names(uid) if grants else ()) if name in grants), None)


def forget(tree: Tree, network: str) -> None:
    """Remove all grants of a network that is gone, so that a new one of its name has none."""
    remove(tree.grants(network))


def name_of(uid: int) -> str:
    """Return the name by which net-grant knows a user."""
    return _names(uid)[0]


def refusal(network: str, uid: int) -> InvalidState:
    """Return the error for a user who is not granted a network, whether it exists or not."""
    return InvalidState(
        f"network '{printable(network)}' is not granted to you",
        hint=f"root can: qkvm net-grant {printable(network)} {name_of(uid)}",
    )


def _store(tree: Tree, network: str, grants: tuple[Grant, ...]) -> None:
    from qkvm.spec import toml

    if not grants:
        return forget(tree, network)
    make_private_dir(tree.grant_folder)
    path = tree.grants(network)
    text = (read_bytes(path) or b"").decode("utf-8", "replace")
    return write_atomic(path, toml.update(text, Grants(grants=grants)))


def _names(uid: int) -> list[str]:
    """Return all names by which a grant can name a user, the most personal first."""
    import grp
    import pwd

    try:
        user = pwd.getpwuid(uid)
    except KeyError:
        return [str(uid)]
    # A name of digits alone would be another user's number.
    found = [str(uid)] if user.pw_name.isdigit() else [user.pw_name, str(uid)]
    for gid in os.getgrouplist(user.pw_name, user.pw_gid):
        try:
            found.append(f"@{grp.getgrgid(gid).gr_name}")
        except KeyError:
            continue
    return found


def _require(who: str) -> None:
    """Refuse unknown names: whoever gets one later would be granted too. A number needs no name."""
    import grp
    import pwd

    if who.isdigit():
        if int(who) == 0:
            raise AlreadyExists("root needs no grant")
        return
    try:
        if who.startswith("@"):
            grp.getgrnam(who[1:])
        elif pwd.getpwnam(who).pw_uid == 0:
            raise AlreadyExists("root needs no grant")
    except KeyError:
        kind = "group" if who.startswith("@") else "user"
        raise NotFound(f"there is no {kind} '{who.removeprefix('@')}'", kind=kind, name=who) from None
