"""A real guest that forges what it sends: what of it the host sees, with a filter and without."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qkvm.api.domain import Domain
from qkvm.host import process
from qkvm.net.firewall import nft
from tests.guest.conftest import Lab
from tests.guest.guest import Guest
from tests.host import nslab

Register = Callable[[Domain], Domain]

FIRST, SECOND, FORGED = "52:54:00:00:bb:01", "52:54:00:00:bb:02", "52:54:00:00:bb:99"
BRIDGE, HOST, FORGED_IP = "virbr7", "192.168.77.1", "192.168.77.99"
THIRD, FOURTH, OUTSIDE = "52:54:00:00:bb:03", "52:54:00:00:bb:04", "10.77.0.1"
BODY = f'[[nics]]\nmac = "{FIRST}"\nsource = "kept"\nfilter = "clean-traffic"\nisolated = true\n'


def _interface(mac: str, inside: str) -> str:
    return (
        f"<interface type='network'><mac address='{mac}'/><source network='kept'/>"
        f"<model type='virtio'/>{inside}</interface>"
    )


NETWORK = f"""name = "kept"
bridge = "{BRIDGE}"
address = "{HOST}/24"
mode = "isolated"
[dhcp]
start = "192.168.77.2"
end = "192.168.77.60"
"""


@pytest.fixture(autouse=True)
def network(lab: Lab, tmp_path: Path) -> Iterator[None]:
    """A network whose dnsmasq has kept no address yet."""
    (tmp_path / "kept.toml").write_text(NETWORK)
    lab.ok(f"net-define {tmp_path / 'kept.toml'}")
    lab.ok("net-start kept")
    yield
    lab.ok("net-destroy kept")
    lab.ok("net-undefine kept")
    assert not os.path.exists(lab.host.tree.reservations("kept"))


@pytest.fixture
def outside(lab: Lab) -> Iterator[nslab.Namespace]:
    """Who is behind the host's NIC eth9."""
    far = nslab.Namespace.new()
    with nslab.IPRoute() as ipr:
        ipr.link("add", ifname="eth9", kind="veth", peer={"ifname": "far", "net_ns_fd": far.fd})
        ipr.link("set", index=ipr.link_lookup(ifname="eth9")[0], state="up")
    with far.entered(), nslab.IPRoute() as ipr:
        index = ipr.link_lookup(ifname="far")[0]
        ipr.link("set", index=index, state="up")
        ipr.addr("add", index=index, address=OUTSIDE, prefixlen=24)
    yield far
    with nslab.IPRoute() as ipr:
        ipr.link("del", index=ipr.link_lookup(ifname="eth9")[0])
    far.close()


CLEAN = "<filterref filter='clean-traffic'/><port isolated='yes'/>"


def _forge(guest: Guest) -> dict[str, bool]:
    """Have the guest forge a MAC, an IP and an ARP answer, and tell which of them the host has seen."""
    address = guest.ask("ip -4 -o addr show dev eth0 | awk '{print $4}'")
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as ear:
        ear.bind((BRIDGE, 3))
        guest.ask(f"ip addr add {FORGED_IP}/24 dev eth0")
        guest.ask(f"ping -c 1 -W 1 -I {FORGED_IP} {HOST} || true")
        guest.ask(f"arping -c 1 -w 1 -U -I eth0 {FORGED_IP} || true")
        guest.ask(f"ip addr del {FORGED_IP}/24 dev eth0")
        guest.ask(f"ip link set eth0 down; ip link set eth0 address {FORGED}; ip link set eth0 up")
        guest.ask(f"ping -c 1 -W 1 {HOST} || true")
        guest.ask(f"ip link set eth0 down; ip link set eth0 address {FIRST}; ip link set eth0 up")
        # What is honest still passes, and is the last to be seen.
        guest.until(f"ping -c 1 -W 2 {HOST} >/dev/null && echo ok || true", "ok")
        ear.settimeout(0)
        seen = []
        while True:
            try:
                seen.append(ear.recv(2048))
            except BlockingIOError:
                break
    assert address == guest.ask("ip -4 -o addr show dev eth0 | awk '{print $4}'")
    forged_mac, forged_ip = bytes.fromhex(FORGED.replace(":", "")), socket.inet_aton(FORGED_IP)
    return {
        "mac": any(raw[6:12] == forged_mac for raw in seen),
        "ip": any(raw[12:14] == b"\x08\0" and raw[26:30] == forged_ip for raw in seen),
        "arp": any(raw[12:14] == b"\x08\x06" and raw[28:32] == forged_ip for raw in seen),
    }


