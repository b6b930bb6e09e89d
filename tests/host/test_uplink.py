"""Bridges over NICs: what the host was to others it stays, whatever fails or is killed on the way."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qkvm.errors import AlreadyExists, HostError, InvalidState, InvalidValue, NotFound, QkvmError
from qkvm.host import record
from qkvm.net.link import rtnetlink, sysctl, table
from qkvm.net.uplink import uplink
from qkvm.paths import Tree
from tests.host import nslab

pytestmark = pytest.mark.usefixtures("netns")

MAC = "52:54:00:0a:00:01"
HOST, PEER = "192.0.2.2", "192.0.2.1"

HOST_SETUP = """
link set eth1 address 52:54:00:0a:00:01
link set eth1 mtu 1400
link set eth1 up
link set eth2 up
addr add 192.0.2.2/24 broadcast 192.0.2.255 dev eth1
addr add 192.0.2.3/24 dev eth1 label eth1:web
addr add 192.0.2.4/24 dev eth1 valid_lft 600 preferred_lft 300
addr add 198.51.100.1 peer 198.51.100.2/32 dev eth1
addr add 169.254.7.7/16 scope link dev eth1 noprefixroute
addr add 10.9.0.2/24 dev eth2
addr add 2001:db8:1::2/64 dev eth1 nodad
addr add 2001:db8:1::3/64 dev eth1
addr add 2001:db8:9::1/64 dev eth1 valid_lft 600 preferred_lft 0
addr add fe80::1:1/64 dev eth1
addr add 2001:db8:2::2/64 dev eth2
neigh add 192.0.2.77 lladdr 52:54:00:0a:00:77 dev eth1
route add default via 192.0.2.1 metric 100
route add default via 192.0.2.9 metric 200
route add 10.1.0.0/16 via 192.0.2.1 src 192.0.2.3
route add 10.2.0.0/16 dev eth1 scope link
route add 10.20.0.0/16 via 10.2.0.1
route add 10.3.0.0/16 via 172.16.0.1 dev eth1 onlink
route add 10.4.0.0/16 nexthop via 192.0.2.1 dev eth1 weight 2 nexthop via 10.9.0.1 dev eth2
route add 10.5.0.0/16 dev eth1
route append 10.5.0.0/16 dev eth2
route add 10.6.0.0/16 dev eth2
route append 10.6.0.0/16 dev eth1
route append 10.6.0.0/16 via 10.9.0.1
route add 10.7.0.0/16 via 192.0.2.1 mtu lock 1300 advmss 1260
route add 10.8.0.0/16 tos 0x10 via 192.0.2.1
route add 192.0.2.0/24 dev eth1 table 100
route add default via 192.0.2.1 dev eth1 table 100
route add local 10.77.0.0/16 dev eth1 table 101
rule add from 192.0.2.3 lookup 100
"""
"""What a host can have, in ip's words."""

HOST_ROUTES_6 = """
route add default via 2001:db8:1::1 dev eth1 metric 512
route add default via fe80::1 dev eth1 metric 2048 proto ra expires 900
route add 2001:db8:a::/48 via 2001:db8:1::1 src 2001:db8:1::3
route add 2001:db8:b::/48 via 2001:db8:1::1 expires 600
route add 2001:db8:c::/64 dev eth1
route append 2001:db8:c::/64 dev eth2
route add 2001:db8:d::/48 nexthop via 2001:db8:1::1 dev eth1 nexthop via 2001:db8:2::1 dev eth2
route add default via 2001:db8:1::1 dev eth1 table 100
"""

WORLD_SETUP = """
link set eth1 up
link set eth2 up
addr add 192.0.2.1/24 dev eth1
addr add 2001:db8:1::1/64 dev eth1 nodad
addr add 10.9.0.1/24 dev eth2
route add default via 192.0.2.2
"""


def batch(text: str, family: str = "-4") -> None:
    nslab.sh("ip", *([family] if family == "-6" else []), "-batch", "-", stdin=text)


