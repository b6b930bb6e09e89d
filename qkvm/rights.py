"""What only root can do, said before it is tried."""

from __future__ import annotations

import os

from qkvm.errors import HostError

INSTEAD = "sudo; or without a bridge: a NIC of type user, as --network user gives"
"""What users have instead of networks."""


def need_root(what: str, *, instead: str) -> None:
    """Refuse to users what only root can do. :raises HostError: this is not root.

    :param what: what needs root, as the beginning of a sentence. :param instead: what users can do.
    """
    if os.geteuid() != 0:
        raise HostError(f"{what} needs root", hint=instead)
