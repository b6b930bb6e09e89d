"""Plug devices into a running guest or its definition, and unplug them: the steps that all kinds share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any, ClassVar, Generic, NamedTuple, TypeVar

from msgspec.structs import replace

from qkvm.domain import definition as definitions
from qkvm.domain.definition import together
from qkvm.domain.run import write
from qkvm.errors import AlreadyExists, CommandRefused, InvalidState, InvalidValue, NotReached
from qkvm.files import Undo
from qkvm.host import journal
from qkvm.qemu import render, slots
from qkvm.qemu.slots import Board
from qkvm.scope import Scope
from qkvm.spec import domain as spec
from qkvm.spec import toml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from qkvm.domain.handle import Handle
    from qkvm.domain.run import DeviceKind, Run
    from qkvm.qemu.slots import Place
    from qkvm.qmp.session import Session

TIMEOUT = 30.0
"""Seconds that a guest has to release a device; with its driver loaded it takes less than one second."""

D = TypeVar("D", spec.Nic, spec.Disk, spec.Filesystem)


class Site(NamedTuple):
    """A running guest that a device is plugged into."""

    domain: Handle
    run: Run
    session: Session
    undo: Undo
    """Takes each step back if a later one fails."""
    opened: ExitStack
    """Closes what was opened for QEMU."""

    def place(self, address: str) -> Place:
        """Return the place on a bus that an address names, or the next free one if there is no address.

        :raises InvalidValue: it is taken. :raises InvalidState: no slot is left.
        """
        used = self.run.used_places()
        if not address:
            return slots.take(self.run.record["slots"], used)
        found = Board(definitions.started_with(self.run.record)).at(address)
        if found.label in used:
            raise InvalidValue(f"Attempted double use of PCI Address {address}")
        return found

    def refuse_taken(self, ident: str) -> None:
        """Refuse an id that a device of this guest has already."""
        if ident in peripherals(self.session):
            raise AlreadyExists(f"there is a device of alias {ident}")

    def record(
        self, part: DeviceKind, entry: dict[str, Any], forget: Callable[[Run, dict[str, Any]], None]
    ) -> None:
        """Add an entry to the record before the device is made: a later qkvm then finds what a killed one left."""
        self.run.record.setdefault(part, []).append(entry)
        self.undo.add(forget, self.run, entry)
        write(self.run)

    def send_fd(self, name: str, fd: int) -> None:
        """Give QEMU a copy of an fd under a name, for a later command (getfd)."""
        self.session.send_fd(name, fd)
        self.undo.add(quietly, self.session.execute, "closefd", {"fdname": name})

    def add(self, template: str, **device: Any) -> None:
        """Plug the device that a part of the template describes, which is also used at a start."""
        options = render.render(f"parts/{template}.j2", device, own=self.domain.tree.templates)
        for command, arguments in render.hotplug_commands(options):
            self.session.execute(command, arguments)


class Kind(ABC, Generic[D]):
    """One kind of devices: where its plugging and unplugging differ from those of the others."""

    part: ClassVar[DeviceKind]
    """The key of these devices in records, and their field in definitions."""
    name: ClassVar[str]
    """The name of such a device in errors."""
    key: ClassVar[str]
    """What identifies one: a key of its entry in the record, and a field of its description."""
    described: type[D]

    @abstractmethod
    def check(self, device: D) -> list[str]:
        """Refuse an invalid description, and return warnings."""

    def added(self, present: spec.Domain, device: D) -> spec.Domain:
        """Return the definition with one device more."""
        return replace(present, **{self.part: (*getattr(present, self.part), device)})

    def takes_in(self, domain: Handle, run: Run, device: D) -> bool:
        """Give the device to one that is there, as a medium to its drive; return False if it has to be plugged."""
        return False

    @abstractmethod
    def plug(self, site: Site, device: D) -> dict[str, Any]:
        """Open what the device needs, plug it, and return its entry in the record; each step adds its undo.

        :raises InvalidState: it can't be plugged while the guest runs.
        """

    def sweep(self, run: Run, session: Session) -> None:
        """Forget devices that the guest released late, or that a killed qkvm left half plugged."""
        if not run.record[self.part]:
            return
        present = {entry["id"] for entry in run.devices(self.part)} & peripherals(session)
        for entry in list(run.record[self.part]):
            if entry["id"] not in present:
                quietly(self.close, session, entry)
                for name in self.fd_names(entry):
                    quietly(session.execute, "closefd", {"fdname": name})
                self.forget(run, entry)

    def fd_names(self, entry: dict[str, Any]) -> Iterable[str]:
        """Return the names of fds that a killed qkvm may have left in QEMU."""
        return ()

    def before_release(self, run: Run, session: Session, entry: dict[str, Any], undo: Undo) -> None:
        """Refuse a device that can't be unplugged while the guest runs, and prepare the others for it."""

    @abstractmethod
    def close(self, session: Session, entry: dict[str, Any]) -> None:
        """Close in QEMU what a device used that is gone."""

    def forget(self, run: Run, entry: dict[str, Any]) -> None:
        """Remove a device from the record, and what was made for it on the host."""
        forget(run, self.part, entry)

    def await_gone(self, entry: dict[str, Any]) -> None:
        """Wait until the kernel has removed what was made for the device."""


