"""What a network's dnsmasq does for guests: addresses, names, boot files, IPv6; and for whom it does nothing."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from qkvm.cli.main import main
from qkvm.errors import AlreadyExists
from qkvm.net.dhcp import dnsmasq
from qkvm.net.dhcp.address import addresses
from qkvm.net.network.network import Network
from qkvm.paths import Tree
from tests.host import nslab

pytestmark = pytest.mark.usefixtures("netns")

MakeGuest = Callable[[str], nslab.Guest]

ONE, TWO = "52:54:00:00:00:01", "52:54:00:00:00:02"
"""The MACs that the first two guests of a test have."""

LAN = f"""
name = "lan"
bridge = "virbr7"
address = "192.168.77.1/24"
domain = "lan.example"

[dhcp]
start = "192.168.77.100"
end = "192.168.77.101"

[[hosts]]
mac = "{ONE}"
name = "one"
ip = "192.168.77.41"

[[hosts]]
mac = "{TWO}"
ip = "192.168.77.42"
"""

SIX = f"""
name = "lan"
bridge = "virbr7"
address = "192.168.77.1/24"

[ipv6]
address = "fd12:3456:789a:1::1/64"
dhcp = {{ start = "fd12:3456:789a:1::100", end = "fd12:3456:789a:1::1ff" }}

