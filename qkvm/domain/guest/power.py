"""Power off, reboot and suspend the guest by its agent (virsh dompmsuspend), and wake it (dompmwakeup)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qkvm.domain import definition as definitions
from qkvm.domain.guest import agent as agents
from qkvm.errors import InvalidState, InvalidValue, NotReached
from qkvm.host import journal

if TYPE_CHECKING:
    from typing import Any

    from qkvm.domain.handle import Handle

ASK_PATIENCE = 2.0
"""Seconds for an agent that the user did not ask for, where ACPI can be tried next."""

_TAKEN = 5.0
"""Seconds in which an agent that can't shut its guest down says so."""

SLEEP_TIMEOUT = 60.0
"""Seconds until a guest must be asleep; one that writes its memory to disk may need them."""

_WAKE_TIMEOUT = 10.0

_SLEEPS = {
    "mem": ("guest-suspend-ram", "SUSPEND"),
    "disk": ("guest-suspend-disk", "SUSPEND_DISK"),
    "hybrid": ("guest-suspend-hybrid", "SUSPEND"),
}
"""virsh's word -> the agent's command, and QEMU's event for its success."""


def power_off(domain: Handle, *, insist: bool, timeout: float) -> None:
    """Have the agent power the guest off (guest-shutdown), and wait for a refusal.

    :param insist: False gives the agent little time to answer. :param timeout: seconds for all.
    :raises AgentError: there is no agent, or it does not answer, or refuses.
    """
    run = domain.live
    with agents.session(domain, within=None if insist else min(timeout, ASK_PATIENCE)) as agent:
        agents.watch(
            run, agent, "guest-shutdown", {"mode": "powerdown"}, lambda event: event["event"] == "SHUTDOWN",
            timeout=min(timeout, _TAKEN),
        )  # fmt: skip


def reboot(domain: Handle, *, insist: bool, timeout: float) -> None:
    """Have the agent reboot the guest (guest-shutdown), and wait until it does (RESET).

    :param insist: as for :func:`power_off`. :raises AgentError: as there.
    :raises NotReached: the guest has not rebooted within ``timeout`` seconds.
    """
    run = domain.live
    with agents.session(domain, within=None if insist else min(timeout, ASK_PATIENCE)) as agent:
        seen = agents.watch(run, agent, "guest-shutdown", {"mode": "reboot"}, _is_reboot, timeout=timeout)
    if seen is None:
        raise NotReached(
            f"the guest did not reboot within {timeout:g} s",
            asked="reboot",
            reached=run.state()[0],
            hint=f"qkvm reset {domain.name} presses reset",
        )


def _is_reboot(event: dict[str, Any]) -> bool:
    """Return whether an event is a reset, or the end of a QEMU that ends when its guest reboots."""
    reason = event.get("data", {}).get("reason")
    return (event["event"], reason) == ("SHUTDOWN", "guest-reset") or event["event"] == "RESET"


def suspend(domain: Handle, target: str, *, duration: int = 0, timeout: float = SLEEP_TIMEOUT) -> None:
    """Have the agent put the guest to sleep (virsh dompmsuspend), and wait until it sleeps.

    :param target: 'mem' (S3), 'disk' (S4, which ends QEMU: the next start resumes the guest) or 'hybrid'.
    :param duration: seconds after which to wake it; only 0 (never) is supported, as in libvirt.
    :raises InvalidState: it could not be woken again. :raises AgentRefused: the guest can't sleep this way.
    :raises NotReached: it is not asleep after ``timeout`` seconds.
    """
    if target not in _SLEEPS:
        raise InvalidValue("Invalid target", hint=", ".join(_SLEEPS))
    if duration:
        raise InvalidValue("argument unsupported: Duration not supported. Use 0 for now")
    run = domain.live
    name, event_name = _SLEEPS[target]
    opened = agents.session(domain)
    # The domain's lock is taken before the agent's: a process that has it may wait for the agent's.
    _check_sleep(domain, target)
    with opened as agent:
        seen = agents.watch(run, agent, name, None, lambda event: event["event"] == event_name, timeout=timeout)
    if seen is None:
        raise NotReached(
            f"the guest is not asleep after {timeout:g} s",
            asked=target,
            reached=run.state()[0],
            hint="it may still fall asleep; qkvm domstate shows it",
        )


def _check_sleep(domain: Handle, target: str) -> None:
    """Refuse a state that this run is started without, or that nothing could wake (query-current-machine)."""
    features = definitions.started_with(domain.live.record).features
    switches = {"mem": (features.suspend_to_mem,), "disk": (features.suspend_to_disk,)}
    if False in switches.get(target, (features.suspend_to_mem, features.suspend_to_disk)):
        state = "S4" if target == "disk" else "S3"
        raise InvalidState(f"{state} state is disabled for this domain")
    if target == "disk":
        return
    with domain.lock(), domain.monitor() as session:
        if not session.execute("query-current-machine")["wakeup-suspend-support"]:
            raise InvalidState("Domain does not have suspend support", hint="this machine type can't be woken")


def wakeup(domain: Handle) -> None:
    """Wake a guest that sleeps (system_wakeup), and wait until it is awake (WAKEUP).

    :raises InvalidState: it does not sleep.
    """
    with domain.lock():
        run = domain.live
        if run.state()[0] != "pmsuspended":
            raise InvalidState("domain is not pmsuspended", hint=f"it is {run.state()[0]}")
        mark = journal.size(run.journal)
        with domain.monitor() as session:
            session.execute("system_wakeup")
        run.await_event(
            mark, lambda event: event.get("event") == "WAKEUP", timeout=_WAKE_TIMEOUT, what="the guest's waking"
        )
