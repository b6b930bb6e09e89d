"""Move a guest's state out of QEMU and into it: QEMU's migration, over a pipe or into a file.

The pipe's other end is in this process: if it dies, QEMU can't write and gives up. Under KVM the guest runs on
until the last pass, for which QEMU stops it and in which it answers no monitor; if that fails QEMU resumes it. The
second pass, with the pages that changed during the first, is made the last.

Under TCG, which loses writes, the guest is stopped first. If this process is killed, the next verb resumes the
guest (life/job.py).
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from qkvm.domain.state import job as jobs
from qkvm.domain.state.pump import Pump
from qkvm.errors import Aborted, CommandRefused, HostError, MonitorError, MonitorGone, MonitorTimeout, NotReached
from qkvm.host import journal
from qkvm.qmp import commands
from qkvm.storage.stream import BLOCK

if TYPE_CHECKING:
    from collections.abc import Callable

    from qkvm.domain.run import Run
    from qkvm.qmp.session import Session
    from qkvm.storage.stream import StreamWriter

    Report = Callable[[int, int], None]
    """Called now and then with the bytes that remain and the bytes in all."""

_FD_NAME = "state"
_LIMITS = {"max-bandwidth": (1 << 63) - 1, "downtime-limit": 300}
"""No limit of speed, and QEMU's default for the milliseconds that the last pass may take."""

_LAST_PASS = {"downtime-limit": 2000 * 1000}
"""The longest downtime that QEMU accepts: it then begins the last pass, however much is left."""

_PATIENCE = 600.0
"""Seconds for an answer: in its last pass QEMU answers only when everything is written."""

_GIVE_UP = 2.0
"""Seconds for an answer to migrate_cancel, where closing the pipe has the same effect."""

_REPORT_EVERY = 0.5
_POLL = 0.005
_ENDED = frozenset(("completed", "failed", "cancelled"))


def send(
    run: Run,
    session: Session,
    stream: StreamWriter,
    *,
    what: str,
    report: Report | None = None,
    at_end: Callable[[], None] | None = None,
    with_memory: bool = True,
) -> None:
    """Have QEMU write the guest's state to a stream; the guest is stopped afterwards.

    :param what: the job, for errors: 'save'. :param at_end: called when the guest is stopped and its disks are
        still open, before the last part of its state is written.
    :param with_memory: False leaves out memory that is a shared file.
    :raises Aborted: it was canceled, by ^C too. :raises HostError: the state could not be written.
        In both cases :func:`go_on` lets the guest run on.
    """
    mark = journal.size(run.journal)
    with Pump(stream.copy_from) as pump:
        try:
            if not tracks_writes(run):
                session.execute("stop", timeout=_PATIENCE)
            _give(
                session,
                pump.far_end,
                "migrate",
                f"fd:{_FD_NAME}",
                waits=at_end is not None,
                shared=not with_memory,
            )
            status = _watch(run, session, mark, pump, report, at_end)
        except KeyboardInterrupt:
            stream.abandon()
            _give_up(run, session, mark, pump)
            status = "cancelled"
    _refuse_unwritten(session, status, what, pump.error)


def _refuse_unwritten(session: Session, status: str, what: str, error: HostError | None = None) -> None:
    """Raise the error for a migration that did not end with success."""
    if status == "cancelled":
        raise Aborted(f"operation aborted: domain {what} job: canceled by client")
    if error is not None:
        raise error
    if status == "failed":
        raise HostError(f"QEMU could not write the guest's state: {_why(session)}")


def send_sparse(
    run: Run, session: Session, stream: StreamWriter, *, channels: int, report: Report | None = None
) -> None:
    """Have QEMU write the file itself, each page at its own offset, empty pages not at all; see :func:`send`.

    :param channels: how many of QEMU's threads write.
    :raises HostError: QEMU does not know mapped-ram, or failed.
    """
    mark = journal.size(run.journal)
    fd = os.open(f"/proc/self/fd/{stream.fd}", os.O_WRONLY | os.O_CLOEXEC)
    try:
        fdset = session.add_fd(fd)
    finally:
        os.close(fd)
    jobs.update(run, fdset=fdset)
    try:
        _prepare(session, channels=channels)
        if not tracks_writes(run):
            session.execute("stop", timeout=_PATIENCE)
        session.execute("migrate-set-parameters", _LIMITS)
        try:
            session.execute("migrate", {"uri": f"file:/dev/fdset/{fdset},offset={BLOCK}"})
            status = _watch(run, session, mark, None, report)
        except KeyboardInterrupt:
            cancel(session)
            _watch(run, session, mark, None, None)
            status = "cancelled"
    finally:
        with suppress(MonitorError):
            session.execute("remove-fd", {"fdset-id": fdset})
    _refuse_unwritten(session, status, "save")
    stream.adopt()


