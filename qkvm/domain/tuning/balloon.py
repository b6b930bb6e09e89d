"""The guest's memory: the balloon, its statistics, the maximum."""

from __future__ import annotations

import time

from msgspec.structs import replace

from qkvm import units
from qkvm.domain import definition as definitions
from qkvm.domain.definition import together
from qkvm.domain.run import write
from qkvm.domain.tuning.balloonstats import guest_stats, resident_kib
from qkvm.errors import InvalidState, InvalidValue, NotReached
from qkvm.host import journal
from qkvm.qmp import commands
from qkvm.scope import Scope
from qkvm.spec import domain as spec
from qkvm.spec.size import Size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run
    from qkvm.files import Undo
    from qkvm.qmp.session import Session

BALLOON_TIMEOUT = 30.0
"""Seconds that a guest has to give back or take memory; 1 GiB takes about one."""

_SLOWEST = 10
"""How many times as long a guest has that comes nearer; one whose host is busy takes minutes."""

_DRIVER_TIMEOUT = 3.0
"""Seconds in which a driver that is asked every second must have answered; see _driver_speaks."""

_BALLOON = "/machine/peripheral/balloon0"
_STATS = (_BALLOON, "guest-stats")
_INTERVAL = (_BALLOON, "guest-stats-polling-interval")
_PAGE_KIB = 4  # The balloon moves whole pages (VIRTIO 1.2, 5.5).


