"""List, freeze, thaw and trim the guest's file systems by its agent, and find the domain's disks below them."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from msgspec import UNSET, Struct, UnsetType

from qkvm.domain.guest import agent as agents
from qkvm.domain.guest import info
from qkvm.domain.run import write
from qkvm.errors import AgentError, AgentUnresponsive, InvalidState, InvalidValue, MonitorError, NotReached
from qkvm.qemu.disks import drive_address
from qkvm.spec import domain as spec
from qkvm.spec import toml

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from qkvm.domain.guest.info import DiskAddress, Filesystem
    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run
    from qkvm.qmp.agent import AgentSession

FREEZE_PATIENCE = 60.0
"""Seconds for a freeze: the guest first writes all data to its disks."""

TRIM_PATIENCE = 600.0
"""Seconds for a trim, which goes through the whole file system."""


class Trimmed(Struct, rename="kebab", frozen=True):
    """The result for one file system; ``error`` is the guest's, if it could not be trimmed."""

    path: str
    trimmed: int | UnsetType = UNSET
    minimum: int | UnsetType = UNSET
    error: str | UnsetType = UNSET


class _TrimReply(Struct):
    paths: tuple[Trimmed, ...]


def filesystems(domain: Handle) -> tuple[Filesystem, ...]:
    """Return the file systems that are mounted in the guest from disks (virsh domfsinfo)."""
    found: tuple[Filesystem, ...] = info.collect(domain, ("filesystem",))["filesystem"]
    return found


def freeze(domain: Handle, mountpoints: Sequence[str] = ()) -> int:
    """Freeze file systems and return their number: all data is on disk then, and nothing more is written.

    :param mountpoints: the file systems to freeze; none for all.
    :raises NotReached: the agent reported success, but says that they are not frozen.
    """
    with agents.session(domain, patience=FREEZE_PATIENCE) as agent:
        try:
            if mountpoints:
                count = agent.execute("guest-fsfreeze-freeze-list", {"mountpoints": list(mountpoints)}, kind=int)
            else:
                count = agent.execute("guest-fsfreeze-freeze", kind=int)
        except AgentUnresponsive as error:
            # It may have frozen them nevertheless.
            error.hint = error.hint or f"file systems may be frozen now: qkvm domfsthaw {domain.name}"
            raise
        if count and _status(agent) != "frozen":
            raise NotReached("the guest's file systems are not frozen", asked="frozen", reached="thawed")
    return count


def thaw(domain: Handle, mountpoints: Sequence[str] = ()) -> int:
    """Thaw all frozen file systems, and return their number.

    :raises InvalidValue: with ``mountpoints``: the agent has no command for it.
    :raises NotReached: the agent says that they are still frozen.
    """
    if mountpoints:
        raise InvalidValue("argument unsupported: specifying mountpoints is not supported", hint="all are thawed")
    with agents.session(domain, patience=FREEZE_PATIENCE) as agent:
        count = agent.execute("guest-fsfreeze-thaw", kind=int)
        if _status(agent) != "thawed":
            raise NotReached("the guest's file systems are still frozen", asked="thawed", reached="frozen")
    return count


@contextmanager
def quiet(domain: Handle, run: Run) -> Iterator[None]:
    """Freeze the guest's file systems during the block; call it under the domain's lock. It needs an agent."""
    hold(domain, run)
    try:
        yield
    finally:
        let_go(domain, run)


def hold(domain: Handle, run: Run) -> int:
    """Freeze all file systems for a moment, and return their number; call it under the domain's lock.

    It is noted in the record first: if this process is killed, the next verb thaws them.

    :raises AgentError: they were not frozen; any that were are thawed.
    """
    run.record["frozen"] = True
    write(run)
    try:
        return freeze(domain)
    except AgentError:
        pass_by(domain, run)
        raise


def let_go(domain: Handle, run: Run) -> None:
    """Thaw what :func:`hold` has frozen; if the guest is paused, the first verb after it runs again does.

    :raises AgentError: the agent did not thaw them.
    """
    if run.state()[0] != "running":
        return
    thaw(domain)
    del run.record["frozen"]
    write(run)


def pass_by(domain: Handle, run: Run) -> None:
    """Thaw what a killed process has left frozen, unless the guest is paused."""
    if run.pid is not None and run.state()[0] != "running":
        return
    # If there is no agent that answers, nothing else can thaw them.
    with suppress(AgentError, InvalidState):
        thaw(domain)
    del run.record["frozen"]
    write(run)


def trim(domain: Handle, *, minimum: int = 0) -> tuple[Trimmed, ...]:
    """Have the guest discard unused blocks of its disks (fstrim), and return the result for each file system.

    :param minimum: bytes of the smallest free range to discard.
    :raises InvalidState: none of its file systems could be trimmed.
    """
    with agents.session(domain, patience=TRIM_PATIENCE) as agent:
        done = agent.execute("guest-fstrim", {"minimum": minimum}, kind=_TrimReply).paths
    failed = [one for one in done if one.error is not UNSET]
    if failed and len(failed) == len(done):
        raise InvalidState(f"{failed[0].path} can't be trimmed: {failed[0].error}")
    return done


def _status(agent: AgentSession) -> str:
    return agent.execute("guest-fsfreeze-status", kind=str)


def targets(domain: Handle, addresses: Iterable[DiskAddress]) -> dict[DiskAddress, str]:
    """Return the targets ('vda') of the domain's disks by the addresses that the agent reports, where known.

    Disks are found by their PCI addresses, which QEMU knows too (query-pci), else by their serial numbers.
    """
    wanted = set(addresses)
    if not wanted:
        return {}
    disks = [
        (entry["id"], toml.from_plain(entry["spec"], spec.Disk, "record"))
        for entry in domain.live.devices("disks")
    ]
    pci = _pci_devices(domain)
    found = {}
    for address in wanted:
        at = address.pci_controller
        device = pci.get((at.bus, at.slot, at.function), "")
        for ident, disk in disks:
            if _is_at(address, device, ident, disk):
                found[address] = disk.target
                break
    return found


def _is_at(address: DiskAddress, device: str, ident: str, disk: spec.Disk) -> bool:
    if disk.bus is spec.DiskBus.VIRTIO and device == ident:
        return True
    if disk.bus is spec.DiskBus.SCSI and address.bus_type == "scsi":
        controller, *place = drive_address(disk)
        return device == f"scsi{controller}" and place == [address.bus, address.target, address.unit]
    return bool(disk.serial) and disk.serial == address.serial


def _pci_devices(domain: Handle) -> dict[tuple[int, int, int], str]:
    """Return the ids of PCI devices by bus, slot and function; empty for a machine without PCI."""
    try:
        with domain.lock(), domain.monitor() as session:
            buses = session.execute("query-pci")
    except MonitorError:
        return {}
    return dict(_walk(buses))


def _walk(buses: list[dict[str, Any]]) -> Iterator[tuple[tuple[int, int, int], str]]:
    for bus in buses:
        for device in bus["devices"]:
            if device["qdev_id"]:
                yield (device["bus"], device["slot"], device["function"]), device["qdev_id"]
            bridge = device.get("pci_bridge", {})
            yield from _walk([{"devices": bridge.get("devices", ())}])
