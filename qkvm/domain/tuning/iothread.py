"""Add, change and remove iothreads: threads of QEMU beside its main one that serve disks.

Each is an object of QEMU (object-add, object-del, qom-set); whether it exists is seen by its thread.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from msgspec.structs import replace

from qkvm.domain.definition import together
from qkvm.domain.run import write
from qkvm.domain.tuning import place, threads, tuned
from qkvm.errors import CommandRefused, InvalidState, InvalidValue, NotReached
from qkvm.files import Undo
from qkvm.qmp import commands
from qkvm.scope import Scope
from qkvm.spec import domain as spec
from qkvm.spec import toml

if TYPE_CHECKING:
    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run
    from qkvm.qmp.session import Session

SETTINGS = ("poll_max_ns", "poll_grow", "poll_shrink", "thread_pool_min", "thread_pool_max")
"""Settings of an iothread; QEMU's names have hyphens."""

_SEEN_TIMEOUT = 5.0
"""Seconds until a thread exists, or has ended, after QEMU's answer; it takes less than a millisecond."""


def live(run: Run) -> tuple[spec.IoThread, ...]:
    """Return the present iothreads of a running guest with their settings."""
    return tuned.listed(run, "iothreads", spec.IoThread)


def _remember(run: Run, listed: tuple[spec.IoThread, ...]) -> None:
    run.record["iothreads"] = [toml.to_plain(thread) for thread in listed]
    write(run)


def add(domain: Handle, number: int, *, scope: Scope = Scope.CURRENT) -> None:
    """Add an iothread to the running guest, the definition, or both.

    :raises InvalidValue: there is one of that number.
    """
    thread = spec.IoThread(id=number)
    spec.check_iothreads((thread,))

    def edit(old: spec.Domain) -> spec.Domain:
        _refuse_twice(old.iothreads, number)
        return replace(old, iothreads=(*old.iothreads, thread))

    together(domain, scope, lambda run, undo: _add_live(domain, run, thread, undo), edit)


def _refuse_twice(listed: tuple[spec.IoThread, ...], number: int) -> None:
    if any(thread.id == number for thread in listed):
        raise InvalidValue(f"invalid argument: an IOThread is already using iothread_id '{number}'")


def _add_live(domain: Handle, run: Run, thread: spec.IoThread, undo: Undo) -> None:
    # What shows a domain reads its iothreads here, and is to load nothing that plugs.
    from qkvm.qemu import launch

    before = live(run)
    _refuse_twice(before, thread.id)
    undo.add(_remember, run, before)
    _remember(run, (*before, thread))
    with domain.monitor() as session:
        session.execute("object-add", launch.iothread_object(thread))
    undo.add(_remove_object, domain, thread.id)
    _await(run, thread.id, there=True)
    place.settle_new(run, "iothread", thread.id)


def _remove_object(domain: Handle, number: int) -> None:
    with domain.monitor() as session:
        session.execute("object-del", {"id": f"iothread{number}"})


def _await(run: Run, number: int, *, there: bool) -> None:
    deadline = time.monotonic() + _SEEN_TIMEOUT
    while (number in threads.of_process(run.pid).iothreads) != there:
        if time.monotonic() >= deadline:
            raise NotReached(
                f"QEMU did as asked, but iothread {number} is {'not there' if there else 'still there'}",
                asked=there,
                reached=not there,
            )
        time.sleep(0.002)


def remove(domain: Handle, number: int, *, scope: Scope = Scope.CURRENT) -> None:
    """Remove an iothread from the running guest, the definition, or both.

    :raises InvalidValue: there is none of that number. :raises InvalidState: it serves a disk.
    """
    together(domain, scope, lambda run, _: _remove_live(domain, run, number), lambda old: _without(old, number))


def _without(present: spec.Domain, number: int) -> spec.Domain:
    _refuse_missing(present.iothreads, number)
    for what, used in [(f"disk '{disk.target}'", disk.iothread) for disk in present.disks] + [
        (f"controller {one.type} {one.index}", one.iothread) for one in present.controllers
    ]:
        if used == number:
            raise _in_use(number, what)
    pins = {key: cpus for key, cpus in present.cputune.iothread_pins.items() if key != str(number)}
    return replace(
        present,
        iothreads=tuple(thread for thread in present.iothreads if thread.id != number),
        cputune=replace(present.cputune, iothread_pins=pins),
    )


def _in_use(number: int, what: str) -> InvalidState:
    return InvalidState(f"cannot remove IOThread {number} since it is being used by {what}")


def _refuse_missing(listed: tuple[spec.IoThread, ...], number: int) -> None:
    if not any(thread.id == number for thread in listed):
        raise InvalidValue(
            f"invalid argument: cannot find IOThread '{number}' in iothreadids list", hint="see iothreadinfo"
        )


def _remove_live(domain: Handle, run: Run, number: int) -> None:
    before = live(run)
    _refuse_missing(before, number)
    try:
        _remove_object(domain, number)
    except CommandRefused as error:
        if "in use" in error.desc:
            raise _in_use(number, "a device") from error
        raise
    _await(run, number, there=False)
    _remember(run, tuple(thread for thread in before if thread.id != number))


def change(domain: Handle, number: int, settings: dict[str, int], *, scope: Scope = Scope.CURRENT) -> None:
    """Change settings of an iothread (see :data:`SETTINGS`) in the running guest, the definition, or both.

    :raises InvalidValue: there is none of that number, or QEMU refuses a value.
    """

    def edit(old: spec.Domain) -> spec.Domain:
        _refuse_missing(old.iothreads, number)
        return replace(old, iothreads=_with(old.iothreads, number, settings))

    together(domain, scope, lambda run, undo: _change_live(domain, run, number, settings, undo), edit)


def _with(listed: tuple[spec.IoThread, ...], number: int, settings: dict[str, int]) -> tuple[spec.IoThread, ...]:
    return tuple(replace(thread, **settings) if thread.id == number else thread for thread in listed)


def _change_live(domain: Handle, run: Run, number: int, settings: dict[str, int], undo: Undo) -> None:
    before = live(run)
    _refuse_missing(before, number)
    with domain.monitor() as session:
        present = {name: _get(session, number, name) for name in SETTINGS}
        undo.add(_change_all, domain, number, present)
        undo.add(_remember, run, before)
        _set(session, number, settings, present)
    _remember(run, _with(before, number, settings))


def _change_all(domain: Handle, number: int, settings: dict[str, int]) -> None:
    with domain.monitor() as session:
        _set(session, number, settings, {name: _get(session, number, name) for name in SETTINGS})


def _get(session: Session, number: int, name: str) -> int:
    return int(commands.get(session, *_property(number, name)))


def _property(number: int, name: str) -> tuple[str, str]:
    return f"/objects/iothread{number}", name.replace("_", "-")


def _set(session: Session, number: int, settings: dict[str, int], present: dict[str, int]) -> None:
    """Set values in an order in which the pool's minimum is never above its maximum."""
    names = sorted(settings)
    if settings.get("thread_pool_min", 0) > present["thread_pool_max"]:
        names.sort(key=lambda name: name == "thread_pool_min")
    else:
        names.sort(key=lambda name: name != "thread_pool_min")
    for name in names:
        if settings[name] != present[name]:
            try:
                commands.put(session, *_property(number, name), settings[name])
            except CommandRefused as error:
                raise InvalidValue(f"invalid argument: iothread {number}: {error.desc}") from error
