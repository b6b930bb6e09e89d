"""Ports of the host that lead to guests, by either packet filter: what arrives where, and from whom."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qkvm.errors import AlreadyExists, InvalidState, InvalidValue, NotFound
from qkvm.files import make_private_dir
from qkvm.host import record
from qkvm.net.network import forward
from qkvm.net.network.network import Network
from qkvm.paths import Tree
from qkvm.scope import Scope
from qkvm.spec.forward import Forward, Protocol
from tests.host import nslab
from tests.host.lan import BACKENDS, LAN, LAN6, MakeGuest, Serve, dual, plugged, reaches
from tests.host.nslab import OUTSIDE, OUTSIDE6, WORLD, WORLD6

pytestmark = pytest.mark.usefixtures("netns")


def both_ways(network: Network, ports: str, guest: str, to: int = 0, **more: str) -> Forward:
    """A forward that was added, live and in the definition."""
    made = Forward(ports=ports, guest=guest, to=to, listen=more.get("listen", ""))
    forward.add(network, made, scope=Scope.LIVE | Scope.CONFIG)
    return made


@BACKENDS
def test_forwards(root: Tree, firewall: str, world: nslab.Namespace, make_guest: MakeGuest, serve: Serve) -> None:
    network = dual(root, "nat", "true")
    network.start(firewall=firewall)
    rules = nslab.legacy_rules(), nslab.nft_rules()
    guest, other = plugged(make_guest, 50), plugged(make_guest, 51)
    server = serve(guest.namespace, 80)
    assert not reaches(world, OUTSIDE, 8080)
    four = both_ways(network, "8080", f"{LAN}.50", 80)
    six = both_ways(network, "8080", f"{LAN6}:50", 80)
    # From outside, by both families, with the client's own address; privileged ports stay what they are.
    assert reaches(world, OUTSIDE, 8080) and reaches(world, OUTSIDE6, 8080)
    assert [address for address, _ in server.seen] == [WORLD, WORLD6]
    assert not reaches(world, f"{LAN}.50", 80) and not reaches(world, OUTSIDE, 80)
    # From the host, by each of its addresses; from a guest, and from the very guest.
    for address in (OUTSIDE, OUTSIDE6, f"{LAN}.1", f"{LAN6}:1", "127.0.0.1"):
        assert reaches(None, address, 8080), address
    for source in (other, guest):
        # Where the kernel shows bridged packets to the packet filter, a guest can't come back to itself: they
        # would have to leave by the port that they came in by.
        for key in ("iptables", "ip6tables") if source is guest and os.path.exists("/proc/sys/net/bridge") else ():
            Path(f"/proc/sys/net/bridge/bridge-nf-call-{key}").write_text("0")
        for address in (OUTSIDE, OUTSIDE6, f"{LAN}.1"):
            assert reaches(source.namespace, address, 8080), (source.ip, address)
    assert {address for address, _ in server.seen[-6:]} == {f"{LAN}.1", f"{LAN6}:1"}
    # The host's own 127.0.0.1 stays closed to guests, though answers to it pass.
    with socket.create_server(("127.0.0.1", 9999)), guest.namespace.open() as stranger:
        with guest.namespace.entered():
            nslab.sh("ip", "route", "add", "127.0.0.1", "via", f"{LAN}.1", "table", "5")
            nslab.sh("ip", "rule", "add", "to", "127.0.0.1", "lookup", "5", "pref", "0")
            Path("/proc/sys/net/ipv4/conf/all/route_localnet").write_text("1")
            nslab.sh("ip", "rule", "del", "pref", "0", "lookup", "local")
        stranger.settimeout(0.5)
        with pytest.raises((TimeoutError, OSError)):
            stranger.connect(("127.0.0.1", 9999))
    assert [one.forward for one in forward.listing(network)] == [four, six]
    forward.delete(network, "tcp 8080", f"{LAN}.50", scope=Scope.LIVE | Scope.CONFIG)
    assert [one.forward for one in forward.listing(network)] == [six]
    assert not reaches(world, OUTSIDE, 8080)
    with pytest.raises(NotFound, match="has no forward tcp 9"):
        forward.delete(network, "tcp 9", scope=Scope.LIVE)
    network.destroy()
    network.start(firewall=firewall)
    forward.delete(network, six.label, scope=Scope.LIVE | Scope.CONFIG)
    assert (nslab.legacy_rules(), nslab.nft_rules()) == rules
    network.destroy()


@BACKENDS
def test_ranges_and_udp(
    root: Tree, firewall: str, world: nslab.Namespace, make_guest: MakeGuest, serve: Serve
) -> None:
    network = dual(root, "nat")
    network.start(firewall=firewall)
    guest = plugged(make_guest, 50)
    both_ways(network, "8000-8002", f"{LAN}.50")
    both_ways(network, "9000-9002", f"{LAN}.50", 8000)
    forward.add(
        network,
        Forward(protocol=Protocol.UDP, ports="5353", guest=f"{LAN}.50", to=53, listen=OUTSIDE),
        scope=Scope.LIVE,
    )
    servers = {port: serve(guest.namespace, port) for port in (8000, 8002)}
    for port, there in ((8000, 8000), (8002, 8002), (9000, 8000), (9002, 8002)):
        before = len(servers[there].seen)
        assert reaches(world, OUTSIDE, port) and len(servers[there].seen) == before + 1
    assert not reaches(world, OUTSIDE, 8001) and not reaches(world, OUTSIDE, 8003)
    with echo(guest.namespace, 53), world.open(socket.SOCK_DGRAM) as client:
        client.sendto(b"ping", (OUTSIDE, 5353))
        assert client.recvfrom(100) == (b"ping", (OUTSIDE, 5353))
    assert [one.config for one in forward.listing(network)] == [True, True, False]
    network.destroy()


@contextmanager
def echo(namespace: nslab.Namespace, port: int) -> Iterator[None]:
    """A UDP server that sends back what it gets, once."""
    with namespace.open(socket.SOCK_DGRAM) as server:
        server.bind(("0.0.0.0", port))

        def answer() -> None:
            data, peer = server.recvfrom(100)
            server.sendto(data, peer)

        worker = threading.Thread(target=answer)
        worker.start()
        yield
        worker.join()


def run_as(root: Tree, name: str, mac: str) -> None:
    """What a running domain's record says of a NIC on the network."""
    make_private_dir(root.run)
    make_private_dir(root.domain_runs)
    make_private_dir(root.domain_run(name))
    nic = {"id": "net0", "mac": mac, "type": "network", "source": "lan", "since": 0}
    record.write(os.path.join(root.domain_run(name), "record.json"), {"id": 1, "nics": [nic]})


