"""A user's own guests at the machine's boot and halt: a unit of their systemd, in XDG's place for such."""

from __future__ import annotations

import os

from qkvm.domain.boot import MARK, SHUTDOWN_TIMEOUT, Service
from qkvm.errors import HostError
from qkvm.host import process

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

_NAME = "qkvm.service"


def service(program: str, *, init: str = "", timeout: int = int(SHUTDOWN_TIMEOUT)) -> Service:
    """The service that starts and stops the user's guests, as :func:`qkvm.domain.boot.service` is the host's.

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
    runtime = os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"
    if not os.path.exists(os.path.join(runtime, "systemd/private")):
        return False
    words = wanted.enable if on else tuple("disable" if word == "enable" else word for word in wanted.enable)
    env = process.find_program("env", "the service", "coreutils")
    process.run(
        [env, f"XDG_RUNTIME_DIR={runtime}", process.find_program(words[0], "the service", "systemd"), *words[1:]]
    )
    return True


def lingers() -> bool:
    """Whether the user's systemd runs from the boot on, and not only while they are logged in."""
    import pwd

    try:
        return os.path.exists(f"/var/lib/systemd/linger/{pwd.getpwuid(os.geteuid()).pw_name}")
    except KeyError:
        return False
