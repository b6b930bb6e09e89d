"""What each mode of a network lets through, by either packet filter, IPv4 and IPv6: packets decide."""

from __future__ import annotations

import socket

import pytest

from qkvm.errors import AlreadyExists, NotFound
from qkvm.net.network.network import Network
from qkvm.paths import Tree
from tests.host import nslab
from tests.host.lan import BACKENDS, LAN, LAN6, MakeGuest, Serve, dual, plugged, reaches
from tests.host.nslab import OUTSIDE, OUTSIDE6, WORLD, WORLD6

pytestmark = pytest.mark.usefixtures("netns")


@BACKENDS
@pytest.mark.parametrize("nat6", ["true", "false"])
def test_nat(
    root: Tree, firewall: str, nat6: str, world: nslab.Namespace, make_guest: MakeGuest, serve: Serve
) -> None:
    network = dual(root, "nat", nat6)
    before = nslab.forwarding()
    network.start(firewall=firewall)
    guest, other = plugged(make_guest, 50), plugged(make_guest, 51)
    server = serve(world, 8080)
    for address in (WORLD, WORLD6):
        # A guest's privileged port must not reach the world as a privileged port of the host.
        with guest.namespace.connect((address, 8080), source_port=500) as connection:
            assert connection.recv(5) == b"hello"
    (seen4, port4), (seen6, port6) = server.seen
    assert seen4 == OUTSIDE and port4 >= 1024
    if nat6 == "true":
        assert seen6 == OUTSIDE6 and port6 >= 1024
    else:
        assert (seen6, port6) == (f"{LAN6}:50", 500), "IPv6 without NAT is routed"
    serve(other.namespace, 80)
    for address in (f"{LAN}.51", f"{LAN6}:51"):
        assert reaches(guest.namespace, address, 80) and reaches(None, address, 80)
    assert not reaches(world, f"{LAN}.51", 80)
    assert reaches(world, f"{LAN6}:51", 80) is (nat6 == "false")
    assert guest.namespace.run("ping", "-c", "1", "-W", "5", f"{LAN6}:1").returncode == 0
    network.destroy()
    assert nslab.forwarding() == before


@BACKENDS
@pytest.mark.parametrize("group", ["224.0.0.251", "255.255.255.255"])
def test_multicast_and_broadcast_keep_their_source(
    root: Tree, firewall: str, group: str, make_guest: MakeGuest
) -> None:
    """They go to no host of the subnet, and would be masqueraded: from another port than that of the service."""
    network = dual(root, "nat", "true")
    network.start(firewall=firewall)
    guest = plugged(make_guest, 50)
    with guest.namespace.open(socket.SOCK_DGRAM) as listener, socket.socket(type=socket.SOCK_DGRAM) as sender:
        listener.bind(("", 5353))
        if group.startswith("224"):
            member = socket.inet_aton(group) + socket.inet_aton(f"{LAN}.50")
            listener.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, member)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        sender.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"virbr7")
        sender.bind((f"{LAN}.1", 500))
        sender.sendto(b"hello", (group, 5353))
        assert listener.recvfrom(100) == (b"hello", (f"{LAN}.1", 500))
    network.destroy()


@BACKENDS
def test_route(root: Tree, firewall: str, world: nslab.Namespace, make_guest: MakeGuest, serve: Serve) -> None:
    network = dual(root, "route")
    network.start(firewall=firewall)
    guest = plugged(make_guest, 50)
    server = serve(world, 8080)
    assert reaches(guest.namespace, WORLD, 8080) and reaches(guest.namespace, WORLD6, 8080)
    assert [address for address, _ in server.seen] == [f"{LAN}.50", f"{LAN6}:50"]
    serve(guest.namespace, 80)
    assert reaches(world, f"{LAN}.50", 80) and reaches(world, f"{LAN6}:50", 80)
    # An address that is not of the network is nobody that the host would forward for.
    guest.configure("192.168.99.9", 24)
    with guest.namespace.open() as stranger, pytest.raises(TimeoutError):
        stranger.settimeout(0.5)
        stranger.bind(("192.168.99.9", 0))
        stranger.connect((WORLD, 8080))
    assert len(server.seen) == 2
    network.destroy()