@BACKENDS
def test_a_guest_by_name_is_followed(
    root: Tree, firewall: str, world: nslab.Namespace, make_guest: MakeGuest, serve: Serve
) -> None:
    """dnsmasq has the forward brought to the guest's address, when it gives one and when it gives another."""
    network = dual(root, "nat", "false", '[dhcp]\nstart = "192.168.77.100"\nend = "192.168.77.200"\n')
    network.start(firewall=firewall)
    both_ways(network, "8080", "web", 80)
    (entry,) = forward.listing(network)
    assert (entry.forward.guest, entry.addresses) == ("web", ())
    assert not reaches(world, OUTSIDE, 8080)
    guest = make_guest("virbr7")
    run_as(root, "web", guest.mac)
    server = serve(guest.namespace, 80)
    first = guest.dhcp("web")
    nslab.until(lambda: reaches(world, OUTSIDE, 8080), "the forward leads to the guest", 60)
    assert server.seen[-1][0] == WORLD
    assert forward.listing(network)[0].addresses == (first,)
    # Another address, since another has the old one by now.
    Path(root.leases("lan")).write_text("")
    network.destroy()
    network.start(firewall=firewall)
    nslab.sh("ip", "link", "set", guest.port, "master", "virbr7")
    guest.flush()
    thief = make_guest("virbr7")
    thief.configure(first, 24)
    second = guest.dhcp("web")
    assert second != first
    nslab.until(lambda: reaches(world, OUTSIDE, 8080), "the forward follows the guest", 60)
    assert forward.listing(network)[0].addresses == (second,)
    network.destroy()
    os.unlink(os.path.join(root.domain_run("web"), "record.json"))
    # The verb that dnsmasq called may still be about to find that there is nothing to do.
    nslab.until(lambda: not nslab.processes_naming(root.root), "all processes have ended", 60)


