"""Folders of the host in a guest: looked at and held when it starts, served by QEMU (9p) or by virtiofsd.

9p is QEMU's own: what the guest does there is done by QEMU's user. That user has a number of its own in each run,
which owns nothing on the host. So it comes to the folder through a mount that shows the folder's owner as that
user: the guest can do what the owner can. virtiofsd runs as root, confined to the folder, and acts as whatever
user the guest says. Without root there is 9p alone: the guest can do what the user can.
"""

from __future__ import annotations

import os
import re
import socket
from typing import TYPE_CHECKING, Any, NamedTuple

from qkvm.domain.device import sidecar
from qkvm.domain.run import write
from qkvm.errors import HostError, InvalidState, InvalidValue, ProgramFailed
from qkvm.files import os_error
from qkvm.host import process, programs
from qkvm.qemu import shares
from qkvm.rights import need_root
from qkvm.sockets import connect_unix, listen_unix
from qkvm.spec import domain as spec
from qkvm.spec import toml
from qkvm.units import printable

if TYPE_CHECKING:
    from contextlib import ExitStack

    from qkvm.domain.run import Run
    from qkvm.domain.tuning.place import Place
    from qkvm.paths import Tree
    from qkvm.qemu.shares import ShareDevice
    from qkvm.qmp.session import Session

_PLACES = ("/mnt", "/media", "/srv", "/opt", "/tmp")
"""Where virtiofsd finds the folder, in a mount namespace of its own: folders that it needs for nothing else."""


class Opened(NamedTuple):
    """A share that is held: ``qemu`` is what QEMU gets of it, ``tree`` the folder and ``own`` the listening socket
    that a virtiofsd gets (-1 for 9p)."""

    share: spec.Filesystem
    ident: str
    qemu: int
    tree: int = -1
    own: int = -1
    warning: str = ""


def decided(definition: spec.Domain) -> spec.Domain:
    """A definition with the drivers of its shares decided; see :func:`qkvm.qemu.shares.chosen`."""
    if not definition.filesystems:
        return definition
    return shares.chosen(definition, virtiofs=os.geteuid() == 0 and programs.is_installed("virtiofsd"))


def check(tree: Tree, definition: spec.Domain, *, as_root: bool) -> None:
    """Look at everything that can be looked at before anything is made.

    :param as_root: QEMU stays root. :raises MissingProgram: there is no virtiofsd.
    :raises InvalidState: QEMU's user could not do what is asked for. :raises HostError: a folder is not there.
    """
    for share in definition.filesystems:
        check_one(tree, share, as_root=as_root)


def check_one(tree: Tree, share: spec.Filesystem, *, as_root: bool) -> None:
    """As :func:`check`, of one share."""
    if share.driver is spec.FilesystemDriver.VIRTIOFS:
        need_root(f"filesystem {share.target}: a virtiofsd that acts for the guest's users", instead="driver 9p")
        programs.find("virtiofsd")
    elif share.access is spec.AccessMode.PASSTHROUGH and not as_root:
        raise InvalidState(
            f"filesystem {share.target}: accessmode passthrough by 9p needs a QEMU that runs as root",
            hint="driver virtiofs has it; 9p has mapped and squash",
        )
    os.close(_open_folder(tree, share))


