"""The service of the host's init or of a user's systemd: it starts guests at boot and shuts them down at halt."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from qkvm.domain.life.autostart import SHUTDOWN_TIMEOUT
from qkvm.errors import AlreadyExists, HostError, MissingProgram
from qkvm.files import os_error, read_bytes, remove, write_atomic
from qkvm.host import process
from qkvm.host.systemd import unit

if TYPE_CHECKING:
    from qkvm.paths import Tree

_RUNTIME_UNITS = "/run/systemd/system"
"""systemd's folder of units for this boot; it exists where systemd is the init (sd_booted(3))."""

_MARK = "# Written by qkvm setup-boot, which also takes it away."
"""A line of every service file that qkvm writes."""

_UNIT = """\
{mark}
[Unit]
Description=qkvm: guests that start with this machine
Wants=network-online.target
# After programs that would remove the rules of guests and networks.
After=network-online.target local-fs.target remote-fs.target
After=firewalld.service nftables.service iptables.service docker.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart={program} autostart-all
ExecStop={program} shutdown-all --timeout {timeout}
TimeoutStartSec=infinity
TimeoutStopSec={patience}
# Only ExecStop ends guests and networks.
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

_USER_UNIT = """\
{mark}
[Unit]
Description=qkvm: guests of this user that start with the machine

[Service]
Type=oneshot
RemainAfterExit=yes
{data}\
ExecStart={program} autostart-all
ExecStop={program} shutdown-all --timeout {timeout}
TimeoutStartSec=infinity
TimeoutStopSec={patience}
# Only ExecStop ends guests.
KillMode=process

