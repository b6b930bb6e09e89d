"""The agent in a guest: whether there is one, its timeouts, any command of it.

The journal says whether a program in the guest has opened the agent's port (VSERPORT_CHANGE), so a missing agent
is not waited for. One that hangs is waited for until the timeout.
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
"""Values of a timeout besides a number of seconds (libvirt's virDomainAgentResponseTimeoutValues)."""

_LOOK = 0.02
"""Seconds between two looks at the journal, in which the agent may answer with an error."""


def session(
    domain: Handle,
    *,
    patience: float = protocol.TIMEOUT,
    timeout: int | None = None,
    within: float | None = None,
) -> AgentSession:
    """Return a session with the domain's agent, for use with ``with``.

    :param patience: seconds that a command may take unless the user has set others (guest-agent-timeout).
    :param timeout: seconds, BLOCK or DEFAULT, for this session alone.
    :param within: seconds for each step, whatever is set: for callers that can do without an agent.
    :raises InvalidState: the domain does not run. :raises AgentMissing: it has no channel for an agent.
    :raises AgentUnresponsive: no agent has opened its port.
    """
    run = domain.live
    if run.state()[0] != "running":
        raise InvalidState("domain is not running", hint=f"it is {run.state()[0]}")
    path, ident = _channel(run)
    if ident not in run.open_ports():
        raise AgentUnresponsive(
            "QEMU guest agent is not connected",
            name=domain.name,
            hint="qemu-guest-agent must be installed and running in the guest",
        )
    seconds = int(run.record.get("agent_timeout", DEFAULT)) if timeout is None else timeout
    limit = {BLOCK: None, DEFAULT: patience}.get(seconds, float(seconds)) if within is None else within
    lock = os.path.join(domain.tree.domain_runs, f".{domain.name}.agent.lock")
    return AgentSession(
        path, lock=lock, name=domain.name,
        sync_timeout=protocol.TIMEOUT if limit is None else min(limit, protocol.TIMEOUT), timeout=limit,
        transcript=domain.transcript,
    )  # fmt: skip


def is_there(domain: Handle) -> bool:
    """Return whether an agent has opened its port, without asking it; it may hang nevertheless."""
    run = domain.live_run
    if run is None or run.state()[0] != "running":
        return False
    try:
        return _channel(run)[1] in run.open_ports()
    except AgentMissing:
        return False


def command(
    domain: Handle, name: str, arguments: dict[str, Any] | None = None, *, timeout: int | None = None
) -> msgspec.Raw | None:
    """Run any command of the agent and return its result as JSON (virsh qemu-agent-command).

    :param timeout: seconds, BLOCK, or NOWAIT, which returns None as soon as the command is sent.
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
    """Set the timeout of the agent's answers for the rest of this run (virsh guest-agent-timeout).

    :param seconds: or BLOCK (no limit), DEFAULT, NOWAIT. :raises InvalidValue: less than BLOCK.
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
    """Send a command that only answers with errors, and wait for its effect in the journal.

    :param wanted: true for the event to wait for. :param timeout: seconds.
    :return: the event; None if it did not come in time or before QEMU's end.
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
    """Return the path of the agent's socket and the id of its port.

    :raises AgentMissing: this run has none that qkvm can use.
    """
    found = ports.agent_port(definitions.started_with(run.record))
    if found is None:
        raise AgentMissing
    ident, path = found
    return path or run.agent, ident