def set_current(
    domain: Handle,
    kib: int,
    *,
    scope: Scope = Scope.CURRENT,
    timeout: float = BALLOON_TIMEOUT,
    wait: bool = True,
) -> int:
    """Change the balloon until the guest has ``kib`` KiB, and return the KiB that were reached.

    :param timeout: seconds for the guest to follow; one that comes nearer has up to ten times as many.
    :param wait: False only asks the guest.
    :raises InvalidValue: above the maximum. :raises NotReached: the guest has no driver, or did not follow.
    """
    _refuse_none(kib)
    kib = -(-kib // _PAGE_KIB) * _PAGE_KIB
    if kib < spec.MEMORY_MINIMUM_KIB:
        raise InvalidValue(f"memory of {units.format_size(kib)} is too little", hint="1 MiB or more")
    with domain.lock():
        wanted = domain.resolve(scope)
        run = domain.live if wanted.live else None
        if run is not None:
            _check_live(run, kib, wait=wait)
        if wanted.config:
            _refuse_above(kib, domain.definition.memory.maximum)
        reached = _set_live(domain, run, kib, timeout=timeout, wait=wait) if run is not None else kib
        if wanted.config:
            definitions.change(domain, lambda present: _with_current(present, kib))
    return reached


def set_maximum(domain: Handle, kib: int, *, scope: Scope = Scope.CURRENT) -> None:
    """Change the maximum of memory in the definition, and lower the current amount to fit.

    :raises InvalidState: live; QEMU can't resize the memory of a running guest.
    """
    _refuse_none(kib)
    with domain.lock():
        wanted = domain.resolve(scope)
        if wanted.live:
            raise InvalidState(
                "cannot resize the maximum memory on an active domain",
                hint="--config changes it for the next start",
            )
        definitions.change(domain, lambda present: _with_maximum(present, kib))


def _refuse_none(kib: int) -> None:
    if not kib:
        raise InvalidValue("memory must not be zero", hint="1 MiB or more")


def _with_current(present: spec.Domain, kib: int) -> spec.Domain:
    return replace(present, memory=replace(present.memory, current=Size(kib)))


def _with_maximum(present: spec.Domain, kib: int) -> spec.Domain:
    lowered = Size(min(present.memory.current, kib))
    return replace(present, memory=spec.Memory(current=lowered, maximum=Size(kib)))


def _refuse_above(kib: int, maximum: int) -> None:
    if kib > maximum:
        raise InvalidValue(
            "invalid argument: cannot set memory higher than max memory",
            hint=f"{units.format_size(kib)} asked, {units.format_size(maximum)} at most",
        )


def _check_live(run: Run, kib: int, *, wait: bool) -> None:
    _refuse_above(kib, int(run.record["memory"]["maximum"]))
    if definitions.started_with(run.record).balloon is None:
        raise InvalidState("domain has no memory balloon", hint="a [balloon] table in the definition gives one")
    if wait and run.state()[0] == "paused":
        raise InvalidState(
            "a paused guest can't move its balloon", hint="resume it first, or ask for later with --no-wait"
        )


def _set_live(domain: Handle, run: Run, kib: int, *, timeout: float, wait: bool) -> int:
    with domain.monitor() as session:
        before = commands.balloon(session)
        session.execute("balloon", {"value": kib * 1024})
        if not wait:
            return before
        reached = _follow(session, before, kib, timeout)
        # QEMU reports the balloon at most once a second; until then this observation is used.
        run.record["memory"] |= {"actual": reached, "since": journal.size(run.journal)}
        write(run)
        return reached


def _follow(session: Session, before: int, kib: int, timeout: float) -> int:
    """Wait until the balloon has its size, and return that. A slow guest that comes nearer has more time."""
    begun = time.monotonic()
    deadline, last = begun + timeout, begun + _SLOWEST * timeout
    reached, nearest = before, abs(kib - before)
    while reached != kib:
        if (now := time.monotonic()) >= deadline:
            raise _not_followed(session, before, kib, reached, now - begun)
        time.sleep(0.005)
        reached = commands.balloon(session)
        if (distance := abs(kib - reached)) < nearest:
            nearest, deadline = distance, min(time.monotonic() + timeout, last)
    return reached


def _not_followed(session: Session, before: int, kib: int, reached: int, seconds: float) -> NotReached:
    asked, got = units.format_size(kib), units.format_size(reached)
    if reached == before and not _driver_speaks(session):
        return NotReached(
            f"guest has no balloon driver: it has {got}, {asked} was asked",
            asked=kib,
            reached=reached,
            hint="Linux: modprobe virtio_balloon; the driver follows once it is loaded",
        )
    return NotReached(
        f"guest's balloon reached {got} of {asked} within {round(seconds, 1):g} s",
        asked=kib,
        reached=reached,
        hint="a guest gives back no memory that it needs",
    )


def _driver_speaks(session: Session) -> bool:
    """Return whether the guest's driver sends new statistics when it is asked every second."""
    before = commands.get(session, *_INTERVAL)
    first = _last_update(session)
    commands.put(session, *_INTERVAL, 1)
    try:
        deadline = time.monotonic() + _DRIVER_TIMEOUT
        while time.monotonic() < deadline:
            if _last_update(session) != first:
                return True
            time.sleep(0.05)
        return False
    finally:
        commands.put(session, *_INTERVAL, before)


def _last_update(session: Session) -> int:
    return int(commands.get(session, *_STATS)["last-update"])


def stats(domain: Handle) -> dict[str, int]:
    """Return statistics of memory under virsh's names (dommemstat); sizes are in KiB.

    ``rss`` is always there, ``actual`` with a balloon; the others come from the guest's driver.
    """
    with domain.lock():
        run = domain.live
        table: dict[str, int] = {}
        if definitions.started_with(run.record).balloon is not None:
            with domain.monitor() as session:
                table["actual"] = commands.balloon(session)
                table |= guest_stats(commands.get(session, *_STATS))
        table["rss"] = resident_kib(run.pid)
    return table


def set_period(domain: Handle, seconds: int, *, scope: Scope = Scope.CURRENT) -> None:
    """Set how many seconds apart the guest's driver is asked for statistics (dommemstat --period); 0 is never."""

    def balloon_of(present: spec.Domain) -> spec.Balloon:
        if present.balloon is None:
            raise InvalidState("domain has no memory balloon")
        return present.balloon

    def live(run: Run, undo: Undo) -> None:
        balloon_of(definitions.started_with(run.record))
        with domain.monitor() as session:
            commands.put(session, *_INTERVAL, seconds)

    together(
        domain,
        scope,
        live,
        lambda present: replace(present, balloon=replace(balloon_of(present), stats_period=seconds)),
    )