def attach(domain: Handle, kind: Kind[D], device: D, *, scope: Scope = Scope.CURRENT) -> list[str]:
    """Plug a device into the running guest, the definition, or both, and return warnings; an error undoes both.

    :raises InvalidState: no slot is left, or the machine or the device plugs nothing while it runs.
    :raises AlreadyExists: there is such a device. :raises Busy: a disk's image is in use.
    """
    warnings = kind.check(device)

    def live(run: Run, _: Undo) -> None:
        if not kind.takes_in(domain, run, device):
            plug_in(domain, run, kind, device)

    together(domain, scope, live, lambda present: kind.added(present, device))
    return warnings


def plug_in(domain: Handle, run: Run, kind: Kind[D], device: D) -> None:
    """Plug a device into the running guest; call it under the domain's lock. For errors see :func:`attach`."""
    _require_hotplug(run, "plug")
    with domain.monitor() as session, Undo() as undo, ExitStack() as opened:
        kind.sweep(run, session)
        entry = kind.plug(Site(domain, run, session, undo, opened), device)
        if entry["id"] not in peripherals(session):
            shown = entry[kind.key]
            raise NotReached(f"QEMU took the {kind.name} {shown} but does not show it", asked=shown, reached=None)
        undo.commit()


def _require_hotplug(run: Run, what: str) -> None:
    machine = spec.Machine(run.record["machine"])
    if not machine.hotplugs_pci:
        raise InvalidState(f"machine {machine} can't {what} devices while it runs")
    run.require_sound()


def detach(
    domain: Handle,
    kind: Kind[D],
    choose: Callable[[Sequence[D]], D],
    *,
    scope: Scope = Scope.CURRENT,
    timeout: float = TIMEOUT,
    wait: bool = True,
) -> None:
    """Unplug a device from the running guest, the definition, or both; an error undoes both.

    :param choose: picks a device, or raises that there is none. The devices of a running guest have their ids as
        aliases. It picks from the definition only if the guest's device is not to be unplugged.
    :raises NotReached: the guest did not release it within ``timeout`` seconds; what it uses stays open.
    """
    with domain.lock(), Undo() as undo:
        wanted = domain.resolve(scope)
        entry: dict[str, Any] = {}
        if wanted.live:
            run = domain.live
            with domain.monitor() as session:
                kind.sweep(run, session)
            entries = {one[kind.key]: one for one in run.devices(kind.part)}
            entry = entries[getattr(choose([_told(kind, one) for one in entries.values()]), kind.key)]
        if wanted.config:
            listed = getattr(domain.definition, kind.part)
            same = [one for one in listed if entry and getattr(one, kind.key) == entry[kind.key]]
            gone = same[0] if same else choose([] if entry else listed)
            kept = tuple(one for one in listed if one is not gone)
            definitions.change(domain, lambda present: replace(present, **{kind.part: kept}), undo)
        if wanted.live:
            unplug(domain, run, kind, entry, timeout=timeout, wait=wait)
        undo.commit()