@BACKENDS
def test_isolated(root: Tree, firewall: str, world: nslab.Namespace, make_guest: MakeGuest, serve: Serve) -> None:
    network, neighbour = (
        dual(root, "isolated"),
        Network.define(
            root,
            'name = "nat"\nbridge = "virbr9"\naddress = "192.168.79.1/24"\n'
            'ipv6 = { address = "fd00:79:0:1::1/64", nat = true }\n',
            "x",
        ),
    )
    network.start(firewall=firewall)
    # Forwarding is on: only the rules can keep the guests in.
    neighbour.start(firewall=firewall)
    guest, other = plugged(make_guest, 50), plugged(make_guest, 51)
    serve(world, 8080)
    serve(other.namespace, 80)
    assert not reaches(guest.namespace, WORLD, 8080) and not reaches(guest.namespace, WORLD6, 8080)
    assert not reaches(world, f"{LAN}.51", 80) and not reaches(world, f"{LAN6}:51", 80)
    assert reaches(guest.namespace, f"{LAN}.51", 80) and reaches(guest.namespace, f"{LAN6}:51", 80)
    assert reaches(None, f"{LAN6}:51", 80)
    network.destroy()
    neighbour.destroy()


@BACKENDS
def test_guests_among_themselves(root: Tree, firewall: str, make_guest: MakeGuest, serve: Serve) -> None:
    """A network without any address has guests and nothing else: not even the host."""
    network = Network.define(root, 'name = "lan"\nmode = "isolated"\nbridge = "virbr7"\n', "lan.toml")
    started = network.start(firewall=firewall)
    assert not started.relocated and network.record is not None and network.record["dnsmasq"] is None
    guest, other = make_guest("virbr7"), make_guest("virbr7")
    guest.configure("10.5.0.1", 24)
    other.configure("10.5.0.2", 24)
    serve(other.namespace, 80)
    assert reaches(guest.namespace, "10.5.0.2", 80)
    network.destroy()


@BACKENDS
def test_open(root: Tree, firewall: str, world: nslab.Namespace, make_guest: MakeGuest, serve: Serve) -> None:
    """No rules at all: the host forwards, and what its own rules say is what holds."""
    network, rules = dual(root, "open"), (nslab.legacy_rules(), nslab.nft_rules())
    network.start(firewall=firewall)
    assert (nslab.legacy_rules(), nslab.nft_rules()) == rules and nslab.forwarding() == "1 and IPv6"
    guest = plugged(make_guest, 50)
    server = serve(world, 8080)
    assert reaches(guest.namespace, WORLD, 8080) and reaches(guest.namespace, WORLD6, 8080)
    assert [address for address, _ in server.seen] == [f"{LAN}.50", f"{LAN6}:50"]
    serve(guest.namespace, 80)
    assert reaches(world, f"{LAN}.50", 80)
    network.destroy()
    assert nslab.forwarding() == "0"


@BACKENDS
def test_a_network_that_goes_out_by_one_link(
    root: Tree, firewall: str, world: nslab.Namespace, make_guest: MakeGuest, serve: Serve
) -> None:
    serve(world, 8080)
    network = dual(root, "nat", "true", 'dev = "uplink"\n')
    network.start(firewall=firewall)
    guest = plugged(make_guest, 50)
    assert reaches(guest.namespace, WORLD, 8080) and reaches(guest.namespace, WORLD6, 8080)
    network.destroy()
    guest.close()
    network = dual(root, "nat", "true", 'dev = "other"\n')
    network.start(firewall=firewall)
    guest = plugged(make_guest, 50)
    assert not reaches(guest.namespace, WORLD, 8080) and not reaches(guest.namespace, WORLD6, 8080)
    network.destroy()