def receive_sparse(run: Run, session: Session, path: str, *, channels: int) -> None:
    """Have QEMU load the state from a file that :func:`send_sparse` wrote; the guest is paused afterwards.

    :raises HostError: QEMU does not know mapped-ram, or says what does not fit.
    :raises MonitorGone: QEMU ended: the state does not fit.
    """
    mark = journal.size(run.journal)
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fdset = session.add_fd(fd)
    finally:
        os.close(fd)
    _prepare(session, channels=channels)
    session.execute("migrate-incoming", {"uri": f"file:/dev/fdset/{fdset},offset={BLOCK}"})
    status = _watch(run, session, mark, None, None)
    if status != "completed":
        raise HostError(f"QEMU could not load the guest's state: {_why(session)}")
    session.execute("remove-fd", {"fdset-id": fdset})


def _prepare(session: Session, *, waits: bool = False, channels: int = 0, shared: bool = False) -> None:
    """Set QEMU's capabilities for a migration; an earlier one may have left others.

    :param waits: QEMU pauses before the last part. :param channels: 0 for a stream, more for a file.
    :param shared: the stream does not have memory that is a shared file.
    """
    wanted = {
        "events": True, "pause-before-switchover": waits, "mapped-ram": channels > 0, "multifd": channels > 1,
        "x-ignore-shared": shared,
    }  # fmt: skip
    known = {one["capability"] for one in session.execute("query-migrate-capabilities")}
    if channels and "mapped-ram" not in known:
        raise HostError(
            "this QEMU writes no sparse states: it does not know mapped-ram",
            hint="QEMU does from 9.0 on; --image-format zstd",
        )
    listed = [{"capability": name, "state": state} for name, state in wanted.items() if name in known]
    session.execute("migrate-set-capabilities", {"capabilities": listed})
    if channels > 1:
        session.execute("migrate-set-parameters", {"multifd-channels": channels})


def tracks_writes(run: Run) -> bool:
    """Return whether QEMU notices every write of a running guest into memory that was already sent.

    QEMU before 9.0 does not under TCG: cpu_physical_memory_sync_dirty_bitmap clears the dirty marks of pages, but
    the vCPUs' TLBs still regard them as dirty. A page sent in the second pass or later misses what the guest
    writes to it until the next TLB flush. The restored guest then has old values in memory, and often hangs.
    """
    return bool(run.record["accel"] == "kvm")


def receive(run: Run, session: Session, feed: Callable[[int], None], *, with_memory: bool = True) -> None:
    """Have QEMU load the state that ``feed`` writes to an fd; the guest is paused afterwards.

    :param with_memory: False where the guest's memory is there already; see :func:`send`.
    :raises HostError: raised by ``feed``, or QEMU says what does not fit.
    :raises MonitorGone: QEMU ended: the state does not fit.
    """
    mark = journal.size(run.journal)
    with Pump(feed, into=True) as pump:
        _give(session, pump.far_end, "migrate-incoming", f"fd:{_FD_NAME}", shared=not with_memory)
        refused: HostError | MonitorGone | None = None
        try:
            if _watch(run, session, mark, pump, None) != "completed":
                refused = HostError(f"QEMU could not load the guest's state: {_why(session)}")
        except MonitorGone as error:
            refused = error
    # QEMU fails on a damaged stream before the feed has ended; the feed's error is the cause.
    if pump.error is not None:
        raise pump.error from refused
    if refused is not None:
        raise refused


def cancel(session: Session) -> None:
    """Cancel a migration; it is no error if that has ended meanwhile."""
    session.execute("migrate_cancel", timeout=_PATIENCE)


