"""The ssh key pair that opens guests to qkvm, one for each root."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from qkvm.errors import HostError
from qkvm.files import locked, make_private_dir, read_bytes, remove
from qkvm.host import process, programs

if TYPE_CHECKING:
    from qkvm.paths import Tree


def public_key(tree: Tree) -> str:
    """Return the line for a guest's authorized_keys; the pair is made at first need.

    :raises MissingProgram: there is no ssh-keygen. :raises HostError: the pair can't be made or read.
    """
    raw = read_bytes(f"{private_key(tree)}.pub") or b""
    return raw.decode("ascii", "replace").strip()


def private_key(tree: Tree) -> str:
    """Return the path of the private key, for ssh's option -i; the pair is made at first need."""
    path = os.path.join(tree.ssh, "id_ed25519")
    if not _is_whole(path):
        make_private_dir(tree.ssh)
        with locked(f"{path}.lock", "qkvm's own ssh key"):
            if not _is_whole(path):
                _make(path, f"qkvm@{os.uname().nodename}")
    return path


def _is_whole(path: str) -> bool:
    """Whether both halves are there: the public one is written last."""
    return os.path.exists(path) and os.path.exists(f"{path}.pub")


def _make(path: str, comment: str) -> None:
    """Make what is missing of the pair. A killed qkvm may have left the private key alone, and that stays."""
    keygen = programs.find("ssh-keygen")
    new = f"{path}.new{os.getpid()}"
    try:
        if os.path.exists(path):
            public = process.run([keygen, "-y", "-f", path])
            with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600), "wb") as stream:
                stream.write(public)
            os.rename(new, f"{path}.pub")
            return
        process.run([keygen, "-q", "-t", "ed25519", "-N", "", "-C", comment, "-f", new])
        os.rename(new, path)
        os.rename(f"{new}.pub", f"{path}.pub")
    except OSError as error:
        raise HostError(f"cannot make {path}: {error.strerror}") from error
    finally:
        remove(new)
        remove(f"{new}.pub")
