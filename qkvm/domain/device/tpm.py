"""The TPM of a domain: swtpm beside its QEMU, and the TPM's state, which outlives both.

swtpm runs as a user of its own, without capabilities and with its own seccomp filter.
"""

from __future__ import annotations

import os
import socket
import stat
from typing import TYPE_CHECKING

from qkvm.domain.device import sidecar
from qkvm.errors import HostError, InvalidState
from qkvm.files import Undo, make_private_dir, os_error
from qkvm.host import process, programs
from qkvm.spec import domain as spec

if TYPE_CHECKING:
    from contextlib import ExitStack

    from qkvm.domain.run import Run
    from qkvm.domain.tuning.place import Place
    from qkvm.paths import Tree

NAME = "swtpm"

_STATE_FILES = {"2.0": "tpm2-00.permall", "1.2": "tpm-00.permall"}


def check() -> None:
    """Refuse a start if swtpm is not installed.

    :raises MissingProgram: naming the package.
    """
    for name in ("swtpm", "swtpm_setup"):
        programs.find(name)


def open_socket(opened: ExitStack) -> sidecar.Ends:
    """Return the two ends of swtpm's control channel; QEMU sends the data channel's fd over it."""
    ours, own = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    opened.callback(own.close)
    with ours:
        high = process.high_fd(ours.fileno())
    opened.callback(os.close, high)
    return sidecar.Ends(high, own.fileno())


def start(
    tree: Tree, run: Run, tpm: spec.Tpm, ends: sidecar.Ends, user: tuple[int, int] | None, place: Place
) -> None:
    """Start swtpm with the state of a domain, which is made if there is none.

    :raises HostError: the state can't be made, or has files that are not swtpm's.
    """
    make_state(tree, run.name, tpm, user)
    folder = tree.tpm(run.name)
    _hand_over(folder, user)
    argv = [
        programs.find("swtpm"), "socket", *_version(tpm), "--tpmstate", "dir=.,mode=0600",
        "--ctrl", f"type=unixio,clientfd={ends.own}", "--terminate", "--seccomp", "action=kill",
    ]  # fmt: skip
    sidecar.start(run, place, NAME, argv, ends.own, folder=folder, user=user)


def make_state(tree: Tree, name: str, tpm: spec.Tpm, user: tuple[int, int] | None) -> None:
    """Make the state of a TPM with its endorsement key (swtpm_setup) if the domain has none.

    :raises InvalidState: it has one of another version.
    """
    folder = tree.tpm(name)
    if os.path.lexists(folder):
        if not os.path.exists(os.path.join(folder, _STATE_FILES[tpm.version])):
            raise InvalidState(
                f"{folder} holds no TPM of version {tpm.version}", hint="move it away for a new one"
            )
        return
    make_private_dir(tree.tpms)
    made = os.path.join(tree.tpms, f".{name}.new")
    remove_folder(made)
    with Undo() as undo:
        undo.add(remove_folder, made)
        os.mkdir(made, 0o700)
        _hand_over(made, user)
        argv = [programs.find("swtpm_setup"), *_version(tpm), "--tpmstate", ".", "--createek"]
        process.run(argv, folder=made, user=user, timeout=120)
        os.rename(made, folder)
        undo.commit()


def _version(tpm: spec.Tpm) -> list[str]:
    return ["--tpm2"] if tpm.version == "2.0" else []


def _hand_over(folder: str, user: tuple[int, int] | None) -> None:
    """Make a user the owner of the state, but refuse links that an earlier user may have put there."""
    uid, gid = user or (os.geteuid(), os.getegid())
    try:
        fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError as error:
        raise os_error(error, f"cannot use {folder}") from error
    try:
        os.fchown(fd, 0 if os.geteuid() == 0 else uid, -1)
        for name in os.listdir(fd):
            info = os.stat(name, dir_fd=fd, follow_symlinks=False)
            if not stat.S_ISREG(info.st_mode) or info.st_nlink != 1:
                raise HostError(f"{folder} holds what is no file of swtpm's: {name!a}", hint="remove it")
            os.chown(name, uid, gid, dir_fd=fd, follow_symlinks=False)
        os.fchown(fd, uid, gid)
    except OSError as error:
        raise os_error(error, f"cannot use {folder}") from error
    finally:
        os.close(fd)


def remove_folder(folder: str) -> None:
    """Remove a TPM's state, if it is there, without following links that its user may have put there."""
    import shutil

    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        return
    except OSError as error:
        raise os_error(error, f"cannot remove {folder}") from error
