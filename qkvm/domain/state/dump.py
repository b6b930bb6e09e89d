"""Dump a running guest (virsh dump): a core of its memory for crash and gdb, or a whole migration stream."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from qkvm import units
from qkvm.domain.device.share import serve as share
from qkvm.domain.launch.end import end
from qkvm.domain.state import job as jobs
from qkvm.domain.state import migration
from qkvm.domain.state.pump import Pump
from qkvm.errors import Aborted, CommandRefused, HostError, InvalidValue, MonitorError, MonitorGone
from qkvm.host import journal
from qkvm.qmp import commands
from qkvm.storage.stream import StreamWriter

if TYPE_CHECKING:
    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run
    from qkvm.domain.state.migration import Report
    from qkvm.qmp.session import Session

FORMATS = ("elf", "kdump-zlib", "kdump-lzo", "kdump-snappy", "win-dmp")
"""Formats of a core (QMP's DumpGuestMemoryFormat)."""

_FD_NAME = "core"
_POLL = 0.02
_REPORT_EVERY = 0.5


def dump(
    domain: Handle,
    path: str,
    *,
    memory_only: bool = False,
    format: str = "elf",
    crash: bool = False,
    reset: bool = False,
    live: bool = False,
    bypass_cache: bool = False,
    report: Report | None = None,
) -> None:
    """Write the guest's memory to a file; the guest is stopped meanwhile.

    :param memory_only: a core in ``format``; else a migration stream, which also has the devices' state.
    :param crash: end the guest afterwards. :param reset: press its reset button before it runs on.
    :param live: stop the guest as late as possible, which is done anyway.
    :param bypass_cache: write the file past the host's page cache.
    :param report: called now and then with the bytes that remain and the bytes in all.
    :raises Aborted: it was canceled. :raises HostError: the file can't be written. The guest runs on then.
    """
    del live
    if crash and reset:
        raise InvalidValue("crash and reset flags are mutually exclusive")
    if format not in FORMATS:
        raise InvalidValue(f"format '{units.printable(format)}' is not supported", hint=", ".join(FORMATS))
    path = units.check_path(os.path.abspath(path), "file")
    with domain.lock():
        run = domain.live
        run.require_sound()
        with domain.monitor() as session:
            if not memory_only:
                share.refuse_unsavable(run, session, "dumped with its devices")
            goes_on = commands.status(session) == "running"
            stream = StreamWriter(path, bypass_cache=bypass_cache)
            jobs.begin(run, "Dump", temporary=stream.temporary, goes_on=goes_on, memory_only=memory_only)
            try:
                if memory_only:
                    _write_core(run, session, stream, format, report)
                else:
                    migration.send(run, session, stream, what="dump", report=report)
                answer = session.execute("query-dump" if memory_only else "query-migrate")
                stream.commit()
            except BaseException as error:
                _take_back(run, session, stream, error, go_on=goes_on)
                raise
            jobs.end(run, "Completed", answer)
            if not crash:
                _afterwards(run, session, reset=reset, go_on=goes_on)
        if crash:
            end(domain, run, "crashed")


def _afterwards(run: Run, session: Session, *, reset: bool, go_on: bool) -> None:
    if reset:
        session.execute("system_reset")
    if go_on:
        migration.go_on(run, session)


def _take_back(run: Run, session: Session, stream: StreamWriter, error: BaseException, *, go_on: bool) -> None:
    try:
        stream.discard()
        if run.pid is not None and go_on:
            migration.go_on(run, session)
    except (MonitorError, HostError) as failure:
        error.add_note(f"while undoing: {failure}")
    jobs.end(run, jobs.type_of(error))


def _write_core(run: Run, session: Session, stream: StreamWriter, format: str, report: Report | None) -> None:
    """Have QEMU write a core (dump-guest-memory). No command cancels that; QEMU gives up when the pipe closes."""
    mark = journal.size(run.journal)
    wanted = {} if format == "elf" else {"format": format}
    with Pump(stream.copy_from) as pump:
        session.send_fd(_FD_NAME, pump.far_end)
        try:
            session.execute(
                "dump-guest-memory", {"paging": False, "protocol": f"fd:{_FD_NAME}", "detach": True, **wanted}
            )
        except CommandRefused:
            session.execute("closefd", {"fdname": _FD_NAME})
            raise
        pump.close_far_end()
        try:
            result = _await_core(run, session, mark, report)
        except KeyboardInterrupt:
            stream.abandon()
            _await_core(run, session, mark, None)
            raise Aborted("operation aborted: domain dump job: canceled by client") from None
    if pump.error is not None:
        raise pump.error
    if result["result"]["status"] != "completed":
        raise HostError(f"QEMU could not dump the guest's memory: {result.get('error', 'it did not say why')}")


def _await_core(run: Run, session: Session, mark: int, report: Report | None) -> dict[str, Any]:
    """Wait for DUMP_COMPLETED and return its data."""
    offset, next_report = mark, time.monotonic() + _REPORT_EVERY
    while True:
        alive = run.pid is not None
        events, offset = journal.events_from(run.journal, offset)
        for event in events:
            if event["event"] == "DUMP_COMPLETED":
                return dict(event["data"])
        if not alive:
            raise MonitorGone("QEMU ended before the guest's memory was written")
        if report is not None and time.monotonic() >= next_report:
            told = session.execute("query-dump")
            report(told["total"] - told["completed"], told["total"])
            next_report = time.monotonic() + _REPORT_EVERY
        time.sleep(_POLL)
