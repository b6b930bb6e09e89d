"""Bring vCPUs online and offline in the guest by its agent (virsh guestvcpus, setvcpus --guest)."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from msgspec import Struct

from qkvm.domain.guest import agent as agents
from qkvm.errors import AgentRefused, InvalidValue, NotReached
from qkvm.units import format_cpu_list

if TYPE_CHECKING:
    from collections.abc import Collection

    from qkvm.domain.handle import Handle
    from qkvm.qmp.agent import AgentSession


class GuestVcpu(Struct, rename="kebab", frozen=True):
    """A vCPU with the guest's number for it."""

    logical_id: int
    online: bool
    can_offline: bool = False


def vcpus(domain: Handle) -> list[GuestVcpu]:
    """Return the vCPUs that the guest sees, by number."""
    with agents.session(domain) as agent:
        return _list(agent)


def set_online(domain: Handle, numbers: Collection[int], online: bool) -> None:
    """Bring vCPUs of the guest online or offline.

    :raises InvalidValue: the guest has no such vCPU, or can't take it offline. :raises NotReached: it did not.
    """
    with agents.session(domain) as agent:
        known = {vcpu.logical_id: vcpu for vcpu in _list(agent)}
        missing = set(numbers) - set(known)
        if missing:
            raise InvalidValue(
                f"invalid argument: guest has no vCPU {format_cpu_list(missing)}",
                hint=f"it has {format_cpu_list(set(known))}",
            )
        if not online:
            fixed = {number for number in numbers if not known[number].can_offline and known[number].online}
            if fixed:
                raise InvalidValue(f"invalid argument: vCPU {format_cpu_list(fixed)} can't be offlined")
        _set(agent, {number: online for number in numbers})


def set_count(domain: Handle, count: int) -> None:
    """Have ``count`` vCPUs online in the guest (virsh setvcpus --guest).

    :raises InvalidValue: the guest has fewer, or needs more. :raises NotReached: it did not.
    """
    if count < 1:
        raise InvalidValue(f"Can't set {count} processors for a VM", hint="1 or more")
    with agents.session(domain) as agent:
        known = _list(agent)
        if count > len(known):
            raise InvalidValue(
                "invalid argument: requested vcpu count is greater than the count of enabled vcpus in the domain: "
                f"{count} > {len(known)}"
            )
        online = [vcpu for vcpu in known if vcpu.online]
        idle = [vcpu.logical_id for vcpu in known if not vcpu.online]
        # The highest numbers first: a guest needs the lowest.
        spare = [vcpu.logical_id for vcpu in reversed(online) if vcpu.can_offline]
        if len(online) - len(spare) > count:
            raise InvalidValue(
                "invalid argument: cannot offline enough cpus",
                hint=f"the guest can't do with fewer than {len(online) - len(spare)}",
            )
        more = dict.fromkeys(idle[: max(0, count - len(online))], True)
        less = dict.fromkeys(spare[: max(0, len(online) - count)], False)
        _set(agent, more | less)


def use_all(domain: Handle, *, patience: float, timeout: float) -> int:
    """Bring all vCPUs of the guest online, and return how many are.

    :param patience: seconds for the agent to tell; :param timeout: seconds for it to bring them online.
    :raises AgentError: it does not answer, or can't tell.
    """
    with agents.session(domain, within=patience) as agent:
        known = _list(agent)
    idle = [vcpu.logical_id for vcpu in known if not vcpu.online]
    if not idle:
        return len(known)
    with agents.session(domain, within=timeout) as agent:
        # An agent that refuses to, or may not by its configuration, can still tell.
        with suppress(AgentRefused, NotReached):
            _set(agent, dict.fromkeys(idle, True))
        return sum(vcpu.online for vcpu in _list(agent))


def _list(agent: AgentSession) -> list[GuestVcpu]:
    found = agent.execute("guest-get-vcpus", kind=list[GuestVcpu])
    return sorted(found, key=lambda vcpu: vcpu.logical_id)


def _set(agent: AgentSession, changes: dict[int, bool]) -> None:
    """Make the changes, and check that they were made.

    The agent stops at the first vCPU that fails, and returns how many it has changed before.
    """
    left = [{"logical-id": number, "online": online} for number, online in changes.items()]
    while left:
        done = agent.execute("guest-set-vcpus", {"vcpus": left}, kind=int)
        if not 0 < done <= len(left):
            break
        left = left[done:]
    shown = {vcpu.logical_id: vcpu.online for vcpu in _list(agent)}
    wrong = {number for number, online in changes.items() if shown.get(number) != online}
    if wrong:
        raise NotReached(
            f"vCPU {format_cpu_list(wrong)} of the guest has not followed",
            asked=changes,
            reached={number: shown.get(number) for number in changes},
        )
