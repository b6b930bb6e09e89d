"""Ways into a guest: commands by its agent, with streams and exit codes as a shell has them; files both ways."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from qkvm.api.domain import Domain
from qkvm.domain.access.byagent import SMALL
from qkvm.domain.device import vsock
from qkvm.errors import AgentRefused, GuestCommandError
from tests.guest.conftest import TOP, Lab
from tests.guest.guest import PATIENCE, Guest, wait_agent


@pytest.fixture(scope="module")
def vm(lab: Lab) -> Iterator[Domain]:
    """A guest with an agent, and no network."""
    domain = lab.boot(lab.define("vm"))
    wait_agent(domain)
    with Guest(domain) as guest:
        guest.ask("mkdir -p /tmp /srv")
    yield domain
    domain.destroy()
    domain.undefine()


def qkvm(lab: Lab, *words: str, input: bytes | None = None) -> subprocess.CompletedProcess[bytes]:
    """Run qkvm with words as they are, on bytes."""
    return subprocess.run(
        [sys.executable, "-m", "qkvm", "--root", lab.root, *words],
        input=input,
        capture_output=True,
        check=False,
        timeout=300 * PATIENCE,
        cwd=TOP,
    )


def left(vm: Domain) -> list[str]:
    """What commands have left in the guest's /tmp."""
    with Guest(vm) as guest:
        return guest.ask("ls -A /tmp").split()


def until_gone(vm: Domain, what: str) -> None:
    """Wait until no process of the guest has that in its command line."""
    with Guest(vm) as guest:
        guest.until(f"ps | grep -c '[{what[0]}]{what[1:]}'; true", "0")


def test_a_command_has_streams_and_an_exit_code(lab: Lab, vm: Domain) -> None:
    done = qkvm(lab, "exec", "vm", "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\n", b"err\n")
    # Words after the command are its own, blanks and all; no shell of qkvm's touches them.
    done = qkvm(lab, "exec", "-v", "vm", "printf", "%s|", "--all", "a b", "$HOME", "*", "")
    assert done.stdout == b"--all|a b|$HOME|*||"
    assert done.stderr == b"vsock: the domain has none\nagent: it runs the command\n"
    line = "exec -e A=1 --env B=x=y --workdir /proc -u user vm -- sh -c 'id -un; pwd; echo $A $B'"
    assert lab.ok(line) == "user\n/proc\n1 x=y\n"
    assert left(vm) == []


def test_it_ends_as_a_shell_has_it(lab: Lab, vm: Domain) -> None:
    assert vm.guest.exec(["true"]) == (0, b"", b"")
    assert vm.guest.exec(["/nonexistent"]).code == 127
    assert b"not found" in vm.guest.exec(["nonexistent"]).stderr
    assert vm.guest.exec(["/etc/passwd"]).code == 126
    assert vm.guest.exec(["sh", "-c", "kill -TERM $$"]).code == 128 + signal.SIGTERM
    assert vm.guest.exec(["sh", "-c", "kill -KILL $$"]).code == 128 + signal.SIGKILL
    assert vm.guest.exec(["true"], workdir="/nonexistent").code == 126
    assert vm.guest.exec(["exit", "3"]).code == 127, "what is no program is none"
    with pytest.raises(GuestCommandError, match="did not end in time"):
        vm.guest.exec(["sleep", "1000"], timeout=1)
    until_gone(vm, "sleep 1000")
    assert left(vm) == []


def test_bytes_go_both_ways(lab: Lab, vm: Domain) -> None:
    """All bytes; small ones with the command, and more than the agent takes or gives at once."""
    every = bytes(range(256)) * 16
    assert vm.guest.exec(["cat"], input=every) == (0, every, b"")
    large = os.urandom(1 << 16) * 48
    done = qkvm(lab, "exec", "-i", "vm", "--", "sh", "-c", "cat; cat /etc/passwd >&2", input=large)
    assert done.stdout == large and done.stderr.startswith(b"root:") and done.returncode == 0
    # Just as much as comes with the end, and one byte more.
    for size in (SMALL, SMALL + 1):
        assert vm.guest.exec(["head", "-c", str(size), "/dev/zero"]).stdout == bytes(size)
    # Without -i it has no input, and takes none from the caller's loop.
    assert qkvm(lab, "exec", "vm", "--", "cat", input=b"not for it").stdout == b""
    assert left(vm) == []


def test_output_comes_while_it_runs(lab: Lab, vm: Domain) -> None:
    words = [sys.executable, "-m", "qkvm", "--root", lab.root, "exec", "vm", "--"]
    script = "echo one; read -r line </srv/gate; echo $line"
    with Guest(vm) as guest:
        guest.ask("mkfifo /srv/gate")
        with subprocess.Popen([*words, "sh", "-c", script], stdout=subprocess.PIPE, cwd=TOP) as running:
            assert running.stdout is not None
            assert running.stdout.readline() == b"one\n"
            # Others get the agent meanwhile.
            assert vm.guest.exec(["echo", "too"]).stdout == b"too\n"
            guest.ask("echo two >/srv/gate")
            assert running.stdout.readline() == b"two\n" and running.wait(60 * PATIENCE) == 0
    assert left(vm) == []