@pytest.fixture
def world(netns: nslab.Namespace) -> Iterator[nslab.Namespace]:
    """The other ends of two NICs, eth1 with all that a host can have on it, and eth2."""
    outside = nslab.Namespace.new()
    # No address is tested for being another's, which takes a second.
    no_dad = Path("/proc/sys/net/ipv6/conf/default/accept_dad")
    no_dad.write_text("0")
    with outside.entered():
        no_dad.write_text("0")
    with nslab.IPRoute() as ipr:
        for name in ("eth1", "eth2"):
            ipr.link("add", ifname=name, kind="veth", peer={"ifname": name, "net_ns_fd": outside.fd})
    with outside.entered():
        batch(WORLD_SETUP)
    batch(HOST_SETUP)
    nslab.until(lambda: "tentative" not in nslab.sh("ip", "addr"), "addresses that can be used")
    batch(HOST_ROUTES_6, "-6")
    yield outside
    batch("rule del from 192.0.2.3 lookup 100")
    for name in ("eth1", "eth2"):
        nslab.sh("ip", "link", "del", name)
    outside.close()


def host() -> dict[str, str]:
    """All that a bridge could change, but for how long leases still last."""
    shown = {
        "links": nslab.sh("ip", "-d", "link"),
        "addresses": nslab.sh("ip", "addr"),
        "routes": nslab.sh("ip", "route", "show", "table", "all"),
        "routes6": nslab.sh("ip", "-6", "route", "show", "table", "all"),
        "rules": nslab.sh("ip", "rule"),
        "neighbours": nslab.sh("ip", "neigh", "show", "nud", "permanent"),
        "settings": "".join(
            f"{path}={path.read_text()}"
            for family in ("ipv4", "ipv6")
            for path in sorted(Path(f"/proc/sys/net/{family}/conf/eth1").iterdir())
            if path.name != "stable_secret"
        ),
    }
    passing = re.compile(r"\b\d+sec\b|_timer +[0-9.]+")
    return {key: passing.sub("N", text) for key, text in shown.items()}


def same(before: dict[str, str]) -> None:
    after = host()
    for key, text in before.items():
        assert after[key] == text, key


def as_bridged(text: str) -> str:
    return re.sub(r"\beth1\b", "br0", text)


def addresses_of(name: str) -> list[str]:
    """What ip shows of a link's addresses, the kernel's own link-local one left out."""
    found = re.findall(
        r"(inet6? .*)\n", re.sub(r"\b\d+sec\b", "Nsec", nslab.sh("ip", "addr", "show", "dev", name))
    )
    return [line for line in found if "kernel_ll" not in line and "fe80::5054" not in line]


def routes_of(family: str) -> list[str]:
    shown = re.sub(r"\b\d+sec\b", "Nsec", nslab.sh("ip", family, "route", "show", "table", "all"))
    lines = [line.rstrip() for line in shown.splitlines()]
    return [line for line in lines if "table local" not in line and not line.startswith("fe80::/64")]


def test_a_bridge_has_all_that_its_nic_had_and_gives_it_back(root: Tree, world: nslab.Namespace) -> None:
    before = host()
    addresses, routes = addresses_of("eth1"), {family: routes_of(family) for family in ("-4", "-6")}
    made = uplink.make(root, "eth1", "br0")
    assert (made.bridge, made.nic) == ("br0", "eth1")
    assert addresses_of("eth1") == [] and addresses_of("br0") == [as_bridged(line) for line in addresses]
    for family, lines in routes.items():
        assert sorted(routes_of(family)) == sorted(as_bridged(line) for line in lines)
        for prefix in ("10.5.0.0", "10.6.0.0", "2001:db8:c::", "192.0.2.0", "default"):
            order = [line for line in routes_of(family) if line.startswith(prefix)]
            assert order == [as_bridged(line) for line in lines if line.startswith(prefix)]
    shown = nslab.sh("ip", "-d", "link", "show", "br0")
    assert f"link/ether {MAC}" in shown and "mtu 1400" in shown and "alias qkvm:uplink=eth1" in shown
    assert "stp_state 0" in shown and "UP" in shown
    assert "master br0" in nslab.sh("ip", "link", "show", "eth1") and uplink.bridges(root) == {"br0": "eth1"}
    assert "192.0.2.77 dev br0" in nslab.sh("ip", "neigh", "show", "nud", "permanent")
    assert [told for told in made.warnings if "192.0.2.4/24 for" in told and "br0" in told]
    assert uplink.undo(root, "br0") == "eth1"
    same(before)
    assert uplink.bridges(root) == {}


