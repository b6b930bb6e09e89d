"""File systems of the guest by its agent: list, freeze, thaw, trim; and which disk of the domain lies below."""

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
"""Seconds in which a guest must have written out what it has to; qemu-ga itself waits for each file system."""

TRIM_PATIENCE = 600.0
"""Seconds for a trim, which walks through the whole file system."""


class Trimmed(Struct, rename="kebab", frozen=True):
    """What became of one file system; ``error`` is the guest's word where it could not be trimmed."""

    path: str
    trimmed: int | UnsetType = UNSET
    minimum: int | UnsetType = UNSET
    error: str | UnsetType = UNSET


class _TrimReply(Struct):
    paths: tuple[Trimmed, ...]


def filesystems(domain: Handle) -> tuple[Filesystem, ...]:
    """The file systems that are mounted in the guest from disks (virsh domfsinfo)."""
    found: tuple[Filesystem, ...] = info.collect(domain, ("filesystem",))["filesystem"]
    return found


def freeze(domain: Handle, mountpoints: Sequence[str] = ()) -> int:
    """Freeze file systems: what was written is on disk, and nothing more is written; gives how many were.

    :param mountpoints: those alone; all that can be frozen where there are none.
    :raises NotReached: the agent froze none and says that it is not frozen, though it has refused nothing.
    """
    with agents.session(domain, patience=FREEZE_PATIENCE) as agent:
        try:
            if mountpoints:
                count = agent.execute("guest-fsfreeze-freeze-list", {"mountpoints": list(mountpoints)}, kind=int)
            else:
                count = agent.execute("guest-fsfreeze-freeze", kind=int)
        except AgentUnresponsive as error:
            # It may have come to it after all.
            error.hint = error.hint or f"file systems may be frozen now: qkvm domfsthaw {domain.name}"
            raise
        if count and _status(agent) != "frozen":
            raise NotReached("the guest's file systems are not frozen", asked="frozen", reached="thawed")
    return count


def thaw(domain: Handle, mountpoints: Sequence[str] = ()) -> int:
    """Thaw all frozen file systems, and give how many were thawed.

    :raises InvalidValue: some were named; the agent knows no such command.
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
    """Hold the guest's file systems still, for who has the domain's lock; there must be an agent that does so."""
    hold(domain, run)
    try:
        yield
    finally:
        let_go(domain, run)


def hold(domain: Handle, run: Run) -> int:
    """Freeze all file systems for a moment, and give how many were.

    The record tells of it before: where this process is killed, the next verb that passes by thaws them. Call it
    under the domain's lock.

    :raises AgentError: they were not frozen, and are thawed if they were after all.
    """
    run.record["frozen"] = True
    write(run)
    try:
        return freeze(domain)
    except AgentError:
        pass_by(domain, run)
        raise


def let_go(domain: Handle, run: Run) -> None:
    """Thaw what :func:`hold` has frozen; a guest that was stopped is thawed by the first verb once it runs.

    :raises AgentError: the agent did not do so.
    """
    if run.state()[0] != "running":
        return
    thaw(domain)
    del run.record["frozen"]
    write(run)


def pass_by(domain: Handle, run: Run) -> None:
    """Thaw what a process has left frozen that was killed; a guest that is paused is thawed when it runs."""
    if run.pid is not None and run.state()[0] != "running":
        return
    # An agent that is not there, or does not answer, could not be told in any other way.
    with suppress(AgentError, InvalidState):
        thaw(domain)
    del run.record["frozen"]
    write(run)


def trim(domain: Handle, *, minimum: int = 0) -> tuple[Trimmed, ...]:
    """Have the guest tell its disks which blocks are unused (fstrim), and give what was trimmed of each.

    :param minimum: bytes of the smallest free range that is told.
    :raises InvalidState: the guest could not do so with any of its file systems.
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
    """The domain's disk, by its target ('vda'), at each address that the agent has told and that is known.

    PCI addresses are compared with those that the guest's firmware gave out, which QEMU knows (query-pci); the
    buses without one by the disks' serial numbers.
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
    """Ids of the PCI devices that have one, by bus, slot and function; empty where QEMU has no PCI."""
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