def test_an_interrupt_and_a_closed_pipe_end_it_in_the_guest(lab: Lab, vm: Domain) -> None:
    words = [sys.executable, "-m", "qkvm", "--root", lab.root, "exec", "vm", "--"]
    with subprocess.Popen([*words, "sh", "-c", "echo on; sleep 2000"], stdout=subprocess.PIPE, cwd=TOP) as running:
        assert running.stdout is not None and running.stdout.readline() == b"on\n"
        running.send_signal(signal.SIGINT)
        assert running.wait(60 * PATIENCE) == 130
    until_gone(vm, "sleep 2000")
    with subprocess.Popen([*words, "yes", "3000"], stdout=subprocess.PIPE, cwd=TOP) as running:
        assert running.stdout is not None and running.stdout.readline() == b"3000\n"
        running.stdout.close()
        assert running.wait(60 * PATIENCE) == 141
    until_gone(vm, "yes 3000")
    assert left(vm) == []


def test_files_go_both_ways(lab: Lab, vm: Domain, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    (folder / "run me").write_bytes(b"#!/bin/sh\n")
    (folder / "run me").chmod(0o750)
    (folder / "below/data").write_bytes(os.urandom(300_000))
    (folder / "link").symlink_to("below/data")
    folder.chmod(0o700)
    lab.ok(f"cp {folder} vm:/srv/copy")
    assert vm.guest.exec(["stat", "-c", "%a", "/srv/copy", "/srv/copy/run me"]).stdout == b"700\n750\n"
    # Into a folder that is there, under its own name.
    lab.ok(f"cp '{folder}/run me' vm:/srv")
    back = tmp_path / "back"
    back.mkdir()
    lab.ok(f"cp vm:/srv/copy {back}")
    lab.ok(f"cp 'vm:/srv/run me' {back}/new")
    assert (back / "new").read_bytes() == b"#!/bin/sh\n" and (back / "new").stat().st_mode & 0o777 == 0o750
    assert (back / "copy/below/data").read_bytes() == (folder / "below/data").read_bytes()
    assert os.readlink(back / "copy/link") == "below/data"
    assert (back / "copy").stat().st_mode & 0o777 == 0o700
    assert "No such file" in lab.fails(f"cp vm:/nonexistent {back}")
    assert "cannot read" in lab.fails(f"cp {tmp_path}/nonexistent vm:/srv")
    assert "one of the two places is in a guest" in lab.fails(f"cp {folder} {back}")
    assert "no absolute path" in lab.fails(f"cp vm:srv {back}")
    assert left(vm) == []


def test_a_vsock_needs_the_hosts_kernel(lab: Lab) -> None:
    """What it needs is said before anything is made; the test of KVM has a host with it."""
    domain = lab.define("sock", body="[vsock]\n")
    try:
        assert '"driver": "vhost-vsock-pci"' in lab.ok("domargv sock")
        assert "<vsock model='virtio'>" in lab.ok("dumpxml sock")
        if not os.path.exists(vsock.DEVICE):
            assert "this host has no /dev/vhost-vsock" in lab.fails("start sock")
            assert not domain.is_running
    finally:
        domain.undefine()


def test_no_way_in(lab: Lab, vm: Domain) -> None:
    """What was tried is said, within the time that was given."""
    begin = time.monotonic()
    words = lab.fails("ssh vm --timeout 1")
    assert "no way into 'vm'" in words and "no address and no forwarded port is known" in words
    assert time.monotonic() - begin < 30 * PATIENCE
    with Guest(vm) as guest:
        guest.ask("killall qemu-ga; while pidof qemu-ga; do sleep 0.1; done")
    try:
        words = lab.fails("exec --timeout 1 vm -- true")
        assert "vsock: the domain has none" in words and "agent: " in words and "ssh: no address" in words
        assert "agent: it has no terminals" not in words
    finally:
        with Guest(vm) as guest:
            # An agent that may not run programs, as RHEL's.
            port = "/dev/virtio-ports/org.qemu.guest_agent.0"
            guest.ask(f"qemu-ga -m virtio-serial -p {port} -t /run -b guest-exec >/dev/null 2>&1 &")
    wait_agent(vm)
    with pytest.raises(AgentRefused, match="disabled"):
        vm.guest.exec(["true"])
    words = lab.fails("exec --timeout 1 vm -- true")
    assert "has been disabled" in words and "ssh: no address" in words
    assert "failed to get domain 'nonexistent'" in lab.fails("exec nonexistent -- true")
    assert "vsock cid 0 is no guest's" in lab.fails("vsock-connect 0 22")
