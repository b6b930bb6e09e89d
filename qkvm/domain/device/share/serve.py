"""Share folders of the host with a guest: check and open them, and serve them by QEMU (9p) or virtiofsd.

With 9p QEMU's user accesses the folder. That user has another number in each run and owns nothing on the host, so
QEMU gets a mount that shows the folder's owner as that user: the guest can do what the owner can. virtiofsd runs
as root, confined to the folder, and acts as any user that the guest names. Without root there is only 9p: the
guest can do what the user can.
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
"""Where virtiofsd gets the folder mounted, in its own mount namespace: folders that it does not need otherwise."""


class Opened(NamedTuple):
    """An opened share: ``qemu`` is QEMU's fd; ``tree`` and ``own`` are virtiofsd's: the folder, and the listening
    socket (-1 for 9p).
    """

    share: spec.Filesystem
    ident: str
    qemu: int
    tree: int = -1
    own: int = -1
    warning: str = ""


def decided(definition: spec.Domain) -> spec.Domain:
    """Return a definition with the drivers of its shares decided; see :func:`qkvm.qemu.shares.chosen`."""
    if not definition.filesystems:
        return definition
    return shares.chosen(definition, virtiofs=os.geteuid() == 0 and programs.is_installed("virtiofsd"))


def check(tree: Tree, definition: spec.Domain, *, as_root: bool) -> None:
    """Check the shares of a definition before anything is made.

    :param as_root: QEMU stays root. :raises MissingProgram: there is no virtiofsd.
    :raises InvalidState: QEMU's user can't have that access. :raises HostError: a folder is missing.
    """
    for share in definition.filesystems:
        check_one(tree, share, as_root=as_root)


def check_one(tree: Tree, share: spec.Filesystem, *, as_root: bool) -> None:
    """Check one share; see :func:`check`."""
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
    """Return an fd of a share's folder.

    :raises HostError: it is missing, or no folder. :raises InvalidValue: it must not be shared.
    """
    try:
        fd = os.open(share.source, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise os_error(error, f"cannot share {printable(share.source)}") from error
    try:
        path = os.readlink(f"/proc/self/fd/{fd}")
        if os.path.samestat(os.stat("/"), os.fstat(fd)):
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


def hold(
    tree: Tree, run: Run, share: spec.Filesystem, ident: str, user: tuple[int, int] | None, opened: ExitStack
) -> Opened:
    """Open a share's folder and the two ends of its virtiofsd's socket; ``opened`` closes them.

    :param user: uid and gid of QEMU, None for root.
    """
    from qkvm.host import mounts

    fd = _open_folder(tree, share)
    opened.callback(os.close, fd)
    if os.geteuid() != 0:
        # Without root nothing can be mounted: QEMU runs as the user, and opens the folder itself.
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
    """Return a socket and the listening one that it is connected to; its path is removed, so no other can connect.

    virtiofsd accepts one connection of a listening socket, and then closes that.
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
    """Return a warning if QEMU's user can't write to a folder whose owner can't be mapped; '' if it can.

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
    """Start the virtiofsd of a share; 9p needs none."""
    if held.own < 0:
        return
    from qkvm.host import mounts

    program = programs.find("virtiofsd")
    places = [os.path.realpath(one) for one in _PLACES if os.path.isdir(one)]
    root = os.path.realpath(tree.root)
    where = next(one for one in places if os.path.commonpath((one, root)) != one)
    # Options that both QEMU's own virtiofsd (up to 7.2) and its successor in Rust know.
    options = [f"--fd={held.own}", "-o", f"source={where},sandbox=namespace,xattr"]
    mounts.in_own_namespace(
        held.tree,
        where,
        lambda: sidecar.start(run, place, name_of(held.ident), [program, *options], held.own),
    )


def name_of(ident: str) -> str:
    """Return the name of a share's virtiofsd in the record and in errors."""
    return f"virtiofsd-{ident}"


def end_released(run: Run) -> None:
    """End the virtiofsd of shares that the guest released after qkvm had stopped waiting."""
    present = {one["id"] for one in run.devices("filesystems")}
    for one in run.record.get("filesystems", ()):
        name = name_of(one["id"])
        if one["id"] not in present and any(other["name"] == name for other in run.record["sidecars"]):
            sidecar.end_one(run, name, 0.0)
            write(run)


def entry(device: ShareDevice, *, since: int) -> dict[str, Any]:
    """Return a share's entry for the record; ``since`` is the journal's length when it was plugged."""
    return {
        "id": device.id, "target": device.share.target, "driver": str(device.share.driver), "since": since,
        "place": device.place.label, "spec": toml.to_plain(device.share),
    }  # fmt: skip


def refuse_unsavable(run: Run, session: Session, what: str) -> None:
    """Refuse to save a guest whose state is partly in a virtiofsd, or that QEMU can't save for another share.

    :param what: 'saved', 'dumped'. :raises InvalidState: naming the folder.
    """
    if not run.devices("filesystems"):
        return
    for one in run.devices("filesystems"):
        if one["driver"] == spec.FilesystemDriver.VIRTIOFS:
            raise InvalidState(
                f"a guest with a virtiofs share ({one['target']}) can't be {what}: QEMU can't take along what its"
                " virtiofsd knows",
                hint="qkvm detach-device removes a share; a 9p share may stay while it is not mounted",
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
