"""passt beside a guest of root's: it is QEMU's user, and carries packets under the host's address."""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Iterator

import pytest

from qkvm.api.domain import Domain
from qkvm.host import process
from tests.guest import guest as guests
from tests.guest.conftest import Lab
from tests.guest.guest import Guest
from tests.host import nslab

Register = Callable[[Domain], Domain]

NIC = '[[nics]]\nmac = "52:54:00:00:cc:01"\ntype = "user"\nbackend = "passt"\n'


@pytest.fixture
def way_out(lab: Lab) -> Iterator[None]:
    """A default route, whose interface is the one that passt takes for the host's."""
    route = ["default", "via", "192.168.122.200", "dev", "virbr0"]
    subprocess.run(["ip", "route", "add", *route], check=True)
    yield
    subprocess.run(["ip", "route", "del", *route], check=True)


def test_roots_passt_is_qemus_user(lab: Lab, domain_of: Register, way_out: None) -> None:
    forwards = 'forwards = [{ ports = "2222", to = 22 }]\n'
    domain = lab.boot(domain_of(lab.define("stack", body=NIC + forwards)))
    run = domain.live
    (entry,) = run.record["sidecars"]
    owner = os.stat(f"/proc/{entry['pid']}").st_uid
    assert owner == os.stat(f"/proc/{run.pid}").st_uid != 0
    assert "192.168.122.1/24" in lab.ok("domifaddr stack")
    with Guest(domain) as guest:
        guest.until("ip -4 -o addr show eth0 | awk '{print $4}'", "192.168.122.1/24")
        guest.ask("(nc -ll -p 22 -e cat </dev/null >/dev/null 2>&1 &)")
        nslab.until(lambda: _echoed() == b"ping", "the guest's server")
    domain.destroy()
    assert process.start_time(entry["pid"]) is None


def _echoed() -> bytes:
    try:
        with socket.create_connection(("127.0.0.1", 2222), timeout=5) as client:
            client.sendall(b"ping")
            return client.recv(100)
    except OSError:
        return b""


def test_where_the_host_has_no_way_out(lab: Lab, domain_of: Register) -> None:
    """passt either takes addresses of this link alone or says that it can't; QEMU's own stack needs none."""
    domain = domain_of(lab.define("inside", body=NIC))
    if "passt-net0 has ended" not in lab.run("start inside").stderr:
        domain.destroy()
    assert not domain.is_running
    domain.undefine()
    domain = lab.boot(domain_of(lab.define("inside", body=NIC.replace("passt", "slirp"))))
    guests.wait_agent(domain)
    assert "10.0.2.15/24" in lab.ok("domifaddr inside --source agent")
