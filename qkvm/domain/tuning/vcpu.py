"""vCPUs: count, plug, unplug.

Under TCG, QEMU does not get over the unplugging of a vCPU: see VCPU_BUFFERS and VCPU_CONTEXTS of qemu/quirks.py.
The record counts those that are lost in that way. Where the buffers are the matter, QEMU is asked to end cleanly
where its guest reboots, and its devices are left alone from then on. KVM has neither.
"""

from __future__ import annotations

import time

from msgspec.structs import replace

from qkvm.domain import definition as definitions
from qkvm.domain.run import write
from qkvm.domain.tuning import vcpuseen
from qkvm.errors import CommandRefused, InvalidState, InvalidValue, NotReached
from qkvm.host import journal
from qkvm.qemu import devices, render
from qkvm.qemu.quirks import Quirk
from qkvm.scope import Scope
from qkvm.spec import domain as spec

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run
    from qkvm.qmp.session import Session

TIMEOUT = 30.0
"""Seconds that a guest has to take or release a vCPU; an idle one takes 1 to 3, under TCG and load more."""


def set_count(
    domain: Handle,
    count: int,
    *,
    scope: Scope = Scope.CURRENT,
    maximum: bool = False,
    hotpluggable: bool = False,
    timeout: float = TIMEOUT,
    wait: bool = True,
) -> int:
    """Plug or unplug vCPUs until ``count`` are plugged, and give the count that was reached.

    :param maximum: change the most that can be plugged instead; only in the definition.
    :param hotpluggable: refuse where what is added could not be unplugged again. Wherever vCPUs can be plugged,
        all but the first are plugged as devices, also those that a start brings, and can be unplugged.
    :param timeout: seconds for the guest to take all, or to release each vCPU.
    :param wait: False asks and does not wait.
    :raises InvalidValue: more than the maximum.
    :raises NotReached: the guest did not take or release one in time; what is plugged then stays so.
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
            _check_live(run, count)
            if hotpluggable:
                _refuse_fixed(definitions.started_with(run.record).machine)
        if wanted.config:
            _check_config(domain.definition.vcpus, count, maximum=maximum)
            if hotpluggable:
                _refuse_fixed(domain.definition.machine)
        if run is not None:
            _set_live(domain, run, count, timeout=timeout, wait=wait)
        if wanted.config:
            definitions.change(domain, lambda present: _with_count(present, count, maximum=maximum))
    return run.vcpu_count() if run is not None else count


def _check_live(run: Run, count: int) -> None:
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


def _require_contexts(run: Run, count: int) -> None:
    """Refuse a plug for which TCG has no context any more, and would abort."""
    lost = int(run.record.get("lost_vcpu", 0)) if run.needs(Quirk.VCPU_CONTEXTS) else 0
    maximum = definitions.started_with(run.record).vcpus.maximum
    if count + lost > maximum:
        raise InvalidState(
            f"QEMU's TCG can't plug so many vcpus again: {count} and the {lost} that were unplugged are more than "
            f"{maximum}",
            hint=f"qkvm shutdown {run.name} and start it anew",
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


def _set_live(domain: Handle, run: Run, count: int, *, timeout: float, wait: bool) -> None:
    """Plug from the lowest number up, unplug from the highest down."""
    started = definitions.started_with(run.record)
    run.record["vcpus"] = run.devices("vcpus")
    plugged, fresh = {entry["id"] for entry in run.record["vcpus"]}, []
    mark = journal.size(run.journal)
    with domain.monitor() as session:
        for index in range(1, started.vcpus.maximum):
            if 1 + len(plugged) >= count:
                break
            device = devices.vcpu_device(started, run.record["accel"], index)
            if device.id not in plugged:
                _plug(domain, run, session, device)
                plugged.add(device.id)
                fresh.append(device.id)
        for entry in sorted(run.record["vcpus"], key=_number, reverse=True)[: max(0, 1 + len(plugged) - count)]:
            _unplug(run, session, entry, timeout=timeout, wait=wait, asked=count)
        if wait:
            vcpuseen.await_online(domain, run, session, fresh, mark, asked=count, timeout=timeout)


def set_enabled(
    domain: Handle, numbers: set[int], enabled: bool, *, scope: Scope = Scope.CURRENT,
    timeout: float = TIMEOUT, wait: bool = True,
) -> None:  # fmt: skip
    """Plug or unplug the vCPUs of these numbers (virsh setvcpu).

    A definition says how many vCPUs are plugged, not which: it takes numbers that leave no gap.

    :raises InvalidValue: a number that can't be.
    :raises NotReached: the guest did not take or release one in time.
    """
    if not enabled and 0 in numbers:
        raise InvalidValue("invalid argument: vCPU '0' must be always enabled")
    with domain.lock():
        wanted = domain.resolve(scope)
        run = domain.live if wanted.live else None
        if run is not None:
            present = {0, *(_number(entry) for entry in run.devices("vcpus"))}
            maximum = definitions.started_with(run.record).vcpus.maximum
            count = len(_changed(present, numbers, enabled, maximum, "live"))
            _check_live(run, count)
        if wanted.config:
            vcpus = domain.definition.vcpus
            later = _changed(set(range(vcpus.current)), numbers, enabled, vcpus.maximum, "persistent")
            if later != set(range(len(later))):
                raise InvalidValue(
                    "the definition would have gaps between its vcpus",
                    hint="the lowest numbers are always plugged",
                )
        if run is not None:
            _set_these(domain, run, numbers, enabled, timeout=timeout, wait=wait)
        if wanted.config:
            definitions.change(domain, lambda old: _with_count(old, len(later), maximum=False))


def _changed(present: set[int], numbers: set[int], enabled: bool, maximum: int, which: str) -> set[int]:
    """The vCPUs that there will be, where all of the numbers are a change.

    :raises InvalidValue: one is too high, or as it is asked to be.
    """
    for number in sorted(numbers):
        if number >= maximum:
            raise InvalidValue(f"invalid argument: vCPU '{number}' is not present in {which} domain definition")
        if (number in present) == enabled:
            raise InvalidValue(f"invalid argument: vCPU '{number}' is already in desired state")
    return present | numbers if enabled else present - numbers


def _set_these(domain: Handle, run: Run, numbers: set[int], enabled: bool, *, timeout: float, wait: bool) -> None:
    started = definitions.started_with(run.record)
    run.record["vcpus"] = run.devices("vcpus")
    mark, fresh = journal.size(run.journal), []
    with domain.monitor() as session:
        for number in sorted(numbers if enabled else ()):
            device = devices.vcpu_device(started, run.record["accel"], number)
            _plug(domain, run, session, device)
            fresh.append(device.id)
        asked = run.vcpu_count() - len(numbers)
        for entry in sorted(run.record["vcpus"], key=_number, reverse=True):
            if not enabled and _number(entry) in numbers:
                _unplug(run, session, entry, timeout=timeout, wait=wait, asked=asked)
        if wait:
            vcpuseen.await_online(domain, run, session, fresh, mark, asked=run.vcpu_count(), timeout=timeout)


def _number(entry: dict[str, Any]) -> int:
    return int(entry["id"].removeprefix("vcpu"))


def _plug(domain: Handle, run: Run, session: Session, device: devices.VcpuDevice) -> None:
    options = render.render("parts/vcpu.j2", {"vcpu": device}, own=domain.tree.templates)
    run.record["vcpus"].append({"id": device.id, "since": journal.size(run.journal)})
    write(run)
    try:
        for command, arguments in render.hotplug_commands(options):
            session.execute(command, arguments)
        # Seen where it counts: among the plugged ones of query-hotpluggable-cpus.
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
            f"vcpu {number} can't be unplugged: {error.desc}", asked=asked, reached=run.vcpu_count(),
            hint="the guest's system must have booted and have ACPI CPU hotplug",
        ) from error  # fmt: skip
    if not wait:
        return
    try:
        event = journal.wait(
            run.journal, mark, lambda event: _concerns(event, ident),
            timeout=timeout, alive=lambda: run.pid is not None, what=f"release of vcpu {number}",
        )  # fmt: skip
    except NotReached as error:
        raise NotReached(
            f"guest did not release vCPU {number} within {timeout:g} s", asked=asked, reached=run.vcpu_count(),
            hint="it may still do so later; qkvm vcpucount tells",
        ) from error  # fmt: skip
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
    """See that the slot is empty: the event comes a moment before."""
    deadline = time.monotonic() + 5.0
    while _is_plugged(session, ident):
        if time.monotonic() >= deadline:
            raise NotReached(f"QEMU reported {ident} as gone but shows it", asked=None, reached=ident)
        time.sleep(0.002)


def _is_plugged(session: Session, ident: str) -> bool:
    slots = session.execute("query-hotpluggable-cpus")
    return any(str(slot.get("qom-path", "")).endswith(f"/{ident}") for slot in slots)


def _concerns(event: dict[str, Any], ident: str) -> bool:
    """Whether an event tells how the unplugging of this vCPU ended."""
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


def counts(domain: Handle) -> dict[str, dict[str, int]]:
    """Maximum and current counts, of the definition and of the run: {'maximum': {'config': 2, …}, …}."""
    table: dict[str, dict[str, int]] = {"maximum": {}, "current": {}}
    if domain.is_persistent:
        vcpus = domain.definition.vcpus
        table["maximum"]["config"], table["current"]["config"] = vcpus.maximum, vcpus.current
    run = domain.run
    if run is not None and run.pid is not None:
        table["maximum"]["live"] = definitions.started_with(run.record).vcpus.maximum
        table["current"]["live"] = run.vcpu_count()
    return table
