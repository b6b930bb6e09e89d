"""Networks that others have broken: net-check names the culprit, net-repair mends what it may; packets decide."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qkvm.files import make_private_dir
from qkvm.host import record
from qkvm.net.health import check, repair
from qkvm.net.health.check import Finding
from qkvm.net.link import link, port, tap
from qkvm.net.network.network import Network
from qkvm.net.run import locked_networks
from qkvm.paths import Tree
from scripts import rounds
from tests.host import nslab
from tests.host.foreign import DOCKER, FIREWALLD, NAT
from tests.host.nslab import OUTSIDE, WORLD

pytestmark = pytest.mark.usefixtures("netns")

BACKENDS = pytest.mark.parametrize("firewall", ["nftables", "iptables"])
TOP = Path(__file__).parent.parent.parent

MakeGuest = Callable[[str], nslab.Guest]
Serve = Callable[[nslab.Namespace, int], nslab.Server]


@pytest.fixture
def lan(root: Tree, world: nslab.Namespace) -> Iterator[Network]:
    """A network that is started by the test and destroyed after it, on a host that has a way out."""
    nslab.sh("ip", "route", "add", "default", "via", WORLD)
    network = Network.define(root, NAT, "lan.toml")
    yield network
    if network.record is not None:
        network.destroy()


@pytest.fixture
def guest(world: nslab.Namespace, make_guest: MakeGuest, serve: Serve) -> Callable[[], nslab.Guest]:
    def make() -> nslab.Guest:
        made = make_guest("virbr7")
        made.configure("192.168.77.50", 24)
        made.route("192.168.77.1")
        serve(world, 8080)
        serve(made.namespace, 22)
        return made

    return make


def found(network: Network) -> list[Finding]:
    with locked_networks(network.tree):
        return check.check(network.tree, network.name)


def kinds(network: Network) -> list[str]:
    return [one.kind for one in found(network)]


def mend(network: Network) -> repair.Repaired:
    with locked_networks(network.tree):
        return repair.repair(network.tree, network.name)


def reaches(guest: nslab.Guest, world: nslab.Namespace, *, timeout: float = 10.0) -> bool:
    """Whether a guest reaches the world and its DNS, and the world its forward."""
    try:
        for namespace, address in ((guest.namespace, (WORLD, 8080)), (world, (OUTSIDE, 8022))):
            with namespace.connect(address, timeout=timeout) as connection:
                if connection.recv(5) != b"hello":
                    return False
        return nslab.resolve(guest.namespace, "192.168.77.1", "printer.example", timeout=timeout) != ""
    except OSError:
        return False


def cut_off(guest: nslab.Guest, world: nslab.Namespace) -> bool:
    """Whether some of it fails."""
    return not reaches(guest, world, timeout=0.4)


def qkvm(tree: Tree, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "QKVM_ROOT": tree.root, "PYTHONPATH": str(TOP)}
    return subprocess.run(
        [sys.executable, "-m", "qkvm", *words],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def sysctl(name: str, value: str) -> None:
    Path("/proc/sys/net", name).write_text(value, encoding="ascii")


# What others break, the kinds that it is told by, and words that name who or what it is.


def bound(taken: socket.socket, address: tuple[str, int]) -> bool:
    """Whether an address can be had: a process that was killed gives it back a moment after it is gone."""
    try:
        taken.bind(address)
    except OSError:
        return False
    return True


def kill_dnsmasq(network: Network) -> None:
    server = (network.record or {})["dnsmasq"]
    os.kill(server["pid"], signal.SIGKILL)
    nslab.until(lambda: not nslab.processes_naming(network.tree.root), "the end of dnsmasq")


def flush(network: Network) -> None:
    if (network.record or {})["firewall"] == "nftables":
        nslab.sh("nft", "flush", "ruleset")
    else:
        for table in ("filter", "nat"):
            nslab.sh("iptables-legacy", "-t", table, "-F")


def double(network: Network) -> None:
    """What saving all rules and loading them again after a start does."""
    if (network.record or {})["firewall"] == "nftables":
        text = nslab.sh("nft", "list", "ruleset")
        nslab.sh("nft", "-f", "-", stdin=text)
    else:
        saved = nslab.sh("iptables-legacy-save", "-t", "filter")
        again = [line for line in saved.splitlines() if not line.startswith(":")]
        nslab.sh("iptables-legacy-restore", "--noflush", stdin="\n".join(again) + "\n")


def lose_bridge(network: Network) -> None:
    nslab.sh("ip", "link", "del", "virbr7")


BREAKS: dict[str, tuple[Callable[[Network], object], set[str], str]] = {
    # The kernel takes IPv6 addresses off a link that goes down.
    "down": (
        lambda _: nslab.sh("ip", "link", "set", "virbr7", "down"),
        {"bridge-down", "address-missing"},
        "bridge virbr7 is down",
    ),
    "address": (
        lambda _: nslab.sh("ip", "addr", "del", "192.168.77.1/24", "dev", "virbr7"),
        {"address-missing"},
        "no address 192.168.77.1/24",
    ),
    "forwarding": (lambda _: sysctl("ipv4/ip_forward", "0"), {"forwarding-off"}, "ip_forward"),
    "flushed": (flush, {"rules-missing"}, "rules are missing"),
    "doubled": (double, {"rules-doubled"}, "too many"),
    "dnsmasq": (kill_dnsmasq, {"dnsmasq-dead"}, "dnsmasq does not run"),
    "docker": (
        lambda _: nslab.sh("iptables-nft-restore", stdin=DOCKER),
        {"foreign-drop"},
        "Docker (iptables-nft) drops guests' packets: table ip filter, chain FORWARD: policy",
    ),
    "firewalld": (
        lambda _: nslab.sh("nft", "-f", "-", stdin=FIREWALLD),
        {"foreign-drop"},
        "firewalld drops guests' packets: table inet firewalld, chain filter_FORWARD",
    ),
    "localnet": (
        lambda _: sysctl("ipv4/conf/virbr7/route_localnet", "0"),
        {"localnet-off"},
        "forwards by 127.0.0.1",
    ),
    "untagged": (
        lambda _: nslab.sh("ip", "link", "set", "virbr7", "alias", ""),
        {"bridge-untagged"},
        "lost its alias",
    ),
}
STILL_FLOWS = {"doubled", "localnet", "untagged"}
"""Those that guests do not notice at once."""


BY_BOTH = {"flushed", "doubled", "docker"}
"""Those in which the backends differ."""


@pytest.mark.parametrize(
    ("broken", "firewall"),
    [(broken, "nftables") for broken in BREAKS] + [(broken, "iptables") for broken in sorted(BY_BOTH)],
)
def test_what_others_break_is_named_and_mended(
    lan: Network, broken: str, firewall: str, world: nslab.Namespace, guest: Callable[[], nslab.Guest]
) -> None:
    lan.start(firewall=firewall)
    made = guest()
    assert found(lan) == [] and reaches(made, world)
    do, expected, words = BREAKS[broken]
    do(lan)
    if broken not in STILL_FLOWS:
        assert cut_off(made, world)
    before = found(lan)
    assert {one.kind for one in before} == expected
    assert any(words in one.words for one in before) and all(one.mends for one in before)
    result = mend(lan)
    assert result == ([*before], [], [])
    assert reaches(made, world)
    assert found(lan) == [] and mend(lan) == ([], [], [])
    lan.destroy()
    nslab.sh("nft", "flush", "ruleset")


@pytest.mark.parametrize("drop", ["policy", "rule"])
def test_legacy_tables_that_drop(
    lan: Network, drop: str, world: nslab.Namespace, guest: Callable[[], nslab.Guest]
) -> None:
    lan.start(firewall="nftables")
    made = guest()
    nslab.sh(
        "iptables-legacy", *(("-P", "FORWARD", "DROP") if drop == "policy" else ("-A", "FORWARD", "-j", "DROP"))
    )
    assert cut_off(made, world)
    (one,) = found(lan)
    assert one.kind == "legacy-drop" and one.mends
    assert one.words.startswith("iptables-legacy drops guests' packets: table ip filter, chain FORWARD: ")
    assert mend(lan).left == [] and reaches(made, world) and found(lan) == []
    lan.destroy()
    nslab.sh("iptables-legacy", "-P", "FORWARD", "ACCEPT")
    nslab.sh("iptables-legacy", "-F", "FORWARD")


def test_a_rule_in_front_of_our_jumps(
    lan: Network, world: nslab.Namespace, guest: Callable[[], nslab.Guest]
) -> None:
    lan.start(firewall="iptables")
    made = guest()
    nslab.sh("iptables-legacy", "-I", "FORWARD", "2", "-j", "REJECT")
    assert cut_off(made, world)
    assert [(one.kind, one.words[-6:]) for one in found(lan)] == [("legacy-drop", "rule 2")]
    assert mend(lan).left == [] and reaches(made, world)
    jumps = [line for line in nslab.legacy_rules() if line.startswith("-A FORWARD")]
    assert [line.split()[3] for line in jumps] == ["QKVM_FWX", "QKVM_FWI", "QKVM_FWO", "REJECT"]
    lan.destroy()
    nslab.sh("iptables-legacy", "-F", "FORWARD")


def test_firewalld_that_reloads(lan: Network, world: nslab.Namespace, guest: Callable[[], nslab.Guest]) -> None:
    nslab.sh("nft", "-f", "-", stdin=FIREWALLD)
    lan.start(firewall="nftables")
    made = guest()
    assert reaches(made, world)
    # It takes its table away and makes it anew, in one transaction.
    nslab.sh("nft", "-f", "-", stdin=f"delete table inet firewalld\n{FIREWALLD}")
    assert cut_off(made, world)
    assert set(kinds(lan)) == {"foreign-drop"}
    assert mend(lan).left == [] and reaches(made, world)
    lan.destroy()
    assert "qkvm" not in nslab.nft_rules()
    nslab.sh("nft", "flush", "ruleset")


def test_a_bridge_that_is_gone(lan: Network, root: Tree, world: nslab.Namespace) -> None:
    """The bridge comes back with its addresses, and the tap of a running guest onto it."""
    lan.start(firewall="nftables")
    mac = (lan.record or {})["mac"]
    make_private_dir(root.domain_runs)
    make_private_dir(root.domain_run("vm"))
    with tap.open_tap() as card:
        nic: dict[str, Any] = {
            "type": "network",
            "source": "lan",
            "target": card.name,
            "mac": "52:54:00:00:00:09",
            "spec": {"isolated": True},
        }
        record.write(os.path.join(root.domain_run("vm"), "record.json"), {"nics": [nic]})
        port.plug(card.name, "virbr7", nic["mac"], link.domain_tag("vm"))
        assert found(lan) == []
        nslab.sh("ip", "link", "set", card.name, "nomaster")
        (one,) = found(lan)
        assert one.kind == "tap-astray" and f"{card.name} of domain vm" in one.words
        assert mend(lan) == ([one], [], [])
        lose_bridge(lan)
        assert set(kinds(lan)) == {"bridge-gone", "tap-astray"}
        assert mend(lan).left == [] and found(lan) == []
        shown = json.loads(nslab.sh("ip", "-j", "-d", "link", "show", card.name))[0]
        assert shown["master"] == "virbr7" and shown["linkinfo"]["info_slave_data"]["isolated"]
        assert json.loads(nslab.sh("ip", "-j", "link", "show", "virbr7"))[0]["address"] == mac
    os.unlink(os.path.join(root.domain_run("vm"), "record.json"))
    os.rmdir(root.domain_run("vm"))
    lan.destroy()


def test_a_bridge_that_is_gone_and_its_guests_dhcp(lan: Network, make_guest: MakeGuest) -> None:
    lan.start()
    lose_bridge(lan)
    assert mend(lan).left == []
    assert make_guest("virbr7").dhcp().startswith("192.168.77.1")
    lan.destroy()


def test_what_may_not_be_mended_is_left_and_named(lan: Network, root: Tree, world: nslab.Namespace) -> None:
    """Another's link, a port that a program has, a subnet of a VPN, a way out that is gone."""
    lan.start(firewall="nftables")
    kill_dnsmasq(lan)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken, socket.create_server(("0.0.0.0", 8022)):
        nslab.until(lambda: bound(taken, ("192.168.77.1", 53)), "the port that dnsmasq had")
        nslab.sh("ip", "link", "add", "tun0", "type", "veth", "peer", "name", "tun1")
        nslab.sh("ip", "addr", "add", "192.168.77.130/25", "dev", "tun0")
        nslab.sh("ip", "link", "set", "tun0", "up")
        nslab.sh("ip", "route", "del", "default")
        before = {one.kind: one for one in found(lan)}
        assert set(before) == {"port-taken", "overlap", "no-default-route", "forward-taken"}
        own = Path("/proc/self/comm").read_text(encoding="ascii").strip()
        assert f"udp port 53 is taken: {own} (process {os.getpid()})" in before["port-taken"].words
        overlaps = [one.words for one in found(lan) if one.kind == "overlap"]
        assert "its subnet 192.168.77.0/24 is also that of tun0 (192.168.77.130/25)" in overlaps
        assert "forward tcp 8022: a program of this host has tcp port 8022" in before["forward-taken"].words
        assert not any(one.mends for one in before.values())
        assert mend(lan).mended == []
    done = qkvm(root, "net-check", "lan", "--json")
    assert done.returncode == 1
    assert [one["kind"] for one in json.loads(done.stdout)][0] == "dnsmasq-dead", "the port is free again"
    nslab.sh("ip", "link", "del", "tun0")
    nslab.sh("ip", "route", "add", "default", "via", WORLD)
    done = qkvm(root, "net-repair")
    assert done.returncode == 0 and "lan: mended: dnsmasq does not run" in done.stdout
    assert qkvm(root, "net-repair", "lan").stdout == "lan: nothing to mend\n\n"
    assert qkvm(root, "net-check").stdout == "lan: nothing is wrong\n\n"
    lose_bridge(lan)
    nslab.sh("ip", "link", "add", "virbr7", "type", "bridge")
    (one,) = found(lan)
    assert one.kind == "bridge-not-ours" and not one.mends
    assert mend(lan) == ([], [one], [])
    assert json.loads(nslab.sh("ip", "-j", "addr", "show", "virbr7"))[0]["addr_info"] == []
    lan.destroy()
    nslab.sh("ip", "link", "del", "virbr7")
    done = qkvm(root, "net-check", "lan")
    assert (done.returncode, done.stdout.splitlines()[0]) == (1, "lan: network lan does not run [inactive]")
    assert qkvm(root, "net-check", "nosuch").returncode == 1


