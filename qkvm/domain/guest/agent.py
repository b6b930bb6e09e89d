"""The agent in a guest: whether there is one, how long it may take, commands of one's own.

Whether a program in the guest has opened the agent's port QEMU tells the journal (VSERPORT_CHANGE), so that an
agent that is not there costs no wait. One that hangs costs the deadline.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from qkvm.domain import definition as definitions
from qkvm.domain.run import write
from qkvm.errors import AgentMissing, AgentUnresponsive, InvalidState, InvalidValue
from qkvm.host import journal
from qkvm.qemu import ports
from qkvm.qmp import agent as protocol
from qkvm.qmp.agent import AgentSession

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    import msgspec

    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run

BLOCK, DEFAULT, NOWAIT = -2, -1, 0
"""What a timeout can be beside a number of seconds (virDomainAgentResponseTimeoutValues of libvirt)."""

_LOOK = 0.02
"""Seconds between two looks at the journal while an agent may still answer with an error."""


def session(
    domain: Handle,
    *,
    patience: float = protocol.TIMEOUT,
    timeout: int | None = None,
    within: float | None = None,
) -> AgentSession:
    """A session with the domain's agent, to be used with ``with``.

    :param patience: seconds that a command may take where the user has set nothing (guest-agent-timeout).
    :param timeout: seconds, BLOCK or DEFAULT, for this session alone.
    :param within: seconds for each step, whatever is set: for who can do without an agent.
    :raises InvalidState: the domain does not run. :raises AgentMissing: it has no channel for an agent.
    :raises AgentUnresponsive: no agent has opened its port.
    """
    run = domain.live
    if run.state()[0] != "running":
        raise InvalidState("domain is not running", hint=f"it is {run.state()[0]}")
    path, ident = _channel(run)
    if ident not in run.open_ports():
        raise AgentUnresponsive(
            "QEMU guest agent is not connected", name=domain.name,
            hint="qemu-guest-agent must be installed and running in the guest",
        )  # fmt: skip
    seconds = int(run.record.get("agent_timeout", DEFAULT)) if timeout is None else timeout
    limit = {BLOCK: None, DEFAULT: patience}.get(seconds, float(seconds)) if within is None else within
    lock = os.path.join(domain.tree.domain_runs, f".{domain.name}.agent.lock")
    return AgentSession(
        path, lock=lock, name=domain.name,
        sync_timeout=protocol.TIMEOUT if limit is None else min(limit, protocol.TIMEOUT), timeout=limit,
        transcript=domain.transcript,
    )  # fmt: skip


def is_there(domain: Handle) -> bool:
    """Whether an agent has opened its port; it may hang nevertheless. Nothing is asked, and nobody waited for."""
    run = domain.run
    if run is None or run.pid is None or run.state()[0] != "running":
        return False
    try:
        return _channel(run)[1] in run.open_ports()
    except AgentMissing:
        return False


def command(
    domain: Handle, name: str, arguments: dict[str, Any] | None = None, *, timeout: int | None = None
) -> msgspec.Raw | None:
    """Run an agent's command of the caller's and give what it returns as JSON (virsh qemu-agent-command).

    :param timeout: seconds, BLOCK, or NOWAIT, which gives None as soon as the command is on its way.
    :raises AgentRefused: the agent answered with an error.
    """
    from msgspec import Raw

    if timeout == NOWAIT:
        with session(domain, timeout=DEFAULT) as agent:
            agent.send(name, arguments)
        return None
    with session(domain, timeout=timeout) as agent:
        return agent.execute(name, arguments, kind=Raw)


def set_timeout(domain: Handle, seconds: int) -> None:
    """Set how long agents' answers are waited for while this run lasts (virsh guest-agent-timeout).

    :param seconds: or BLOCK (for ever), DEFAULT, NOWAIT. :raises InvalidValue: less than BLOCK.
    """
    if seconds < BLOCK:
        raise InvalidValue(f"invalid argument: guest agent timeout '{seconds}' is less than the minimum '{BLOCK}'")
    with domain.lock():
        run = domain.live
        run.record["agent_timeout"] = seconds
        write(run)


def watch(
    run: Run,
    agent: AgentSession,
    name: str,
    arguments: dict[str, Any] | None,
    wanted: Callable[[dict[str, Any]], bool],
    *,
    timeout: float,
) -> dict[str, Any] | None:
    """Send a command that answers only where it fails, and watch the journal for what it brings about.

    :param wanted: true of the event that is waited for. :param timeout: seconds.
    :return: the event; None where it was not seen in time or before QEMU's end.
    :raises AgentRefused: the command has failed.
    """
    offset = journal.size(run.journal)
    deadline = time.monotonic() + timeout
    agent.send(name, arguments)
    while True:
        lives = run.pid is not None
        events, offset = journal.events_from(run.journal, offset)
        for event in events:
            if wanted(event):
                return event
        if not lives or time.monotonic() >= deadline:
            return None
        agent.look_for_error(name, _LOOK)


def _channel(run: Run) -> tuple[str, str]:
    """Path of the agent's socket and id of its port.

    :raises AgentMissing: this run has none that qkvm could use.
    """
    found = ports.agent_port(definitions.started_with(run.record))
    if found is None:
        raise AgentMissing
    ident, path = found
    return path or run.agent, ident
