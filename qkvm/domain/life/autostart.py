"""The machine's boot and halt: start what is marked for it, in order, and shut all down in the opposite one.

There is no daemon that would do so: a service of the host's init calls these once at boot and once at halt.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from qkvm.domain import definition as definitions
from qkvm.domain.handle import Handle, names
from qkvm.errors import AlreadyExists, HostError, InvalidState, MissingProgram, NotReached, QkvmError
from qkvm.files import os_error, read_bytes, remove, write_atomic
from qkvm.host import process
from qkvm.host.systemd import unit

if TYPE_CHECKING:
    from qkvm.paths import Tree

SHUTDOWN_TIMEOUT = 120.0
"""Seconds that all guests together have to power off."""

_RUNTIME_UNITS = "/run/systemd/system"
"""Where units lie that are gone after a boot; it is there where systemd is the init (sd_booted(3))."""

MARK = "# Written by qkvm setup-boot, which also takes it away."
"""A line of every service file that qkvm writes."""


class Outcome(NamedTuple):
    """What became of one: 'domain', 'network' or 'pool', its name, what was done, or why it failed."""

    kind: str
    name: str
    done: str
    error: QkvmError | None = None


def set_autostart(domain: Handle, on: bool, *, order: int | None = None, once: bool = False) -> None:
    """Have a domain start with the machine, or not (virsh autostart).

    :param once: at the next boot alone; what holds for all boots stays.
    :param order: domains of a lower number start earlier and are shut down later.
    :raises InvalidState: it is transient.
    """
    with domain.lock():
        if not domain.is_persistent:
            raise InvalidState("cannot set autostart for transient domain")
        chosen: dict[str, int] = {"autostart_once" if once else "autostart": on}
        if order is not None:
            chosen["autostart_order"] = order
        definitions.change(domain, lambda present: replace(present, **chosen))


def autostart_all(tree: Tree, tell: Callable[[Outcome], object]) -> None:
    """Start the networks, pools and then the domains that are marked for it; what runs already is left as it is.

    One that fails does not keep the others from starting.

    :param tell: hears of each as it is done.
    """
    from qkvm.net.network.handle import list_networks
    from qkvm.net.network.network import Network
    from qkvm.storage.pool.pool import list_pools

    for entry in list_networks(tree):
        if entry.autostart and not entry.active:
            tell(_tried("network", entry.name, "started", Network(tree, entry.name).start))
    for pool in list_pools(tree):
        if pool.autostart and not pool.active:
            tell(_tried("pool", pool.name, "started", pool.start))
    for domain in sorted(_marked(tree, tell), key=_order):
        if not domain.is_running:
            tell(_tried("domain", domain.name, "started", partial(_start, domain)))


def _start(domain: Handle) -> None:
    """Start a domain at the machine's boot; what was marked for one boot is so no longer, also where it fails."""
    # The text of a service is asked for where the package is built, without what a start needs.
    from qkvm.domain.life import start

    if domain.definition.autostart_once:
        set_autostart(domain, False, once=True)
    start.start(domain)


def shutdown_all(tree: Tree, tell: Callable[[Outcome], object], *, timeout: float = SHUTDOWN_TIMEOUT) -> None:
    """Shut down every domain that runs, those that start last first, within one deadline; then end the rest.

    :param timeout: seconds for all of them. :param tell: hears of each as it is done.
    """
    deadline = time.monotonic() + timeout
    running = sorted((domain for name in names(tree) if (domain := Handle(tree, name)).is_running), key=_order)
    for _, group in groupby(reversed(running), key=lambda domain: _order(domain)[0]):
        _shut_down(list(group), deadline, tell)


def _shut_down(group: list[Handle], deadline: float, tell: Callable[[Outcome], object]) -> None:
    """Shut domains down side by side: the deadline is one for all."""
    from qkvm.domain.life import stop

    def end(domain: Handle) -> Outcome:
        left = max(0.0, deadline - time.monotonic())
        try:
            stop.shutdown(domain, wait=True, timeout=left)
            return Outcome("domain", domain.name, "has shut down")
        except InvalidState:
            return Outcome("domain", domain.name, "has shut down")
        except (NotReached, QkvmError) as error:
            # A paused guest, or one that does not listen: the machine goes down with it or without it.
            outcome = _tried("domain", domain.name, "destroyed", partial(stop.destroy, domain))
            return outcome if outcome.error is not None else outcome._replace(error=error)

    with ThreadPoolExecutor(max_workers=max(1, len(group))) as pool:
        for outcome in pool.map(end, group):
            tell(outcome)


def _tried(kind: str, name: str, done: str, step: Callable[[], object]) -> Outcome:
    try:
        step()
        return Outcome(kind, name, done)
    except QkvmError as error:
        return Outcome(kind, name, "", error)


def _marked(tree: Tree, tell: Callable[[Outcome], object]) -> Iterable[Handle]:
    """The domains that are marked; a damaged definition is told of and does not hide the others."""
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


# The host's own service.