@BACKENDS
def test_forwards_of_guests_by_name(lan: Network, root: Tree, firewall: str) -> None:
    Network.define(root, NAT.replace('guest = "192.168.77.50"', 'guest = "web"'), "lan.toml")
    lan.start(firewall=firewall)
    (one,) = found(lan)
    assert one.kind == "forward-lost" and "there is no domain web" in one.words
    make_private_dir(root.domain_runs)
    make_private_dir(root.domain_run("web"))
    nic = {"type": "network", "source": "lan", "target": "", "mac": "52:54:00:00:00:09"}
    record.write(os.path.join(root.domain_run("web"), "record.json"), {"nics": [nic]})
    for address in ("192.168.77.150", "192.168.77.160"):
        Path(root.leases("lan")).write_text(f"{int(time.time()) + 999} {nic['mac']} {address} web *\n")
        expected = {"rules-missing", "localnet-off"} if address.endswith("150") else {"forward-stale"}
        assert set(kinds(lan)) == expected
        assert mend(lan).left == [] and found(lan) == []
    assert "192.168.77.160" in "".join([nslab.nft_rules(), *nslab.legacy_rules()])
    os.unlink(os.path.join(root.domain_run("web"), "record.json"))
    os.rmdir(root.domain_run("web"))
    lan.destroy()


