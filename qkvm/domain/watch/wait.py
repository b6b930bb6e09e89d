"""Wait until a domain, or the guest in it, is as far as somebody needs it (qkvm wait)."""

from __future__ import annotations

import json
import os
import re
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from qkvm.domain.guest import agent as agents
from qkvm.domain.guest import script
from qkvm.domain.watch import address, sshd
from qkvm.errors import AgentError, Busy, GuestCommandError, HostError, InvalidState, InvalidValue, NotReached
from qkvm.units import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from qkvm.domain.handle import Handle

TIMES = {"running": 60.0, "shutoff": 300.0, "address": 300.0, "agent": 300.0, "ssh": 300.0, "cloud-init": 900.0}
"""What can be waited for, and how many seconds by default."""

_OF_A_RUN = ("address", "agent", "ssh", "cloud-init")
_OFTEN, _SELDOM = 0.05, 1.0
"""Seconds between two looks at files of the host, and between two questions to the guest."""

_PATIENCE = 3.0
"""Seconds that a guest has to answer one question."""

_PROGRAM = 60.0
"""Seconds that a shell has in a guest that boots; it takes milliseconds."""

_OUTPUT_MAX, _CONSOLE_MAX = 8192, 1 << 20
_FINISHED = re.compile(r"Cloud-init v\. \S+ finished at [^\r\n]{1,200}")
"""cloud-init's final message, as it is by default."""


class Seen(NamedTuple):
    """A look at a domain: whether it is as far, words for what was seen, and whether it can't come any more."""

    reached: bool
    words: str
    hopeless: bool = False


def wait(domain: Handle, what: str, *, timeout: float | None = None) -> str:
    """Wait until the domain is as far, and return words for what was seen: its address, its SSH server's name.

    :param what: a key of TIMES: running, shutoff, address (of this run), agent (it answers), ssh (a server on
        port 22 tells its name), cloud-init (it has done all). :param timeout: seconds, by default as in TIMES.
    :raises NotReached: it is not in time, or can't be any more; ``reached`` has what was seen.
    :raises InvalidState: it has shut off meanwhile, or does not run.
    """
    if what not in TIMES:
        raise InvalidValue(f"can't wait for '{printable(what)}'", hint=", ".join(TIMES))
    limit = TIMES[what] if timeout is None else timeout
    ident = domain.live.id if what in _OF_A_RUN else 0
    pause = _OFTEN if what in ("running", "shutoff") else _SELDOM
    deadline = time.monotonic() + limit
    while True:
        try:
            seen = _LOOKS[what](domain)
        except InvalidState:
            _refuse_ended(domain, ident, what)
            raise
        if seen.reached:
            return seen.words
        _refuse_ended(domain, ident, what)
        left = deadline - time.monotonic()
        if seen.hopeless or left <= 0:
            why = "" if seen.hopeless else f" after {limit:g} s"
            raise NotReached(
                f"no {what} of domain '{domain.name}'{why}: {seen.words}",
                asked=what, reached=seen.words, hint=f"qkvm doctor {domain.name} looks for the cause",
            )  # fmt: skip
        time.sleep(min(pause, left))


def _refuse_ended(domain: Handle, ident: int, what: str) -> None:
    run = domain.live_run
    if what in _OF_A_RUN and (run is None or run.id != ident):
        state, reason = domain.state
        raise InvalidState(f"the domain ended while it was waited for its {what}: {state} ({reason})")


def _running(domain: Handle) -> Seen:
    state, reason = domain.state
    return Seen(state == "running", f"{state} ({reason})")


def _shutoff(domain: Handle) -> Seen:
    state, reason = domain.state
    return Seen(not domain.is_running, f"{state} ({reason})")


def _address(domain: Handle) -> Seen:
    try:
        found = address.wait(domain, sources=address.SOURCES, interface=None, timeout=_SELDOM)
    except NotReached as error:
        return Seen(False, str(error.reached or "no lease, no neighbour and no agent tells one"))
    return Seen(True, next(one.ip for one in found if one.ip))


def _agent(domain: Handle) -> Seen:
    try:
        with agents.session(domain, within=_PATIENCE) as agent:
            agent.execute("guest-ping", kind=dict[str, Any])
    except (AgentError, Busy) as error:
        return Seen(False, str(error))
    except InvalidState:
        return Seen(False, f"the domain is {domain.state[0]}")
    return Seen(True, "the agent answers")


def _ssh(domain: Handle) -> Seen:
    words = sshd.NOWHERE
    for place in sshd.places(domain):
        try:
            return Seen(True, f"{place} {sshd.name(place, timeout=_PATIENCE)}")
        except HostError as error:
            words = f"{place}: {error}"
    return Seen(False, words)


def _cloud_init(domain: Handle) -> Seen:
    finished = _FINISHED.search(console_text(domain))
    if not agents.is_there(domain):
        if finished is not None:
            return Seen(True, printable(finished[0]))
        return Seen(False, "no agent to ask, and no final message on its serial console")
    try:
        with agents.session(domain, within=_PATIENCE) as agent:
            code, out = script.run(agent, _RESULT, timeout=_PROGRAM)
    except (AgentError, Busy, GuestCommandError) as error:
        return Seen(finished is not None, printable(finished[0]) if finished is not None else str(error))
    if code == _NO_PROGRAM:
        return Seen(False, "the guest has no cloud-init", hopeless=True)
    if code == _IS_OFF:
        return Seen(False, "cloud-init is disabled in the guest", hopeless=True)
    if code:
        return Seen(False, "cloud-init has not ended yet")
    try:
        result = json.loads(out[:_OUTPUT_MAX])["v1"]
        errors, source = [str(one) for one in result["errors"]], str(result["datasource"])
    except (ValueError, LookupError, TypeError):
        return Seen(False, "cloud-init's result is not what it should be")
    if errors:
        return Seen(False, f"cloud-init ended with errors: {printable('; '.join(errors))[:500]}", hopeless=True)
    return Seen(True, f"done, by {printable(source)}")


_NO_PROGRAM = 127
"""What a shell returns for a program that it does not find (POSIX)."""

_IS_OFF = 3
_RESULT = f"""command -v cloud-init >/dev/null || exit {_NO_PROGRAM}
cat /run/cloud-init/result.json 2>/dev/null && exit
if [ -e /run/cloud-init/disabled ] || [ -e /etc/cloud/cloud-init.disabled ]; then exit {_IS_OFF}; fi
exit 1"""
"""Prints what cloud-init writes when it has done all; 'cloud-init status' takes half a minute under TCG."""


def console_text(domain: Handle) -> str:
    """Return what the guest has written to its serial console in its latest run, at most the last MiB."""
    run = domain.run
    begin = int(run.record.get("serial_from", 0)) if run is not None else 0
    try:
        with open(domain.tree.serial_log(domain.name), "rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            # A log that was cut since is shorter than it was.
            stream.seek(max(begin if begin <= size else 0, size - _CONSOLE_MAX))
            return stream.read(_CONSOLE_MAX).decode("utf-8", "replace")
    except FileNotFoundError:
        return ""


_LOOKS: dict[str, Callable[[Handle], Seen]] = {
    "running": _running, "shutoff": _shutoff, "address": _address, "agent": _agent, "ssh": _ssh,
    "cloud-init": _cloud_init,
}  # fmt: skip
