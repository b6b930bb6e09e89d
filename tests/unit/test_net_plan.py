"""What a network asks of the packet filter and of dnsmasq, against golden files; and where it may lie."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from ipaddress import IPv4Network
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qkvm import units
from qkvm.errors import AlreadyExists, InvalidValue, TemplateError
from qkvm.net.dhcp import dnsmasq
from qkvm.net.firewall import nftables, nfttext, save
from qkvm.net.firewall.choice import backend
from qkvm.net.firewall.plan import FirewallPlan, Rule, firewall_plan, rules
from qkvm.net.place import find_place
from qkvm.paths import Tree
from qkvm.spec.network import DhcpRange, Mode, Network, default_network

GOLDEN = Path(__file__).parent.parent / "golden"
UUID = "702ec947-419d-405a-ba80-ba4e81a9f7b2"

NAT = default_network(UUID)
ISOLATED = Network(
    name="inner.net",
    uuid=UUID,
    mode=Mode.ISOLATED,
    bridge="virbr9",
    address="10.20.0.1/16",
    domain="inner.example",
)


def save_text(definition: Network) -> str:
    tables = save.lines(firewall_plan(definition))
    return "".join(f"*{table}\n" + "".join(f"{line}\n" for line in lines) for table, lines in tables.items())


def nft_text(definition: Network) -> str:
    return json.dumps(nftables.document(firewall_plan(definition)), indent=1) + "\n"


GOLDENS: dict[str, Callable[[], str]] = {
    "net-nat.iptables": lambda: save_text(NAT),
    "net-nat.nft.json": lambda: nft_text(NAT),
    "net-nat.dnsmasq.conf": lambda: dnsmasq.render(Tree("/r"), NAT),
    "net-isolated.iptables": lambda: save_text(ISOLATED),
    "net-isolated.nft.json": lambda: nft_text(ISOLATED),
    "net-isolated.dnsmasq.conf": lambda: dnsmasq.render(Tree("/r"), ISOLATED),
}
"""File in tests/golden -> what it must hold."""


@pytest.mark.parametrize("name", GOLDENS)
def test_golden(name: str) -> None:
    assert GOLDENS[name]() == (GOLDEN / name).read_text(encoding="utf-8")


# Rules.


@pytest.mark.parametrize("definition", [NAT, ISOLATED])
def test_every_rule_is_bound_to_the_network(definition: Network) -> None:
    """No rule without the bridge or the subnet: it would be one for the whole host."""
    plan = firewall_plan(definition)
    for rule in rules(plan):
        assert plan.bridge in (rule.in_interface, rule.out_interface) or rule.source in plan.subnets
    for lines in save.lines(plan).values():
        assert all(plan.tag in line for line in lines)
    assert all(rule["comment"] == plan.tag for rule in nftables.table_rules(plan))


def test_both_backends_make_every_rule_but_the_checksum() -> None:
    plan = firewall_plan(NAT)
    assert sum(len(lines) for lines in save.lines(plan).values()) == len(rules(plan)) == 19
    assert len(nftables.table_rules(plan)) == 18


def test_an_isolated_network_has_no_nat_and_no_way_through() -> None:
    text = save_text(ISOLATED) + nft_text(ISOLATED)
    assert (
        "MASQUERADE" not in text and "masquerade" not in text and "nat" not in save.lines(firewall_plan(ISOLATED))
    )
    forwarded: list[Rule] = [rule for rule in rules(firewall_plan(ISOLATED)) if rule.hook.startswith("forward")]
    assert [str(rule.verdict) for rule in forwarded] == ["ACCEPT", "REJECT", "REJECT"]


def test_a_bridge_name_that_iptables_takes_for_a_pattern() -> None:
    definition = Network(name="n", uuid=UUID, bridge="virbr+", address="10.0.0.1/24")
    with pytest.raises(InvalidValue, match="virbr"):
        firewall_plan(definition)


NAMES = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.+@:-]{0,79}", fullmatch=True)


@given(NAMES, NAMES)
def test_table_names_are_nft_identifiers_and_differ(one: str, other: str) -> None:
    units.check_name(one, "network")
    name = nfttext.table_name(one)
    assert re.fullmatch(r"[A-Za-z][A-Za-z0-9/_.-]*", name) and len(name) <= 255
    assert (name == nfttext.table_name(other)) == (one == other)


@given(NAMES)
def test_tags_fit_what_the_kernel_keeps(name: str) -> None:
    plan = FirewallPlan(network=name, bridge="b", subnets=("10.0.0.0/24",), mode=Mode.NAT)
    assert len(plan.tag) < 128, "NFTNL_UDATA_COMMENT_MAXLEN of libnftnl; xt_comment and ifalias keep 256"


def test_unknown_backend() -> None:
    with pytest.raises(InvalidValue, match="ipfw"):
        backend("ipfw")


# dnsmasq's configuration.


def test_dhcp_and_domain_are_options(tmp_path: Path) -> None:
    text = dnsmasq.render(Tree(str(tmp_path)), ISOLATED)
    assert "dhcp-range" not in text and "dhcp-leasefile" not in text
    assert "domain=inner.example\nlocal=/inner.example/\n" in text
    assert "domain=" not in dnsmasq.render(Tree(str(tmp_path)), NAT)


@pytest.mark.parametrize("bad", ["a\nserver=6.6.6.6", "a\0", "a\rb", 'a"b', "a #b", "a\\n"])
@pytest.mark.parametrize("field", ["domain", "bridge", "name"])
def test_nothing_becomes_another_line(bad: str, field: str) -> None:
    from msgspec.structs import replace

    # The specification refuses these long before; here it is the last fence.
    with pytest.raises(InvalidValue):
        dnsmasq.render(Tree("/r"), replace(NAT, **{field: bad}))


def test_the_administrators_template_comes_first(tmp_path: Path) -> None:
    tree = Tree(str(tmp_path))
    own = Path(tree.templates)
    own.mkdir(parents=True)
    (own / "dnsmasq.conf.j2").write_text("interface={{ net.bridge }}\nserver=192.0.2.1\n")
    assert dnsmasq.render(tree, NAT) == "interface=virbr0\nserver=192.0.2.1\n"
    (own / "dnsmasq.conf.j2").write_text("interface={{ brigde }}\n")
    with pytest.raises(TemplateError, match="brigde"):
        dnsmasq.render(tree, NAT)
    (own / "dnsmasq.conf.j2").write_text("x\n{% if %}\n")
    with pytest.raises(TemplateError, match="line 2"):
        dnsmasq.render(tree, NAT)


# Places.


def net(text: str) -> IPv4Network:
    return IPv4Network(text)


def test_a_free_place_is_taken_as_it_is() -> None:
    place = find_place(NAT, [(net("192.168.121.0/24"), "x"), (net("192.168.123.0/24"), "y")], ["lo", "eth0"])
    assert place.definition is NAT and not place.reason


def test_a_taken_subnet_moves_with_all_its_addresses() -> None:
    taken = [(net("192.168.122.0/23"), "eth0 (192.168.122.7/23)"), (net("192.168.124.64/26"), "vpn")]
    place = find_place(NAT, taken, ["lo"])
    assert place.definition.address == "192.168.125.1/24" and place.definition.bridge == "virbr0"
    assert place.definition.dhcp == DhcpRange(start="192.168.125.2", end="192.168.125.254")
    assert place.reason == "192.168.122.0/24 is in use by eth0 (192.168.122.7/23)"


def test_a_taken_bridge_moves_alone() -> None:
    place = find_place(NAT, [], ["virbr0", "virbr1", "virbr3"])
    assert (place.definition.bridge, place.definition.address) == ("virbr2", NAT.address)


def test_beyond_192_168_comes_10() -> None:
    place = find_place(NAT, [(net("192.168.0.0/16"), "x"), (net("10.0.0.0/16"), "y")], [])
    assert place.definition.address == "10.1.0.1/24"


@pytest.mark.parametrize(("prefix", "expected"), [(16, "10.1.0.1/16"), (28, "192.168.122.1/28"), (8, None)])
def test_the_size_stays(prefix: int, expected: str | None) -> None:
    definition = Network(name="n", uuid=UUID, bridge="b", address=f"10.0.0.1/{prefix}", relocatable=True)
    if expected is None:
        with pytest.raises(AlreadyExists, match="no other /8 is free"):
            find_place(definition, [(net("10.0.0.0/16"), "x")], [])
    else:
        assert find_place(definition, [(net("10.0.0.0/16"), "x")], []).definition.address == expected


def test_what_may_not_move_is_refused() -> None:
    definition = Network(name="n", uuid=UUID, bridge="br9", address="10.0.0.1/24")
    with pytest.raises(
        AlreadyExists, match=r"wants 10\.0\.0\.0/24 on br9, but .* by eth0 and interface br9"
    ) as raised:
        find_place(definition, [(net("10.0.0.0/8"), "eth0")], ["br9"])
    assert "relocatable" in raised.value.hint


SUBNETS = st.builds(
    lambda number, prefix: IPv4Network((number, prefix), strict=False),
    st.integers(0, (1 << 32) - 1),
    st.integers(8, 32),
)


@given(st.lists(SUBNETS, max_size=20), st.sets(st.sampled_from([f"virbr{n}" for n in range(5)])))
def test_a_place_never_overlaps(used: list[IPv4Network], names: set[str]) -> None:
    definition = find_place(NAT, [(subnet, "x") for subnet in used], names).definition
    (chosen,) = definition.subnets
    assert not any(chosen.overlaps(subnet) for subnet in used)
    assert definition.bridge not in names and chosen.prefixlen == 24
