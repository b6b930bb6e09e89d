"""Stop a domain, or have it go on: shutdown, reboot, reset, destroy, suspend, resume.

shutdown and reboot ask the guest's agent or press the power button (ACPI). Where the user names neither, an agent
that has its port open is asked first; if it fails, the power button is pressed.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress

from qkvm.domain.launch.end import end
from qkvm.errors import (
    AgentError,
    Busy,
    InvalidState,
    InvalidValue,
    MonitorError,
    MonitorGone,
    NotReached,
)
from qkvm.host import journal, process
from qkvm.qmp import commands

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run

_RESEND = 5.0
"""Seconds after which the power button is pressed again: a guest that is still booting ignores it."""

MODES = ("acpi", "agent")
"""The ways to ask a guest to power off or to reboot."""


def shutdown(domain: Handle, *, modes: Sequence[str] = (), wait: bool = False, timeout: float = 60.0) -> None:
    """Ask the guest to power off; with ``wait`` wait until it has, and press the power button every few seconds.

    :param modes: of 'agent' and 'acpi'; the agent is tried first. :raises AgentError: 'agent' alone failed.
    :raises NotReached: the guest did not power off within ``timeout`` seconds.
    """
    from qkvm.domain.guest import power as guestpower

    run = domain.live
    pid = run.pid
    deadline = time.monotonic() + timeout
    if not _by_agent(domain, modes, guestpower.power_off, timeout):
        _press(domain, run, pid)
    if wait:
        if not _ended(domain, run, pid, deadline, press=tuple(modes) != ("agent",)):
            raise NotReached(
                f"the guest did not power off within {timeout:g} s",
                asked="shut off",
                reached=run.state()[0],
                hint=f"it may ignore the power button; qkvm destroy {domain.name} ends it",
            )
        # Taking the lock cleans up after a run that has ended.
        with domain.lock():
            pass


def _by_agent(domain: Handle, modes: Sequence[str], ask: Callable[..., None], timeout: float) -> bool:
    """Have the agent do it where the modes and the guest allow that; return whether it did.

    :raises AgentError: the agent is the only mode, and it failed.
    """
    unknown = set(modes) - set(MODES)
    if unknown:
        raise InvalidValue(f"unknown shutdown mode '{min(unknown)}'", hint=" or ".join(MODES))
    from qkvm.domain.guest import agent

    if "agent" not in modes and (modes or not agent.is_there(domain)):
        return False
    only = "acpi" not in modes and bool(modes)
    try:
        ask(domain, insist=only, timeout=timeout)
    except (AgentError, Busy, InvalidState):
        if only:
            raise
        return False
    return True


def _press(domain: Handle, run: Run, pid: int | None) -> None:
    """Press the power button (system_powerdown), unless the run has ended meanwhile."""
    with domain.lock():
        if run.pid == pid is not None:
            with domain.monitor() as session:
                session.execute("system_powerdown")


def _ended(domain: Handle, run: Run, pid: int | None, deadline: float, *, press: bool) -> bool:
    """Return whether QEMU ended before the deadline; with ``press`` press the power button every few seconds."""
    if pid is None or run.pid != pid:
        return True
    pidfd = process.open_pidfd(pid)
    if pidfd is None:
        # Its first thread has ended; the others hold its lock for a moment more.
        while run.pid == pid and time.monotonic() < deadline:
            time.sleep(0.001)
        return run.pid != pid
    try:
        while not process.ended(pidfd, min(_RESEND, deadline - time.monotonic())):
            if time.monotonic() >= deadline:
                return False
            if press:
                _press(domain, run, pid)
    except (InvalidState, MonitorGone):
        # It may have ended just before the press.
        if run.pid == pid:
            raise
    finally:
        os.close(pidfd)
        process.reap()
    return True


def reboot(domain: Handle, *, modes: Sequence[str] = (), timeout: float = 60.0) -> None:
    """Ask the guest to reboot, and wait until it does.

    :param modes: as for :func:`shutdown`. :raises NotReached: it did not reboot within ``timeout`` seconds.
    """
    from qkvm.domain.guest import power as guestpower

    domain.live.require_sound()
    if not _by_agent(domain, modes, guestpower.reboot, timeout):
        _power_cycle(domain, timeout)


def _power_cycle(domain: Handle, timeout: float) -> None:
    """Ask the guest to power off (ACPI), then reset and start it in the same QEMU, as libvirt does.

    The guest shuts down in order, and its disks, NICs and monitor stay. Meanwhile QEMU is set to pause instead of
    ending when the guest powers off.

    :raises NotReached: the guest did not power off within ``timeout`` seconds; it runs on.
    """
    with domain.lock():
        run = domain.live
        run.require_sound()
        mark = journal.size(run.journal)
        with domain.monitor() as session:
            session.execute("set-action", {"shutdown": "pause"})
            session.execute("system_powerdown")
    try:
        _await_poweroff(domain, run, mark, timeout)
        _await_event(run, mark, "STOP", timeout=timeout)
    except NotReached as error:
        raise NotReached(
            f"the guest did not reboot within {timeout:g} s",
            asked="reboot",
            reached=run.state()[0],
            hint=f"it may ignore the power button; qkvm reset {domain.name} presses reset",
        ) from error
    finally:
        with domain.lock():
            if run.pid is not None:
                _go_on(domain, run)


def _await_poweroff(domain: Handle, run: Run, mark: int, timeout: float) -> None:
    """Wait for the guest's power-off (SHUTDOWN); press the power button every few seconds."""
    deadline = time.monotonic() + timeout
    while True:
        left = deadline - time.monotonic()
        try:
            return _await_event(run, mark, "SHUTDOWN", timeout=min(_RESEND, left))
        except NotReached:
            if left <= _RESEND:
                raise
        _press(domain, run, run.pid)


