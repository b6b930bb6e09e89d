"""Users of a host with systemd: guests beyond the end of a login, a boot of the user's own, a network of root's.

A login here is a session of logind's, made by PAM as sshd and login make theirs.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator

import pytest

from tests.machine.hosting import HALT, NIC, ROOT, USER, define, pid, ready, shown, start, unit
from tests.machine.machine import Machine

GUEST = "mine"

KILL = "/etc/systemd/logind.conf.d/kill.conf"


def login(host: Machine, command: str, *, user: str = USER) -> str:
    """What a command prints that a user runs in a session of their own, which ends with it."""
    words = (
        "systemd-run",
        "--quiet",
        "--wait",
        "--pipe",
        "--collect",
        "-p",
        "PAMName=login",
        "-p",
        f"User={user}",
        "-E",
        "XDG_SESSION_CLASS=user",
        "-E",
        "XDG_SESSION_TYPE=tty",
        "--",
        "bash",
        "-lc",
        command,
    )
    return host.sh(shlex.join(words))


def start_at_login(host: Machine, *, user: str = USER) -> tuple[int, str]:
    """Start the guest from a login that has ended by now; gives its pid and the session's scope."""
    said = login(
        host,
        f"qkvm -q start {GUEST} >/dev/null && pgrep -x qemu-system-x86 && cat /proc/self/cgroup",
        user=user,
    ).splitlines()
    session = said[-1].rpartition("/")[2]
    assert len(said) == 2 and session.startswith("session-"), said
    return int(said[0]), session


def see_end(host: Machine, session: str) -> None:
    """Wait until nothing of a session is left."""
    host.sh(f"while systemctl is-active --quiet {session}; do sleep 0.1; done", timeout=120)


def lives(host: Machine, number: int) -> bool:
    return host.run(f"grep -qx qemu-system-x86 /proc/{number}/comm").returncode == 0


@pytest.fixture(scope="module")
def killing(host: Machine) -> Iterator[None]:
    """From now on logind ends all processes of a session with it, root's too."""
    host.sh(
        f"mkdir -p $(dirname {KILL}) && printf '[Login]\\nKillUserProcesses=yes\\nKillExcludeUsers=\\n' >{KILL} "
        "&& systemctl restart systemd-logind"
    )
    yield
    host.sh(f"rm {KILL} && systemctl restart systemd-logind")


@pytest.fixture(scope="module", autouse=True)
def guests(host: Machine) -> None:
    """The same guest for root and for the user."""
    for user in (ROOT, USER):
        define(host, GUEST, user=user)


def test_a_users_guest_stays_in_the_session_that_started_it(host: Machine) -> None:
    """It outlives the login, and the user finds it in the next one: logind keeps what belongs to the session."""
    number, session = start_at_login(host)
    assert unit(host, GUEST, user=USER) == ""
    assert session in host.sh(f"cat /proc/{number}/cgroup")
    assert "closing" in host.sh(f"loginctl show-user {USER} -p State")
    assert GUEST in login(host, "qkvm list --name")
    assert lives(host, number)
    login(host, f"qkvm destroy {GUEST}")
    see_end(host, session)


def test_roots_guest_survives_a_login_whose_processes_are_killed(host: Machine, killing: None) -> None:
    number, session = start_at_login(host, user=ROOT)
    see_end(host, session)
    assert lives(host, number)
    host.qkvm(f"destroy {GUEST}")


def test_a_users_guest_ends_with_a_login_whose_processes_are_killed(host: Machine, killing: None) -> None:
    number, session = start_at_login(host)
    see_end(host, session)
    assert not lives(host, number)
    assert login(host, "qkvm list --name").strip() == ""


