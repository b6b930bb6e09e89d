"""Read and set the guest's clock by its agent (virsh domtime)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qkvm.domain.guest import agent as agents
from qkvm.errors import CommandRefused, InvalidValue, NotReached

if TYPE_CHECKING:
    from qkvm.domain.handle import Handle
    from qkvm.qmp.agent import AgentSession

_NANO = 1_000_000_000
_LIMIT = (1 << 63) // _NANO
"""Seconds since 1970 that fit the agent's 64 bits of nanoseconds."""

_TOLERANCE = 10
"""Seconds that may pass between setting the clock and reading it."""


def get(domain: Handle) -> tuple[int, int]:
    """Return the guest's time: seconds since 1970, and nanoseconds."""
    with agents.session(domain) as agent:
        return _get(agent)


def set_time(domain: Handle, seconds: int | None, nanoseconds: int = 0) -> None:
    """Set the guest's clock and its hardware clock; with ``seconds`` None set the clock from the hardware clock.

    Clock ticks that QEMU still has to deliver are dropped (rtc-reset-reinjection): the new time includes them.

    :raises InvalidValue: no such time. :raises NotReached: the guest's clock shows another time afterwards.
    """
    if seconds is not None and not 0 <= seconds < _LIMIT:
        raise InvalidValue(f"invalid argument: time {seconds} is out of range", hint="seconds since 1970")
    arguments: dict[str, int] = {} if seconds is None else {"time": seconds * _NANO + nanoseconds}
    with agents.session(domain) as agent:
        agent.execute("guest-set-time", arguments, kind=dict[str, Any])
        shown, _ = _get(agent)
    if seconds is not None and not seconds <= shown + 1 <= seconds + _TOLERANCE:
        raise NotReached(f"the guest's clock shows {shown}, not {seconds}", asked=seconds, reached=shown)
    with domain.lock(), domain.monitor() as session:
        try:
            session.execute("rtc-reset-reinjection")
        except CommandRefused as error:
            # A machine without that hardware clock has no ticks to deliver.
            if error.error_class != "CommandNotFound":
                raise


def _get(agent: AgentSession) -> tuple[int, int]:
    return divmod(agent.execute("guest-get-time", kind=int), _NANO)
