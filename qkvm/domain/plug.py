"""What plugging and unplugging of every kind of device share: what is there, a place, release and its wait."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from qkvm.domain import definition as definitions
from qkvm.domain.run import write
from qkvm.errors import CommandRefused, InvalidValue, NotReached
from qkvm.host import journal
from qkvm.qemu import slots
from qkvm.qemu.slots import Board

if TYPE_CHECKING:
    from qkvm.domain.run import Run
    from qkvm.qemu.slots import Place
    from qkvm.qmp.session import Session

TIMEOUT = 30.0
"""Seconds that a guest has to release a device; one with its driver loaded takes less than one."""


def peripherals(session: Session) -> set[str]:
    """Ids of the devices that QEMU has (qom-list of /machine/peripheral)."""
    return {child["name"] for child in session.execute("qom-list", {"path": "/machine/peripheral"})}


def place(run: Run, address: str) -> Place:
    """The place on a bus that an address names, else the next free one.

    :raises InvalidValue: it is taken. :raises InvalidState: no slot is left.
    """
    used = run.used_places()
    if not address:
        return slots.take(run.record["slots"], used)
    found = Board(definitions.started_with(run.record)).at(address)
    if found.label in used:
        raise InvalidValue(f"Attempted double use of PCI Address {address}")
    return found


def quietly(session: Session, command: str, arguments: dict[str, Any]) -> None:
    """Undo a step; QEMU refuses that where there is nothing to undo any more, and that is well.

    Of an fd there is none left to close, for one, once netdev_add or chardev-add has taken it.
    """
    with suppress(CommandRefused):
        session.execute(command, arguments)


def release(
    run: Run, session: Session, entry: dict[str, Any], *, what: str, shown: str, timeout: float, wait: bool
) -> bool:
    """Ask for the release of a device (device_del); gives whether it is gone, not known without ``wait``.

    :param entry: its part of the record, which remembers that it was asked. :param what: 'NIC', 'disk'.
    :param shown: what its owner calls it, for errors.
    :raises NotReached: it can't go, or the guest did not release it within ``timeout`` seconds.
    """
    mark = journal.size(run.journal)
    try:
        session.execute("device_del", {"id": entry["id"]})
    except CommandRefused as error:
        # Asked before and not released yet: QEMU refuses to ask twice, but the guest may still answer.
        if not entry.get("asked"):
            raise NotReached(
                f"{what} {shown} can't be unplugged: {error.desc}", asked="gone", reached=shown
            ) from error
    entry["asked"] = True
    write(run)
    if wait:
        _await_release(run, mark, entry["id"], f"{what} {shown}", timeout)
    return wait


def _await_release(run: Run, mark: int, ident: str, what: str, timeout: float) -> None:
    try:
        event = journal.wait(
            run.journal, mark,
            lambda event: event.get("event") in ("DEVICE_DELETED", "DEVICE_UNPLUG_GUEST_ERROR")
            and event.get("data", {}).get("device") == ident,
            timeout=timeout, alive=lambda: run.pid is not None, what=f"release of {what}",
        )  # fmt: skip
    except NotReached as error:
        raise NotReached(
            f"guest did not release {what} within {timeout:g} s", asked="gone", reached=what.rpartition(" ")[2],
            hint="its system must have booted and know PCI hotplug; asking again waits again",
        ) from error  # fmt: skip
    if event["event"] != "DEVICE_DELETED":
        raise NotReached(f"guest refused to release {what}", asked="gone", reached=what.rpartition(" ")[2])