class Talk:
    """A connection to the world over which bytes go there and back without end; tells the longest wait."""

    def __init__(self, world: nslab.Namespace, family: int, address: str) -> None:
        with world.entered():
            listener = socket.socket(family, socket.SOCK_STREAM)
        listener.bind((address, 7))
        listener.listen()
        self._client = socket.create_connection((address, 7), timeout=30)
        self._server, self.peer = listener.accept()
        listener.close()
        self._server.settimeout(30)
        self.longest, self.rounds = 0.0, 0
        self._stop = threading.Event()
        self._echo = threading.Thread(target=self._answer)
        self._ask = threading.Thread(target=self._talk)
        self._echo.start()
        self._ask.start()

    def _answer(self) -> None:
        while data := self._server.recv(1):
            self._server.sendall(data)

    def _talk(self) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            self._client.sendall(b"x")
            if self._client.recv(1) != b"x":
                return
            self.longest = max(self.longest, time.monotonic() - began)
            self.rounds += 1
            time.sleep(0.002)

    def wait(self) -> None:
        """Until some more rounds have been made: the connection lives."""
        target = self.rounds + 20
        nslab.until(lambda: self.rounds >= target, "bytes that come back", 30)

    def close(self) -> None:
        self._stop.set()
        self._ask.join()
        self._client.close()
        self._echo.join()
        self._server.close()


@pytest.mark.parametrize(("family", "address"), [(socket.AF_INET, PEER), (socket.AF_INET6, "2001:db8:1::1")])
@pytest.mark.parametrize("stp", [False, True])
def test_a_connection_stays_open(root: Tree, world: nslab.Namespace, family: int, address: str, stp: bool) -> None:
    talk = Talk(world, family, address)
    try:
        talk.wait()
        longest = []
        for _ in range(3):
            talk.longest = 0.0
            uplink.make(root, "eth1", "br0", stp=stp)
            talk.wait()
            assert f"stp_state {int(stp)}" in nslab.sh("ip", "-d", "link", "show", "br0")
            uplink.undo(root, "br0")
            talk.wait()
            longest.append(talk.longest)
    finally:
        talk.close()
    # A retransmission takes 0.2 s; a port that STP keeps silent, or an address under test, whole seconds in each
    # round. What a busy machine adds is not in all of them.
    assert min(longest) < 0.8, longest


