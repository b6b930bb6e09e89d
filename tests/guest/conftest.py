"""Fixtures of the tests on real guests: a namespace, a root and an active network for each test file."""

from __future__ import annotations

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qkvm import Host
from qkvm.api.domain import Domain
from qkvm.host import process
from tests.guest import guest as guests
from tests.host import nslab

TOP = Path(__file__).resolve().parents[2]


class Lab:
    """A host of the tests' own: this process and its children live in its namespace."""

    def __init__(self, root: str, kernel: str, initrd: str) -> None:
        self.root = root
        self.host = Host(root)
        self.kernel = kernel
        self.initrd = initrd

    def run(self, line: str, *, pass_fds: tuple[int, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Run a qkvm command line (split as a shell would) in a process of its own."""
        return subprocess.run(
            [sys.executable, "-m", "qkvm", "--root", self.root, *shlex.split(line)],
            capture_output=True,
            text=True,
            check=False,
            timeout=300 * guests.PATIENCE,
            stdin=subprocess.DEVNULL,
            cwd=TOP,
            pass_fds=pass_fds,
        )

    def ok(self, line: str) -> str:
        """Run a command line that must succeed, and give what it prints."""
        done = self.run(line)
        assert done.returncode == 0, f"qkvm {line}: {done.stderr}"
        return done.stdout

    def fails(self, line: str) -> str:
        """Run a command line that must fail as virsh does, exit 1, one line of error; gives that line."""
        done = self.run(line)
        lines = [text for text in done.stderr.splitlines() if not text.startswith("warning: ")]
        assert done.returncode == 1, f"qkvm {line} gave {done.returncode}: {done.stdout}{done.stderr}"
        assert len(lines) == 1 and lines[0].startswith("error: "), done.stderr
        assert "internal error" not in lines[0] and "Traceback" not in done.stderr, done.stderr
        return lines[0]

    def define(
        self, name: str, *, body: str = "", machine: str = "q35", cmdline: str = "", **values: str
    ) -> Domain:
        """Define a small domain that boots the test guest; ``values`` replace lines, ``body`` is added."""
        lines = {
            "name": f'"{name}"',
            "uuid": f'"{os.urandom(16).hex()}"',
            "machine": f'"{machine}"',
            "memory": '{ current = "256MiB", maximum = "512MiB" }',
            # On a busy machine an emulated timer may be too late for the kernel, which then panics.
            "boot": f"{{ kernel = '{self.kernel}', initrd = '{self.initrd}', "
            f"cmdline = 'console=ttyS0 no_timer_check cryptomgr.notests {cmdline}' }}",
            **values,
        }
        return self.host.define("".join(f"{key} = {value}\n" for key, value in lines.items()) + body)

    def boot(self, domain: Domain) -> Domain:
        """Start a domain and wait until its guest is up."""
        mark = guests.log_size(domain)
        domain.start()
        guests.wait_ready(domain, mark)
        return domain


def network_nic(mac: str = "52:54:00:00:aa:01", model: str = "virtio") -> str:
    """A NIC on the default network, as TOML."""
    return f'[[nics]]\nmac = "{mac}"\nsource = "default"\nmodel = "{model}"\n'


@pytest.fixture(scope="session")
def guest_files() -> tuple[str, str]:
    """Kernel and initramfs of the test guest: those that the environment names, or make-guest's."""
    found = dict(os.environ)
    if not {"KERNEL", "INITRD"} <= found.keys():
        made = subprocess.run([str(TOP / "scripts/make-guest")], stdout=subprocess.PIPE, text=True, check=True)
        found = dict(line.split("=", 1) for line in made.stdout.splitlines())
    return found["KERNEL"], found["INITRD"]


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory, guest_files: tuple[str, str]) -> Iterator[Lab]:
    """A namespace with an active default network; afterwards nothing may be left of all that ran in it."""
    root = str(tmp_path_factory.mktemp("root"))
    os.chmod(root, 0o700)
    home, fresh = nslab.Namespace.current(), nslab.Namespace.new()
    fresh.enter()
    try:
        made = Lab(root, *guest_files)
        made.host.prepare()
        before = _state(made)
        made.host.networks["default"].start()
        yield made
        _clear(made)
        assert _state(made) == before
        left = nslab.processes_naming(root)
        for pid in left:
            os.kill(pid, signal.SIGKILL)
        assert not left, f"processes still run: {left}"
    finally:
        home.enter()
        home.close()
        fresh.close()


@pytest.fixture(autouse=True)
def _nothing_is_left(lab: Lab) -> Iterator[None]:
    """After each test there are the links, rules and fds that there were before it, and no other processes."""

    def kept() -> tuple[object, ...]:
        return nslab.links(), nslab.nft_rules(), len(os.listdir("/proc/self/fd"))

    before, ran = kept(), nslab.processes_naming(lab.root)
    yield
    process.reap()
    assert before == kept()
    # Such as a script of dnsmasq's may have been there before, and have ended.
    assert not set(nslab.processes_naming(lab.root)) - set(ran)


@pytest.fixture
def domain_of(lab: Lab) -> Iterator[Callable[[Domain], Domain]]:
    """Registers domains that are to be gone after the test, however it ends."""
    made: list[Domain] = []

    def register(domain: Domain) -> Domain:
        made.append(domain)
        return domain

    yield register
    for domain in made:
        _remove(domain)


def _remove(domain: Domain) -> None:
    if domain.is_running:
        domain.destroy()
    if domain.is_persistent:
        domain.undefine(nvram=True, snapshots_metadata=True, checkpoints_metadata=True)


def _clear(lab: Lab) -> None:
    for domain in lab.host.domains():
        _remove(domain)
    lab.host.networks["default"].destroy()
    process.reap()


def _state(lab: Lab) -> dict[str, object]:
    return {
        "links": nslab.links(),
        "nft": nslab.nft_rules(),
        "forwarding": nslab.forwarding(),
        "run": sorted(str(path) for path in Path(lab.host.tree.run).rglob("*")),
        "domains": os.listdir(lab.host.tree.domain_definitions),
        "logs": os.listdir(lab.host.tree.log),
        "fds": len(os.listdir("/proc/self/fd")),
    }
