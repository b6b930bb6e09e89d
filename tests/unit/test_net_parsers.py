"""What the host reads back of its guests: leases and ARP entries, some of them in the guests' own words."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qkvm.errors import InvalidValue, NotFound
from qkvm.net.dhcp import lease
from qkvm.net.dhcp.address import addresses
from qkvm.net.dhcp.lease import Lease, is_ipv4, leases
from qkvm.net.link import neighbour, port, table
from qkvm.paths import Tree

GOOD = "2000 52:54:00:00:00:01 192.168.122.5 vm 01:52:54:00:00:00:01\n"


def lease_file(folder: Path, content: str | bytes) -> str:
    path = folder / "x.leases"
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return str(path)


def test_a_lease(tmp_path: Path) -> None:
    assert leases(lease_file(tmp_path, GOOD), now=1000) == [
        Lease(2000, "52:54:00:00:00:01", "192.168.122.5", "vm", "01:52:54:00:00:00:01")
    ]


def test_unknown_names_are_empty_and_eternal_leases_stay(tmp_path: Path) -> None:
    assert leases(lease_file(tmp_path, "0 52:54:00:00:00:01 10.0.0.2 * *\n")) == [
        Lease(0, "52:54:00:00:00:01", "10.0.0.2", "", "")
    ]


def test_expired_leases_are_left_out(tmp_path: Path) -> None:
    path = lease_file(tmp_path, GOOD)
    assert leases(path, now=1999.9) and not leases(path, now=2000) and not leases(path)


def test_no_file_no_leases(tmp_path: Path) -> None:
    assert leases(str(tmp_path / "nothing")) == []


@pytest.mark.parametrize(
    "line",
    [
        "",
        "duid 00:01:00:01",
        "x 52:54:00:00:00:01 10.0.0.2 a *",
        "2000 52:54:00:00:00 10.0.0.2 a *",
        "2000 ff:ff:ff:ff:ff:ff 10.0.0.2 a *",
        "2000 52:54:00:00:00:01 10.0.0.256 a *",
        "2000 7143411 fd00:0::1 a *",
        "2000 52:54:00:00:00:01 10.0.0.2 a",
        "-1 52:54:00:00:00:01 10.0.0.2 a *",
        "2000 52:54:00:00:00:01 10.0.0.2 a b c",
        "99999999999999999999999 52:54:00:00:00:01 10.0.0.2 a *",
        "²000 52:54:00:00:00:01 10.0.0.2 a *",
        "2000 52:54:00:00:00:01 10.0.0.٢ a *",
        "2000 52:54:00:00:00:01 010.0.0.2 a *",
    ],
)
def test_lines_that_are_no_lease(tmp_path: Path, line: str) -> None:
    assert len(leases(lease_file(tmp_path, f"{line}\n{GOOD}{line}"), now=1000)) == 1


@pytest.mark.parametrize("name", [b"\x1b[2J", b"a\tb", b"\xff\xfe", b"a\rroot", "\u202egpj".encode(), b"\x9b31m"])
def test_hostile_host_names_are_inert(tmp_path: Path, name: bytes) -> None:
    (lease,) = leases(lease_file(tmp_path, b"2000 52:54:00:00:00:01 10.0.0.2 " + name + b" *\n"), now=1)
    assert lease.hostname and lease.hostname.isprintable()
    lease.hostname.encode()


@given(st.binary(max_size=300))
def test_no_lease_file_breaks_the_parser(raw: bytes) -> None:
    for line in raw.split(b"\n"):
        found = lease._lease(line)
        assert found is None or (found.hostname + found.client_id + found.ip).isprintable()


@given(st.ip_addresses(v=4))
def test_ipv4_in_its_usual_form(address: object) -> None:
    assert is_ipv4(str(address))


@pytest.mark.parametrize(
    "text", ["1.2.3", "1.2.3.4.5", "1.2.3.-4", "1.2.3.04", " 1.2.3.4", "1.2.3.٤", "", "a.b.c.d"]
)
def test_what_is_no_ipv4(text: str) -> None:
    assert not is_ipv4(text)


def test_the_prefix_is_that_of_the_hosts_own_address_there() -> None:
    own = [(b"\x0a\0\0\x01", 8), (b"\x0a\0\0\x01", 24), (bytes(15) + b"\1", 64)]
    assert neighbour._prefix(b"\x0a\0\0\x63", own) == 24 and neighbour._prefix(b"\x0a\0\1\x63", own) == 8
    assert neighbour._prefix(b"\x0b\0\0\1", own) == 0 and neighbour._prefix(bytes(16), own) == 64


def test_addresses_by_lease_of_a_network_that_is_not_active(tmp_path: Path) -> None:
    tree = Tree(str(tmp_path))
    path = Path(tree.leases("lan"))
    path.parent.mkdir(parents=True)
    path.write_text("0 52:54:00:00:00:01 10.0.0.2 vm *\n0 52:54:00:00:00:02 10.0.0.3 other *\n")
    macs = {"52:54:00:00:00:01": "lan", "52:54:00:00:00:02": None}
    assert addresses(tree, macs, ["lease"]) == [("52:54:00:00:00:01", "10.0.0.2", 0, "lease", "")]


def test_unknown_source(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="dns"):
        addresses(Tree(str(tmp_path)), {}, ["dns"])


def test_links_by_proc() -> None:
    assert table.present("lo") and not table.present("nosuchlink") and "lo" in table.names()
    assert table.counters("lo").rx_bytes >= 0
    with pytest.raises(NotFound, match="nosuchlink"):
        table.counters("nosuchlink")


def test_the_hosts_side_of_a_guests_mac() -> None:
    assert port.host_side_mac("52:54:00:AB:cd:ef") == "fe:54:00:ab:cd:ef"