[[hosts]]
mac = "{ONE}"
ip = "192.168.77.41"
"""


def query(name: str) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
    return b"\x12\x34\x01\x00" + struct.pack("!4H", 1, 0, 0, 0) + labels + struct.pack("!2H", 1, 1)


@pytest.fixture
def served() -> Iterator[Path]:
    """A folder that dnsmasq, which is nobody, may read."""
    folder = Path(tempfile.mkdtemp(prefix="qkvm-tftp-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def fetch(guest: nslab.Guest, server: str, name: str) -> bytes:
    """A file by TFTP (RFC 1350)."""
    with guest.namespace.open(socket.SOCK_DGRAM) as client:
        client.sendto(b"\0\1" + name.encode() + b"\0octet\0", (server, 69))
        found = b""
        while True:
            answer, peer = client.recvfrom(600)
            kind, block = struct.unpack_from("!2H", answer)
            assert kind == 3, answer
            if block == len(found) // 512 + 1:
                found += answer[4:]
            client.sendto(struct.pack("!2H", 4, block), peer)
            if len(answer) < 516:
                return found


def test_addresses_names_and_boot_files(root: Tree, make_guest: MakeGuest, served: Path) -> None:
    content = os.urandom(1300)
    (served / "pxelinux.0").write_bytes(content)
    lan = Network.define(root, LAN + f'\n[boot]\nfile = "pxelinux.0"\ntftp = "{served}"\n', "x")
    # What lets it through are the network's own rules.
    nslab.sh("iptables-legacy", "-P", "INPUT", "DROP")
    lan.start(firewall="iptables")
    first, second = make_guest("virbr7"), make_guest("virbr7")
    assert (first.dhcp(), second.dhcp("two")) == ("192.168.77.41", "192.168.77.42")
    assert first.boot == ("192.168.77.1", "pxelinux.0")
    assert fetch(first, "192.168.77.1", "pxelinux.0") == content
    resolved = [nslab.resolve(first.namespace, "192.168.77.1", f"{name}.lan.example") for name in ("one", "two")]
    assert resolved == [first.ip, second.ip]

    server = dnsmasq.find(root, "lan")
    assert server is not None
    status = Path(f"/proc/{server.pid}/status").read_text(encoding="ascii")
    (uids,) = (line.split()[1:] for line in status.splitlines() if line.startswith("Uid:"))
    assert set(uids) == {"65534"}, "it is nobody"
    lan.destroy()
    nslab.sh("iptables-legacy", "-P", "INPUT", "ACCEPT")


def test_leases_survive_a_restart(root: Tree, make_guest: MakeGuest) -> None:
    lan = Network.define(root, LAN, "x")
    lan.start()
    guests = [make_guest("virbr7") for _ in range(3)]
    given = guests[2].lease("third")
    assert given in ("192.168.77.100", "192.168.77.101")
    lan.destroy()
    lan.start()
    assert [lease.ip for lease in lan.dhcp_leases()] == [given]
    fresh = make_guest("virbr7")
    assert nslab.resolve(_plugged(fresh, 50), "192.168.77.1", "third.lan.example") == given
    assert fresh.lease() not in ("", given), "an address that is given away is not given again"
    lan.destroy()


def _plugged(guest: nslab.Guest, host: int) -> nslab.Namespace:
    guest.configure(f"192.168.77.{host}", 24)
    return guest.namespace


def test_nobody_else_is_answered(root: Tree, world: nslab.Namespace, make_guest: MakeGuest) -> None:
    lan = Network.define(root, LAN, "x")
    lan.start()
    guest = make_guest("virbr7")
    assert guest.dhcp() == "192.168.77.41"
    assert nslab.resolve(guest.namespace, "192.168.77.1", "one.lan.example") == "192.168.77.41"
    for address in (nslab.OUTSIDE, "192.168.77.1"):
        with world.open(socket.SOCK_DGRAM) as client:
            client.settimeout(0.3)
            client.connect((address, 53))
            client.send(query("one.lan.example"))
            with pytest.raises(OSError, match="refused|timed out"):
                client.recv(512)
        # The kernel takes connections to any of its addresses by any link; dnsmasq ends those of others at once.
        try:
            with world.connect((address, 53), timeout=0.3) as connection:
                question = query("one.lan.example")
                connection.sendall(struct.pack("!H", len(question)) + question)
                assert connection.recv(512) == b""
        except OSError:
            pass
    lan.destroy()


def test_ipv6(root: Tree, make_guest: MakeGuest, capsys: pytest.CaptureFixture[str]) -> None:
    lan = Network.define(root, SIX, "x")
    lan.start()
    guest = make_guest("virbr7")
    guest.dhcp("one")
    leased = guest.dhcp6()
    assert leased.startswith("fd12:3456:789a:1::1")
    nslab.until(guest.addresses6, "an address by router advertisement", 60)
    (own,) = guest.addresses6()
    assert own.startswith("fd12:3456:789a:1:5054:ff:fe00:1"), "made of the MAC"
    with guest.namespace.entered(), nslab.IPRoute() as ipr:
        ipr.addr("add", index=guest.index(ipr), address=leased, prefixlen=128, flags=nslab.NODAD)
    assert guest.namespace.run("ping", "-c", "1", "-W", "5", "-I", own, "fd12:3456:789a:1::1").returncode == 0
    assert guest.namespace.run("ping", "-c", "1", "-W", "5", "192.168.77.1").returncode == 0

    found = addresses(root, {guest.mac: "lan"})
    assert [(one.ip, one.prefix, one.source, one.interface) for one in found if "fe80" not in one.ip] == [
        (guest.ip, 24, "lease", "virbr7"),
        (leased, 64, "lease", "virbr7"),
        (own, 64, "arp", "virbr7"),
    ]
    assert all(one.mac == guest.mac for one in found)
    # A second NIC of the same guest has the client's id too, which names the first: who answers there is known.
    assert not addresses(root, {TWO: "lan"})
    assert guest.namespace.run("ping", "-c", "1", "-W", "5", "-I", leased, "fd12:3456:789a:1::1").returncode == 0
    leases = Path(root.leases("lan"))
    told = leases.read_text(encoding="ascii")
    leases.write_text(told.replace(f"00:03:00:01:{ONE}", "00:02:00:00:ab:11"), encoding="ascii")
    by_lease = addresses(root, {guest.mac: "lan", TWO: "lan"}, ["lease"])
    assert [(one.mac, one.ip) for one in by_lease] == [(guest.mac, guest.ip), (guest.mac, leased)]

    assert main(["--root", root.root, "net-dhcp-leases", "lan"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split("  ")[0].strip() == "Expiry Time" and lines[0].rstrip().endswith("Client ID or DUID")
    rows = [line.split() for line in lines[2:] if line]
    assert sorted(row[3:5] for row in rows) == [["ipv4", f"{guest.ip}/24"], ["ipv6", f"{leased}/64"]]
    assert main(["--root", root.root, "net-dhcp-leases", "lan", "--json"]) == 0
    shown = {one["ip"]: one for one in json.loads(capsys.readouterr().out)}
    assert shown[leased]["iaid"] == "7" and shown[leased]["client_id"] == "00:02:00:00:ab:11"
    lan.destroy()


def test_an_address_of_a_bridge_that_is_another_s(root: Tree, make_guest: MakeGuest) -> None:
    with nslab.IPRoute() as ipr:
        ipr.link("add", ifname="br0", kind="bridge")
        index = ipr.link("get", ifname="br0")[0]["index"]
        ipr.addr("add", index=index, address="10.7.0.1", prefixlen=16)
        ipr.link("set", index=index, state="up")
    bridged = Network.define(root, 'name = "plain"\nmode = "bridge"\nbridge = "br0"\n', "x")
    bridged.start()
    guest = make_guest("br0")
    guest.configure("10.7.3.3", 16)
    assert guest.namespace.run("ping", "-c", "1", "-W", "5", "10.7.0.1").returncode == 0
    for network in ("plain", None):
        (found,) = (one for one in addresses(root, {guest.mac: network}) if ":" not in one.ip)
        assert found == (guest.mac, "10.7.3.3", 16, "arp", "br0")
    bridged.destroy()
    with nslab.IPRoute() as ipr:
        ipr.link("del", index=index)


def test_an_address_that_another_has_now(root: Tree, make_guest: MakeGuest) -> None:
    """The kernel met the guest there, and nobody told it that the lease is another's by now."""
    lan = Network.define(root, LAN, "x")
    lan.start()
    guest = make_guest("virbr7")
    guest.configure("192.168.77.60", 24)
    assert guest.namespace.run("ping", "-c", "1", "-W", "5", "192.168.77.1").returncode == 0
    assert [one.ip for one in addresses(root, {guest.mac: "lan"}) if ":" not in one.ip] == ["192.168.77.60"]
    leases = Path(root.leases("lan"))
    leases.write_text(f"0 {TWO} 192.168.77.60 * *\n1 {guest.mac} 192.168.77.61 * *\n", encoding="ascii")
    assert [one.ip for one in addresses(root, {guest.mac: "lan"}) if ":" not in one.ip] == [], (
        "nor one that has expired"
    )
    lan.destroy()


