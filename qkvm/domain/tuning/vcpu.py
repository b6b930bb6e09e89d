"""Plug and unplug vCPUs, and wait until the guest uses them.

Under TCG, QEMU is damaged when a vCPU is unplugged: see VCPU_BUFFERS and VCPU_CONTEXTS of qemu/quirks.py. The
record counts these vCPUs. With VCPU_BUFFERS QEMU is told to end when its guest reboots, and its devices must not
be changed any more. KVM has neither quirk.

Some guests, such as Debian 12, leave a plugged vCPU offline until somebody tells them to use it. The guest's agent
does so, and tells which are online. Without an agent, the registers tell: a vCPU that no system has started, or
that it has parked, is halted and takes no interrupts. The guest's ACPI reports refusals (ACPI_DEVICE_OST), but its
success says little: Linux also reports success for a vCPU that it has no room for or leaves offline. A paused
guest is not waited for.
"""

from __future__ import annotations

import re
import time

from msgspec.structs import replace

from qkvm.domain import definition as definitions
from qkvm.domain.run import write
from qkvm.errors import AgentError, Busy, CommandRefused, InvalidState, InvalidValue, MonitorGone, NotReached
from qkvm.host import journal
from qkvm.qemu import devices
from qkvm.qemu.quirks import Quirk
from qkvm.scope import Scope
from qkvm.spec import domain as spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run
    from qkvm.qmp.session import Session

TIMEOUT = 30.0
"""Seconds that a guest has to take or release a vCPU; an idle guest takes 1 to 3, under TCG and load more."""

_AGENT_PATIENCE = 2.0
_POLL = 0.05

_REGISTERS = re.compile(r"\b[ER]FL=([0-9a-f]+).*\bHLT=([01]).*\bCR0=([0-9a-f]+)", re.DOTALL)
"""What 'info registers' shows of an x86 CPU's flags, of a halt, and of its mode."""

_INTERRUPTS, _PAGING = 1 << 9, 1 << 31
"""EFLAGS.IF and CR0.PG (Intel SDM 3, 2.3 and 2.5)."""

_EJECTIONS = frozenset((3, 0x103))
"""Sources of an _OST for an ejection (ACPI 6.3.5)."""

_FINE = frozenset((0, 0x80))
"""Statuses of an _OST for a plug: success, and in progress."""


def set_count(
    domain: Handle,
    count: int,
    *,
    scope: Scope = Scope.CURRENT,
    maximum: bool = False,
    hotpluggable: bool = False,
    timeout: float = TIMEOUT,
    wait: bool = True,
    force: bool = False,
) -> int:
    """Plug or unplug vCPUs until ``count`` are plugged and the guest uses them; return the count that was reached.

    :param maximum: change the maximum instead, only in the definition.
    :param hotpluggable: refuse a machine whose vCPUs can't be unplugged again; on others all but the first can.
    :param timeout: seconds for the guest to take all, or to release each vCPU.
    :param wait: False only asks the guest. :param force: unplug also where QEMU survives little afterwards.
    :raises InvalidValue: more than the maximum. :raises InvalidState: an unplug that needs ``force``.
    :raises NotReached: the guest did not take or release one in time; plugged ones stay plugged.
    """
    if count < 1:
        raise InvalidValue(f"Can't set {count} processors for a VM", hint="1 or more")
    if maximum and scope.live:
        raise InvalidValue("Option --config is required by option --maximum")
    with domain.lock():
        wanted = domain.resolve(scope)
        if maximum and not wanted.config:
            raise InvalidValue("Option --config is required by option --maximum")
        run = domain.live if wanted.live else None
        if run is not None:
            _check_live(run, count, force=force)
            if hotpluggable:
                _refuse_fixed(definitions.started_with(run.record).machine)
        if wanted.config:
            _check_config(domain.definition.vcpus, count, maximum=maximum)
            if hotpluggable:
                _refuse_fixed(domain.definition.machine)
        if run is not None:
            _set_live(domain, run, _numbers(run, count), timeout=timeout, wait=wait)
        if wanted.config:
            definitions.change(domain, lambda present: _with_count(present, count, maximum=maximum))
    return run.vcpu_count() if run is not None else count


