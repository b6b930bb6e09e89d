"""What a user's steps have instead of root's lab: their own tree, in the namespace that they were started in."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qkvm import Host
from qkvm.api.domain import Domain
from qkvm.host import process
from tests.guest.conftest import TOP, Lab
from tests.host import nslab

HOME = Path(os.environ["HOME"])

Register = Callable[[Domain], Domain]


class UserLab(Lab):
    """A lab in the user's own tree, which no command names."""

    def __init__(self) -> None:
        super().__init__(Host().tree.root, str(HOME / "vmlinuz"), str(HOME / "initrd"))

    def run(self, line: str, *, pass_fds: tuple[int, ...] = ()) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "qkvm", *shlex.split(line)],
            capture_output=True,
            text=True,
            check=False,
            timeout=300,
            stdin=subprocess.DEVNULL,
            cwd=TOP,
            pass_fds=pass_fds,
        )


@pytest.fixture(scope="module")
def lab() -> Iterator[UserLab]:
    assert os.geteuid() != 0 and not os.getgroups(), "these steps are a user's"
    made = UserLab()
    yield made
    for domain in made.host.domains():
        _remove(domain)
    process.reap()


@pytest.fixture
def domain_of() -> Iterator[Register]:
    """As root's: what is registered is gone after the step."""
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


@pytest.fixture(autouse=True)
def _nothing_is_left(lab: UserLab) -> Iterator[None]:
    """After each step there are the fds that there were before it, and no more processes."""
    fds, running = len(os.listdir("/proc/self/fd")), nslab.processes_naming(lab.host.tree.run)
    yield
    process.reap()
    assert len(os.listdir("/proc/self/fd")) == fds
    assert len(nslab.processes_naming(lab.host.tree.run)) <= len(running)
