"""The life of a domain: start, pause, reset, reboot, shut down, kill."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable

import pytest

from qkvm.api.domain import Domain
from qkvm.errors import InvalidState, NotFound, NotReached
from qkvm.host import process
from qkvm.net.link import table
from tests.guest.conftest import Lab, network_nic
from tests.guest.guest import Guest, wait_ready

Register = Callable[[Domain], Domain]


def test_a_whole_life(lab: Lab, domain_of: Register, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QKVM_TRACE", "1")
    domain = domain_of(lab.define("life", body=network_nic()))
    assert lab.ok("start life") == "Domain 'life' started\n\n"
    wait_ready(domain)
    run = domain.live
    assert domain.state == ("running", "booted")
    assert lab.ok(f"domname {run.id}").strip() == lab.ok(f"domname {domain.uuid}").strip() == "life"
    assert lab.ok("domid life").strip() == str(run.id)
    assert lab.ok("domuuid life").strip() == domain.uuid
    assert "already active" in lab.fails("start life")

    assert lab.ok("suspend life") == "Domain 'life' suspended\n\n"
    assert lab.ok("domstate life --reason") == "paused (user)\n\n"
    assert "paused" in lab.ok("list --state-paused") and "life" not in lab.ok("list --state-running")
    assert lab.ok("resume life") == "Domain 'life' resumed\n\n"
    assert domain.state == ("running", "unpaused")
    assert "already running" in lab.fails("resume life")

    pid = run.pid
    assert lab.ok("reset life") == "Domain 'life' was reset\n\n"
    # Its kernel has not begun: the button is pressed until somebody is there to hear it.
    assert lab.ok("reboot life") == "Domain 'life' is being rebooted\n\n"
    assert domain.live.pid == pid and domain.state[0] == "running", "a reboot keeps QEMU"

    assert lab.ok("shutdown life --wait") == "Domain 'life' has shut down\n\n"
    assert domain.state == ("shut off", "shutdown")
    assert lab.ok("domid life").strip() == "-"
    domain.start(paused=True)
    assert domain.state[0] == "paused" and domain.live.id > run.id
    domain.resume()
    with open(lab.host.tree.transcript("life"), encoding="utf-8") as stream:
        said = stream.read()
    for words in (
        r"suspend\[\d+\] > stop {}",
        r"reset\[\d+\] < system_reset {}",
        rf"\[{os.getpid()}\] < cont {{}}",
    ):
        assert re.search(words, said), words
    assert lab.ok("destroy life --remove-logs") == "Domain 'life' destroyed\n\n"
    assert not any(os.path.exists(log) for log in lab.host.tree.logs("life"))
    assert domain.state == ("shut off", "destroyed")
    assert "domain is not running" in lab.fails("destroy life")
    assert lab.ok("undefine life") == "Domain 'life' has been undefined\n\n"
    assert lab.fails("dominfo life") == "error: failed to get domain 'life'"
    assert not os.path.exists(lab.host.tree.serial_log("life"))


def test_a_guest_that_ignores_the_button(lab: Lab, domain_of: Register) -> None:
    domain = lab.boot(domain_of(lab.define("deaf", cmdline="ignore_powerbutton noagent")))
    with pytest.raises(NotReached, match="did not power off within 1 s"):
        domain.shutdown(wait=True, timeout=1)
    assert "did not power off within 1 s" in lab.fails("shutdown deaf --wait --timeout 1")
    with pytest.raises(NotReached, match="did not reboot within 1 s"):
        domain.reboot(timeout=1)
    assert domain.state == ("running", "booted")


def test_killed_qemu_leaves_nothing_that_stands_in_the_way(lab: Lab, domain_of: Register) -> None:
    domain = domain_of(lab.define("victim", body=network_nic()))
    domain.start()
    run, tap = domain.live, domain.nics.all()[0].interface
    assert run.pid is not None and table.present(tap)
    os.kill(run.pid, signal.SIGKILL)
    assert table.wait_gone(tap, 10)
    assert domain.state == ("shut off", "crashed")
    assert lab.ok("list --all --name").split() == ["victim"]
    # The dead one's sockets, pid file and record are still there.
    domain.start()
    assert domain.state == ("running", "booted") and domain.live.id == run.id + 1


def test_undefined_while_running(lab: Lab, domain_of: Register) -> None:
    domain = domain_of(lab.define("short"))
    domain.start()
    domain.undefine()
    assert not domain.is_persistent and domain.is_running
    assert "Persistent:     no" in lab.ok("dominfo short")
    assert "transient" in lab.fails("setmem short 300M --config")
    assert "transient" in lab.fails("undefine short")
    domain.destroy()
    assert not os.path.exists(lab.host.tree.domain_run("short"))
    with pytest.raises(NotFound):
        lab.host.domain("short")


def test_transient_that_ended_by_itself_is_collected(lab: Lab, domain_of: Register) -> None:
    domain = domain_of(lab.define("ghost"))
    domain.start()
    domain.undefine()
    pid = domain.live.pid
    assert pid is not None
    pidfd = process.open_pidfd(pid)
    assert pidfd is not None
    os.kill(pid, signal.SIGKILL)
    assert process.ended(pidfd, 10)
    os.close(pidfd)
    assert "ghost" not in lab.ok("list --all")
    assert lab.ok("gc") == "Domain 'ghost' collected\n\n"
    assert not os.path.exists(lab.host.tree.domain_run("ghost"))


def test_stopped_qemu_does_not_hang_anybody(
    lab: Lab, domain_of: Register, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reads answer at once, what needs the monitor says after its deadline that QEMU does not."""
    from qkvm.errors import MonitorTimeout
    from qkvm.qmp import session

    domain = domain_of(lab.define("frozen"))
    domain.start()
    pid = domain.live.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    begin = time.monotonic()
    assert "running" in lab.ok("list") and "running" in lab.ok("domstate frozen")
    assert "CPU(s):         1" in lab.ok("dominfo frozen")
    assert time.monotonic() - begin < 10
    monkeypatch.setattr(session, "CONNECT_TIMEOUT", 0.5)
    with pytest.raises(MonitorTimeout, match="gave no answer"):
        domain.suspend()
    domain.destroy()
    assert domain.state == ("shut off", "destroyed")


