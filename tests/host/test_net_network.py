"""Whole networks: packets decide whether they work, and what was there before decides whether they are gone."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from ipaddress import IPv4Interface
from typing import Any

import pytest

from qkvm import units
from qkvm.errors import AlreadyExists, DefinitionError, InvalidState, NotFound, ProgramFailed
from qkvm.host import record
from qkvm.net import run
from qkvm.net.dhcp import dnsmasq
from qkvm.net.dhcp.address import addresses
from qkvm.net.firewall.choice import backend
from qkvm.net.firewall.plan import firewall_plan
from qkvm.net.link import bridge, table
from qkvm.net.network.handle import bridge_of, ensure_default, list_networks
from qkvm.net.network.network import Network
from qkvm.paths import Tree
from tests.host import nslab
from tests.host.nslab import OUTSIDE, WORLD

pytestmark = pytest.mark.usefixtures("netns")

BACKENDS = pytest.mark.parametrize("firewall", ["iptables", "nftables"])

NAT = """# Guests that may go out.
name = "lan"
bridge = "virbr7"
address = "192.168.77.1/24"
domain = "lan.example"

[dhcp]
start = "192.168.77.100"
end = "192.168.77.200"
"""

ISOLATED = 'name = "iso"\nmode = "isolated"\nbridge = "virbr8"\naddress = "192.168.78.1/24"\n' + (
    '[dhcp]\nstart = "192.168.78.100"\nend = "192.168.78.200"\n'
)

MakeGuest = Callable[[str], nslab.Guest]
Serve = Callable[[nslab.Namespace, int], nslab.Server]


def snapshot() -> tuple[Any, ...]:
    return nslab.links(), nslab.legacy_rules(), nslab.nft_rules(), nslab.forwarding()


@pytest.fixture
def lan(root: Tree) -> Network:
    return Network.define(root, NAT, "lan.toml")


def drop_all() -> None:
    """A host that lets nothing in or through on its own."""
    nslab.sh("iptables-legacy", "-P", "INPUT", "DROP")
    nslab.sh("iptables-legacy", "-P", "FORWARD", "DROP")


def drop_none() -> None:
    nslab.sh("iptables-legacy", "-P", "INPUT", "ACCEPT")
    nslab.sh("iptables-legacy", "-P", "FORWARD", "ACCEPT")


# Packets.


@BACKENDS
def test_a_guest_of_a_nat_network(
    lan: Network, firewall: str, world: nslab.Namespace, make_guest: MakeGuest, serve: Serve
) -> None:
    lan.start(firewall=firewall)
    guest = make_guest("virbr7")
    assert guest.dhcp("guest-one").startswith("192.168.77.1")
    assert guest.options[3] == guest.options[6] == socket.inet_aton("192.168.77.1")
    assert guest.namespace.run("ping", "-c", "1", "-W", "5", "192.168.77.1").returncode == 0
    assert nslab.resolve(guest.namespace, "192.168.77.1", "guest-one.lan.example") == guest.ip

    server = serve(world, 8080)
    # A guest's privileged port must not reach the world as a privileged port of the host.
    with guest.namespace.connect((WORLD, 8080), source_port=500) as connection:
        assert connection.recv(5) == b"hello"
    seen, port = server.seen[0]
    assert seen == OUTSIDE and port >= 1024
    assert guest.namespace.run("ping", "-c", "1", "-W", "30", WORLD).returncode == 0

    serve(guest.namespace, 80)
    with socket.create_connection((guest.ip, 80), timeout=30) as connection:
        assert connection.recv(5) == b"hello", "the host itself reaches its guests"
    with pytest.raises(ConnectionRefusedError):
        world.connect((guest.ip, 80))
    lan.destroy()


def test_the_rules_open_a_host_that_drops(
    lan: Network, world: nslab.Namespace, make_guest: MakeGuest, serve: Serve
) -> None:
    drop_all()
    lan.start(firewall="iptables")
    first, second = make_guest("virbr7"), make_guest("virbr7")
    first.dhcp()
    second.configure("192.168.77.50", 24)
    serve(world, 8080)
    with first.namespace.connect((WORLD, 8080)) as connection:
        assert connection.recv(5) == b"hello"
    serve(second.namespace, 80)
    with first.namespace.connect((second.ip, 80)) as connection:
        assert connection.recv(5) == b"hello"
    with pytest.raises(ConnectionRefusedError):
        world.connect((first.ip, 80))
    with pytest.raises(TimeoutError):
        first.namespace.connect(("192.168.77.1", 22), timeout=0.3)
    lan.destroy()
    drop_none()


@BACKENDS
def test_an_isolated_network_has_no_way_out_or_in(
    root: Tree, firewall: str, world: nslab.Namespace, make_guest: MakeGuest, serve: Serve
) -> None:
    # Forwarding is on, as it is where another network has NAT: only the rules can keep the guests in.
    with open("/proc/sys/net/ipv4/ip_forward", "w", encoding="ascii") as stream:
        stream.write("1")
    network = Network.define(root, ISOLATED, "x")
    network.start(firewall=firewall)
    guest, other = make_guest("virbr8"), make_guest("virbr8")
    guest.dhcp()
    other.configure("192.168.78.50", 24)
    assert 3 not in guest.options, "a guest of an isolated network is told of no way out"
    serve(world, 8080)
    with pytest.raises(OSError, match="unreachable"):
        guest.namespace.connect((WORLD, 8080))
    guest.route("192.168.78.1")
    with pytest.raises(ConnectionRefusedError):
        guest.namespace.connect((WORLD, 8080))
    serve(guest.namespace, 80)
    with pytest.raises(ConnectionRefusedError):
        world.connect((guest.ip, 80))
    with other.namespace.connect((guest.ip, 80)) as connection:
        assert connection.recv(5) == b"hello"
    network.destroy()
    assert nslab.forwarding() == "1"
    with open("/proc/sys/net/ipv4/ip_forward", "w", encoding="ascii") as stream:
        stream.write("0")


@BACKENDS
def test_networks_do_not_reach_each_other(
    root: Tree, lan: Network, firewall: str, make_guest: MakeGuest, serve: Serve
) -> None:
    second = Network.define(
        root, NAT.replace('"lan"', '"two"').replace("77", "79").replace("virbr7", "virbr9"), "x"
    )
    lan.start(firewall=firewall)
    second.start(firewall=firewall)
    guest, target = make_guest("virbr7"), make_guest(bridge_of(root, "two"))
    guest.configure("192.168.77.50", 24)
    guest.route("192.168.77.1")
    target.configure("192.168.79.50", 24)
    target.route("192.168.79.1")
    serve(target.namespace, 80)
    with pytest.raises(ConnectionRefusedError):
        guest.namespace.connect((target.ip, 80))
    lan.destroy()
    second.destroy()


def test_leases_and_addresses(root: Tree, lan: Network, make_guest: MakeGuest) -> None:
    lan.start()
    guest = make_guest("virbr7")
    guest.dhcp("name-of-guest")
    (lease,) = lan.dhcp_leases()
    assert (lease.mac, lease.ip, lease.hostname) == (guest.mac, guest.ip, "name-of-guest")
    assert lan.dhcp_leases(guest.mac.upper()) == [lease] and lan.dhcp_leases("52:54:00:99:99:99") == []
    assert guest.namespace.run("ping", "-c", "1", "-W", "5", "192.168.77.1").returncode == 0
    (found,) = addresses(root, {guest.mac: "lan"}, ["lease"])
    assert found == (guest.mac, guest.ip, 24, "lease", "virbr7")
    (found,) = addresses(root, {guest.mac: None}, ["arp"])
    assert found == (guest.mac, guest.ip, 24, "arp", "virbr7")
    (found,) = addresses(root, {guest.mac: "lan"}, ["arp"])
    assert found == (guest.mac, guest.ip, 24, "arp", "virbr7"), (
        "the prefix is that of the host's own address there"
    )
    assert [item.source for item in addresses(root, {guest.mac: "lan"})] == ["lease"]
    lan.destroy()
    assert lan.dhcp_leases() == [lease], "leases outlive the run"
    lan.undefine()
    assert lan.dhcp_leases() == []


# Start and end.


@BACKENDS
def test_destroy_leaves_everything_as_before(root: Tree, lan: Network, firewall: str) -> None:
    nslab.sh("iptables-legacy", "-A", "FORWARD", "-i", "virbr7", "-j", "ACCEPT")
    nslab.sh("nft", "add", "table", "ip", "theirs")
    before = snapshot()
    started = lan.start(firewall=firewall)
    assert not started.relocated and started.definition == lan.actual == lan.definition
    assert nslab.forwarding() == "1"
    assert backend(firewall).missing(firewall_plan(lan.actual)) == []
    assert lan.info() == ("lan", lan.definition.uuid, True, True, False, "virbr7")
    assert list_networks(root) == [("lan", True, True, False)] and bridge_of(root, "lan") == "virbr7"
    with pytest.raises(InvalidState, match="network is already active"):
        lan.start(firewall=firewall)
    lan.destroy()
    assert snapshot() == before
    assert not os.path.exists(root.network_run("lan"))
    assert list_networks(root) == [("lan", False, True, False)]
    for refused in (lan.destroy, lambda: bridge_of(root, "lan"), lambda: lan.actual):
        with pytest.raises(InvalidState, match="network 'lan' is not active"):
            refused()
    nslab.sh("iptables-legacy", "-F", "FORWARD")
    nslab.sh("nft", "flush", "ruleset")


def test_forwarding_is_put_back_by_the_last(root: Tree, lan: Network) -> None:
    second = Network.define(
        root, NAT.replace('"lan"', '"two"').replace("77", "79").replace("virbr7", "virbr9"), "x"
    )
    quiet = Network.define(root, ISOLATED, "x")
    quiet.start()
    assert nslab.forwarding() == "0"
    lan.start()
    second.start()
    lan.destroy()
    assert nslab.forwarding() == "1"
    second.destroy()
    assert nslab.forwarding() == "0"
    quiet.destroy()


def test_forwarding_stays_for_a_network_of_another_root(root: Tree, lan: Network, tmp_path: Any) -> None:
    other = Tree(str(tmp_path / "other"))
    theirs = Network.define(other, NAT.replace("77", "79").replace("virbr7", "virbr9"), "x")
    lan.start()
    theirs.start()
    lan.destroy()
    assert nslab.forwarding() == "1"
    theirs.destroy()
    with open("/proc/sys/net/ipv4/ip_forward", "w", encoding="ascii") as stream:
        stream.write("0")


def test_forwarding_that_somebody_turned_off_stays_off(lan: Network) -> None:
    lan.start()
    with open("/proc/sys/net/ipv4/ip_forward", "w", encoding="ascii") as stream:
        stream.write("0")
    lan.destroy()
    assert nslab.forwarding() == "0"


@BACKENDS
def test_destroy_after_everything_died(lan: Network, firewall: str) -> None:
    before = snapshot()
    lan.start(firewall=firewall)
    current = lan.record
    assert current is not None
    os.kill(current["dnsmasq"]["pid"], signal.SIGKILL)
    backend(firewall).remove(firewall_plan(lan.actual))
    nslab.sh("ip", "link", "del", "virbr7")
    assert not lan.active
    lan.destroy()
    assert snapshot() == before


@BACKENDS
def test_start_clears_what_a_crash_left(root: Tree, lan: Network, firewall: str) -> None:
    before = snapshot()
    lan.start(firewall=firewall)
    nslab.sh("ip", "link", "del", "virbr7")
    old = dnsmasq.find(root, "lan")
    assert old is not None
    lan.start(firewall=firewall)
    new = dnsmasq.find(root, "lan")
    assert new is not None and new != old and nslab.processes_naming(root.root) == [new.pid]
    lan.destroy()
    assert snapshot() == before


def test_a_crash_before_the_record_knew_dnsmasq(root: Tree, lan: Network) -> None:
    lan.start()
    current = lan.record
    assert current is not None
    record.write(run.record_path(root, "lan"), {**current, "dnsmasq": None})
    nslab.sh("ip", "link", "set", "virbr7", "alias", "")
    lan.destroy()
    assert not nslab.processes_naming(root.root) and not table.present("virbr7")


@BACKENDS
def test_a_start_that_is_killed_at_any_moment(root: Tree, lan: Network, firewall: str) -> None:
    before = snapshot()
    script = (
        "import sys; from qkvm.net.network.network import *; from qkvm.paths import Tree\n"
        "import qkvm.net.dhcp.dnsmasq, qkvm.net.network.life, pyroute2\n"
    )
    if firewall == "iptables":
        script += "from qkvm.net.firewall import xtables; xtables.library()\n"
    script += f"print(flush=True); Network(Tree(sys.argv[1]), 'lan').start(firewall='{firewall}')"
    seen: set[tuple[bool, ...]] = set()
    for milliseconds in (2, 5, 10, 15, 20, 25, 30, 40, 50, 60, 80, 100, 200, 400, 800, 1600):
        if milliseconds > 100 and len(seen) > 1:
            # The longer ones are for a machine that is busy.
            break
        starter = subprocess.Popen(
            [sys.executable, "-c", script, root.root], stdout=subprocess.PIPE, start_new_session=True
        )
        assert starter.stdout is not None
        starter.stdout.read(1)
        time.sleep(milliseconds / 1000)
        # With its nft, which would otherwise still do what it was told; dnsmasq has a session of its own by then.
        os.killpg(starter.pid, signal.SIGKILL)
        starter.communicate()
        seen.add((lan.record is not None, table.present("virbr7"), lan.active))
        with contextlib.suppress(InvalidState):
            lan.destroy()
        nslab.until(lambda: not nslab.processes_naming(root.root), "no process of the network")
        assert snapshot() == before
        assert not os.path.exists(root.network_run("lan")) or lan.record is None
    assert len(seen) > 1, "all were killed in the same state: other delays are needed"
    lan.start(firewall=firewall)
    lan.destroy()


def test_a_pid_that_is_another_process_now_is_left_alone(root: Tree, lan: Network) -> None:
    lan.start()
    current = lan.record
    assert current is not None
    dnsmasq.stop(dnsmasq.Server(**current["dnsmasq"]))
    with subprocess.Popen(["sleep", "600"]) as stranger:
        try:
            with open(dnsmasq.pid_path(root, "lan"), "w", encoding="ascii") as stream:
                stream.write(f"{stranger.pid}\n")
            # Start times count in ticks of 10 ms, and dnsmasq may have started in the stranger's.
            wrong = {"pid": stranger.pid, "started": current["dnsmasq"]["started"] - 1}
            record.write(run.record_path(root, "lan"), {**current, "dnsmasq": wrong})
            lan.destroy()
            assert stranger.poll() is None
        finally:
            stranger.kill()


def test_a_record_of_an_earlier_boot_is_nothing(root: Tree, lan: Network) -> None:
    lan.start()
    lan.destroy()
    os.makedirs(root.network_run("lan"), mode=0o700)
    with open(run.record_path(root, "lan"), "w", encoding="ascii") as stream:
        stream.write('{"version": 1, "boot_id": "then", "bridge": "lo"}')
    assert not lan.active
    lan.start()
    lan.destroy()


def test_a_bridge_that_came_in_place_of_ours_stays(lan: Network) -> None:
    lan.start()
    nslab.sh("ip", "link", "del", "virbr7")
    nslab.sh("ip", "link", "add", "virbr7", "type", "bridge")
    lan.destroy()
    assert table.present("virbr7")
    nslab.sh("ip", "link", "del", "virbr7")


@BACKENDS
def test_a_start_that_fails_half_way_leaves_nothing(root: Tree, lan: Network, firewall: str) -> None:
    before = snapshot()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", 67))
        with pytest.raises(ProgramFailed, match="(?i)address already in use") as raised:
            lan.start(firewall=firewall)
    assert raised.value.hint
    assert snapshot() == before and lan.record is None
    assert not os.path.exists(root.network_run("lan"))
    lan.start(firewall=firewall)
    lan.destroy()


# Places.


def test_what_is_taken_is_refused_with_both_sides(root: Tree, lan: Network) -> None:
    bridge.make("mine", [IPv4Interface("192.168.77.9/28")], units.random_mac(), "somebody")
    with pytest.raises(AlreadyExists, match=r"192\.168\.77\.0/24 .* in use by mine \(192\.168\.77\.9/28\)"):
        lan.start()
    nslab.sh("ip", "link", "del", "mine")
    nslab.sh("ip", "link", "add", "virbr7", "type", "bridge")
    with pytest.raises(AlreadyExists, match="interface virbr7 exists"):
        lan.start()
    assert not os.path.exists(root.network_run("lan"))
    nslab.sh("ip", "link", "del", "virbr7")


def test_the_default_network_moves_to_a_free_place(root: Tree, make_guest: MakeGuest) -> None:
    ensure_default(root)
    nslab.sh("ip", "link", "add", "virbr0", "type", "bridge")
    nslab.sh("ip", "addr", "add", "192.168.122.1/24", "dev", "virbr0")
    nslab.sh("ip", "link", "set", "virbr0", "up")
    nslab.sh("ip", "route", "add", "192.168.123.0/24", "dev", "virbr0")
    network = Network.lookup(root, "default")
    started = network.start()
    assert started.relocated
    assert started.reason == (
        "192.168.122.0/24 is in use by virbr0 (192.168.122.1/24) and interface virbr0 exists already"
    )
    assert (started.definition.bridge, started.definition.address) == ("virbr1", "192.168.124.1/24")
    assert network.info().bridge == "virbr1" and network.definition.bridge == "virbr0"
    assert make_guest("virbr1").dhcp().startswith("192.168.124.")
    network.destroy()
    nslab.sh("ip", "link", "del", "virbr0")


# Definitions.


def test_the_default_network_comes_once(root: Tree) -> None:
    ensure_default(root)
    ensure_default(root)
    network = Network.lookup(root, "default")
    assert Network.lookup(root, network.definition.uuid).name == "default"
    assert (network.definition.bridge, network.definition.address) == ("virbr0", "192.168.122.1/24")
    network.undefine()
    ensure_default(root)
    with pytest.raises(NotFound, match="no network with matching name 'default'"):
        Network.lookup(root, "default")


def test_a_definition_is_kept_as_it_was_written(root: Tree, lan: Network) -> None:
    with open(root.network_definition("lan"), encoding="utf-8") as stream:
        text = stream.read()
    assert text == f'uuid = "{lan.definition.uuid}"\n{NAT}'
    again = Network.define(root, NAT.replace("200", "150"), "lan.toml")
    assert again.definition.uuid == lan.definition.uuid
    lan.set_autostart(True)
    assert list_networks(root) == [("lan", False, True, True)] and lan.info().autostart
    with open(root.network_definition("lan"), encoding="utf-8") as stream:
        assert "# Guests that may go out." in stream.read()


def test_one_uuid_is_one_name(root: Tree, lan: Network) -> None:
    uuid = lan.definition.uuid
    with pytest.raises(AlreadyExists, match="already exists with uuid"):
        Network.define(root, f'uuid = "{units.random_uuid()}"\n{NAT}', "x")
    with pytest.raises(AlreadyExists, match="is already defined with uuid"):
        Network.define(root, f'uuid = "{uuid.upper()}"\n{NAT}'.replace('"lan"', '"other"'), "x")


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (NAT.replace("192.168.77.1/24", "192.168.77.1/33"), "not an IPv4 address"),
        (NAT.replace("virbr7", "virbr+"), "not allowed"),
        (NAT.replace('"lan"', '"../lan"'), "not allowed"),
        (NAT + "colour = 1\n", "colour"),
        ("name = ", "not TOML"),
        ("", "missing required field"),
    ],
)
def test_what_can_not_be_right_is_refused(root: Tree, wrong: str, words: str) -> None:
    with pytest.raises(DefinitionError, match=words) as raised:
        Network.define(root, wrong, "file.toml")
    assert str(raised.value).startswith(("file.toml: ", "file.toml, line ", "file.toml:"))
    assert list_networks(root) == []


def test_a_damaged_file_does_not_hide_the_others(root: Tree, lan: Network) -> None:
    with open(root.network_definition("bad"), "w", encoding="ascii") as stream:
        stream.write("autostart = [")
    assert [entry.name for entry in list_networks(root)] == ["bad", "lan"]
    assert Network.lookup(root, lan.definition.uuid).name == "lan"
    with pytest.raises(DefinitionError, match=r"bad\.toml"):
        Network.lookup(root, "bad").info()


def test_undefined_while_active_it_is_transient(root: Tree, lan: Network) -> None:
    lan.start()
    uuid = lan.definition.uuid
    lan.undefine()
    assert lan.info() == ("lan", uuid, True, False, False, "virbr7")
    assert Network.lookup(root, uuid).name == "lan" and list_networks(root) == [("lan", True, False, False)]
    with pytest.raises(InvalidState, match="transient"):
        lan.undefine()
    with pytest.raises(InvalidState, match="transient"):
        lan.set_autostart(True)
    lan.destroy()
    assert list_networks(root) == []
    with pytest.raises(NotFound):
        lan.info()


def test_a_transient_network(root: Tree) -> None:
    network, started = Network.create(root, NAT, "lan.toml")
    assert started.definition.bridge == "virbr7" and not network.persistent and network.active
    with pytest.raises(InvalidState, match="already active"):
        Network.create(root, NAT, "lan.toml")
    network.destroy()
    with pytest.raises(NotFound):
        Network.lookup(root, "lan")


@pytest.mark.parametrize("name", ["nope", "../x", "", "a\nb", "702ec947-419d-405a-ba80-ba4e81a9f7b2"])
def test_unknown_networks(root: Tree, name: str) -> None:
    with pytest.raises(NotFound, match="Network not found"):
        Network.lookup(root, name)