def test_the_only_way_out(root: Tree, world: nslab.Namespace) -> None:
    network = Network.define(root, f'dev = "uplink"\n{NAT}', "lan.toml")
    nslab.sh("ip", "route", "add", "default", "via", WORLD)
    network.start()
    assert found(network) == []
    nslab.sh("ip", "link", "set", "uplink", "down")
    assert kinds(network) == ["dev-down", "no-default-route"]
    nslab.sh("ip", "link", "set", "uplink", "name", "other")
    assert kinds(network) == ["dev-missing", "no-default-route"]
    network.destroy()
    nslab.sh("ip", "link", "set", "other", "name", "uplink")


def test_frames_of_a_foreign_bridge_that_ip_rules_drop(root: Tree, make_guest: MakeGuest, serve: Serve) -> None:
    """bridge-nf-call-iptables has them go through FORWARD, as Docker and Kubernetes want it."""
    nslab.sh("ip", "link", "add", "br0", "type", "bridge")
    nslab.sh("ip", "link", "set", "br0", "up")
    network = Network.define(root, 'name = "lan"\nmode = "bridge"\nbridge = "br0"\n', "lan.toml")
    network.start()
    first, second = make_guest("br0"), make_guest("br0")
    first.configure("10.1.1.1", 24)
    second.configure("10.1.1.2", 24)
    serve(second.namespace, 80)
    nslab.sh("iptables-nft", "-P", "FORWARD", "DROP")
    for key in ("iptables", "ip6tables"):
        sysctl(f"bridge/bridge-nf-call-{key}", "0")
    assert found(network) == []
    sysctl("bridge/bridge-nf-call-iptables", "1")
    with pytest.raises(TimeoutError):
        first.namespace.connect((second.ip, 80), timeout=0.5)
    (one,) = found(network)
    assert one.kind == "bridge-nf" and "iptables-nft drops" in one.words and "sysctl" in one.hint
    assert mend(network) == ([], [one], [])
    sysctl("bridge/bridge-nf-call-iptables", "0")
    first.namespace.connect((second.ip, 80)).close()
    nslab.sh("ip", "link", "set", "br0", "down")
    assert kinds(network) == ["bridge-down"]
    nslab.sh("ip", "link", "del", "br0")
    assert kinds(network) == ["bridge-gone"]
    network.destroy()
    nslab.sh("nft", "flush", "ruleset")


