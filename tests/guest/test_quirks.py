"""Proofs of workarounds that take a guest: each is needed exactly where qkvm/qemu/quirks.py says so."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from qkvm.api.domain import Domain
from qkvm.emulator import abilities
from qkvm.errors import InvalidState, MonitorError
from qkvm.host import process
from qkvm.qemu import quirks
from qkvm.qemu.quirks import Quirk
from qkvm.scope import Scope
from qkvm.sockets import listen_unix
from tests.guest.conftest import Lab
from tests.guest.guest import Guest
from tests.guest.images import chain, put, see
from tests.host import nslab

Register = Callable[[Domain], Domain]

VCPU = {"driver": "max-x86_64-cpu", "core-id": 0, "thread-id": 0}


def survives(domain: Domain, *commands: tuple[str, dict[str, Any]]) -> bool:
    """Whether QEMU still runs some seconds after these commands."""
    pid = domain.run.pid if domain.run is not None else None
    pidfd = process.open_pidfd(pid) if pid is not None else None
    if pidfd is None:
        return False
    try:
        with suppress(MonitorError, InvalidState):
            for command, arguments in commands:
                domain.qemu.command(command, arguments)
        return not process.ended(pidfd, 5.0)
    finally:
        os.close(pidfd)


def test_after_the_unplug_of_a_vcpu(lab: Lab, domain_of: Register) -> None:
    needed = quirks.needed(abilities.ask(process.find_program("qemu-system-x86_64", "", "")))
    domain = domain_of(lab.define("lost", vcpus="{ current = 1, maximum = 3 }"))
    lab.boot(domain)
    assert domain.live.record["accel"] == "tcg"
    domain.vcpus.set_count(2)
    with Guest(domain) as guest:
        guest.until("cpus", "2")
    domain.vcpus.set_count(1, force=True)
    sound = survives(
        domain,
        ("set-action", {"reboot": "reset"}),
        ("netdev_add", {"type": "user", "id": "more"}),
        ("device_add", {"driver": "virtio-net-pci", "id": "net9", "netdev": "more", "bus": "rp1"}),
        ("system_reset", {}),
    )
    assert sound == (Quirk.VCPU_BUFFERS not in needed)
    if sound:
        # Two vCPUs have been there: with the third one there have been as many as there may be.
        assert survives(domain, ("device_add", {**VCPU, "id": "third", "socket-id": 1}))
        again = survives(domain, ("device_add", {**VCPU, "id": "fourth", "socket-id": 2}))
        assert again == (Quirk.VCPU_CONTEXTS not in needed)


def test_nbd_of_an_iothread(lab: Lab, domain_of: Register, tmp_path: Path) -> None:
    needed = quirks.needed(abilities.ask(process.find_program("qemu-system-x86_64", "", "")))
    domain = domain_of(lab.define("threaded", body="[[iothreads]]\nid = 1\n"))
    domain.disks.attach(replace(chain(tmp_path, "a"), iothread=1), scope=Scope.CONFIG)
    lab.boot(domain)
    with Guest(domain) as guest:
        see(guest, "vda")
        put(guest, 1, 1, "used")
    with listen_unix(str(tmp_path / "nbd")) as listening, domain.monitor() as session:
        session.send_fd("nbd", listening.fileno())
    domain.qemu.command("nbd-server-start", {"addr": {"type": "fd", "data": {"str": "nbd"}}})
    node = domain.live.devices("disks")[0]["node"]
    domain.qemu.command("block-export-add", {"type": "nbd", "id": "e", "node-name": node, "name": "a"})
    for _ in range(3):
        if not domain.is_running:
            break
        with suppress(AssertionError):
            nslab.sh("qemu-io", "-r", "-f", "raw", "-c", "read -q 0 1M", f"nbd+unix:///a?socket={tmp_path}/nbd")
    assert survives(domain) == (Quirk.NBD_IOTHREAD not in needed)