def _give_up(run: Run, session: Session, mark: int, pump: Pump) -> None:
    """Have QEMU end a migration to a stream that was abandoned: by command, or because the pipe is closed."""
    with suppress(MonitorTimeout):
        session.execute("migrate_cancel", timeout=_GIVE_UP)
    events, _ = journal.events_from(run.journal, mark)
    if any(event["event"] == "MIGRATION" for event in events):
        _watch(run, session, mark, pump, None)
    else:
        # It had not begun, so QEMU may still have the pipe's end.
        with suppress(MonitorError):
            session.execute("closefd", {"fdname": _FD_NAME})


def hand_over(run: Run, session: Session, other: Run, other_session: Session) -> None:
    """Move the state of a stopped guest into another QEMU, which waits for it; the guest is paused there.

    :raises HostError: one of the two says what does not fit.
    """
    marks = [(run, session, journal.size(run.journal)), (other, other_session, journal.size(other.journal))]
    read, write = os.pipe()
    try:
        _give(other_session, read, "migrate-incoming", f"fd:{_FD_NAME}")
        _give(session, write, "migrate", f"fd:{_FD_NAME}")
    finally:
        os.close(read)
        os.close(write)
    for one, through, mark in marks:
        if _watch(one, through, mark, None, None) != "completed":
            raise HostError(f"QEMU could not hand the guest's state over: {_why(through)}")


def _give(session: Session, fd: int, command: str, uri: str, *, waits: bool = False, shared: bool = False) -> None:
    """Begin a migration over an fd; with ``waits`` QEMU pauses before the last part (pause-before-switchover)."""
    _prepare(session, waits=waits, shared=shared)
    if command == "migrate":
        session.execute("migrate-set-parameters", _LIMITS)
    session.send_fd(_FD_NAME, fd)
    try:
        session.execute(command, {"uri": uri})
    except CommandRefused:
        with suppress(MonitorError):
            session.execute("closefd", {"fdname": _FD_NAME})
        raise


def _watch(
    run: Run,
    session: Session,
    mark: int,
    pump: Pump | None,
    report: Report | None,
    at_end: Callable[[], None] | None = None,
) -> str:
    """Wait until a migration ends, and return its status by QEMU's event MIGRATION."""
    if pump is not None:
        pump.close_far_end()
    offset, next_report = mark, time.monotonic() + _REPORT_EVERY
    while True:
        alive = run.pid is not None
        events, offset = journal.events_from(run.journal, offset)
        for event in events:
            if event["event"] == "MIGRATION" and event["data"]["status"] in _ENDED:
                return str(event["data"]["status"])
            if (
                event["event"] == "MIGRATION"
                and event["data"]["status"] == "pre-switchover"
                and at_end is not None
            ):
                _at_end(session, at_end)
            if event["event"] == "MIGRATION_PASS" and event["data"]["pass"] == 2:
                session.execute("migrate-set-parameters", _LAST_PASS, timeout=_PATIENCE)
        if not alive:
            raise MonitorGone("QEMU ended before all of the guest's state was through")
        if report is not None and time.monotonic() >= next_report:
            memory = session.execute("query-migrate", timeout=_PATIENCE).get("ram")
            if memory:
                report(memory["remaining"], memory["total"])
            next_report = time.monotonic() + _REPORT_EVERY
        time.sleep(_POLL)


def _at_end(session: Session, at_end: Callable[[], None]) -> None:
    """Call ``at_end`` while QEMU waits, then let it go on; cancel the migration if that fails."""
    try:
        at_end()
    except BaseException:
        cancel(session)
        raise
    session.execute("migrate-continue", {"state": "pre-switchover"}, timeout=_PATIENCE)


def _why(session: Session) -> str:
    """Return QEMU's reason for a failed migration.

    :raises MonitorGone: it has ended; from 9.1 on QEMU does when it can't load a state (exit-on-error).
    """
    try:
        return str(session.execute("query-migrate").get("error-desc") or "it did not say why")
    except MonitorGone:
        raise
    except MonitorError as error:
        return str(error)


def go_on(run: Run, session: Session) -> None:
    """Let a guest run that was stopped for a migration, and wait until it does.

    :raises NotReached: it does not run.
    """
    deadline = time.monotonic() + _PATIENCE
    while (status := commands.status(session, timeout=_PATIENCE)) != "running":
        if status not in ("finish-migrate", "save-vm"):
            session.execute("cont")
        if run.pid is None:
            raise MonitorGone("QEMU ended")
        if time.monotonic() >= deadline:
            raise NotReached(f"the guest does not go on: {status}", asked="running", reached=status)
        time.sleep(_POLL)
