"""Shared folders as detached mounts, which an fd holds whatever happens to the path.

The kernel keeps such a mount as long as it is open somewhere. It can be read-only, and it can show the folder's
owner as another user (an idmapped mount), without changes on the disk. See open_tree(2), mount_setattr(2),
move_mount(2); libc has no wrappers for them in Debian 12.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import threading
from typing import TYPE_CHECKING, TypeVar

from qkvm.errors import HostError
from qkvm.files import os_error
from qkvm.host import process

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

# Numbers of system calls are the same on all machines since Linux 5.1 (asm-generic/unistd.h).
_OPEN_TREE, _MOVE_MOUNT, _MOUNT_SETATTR = 428, 429, 442

# linux/fcntl.h and linux/mount.h.
_AT_FDCWD, _AT_EMPTY_PATH, _AT_RECURSIVE = -100, 0x1000, 0x8000
_OPEN_TREE_CLONE, _MOVE_MOUNT_F_EMPTY_PATH = 1, 4
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV, _ATTR_IDMAP = 0x1, 0x2, 0x4, 0x100000
_MS_REC, _MS_SLAVE, _CLONE_NEWNS = 0x4000, 0x80000, 0x20000


def folder(fd: int, *, readonly: bool) -> int:
    """Return an fd of a mount of a folder with all mounts in it.

    In the mount, device files and set-user-ID bits have no effect. :raises HostError: the kernel refuses it.
    """
    try:
        flags = _OPEN_TREE_CLONE | _AT_EMPTY_PATH | _AT_RECURSIVE | os.O_CLOEXEC
        tree = _call(_OPEN_TREE, fd, b"", flags)
    except OSError as error:
        raise os_error(error, "cannot make a mount of a folder") from error
    try:
        _set(tree, _ATTR_NOSUID | _ATTR_NODEV | (_ATTR_RDONLY if readonly else 0))
    except OSError as error:
        os.close(tree)
        raise os_error(error, "cannot make a mount of a folder") from error
    return tree


def show_owner_as(tree: int, uid: int, gid: int) -> bool:
    """Make a mount show the folder's owner and group as others; False where the file system can't.

    What the shown user creates belongs to the owner on the disk. Files of third parties are nobody's, and
    accessible as their modes allow.
    """
    info = os.fstat(tree)
    if (info.st_uid, info.st_gid) == (uid, gid):
        return True
    space = _user_namespace((info.st_uid, uid), (info.st_gid, gid))
    if space < 0:
        return False
    try:
        _set(tree, _ATTR_IDMAP, space)
    except OSError:
        return False
    finally:
        os.close(space)
    return True


def _user_namespace(uids: tuple[int, int], gids: tuple[int, int]) -> int:
    """Return an fd of a user namespace with one user and one group, mapped from the disk's to the shown ones."""
    ready, tell = os.pipe2(os.O_CLOEXEC)
    wait, hold = os.pipe2(os.O_CLOEXEC)
    null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
    try:
        argv = [process.find_program("unshare", "a shared folder's owner", "util-linux"), "--user"]
        pid = process.spawn([*argv, "sh", "-c", "echo; read -r end"], stdin=wait, stdout=tell, stderr=null)
        os.close(tell)
        tell = -1
        if not os.read(ready, 1):
            return -1
        for name, (disk, shown) in (("uid_map", uids), ("gid_map", gids)):
            with open(f"/proc/{pid}/{name}", "w", encoding="ascii") as stream:
                stream.write(f"{disk} {shown} 1\n")
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    except (OSError, HostError):
        return -1
    finally:
        for fd in (ready, tell, wait, hold, null):
            if fd >= 0:
                os.close(fd)
        process.reap()


def in_own_namespace(tree: int, place: str, start: Callable[[], T]) -> T:
    """Call what starts a program that sees a mount at a place, where no other process sees it.

    A thread gets its own mount namespace for the start; the program inherits it, and keeps it until it ends. What
    the host unmounts disappears there too. :raises HostError: the kernel refuses it.
    """
    target = os.fsencode(os.path.realpath(place))
    outcome: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            _check(libc.unshare(_CLONE_NEWNS))
            _leave_group(libc)
            _call(_MOVE_MOUNT, tree, b"", _AT_FDCWD, target, _MOVE_MOUNT_F_EMPTY_PATH)
        except OSError as error:
            failure.append(os_error(error, "cannot make a mount of a folder"))
            return
        except HostError as error:
            failure.append(error)
            return
        try:
            outcome.append(start())
        except BaseException as error:  # noqa: BLE001  it is raised below
            failure.append(error)

    thread = threading.Thread(target=run, name="mount namespace")
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


def _leave_group(libc: ctypes.CDLL) -> None:
    """Keep this thread's mounts out of the host's namespace. :raises HostError: / is no mount."""
    try:
        _check(libc.mount(None, b"/", None, ctypes.c_ulong(_MS_REC | _MS_SLAVE), None))
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise HostError(
            "virtiofs needs a root folder that is a mount, which a plain chroot has not",
            hint="mount --bind FOLDER FOLDER before the chroot",
        ) from error


def _set(tree: int, attributes: int, namespace: int = 0) -> None:
    # struct mount_attr: set, cleared, propagation, user namespace.
    wanted = struct.pack("=QQQQ", attributes, 0, 0, namespace)
    _call(_MOUNT_SETATTR, tree, b"", _AT_EMPTY_PATH | _AT_RECURSIVE, wanted, len(wanted))


def _call(number: int, *arguments: int | bytes) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    plain = (ctypes.c_long(one) if isinstance(one, int) else one for one in arguments)
    return _check(libc.syscall(ctypes.c_long(number), *plain))


def _check(result: int) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result
