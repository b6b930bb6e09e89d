"""Start what is marked for autostart when the machine boots, and shut all domains down when it halts.

qkvm has no daemon: a service of the host's init calls these functions, once at boot and once at halt.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from qkvm.domain import definition as definitions
from qkvm.domain.handle import Handle, names
from qkvm.errors import InvalidState, NotReached, QkvmError

if TYPE_CHECKING:
    from qkvm.paths import Tree

SHUTDOWN_TIMEOUT = 120.0
"""Seconds that all guests together have to power off."""


class Outcome(NamedTuple):
    """What was done with a 'domain', 'network' or 'pool' of a name, or why that failed."""

    kind: str
    name: str
    done: str
    error: QkvmError | None = None


def set_autostart(domain: Handle, on: bool, *, order: int | None = None, once: bool = False) -> None:
    """Have a domain start with the machine, or not (virsh autostart).

    :param once: change the mark for the next boot alone. :param order: domains with a lower number start earlier
        and are shut down later. :raises InvalidState: it is transient.
    """
    with domain.lock():
        if not domain.is_persistent:
            raise InvalidState("cannot set autostart for transient domain")
        chosen: dict[str, int] = {"autostart_once" if once else "autostart": on}
        if order is not None:
            chosen["autostart_order"] = order
        definitions.change(domain, lambda present: replace(present, **chosen))


def autostart_all(tree: Tree, tell: Callable[[Outcome], object]) -> None:
    """Start the marked networks, then pools, then domains that do not run yet. A failure does not stop the others.

    :param tell: called with each outcome.
    """
    from qkvm.net.network.handle import list_networks
    from qkvm.net.network.network import Network
    from qkvm.storage.pool.pool import list_pools

    for entry in list_networks(tree):
        if entry.autostart and not entry.active:
            tell(tried("network", entry.name, "started", Network(tree, entry.name).start))
    for pool in list_pools(tree):
        if pool.autostart and not pool.active:
            tell(tried("pool", pool.name, "started", pool.start))
    for domain in sorted(_marked(tree, tell), key=_order):
        if not domain.is_running:
            tell(tried("domain", domain.name, "started", partial(_start, domain)))


def _start(domain: Handle) -> None:
    """Start a domain and remove its mark for one boot, also where the start fails."""
    from qkvm.domain.life import start

    if domain.definition.autostart_once:
        set_autostart(domain, False, once=True)
    start.start(domain)


def shutdown_all(tree: Tree, tell: Callable[[Outcome], object], *, timeout: float = SHUTDOWN_TIMEOUT) -> None:
    """Shut down all domains, in the opposite order of their start; destroy those that miss the deadline.

    :param timeout: seconds for all of them. :param tell: called with each outcome.
    """
    deadline = time.monotonic() + timeout
    running = sorted((domain for name in names(tree) if (domain := Handle(tree, name)).is_running), key=_order)
    for _, group in groupby(reversed(running), key=lambda domain: _order(domain)[0]):
        _shut_down(list(group), deadline, tell)


def _shut_down(group: list[Handle], deadline: float, tell: Callable[[Outcome], object]) -> None:
    """Shut domains down at the same time, with one deadline for all."""
    from qkvm.domain.life import stop

    def end(domain: Handle) -> Outcome:
        left = max(0.0, deadline - time.monotonic())
        try:
            stop.shutdown(domain, wait=True, timeout=left)
            return Outcome("domain", domain.name, "has shut down")
        except InvalidState:
            return Outcome("domain", domain.name, "has shut down")
        except (NotReached, QkvmError) as error:
            # A paused guest, or one that ignores the power button, must not keep the machine from halting.
            outcome = tried("domain", domain.name, "destroyed", partial(stop.destroy, domain))
            return outcome if outcome.error is not None else outcome._replace(error=error)

    with ThreadPoolExecutor(max_workers=max(1, len(group))) as pool:
        for outcome in pool.map(end, group):
            tell(outcome)


def tried(kind: str, name: str, done: str, step: Callable[[], object]) -> Outcome:
    """Return the outcome of a step: ``done`` in words, or its error."""
    try:
        step()
        return Outcome(kind, name, done)
    except QkvmError as error:
        return Outcome(kind, name, "", error)


def _marked(tree: Tree, tell: Callable[[Outcome], object]) -> Iterable[Handle]:
    """Yield the marked domains; call ``tell`` for each damaged definition."""
    for name in names(tree):
        domain = Handle(tree, name)
        try:
            if domain.is_persistent and (domain.definition.autostart or domain.definition.autostart_once):
                yield domain
        except QkvmError as error:
            tell(Outcome("domain", name, "", error))


def _order(domain: Handle) -> tuple[int, str]:
    try:
        return domain.definition.autostart_order, domain.name
    except QkvmError:
        return 0, domain.name