def _go_on(domain: Handle, run: Run) -> None:
    """Start a guest again that has powered off; leave one that has not."""
    from qkvm.domain.definition import started_with
    from qkvm.qemu import launch

    action = launch.actions(started_with(run.record)).get("shutdown", launch.DEFAULT_ACTIONS["shutdown"])
    with domain.monitor() as session:
        session.execute("set-action", {"shutdown": action})
        if commands.status(session) == "shutdown":
            mark = journal.size(run.journal)
            session.execute("system_reset")
            session.execute("cont")
            _await_event(run, mark, "RESUME")


def reset(domain: Handle) -> None:
    """Press the reset button (system_reset) and wait until QEMU has reset (RESET), or ends if a reboot ends it."""
    with domain.lock():
        run = domain.live
        run.require_sound()
        _execute(domain, run, "system_reset", "RESET", "SHUTDOWN")


def destroy(domain: Handle, *, graceful: bool = False) -> None:
    """End QEMU: SIGTERM, on which it flushes and closes its disks, then SIGKILL.

    A save or dump that is under way is canceled first: its process holds the lock until it has ended.

    :param graceful: no SIGKILL. :raises NotReached: graceful, and QEMU has not ended.
    """
    if "job" in domain.live.record:
        from qkvm.domain.life.job import abort

        with suppress(InvalidState, MonitorError):
            abort(domain)
    with domain.lock():
        end(domain, domain.live, "destroyed", graceful=graceful)


def suspend(domain: Handle) -> None:
    """Stop the vCPUs (stop) and wait until they have stopped (STOP)."""
    with domain.lock():
        run = domain.live
        _refuse_asleep(run)
        if run.state()[0] == "paused":
            return
        _execute(domain, run, "stop", "STOP")


def resume(domain: Handle) -> None:
    """Let the vCPUs go on (cont) and wait until they do (RESUME).

    :raises InvalidState: the domain is not paused.
    """
    with domain.lock():
        run = domain.live
        _refuse_asleep(run)
        if run.state()[0] != "paused":
            raise InvalidState("domain is already running")
        _execute(domain, run, "cont", "RESUME")


def _refuse_asleep(run: Run) -> None:
    if run.state()[0] == "pmsuspended":
        raise InvalidState("domain is pmsuspended", hint=f"qkvm dompmwakeup {run.name}")


def _await_event(run: Run, mark: int, *names: str, timeout: float = 10.0) -> None:
    """Wait for one of these events; errors name the first."""
    run.await_event(mark, lambda event: event.get("event") in names, timeout=timeout, what=f"QEMU's {names[0]}")


def _execute(domain: Handle, run: Run, command: str, *events: str) -> None:
    """Have QEMU run a command, and wait for one of its events."""
    mark = journal.size(run.journal)
    with domain.monitor() as session:
        session.execute(command)
        _await_event(run, mark, *events)