_UNIT = """\
{mark}
[Unit]
Description=qkvm: guests that start with this machine
Wants=network-online.target
# Their rules come after those of others who would throw them away.
After=network-online.target local-fs.target remote-fs.target
After=firewalld.service nftables.service iptables.service docker.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={program} autostart-all
ExecStop={program} shutdown-all --timeout {timeout}
TimeoutStartSec=infinity
TimeoutStopSec={patience}
# Guests and networks are not this service's to end, but by the line above.
KillMode=process
# What it prints is in the journal already, with the names as fields.
StandardOutput=null

[Install]
WantedBy=multi-user.target
"""

_SCRIPT = """\
#!/bin/sh
{mark}
### BEGIN INIT INFO
# Provides:          qkvm
# Required-Start:    $local_fs $network $remote_fs
# Required-Stop:     $local_fs $network $remote_fs
# Default-Start:     2 3 4 5
# Default-Stop:      0 1 6
# Short-Description: guests that start with this machine
### END INIT INFO

case "$1" in
start)
    exec {program} autostart-all
    ;;
stop)
    exec {program} shutdown-all --timeout {timeout}
    ;;
restart | force-reload)
    {program} shutdown-all --timeout {timeout}
    exec {program} autostart-all
    ;;
status)
    exec {program} list
    ;;
*)
    echo "usage: $0 start|stop|restart|status" >&2
    exit 2
    ;;
esac
"""


class Service(NamedTuple):
    """A service file for an init: where it goes, its text, and how it is switched on."""

    init: str
    path: str
    text: str
    enable: tuple[str, ...]


def service(tree: Tree, program: str, *, init: str = "", timeout: int = int(SHUTDOWN_TIMEOUT)) -> Service:
    """The service that starts and stops the guests with this machine.

    :param program: the command line of qkvm. :param init: 'systemd' or 'sysv'; '' for what this host runs.
    :param timeout: seconds that the guests have at halt.
    """
    chosen = init or ("systemd" if os.path.isdir(_RUNTIME_UNITS) else "sysv")
    fields = {"mark": MARK, "program": program, "timeout": timeout, "patience": timeout + 30}
    if chosen == "systemd":
        path = os.path.join(tree.root, "etc/systemd/system/qkvm.service")
        return Service(chosen, path, _UNIT.format(**fields), ("systemctl", "enable", "qkvm.service"))
    path = os.path.join(tree.root, "etc/init.d/qkvm")
    return Service(chosen, path, _SCRIPT.format(**fields), ("update-rc.d", "qkvm", "defaults"))


def install_service(wanted: Service) -> None:
    """Write the service file, in the place of one that qkvm wrote before.

    :raises AlreadyExists: somebody else's file is there. :raises HostError: it can't be written.
    """
    _refuse_foreign(wanted.path)
    try:
        os.makedirs(os.path.dirname(wanted.path), mode=0o755, exist_ok=True)
    except OSError as error:
        raise HostError(f"cannot make {os.path.dirname(wanted.path)}: {os.strerror(error.errno or 0)}") from error
    write_atomic(wanted.path, wanted.text, 0o644 if wanted.init == "systemd" else 0o755)


def remove_service(wanted: Service) -> bool:
    """Remove the service file that qkvm wrote; whether there was one.

    :raises AlreadyExists: what is there is somebody else's.
    """
    if not os.path.lexists(wanted.path):
        return False
    _refuse_foreign(wanted.path)
    remove(wanted.path)
    return True


def switch(wanted: Service, *, on: bool) -> bool:
    """Switch the service on or off in the host's init; False where its program is not there to do so."""
    words = {"enable": "disable", "defaults": "remove"}
    argv = list(wanted.enable) if on else [words.get(word, word) for word in wanted.enable]
    try:
        program = process.find_program(argv[0], "the service", "init-system-helpers")
        process.run([program, *argv[1:]])
    except MissingProgram:
        return False
    if on and wanted.init == "systemd" and os.path.isdir(_RUNTIME_UNITS):
        count_as_started([program], _RUNTIME_UNITS)
    return True


def count_as_started(systemctl: list[str], units: str) -> None:
    """Have systemd take the service for started, so that it stops the guests at the halt of this very boot.

    Nothing is started by that: for this one time another command stands in the service.

    :param systemctl: the command line that speaks to the systemd. :param units: its folder of units of this boot.
    """
    folder = os.path.join(units, f"{unit.SERVICE}.d")
    path = os.path.join(folder, "qkvm-setup-boot.conf")
    try:
        os.makedirs(folder, mode=0o755, exist_ok=True)
        write_atomic(path, "[Service]\nExecStart=\nExecStart=/bin/true\n", 0o644)
        process.run([*systemctl, "daemon-reload"])
        process.run([*systemctl, "start", unit.SERVICE])
    except OSError as error:
        raise os_error(error, f"cannot make {folder}") from error
    finally:
        remove(path)
        with suppress(OSError):
            os.rmdir(folder)
        process.run([*systemctl, "daemon-reload"])


def _refuse_foreign(path: str) -> None:
    raw = read_bytes(path)
    if raw is not None and MARK.encode() not in raw:
        raise AlreadyExists(f"{path} is there already and was not written by qkvm", hint="move it out of the way")