def _told(kind: Kind[D], entry: dict[str, Any]) -> D:
    """Return the description of a running guest's device, with its id as alias."""
    return replace(toml.from_plain(entry["spec"], kind.described, "record"), alias=entry["id"])


def unplug(
    domain: Handle, run: Run, kind: Kind[D], entry: dict[str, Any], *, timeout: float = TIMEOUT, wait: bool = True
) -> None:
    """Unplug a device, and close what it used only when the guest has released it (DEVICE_DELETED).

    Call it under the domain's lock. For errors see :func:`detach`.
    """
    _require_hotplug(run, "unplug")
    with domain.monitor() as session, Undo() as undo:
        kind.before_release(run, session, entry, undo)
        _ask(run, session, entry, f"{kind.name} {entry[kind.key]}", timeout=timeout, wait=wait)
        undo.commit()
        if not wait:
            return
        kind.close(session, entry)
    kind.forget(run, entry)
    kind.await_gone(entry)


def _ask(run: Run, session: Session, entry: dict[str, Any], what: str, *, timeout: float, wait: bool) -> None:
    """Ask the guest to release a device (device_del); its entry remembers that it was asked.

    :raises NotReached: it can't go, or the guest did not release it within ``timeout`` seconds.
    """
    mark = journal.size(run.journal)
    try:
        session.execute("device_del", {"id": entry["id"]})
    except CommandRefused as error:
        # Asked before and not released yet: QEMU refuses to ask twice, but the guest may still answer.
        if not entry.get("asked"):
            raise NotReached(
                f"{what} can't be unplugged: {error.desc}", asked="gone", reached=what.rpartition(" ")[2]
            ) from error
    entry["asked"] = True
    write(run)
    if wait:
        _await_release(run, mark, entry["id"], what, timeout)


def _await_release(run: Run, mark: int, ident: str, what: str, timeout: float) -> None:
    try:
        event = run.await_event(
            mark,
            lambda event: (
                event.get("event") in ("DEVICE_DELETED", "DEVICE_UNPLUG_GUEST_ERROR")
                and event.get("data", {}).get("device") == ident
            ),
            timeout=timeout,
            what=f"release of {what}",
        )
    except NotReached as error:
        raise NotReached(
            f"guest did not release {what} within {timeout:g} s",
            asked="gone",
            reached=what.rpartition(" ")[2],
            hint="its system must have booted and know PCI hotplug; asking again waits again",
        ) from error
    if event["event"] != "DEVICE_DELETED":
        raise NotReached(f"guest refused to release {what}", asked="gone", reached=what.rpartition(" ")[2])


def peripherals(session: Session) -> set[str]:
    """Return the ids of the devices that QEMU has (qom-list of /machine/peripheral)."""
    return {child["name"] for child in session.execute("qom-list", {"path": "/machine/peripheral"})}


def forget(run: Run, part: DeviceKind, entry: dict[str, Any]) -> None:
    """Remove a device from the record."""
    run.record[part] = [other for other in run.record[part] if other["id"] != entry["id"]]
    write(run)


def quietly(step: Callable[..., object], *args: object) -> None:
    """Undo a step, and ignore that QEMU refuses: then there is nothing to undo any more.

    For example closefd finds nothing once netdev_add or chardev-add has taken the fd.
    """
    with suppress(CommandRefused):
        step(*args)