def _check_live(run: Run, count: int, *, force: bool) -> None:
    started = definitions.started_with(run.record)
    if count > started.vcpus.maximum:
        raise InvalidValue(
            "invalid argument: requested vcpus is greater than max allowable vcpus for the live domain: "
            f"{count} > {started.vcpus.maximum}"
        )
    if count > run.vcpu_count():
        run.require_sound()
        _require_contexts(run, count)
    if count != run.vcpu_count():
        _refuse_fixed(started.machine)
        if run.state()[0] == "paused" and count < run.vcpu_count():
            raise InvalidState("a paused guest can't release vcpus", hint="resume it first")
    if count < run.vcpu_count() and not force and run.record["accel"] == "tcg" and run.needs(Quirk.VCPU_BUFFERS):
        raise InvalidState(
            f"this QEMU's TCG is damaged by the unplug of a vcpu: until {run.name} is shut down, no device can be "
            "plugged, and a reset, a reboot or a power-off may crash it",
            hint="--force unplugs all the same; --config changes the next start",
        )


def _require_contexts(run: Run, count: int) -> None:
    """Refuse to plug more vCPUs than TCG has contexts left for: QEMU would abort."""
    lost = int(run.record.get("lost_vcpu", 0)) if run.needs(Quirk.VCPU_CONTEXTS) else 0
    maximum = definitions.started_with(run.record).vcpus.maximum
    if count + lost > maximum:
        raise InvalidState(
            f"QEMU's TCG can't plug so many vcpus again: {count} and the {lost} that were unplugged are more than "
            f"{maximum}",
            hint=f"qkvm shutdown {run.name}, then start it again",
        )


def _refuse_fixed(machine: spec.Machine) -> None:
    if not machine.hotplugs_vcpus:
        raise InvalidState(f"machine {machine} can't plug vcpus while it runs")


def _check_config(vcpus: spec.Vcpus, count: int, *, maximum: bool) -> None:
    if not maximum and count > vcpus.maximum:
        raise InvalidValue(
            "invalid argument: requested vcpus is greater than max allowable vcpus for the persistent domain: "
            f"{count} > {vcpus.maximum}",
            hint="--config --maximum raises that",
        )


def _with_count(present: spec.Domain, count: int, *, maximum: bool) -> spec.Domain:
    if maximum:
        vcpus = spec.Vcpus(current=min(present.vcpus.current, count), maximum=count)
    else:
        vcpus = replace(present.vcpus, current=count)
    return replace(present, vcpus=vcpus)


def _numbers(run: Run, count: int) -> set[int]:
    """Return the numbers of ``count`` vCPUs: the lowest of the plugged ones, then the lowest free ones."""
    present = _plugged(run)
    free = [
        number for number in range(definitions.started_with(run.record).vcpus.maximum) if number not in present
    ]
    return set([*sorted(present), *free][:count])


def _plugged(run: Run) -> set[int]:
    """Return the numbers of the plugged vCPUs; the first one always is."""
    return {0, *(_number(entry) for entry in run.devices("vcpus"))}


def _set_live(domain: Handle, run: Run, numbers: set[int], *, timeout: float, wait: bool) -> None:
    """Plug and unplug vCPUs until those with these numbers are plugged."""
    started, present = definitions.started_with(run.record), _plugged(run)
    run.record["vcpus"] = run.devices("vcpus")
    mark = journal.size(run.journal)
    with domain.monitor() as session:
        for number in sorted(numbers - present):
            _plug(domain, run, session, devices.vcpu_device(started, run.record["accel"], number))
        for entry in sorted(run.record["vcpus"], key=_number, reverse=True):
            if _number(entry) not in numbers:
                _unplug(run, session, entry, timeout=timeout, wait=wait, asked=len(numbers))
        if wait and len(numbers) >= len(present):
            _await_online(domain, run, session, mark, timeout=timeout)


