"""Guests of a user who is not root, on a network of root's that the user is granted."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from qkvm.api.domain import Domain
from qkvm.paths import Tree
from tests.guest.conftest import TOP, Lab
from tests.guest.guest import Guest, wait_ready
from tests.host import nslab
from tests.host.tapinit import Init

UID = 60123
MAC, SECOND = "52:54:00:00:dd:01", "52:54:00:00:dd:02"
NETWORK = """name = "open-day"
bridge = "virbr8"
address = "192.168.78.1/24"
mode = "isolated"
[dhcp]
start = "192.168.78.2"
end = "192.168.78.60"
"""


class User:
    """A user without root: a home, and qkvm run there as that user."""

    def __init__(self, lab: Lab, init: Init) -> None:
        self.home = tempfile.mkdtemp(prefix="qkvm-user-")
        for source, name in ((lab.kernel, "kernel"), (lab.initrd, "initrd")):
            shutil.copy(source, os.path.join(self.home, name))
        os.chown(self.home, UID, UID)
        self.tree = Tree(os.path.join(self.home, ".local/share/qkvm"))
        self._env = {
            "HOME": self.home,
            "PATH": os.environ["PATH"],
            "QKVM_SYSTEM_ROOT": init.system.root,
            "LC_ALL": "C",
        }

    def run(self, line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "qkvm", *shlex.split(line)],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            cwd=TOP,
            env=self._env,
            user=UID,
            group=UID,
            extra_groups=[],
        )

    def ok(self, line: str) -> str:
        done = self.run(line)
        assert done.returncode == 0, f"qkvm {line}: {done.stderr}"
        return done.stdout

    def fails(self, line: str) -> str:
        done = self.run(line)
        lines = [text for text in done.stderr.splitlines() if not text.startswith("warning: ")]
        assert done.returncode == 1 and len(lines) == 1, f"qkvm {line}: {done.stdout}{done.stderr}"
        assert "internal error" not in lines[0]
        return lines[0]

    def define(self, name: str) -> Domain:
        path = Path(self.home, f"{name}.toml")
        path.write_text(f"""
name = "{name}"
memory = {{ current = "256MiB", maximum = "256MiB" }}
boot = {{ kernel = "{self.home}/kernel", initrd = "{self.home}/initrd", cmdline = "console=ttyS0" }}
[[nics]]
mac = "{MAC}"
source = "open-day"
""")
        path.chmod(0o644)
        self.ok(f"define {path}")
        return Domain(self.tree, name)


@pytest.fixture(autouse=True)
def network(lab: Lab, tmp_path: Path) -> Iterator[None]:
    (tmp_path / "open-day.toml").write_text(NETWORK)
    lab.ok(f"net-define {tmp_path / 'open-day.toml'}")
    lab.ok("net-start open-day")
    yield
    lab.ok("net-destroy open-day")
    lab.ok("net-undefine open-day")


@pytest.fixture
def user(lab: Lab, network: None) -> Iterator[User]:
    init = Init(lab.host.tree)
    made = User(lab, init)
    yield made
    made.run("destroy mine")
    init.close()
    shutil.rmtree(made.home)


def _links() -> str:
    return " ".join(nslab.links())


def test_a_users_guest_on_a_network_of_roots(lab: Lab, user: User) -> None:
    domain = user.define("mine")
    assert f"root can: qkvm net-grant open-day {UID}" in user.fails("start mine")
    lab.ok(f"net-grant open-day {UID} --taps 2")
    user.ok("start mine")
    wait_ready(domain)
    assert str(UID) in lab.ok("net-grant")
    tap = user.ok("-q domiflist mine").split()[0]
    assert tap in _links()
    with Guest(domain) as guest:
        address = guest.ask("ip -4 -o addr show dev eth0 | awk '{print $4}'")
        assert address.startswith("192.168.78.")
        guest.ask("ping -c 1 -W 5 192.168.78.1")
        assert address.partition("/")[0] in user.ok("domifaddr mine")
        assert "rx_packets" in user.ok(f"domifstat mine {tap}")
        assert "virbr8" in user.ok("dumpxml mine")

        # A second one while the guest runs, and no third.
        user.ok(f"attach-interface mine network open-day --mac {SECOND} --model virtio")
        guest.until("test -e /sys/class/net/eth1 && echo there || echo no", "there")
        assert "as many as you may" in user.fails("attach-interface mine network open-day --model virtio")
        second = user.ok("-q domiflist mine").splitlines()[1].split()[0]
        user.ok(f"detach-interface mine network --mac {SECOND}")
        assert second not in _links()

        # Root takes it back: the guest runs on, and speaks to nobody.
        lab.ok(f"net-grant open-day {UID} --revoke")
        assert tap not in _links()
        guest.ask("! ping -c 1 -W 1 192.168.78.1")
    user.ok("destroy mine")
    assert "not granted to you" in user.fails("start mine")
    assert "qkvm_nic_" not in nslab.nft_rules()


def test_nothing_is_left_of_a_guest_that_was_killed(lab: Lab, user: User) -> None:
    lab.ok(f"net-grant open-day {UID}")
    domain = user.define("mine")
    user.ok("start mine")
    tap = user.ok("-q domiflist mine").split()[0]
    pid = domain.live.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    nslab.until(lambda: tap not in _links(), "the tap's port goes")
    lab.ok("gc")
    assert "qkvm_nic_" not in nslab.nft_rules()
    user.ok("start mine")
    assert tap in _links() or "qkvm:grant=open-day" in _links()
    user.ok("destroy mine")
    nslab.until(lambda: "qkvm:grant" not in _links(), "the tap's port goes")
    lab.ok(f"net-grant open-day {UID} --revoke")


def test_a_grant_gives_one_queue_in_the_default_vlan(lab: Lab, user: User) -> None:
    lab.ok(f"net-grant open-day {UID}")
    domain = user.define("mine")
    path = Path(user.tree.domain_definition("mine"))
    before = path.read_text()
    for line, what in (
        ("queues = 2", "several queues"),
        ('filter = "clean-traffic"\nip = ["192.168.78.9"]', "addresses of its own"),
    ):
        path.write_text(f"{before}{line}\n")
        assert what in user.fails("start mine")
    assert not domain.is_running
    path.write_text(before)
    lab.ok(f"net-grant open-day {UID} --revoke")
