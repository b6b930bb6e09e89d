"""Networks beside rulesets of others that drop: Docker's, firewalld's, an administrator's; packets decide."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from qkvm.net.network.network import Network
from qkvm.paths import Tree
from tests.host import nslab
from tests.host.foreign import DOCKER, FIREWALLD, NAT
from tests.host.nslab import OUTSIDE, WORLD

pytestmark = pytest.mark.usefixtures("netns")


MakeGuest = Callable[[str], nslab.Guest]
Serve = Callable[[nslab.Namespace, int], nslab.Server]


STRICT = """table inet mine {
  chain in {
    type filter hook input priority 0; policy drop;
    iif lo accept
    ct state vmap { established : accept, related : accept, invalid : drop }
    tcp dport 22 accept
  }
  chain through {
    type filter hook forward priority 10; policy accept;
    ct state established,related accept
    iifname "vpn*" oifname "uplink" accept
    jump last
  }
  chain last {
    counter log prefix "refused " reject with icmpx admin-prohibited
  }
}
"""
"""An administrator's own: what is not let in is dropped, what is not let through is refused."""


@pytest.fixture
def lan(root: Tree) -> Network:
    return Network.define(root, NAT, "lan.toml")


def docker_nft() -> None:
    nslab.sh("iptables-nft-restore", stdin=DOCKER)
    nslab.sh("ip6tables-nft", "-P", "FORWARD", "DROP")


def docker_legacy() -> None:
    nslab.sh("iptables-legacy-restore", stdin=DOCKER)
    nslab.sh("ip6tables-legacy", "-P", "FORWARD", "DROP")


def legacy_as_before() -> None:
    nslab.sh("iptables-legacy", "-P", "FORWARD", "ACCEPT")
    nslab.sh("ip6tables-legacy", "-P", "FORWARD", "ACCEPT")
    nslab.sh("iptables-legacy", "-F")
    nslab.sh("iptables-legacy", "-X")


def load(text: str) -> None:
    nslab.sh("nft", "-f", "-", stdin=text)


SITUATIONS: dict[str, Callable[[], None]] = {
    "docker by iptables-nft": docker_nft,
    "docker by iptables-legacy": docker_legacy,
    "an own ruleset": lambda: load(STRICT),
    "firewalld": lambda: load(FIREWALLD),
}


def still() -> tuple[Any, ...]:
    """All rules, without their counters."""
    return nslab.sh("nft", "--stateless", "list", "ruleset"), nslab.legacy_rules()


def traffic(guest: nslab.Guest, world: nslab.Namespace) -> None:
    """A guest reaches the world and the network's DNS, and is reached by its forward and by nothing else."""
    with guest.namespace.connect((WORLD, 8080)) as connection:
        assert connection.recv(5) == b"hello"
    with world.connect((OUTSIDE, 8022)) as connection:
        assert connection.recv(5) == b"hello"
    assert nslab.resolve(guest.namespace, "192.168.77.1", "printer.example") == "192.168.77.9"
    with pytest.raises(ConnectionRefusedError):
        world.connect((guest.ip, 22))


@pytest.fixture
def people(world: nslab.Namespace, make_guest: MakeGuest, serve: Serve) -> Callable[[], nslab.Guest]:
    """Makes a guest on the network, which serves SSH, in front of a world that serves HTTP."""

    def make() -> nslab.Guest:
        guest = make_guest("virbr7")
        guest.configure("192.168.77.50", 24)
        guest.route("192.168.77.1")
        serve(world, 8080)
        serve(guest.namespace, 22)
        return guest

    return make


@pytest.mark.parametrize("firewall", ["iptables", "nftables"])
@pytest.mark.parametrize("situation", SITUATIONS)
def test_guests_are_not_cut_off(
    lan: Network, situation: str, firewall: str, world: nslab.Namespace, people: Callable[[], nslab.Guest]
) -> None:
    SITUATIONS[situation]()
    before = still()
    listed = nslab.sh("iptables-nft", "-S").splitlines()
    assert lan.start(firewall=firewall).warnings == ()
    guest = people()
    traffic(guest, world)
    # iptables-nft still understands the chains that it takes for its own.
    assert set(listed) <= set(nslab.sh("iptables-nft", "-S").splitlines())
    nslab.sh("ip6tables-nft", "-S")
    lan.destroy()
    assert still() == before
    nslab.sh("nft", "flush", "ruleset")
    legacy_as_before()


@pytest.mark.parametrize("firewall", ["iptables", "nftables"])
def test_dhcp_passes_and_ends_with_the_network(lan: Network, firewall: str, make_guest: MakeGuest) -> None:
    load(STRICT)
    lan.start(firewall=firewall)
    assert make_guest("virbr7").dhcp().startswith("192.168.77.1")
    # Somebody takes the place away that rules of ours are in.
    nslab.sh("nft", "delete", "table", "inet", "mine")
    lan.destroy()


def test_what_the_user_of_docker_forbids_stays_forbidden(
    lan: Network, world: nslab.Namespace, people: Callable[[], nslab.Guest]
) -> None:
    docker_nft()
    lan.start(firewall="nftables")
    guest = people()
    traffic(guest, world)
    with guest.namespace.entered(), nslab.IPRoute() as ipr:
        ipr.addr("del", index=guest.index(ipr), address=guest.ip, prefixlen=24)
        ipr.addr("add", index=guest.index(ipr), address="192.168.77.66", prefixlen=24)
    guest.route("192.168.77.1")
    with pytest.raises(TimeoutError):
        guest.namespace.connect((WORLD, 8080), timeout=0.5)
    lan.destroy()
    nslab.sh("nft", "flush", "ruleset")


def test_a_rule_against_the_bridge_itself_is_somebodys_will(lan: Network, world: nslab.Namespace) -> None:
    load("table ip theirs { chain c { type filter hook forward priority 5; iifname virbr7 counter drop; }; }")
    before = still()
    (warning,) = lan.start(firewall="nftables").warnings
    assert "nft drops guests' packets: table ip theirs, chain c: the rule with handle 2" in warning
    lan.destroy()
    assert still() == before
    nslab.sh("nft", "flush", "ruleset")


def test_a_table_that_is_locked_is_told_of(lan: Network, world: nslab.Namespace) -> None:
    commands = (
        "add table inet owned { flags owner; }\n"
        "add chain inet owned f { type filter hook forward priority 0; policy drop; }\n"
    )
    with subprocess.Popen(["nft", "-i"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as owner:
        assert owner.stdin is not None
        owner.stdin.write(commands)
        owner.stdin.flush()
        nslab.until(lambda: "policy drop" in nslab.nft_rules(), "the owner's chain")
        (warning,) = lan.start(firewall="nftables").warnings
        assert "table inet owned, chain f: policy drop" in warning
        lan.destroy()
        owner.stdin.close()


def test_tables_that_let_pass_get_nothing(lan: Network, root: Tree) -> None:
    load(
        "table inet theirs {\n"
        "  chain f { type filter hook forward priority 0; policy drop; meta iifname { virbr7, eth5 } accept;\n"
        "    oifname virbr7 accept; }\n"
        "  chain i { type filter hook input priority 0; policy drop; iifname vir* meta l4proto udp accept;\n"
        "    iifname != eth0 th dport 50-60 accept; meta l4proto ipv6-icmp accept; ip protocol tcp drop;\n"
        "    iifname virbr7 ip daddr 127.0.0.0/8 accept; ct state established accept; }\n"
        "}\n"
    )
    lan.start(firewall="nftables")
    assert (lan.record or {})["openings"] == []
    lan.destroy()
    nslab.sh("nft", "flush", "ruleset")