class Faults:
    """The n-th change asked of the kernel fails: before it is done, or after, so that only the answer is lost."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.at, self.count, self.late = 0, 0, False
        real_change, real_set = rtnetlink.Socket.change, sysctl.write

        def change(sock: rtnetlink.Socket, *args: Any, **options: Any) -> bool:
            if args[0] == rtnetlink.NEWNEIGH and args[1].fixed[8] == 4:
                # A neighbour that was only heard of: it may be there or not, and its failure is none.
                return real_change(sock, *args, **options)
            return bool(self.around(lambda: real_change(sock, *args, **options)))

        monkeypatch.setattr(rtnetlink.Socket, "change", change)
        monkeypatch.setattr(
            sysctl, "write", lambda *args, **options: self.around(lambda: real_set(*args, **options))
        )

    def around(self, step: Callable[[], object]) -> object:
        self.count += 1
        if self.count == self.at and not self.late:
            raise HostError("injected")
        result = step()
        if self.count == self.at:
            raise HostError("injected")
        return result

    def arm(self, at: int, late: bool) -> None:
        self.at, self.count, self.late = at, 0, late


@pytest.mark.parametrize("late", [False, True])
def test_a_failure_at_any_step_leaves_all_as_before(
    root: Tree, world: nslab.Namespace, monkeypatch: pytest.MonkeyPatch, late: bool
) -> None:
    faults = Faults(monkeypatch)
    monkeypatch.setattr(uplink, "_inherit", lambda nic, bridge: None)
    before = host()
    faults.arm(0, late)
    uplink.make(root, "eth1", "br0", stp=True)
    steps, bridged = faults.count, host()
    faults.arm(0, late)
    uplink.undo(root, "br0")
    back = faults.count
    assert steps > 60 and back > 50
    for at in range(1, steps + 1):
        faults.arm(at, late)
        with pytest.raises(HostError, match="injected") as caught:
            uplink.make(root, "eth1", "br0", stp=True)
        assert not getattr(caught.value, "__notes__", []), at
        same(before)
        assert uplink.bridges(root) == {}
    faults.arm(0, late)
    uplink.make(root, "eth1", "br0", stp=True)
    for at in range(1, back + 1):
        faults.arm(at, late)
        with pytest.raises(HostError, match="injected"):
            uplink.undo(root, "br0")
        # Where only the answer to the bridge's removal was lost, it is a new one, of another number.
        assert without_numbers(host()) == without_numbers(bridged), at
        assert uplink.bridges(root) == {"br0": "eth1"}
    faults.arm(0, late)
    uplink.undo(root, "br0")
    same(before)


def without_numbers(state: dict[str, str]) -> dict[str, list[str]]:
    """What :func:`host` gives, but for the links' numbers and order, and the bridge's own timers and settings."""
    return {
        key: sorted(re.sub(r"^\d+: ", "", line) for line in text.splitlines())
        for key, text in state.items()
        if key in ("addresses", "routes", "routes6", "neighbours", "settings")
    }


KILLED = """
import os, signal, sys
from qkvm.net.link import rtnetlink
from qkvm.net.uplink import uplink
from qkvm.paths import Tree
left = [int(sys.argv[3])]
real = rtnetlink.Socket.change
def change(sock, *args, **options):
    left[0] -= 1
    if left[0] < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(sock, *args, **options)
