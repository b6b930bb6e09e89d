"""A user's NICs: passt and QEMU's own stack carry packets both ways, and ports of the host lead to guests."""

from __future__ import annotations

import os
import socket
import threading
import time
from pathlib import Path

import pytest

from qkvm.api.domain import Domain
from qkvm.host import process
from tests.guest import guest as guests
from tests.guest.asuser.conftest import Register, UserLab
from tests.guest.guest import Guest
from tests.host import nslab

HOST, OTHER = os.environ["QKVM_TEST_HOST"], os.environ["QKVM_TEST_OTHER"]

FORWARDS = '[{ ports = "2222", to = 22 }, { ports = "5353", to = 53, listen = "127.0.0.1", protocol = "udp" }]'


def nic(backend: str, forwards: str = "[]", mac: str = "52:54:00:00:00:01") -> str:
    return f'[[nics]]\nmac = "{mac}"\ntype = "user"\nbackend = "{backend}"\nforwards = {forwards}\n'


@pytest.fixture(params=["passt", "slirp"])
def guest_of(lab: UserLab, domain_of: Register, request: pytest.FixtureRequest) -> tuple[str, Domain]:
    return request.param, lab.boot(domain_of(lab.define("net", body=nic(request.param, FORWARDS))))


ECHO = "(nc -ll -p 22 -e cat </dev/null >/dev/null 2>&1 &)"
"""A server in the guest that sends back what it gets."""


def echoed(address: tuple[str, int], text: bytes = b"ping") -> bytes:
    """What the guest's server sends back, retried while nobody listens there yet.

    The client speaks first: passt of Debian 12 does not complete a connection whose server would.
    """
    deadline = time.monotonic() + 60
    while True:
        try:
            with socket.create_connection(address, timeout=10) as client:
                client.sendall(text)
                heard = client.recv(100)
                if heard:
                    return heard
        except OSError:
            pass
        assert time.monotonic() < deadline, address
        time.sleep(0.2)


def test_packets_go_both_ways(lab: UserLab, guest_of: tuple[str, Domain]) -> None:
    backend, domain = guest_of
    own = f"{HOST}/24" if backend == "passt" else "10.0.2.15/24"
    assert own in lab.ok("domifaddr net")
    with Guest(domain) as guest:
        guest.until("ip -4 -o addr show eth0 | awk '{print $4}'", own)
        guest.ask(ECHO)
        assert echoed(("127.0.0.1", 2222)) == echoed((HOST, 2222)) == b"ping", "at every address of the host's"
        assert f" 0100007F:{5353:04X} " in Path("/proc/net/udp").read_text(encoding="ascii")
        with pytest.raises(OSError):
            socket.create_connection((HOST, 5353), timeout=5).close()
        with socket.create_server((OTHER, 8000)) as server:
            server.settimeout(60)
            thread = threading.Thread(target=_greet, args=(server,))
            thread.start()
            assert guest.ask(f"(echo hello; sleep 5) | nc {OTHER} 8000") == "hello from the host"
            thread.join()


def _greet(server: socket.socket) -> None:
    client, _ = server.accept()
    with client:
        assert client.recv(100) == b"hello\n"
        client.sendall(b"hello from the host\n")


def test_passt_is_the_users_and_goes_with_its_guest(lab: UserLab, domain_of: Register) -> None:
    domain = lab.boot(domain_of(lab.define("going", body=nic("passt"))))
    (entry,) = domain.live.record["sidecars"]
    assert entry["name"] == "passt-net0" and os.stat(f"/proc/{entry['pid']}").st_uid == os.geteuid()
    assert "<backend type='passt'/>" in lab.ok("dumpxml going")
    guests.end_qemu(domain)
    nslab.until(lambda: process.start_time(entry["pid"]) is None, "the end of passt")


def test_nics_come_to_a_running_guest_and_go(lab: UserLab, domain_of: Register) -> None:
    domain = lab.boot(domain_of(lab.define("plug", body=nic("slirp"))))
    lab.ok("attach-interface plug user none --mac 52:54:00:00:00:02 --model virtio")
    (second,) = domain.live.record["sidecars"]
    assert second["name"] == "passt-net1"
    with Guest(domain) as guest:
        guest.until("ip -4 -o addr show eth1 | awk '{print $4}'", f"{HOST}/24")
    lab.ok("detach-interface plug user --mac 52:54:00:00:00:02")
    assert not domain.live.record["sidecars"]
    nslab.until(lambda: process.start_time(second["pid"]) is None, "the end of passt")


def test_saved_guests_have_their_network_again(lab: UserLab, domain_of: Register) -> None:
    domain = lab.boot(domain_of(lab.define("saved", body=nic("passt", FORWARDS))))
    with Guest(domain) as guest:
        guest.until("ip -4 -o addr show eth0 | awk '{print $4}'", f"{HOST}/24")
        guest.ask(ECHO)
    lab.ok("managedsave saved")
    lab.ok("start saved")
    assert echoed(("127.0.0.1", 2222)) == b"ping"


def test_what_can_not_be_forwarded(lab: UserLab, domain_of: Register) -> None:
    """A port that is taken, one that is root's: nothing of the start is left."""
    refused = domain_of(lab.define("refused", body=nic("passt", '[{ ports = "3333" }]')))
    with socket.create_server(("", 3333)):
        assert "forward tcp 3333: a program of this host has tcp port 3333: python" in lab.fails("start refused")
    away = domain_of(lab.define("away", body=nic("passt", '[{ ports = "3333", listen = "198.51.100.1" }]')))
    assert "passt-net0 has ended: " in lab.fails("start away")
    for backend in ("passt", "slirp"):
        low = domain_of(lab.define(f"low-{backend}", body=nic(backend, '[{ ports = "80" }]')))
        words = f"forward tcp 80: ports below 1024 are for root alone, and {backend} is not"
        assert words in lab.fails(f"start low-{backend}")
    assert not refused.is_running and not low.is_running and not away.is_running


def test_what_is_plugged_where_no_port_can_be_is_gone(lab: UserLab, domain_of: Register) -> None:
    domain = lab.boot(domain_of(lab.define("half")))
    xml = f"{os.environ['HOME']}/nic.xml"
    with open(xml, "w", encoding="utf-8") as stream:
        stream.write(
            "<interface type='user'><mac address='52:54:00:00:00:03'/><backend type='passt'/>"
            "<model type='virtio'/>"
            "<portForward proto='tcp' address='198.51.100.1'><range start='3334' to='22'/></portForward>"
            "</interface>"
        )
    assert "passt-net0 has ended: " in lab.fails(f"attach-device half {xml}")
    assert not domain.live.record["nics"] and not domain.live.record.get("sidecars")
    text = Path(xml).read_text(encoding="utf-8").replace(" address='198.51.100.1'", "")
    Path(xml).write_text(text, encoding="utf-8")
    with socket.create_server(("", 3334)):
        assert "a program of this host has tcp port 3334: python" in lab.fails(f"attach-device half {xml}")
    lab.ok(f"attach-device half {xml}")
    assert "<range start='3334' to='22'/>" in lab.ok("dumpxml half")
