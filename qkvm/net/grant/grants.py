"""Grants: who may plug guests of their own into a network of root's, etc/qkvm/grants/NETWORK.toml.

Users and groups are looked up anew each time, as sudo does: who is no member of a group any more has no grant any
more either.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from qkvm.errors import AlreadyExists, NotFound
from qkvm.files import entries, make_private_dir, read_bytes, remove, write_atomic
from qkvm.spec.grant import Grant, Grants, check
from qkvm.units import check_name

if TYPE_CHECKING:
    from qkvm.paths import Tree


def load(tree: Tree, network: str) -> tuple[Grant, ...]:
    """The grants of a network, in the order of its file. :raises DefinitionError: that can't be read."""
    from qkvm.spec import toml

    path = tree.grants(check_name(network, "network"))
    raw = read_bytes(path)
    return toml.loads(raw, Grants, path).grants if raw is not None else ()


def networks(tree: Tree) -> list[str]:
    """The networks that have grants."""
    return entries(tree.grant_folder, ".toml")


def allow(tree: Tree, network: str, grant: Grant) -> None:
    """Give a grant, in the place of an earlier one of the same user or group.

    :raises NotFound: there is no such user or group.
    """
    _require(check(grant).who)
    others = [one for one in load(tree, network) if one.who != grant.who]
    _store(tree, network, (*others, grant))


def revoke(tree: Tree, network: str, who: str) -> None:
    """Take a grant back. :raises NotFound: there is none."""
    before = load(tree, network)
    left = tuple(one for one in before if one.who != who)
    if len(left) == len(before):
        raise NotFound(f"network '{network}' is not granted to {who}", kind="grant", name=who)
    _store(tree, network, left)


def of(tree: Tree, network: str, uid: int) -> Grant | None:
    """What a user is granted on a network: by the user's own name or number, else by a group; None is nothing."""
    grants = {one.who: one for one in load(tree, network)}
    return next((grants[name] for name in (_names(uid) if grants else ()) if name in grants), None)


def forget(tree: Tree, network: str) -> None:
    """Forget all grants of a network that is gone: another one of its name is not granted to anybody."""
    remove(tree.grants(network))


def name_of(uid: int) -> str:
    """What net-grant can call a user."""
    return _names(uid)[0]


def _store(tree: Tree, network: str, grants: tuple[Grant, ...]) -> None:
    from qkvm.spec import toml

    if not grants:
        return forget(tree, network)
    make_private_dir(tree.grant_folder)
    path = tree.grants(network)
    text = (read_bytes(path) or b"").decode("utf-8", "replace")
    return write_atomic(path, toml.update(text, Grants(grants=grants)))


def _names(uid: int) -> list[str]:
    """All that a grant can call a user, what is most the user's own first."""
    import grp
    import pwd

    try:
        user = pwd.getpwuid(uid)
    except KeyError:
        return [str(uid)]
    # A name of digits alone would be taken for another user's number.
    found = [str(uid)] if user.pw_name.isdigit() else [user.pw_name, str(uid)]
    for gid in os.getgrouplist(user.pw_name, user.pw_gid):
        try:
            found.append(f"@{grp.getgrgid(gid).gr_name}")
        except KeyError:
            continue
    return found


def _require(who: str) -> None:
    """A name that nobody has yet would be granted to whoever gets it. A number needs no name."""
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