rtnetlink.Socket.change = change
tree = Tree(sys.argv[1])
uplink.make(tree, "eth1", "br0") if sys.argv[2] == "make" else uplink.undo(tree, "br0")
"""


def killed(root: Tree, verb: str, steps: int) -> bool:
    done = subprocess.run([sys.executable, "-c", KILLED, root.root, verb, str(steps)], check=False, timeout=60)
    assert done.returncode in (0, -signal.SIGKILL)
    return done.returncode != 0


def test_kill_9_in_the_middle_is_mended(root: Tree, world: nslab.Namespace) -> None:
    before = host()
    steps = 0
    while killed(root, "make", steps):
        (told,) = uplink.mend(root)
        assert told.startswith("bridge br0 was being made") and uplink.mend(root) == []
        same(before)
        steps += 4
    assert steps >= 40
    steps = 0
    # Here the bridge is there at first; each time the next verb mends by itself.
    while killed(root, "undo", steps):
        with pytest.raises(NotFound, match="br0"):
            uplink.undo(root, "br0")
        same(before)
        uplink.make(root, "eth1", "br0")
        steps += 4
    assert steps >= 40
    same(before)
    assert killed(root, "make", 30)
    uplink.make(root, "eth1", "br0")
    uplink.undo(root, "br0")
    same(before)
    assert killed(root, "make", 30)
    assert nslab.sh(sys.executable, "-m", "qkvm", "--root", root.root, "gc") == (
        "Bridge br0 was being made when that was cut off: eth1 has its addresses again\n\n"
    )
    same(before)


def test_a_record_of_an_earlier_boot_is_forgotten(
    root: Tree, world: nslab.Namespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert killed(root, "make", 30)
    # The kernel says so a moment after the bridge has its port.
    nslab.until(lambda: "state UP" in nslab.sh("ip", "link", "show", "br0"), "br0 is up")
    with monkeypatch.context() as patched:
        patched.setattr(record, "_boot_id", "another")
        before = host()
        assert uplink.bridges(root) == {} and uplink.mend(root) == []
        same(before)
    assert not nslab.files_under(root.run)
    nslab.sh("ip", "link", "del", "br0")


def test_what_was_changed_while_bridged_comes_back_too(
    root: Tree, world: nslab.Namespace, make_guest: Callable[[str], nslab.Guest]
) -> None:
    uplink.make(root, "eth1", "br0")
    batch("addr add 192.0.2.99/24 dev br0\naddr del 192.0.2.3/24 dev br0\nroute add 10.50.0.0/16 via 192.0.2.1\n")
    guest = make_guest("br0")
    guest.configure("192.0.2.50", 24)
    assert guest.namespace.run("ping", "-c", "1", "-W", "5", PEER).returncode == 0, "a guest is in the NIC's net"
    with pytest.raises(InvalidState, match=f"Multiple interfaces attached to bridge br0: {guest.port}"):
        uplink.undo(root, "br0")
    assert uplink.undo(root, "br0", force=True) == "eth1"
    shown = "\n".join(addresses_of("eth1"))
    assert "192.0.2.99/24" in shown and "192.0.2.3/24" not in shown
    assert "10.50.0.0/16 via 192.0.2.1 dev eth1" in nslab.sh("ip", "route")


def test_a_nic_that_is_down_is_up_while_bridged(root: Tree, world: nslab.Namespace) -> None:
    nslab.sh("ip", "link", "set", "eth2", "down")
    before = host()
    uplink.make(root, "eth2", "br0")
    assert "state UP" in nslab.sh("ip", "link", "show", "eth2")
    uplink.undo(root, "br0")
    same(before)


def test_a_bridge_or_nic_that_is_gone_meanwhile(root: Tree, world: nslab.Namespace) -> None:
    before = host()
    uplink.make(root, "eth1", "br0")
    nslab.sh("ip", "link", "del", "br0")
    assert addresses_of("eth1") == []
    assert uplink.undo(root, "br0") == "eth1"
    same({key: before[key] for key in ("links", "addresses", "routes", "routes6", "neighbours")})
    uplink.make(root, "eth1", "br0")
    nslab.sh("ip", "link", "set", "br0", "alias", "mine")
    with pytest.raises(InvalidState, match="no longer the bridge"):
        uplink.undo(root, "br0")
    nslab.sh("ip", "link", "set", "br0", "alias", "qkvm:uplink=eth1")
    nslab.sh("ip", "link", "set", "eth1", "nomaster")
    with pytest.raises(InvalidState, match="no longer a port"):
        uplink.undo(root, "br0")
    nslab.sh("ip", "link", "set", "eth1", "name", "eth9")
    assert uplink.undo(root, "br0") == "" and not table.present("br0")
    nslab.sh("ip", "link", "set", "eth9", "name", "eth1")


def test_the_bridge_treats_packets_as_its_nic_does(root: Tree, world: nslab.Namespace) -> None:
    settings = {"ipv4/conf/{}/rp_filter": "1", "ipv4/conf/{}/arp_ignore": "2", "ipv6/conf/{}/accept_ra": "0"}
    for path, value in settings.items():
        Path("/proc/sys/net", path.format("eth1")).write_text(value)
    nslab.sh("ip", "-6", "route", "del", "2001:db8:d::/48")
    Path("/proc/sys/net/ipv6/conf/eth2/disable_ipv6").write_text("1")
    before = host()
    uplink.make(root, "eth1", "br0")
    for path, value in settings.items():
        assert Path("/proc/sys/net", path.format("br0")).read_text().strip() == value
    assert world.run("ping", "-c", "1", "-W", "5", HOST).returncode == 0
    uplink.undo(root, "br0")
    uplink.make(root, "eth2", "br0")
    assert "inet6" not in nslab.sh("ip", "addr", "show", "dev", "br0")
    uplink.undo(root, "br0")
    same(before)


def test_a_nic_without_a_carrier(root: Tree, world: nslab.Namespace) -> None:
    with world.entered():
        nslab.sh("ip", "link", "set", "eth1", "down")
    nslab.until(lambda: "NO-CARRIER" in nslab.sh("ip", "link", "show", "eth1"), "no carrier")
    before = host()
    uplink.make(root, "eth1", "br0")
    assert f"inet {HOST}/24" in nslab.sh("ip", "addr", "show", "dev", "br0")
    uplink.undo(root, "br0")
    same(before)


def test_a_route_with_a_dead_way_beside_is_told_of(root: Tree, world: nslab.Namespace) -> None:
    nslab.sh("ip", "link", "set", "eth2", "down")
    before = host()
    with pytest.raises(HostError, match=r"cannot set the route to (10.4.0.0/16|2001:db8:d::/48)") as caught:
        uplink.make(root, "eth1", "br0")
    assert "one may be dead" in caught.value.hint and not getattr(caught.value, "__notes__", [])
    same(before)


REFUSED: tuple[tuple[str, str, str, type[QkvmError], str], ...] = (
    ("", "lo", "br0", InvalidValue, "loopback"),
    ("", "nope", "br0", NotFound, "no interface nope"),
    ("", "eth1", "sixteen-bytes-xx", InvalidValue, "15 bytes"),
    ("", "eth1", "a/b", InvalidValue, "not allowed"),
    ("", "eth1", "eth2", AlreadyExists, "already exists"),
    ("", "eth1", "bridge-for-web", InvalidState, "label"),
    ("link add x0 type bridge", "x0", "br0", InvalidValue, "already a bridge"),
    ("link add x0 type bridge\nlink set eth2 master x0", "eth2", "br0", InvalidState, "belongs to bridge x0"),
    ("link add x0 link eth2 type macvlan", "x0", "br0", InvalidValue, "macvlan"),
    ("link add x0 link eth2 type macvtap", "eth2", "br0", InvalidState, "macvtap x0 takes"),
    ("tuntap add x0 mode tun", "x0", "br0", InvalidValue, "no Ethernet"),
    ("link add x0 type veth peer x1\nlink set x0 alias qkvm:dom=vm", "x0", "br0", InvalidState, "guest's own"),
    (
        "nexthop add id 7 via 10.9.0.1 dev eth2\nroute add 10.60.0.0/16 nhid 7",
        "eth2",
        "br0",
        InvalidState,
        "object 7",
    ),
)


@pytest.mark.parametrize(("setup", "nic", "bridge", "kind", "words"), REFUSED, ids=lambda value: str(value)[:20])
def test_refused(
    root: Tree, world: nslab.Namespace, setup: str, nic: str, bridge: str, kind: type[QkvmError], words: str
) -> None:
    batch(setup + "\n")
    before = host()
    with pytest.raises(kind, match=words):
        uplink.make(root, nic, bridge)
    same(before)
    if table.present("x0"):
        nslab.sh("ip", "link", "del", "x0")


@pytest.mark.parametrize(("stp", "delay"), [(False, 31), (False, -1), (True, 1), (True, 31)])
def test_refused_delays(root: Tree, stp: bool, delay: int) -> None:
    with pytest.raises(InvalidValue, match="forward delay"):
        uplink.make(root, "lo", "br0", stp=stp, delay=delay)


def test_warnings(root: Tree, world: nslab.Namespace) -> None:
    batch("rule add iif eth1 lookup 100")
    made = uplink.make(root, "eth1", "br0", stp=True, delay=4)
    assert len(made.warnings) == 2 and "ip rule" in made.warnings[1]
    assert "forward_delay 400" in nslab.sh("ip", "-d", "link", "show", "br0")
    uplink.undo(root, "br0")
    nslab.sh("ip", "rule", "del", "iif", "eth1", "lookup", "100")
    assert uplink.make(root, "eth2", "br0").warnings == ()
    uplink.undo(root, "br0")


def test_two_at_once_are_one_after_the_other(root: Tree, world: nslab.Namespace, netns: nslab.Namespace) -> None:
    before = host()
    failed: list[QkvmError] = []

    def make(nic: str) -> None:
        netns.enter()
        try:
            uplink.make(root, nic, "br0")
        except QkvmError as error:
            failed.append(error)

    workers = [threading.Thread(target=make, args=(nic,)) for nic in ("eth1", "eth2")]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(failed) == 1 and isinstance(failed[0], AlreadyExists)
    uplink.undo(root, "br0")
    same(before)
    assert os.listdir(os.path.join(root.run, "uplinks")) == []
