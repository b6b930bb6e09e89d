"""The examples of the guide and the README, typed as they stand there, topic by topic, on a host with a guest."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qkvm.api.domain import Domain
from tests import guide as examples
from tests.guest import guest as guests
from tests.guest.conftest import TOP, Lab, network_nic
from tests.host import nslab

Register = Callable[[Domain], Domain]

RUN = [block for block in examples.blocks() if block.is_run]
TYPED = [block for block in RUN if block.kind == "console"]
PYTHON = [block for block in RUN if block.kind == "python"]

AT_ONE_GUEST = (("agent", "tuning", "images", "backups", "snapshots"), ("saving",), ("shares", "verbs"))
"""Topics whose guest vm01 runs when they begin; those of a group follow each other."""

AT_NONE = tuple(
    (topic,)
    for topic in dict.fromkeys(block.topic for block in TYPED)
    if topic != examples.README and not any(topic in group for group in AT_ONE_GUEST)
)
"""The others: vm01 is defined, and does not run."""

MAY_FAIL = {"qkvm host-validate": "without KVM's hardware"}
"""A command that says by exit code 1 what is wrong with this host."""

SHELL = """set -eu
qkvm() { "$PYTHON" -m qkvm "$@"; }
"""


class Stage:
    """A folder that stands for /srv and for where the lines are typed, with the files that the examples name."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.lab = lab
        self.folder = folder
        for name in ("data", "more"):
            (folder / name).mkdir()
        for name, fmt in (
            ("debian.qcow2", "qcow2"),
            ("data.qcow2", "qcow2"),
            ("data.img", "raw"),
            ("disk.vmdk", "vmdk"),
        ):
            subprocess.run(["qemu-img", "create", "-q", "-f", fmt, folder / name, "64M"], check=True)
        shutil.copyfile(lab.kernel, folder / "vmlinuz")
        shutil.copyfile(lab.initrd, folder / "initrd.img")

    def here(self, text: str) -> str:
        """A text whose paths lead here, with a kernel that a busy host's timers do not stop."""
        for one, other in (
            ("/srv/", f"{self.folder}/"),
            ("/var/log/qkvm/", f"{self.lab.host.tree.log}/"),
            ('"console=ttyS0"', '"console=ttyS0 no_timer_check"'),
        ):
            text = text.replace(one, other)
        return text

    def run(self, argv: list[str]) -> subprocess.CompletedProcess[str]:
        environment = {
            **os.environ,
            "QKVM_ROOT": self.lab.root,
            "PYTHONPATH": str(TOP),
            "PYTHON": sys.executable,
            "KERNEL": self.lab.kernel,
            "INITRD": self.lab.initrd,
        }
        return subprocess.run(
            argv,
            capture_output=True,
            text=True,
            check=False,
            cwd=self.folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            timeout=300 * guests.PATIENCE,
        )

    def type(self, command: str) -> None:
        """Type a line, which must succeed; guests that it has booted are up when this returns."""
        before = {domain.name: (guests.log_size(domain), _pid(domain)) for domain in self.lab.host.domains()}
        done = self.run(["bash", "-c", SHELL + self.here(command)])
        wanted = (0, 1) if command in MAY_FAIL else (0,)
        assert done.returncode in wanted and not done.stderr.startswith("error"), (
            f"{command}: {done.stdout}{done.stderr}"
        )
        for domain in self.lab.host.domains():
            mark, pid = before.get(domain.name, (0, None))
            if domain.state == ("running", "booted") and _pid(domain) != pid and domain.definition.boot.kernel:
                guests.wait_ready(domain, mark)

    def write(self, topic: str) -> None:
        """Write the definitions of a topic that have a file's name."""
        for block in examples.blocks():
            if block.topic == topic and block.kind in ("toml", "xml") and len(block.words) > 1:
                (self.folder / block.words[1]).write_text(self.here(block.text), encoding="utf-8")


@pytest.fixture
def stage(lab: Lab, tmp_path: Path) -> Iterator[Stage]:
    """Afterwards only what the lab had is there: no other domain, network or pool."""
    folders = set(os.listdir(lab.host.tree.run))
    yield Stage(lab, tmp_path)
    for domain in lab.host.domains():
        if domain.is_running:
            domain.destroy()
        domain.undefine(nvram=True, snapshots_metadata=True, checkpoints_metadata=True)
    for network in lab.host.networks.all():
        if network.name != "default":
            network.destroy()
            network.undefine()
    for pool in lab.host.pools.all():
        if pool.name != "default":
            pool.destroy()
            pool.undefine()
    for name in set(os.listdir(lab.host.tree.run)) - folders:
        os.rmdir(os.path.join(lab.host.tree.run, name))


@pytest.fixture(scope="module")
def no_network(lab: Lab) -> Iterator[None]:
    """Before the tests that ask for this, and until the last one has ended, no network is active."""
    lab.host.networks["default"].destroy()
    yield
    lab.host.networks["default"].start()


def _pid(domain: Domain) -> int | None:
    return domain.run.pid if domain.run is not None else None


def _guest(stage: Stage, **values: str) -> Domain:
    """The guest vm01 that most examples are about; it is not started."""
    disk = stage.folder / "vm01.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "64M"], check=True)
    body = f'[[disks]]\npath = "{disk}"\nformat = "qcow2"\ntarget = "vda"\n{network_nic()}'
    vcpus = "{ current = 1, maximum = 2 }"
    return stage.lab.define("vm01", body=body, cmdline="possible_cpus=9", vcpus=vcpus, **values)


@contextmanager
def _uplink() -> Iterator[None]:
    """A NIC of the host's, by which its default route leads."""
    nslab.sh("ip", "link", "add", "eth1", "type", "veth", "peer", "name", "cable")
    nslab.sh("ip", "link", "set", "eth1", "up")
    nslab.sh("ip", "address", "add", "203.0.113.1/24", "dev", "eth1")
    nslab.sh("ip", "route", "add", "default", "via", "203.0.113.2")
    try:
        yield
    finally:
        nslab.sh("ip", "link", "del", "eth1")


def _type(stage: Stage, topic: str) -> None:
    stage.write(topic)
    with _uplink():
        for block in TYPED:
            for command in block.commands if block.topic == topic else ():
                stage.type(command)


@pytest.mark.parametrize("topics", [*AT_NONE, *AT_ONE_GUEST], ids="+".join)
def test_typed(stage: Stage, topics: tuple[str, ...]) -> None:
    if topics in AT_NONE:
        _guest(stage)
    else:
        # A share is only for guests whose memory can be shared.
        guests.wait_agent(stage.lab.boot(_guest(stage, memory_backing='{ source = "memfd", shared = true }')))
    for topic in topics:
        _type(stage, topic)


def test_python(stage: Stage) -> None:
    paths = []
    for number, block in enumerate(PYTHON):
        paths.append(str(stage.folder / f"example{number}.py"))
        Path(paths[-1]).write_text(block.text, encoding="utf-8")
    checked = subprocess.run(
        [sys.executable, "-m", "mypy", *paths], capture_output=True, text=True, check=False, cwd=TOP
    )
    assert checked.returncode == 0, checked.stdout
    _guest(stage)
    for block, path in zip(PYTHON, paths, strict=True):
        done = stage.run([sys.executable, path])
        assert done.returncode == 0, f"{block.name}: {done.stdout}{done.stderr}"


@pytest.mark.usefixtures("no_network")
def test_the_readme(stage: Stage) -> None:
    _type(stage, examples.README)
