"""Whether a guest has brought plugged vCPUs online, as far as it can be seen from here.

Where its agent runs, that tells how many are. Without one QEMU shows it: a vCPU that nobody has started still has
the registers of its reset. The guest's ACPI (_OST, in the journal as ACPI_DEVICE_OST) tells where it refuses one
at once, and no more: Linux says success of one that it has no room for. Of a guest that does not run nothing can
be seen, and nothing is awaited.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from qkvm.domain.guest import agent as agents
from qkvm.errors import AgentError, MonitorGone, NotReached
from qkvm.host import journal

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run
    from qkvm.qmp.session import Session

_AGENT_PATIENCE = 2.0
_POLL = 0.05

_RESET = re.compile(r"\bEIP=0000fff0\b.*^CS =f000\b", re.DOTALL | re.MULTILINE)
"""Where an x86 CPU stands after its reset (Intel SDM 3, 10.1.4), as 'info registers' shows it."""

_EJECTIONS = frozenset((3, 0x103))
"""Sources of an _OST that are no plug's (ACPI 6.3.5)."""

_FINE = frozenset((0, 0x80))
"""Statuses of an _OST of a plug: done, and under way."""


def await_online(
    domain: Handle, run: Run, session: Session, plugged: Sequence[str], mark: int, *, asked: int, timeout: float
) -> None:  # fmt: skip
    """Wait until the guest has brought vCPUs online that were plugged.

    :param plugged: their ids. :param mark: length of the journal before the first was plugged.
    :param asked: how many the guest is to have then. :param timeout: seconds for all of it.
    :raises NotReached: it has not, or has refused one. :raises MonitorGone: QEMU ended.
    """
    if not plugged or run.state()[0] != "running":
        return
    deadline = time.monotonic() + timeout
    while (online := _online(domain, session, plugged, asked)) < asked:
        refused = _refused(run, plugged, mark)
        if refused or time.monotonic() >= deadline:
            why = f"guest refused {refused}" if refused else f"guest did not follow within {timeout:g} s"
            raise NotReached(
                f"{why}: it has {online} of {asked} vcpus online", asked=asked, reached=online,
                hint="its system must have booted, know CPU hotplug on this machine, and bring them online "
                f"(qkvm setvcpus {domain.name} {asked} --guest)",
            )  # fmt: skip
        if run.pid is None:
            raise MonitorGone("QEMU ended while the guest took its vcpus")
        time.sleep(_POLL)


def _online(domain: Handle, session: Session, plugged: Sequence[str], asked: int) -> int:
    from qkvm.domain.guest.cpus import GuestVcpu

    if agents.is_there(domain):
        try:
            with agents.session(domain, within=_AGENT_PATIENCE) as agent:
                return sum(vcpu.online for vcpu in agent.execute("guest-get-vcpus", kind=list[GuestVcpu]))
        except AgentError:
            # One that hangs or can't tell is none.
            pass
    indexes = {one["qom-path"].rpartition("/")[2]: one["cpu-index"] for one in session.execute("query-cpus-fast")}
    return asked - sum(_is_reset(session, indexes[ident]) for ident in plugged)


def _is_reset(session: Session, index: int) -> bool:
    arguments = {"command-line": "info registers", "cpu-index": index}
    text = str(session.execute("human-monitor-command", arguments))
    return _RESET.search(text.replace("\r", "")) is not None


def _refused(run: Run, plugged: Sequence[str], mark: int) -> str:
    """The first vCPU of which the guest's ACPI says that it could not be taken, '' for none."""
    for event in journal.events_from(run.journal, mark)[0]:
        if event["event"] == "ACPI_DEVICE_OST":
            info = event["data"]["info"]
            if info.get("device") in plugged and info["source"] not in _EJECTIONS and info["status"] not in _FINE:
                return str(info["device"])
    return ""