def _kill(domain: Domain) -> None:
    pid = domain.live.pid
    assert pid is not None
    pidfd = process.open_pidfd(pid)
    assert pidfd is not None
    os.kill(pid, signal.SIGKILL)
    assert process.ended(pidfd, 10)
    os.close(pidfd)


def _macvtaps() -> list[str]:
    return [line.split()[0] for line in nslab.links() if line.startswith("macvtap")]


def _queues(domain: Domain, tap: str) -> int:
    """How many fds of a tap its QEMU holds."""
    folder = Path(f"/proc/{domain.live.pid}/fdinfo")
    return sum(f"iff:\t{tap}\n" in path.read_text("ascii") for path in folder.iterdir())


def _isolated(tap: str) -> bool:
    shown = nslab.sh("bridge", "-d", "link", "show", "dev", tap)
    assert "isolated" in shown
    return "isolated on" in shown


def _go_out_by_a_macvtap(lab: Lab, guest: Guest, outside: nslab.Namespace) -> None:
    """Plug a NIC that is a macvtap on the host's eth9, speak with who is behind that, and unplug it."""
    words = "forger direct eth9 --source-mode bridge --mac"
    assert "mode='bridge'" in lab.ok(f"attach-interface {words} {FOURTH} --print-xml")
    lab.ok(f"attach-interface {words} {FOURTH} --live --config --model virtio")
    (line,) = (line for line in lab.ok("domiflist forger").splitlines() if FOURTH in line)
    assert line.split() == ["macvtap0", "direct", "eth9", "virtio", FOURTH]
    assert lab.ok("dumpxml forger").count("<source dev='eth9' mode='bridge'/>") == 1
    guest.until("test -e /sys/class/net/eth2 && echo there || true", "there")
    guest.ask("ip link set eth2 up; ip addr add 10.77.0.2/24 dev eth2")
    guest.until(f"ping -c 1 -W 2 {OUTSIDE} >/dev/null && echo ok || true", "ok")
    counted = json.loads(lab.ok("domifstat forger macvtap0 --json"))
    assert counted["rx_bytes"] >= 98 and counted["tx_bytes"] >= 98
    lab.ok("domiftune forger macvtap0 --inbound 200 --outbound 100 --live")
    guest.until(f"ping -c 1 -W 2 {OUTSIDE} >/dev/null && echo ok || true", "ok")
    lab.ok(f"detach-interface forger direct --mac {FOURTH} --live --config")
    assert not [line for line in nslab.links() if line.startswith(("macvtap", "qkvm-o"))]


def test_a_guest_that_forges(lab: Lab, domain_of: Register, outside: nslab.Namespace, tmp_path: Path) -> None:
    quick = f'[[nics]]\nmac = "{THIRD}"\nsource = "kept"\nqueues = 3\nlink = false\n'
    domain = domain_of(lab.define("forger", body=BODY + quick))
    lab.boot(domain)
    tap, wide = (nic.interface for nic in domain.nics.all())
    kept = Path(lab.host.tree.reservations("kept")).read_text("ascii")
    assert kept.startswith(f"{FIRST} 192.168.77.") and _isolated(tap)
    address = kept.split()[1]
    with Guest(domain) as guest:
        # By DHCP, through the filter.
        guest.until("ip -4 -o addr show dev eth0 | awk '{print $4}'", f"{address}/24")
        assert address in lab.ok("domifaddr forger --source lease")
        assert _forge(guest) == {"mac": False, "ip": False, "arp": False}

        free, clean = tmp_path / "free.xml", tmp_path / "clean.xml"
        free.write_text(_interface(FIRST, ""))
        clean.write_text(_interface(FIRST, CLEAN))
        lab.ok(f"update-device forger {free} --live")
        assert "table bridge" not in nslab.nft_rules() and not _isolated(tap)
        assert _forge(guest) == {"mac": True, "ip": True, "arp": True}
        lab.ok(f"update-device forger {clean} --live")
        assert _isolated(tap)
        assert _forge(guest) == {"mac": False, "ip": False, "arp": False}
        # Somebody has flushed the rules: saying it again puts them back.
        nslab.sh("nft", "delete", "table", "bridge", nslab.nft_rules().split("table bridge ")[1].split()[0])
        lab.ok(f"update-device forger {clean} --live")
        assert nslab.nft_rules().count("table bridge") == 1

        # Several queues, cold and hot: the card says so (VIRTIO_NET_F_MQ), and what is sent arrives.
        assert _queues(domain, wide) == 3 and _queues(domain, tap) == 1
        assert guest.ask("cut -c 23 /sys/class/net/eth0/device/features") == "0"
        assert guest.ask("cut -c 23 /sys/class/net/eth1/device/features") == "1"
        lab.ok(f"domif-setlink forger {THIRD} up")
        guest.ask("ip link set eth0 down; ip link set eth1 up; ip addr add 192.168.77.70/24 dev eth1")
        guest.until(f"ping -c 1 -W 2 {HOST} >/dev/null && echo ok || true", "ok")

        _go_out_by_a_macvtap(lab, guest, outside)

        second = tmp_path / "second.xml"
        second.write_text(_interface(SECOND, f"{CLEAN}<driver queues='2'/>"))
        lab.ok(f"attach-device forger {second} --live --config")
        assert nslab.nft_rules().count("table bridge") == 2
        hot = domain.nics.all()[2].interface
        assert _isolated(hot) and _queues(domain, hot) == 2
        shown = lab.ok("dumpxml forger")
        assert shown.count("<filterref filter='clean-traffic'/>") == shown.count("<port isolated='yes'/>") == 2
        guest.until("cut -c 23 /sys/class/net/eth2/device/features 2>&1 || true", "1")
        lab.ok(f"detach-interface forger network --mac {SECOND} --live --config")
        assert nslab.nft_rules().count("table bridge") == 1