def test_the_bridge_of_somebody_else(root: Tree, make_guest: MakeGuest, serve: Serve) -> None:
    network = Network.define(root, 'name = "lan"\nmode = "bridge"\nbridge = "br-own"\n', "lan.toml")
    with pytest.raises(NotFound, match="no bridge br-own"):
        network.start()
    assert not network.active
    nslab.sh("ip", "link", "add", "br-own", "address", "52:54:00:00:0b:0b", "type", "bridge")
    nslab.sh("ip", "link", "set", "br-own", "up")
    before = nslab.links(), nslab.legacy_rules(), nslab.nft_rules(), nslab.forwarding()
    network.start()
    assert network.active and network.actual.bridge == "br-own"
    guest, other = make_guest("br-own"), make_guest("br-own")
    guest.configure("10.5.0.1", 24)
    other.configure("10.5.0.2", 24)
    serve(other.namespace, 80)
    assert reaches(guest.namespace, "10.5.0.2", 80)
    network.destroy()
    guest.close()
    other.close()
    assert (nslab.links(), nslab.legacy_rules(), nslab.nft_rules(), nslab.forwarding()) == before
    nslab.sh("ip", "link", "del", "br-own")


def test_a_bridge_over_a_nic(root: Tree, world: nslab.Namespace, make_guest: MakeGuest, serve: Serve) -> None:
    """Guests are in the uplink's own network; the host keeps its address there, and gets all of it back."""
    text = 'name = "lan"\nmode = "bridge"\nbridge = "br-up"\nover = "{}"\n'
    absent = Network.define(root, text.format("nope"), "lan.toml")
    with pytest.raises(NotFound, match="no interface nope"):
        absent.start()
    network = Network.define(root, text.format("uplink"), "lan.toml")
    before, addresses = nslab.links(), nslab.sh("ip", "-o", "addr", "show", "dev", "uplink", "scope", "global")
    server = serve(world, 8080)
    network.start()
    assert OUTSIDE in nslab.sh("ip", "addr", "show", "dev", "br-up")
    guest = make_guest("br-up")
    guest.configure("203.0.113.9", 24)
    assert reaches(guest.namespace, WORLD, 8080) and reaches(None, WORLD, 8080)
    assert [address for address, _ in server.seen] == ["203.0.113.9", OUTSIDE]
    network.destroy()
    guest.close()
    assert nslab.links() == before
    after = nslab.sh("ip", "-o", "addr", "show", "dev", "uplink", "scope", "global")
    assert sorted(after.splitlines()) == sorted(addresses.splitlines())


def test_ipv6_that_is_taken(root: Tree, world: nslab.Namespace) -> None:
    network = Network.define(
        root, 'name = "lan"\nbridge = "virbr7"\nipv6 = { address = "2001:db8::9/64" }\n', "lan.toml"
    )
    with pytest.raises(AlreadyExists, match=r"2001:db8::/64 is in use by uplink \(2001:db8::1/64\)"):
        network.start()


def test_a_host_that_lives_on_router_advertisements(root: Tree, world: nslab.Namespace) -> None:
    """Forwarding would make it deaf to them, and cost it its default route."""
    nslab.sh("ip", "-6", "route", "add", "default", "via", WORLD6, "dev", "uplink", "proto", "ra")
    key = "/proc/sys/net/ipv6/conf/uplink/accept_ra"

    def accepts() -> str:
        with open(key, encoding="ascii") as stream:
            return stream.read().strip()

    assert accepts() == "1"
    network = dual(root, "nat", "true")
    network.start()
    assert accepts() == "2" and "default" in nslab.sh("ip", "-6", "route", "show", "proto", "ra")
    network.destroy()
    assert accepts() == "1" and nslab.forwarding() == "0"
    nslab.sh("ip", "-6", "route", "del", "default", "dev", "uplink")