[Install]
WantedBy=default.target
"""


class Service(NamedTuple):
    """A service file for an init: where it goes, its text, and how it is switched on."""

    init: str
    path: str
    text: str
    enable: tuple[str, ...]


def wanted(tree: Tree, program: str, *, init: str = "", timeout: int = int(SHUTDOWN_TIMEOUT)) -> Service:
    """Return the service for a tree: a user's for the tree of a user, else the host's.

    :param program: the command line of qkvm. :param init: 'systemd' or 'sysv'; '' for the one this host runs.
    :param timeout: seconds that the guests have at halt.
    """
    if tree.is_session:
        return user_service(program, init=init, timeout=timeout)
    return service(tree, program, init=init, timeout=timeout)


def is_missing(tree: Tree) -> bool:
    """Whether nothing starts marked guests at boot, though the init of this host could (see qkvm setup-boot)."""
    if tree.is_session:
        return os.path.isdir(_RUNTIME_UNITS) and not os.path.lexists(user_service("").path)
    if tree.root != "/":
        return False
    could = os.path.isdir(_RUNTIME_UNITS) or read_bytes("/proc/1/comm") == b"init\n"
    return could and not any(os.path.lexists(service(tree, "", init=init).path) for init in ("systemd", "sysv"))


def install(tree: Tree, wanted: Service) -> list[str]:
    """Write the service's file and switch the service on; return warnings (qkvm setup-boot).

    :raises AlreadyExists: somebody else's file is there. :raises HostError: it can't be written.
    """
    install_service(wanted)
    warnings = []
    if not _switch(tree, wanted, on=True):
        warnings.append(f"it is not switched on: {' '.join(wanted.enable)}")
    if tree.is_session and not unit.lingers():
        warnings.append(
            "it runs from your first login to your last logout, not from the boot on: loginctl enable-linger"
        )
    return warnings


def uninstall(tree: Tree, wanted: Service) -> bool:
    """Switch the service off and remove its file; return whether there was one.

    :raises AlreadyExists: it was not written by qkvm.
    """
    _switch(tree, wanted, on=False)
    return remove_service(wanted)


def _switch(tree: Tree, wanted: Service, *, on: bool) -> bool:
    """Do it in the init that serves the tree; one under another root has none."""
    if tree.is_session:
        return switch_for_user(wanted, on=on)
    return tree.root == "/" and switch(wanted, on=on)


def service(tree: Tree, program: str, *, init: str = "", timeout: int = int(SHUTDOWN_TIMEOUT)) -> Service:
    """Return the service that starts and stops the tree's guests with this machine.

    :param program: the command line of qkvm. :param init: 'systemd' or 'sysv'; '' for the one this host runs.
    :param timeout: seconds that the guests have at halt.
    """
    chosen = init or ("systemd" if os.path.isdir(_RUNTIME_UNITS) else "sysv")
    fields = {"mark": _MARK, "program": program, "timeout": timeout, "patience": timeout + 30}
    if chosen == "systemd":
        path = os.path.join(tree.root, "etc/systemd/system/qkvm.service")
        return Service(chosen, path, _UNIT.format(**fields), ("systemctl", "enable", "qkvm.service"))
    path = os.path.join(tree.root, "etc/init.d/qkvm")
    return Service(chosen, path, _SCRIPT.format(**fields), ("update-rc.d", "qkvm", "defaults"))


def install_service(wanted: Service) -> None:
    """Write the service file; one that qkvm wrote before is replaced.

    :raises AlreadyExists: somebody else's file is there. :raises HostError: it can't be written.
    """
    _refuse_foreign(wanted.path)
    try:
        os.makedirs(os.path.dirname(wanted.path), mode=0o755, exist_ok=True)
    except OSError as error:
        raise HostError(f"cannot make {os.path.dirname(wanted.path)}: {os.strerror(error.errno or 0)}") from error
    write_atomic(wanted.path, wanted.text, 0o644 if wanted.init == "systemd" else 0o755)


def remove_service(wanted: Service) -> bool:
    """Remove the service file; return whether there was one.

    :raises AlreadyExists: it was not written by qkvm.
    """
    if not os.path.lexists(wanted.path):
        return False
    _refuse_foreign(wanted.path)
    remove(wanted.path)
    return True


def switch(wanted: Service, *, on: bool) -> bool:
    """Switch the service on or off in the host's init; return False where the init's program is missing."""
    words = {"enable": "disable", "defaults": "remove"}
    argv = list(wanted.enable) if on else [words.get(word, word) for word in wanted.enable]
    try:
        program = process.find_program(argv[0], "the service", "init-system-helpers")
        process.run([program, *argv[1:]])
    except MissingProgram:
        return False
    if on and wanted.init == "systemd" and os.path.isdir(_RUNTIME_UNITS):
        _count_as_started([program], _RUNTIME_UNITS)
    return True


def user_service(program: str, *, init: str = "", timeout: int = int(SHUTDOWN_TIMEOUT)) -> Service:
    """Return the service of the user's own systemd that starts and stops their guests.

    :raises HostError: the init is not systemd.
    """
    if init not in ("", "systemd"):
        raise HostError(
            f"an init of type {init} starts nothing for users",
            hint="systemd; or crontab: @reboot qkvm autostart-all",
        )
    config = os.environ.get("XDG_CONFIG_HOME", "")
    folder = config if config.startswith("/") else os.path.expanduser("~/.config")
    # The user's systemd does not have a shell's environment: without this line it would use another tree.
    data = os.environ.get("XDG_DATA_HOME", "")
    data = f'Environment="XDG_DATA_HOME={data.replace("%", "%%")}"\n' if data.startswith("/") else ""
    text = _USER_UNIT.format(mark=_MARK, program=program, timeout=timeout, patience=timeout + 30, data=data)
    return Service(
        "systemd",
        os.path.join(folder, "systemd/user", unit.SERVICE),
        text,
        ("systemctl", "--user", "enable", unit.SERVICE),
    )


def switch_for_user(wanted: Service, *, on: bool) -> bool:
    """Switch the service on or off in the user's systemd; return False where none runs."""
    runtime = unit.runtime_folder()
    if not os.path.exists(os.path.join(runtime, "systemd/private")):
        return False
    systemctl = unit.as_user(process.find_program("systemctl", "the service", "systemd"))
    process.run([*systemctl, "enable" if on else "disable", unit.SERVICE])
    if on:
        _count_as_started(systemctl, os.path.join(runtime, "systemd/user"))
    return True


def _count_as_started(systemctl: list[str], units: str) -> None:
    """Make systemd regard the service as started, so that it stops the guests when this boot ends.

    No guest is started: a drop-in replaces the command of the service for this one time.

    :param systemctl: the command line of systemctl. :param units: systemd's folder of units for this boot.
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
    if raw is not None and _MARK.encode() not in raw:
        raise AlreadyExists(f"{path} is there already and was not written by qkvm", hint="move it out of the way")
