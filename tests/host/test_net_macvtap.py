"""macvtaps on a real kernel: a veth plays the host's NIC, a namespace the wire, and this process the guest."""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing

import pytest

from qkvm.errors import AlreadyExists, InvalidState, NotFound
from qkvm.net.link import bandwidth, link, macvtap, table
from qkvm.spec.tuning import Bandwidth
from tests.host import nslab

MAC, OTHER, WIRE = "52:54:00:00:00:01", "52:54:00:00:00:02", "52:54:00:00:00:09"
TAG = link.domain_tag("vm")
HEADER = bytes(10)
"""struct virtio_net_hdr, all of it unused."""


def _frame(to: str, sender: str, body: bytes) -> bytes:
    return bytes.fromhex((to + sender).replace(":", "")) + b"\x88\xb5" + body.ljust(46, b"\0")


@pytest.fixture
def wire(netns: nslab.Namespace) -> Iterator[socket.socket]:
    """The far end of a NIC named eth9: a socket that hears and says whole frames."""
    far = nslab.Namespace.new()
    with nslab.IPRoute() as ipr:
        ipr.link("add", ifname="eth9", kind="veth", peer={"ifname": "far", "net_ns_fd": far.fd})
        ipr.link("set", index=ipr.link_lookup(ifname="eth9")[0], state="up")
    with far.entered(), nslab.IPRoute() as ipr:
        ipr.link("set", index=ipr.link_lookup(ifname="far")[0], address=WIRE, state="up")
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5))
        sock.bind(("far", 0x88B5))
    sock.settimeout(10)
    with sock:
        yield sock
    with nslab.IPRoute() as ipr:
        ipr.link("del", index=ipr.link_lookup(ifname="eth9")[0])
    far.close()


class Guest:
    """Who holds a macvtap open, as QEMU would."""

    def __init__(self, name: str, mac: str, mode: str, queues: int = 1) -> None:
        self.name, self.mac = name, mac
        self.index = macvtap.free_index()
        macvtap.make(name, self.index, "eth9", mode, mac, TAG)
        self.fds = macvtap.open_queues(name, self.index, queues)

    def send(self, frame: bytes) -> None:
        os.write(self.fds[0], HEADER + frame)

    def hears(self, frame: bytes, seconds: float = 10) -> bool:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            for fd in select.select(self.fds, [], [], left)[0]:
                if os.read(fd, 65536)[len(HEADER) :] == frame:
                    return True
        return False

    def close(self) -> None:
        for fd in self.fds:
            os.close(fd)
        assert macvtap.remove(self.name, self.index)


def test_a_guest_on_a_macvtap_is_on_the_wire(wire: socket.socket) -> None:
    assert table.free_name("macvtap", ["macvtap0", "lo"]) == "macvtap1"
    with closing(Guest("macvtap0", MAC, "bridge", queues=2)) as guest:
        assert os.path.exists(f"/dev/tap{guest.index}")
        assert f"macvtap0 {TAG} {MAC}" in nslab.links()
        guest.send(_frame(WIRE, MAC, b"out"))
        assert wire.recv(2048) == _frame(WIRE, MAC, b"out")
        wire.send(_frame(MAC, WIRE, b"in"))
        assert guest.hears(_frame(MAC, WIRE, b"in"))
        wire.send(_frame(OTHER, WIRE, b"for another"))
        wire.send(_frame(MAC, WIRE, b"last"))
        assert not guest.hears(_frame(OTHER, WIRE, b"for another"), 0.2)
    assert not os.path.exists(f"/dev/tap{guest.index}") and not table.present("macvtap0")
    assert not macvtap.remove("macvtap0", guest.index)