def set_enabled(
    domain: Handle, numbers: set[int], enabled: bool, *, scope: Scope = Scope.CURRENT,
    timeout: float = TIMEOUT, wait: bool = True, force: bool = False,
) -> None:  # fmt: skip
    """Plug or unplug the vCPUs of these numbers (virsh setvcpu).

    A definition has the number of plugged vCPUs, not which they are: in it they must leave no gap.

    :param force: as in :func:`set_count`.
    :raises InvalidValue: such a vCPU can't be plugged or unplugged.
    :raises NotReached: the guest did not take or release one in time.
    """
    if not enabled and 0 in numbers:
        raise InvalidValue("invalid argument: vCPU '0' must be always enabled")
    with domain.lock():
        wanted = domain.resolve(scope)
        run = domain.live if wanted.live else None
        if run is not None:
            maximum = definitions.started_with(run.record).vcpus.maximum
            after = _changed(_plugged(run), numbers, enabled, maximum, "live")
            _check_live(run, len(after), force=force)
        if wanted.config:
            vcpus = domain.definition.vcpus
            later = _changed(set(range(vcpus.current)), numbers, enabled, vcpus.maximum, "persistent")
            if later != set(range(len(later))):
                raise InvalidValue(
                    "the definition would have gaps between its vcpus",
                    hint="the lowest numbers are always plugged",
                )
        if run is not None:
            _set_live(domain, run, after, timeout=timeout, wait=wait)
        if wanted.config:
            definitions.change(domain, lambda old: _with_count(old, len(later), maximum=False))


def _changed(present: set[int], numbers: set[int], enabled: bool, maximum: int, which: str) -> set[int]:
    """Return the numbers of the vCPUs after the change.

    :raises InvalidValue: a number is too high, or its vCPU is already in the desired state.
    """
    for number in sorted(numbers):
        if number >= maximum:
            raise InvalidValue(f"invalid argument: vCPU '{number}' is not present in {which} domain definition")
        if (number in present) == enabled:
            raise InvalidValue(f"invalid argument: vCPU '{number}' is already in desired state")
    return present | numbers if enabled else present - numbers


def _number(entry: dict[str, Any]) -> int:
    return int(entry["id"].removeprefix("vcpu"))


def _plug(domain: Handle, run: Run, session: Session, device: devices.VcpuDevice) -> None:
    # vcpucount shares this module, and is to load nothing that plugs.
    from qkvm.qemu import render

    options = render.render("parts/vcpu.j2", {"vcpu": device}, own=domain.tree.templates)
    run.record["vcpus"].append({"id": device.id, "since": journal.size(run.journal)})
    write(run)
    try:
        for command, arguments in render.hotplug_commands(options):
            session.execute(command, arguments)
        if not _is_plugged(session, device.id):
            raise NotReached(f"QEMU took {device.id} but does not show it", asked=device.id, reached=None)
    except BaseException:
        run.record["vcpus"].pop()
        write(run)
        raise
    from qkvm.domain.tuning import place

    place.settle_new(run, "vcpu", _number({"id": device.id}))


def _unplug(run: Run, session: Session, entry: dict[str, Any], *, timeout: float, wait: bool, asked: int) -> None:
    """Ask the guest to release a vCPU (device_del, then ACPI) and wait until it has (DEVICE_DELETED)."""
    ident, number = entry["id"], _number(entry)
    mark = journal.size(run.journal)
    try:
        session.execute("device_del", {"id": ident})
    except CommandRefused as error:
        raise NotReached(
            f"vcpu {number} can't be unplugged: {error.desc}",
            asked=asked,
            reached=run.vcpu_count(),
            hint="the guest's system must have booted and have ACPI CPU hotplug",
        ) from error
    if not wait:
        return
    try:
        event = run.await_event(
            mark, lambda event: _concerns(event, ident), timeout=timeout, what=f"release of vcpu {number}"
        )
    except NotReached as error:
        raise NotReached(
            f"guest did not release vCPU {number} within {timeout:g} s",
            asked=asked,
            reached=run.vcpu_count(),
            hint="it may still do so later; qkvm vcpucount shows it",
        ) from error
    if not journal.deleted_device(event):
        raise NotReached(f"guest refused to release vCPU {number}", asked=asked, reached=run.vcpu_count())
    _await_empty(session, ident)
    run.record["vcpus"].remove(entry)
    if run.record["accel"] == "tcg":
        run.record["lost_vcpu"] = int(run.record.get("lost_vcpu", 0)) + 1
        if not run.is_sound:
            session.execute("set-action", {"reboot": "shutdown"})
    write(run)


