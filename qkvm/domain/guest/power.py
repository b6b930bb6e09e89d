"""Power by the guest itself: power-off and reboot by its agent, sleep (virsh dompmsuspend) and waking."""

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
"""Seconds that an agent has where nobody asked for one and ACPI can do it too."""

_TAKEN = 5.0
"""Seconds in which an agent that can't shut its guest down has said so."""

SLEEP_TIMEOUT = 60.0
"""Seconds in which a guest must be asleep; one that writes its memory to disk may take them."""

_WAKE_TIMEOUT = 10.0

_SLEEPS = {
    "mem": ("guest-suspend-ram", "SUSPEND"),
    "disk": ("guest-suspend-disk", "SUSPEND_DISK"),
    "hybrid": ("guest-suspend-hybrid", "SUSPEND"),
}
"""virsh's word -> the agent's command, and the event that tells of its success."""


def power_off(domain: Handle, *, insist: bool, timeout: float) -> None:
    """Have the agent power the guest off (guest-shutdown), and see that it has not refused.

    :param insist: False gives the agent little time to answer at all. :param timeout: seconds for all.
    :raises AgentError: the agent is not there, does not answer, or refuses.
    """
    run = domain.live
    with agents.session(domain, within=None if insist else min(timeout, ASK_PATIENCE)) as agent:
        agents.watch(
            run, agent, "guest-shutdown", {"mode": "powerdown"}, lambda event: event["event"] == "SHUTDOWN",
            timeout=min(timeout, _TAKEN),
        )  # fmt: skip


def reboot(domain: Handle, *, insist: bool, timeout: float) -> None:
    """Have the agent reboot the guest (guest-shutdown), and see that it does (RESET).

    :param insist: as for :func:`power_off`. :raises AgentError: as there.
    :raises NotReached: the guest has not rebooted within ``timeout`` seconds.
    """
    run = domain.live
    with agents.session(domain, within=None if insist else min(timeout, ASK_PATIENCE)) as agent:
        seen = agents.watch(
            run, agent, "guest-shutdown", {"mode": "reboot"}, _is_reboot, timeout=timeout
        )  # fmt: skip
    if seen is None:
        raise NotReached(
            f"the guest did not reboot within {timeout:g} s", asked="reboot", reached=run.state()[0],
            hint=f"qkvm reset {domain.name} presses reset",
        )  # fmt: skip


def _is_reboot(event: dict[str, Any]) -> bool:
    """RESET; or the end of a QEMU that ends where its guest reboots."""
    reason = event.get("data", {}).get("reason")
    return (event["event"], reason) == ("SHUTDOWN", "guest-reset") or event["event"] == "RESET"


def suspend(domain: Handle, target: str, *, duration: int = 0, timeout: float = SLEEP_TIMEOUT) -> None:
    """Have the agent put the guest to sleep (virsh dompmsuspend), and see that it sleeps.

    :param target: 'mem' (S3), 'disk' (S4, which ends QEMU: the next start lets the guest go on) or 'hybrid'.
    :param duration: seconds after which it shall wake; only 0, never, is supported, as in libvirt.
    :raises InvalidState: it could not be woken again. :raises AgentRefused: the guest can't sleep so.
    :raises NotReached: it is not asleep after ``timeout`` seconds.
    """
    if target not in _SLEEPS:
        raise InvalidValue("Invalid target", hint=", ".join(_SLEEPS))
    if duration:
        raise InvalidValue("argument unsupported: Duration not supported. Use 0 for now")
    run = domain.live
    name, event_name = _SLEEPS[target]
    opened = agents.session(domain)
    # The monitor is asked before the agent is taken: who holds the domain's lock may want the agent's too.
    _check_sleep(domain, target)
    with opened as agent:
        seen = agents.watch(run, agent, name, None, lambda event: event["event"] == event_name, timeout=timeout)
    if seen is None:
        raise NotReached(
            f"the guest is not asleep after {timeout:g} s", asked=target, reached=run.state()[0],
            hint="it may still fall asleep; qkvm domstate tells",
        )  # fmt: skip


def _check_sleep(domain: Handle, target: str) -> None:
    """Refuse what this run was started without, and what nothing could wake (query-current-machine)."""
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
    """Wake a guest that sleeps (system_wakeup), and see that it does (WAKEUP).

    :raises InvalidState: it does not sleep.
    """
    with domain.lock():
        run = domain.live
        if run.state()[0] != "pmsuspended":
            raise InvalidState("domain is not pmsuspended", hint=f"it is {run.state()[0]}")
        mark = journal.size(run.journal)
        with domain.monitor() as session:
            session.execute("system_wakeup")
        journal.wait(
            run.journal, mark, _is_awake, timeout=_WAKE_TIMEOUT, alive=lambda: run.pid is not None,
            what="the guest's waking",
        )  # fmt: skip


def _is_awake(event: dict[str, Any]) -> bool:
    return event.get("event") == "WAKEUP"