# Plans without a start.


@BACKENDS
def test_a_dry_run_prints_what_a_start_makes(lan: Network, root: Tree, firewall: str) -> None:
    nslab.sh("iptables-nft-restore", stdin=DOCKER)
    before = nslab.links(), nslab.nft_rules(), nslab.legacy_rules(), nslab.forwarding()
    done = qkvm(root, "net-start", "lan", "--dry-run", "--firewall", firewall)
    assert done.returncode == 0, done.stderr
    assert (nslab.links(), nslab.nft_rules(), nslab.legacy_rules(), nslab.forwarding()) == before
    assert lan.record is None
    lan.start(firewall=firewall)
    real = nslab.nft_rules(), nslab.legacy_rules()
    lan.destroy()
    if firewall == "nftables":
        nslab.sh("nft", "-c", "-f", "-", stdin=done.stdout)
        nslab.sh("nft", "-f", "-", stdin=done.stdout)
        assert nslab.nft_rules() == real[0]
    else:
        four, six = done.stdout.split("# ip6tables-restore")
        nslab.sh("iptables-legacy-restore", "--noflush", stdin=four)
        nslab.sh("ip6tables-legacy-restore", "--noflush", stdin="#" + six)
        assert nslab.legacy_rules() == real[1]
        for version in ("", "6"):
            for table in ("filter", "nat", "mangle"):
                nslab.sh(f"ip{version}tables-legacy", "-t", table, "-F")
                nslab.sh(f"ip{version}tables-legacy", "-t", table, "-X")
    nslab.sh("nft", "flush", "ruleset")


# Again and again.


@BACKENDS
def test_many_rounds_leave_nothing(lan: Network, root: Tree, firewall: str) -> None:
    """Fifty in all; scripts/rounds does a thousand with each. The fixtures look at links, rules, fds as well."""
    rounds.rounds(lan, 1, firewall)
    before = rounds.state(root)
    rounds.rounds(lan, 24, firewall)
    assert rounds.state(root) == before
