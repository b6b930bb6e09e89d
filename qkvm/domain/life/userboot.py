"""A user's own guests at the machine's boot and halt: a unit of their systemd, in XDG's place for such."""

from __future__ import annotations

import os

from qkvm.domain.life.autostart import MARK, SHUTDOWN_TIMEOUT, Service, count_as_started
from qkvm.errors import HostError
from qkvm.host import process
from qkvm.host.systemd import unit

_UNIT = """\
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
# Guests are not this service's to end, but by the line above.
KillMode=process

[Install]
WantedBy=default.target
"""

_NAME = unit.SERVICE


def service(program: str, *, init: str = "", timeout: int = int(SHUTDOWN_TIMEOUT)) -> Service:
    """The service that starts and stops the user's guests, as that of the host does all (see autostart).

    :raises HostError: for an init that starts nothing of users.
    """
    if init not in ("", "systemd"):
        raise HostError(
            f"an init of type {init} starts nothing for users",
            hint="systemd; or crontab: @reboot qkvm autostart-all",
        )
    config = os.environ.get("XDG_CONFIG_HOME", "")
    folder = config if config.startswith("/") else os.path.expanduser("~/.config")
    # The user's systemd has the environment of no shell, and would take the tree for another than the user's own.
    data = os.environ.get("XDG_DATA_HOME", "")
    data = f'Environment="XDG_DATA_HOME={data.replace("%", "%%")}"\n' if data.startswith("/") else ""
    text = _UNIT.format(mark=MARK, program=program, timeout=timeout, patience=timeout + 30, data=data)
    return Service(
        "systemd", os.path.join(folder, "systemd/user", _NAME), text, ("systemctl", "--user", "enable", _NAME)
    )


def switch(wanted: Service, *, on: bool) -> bool:
    """Switch the service on or off in the user's systemd; False where none runs for them."""
    runtime = unit.runtime_folder()
    if not os.path.exists(os.path.join(runtime, "systemd/private")):
        return False
    systemctl = unit.as_user(process.find_program("systemctl", "the service", "systemd"))
    process.run([*systemctl, "enable" if on else "disable", _NAME])
    if on:
        count_as_started(systemctl, os.path.join(runtime, "systemd/user"))
    return True
