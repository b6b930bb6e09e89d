"""Fixtures of the tests in a host with KVM: qkvm as it is installed there, on the host's own root and network."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qkvm.api.domain import Domain
from tests.guest.conftest import Lab, guest_files, network_nic

__all__ = ["guest_files"]

# They change the host that they run on: its modules, its network, qkvm's own folders.
if os.environ.get("QKVM_MACHINE") != "yes":
    collect_ignore_glob = ["test_*.py"]


@pytest.fixture(scope="session")
def lab(guest_files: tuple[str, str]) -> Iterator[Lab]:
    """The host itself, with its default network; afterwards no domain is left."""
    lab = Lab("/", *guest_files)
    lab.ok("net-start default")
    yield lab
    for domain in lab.host.domains():
        remove(domain)
    lab.ok("net-destroy default")


def remove(domain: Domain) -> None:
    if domain.is_running:
        domain.destroy()
    if domain.is_persistent:
        domain.undefine(nvram=True, managed_save=True, snapshots_metadata=True, checkpoints_metadata=True)


@pytest.fixture
def domain_of() -> Iterator[Callable[[Domain], Domain]]:
    """Registers domains that are to be gone after the test, however it ends."""
    made: list[Domain] = []

    def register(domain: Domain) -> Domain:
        made.append(domain)
        return domain

    yield register
    for domain in made:
        remove(domain)


def disk(folder: Path, name: str, target: str = "vda") -> str:
    """A disk of 64 MiB as TOML."""
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", folder / name, "64M"], check=True)
    return f'[[disks]]\npath = "{folder / name}"\nformat = "qcow2"\ntarget = "{target}"\n'


@pytest.fixture(scope="session")
def vm(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Domain]:
    """A guest with a NIC and a disk, one vCPU of three, room for more devices, and a watchdog that pauses it."""
    body = network_nic() + disk(tmp_path_factory.mktemp("vm"), "vm.qcow2")
    domain = lab.define(
        "vm",
        cmdline="quiet",
        body=f"{body}[watchdog]\naction = 'pause'\n",
        vcpus="{ current = 1, maximum = 3 }",
        memory='{ current = "256MiB", maximum = "384MiB" }',
    )
    lab.boot(domain)
    yield domain
    remove(domain)
