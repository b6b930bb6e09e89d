"""Open the images of a domain that does not run in a QEMU without a machine.

So the same QMP commands work on them as in a running domain, and QEMU's user can open no other files. This QEMU
ends with the process that started it (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import os
import socket
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from qkvm.domain.block import nodes
from qkvm.domain.block.disk import disk_entry
from qkvm.errors import HostError, MonitorGone
from qkvm.host import ids, process, programs, settings
from qkvm.qemu import disks
from qkvm.qemu.slots import Place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qkvm.domain.handle import Handle
    from qkvm.qmp.session import Session
    from qkvm.spec import domain as spec

_GRACE = 60.0
"""Seconds to close the images, whose bitmaps may have to be written."""


@contextmanager
def opened(domain: Handle, listed: tuple[spec.Disk, ...]) -> Iterator[tuple[Session, list[dict[str, Any]]]]:
    """Yield a session with the images of these disks opened, and an entry for each as in a record.

    Call it under the domain's lock: the domain must not be started meanwhile.

    :raises HostError: an image is missing, or QEMU can't be started. :raises Busy: one is in use.
    """
    with _qemu(domain) as session:
        entries = []
        for disk in listed:
            device = disks.disk_device(domain.definition.machine, disk, Place("", ""), {}, 0)
            device = nodes.numbered(session, device)
            with nodes.opened(device.layers) as fds:
                nodes.open_nodes(session, device, fds, own=domain.tree.templates)
            entries.append(disk_entry(device, since=0))
        yield session, entries


@contextmanager
def _qemu(domain: Handle) -> Iterator[Session]:
    from qkvm.qmp.plain import PlainSession

    config = settings.load(domain.tree)
    binary = programs.emulator(config.qemu, "work on the images of a domain")
    mine, theirs = socket.socketpair()
    with mine, theirs, tempfile.TemporaryFile() as words, open(os.devnull, "r+b") as nowhere:
        fd = process.high_fd(theirs.fileno())
        try:
            pid = process.spawn(
                [*_as_user(config.user, domain), binary, *_options(fd)],
                stdin=nowhere.fileno(), stdout=nowhere.fileno(), stderr=words.fileno(), pass_fds=(fd,),
            )  # fmt: skip
        finally:
            os.close(fd)
        theirs.close()
        pidfd = process.open_pidfd(pid)
        try:
            with PlainSession("", name=domain.name, sock=mine, transcript=domain.transcript) as session:
                yield session
                session.execute("quit", timeout=_GRACE)
        except MonitorGone as error:
            words.seek(0)
            said = process.last_line(words.read().decode("utf-8", "replace"))
            raise HostError(f"the QEMU that had the images open ended: {said}") from error
        finally:
            if pidfd is not None:
                if not process.ended(pidfd, _GRACE):
                    process.end(pidfd, grace=0)
                os.close(pidfd)
            process.reap()


def _as_user(user: str, domain: Handle) -> list[str]:
    """Return a command that starts QEMU as the user of a run, and ends it with this process."""
    found = settings.run_as(user, ids.take(domain.tree))
    program = process.find_program("setpriv", "work on the images of a domain", "util-linux")
    identity = []
    if found:
        uid, gid = settings.user_ids(found)
        identity = ["--reuid", str(uid), "--regid", str(gid), "--clear-groups"]
    return [program, *identity, "--pdeathsig", "KILL", "--"]


def _options(fd: int) -> list[str]:
    return [
        "-machine", "none", "-nodefaults", "-no-user-config", "-display", "none", "-S",
        "-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
        "-chardev", f"socket,id=qmp,fd={fd}", "-mon", "chardev=qmp,mode=control",
    ]  # fmt: skip
