"""The ssh keys of a way in: qkvm's own pair, one for each root, and the host keys by which qkvm knows guests."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from qkvm.files import make_private_dir, remove
from qkvm.host.sshkey import private_key, public_key

if TYPE_CHECKING:
    from qkvm.paths import Tree

__all__ = ["forget_host", "known_hosts", "private_key", "public_key"]


def known_hosts(tree: Tree, uuid: str) -> str:
    """Return the file with the host key of one domain, by its UUID; ssh makes it at the first connection."""
    folder = os.path.join(tree.ssh, "hosts")
    make_private_dir(tree.ssh)
    make_private_dir(folder)
    return os.path.join(folder, uuid)


def forget_host(tree: Tree, uuid: str) -> None:
    """Forget the host key of a domain that is undefined, or whose guest was made anew."""
    for suffix in ("", ".old"):
        remove(os.path.join(tree.ssh, "hosts", uuid + suffix))
