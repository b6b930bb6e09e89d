"""What the tests of a whole host do with the guests in it, root's and a user's."""

from __future__ import annotations

import json

from tests.machine.machine import SHARE, Machine

ROOT, USER = "root", "user"
"""Whose guests: root's, and those of the user that scripts/make-host makes."""

# What the kernel writes would take half of the boot: each character is an exit of a KVM that is emulated.
DEFINITION = """name = "{name}"
machine = "q35"
accel = "kvm"
memory = {{ current = "96MiB", maximum = "96MiB" }}
vcpus = {{ current = 1, maximum = 2 }}
boot = {{ kernel = "/srv/vmlinuz", initrd = "/srv/initrd.img", cmdline = "console=ttyS0 quiet no_timer_check" }}
{body}"""

NIC = '[[nics]]\nmac = "52:54:00:00:bb:01"\nsource = "default"\n'

HALT = 900
"""Seconds that guests have at halt: their KVM is emulated, and the machine of the tests may be busy."""


def _tree(user: str) -> str:
    return "/" if user == ROOT else f"/home/{user}/.local/share/qkvm"


def _run(user: str, name: str) -> str:
    """The folder of a guest that runs."""
    return f"/run/qkvm/domains/{name}" if user == ROOT else f"{_tree(user)}/run/session/domains/{name}"


def define(host: Machine, name: str, body: str = "", *, user: str = ROOT) -> None:
    (host.share / f"{name}.toml").write_text(DEFINITION.format(name=name, body=body))
    host.qkvm(f"define {SHARE}/{name}.toml", user=user)


def start(host: Machine, *names: str, user: str = ROOT) -> None:
    """Start guests with an empty serial log each."""
    for name in names:
        host.sh(f"rm -f {_log(user, name)}")
        host.qkvm(f"start {name}", user=user)


def ready(host: Machine, *names: str, user: str = ROOT) -> None:
    """Wait until guests that :func:`start` has started are up; they say so on their serial lines."""
    for name in names:
        host.sh(f"until grep -q 'guest: ready' {_log(user, name)}; do sleep 0.2; done", timeout=HALT)


def _log(user: str, name: str) -> str:
    return f"{_tree(user)}/var/log/qkvm/{name}.serial.log"


def pid(host: Machine, name: str, *, user: str = ROOT) -> int:
    """The pid of a guest's QEMU, which must run."""
    number = int(host.sh(f"cat {_run(user, name)}/qemu.pid"))
    assert host.sh(f"cat /proc/{number}/comm") == "qemu-system-x86\n"
    return number


def unit(host: Machine, name: str, *, user: str = ROOT) -> str:
    """The unit that a guest's QEMU lives in, quoted for the shell; '' where it has none."""
    record = json.loads(host.sh(f"cat {_run(user, name)}/record.json"))
    return f"'{record['unit']}'" if "unit" in record else ""


def shown(host: Machine, name: str, *properties: str, user: str = ROOT) -> dict[str, str]:
    """Properties of a unit of root's or a user's systemd."""
    whose = "" if user == ROOT else f"--user --machine={user}@"
    text = host.sh(f"systemctl {whose} show {name} -p {','.join(properties)}")
    return dict(line.split("=", 1) for line in text.splitlines())