def test_a_guest_of_a_user_who_lingers_has_a_scope(host: Machine, killing: None) -> None:
    """It survives the login that started it, and takes limits, as guests of root's do."""
    host.sh(f"loginctl enable-linger {USER}")
    number, session = start_at_login(host)
    see_end(host, session)
    assert lives(host, number)
    scope = unit(host, GUEST, user=USER)
    assert scope.startswith("'machine-qkvm\\x2d") and scope.endswith(f"\\x2d{GUEST}.scope'")
    seen = shown(host, scope, "Slice", "Before", "ControlGroup", user=USER)
    assert seen["Slice"] == "machine.slice" and "qkvm.service" in seen["Before"].split()
    assert host.sh(f"cat /proc/{number}/cgroup").strip() == f"0::{seen['ControlGroup']}"
    login(host, f"qkvm schedinfo {GUEST} cpu_shares=200 && qkvm memtune {GUEST} --hard-limit 380M")
    group = f"/sys/fs/cgroup{seen['ControlGroup']}"
    assert host.sh(f"cd {shlex.quote(group)} && cat cpu.weight memory.max").split() == ["200", str(380 << 20)]
    assert shown(host, scope, "CPUWeight", "MemoryMax", user=USER) == {
        "CPUWeight": "200",
        "MemoryMax": str(380 << 20),
    }
    login(host, f"qkvm destroy {GUEST}")
    host.sh(f"while test -e {shlex.quote(group)}; do sleep 0.1; done", timeout=60)


def test_a_users_own_unit(host: Machine) -> None:
    """It shuts down all guests that run and starts those that are marked, wherever they were started."""
    login(host, f"qkvm autostart {GUEST}")
    said = login(host, f"qkvm setup-boot --timeout {HALT} 2>&1")
    assert said.strip() == f"/home/{USER}/.config/systemd/user/qkvm.service written"
    # It is in charge of the halt from now on, though nothing was started by that.
    assert shown(host, "qkvm.service", "ActiveState", user=USER) == {"ActiveState": "active"}
    assert login(host, "qkvm list --name").strip() == ""
    start(host, GUEST, user=USER)
    ready(host, GUEST, user=USER)
    number = pid(host, GUEST, user=USER)
    login(host, "systemctl --user stop qkvm.service")
    assert not lives(host, number)
    assert "shut off (shutdown)" in login(host, f"qkvm domstate {GUEST} --reason")
    login(host, "systemctl --user start qkvm.service")
    assert lives(host, pid(host, GUEST, user=USER))
    assert unit(host, GUEST, user=USER)
    login(host, f"qkvm destroy {GUEST}")


def test_a_network_of_roots_by_the_socket(host: Machine) -> None:
    """systemd starts root's helper for the user's connection; nothing of it stays."""
    define(host, "linked", NIC, user=USER)
    host.qkvm("net-start default")
    assert "qkvm net-grant default user" in host.fails("start linked", user=USER)
    host.qkvm(f"net-grant default {USER}")
    assert shown(host, "qkvm-tap.socket", "ActiveState", "UnitFileState") == {
        "ActiveState": "active",
        "UnitFileState": "enabled",
    }
    start(host, "linked", user=USER)
    tap = host.qkvm("-q domiflist linked", user=USER).split()[0]
    assert "virbr0" in host.sh(f"ip -o link show master virbr0 dev {tap}")
    host.sh("until ! systemctl list-units --plain --no-legend 'qkvm-tap@*' | grep -q .; do sleep 0.1; done")
    assert f"{tap} on virbr0" in host.sh("journalctl -q -b -o cat -u 'qkvm-tap@*'")
    assert "192.168.122." in host.qkvm(f"domifaddr linked --wait --timeout {HALT}", user=USER)
    host.qkvm(f"net-grant default {USER} --revoke")
    assert host.run(f"ip link show dev {tap}").returncode != 0
    assert host.run("ls /etc/systemd/system/qkvm-tap* /run/qkvm-tap.sock").returncode != 0
    host.qkvm("destroy linked", user=USER)
    host.qkvm("undefine linked", user=USER)
    host.qkvm("net-destroy default")
