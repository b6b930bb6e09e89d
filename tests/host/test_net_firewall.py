"""Both packet-filter backends in real tables: only ours, exactly ours, whatever others do meanwhile."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from qkvm.errors import Busy, HostError, InvalidValue, MissingProgram
from qkvm.net.firewall import iptables, nfttext, save, xtables
from qkvm.net.firewall.choice import Firewall, backend, choose
from qkvm.net.firewall.plan import Family, FirewallPlan, Target
from qkvm.spec.network import Mode
from tests.host import nslab

pytestmark = pytest.mark.usefixtures("netns")

NAT = FirewallPlan(
    network="a+b@c.d",
    bridge="virbr0",
    subnets=("192.168.122.0/24", "fd00:1::/64"),
    mode=Mode.NAT,
    translates=frozenset(Family),
    targets=(
        Target(protocol="tcp", listen="", ports=(8080, 8080), guest="192.168.122.9", to=(80, 80)),
        Target(protocol="udp", listen="198.51.100.1", ports=(5000, 5009), guest="192.168.122.9", to=(5000, 5009)),
        Target(protocol="tcp", listen="", ports=(8080, 8082), guest="fd00:1::9", to=(80, 82)),
    ),
)
ISOLATED = FirewallPlan(network="iso", bridge="virbr1", subnets=("10.1.0.0/16",), mode=Mode.ISOLATED)
BACKENDS = pytest.mark.parametrize("name", ["iptables", "nftables"])


def both() -> tuple[list[str], str]:
    return nslab.legacy_rules(), nslab.nft_rules()


def foreign() -> None:
    """Rules of somebody else, in places and forms that are easily taken for ours."""
    nslab.sh("iptables-legacy", "-N", "QKVM_MINE")
    nslab.sh("iptables-legacy", "-A", "QKVM_MINE", "-m", "comment", "--comment", NAT.tag, "-j", "ACCEPT")
    nslab.sh("iptables-legacy", "-A", "INPUT", "-i", "virbr0", "-p", "udp", "--dport", "53", "-j", "ACCEPT")
    nslab.sh("iptables-legacy", "-A", "INPUT", "-m", "u32", "--u32", "0>>22&0x3C@0>>24=8", "-j", "DROP")
    nslab.sh("iptables-legacy", "-t", "nat", "-A", "POSTROUTING", "-s", "192.168.122.0/24", "-j", "MASQUERADE")
    nslab.sh("nft", "add", "table", "ip", "qkvm_other")
    nslab.sh("nft", "add", "table", "inet", nfttext.table_name(NAT.network).replace("/", "_"))


@BACKENDS
def test_twice_is_once_and_removal_leaves_nothing(name: str) -> None:
    firewall = backend(name)
    before = both()
    firewall.apply(NAT)
    once = both()
    firewall.apply(NAT)
    assert both() == once != before
    assert firewall.missing(NAT) == []
    firewall.remove(NAT)
    firewall.remove(NAT)
    assert both() == before
    assert len(firewall.missing(NAT)) >= 18


@BACKENDS
def test_foreign_rules_stay_and_networks_do_not_meet(name: str) -> None:
    foreign()
    firewall = backend(name)
    before = both()
    firewall.apply(NAT)
    first = both()
    firewall.apply(ISOLATED)
    firewall.remove(ISOLATED)
    assert both() == first
    firewall.apply(ISOLATED)
    firewall.remove(NAT)
    assert firewall.missing(ISOLATED) == []
    firewall.remove(ISOLATED)
    assert both() == before
    nslab.sh("iptables-legacy", "-F")
    nslab.sh("iptables-legacy", "-X")
    nslab.sh("iptables-legacy", "-t", "nat", "-F")
    nslab.sh("nft", "flush", "ruleset")


@BACKENDS
def test_damage_is_seen_and_repaired(name: str) -> None:
    firewall = backend(name)
    firewall.apply(NAT)
    whole = both()
    if name == "iptables":
        nslab.sh("iptables-legacy", "-D", "QKVM_FWI", "1")
        nslab.sh("iptables-legacy", "-D", "FORWARD", "-j", "QKVM_FWO")
    else:
        nslab.sh("nft", "flush", "chain", "ip", nfttext.table_name(NAT.network), "forward")
    lacking = firewall.missing(NAT)
    assert lacking and any("ctstate" in line or "ct state" in line for line in lacking)
    firewall.apply(NAT)
    assert firewall.missing(NAT) == []
    if name == "nftables":
        assert both() == whole
    firewall.remove(NAT)


@BACKENDS
def test_another_subnet_replaces_the_rules_of_the_old(name: str) -> None:
    firewall = backend(name)
    moved = FirewallPlan(network=NAT.network, bridge="virbr5", subnets=("192.168.200.0/24",), mode=Mode.NAT)
    firewall.apply(NAT)
    firewall.apply(moved)
    assert firewall.missing(moved) == []
    assert not any("192.168.122.0" in line for line in (*nslab.legacy_rules(), nslab.nft_rules()))
    firewall.remove(NAT)


def test_the_kernel_has_the_very_lines_of_the_plan() -> None:
    iptables.Iptables().apply(NAT)
    iptables.Iptables().apply(ISOLATED)
    present = nslab.legacy_rules()
    for plan in (NAT, ISOLATED):
        for lines in save.lines(plan).values():
            assert [line for line in present if line in lines and plan.tag in line]
            assert set(lines) <= set(present)
    assert [line for line in present if line.startswith("-A FORWARD")] == [
        "-A FORWARD -j QKVM_FWX",
        "-A FORWARD -j QKVM_FWI",
        "-A FORWARD -j QKVM_FWO",
    ]
    iptables.Iptables().remove(NAT)
    iptables.Iptables().remove(ISOLATED)


def test_jumps_go_in_front_of_what_is_there() -> None:
    nslab.sh("iptables-legacy", "-A", "INPUT", "-j", "DROP")
    iptables.Iptables().apply(NAT)
    assert [line for line in nslab.legacy_rules() if line.startswith("-A INPUT")][0] == "-A INPUT -j QKVM_INP"
    iptables.Iptables().remove(NAT)
    nslab.sh("iptables-legacy", "-F", "INPUT")


def test_a_foreign_jump_keeps_a_chain_alive() -> None:
    iptables.Iptables().apply(NAT)
    nslab.sh("iptables-legacy", "-A", "INPUT", "-i", "eth9", "-j", "QKVM_INP")
    iptables.Iptables().remove(NAT)
    left = [line for line in nslab.legacy_rules() if "QKVM" in line]
    assert left == [":QKVM_INP -", "-A INPUT -i eth9 -j QKVM_INP"]
    nslab.sh("iptables-legacy", "-F")
    nslab.sh("iptables-legacy", "-X")


def test_a_foreign_rule_in_our_chain_stays() -> None:
    iptables.Iptables().apply(NAT)
    nslab.sh("iptables-legacy", "-A", "QKVM_INP", "-s", "10.0.0.1", "-j", "DROP")
    iptables.Iptables().remove(NAT)
    left = [line for line in nslab.legacy_rules() if "QKVM" in line]
    assert left == [":QKVM_INP -", "-A INPUT -j QKVM_INP", "-A QKVM_INP -s 10.0.0.1/32 -j DROP"]
    nslab.sh("iptables-legacy", "-F")
    nslab.sh("iptables-legacy", "-X")


def test_edits_beside_a_program_that_takes_the_lock() -> None:
    """Neither loses a rule: the other adds a hundred while ours come and go."""
    script = "for i in $(seq 100); do iptables-legacy -w -A INPUT -s 10.0.0.$i -j ACCEPT || exit 1; done"
    with subprocess.Popen(["sh", "-c", script]) as other:
        rounds = 0
        while other.poll() is None:
            iptables.Iptables().apply(NAT)
            assert iptables.Iptables().missing(NAT) == []
            iptables.Iptables().remove(NAT)
            rounds += 1
    assert other.returncode == 0 and rounds > 1
    assert sum("-A INPUT -s 10.0.0." in line for line in nslab.legacy_rules()) == 100
    nslab.sh("iptables-legacy", "-F", "INPUT")


def lockless(*argv: str, stdin: str = "") -> None:
    """A program that edits the tables without the common lock."""
    environment = {**os.environ, "XTABLES_LOCKFILE": os.environ["XTABLES_LOCKFILE"] + ".other"}
    subprocess.run(argv, env=environment, input=stdin, text=True, check=True, timeout=30)


def once(monkeypatch: pytest.MonkeyPatch, before: Callable[[], None], after: Callable[[], None]) -> list[int]:
    """Have something happen right before and after the first commit that the library makes."""
    import iptc

    table_class: Any = vars(iptc)["Table"]
    commit = table_class.commit
    commits: list[int] = []

    def wrapped(table: Any) -> None:
        commits.append(1)
        if len(commits) == 1:
            before()
        commit(table)
        if len(commits) == 1:
            after()

    monkeypatch.setattr(table_class, "commit", wrapped)
    return commits


def test_a_commit_that_comes_too_late_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """EAGAIN: the number of rules has changed under our hands."""
    theirs = ("iptables-legacy", "-A", "INPUT", "-s", "10.0.0.1", "-j", "DROP")
    commits = once(monkeypatch, before=lambda: lockless(*theirs), after=lambda: None)
    iptables.Iptables().apply(NAT)
    assert len(commits) == 6
    assert iptables.Iptables().missing(NAT) == []
    assert "-A INPUT -s 10.0.0.1/32 -j DROP" in nslab.legacy_rules()
    iptables.Iptables().remove(NAT)
    nslab.sh("iptables-legacy", "-F", "INPUT")


def test_a_commit_that_another_undid_is_made_again(monkeypatch: pytest.MonkeyPatch) -> None:
    old = nslab.sh("iptables-legacy-save", "-t", "filter")
    commits = once(monkeypatch, before=lambda: None, after=lambda: lockless("iptables-legacy-restore", stdin=old))
    iptables.Iptables().apply(NAT)
    assert len(commits) == 6
    assert iptables.Iptables().missing(NAT) == []
    iptables.Iptables().remove(NAT)


def test_a_lock_that_is_held_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    monkeypatch.setattr(xtables, "_LOCK_SECONDS", 0.05)
    fd = os.open(os.environ["XTABLES_LOCKFILE"], os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    with pytest.raises(Busy, match="packet filter"):
        iptables.Iptables().apply(NAT)
    os.close(fd)
    assert os.path.exists(os.environ["XTABLES_LOCKFILE"])


def test_tables_are_those_of_the_namespace_that_the_thread_is_in() -> None:
    firewall = backend("iptables")
    firewall.apply(NAT)
    here = nslab.legacy_rules()
    other = nslab.Namespace.new()
    with other.entered():
        assert len(firewall.missing(NAT)) > 18
        firewall.apply(ISOLATED)
        assert not any(NAT.tag in line for line in nslab.legacy_rules())
    other.close()
    assert nslab.legacy_rules() == here
    firewall.remove(NAT)


def bin_with(folder: Path, **links: str) -> str:
    folder.mkdir(exist_ok=True)
    for name, target in links.items():
        (folder / name).symlink_to(target)
    return str(folder)


def fresh(check: Callable[[], None]) -> None:
    """Run a check in a namespace in which nothing has touched any table yet."""
    namespace = nslab.Namespace.new()
    with namespace.entered():
        check()
    namespace.close()


def test_auto_takes_the_tables_that_the_host_uses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def check() -> None:
        assert choose().name == "nftables"
        nslab.sh("iptables-legacy", "-A", "INPUT", "-j", "ACCEPT")
        assert choose().name == "iptables", "legacy rules, and none of nft"
        nslab.sh("nft", "add", "table", "ip", "theirs")
        assert choose().name == "nftables"
        legacy = bin_with(tmp_path / "legacy", iptables="/usr/sbin/xtables-legacy-multi")
        with monkeypatch.context() as patch:
            patch.setenv("PATH", f"{legacy}:{os.environ['PATH']}")
            assert choose().name == "iptables", "the iptables of this host is the legacy one"

    fresh(check)


def test_choosing_leaves_the_tables_alone() -> None:
    def check() -> None:
        choose()
        with open("/proc/thread-self/net/ip_tables_names", encoding="ascii") as stream:
            assert stream.read() == ""

    fresh(check)


@pytest.mark.parametrize("setting", ["iptables", "nftables"])
def test_a_setting_is_obeyed(setting: str) -> None:
    chosen: Firewall = choose(setting)
    assert chosen.name == setting


def test_unknown_setting() -> None:
    with pytest.raises(InvalidValue, match="pf"):
        choose("pf")


def test_a_missing_nft_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    from qkvm.host import process

    def nowhere(program: str, needed_for: str, package: str) -> str:
        raise MissingProgram(program, needed_for, package)

    monkeypatch.setattr(process, "find_program", nowhere)
    with pytest.raises(HostError, match="nft is not installed"):
        choose("nftables")
    assert choose("auto").name == "iptables"
