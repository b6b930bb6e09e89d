"""The memory of a template, which all its clones map privately: a memfd that nobody can change.

The file itself is not mapped. A guest's balloon makes QEMU punch holes into the file that its memory is mapped
from (ram_block_discard_range), through a private mapping too, and other guests would lose these pages. A seal on a
memfd forbids that (fcntl(2), F_SEAL_WRITE). The first clone copies the file; others take the memfd from a clone
that runs.
"""

from __future__ import annotations

import errno
import fcntl
import os
from typing import TYPE_CHECKING

from qkvm.domain.run import live_runs
from qkvm.errors import HostError
from qkvm.files import os_error

if TYPE_CHECKING:
    from qkvm.domain.state.copy.template import Template
    from qkvm.paths import Tree

_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def memory_of(tree: Tree, template: Template, path: str) -> int:
    """Return an fd of a template's memory, which the caller closes.

    :param path: the file that holds it. :raises HostError: it can't be read, or there is no memory left.
    """
    for run in live_runs(tree):
        told = run.record.get("template", {})
        if told.get("token") == template.token:
            fd = _taken(f"/proc/{run.pid}/fd/{told['fd']}", told.get("mark"), template)
            if fd is not None:
                return fd
    return _copied(template, path)


def mark(fd: int) -> list[int]:
    """Return what tells a memfd from all others, for the record of a clone."""
    return _mark(os.fstat(fd))


def _mark(info: os.stat_result) -> list[int]:
    return [info.st_dev, info.st_ino]


def _taken(path: str, marked: object, template: Template) -> int | None:
    """Return an fd of a clone's memory; None if it has ended, or has something else there.

    Its QEMU may be in its guest's hands, and may put another memfd in this one's place, sealed as this one is. So
    it must be the one that qkvm recorded, and nothing else is even opened.
    """
    try:
        if _mark(os.stat(path)) != marked:
            return None
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        seals, info = fcntl.fcntl(fd, fcntl.F_GET_SEALS), os.fstat(fd)
        if seals == _SEALS and info.st_size == template.memory * 1024 and _mark(info) == marked:
            return fd
    except OSError:
        # Seals are for memfds alone.
        pass
    os.close(fd)
    return None


def _copied(template: Template, path: str) -> int:
    source = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        target = os.memfd_create(f"qkvm-{template.name}"[:200], os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            _copy(source, target)
            fcntl.fcntl(target, fcntl.F_ADD_SEALS, _SEALS)
        except BaseException:
            os.close(target)
            raise
    except OSError as error:
        raise os_error(error, f"cannot take the memory of template '{template.name}' from {path}") from error
    finally:
        os.close(source)
    return target


def _copy(source: int, target: int) -> None:
    """Copy a file with its holes."""
    size = os.fstat(source).st_size
    os.ftruncate(target, size)
    offset = 0
    while offset < size:
        try:
            begin = os.lseek(source, offset, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return
        offset = os.lseek(source, begin, os.SEEK_HOLE)
        os.lseek(target, begin, os.SEEK_SET)
        while begin < offset:
            count = os.sendfile(target, source, begin, offset - begin)
            if not count:
                raise HostError("the template's memory became shorter while it was read")
            begin += count
