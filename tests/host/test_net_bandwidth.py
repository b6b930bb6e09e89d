"""Limits of bandwidth on a real kernel, by what comes through: a namespace behind a veth plays the guest."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

import pytest

from qkvm.errors import HostError, NotFound
from qkvm.net.link import bandwidth, link
from qkvm.net.network.network import Network
from qkvm.paths import Tree
from qkvm.spec.tuning import Bandwidth
from tests.host import nslab

HERE, THERE = "10.9.0.1", "10.9.0.2"
TAG = "qkvm:dom=vm"
SECONDS = 1.5
FREE = 20_000
"""KiB a second that come through without a limit, whatever else the machine does."""


class Wire(NamedTuple):
    """A port of the host and the guest behind it."""

    port: str
    host: nslab.Namespace
    guest: nslab.Namespace

    def inbound(self) -> float:
        """What the guest receives, in KiB a second."""
        return _rate(self.host, self.guest, THERE)

    def outbound(self) -> float:
        """What the guest sends."""
        return _rate(self.guest, self.host, HERE)


@pytest.fixture
def wire(netns: nslab.Namespace) -> Iterator[Wire]:
    guest = nslab.Namespace.new()
    with nslab.IPRoute() as ipr:
        ipr.link("add", ifname="port0", kind="veth", peer={"ifname": "eth0", "net_ns_fd": guest.fd})
        _address(ipr, "port0", HERE)
    with guest.entered(), nslab.IPRoute() as ipr:
        _address(ipr, "eth0", THERE)
    yield Wire("port0", netns, guest)
    with nslab.IPRoute() as ipr:
        ipr.link("del", index=ipr.link_lookup(ifname="port0")[0])
    guest.close()


def _address(ipr: Any, name: str, address: str) -> None:
    index = ipr.link_lookup(ifname=name)[0]
    ipr.addr("add", index=index, address=address, prefixlen=24)
    ipr.link("set", index=index, state="up")


def _rate(sender: nslab.Namespace, receiver: nslab.Namespace, address: str) -> float:
    """KiB a second that one TCP stream gets through."""
    listener = receiver.open()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((address, 5001))
    listener.listen(1)
    client = sender.connect((address, 5001))
    peer, _ = listener.accept()
    end = time.monotonic() + SECONDS

    def send() -> None:
        client.settimeout(0.1)
        with suppress(ConnectionError):
            while time.monotonic() < end:
                with suppress(TimeoutError):
                    client.send(bytes(65536))

    worker = threading.Thread(target=send)
    worker.start()
    received, begin = 0, time.monotonic()
    peer.settimeout(0.1)
    while (now := time.monotonic()) < end:
        with suppress(TimeoutError):
            received += len(peer.recv(1 << 20))
    worker.join()
    for sock in (client, peer, listener):
        sock.close()
    return received / 1024 / (now - begin)


def test_each_direction_is_held_to_its_own_limit(wire: Wire) -> None:
    shaper = bandwidth.shaper_name(wire.port)
    assert wire.inbound() > FREE and wire.outbound() > FREE

    bandwidth.limit(wire.port, Bandwidth(average=1000), None, shaper=shaper, alias=TAG)
    assert 600 < wire.inbound() < 1300 and wire.outbound() > FREE
    assert not any(shaper in line for line in nslab.links()), "nothing beside the port is needed for what comes in"

    bandwidth.limit(wire.port, None, Bandwidth(average=1000), shaper=shaper, alias=TAG)
    assert wire.inbound() > FREE and 600 < wire.outbound() < 1300
    assert any(line.startswith(f"{shaper} {TAG}") for line in nslab.links())

    # A bucket of 1 MiB that empties at 4 MiB a second at most: within the time more than the average alone comes.
    bandwidth.limit(wire.port, Bandwidth(average=500, peak=4000, burst=1000), None, shaper=shaper, alias=TAG)
    burst = wire.inbound()
    assert 800 < burst < 1700, burst
    bandwidth.limit(wire.port, None, None, shaper=shaper, alias=TAG)
    assert wire.inbound() > FREE and wire.outbound() > FREE
    assert not any(shaper in line for line in nslab.links())


def test_only_what_is_ours_is_taken_away(wire: Wire) -> None:
    shaper = bandwidth.shaper_name(wire.port)
    with nslab.IPRoute() as ipr:
        ipr.link("add", ifname=shaper, kind="ifb")
        index = ipr.link_lookup(ifname=shaper)[0]
        ipr.link("set", index=index, ifalias="somebody's")
        for change in (
            lambda: bandwidth.remove(shaper, TAG),
            lambda: bandwidth.limit(wire.port, None, Bandwidth(average=1), shaper=shaper, alias=TAG),
        ):
            with pytest.raises(HostError, match="was not made for this domain"):
                change()
        ipr.link("del", index=index)
        # An administrator's own queue has another handle.
        port = ipr.link_lookup(ifname=wire.port)[0]
        ipr.tc("add", "tbf", port, 0x70000, rate="8mbit", burst=65536, latency="50ms")
        bandwidth.limit(wire.port, None, None, shaper=shaper, alias=TAG)
        assert any(entry["handle"] == 0x70000 for entry in ipr.get_qdiscs(port))
    assert not bandwidth.remove(shaper, TAG)
    with pytest.raises(NotFound, match="no interface nothere"):
        bandwidth.shaper_name("nothere")


def test_a_network_holds_all_of_its_guests_together(
    netns: nslab.Namespace, root: Tree, make_guest: Callable[[str], nslab.Guest]
) -> None:
    text = """name = "slow"
mode = "isolated"
bridge = "virbr3"
address = "10.9.0.1/24"
inbound = { average = 1000 }
outbound = { average = 800 }
"""
    network = Network.define(root, text, "slow.toml")
    network.start(firewall="nftables")
    first, second = make_guest("virbr3"), make_guest("virbr3")
    first.configure("10.9.0.2", 24)
    second.configure("10.9.0.3", 24)
    assert [line.split()[1] for line in nslab.links() if line.startswith("qkvm-o")] == [link.network_tag("slow")]
    # Two at once get no more than one.
    rates: list[float] = []
    workers = [
        threading.Thread(target=lambda guest=guest: rates.append(_rate(netns, guest.namespace, guest.ip)))
        for guest in (first, second)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert 600 < sum(rates) < 1400, rates
    assert 450 < _rate(first.namespace, netns, "10.9.0.1") < 1100
    assert _rate(first.namespace, second.namespace, "10.9.0.3") > FREE, "what guests send each other is free"
    network.destroy()
    network.undefine()
    assert not any(line.startswith("qkvm-o") for line in nslab.links())