@pytest.mark.parametrize(("mode", "talk"), [("bridge", True), ("private", False), ("vepa", False)])
def test_guests_on_one_nic_hear_each_other_as_the_mode_says(wire: socket.socket, mode: str, talk: bool) -> None:
    with closing(Guest("macvtap0", MAC, mode)) as one, closing(Guest("macvtap1", OTHER, mode)) as two:
        one.send(_frame(OTHER, MAC, b"neighbour"))
        assert two.hears(_frame(OTHER, MAC, b"neighbour"), 5 if talk else 0.3) == talk
        if mode == "vepa":
            # The switch has it, and would send it back.
            assert wire.recv(2048) == _frame(OTHER, MAC, b"neighbour")


def test_what_cant_be_made(wire: socket.socket) -> None:
    with pytest.raises(NotFound, match="Unable to get index for interface eth7: No such device"):
        macvtap.make("macvtap0", 1 << 29, "eth7", "bridge", MAC, TAG)
    with closing(Guest("macvtap0", MAC, "passthrough")):
        with nslab.IPRoute() as ipr:
            assert ipr.link("get", ifname="eth9")[0].get_attr("IFLA_ADDRESS") == MAC
        with pytest.raises(InvalidState, match="eth9 can't carry a macvtap of mode bridge"):
            macvtap.make("macvtap1", 1 << 29, "eth9", "bridge", OTHER, TAG)
    with closing(Guest("macvtap0", MAC, "bridge")), pytest.raises(AlreadyExists, match="macvtap0"):
        macvtap.make("macvtap0", 1 << 29, "eth9", "bridge", OTHER, TAG)
    with nslab.IPRoute() as ipr:
        assert ipr.link("get", ifname="eth9")[0].get_attr("IFLA_ADDRESS") != MAC, "as it was before"
        ipr.link("add", ifname="br0", kind="bridge")
        bridge, lower = ipr.link_lookup(ifname="br0")[0], ipr.link_lookup(ifname="eth9")[0]
        ipr.link("set", index=lower, master=bridge)
        with pytest.raises(InvalidState, match="it is on a bridge"):
            macvtap.make("macvtap0", 1 << 29, "eth9", "bridge", MAC, TAG)
        ipr.link("del", index=bridge)
    assert not table.present("macvtap0")


def test_only_what_was_made_for_a_run_is_taken_away(wire: socket.socket) -> None:
    with closing(Guest("macvtap0", MAC, "bridge")) as guest:
        assert not macvtap.remove("macvtap0", guest.index + 1), "somebody has made one of that name since"
        assert not macvtap.remove("macvtap1", guest.index)
        with nslab.IPRoute() as ipr:
            index = ipr.link_lookup(ifname="eth9")[0]
        assert not macvtap.remove("eth9", index)
        assert table.present("macvtap0") and table.present("eth9")


def test_what_a_guest_receives_by_a_macvtap_can_be_limited(wire: socket.socket) -> None:
    """Its ingress is what a tap's is not: what comes to the guest. So the ifb holds that up."""
    frame = _frame(MAC, WIRE, bytes(1400))
    shaper = bandwidth.shaper_name("eth9")

    def rate(guest: Guest) -> float:
        """KiB a second that arrive of what the wire sends without a pause."""
        end = time.monotonic() + 1.0

        def flood() -> None:
            while time.monotonic() < end:
                try:
                    wire.send(frame)
                except OSError:
                    time.sleep(0.001)

        sender = threading.Thread(target=flood)
        sender.start()
        received = 0
        while (left := end - time.monotonic()) > 0:
            for fd in select.select(guest.fds, [], [], left)[0]:
                received += len(os.read(fd, 65536))
        sender.join()
        return received / 1024

    with closing(Guest("macvtap0", MAC, "bridge")) as guest:
        free = rate(guest)
        bandwidth.limit("macvtap0", None, Bandwidth(average=500), shaper=shaper, alias=TAG)
        held = rate(guest)
        assert 250 < held < 900 < free, (held, free)
        bandwidth.limit("macvtap0", None, None, shaper=shaper, alias=TAG)