def test_no_reboot(lab: Lab, domain_of: Register) -> None:
    """on_reboot = "destroy": a guest that reboots has ended."""
    domain = lab.boot(domain_of(lab.define("once", on_reboot='"destroy"')))
    pid = domain.live.pid
    assert pid is not None
    pidfd = process.open_pidfd(pid)
    assert pidfd is not None
    with Guest(domain) as guest:
        guest.send("reboot -f")
        ended = process.ended(pidfd, 60)
    os.close(pidfd)
    assert ended
    assert not domain.is_running


def test_refusals_when_off(lab: Lab, domain_of: Register) -> None:
    domain = domain_of(lab.define("off"))
    assert lab.ok("list --all --id") == "\n", "of ids alone those that there are"
    assert lab.ok("list --all --id --name --uuid") == f"{domain.uuid} - off\n\n"
    for line in (
        "setvcpus off 1 --live",
        "setmem off 100M --live",
        "suspend off",
        "resume off",
        "reset off",
        "reboot off",
        "shutdown off",
        "destroy off",
        "dommemstat off",
        "console off",
        "domifaddr off",
        "attach-interface off network default --live",
        "qemu-monitor-command off --hmp info status",
    ):
        assert "domain is not running" in lab.fails(line), line
    for line in ("setmem off 0", "setmaxmem off 0", "setmem off 0 --config"):
        assert "memory must not be zero (1 MiB or more)" in lab.fails(line)


def test_two_at_once_get_their_own_names(lab: Lab, domain_of: Register) -> None:
    assert lab.ok("net-uuid default").strip() == lab.host.networks["default"].info().uuid
    first = domain_of(lab.define("one", body=network_nic("52:54:00:00:aa:11")))
    second = domain_of(lab.define("two", body=network_nic("52:54:00:00:aa:12")))
    first.start()
    second.start()
    taps = {first.nics.all()[0].interface, second.nics.all()[0].interface}
    assert len(taps) == 2 and all(table.present(tap) for tap in taps)
    with pytest.raises(InvalidState):
        first.start()
