"""The verbs on the host's own interfaces, in a namespace of the test's own and in the shape of virsh 9.0's."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from qkvm.paths import Tree
from tests.host import nslab

pytestmark = pytest.mark.usefixtures("netns")
TOP = Path(__file__).resolve().parents[2]

MAC = "52:54:00:0a:00:01"
SETUP = f"""
link add eth1 type veth peer far
link set eth1 address {MAC}
link add spare address 52:54:00:0a:00:01 type bridge
link set far up
link set eth1 up
addr add 192.0.2.2/24 dev eth1
addr add 2001:db8::2/64 dev eth1 nodad
route add default via 192.0.2.1
"""


@pytest.fixture(autouse=True)
def host(netns: nslab.Namespace) -> Iterator[None]:
    nslab.sh("ip", "-batch", "-", stdin=SETUP)
    yield
    for name in ("eth1", "spare"):
        nslab.sh("ip", "link", "del", name)


def run(root: Tree, *words: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "qkvm", "--root", root.root, *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60, cwd=TOP)


def ok(root: Tree, *words: str) -> str:
    done = run(root, *words)
    assert done.returncode == 0, done.stderr
    return done.stdout


def fails(root: Tree, *words: str) -> str:
    done = run(root, *words)
    assert done.returncode == 1 and not done.stdout.strip() and done.stderr.count("\n") == 1, done
    return done.stderr


def test_list_names_and_macs(root: Tree) -> None:
    nslab.until(lambda: "state UP" in nslab.sh("ip", "link", "show", "eth1"), "carrier")
    far = re.search(r"ether (\S+)", nslab.sh("ip", "link", "show", "far"))
    assert far is not None
    assert ok(root, "iface-list") == (
        " Name   State    MAC Address\n"
        "------------------------------------\n"
        f" eth1   active   {MAC}\n"
        f" far    active   {far[1]}\n"
        " lo     active   00:00:00:00:00:00\n\n"
    )
    every = json.loads(ok(root, "iface-list", "--all", "--json"))
    assert [entry["name"] for entry in every] == ["eth1", "far", "lo", "spare"]
    assert every[0] == {"name": "eth1", "state": "active", "mac": MAC, "type": "ethernet"}
    assert every[3]["state"] == "inactive"
    names = [line.split()[0] for line in ok(root, "-q", "iface-list", "--inactive").splitlines()]
    assert names == ["spare"]
    assert ok(root, "-q", "iface-mac", "eth1").strip() == MAC
    assert ok(root, "-q", "iface-name", far[1].upper()).strip() == "far"
    assert "failed to get interface 'nope'" in fails(root, "iface-mac", "nope")
    assert "failed to get interface 'zz'" in fails(root, "iface-name", "zz")
    assert "multiple matching interfaces" in fails(root, "iface-name", MAC)


def test_dumpxml(root: Tree) -> None:
    nslab.until(lambda: "state UP" in nslab.sh("ip", "link", "show", "eth1"), "carrier")
    text = re.sub(r"    <ip address='fe80:.*\n", "", ok(root, "iface-dumpxml", "eth1"))
    text = re.sub(r" speed='\d+'", "", text)
    assert text == (
        "<interface type='ethernet' name='eth1'>\n"
        "  <mtu size='1500'/>\n"
        "  <protocol family='ipv4'>\n"
        "    <ip address='192.0.2.2' prefix='24'/>\n"
        "    <route gateway='192.0.2.1'/>\n"
        "  </protocol>\n"
        "  <protocol family='ipv6'>\n"
        "    <ip address='2001:db8::2' prefix='64'/>\n"
        "  </protocol>\n"
        "  <link state='up'/>\n"
        f"  <mac address='{MAC}'/>\n"
        "</interface>\n\n"
    )
    picked = ok(root, "iface-dumpxml", "eth1", "--inactive", "--xpath", "//route", "--wrap")
    assert picked == '<nodes>\n  <route gateway="192.0.2.1"/>\n</nodes>\n\n'
    plain = json.loads(ok(root, "iface-dumpxml", "eth1", "--json"))
    assert plain["mtu"] == {"size": 1500} and plain["protocol"][0]["route"] == {"gateway": "192.0.2.1"}


def test_bridge_and_unbridge(root: Tree) -> None:
    done = run(root, "iface-bridge", "eth1", "br0", "--delay", "4")
    assert done.returncode == 0, done.stderr
    assert done.stdout == "Created bridge br0 with attached device eth1\nBridge interface br0 started\n\n"
    assert "warning: bridge br0 lasts until this machine boots" in done.stderr
    text = ok(root, "iface-dumpxml", "br0")
    assert "<bridge stp='on' delay='4'>" in text and "<ip address='192.0.2.2' prefix='24'/>" in text
    assert f"<mac address='{MAC}'/>" in text and "<route gateway='192.0.2.1'/>" in text
    shown = ok(root, "iface-list")
    assert " br0 " in shown and " eth1 " not in shown, "ports are with their bridge"
    assert "belongs to bridge br0" in fails(root, "iface-bridge", "eth1", "br1")
    assert "already a bridge" in fails(root, "iface-bridge", "br0", "br1")
    assert "already exists" in fails(root, "iface-bridge", "far", "br0")
    assert ok(root, "complete", "--", "iface-unbridge", "") == "br0\n"
    assert "forbidden" in fails(root, "-r", "iface-unbridge", "br0")
    assert "--no-start" in fails(root, "iface-unbridge", "br0", "--no-start")
    assert ok(root, "iface-unbridge", "br0") == (
        "Device eth1 un-attached from bridge br0\nInterface eth1 started\n\n"
    )
    assert "192.0.2.1 dev eth1" in nslab.sh("ip", "route", "show", "default")
    assert "failed to get interface 'br0'" in fails(root, "iface-unbridge", "br0")
    ok(root, "iface-bridge", "far", "br0", "--no-stp")
    assert "<bridge stp='off' delay='0'>" in ok(root, "iface-dumpxml", "br0")
    ok(root, "iface-unbridge", "br0")


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("iface-bridge lo br0", "loopback"),
        ("iface-bridge nope br0", "failed to get interface 'nope'"),
        ("iface-bridge eth1 a-name-too-long-x", "15 bytes"),
        ("iface-bridge eth1 br0 --delay 1", "forward delay"),
        ("iface-bridge eth1 br0 --delay x", "<delay> option is malformed"),
        ("iface-bridge eth1 br0 --no-start", "netplan"),
        ("iface-unbridge eth1", "not a bridge"),
        ("iface-define file.xml", "not meant for qkvm"),
        ("iface-rollback", "not meant for qkvm"),
    ],
)
def test_refused(root: Tree, line: str, words: str) -> None:
    assert words in fails(root, *line.split())


def test_a_bridge_of_somebody_elses_is_left(root: Tree) -> None:
    nslab.sh("ip", "link", "add", "br9", "type", "bridge")
    assert "was not made over a NIC" in fails(root, "iface-unbridge", "br9")
    nslab.sh("ip", "link", "set", "br9", "alias", "qkvm:net=lan")
    assert "qkvm net-destroy lan" in fails(root, "iface-unbridge", "br9")
    nslab.sh("ip", "link", "del", "br9")
