"""Bandwidth limits of a real guest's NIC: at a start, at a hot plug, changed while it runs, and gone with it."""

from __future__ import annotations

import json
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from qkvm.api.domain import Domain
from qkvm.host import process
from tests.guest.conftest import Lab
from tests.guest.guest import Guest
from tests.host import nslab

Register = Callable[[Domain], Domain]

FIRST, SECOND = "52:54:00:00:aa:01", "52:54:00:00:aa:02"
BODY = f"""[[nics]]
mac = "{FIRST}"
source = "default"
inbound = {{ average = 200 }}
outbound = {{ average = 100, peak = 400, burst = 80 }}
"""
HOST = "192.168.122.1"
SECONDS = 3


class Peer:
    """A server on the host that sends without end what one connection takes, or counts what it is sent."""

    def __init__(self, *, sends: bool) -> None:
        self.received = 0
        self._sends = sends
        self._listener = socket.socket()
        self._listener.bind((HOST, 0))
        self._listener.listen(4)
        self._worker = threading.Thread(target=self._serve)
        self._worker.start()

    @property
    def place(self) -> str:
        """Address and port, as nc takes them."""
        return f"{HOST} {self._listener.getsockname()[1]}"

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            with peer, suppress(ConnectionError, TimeoutError):
                peer.settimeout(2 * SECONDS)
                while self._sends:
                    peer.sendall(bytes(65536))
                # What a guest has in its buffers when its program ends is sent all the same, and not counted.
                end = time.monotonic() + SECONDS
                while (more := peer.recv(1 << 20)) and time.monotonic() < end:
                    self.received += len(more)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._worker.join()
        self._listener.close()


def _rates(guest: Guest) -> tuple[float, float]:
    """KiB a second that the guest receives, and that it sends."""
    source, sink = Peer(sends=True), Peer(sends=False)
    try:
        # The input never ends: nc would end with it.
        got = guest.number(f"timeout -s PIPE {SECONDS} nc {source.place} 0<>/run/never | wc -c")
        guest.ask(f"timeout -s PIPE {SECONDS} nc {sink.place} </dev/zero >/dev/null; true")
    finally:
        source.close()
        sink.close()
    return got / 1024 / SECONDS, sink.received / 1024 / SECONDS


def _shapers() -> list[str]:
    return [line for line in nslab.links() if line.startswith("qkvm-o")]


def test_limits_of_a_nic(lab: Lab, domain_of: Register) -> None:
    domain = lab.boot(domain_of(lab.define("slow", body=BODY)))
    (tap,) = (nic.interface for nic in domain.nics.all())
    assert [line.split()[1] for line in _shapers()] == ["qkvm:dom=slow"]
    shown = lab.ok(f"domiftune slow {tap}")
    assert shown == (
        "inbound.average: 200\ninbound.peak   : 0\ninbound.burst  : 0\ninbound.floor  : 0\n"
        "outbound.average: 100\noutbound.peak  : 400\noutbound.burst : 80\n\n"
    )
    with Guest(domain) as guest:
        guest.until("ip -4 addr show dev eth0 | grep -c inet || true", "1")
        held = _rates(guest)
        lab.ok(f"domiftune slow {tap} --inbound 0 --outbound 0 --live")
        free = _rates(guest)
    assert 50 < held[0] < 330 and 30 < held[1] < 200, held
    assert free[0] > 3 * held[0] and free[1] > 3 * held[1], (held, free)
    assert not _shapers()
    assert domain.definition.nics[0].outbound is not None, "live alone leaves the definition as it was"
    lab.ok(f"domiftune slow {FIRST} --inbound 10,20,30 --live --config")
    for where in ("--live", "--config"):
        told = json.loads(lab.ok(f"domiftune slow {FIRST} {where} --json"))
        assert told["inbound"] == {
            "average_kib_per_s": 10,
            "peak_kib_per_s": 20,
            "burst_kib": 30,
            "floor_kib_per_s": 0,
        }
    assert domain.definition.nics[0].outbound is not None

    lab.ok(f"attach-interface slow network default --mac {SECOND} --outbound 300 --inbound 400,500 --live")
    assert len(_shapers()) == 1
    assert json.loads(lab.ok(f"domiftune slow {SECOND} --json"))["inbound"]["peak_kib_per_s"] == 500
    lab.ok(f"detach-interface slow network --mac {SECOND}")
    assert not _shapers()

    for words, problem in (
        ("--inbound 1,2,3,4", "floor is not supported"),
        ("--outbound x", "outbound format is incorrect"),
        ("--inbound 0,5", "average is mandatory"),
        ("--inbound 10,5", "peak"),
    ):
        assert problem in lab.fails(f"domiftune slow {tap} {words}")
    assert "not found" in lab.fails("domiftune slow vnet999")


def test_queues_go_with_the_domain(lab: Lab, domain_of: Register) -> None:
    domain = domain_of(lab.define("queued", body=BODY))
    domain.start()
    assert len(_shapers()) == 1
    domain.destroy()
    assert not _shapers()
    domain.start()
    pid = domain.live.pid
    assert pid is not None
    pidfd = process.open_pidfd(pid)
    assert pidfd is not None
    os.kill(pid, signal.SIGKILL)
    assert process.ended(pidfd, 10)
    os.close(pidfd)
    assert len(_shapers()) == 1, "an ifb does not go with the tap"
    domain.start()
    assert len(_shapers()) == 1, "the next start has taken the old one away"