def _await_empty(session: Session, ident: str) -> None:
    """Wait until the slot is empty: the event comes a moment earlier."""
    deadline = time.monotonic() + 5.0
    while _is_plugged(session, ident):
        if time.monotonic() >= deadline:
            raise NotReached(f"QEMU reported {ident} as gone but shows it", asked=None, reached=ident)
        time.sleep(0.002)


def _is_plugged(session: Session, ident: str) -> bool:
    slots = session.execute("query-hotpluggable-cpus")
    return any(str(slot.get("qom-path", "")).endswith(f"/{ident}") for slot in slots)


def _concerns(event: dict[str, Any], ident: str) -> bool:
    """Return whether an event says how the unplugging of this vCPU ended."""
    if journal.deleted_device(event) == ident:
        return True
    data = event.get("data", {})
    if event.get("event") == "ACPI_DEVICE_OST":
        # _OST of ACPI 6.3.5: source 3 and 0x103 are ejections, status 0 is success and 0x84 "in progress".
        info = data.get("info", {})
        return (
            info.get("device") == ident
            and info.get("source") in (3, 0x103)
            and info.get("status") not in (0, 0x84)
        )
    return event.get("event") == "DEVICE_UNPLUG_GUEST_ERROR" and data.get("device") == ident


def _await_online(domain: Handle, run: Run, session: Session, mark: int, *, timeout: float) -> None:
    """Wait until the guest uses all plugged vCPUs; its agent, if there is one, brings them online.

    :param mark: length of the journal before the first was plugged. :param timeout: seconds for all of them.
    :raises NotReached: it does not, or has refused one. :raises MonitorGone: QEMU ended.
    """
    plugged = [entry["id"] for entry in run.record["vcpus"]]
    asked = 1 + len(plugged)
    if run.state()[0] != "running":
        return
    deadline = time.monotonic() + timeout
    while (online := _online(domain, session, plugged, deadline)) < asked:
        refused = _refused(run, plugged, mark)
        if refused or time.monotonic() >= deadline:
            why = f"it refused {refused}" if refused else f"it did not follow within {timeout:g} s"
            raise NotReached(
                f"guest uses {online} of {asked} vCPUs: {why}",
                asked=asked,
                reached=online,
                hint="its system must have booted, know CPU hotplug on this machine, and bring new CPUs online; "
                "qkvm does that by the guest agent where it runs",
            )
        if run.pid is None:
            raise MonitorGone("QEMU ended while the guest took its vcpus")
        time.sleep(_POLL)


def _online(domain: Handle, session: Session, plugged: Sequence[str], deadline: float) -> int:
    """Return how many vCPUs the guest uses, after its agent was told to use all."""
    from qkvm.domain.guest import agent as agents
    from qkvm.domain.guest import cpus

    if agents.is_there(domain):
        try:
            left = max(_AGENT_PATIENCE, deadline - time.monotonic())
            return cpus.use_all(domain, patience=_AGENT_PATIENCE, timeout=left)
        except (AgentError, Busy):
            # An agent that hangs or can't tell is as good as none.
            pass
    return 1 + len(plugged) - idle(session)


def idle(session: Session) -> int:
    """Return how many vCPUs no system uses, by their registers."""
    return sum(_is_idle(session, one["cpu-index"]) for one in session.execute("query-cpus-fast"))


def _is_idle(session: Session, index: int) -> bool:
    """Return whether no system uses a vCPU: it was not started since its reset, or halts without interrupts.

    Not started is what runs without paging: after a reset, or in a loop of the firmware's.
    """
    arguments = {"command-line": "info registers", "cpu-index": index}
    found = _REGISTERS.search(str(session.execute("human-monitor-command", arguments)))
    if found is None:
        return False
    flags, halted, mode = int(found[1], 16), found[2] == "1", int(found[3], 16)
    return not mode & _PAGING or (halted and not flags & _INTERRUPTS)


def _refused(run: Run, plugged: Sequence[str], mark: int) -> str:
    """Return the first vCPU that the guest has refused (ACPI _OST), '' for none."""
    for event in journal.events_from(run.journal, mark)[0]:
        if event["event"] == "ACPI_DEVICE_OST":
            info = event["data"]["info"]
            if info.get("device") in plugged and info["source"] not in _EJECTIONS and info["status"] not in _FINE:
                return str(info["device"])
    return ""