def _open_folder(tree: Tree, share: spec.Filesystem) -> int:
    """An fd of a share's folder, wherever its name leads to now.

    :raises HostError: it is not there, or no folder. :raises InvalidValue: a guest must not have that one.
    """
    try:
        fd = os.open(share.source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise os_error(error, f"cannot share {printable(share.source)}") from error
    try:
        path = os.readlink(f"/proc/self/fd/{fd}")
        root = os.stat("/")
        if (root.st_dev, root.st_ino) == _identity(fd):
            raise InvalidValue(f"{printable(share.source)} is the whole of the host", hint="name a folder")
        for own in (tree.config, tree.state, tree.run, tree.log):
            real = os.path.realpath(own)
            if os.path.commonpath((real, path)) in (real, path):
                raise InvalidValue(
                    f"{printable(share.source)} can't be shared: qkvm keeps its own in {own}",
                    hint="name a folder of its own",
                )
    except BaseException:
        os.close(fd)
        raise
    return fd


def _identity(fd: int) -> tuple[int, int]:
    info = os.fstat(fd)
    return info.st_dev, info.st_ino


def hold(
    tree: Tree, run: Run, share: spec.Filesystem, ident: str, user: tuple[int, int] | None, opened: ExitStack
) -> Opened:
    """Open a share's folder, and the two ends of its virtiofsd's socket, closed with ``opened``.

    :param user: uid and gid of QEMU, None where that is root.
    """
    from qkvm.host import mounts

    fd = _open_folder(tree, share)
    opened.callback(os.close, fd)
    if os.geteuid() != 0:
        # There is no mount for a user: QEMU serves the folder as who it belongs to.
        return Opened(share, ident, _high(fd, opened))
    held = mounts.folder(fd, readonly=share.readonly)
    opened.callback(os.close, held)
    if share.driver is spec.FilesystemDriver.VIRTIOFS:
        ours, own = _connected(run, ident)
        opened.callback(own.close)
        with ours:
            return Opened(share, ident, _high(ours.fileno(), opened), held, own.fileno())
    warning = ""
    if user is not None and not mounts.show_owner_as(held, *user):
        warning = _access(share, held, user)
    return Opened(share, ident, _high(held, opened), warning=warning)


def _high(fd: int, opened: ExitStack) -> int:
    high = process.high_fd(fd)
    opened.callback(os.close, high)
    return high


def _connected(run: Run, ident: str) -> tuple[socket.socket, socket.socket]:
    """A socket that is connected to a listening one, which has no name any more: nobody else comes through it.

    virtiofsd takes its first caller from a listening socket, and then closes that.
    """
    path = os.path.join(run.folder, f"{ident}.sock")
    listening = listen_unix(path)
    try:
        return connect_unix(path), listening
    except BaseException:
        listening.close()
        raise
    finally:
        os.unlink(path)


def _access(share: spec.Filesystem, folder: int, user: tuple[int, int]) -> str:
    """What QEMU's user can't do in a folder whose file system shows no other owner: a warning, '' where it can.

    :raises HostError: it can't even read it.
    """
    where, who = printable(share.source), f"QEMU's user {user[0]}"
    hint = "share it by virtiofs (driver virtiofs), or give that file system another folder with open modes"
    if not _allows(folder, user, "rx"):
        raise HostError(
            f"cannot share {where} by 9p: {who} may not read it, and its file system can't map its owner",
            hint=hint,
        )
    if not share.readonly and not _allows(folder, user, "w"):
        return f"{who} may not write in {where}, and its file system can't map its owner; {hint}"
    return ""


def _allows(folder: int, user: tuple[int, int], ways: str) -> bool:
    words = [word for way in ways for word in ("-a", f"-{way}", ".")][1:]
    try:
        process.run(["/usr/bin/test", *words], folder=f"/proc/self/fd/{folder}", user=user)
    except ProgramFailed:
        return False
    return True


def serve(tree: Tree, run: Run, held: Opened, place: Place) -> None:
    """Start the virtiofsd of a share; of 9p there is none."""
    if held.own < 0:
        return
    from qkvm.host import mounts

    program = programs.find("virtiofsd")
    places = [os.path.realpath(one) for one in _PLACES if os.path.isdir(one)]
    root = os.path.realpath(tree.root)
    where = next(one for one in places if os.path.commonpath((one, root)) != one)
    # The words that QEMU's own virtiofsd (up to 7.2) and the one in Rust that followed it both know.
    options = [f"--fd={held.own}", "-o", f"source={where},sandbox=namespace,xattr"]
    mounts.in_own_namespace(
        held.tree, where,
        lambda: sidecar.start(run, place, name_of(held.ident), [program, *options], held.own),
    )  # fmt: skip


def name_of(ident: str) -> str:
    """What the virtiofsd of a share is called in the record and in errors."""
    return f"virtiofsd-{ident}"


def end_released(run: Run) -> None:
    """End the virtiofsd of shares that the guest released after nobody waited any more."""
    present = {one["id"] for one in run.devices("filesystems")}
    for one in run.record.get("filesystems", ()):
        name = name_of(one["id"])
        if one["id"] not in present and any(other["name"] == name for other in run.record["sidecars"]):
            sidecar.end_one(run, name, 0.0)
            write(run)


def entry(device: ShareDevice, *, since: int) -> dict[str, Any]:
    """What a record says of a share; ``since`` is the journal's length when it was plugged."""
    return {
        "id": device.id, "target": device.share.target, "driver": str(device.share.driver), "since": since,
        "place": device.place.label, "spec": toml.to_plain(device.share),
    }  # fmt: skip


def refuse_unsavable(run: Run, session: Session, what: str) -> None:
    """Refuse what puts a guest's state elsewhere where a virtiofsd has a part of it, or QEMU itself says no.

    :param what: 'saved', 'dumped'. :raises InvalidState: naming the folder.
    """
    if not run.devices("filesystems"):
        return
    for one in run.devices("filesystems"):
        if one["driver"] == spec.FilesystemDriver.VIRTIOFS:
            raise InvalidState(
                f"a guest with a virtiofs share ({one['target']}) can't be {what}: QEMU can't take along what its"
                " virtiofsd knows",
                hint="qkvm detach-device takes a share out; one by 9p is no hindrance while it is not mounted",
            )
    reasons = session.execute("query-migrate").get("blocked-reasons", ())
    for reason in map(str, reasons):
        tag = re.search(r"mount_tag '(.*)'", reason)
        if tag is None:
            raise InvalidState(f"the guest can't be {what}: {printable(reason)}")
        raise InvalidState(
            f"a guest that has mounted a 9p filesystem ({printable(tag[1])}) can't be {what}",
            hint="unmount it in the guest first",
        )