HOSTILE = (
    b"$(touch /tmp/qkvm-owned)",
    b"`id`;reboot",
    b"\x1b[2J\x1b]0;x\x07",
    b"a" * 255,
    b"x\n0 y 192.168.77.9 * *",
    b"\xff\xfe",
)


def test_a_guest_that_calls_itself_names(
    root: Tree, make_guest: MakeGuest, capsys: pytest.CaptureFixture[str]
) -> None:
    # A forward to a guest by name has dnsmasq run a script at each change of a lease, with the guest's words.
    lan = Network.define(root, LAN + '\n[[forwards]]\nports = "8080"\nguest = "nobody"\n', "x")
    lan.start()
    make_guest("virbr7")
    guest = make_guest("virbr7")
    for name in HOSTILE:
        assert guest.lease(name) == "192.168.77.42"
        for words in (
            ("net-dhcp-leases", "lan"),
            ("net-dhcp-leases", "lan", "--json"),
            ("net-forward", "lan", "list"),
        ):
            assert main(["--root", root.root, *words]) == 0
            out, err = capsys.readouterr()
            assert all(char.isprintable() or char == "\n" for char in out + err)
        (lease,) = lan.dhcp_leases()
        assert lease.ip == "192.168.77.42" and lease.hostname.isprintable()
        for folder, _, files in os.walk(root.log):
            for file in files:
                assert b"\x1b" not in Path(folder, file).read_bytes()
    lan.destroy()
    # One that dnsmasq began last may end a moment after it.
    nslab.until(lambda: not nslab.processes_naming(root.root), "the end of the script", 60)
    assert not Path("/tmp/qkvm-owned").exists()


