"""What plugging and unplugging of every kind of device share: see what is there, ask for release, wait for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from qkvm.domain.run import write
from qkvm.errors import CommandRefused, NotReached
from qkvm.host import journal

if TYPE_CHECKING:
    from qkvm.domain.run import Run
    from qkvm.qmp.session import Session

TIMEOUT = 30.0
"""Seconds that a guest has to release a device; one with its driver loaded takes less than one."""


def peripherals(session: Session) -> set[str]:
    """Ids of the devices that QEMU has (qom-list of /machine/peripheral)."""
    return {child["name"] for child in session.execute("qom-list", {"path": "/machine/peripheral"})}


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