def test_a_filter_ends_with_the_guest_and_the_address_stays(
    lab: Lab, domain_of: Register, outside: nslab.Namespace
) -> None:
    direct = f'[[nics]]\nmac = "{FOURTH}"\ntype = "direct"\nsource = "eth9"\nsource_mode = "private"\n'
    domain = domain_of(lab.define("ended", body=BODY + direct))
    domain.start()
    assert _macvtaps() == ["macvtap0"]
    assert nslab.nft_rules().count("table bridge") == 1
    kept = Path(lab.host.tree.reservations("kept")).read_text("ascii")
    # Somebody has flushed it: that is seen, and mended.
    table = next(name for family, name in nft.tables(needed_for="tests") if family == "bridge")
    whole = nslab.nft_rules()
    for words in (f"delete table bridge {table}", f"flush table bridge {table}"):
        nslab.sh("nft", *words.split())
        assert (
            "of domain ended is gone, or a part of it: its guest may forge [filter-missing]"
            in lab.run("net-check kept").stdout
        )
        assert "[filter-missing]" in lab.run("net-repair kept").stdout
        assert "filter-missing" not in lab.run("net-check kept").stdout
    assert sorted(nslab.nft_rules().splitlines()) == sorted(whole.splitlines())
    _kill(domain)
    assert "table bridge" in nslab.nft_rules(), "rules do not go with the tap"
    assert _macvtaps() == ["macvtap0"], "nor does a macvtap"
    lab.ok("gc")
    assert "table bridge" not in nslab.nft_rules() and not _macvtaps()
    domain.start()
    _kill(domain)
    domain.start()
    assert _macvtaps() == ["macvtap0"]
    assert nslab.nft_rules().count("table bridge") == 1, "the next start has taken the old ones away"
    domain.destroy()
    assert "table bridge" not in nslab.nft_rules() and not _macvtaps()
    assert Path(lab.host.tree.reservations("kept")).read_text("ascii") == kept

    # Where the host's kernel is to serve a NIC and can't, nothing is started.
    if not os.path.exists("/dev/vhost-net"):
        insists = domain_of(lab.define("insists", body=BODY + 'vhost = "on"\n'))
        assert "/dev/vhost-net is missing" in lab.fails("start insists")
        assert not insists.is_running and "table bridge" not in nslab.nft_rules()

    # On a bridge of the user's own nobody knows the address; on a network that gives none it must be said.
    refused = lab.fails(f"attach-device ended {_file(lab, 'bridge', BRIDGE)} --config")
    assert f"nobody tells the guest's addresses on bridge {BRIDGE}" in refused


def _file(lab: Lab, kind: str, source: str) -> str:
    path = Path(lab.root) / "nic.xml"
    path.write_text(
        f"<interface type='{kind}'><mac address='{SECOND}'/><source {kind}='{source}'/>"
        f"<model type='virtio'/>{CLEAN}</interface>"
    )
    return str(path)