def test_what_is_left_to_qkvm(root: Tree, world: nslab.Namespace) -> None:
    nslab.sh("ip", "addr", "add", "192.168.122.77/24", "dev", "uplink")
    nslab.sh("ip", "route", "add", "192.168.123.0/24", "dev", "uplink")
    inactive = LAN.replace("192.168.77", "192.168.124").replace('"lan"', '"other"').replace("virbr7", "virbr0")
    Network.define(root, inactive, "x")
    lan = Network.define(root, 'name = "lan"\naddress = "auto"\nipv6 = { address = "auto" }\n', "x")
    definition = lan.definition
    assert (definition.address, definition.bridge) == ("192.168.125.1/24", "virbr1")
    lan.start()
    assert lan.actual == definition
    text = definition.address.replace("125.1/24", "125.129/25")
    third = Network.define(root, f'name = "third"\naddress = "{text}"\n', "x")
    with pytest.raises(AlreadyExists, match="'third' wants 192.168.125.128/25 on virbr2, but .* virbr1"):
        third.start()
    lan.destroy()
    nslab.sh("ip", "addr", "del", "192.168.122.77/24", "dev", "uplink")
    nslab.sh("ip", "route", "del", "192.168.123.0/24", "dev", "uplink")


MODES = {
    "nat": 'address = "10.1.0.1/24"\nipv6 = { address = "fd00:1::1/64", nat = true }\ndev = "uplink"\n',
    "route": 'address = "10.2.0.1/24"\n',
    "open": 'ipv6 = { address = "fd00:3::1/64" }\nmtu = 1400\n',
    "isolated": 'domain = "iso.example"\n',
    "bridge": 'bridge = "br0"\n',
}


def test_every_mode_is_shown(root: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    def qkvm(line: str) -> str:
        assert main(["--root", root.root, *line.split()]) == 0, line
        return capsys.readouterr().out

    for mode, text in MODES.items():
        Network.define(root, f'name = "{mode}"\nmode = "{mode}"\n{text}', "x")
    nslab.sh("ip", "link", "add", "br0", "type", "bridge")
    Network(root, "bridge").start()
    Network(root, "isolated").start()
    listed = [line.split() for line in qkvm("net-list --all").splitlines()[2:] if line]
    states = {row[0]: row[1] for row in listed}
    assert states == dict.fromkeys(MODES, "inactive") | {"bridge": "active", "isolated": "active"}
    for mode in MODES:
        network = Network(root, mode)
        before = network.definition
        info = dict(line.split(":") for line in qkvm(f"net-info {mode}").splitlines() if line)
        assert (info["Name"].strip(), info["Bridge"].strip()) == (mode, before.bridge)
        xml = qkvm(f"net-dumpxml {mode} --inactive")
        assert (f"<forward mode='{mode}'" in xml) == (mode != "isolated")
        again = Network.define(root, xml, "x").definition
        assert replace(again, mac="") == before and bool(again.mac) == (mode != "bridge")
        assert json.loads(qkvm(f"net-dumpxml {mode} --json"))["name"] == mode
    (mac,) = re.findall(r"<mac address='(.*?)'/>", qkvm("net-dumpxml isolated"))
    link = nslab.sh("ip", "link", "show", "dev", Network(root, "isolated").definition.bridge)
    assert f"link/ether {mac} " in link, "the one that the bridge has"
    Network(root, "bridge").destroy()
    Network(root, "isolated").destroy()
    nslab.sh("ip", "link", "del", "br0")