def test_ports_that_are_taken(root: Tree, world: nslab.Namespace) -> None:
    network = dual(root, "nat")
    network.start()
    with socket.create_server(("0.0.0.0", 8080)) as taken, pytest.raises(AlreadyExists, match="has tcp port 8080"):
        assert taken
        both_ways(network, "8079-8081", f"{LAN}.50")
    with socket.create_server((f"{LAN}.1", 8080)), pytest.raises(AlreadyExists, match="has tcp port 8080"):
        both_ways(network, "8080", f"{LAN}.50")
    with socket.create_server((f"{LAN}.1", 8080)):
        both_ways(network, "8080", f"{LAN}.50", listen=OUTSIDE)
    with pytest.raises(AlreadyExists, match=r"tcp 8000-9000 is in the way of forward tcp 203.0.113.1:8080"):
        both_ways(network, "8000-9000", f"{LAN}.50")
    other = Network.define(root, 'name = "two"\nbridge = "virbr9"\naddress = "192.168.79.1/24"\n', "x")
    other.start()
    with pytest.raises(AlreadyExists, match=r"network 'lan' forwards tcp 203.0.113.1:8080"):
        forward.add(other, Forward(ports="8080", guest="192.168.79.5"), scope=Scope.LIVE | Scope.CONFIG)
    assert other.definition.forwards == other.actual.forwards == (), "both halves are as they were"
    other.destroy()
    with pytest.raises(InvalidState, match="not running"):
        forward.add(other, Forward(ports="1", guest="192.168.79.5"), scope=Scope.LIVE | Scope.CONFIG)
    assert other.definition.forwards == ()
    network.destroy()
    # A start is held to the same.
    with socket.create_server(("0.0.0.0", 8080)), pytest.raises(AlreadyExists, match="has tcp port 8080"):
        network.start()
    assert not network.active


@pytest.mark.parametrize(
    ("ports", "guest", "words"),
    [
        ("80", "192.168.99.9", "no host of"),
        ("80", f"{LAN}.1", "the host's own address"),
        ("80", "../x", "not allowed"),
        ("65530-65535", f"{LAN}.9", "would end at"),
    ],
)
def test_forwards_that_can_not_be(root: Tree, ports: str, guest: str, words: str) -> None:
    network = dual(root, "nat")
    with pytest.raises(InvalidValue, match=words):
        forward.add(network, Forward(ports=ports, guest=guest, to=65531), scope=Scope.CONFIG)
    assert network.definition.forwards == ()


def test_the_verb(root: Tree, capfd: pytest.CaptureFixture[str]) -> None:
    from qkvm.cli.main import main

    def qkvm(*words: str) -> tuple[int, str, str]:
        capfd.readouterr()
        code = main(["--root", root.root, *words])
        return code, *capfd.readouterr()

    network = dual(root, "nat")
    assert qkvm("net-forward", "lan", "add", "8080", f"{LAN}.9", "80") == (0, "Forward tcp 8080 added\n\n", "")
    network.start()
    fresh = ("net-forward", "lan", "add", "5000-5009", "web", "--protocol", "udp", "--listen", f"{LAN}.1")
    missing = "warning: there is no domain 'web' yet; the forward leads nowhere until there is\n"
    assert qkvm(*fresh) == (0, "Forward udp 192.168.77.1:5000-5009 added\n\n", missing)
    assert qkvm("net-forward", "lan", "list")[1] == (
        " Protocol   Listen         Ports       Guest          Address        To          State\n"
        "-----------------------------------------------------------------------------------------------\n"
        f" tcp        -              8080        {LAN}.9   {LAN}.9   80          live, config\n"
        f" udp        {LAN}.1   5000-5009   web            -              5000-5009   live, config\n\n"
    )
    told = json.loads(qkvm("net-forward", "lan", "list", "--json")[1])
    assert told[0] == {
        "protocol": "tcp",
        "ports": "8080",
        "guest": f"{LAN}.9",
        "to": 80,
        "addresses": [f"{LAN}.9"],
        "live": True,
        "config": True,
    }
    code, _, error = qkvm("net-forward", "lan", "delete", "1")
    assert code == 1 and "Failed to delete forward of network lan" in error
    for words in ("add", "add 80", "add 80-79 x", "add 0 x", "add 65536 x", "turn", "add 80 x y"):
        code, out, error = qkvm("net-forward", "lan", *words.split())
        assert code == 1 and not out.strip() and error.count("\n") == 1, words
    assert qkvm("net-forward", "lan", "delete", "8080")[0] == 0
    os.makedirs(root.domain_definitions, 0o700, exist_ok=True)
    Path(root.domain_definition("web")).touch()
    assert qkvm("net-forward", "lan", "add", "8081", "web") == (0, "Forward tcp 8081 added\n\n", "")
    network.destroy()
