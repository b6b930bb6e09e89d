"""Run on a host whose bridges know VLANs: which frames pass between ports of each kind, and what tags they have.

Prints JSON: sender -> what it sent (a VLAN, or "-" for no tag) -> receiver -> what that got.
"""

from __future__ import annotations

import json
import os
import socket
import struct
import time
from typing import Any

import pyroute2

import qkvm
from qkvm.net.link import link, port
from qkvm.net.link.port import Port

IPRoute: Any = vars(pyroute2)["IPRoute"]
PORTS = {
    "plain": Port(),
    "access": Port(vlans=(42,), untagged=42),
    "other": Port(vlans=(47,), untagged=47),
    "trunk": Port(vlans=(42, 47)),
    "native": Port(vlans=(42, 47), untagged=42),
}
KIND, ETH_P_ALL = 0x88B5, 3
PACKET_AUXDATA, SOL_PACKET = 8, 263
TAG = "qkvm:dom=vm"


def main() -> None:
    """Make a bridge with a port of each kind, try all ways, and change one live."""
    sockets = {}
    with IPRoute() as ipr:
        ipr.link("add", ifname="br0", kind="bridge", br_forward_delay=0)
        index = ipr.link_lookup(ifname="br0")[0]
        ipr.link("set", index=index, state="up")
        refused = _refusal(ipr)
        # As a network of qkvm's.
        ipr.link("set", index=index, ifalias=link.network_tag("lab"))
        for number, (name, wanted) in enumerate(PORTS.items()):
            ipr.link("add", ifname=f"{name}0", kind="veth", peer={"ifname": name})
            ipr.link("set", index=ipr.link_lookup(ifname=name)[0], state="up")
            sockets[name] = _socket(name)
            port.plug(f"{name}0", "br0", f"52:54:00:00:00:{number:02x}", TAG, wanted, ipr=ipr)
        found = {sender: {sent: _heard(sockets, sender, sent) for sent in ("-", "42", "47")} for sender in PORTS}
        port.change("access0", Port(vlans=(47,), untagged=47), ipr=ipr)
        moved = _heard(sockets, "access", "-")
        port.change("access0", port.PLAIN, ipr=ipr)
        back = _heard(sockets, "access", "-")
        domain = _start()
        (tap,) = (nic.interface for nic in domain.nics.all())
        port_index = ipr.link_lookup(ifname=tap)[0]
        ((entry),) = ipr.get_vlans(index=port_index)
        vlans = [dict(one) for one in entry.get_attr("IFLA_AF_SPEC").get_attrs("IFLA_BRIDGE_VLAN_INFO")]
        started = {
            "vlans": [(one["vid"], one["flags"]) for one in vlans],
            "argv": [word for word in domain.live.record["argv"] if '"tap"' in word],
            "threads": sum("vhost-" in _name(pid) for pid in os.listdir("/proc") if pid.isdigit()),
        }
        domain.destroy()
        ipr.link("del", index=index)
        for name in PORTS:
            ipr.link("del", index=ipr.link_lookup(ifname=name)[0])
    print(json.dumps({"refused": refused, "pictures": found, "moved": moved, "back": back, "started": started}))


def _start() -> Any:
    """A domain whose NIC is in a VLAN and served by the kernel."""
    host = qkvm.Host("/r")
    domain = host.define(
        'name = "tagged"\nmachine = "pc"\nmemory = { current = "32MiB", maximum = "32MiB" }\nchannels = []\n'
        '[[nics]]\nmac = "52:54:00:00:00:31"\ntype = "bridge"\nsource = "br0"\nvhost = "on"\nqueues = 2\n'
        "vlan = { tags = [42] }\n"
    )
    domain.start()
    return domain


def _name(pid: str) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="ascii", errors="replace") as stream:
            return stream.read()
    except OSError:
        return ""


def _refusal(ipr: Any) -> str:
    """What is said of a bridge that is not qkvm's and filters nothing."""
    ipr.link("add", ifname="one0", kind="veth", peer={"ifname": "one"})
    try:
        port.plug("one0", "br0", "52:54:00:00:00:77", TAG, PORTS["access"], ipr=ipr)
        return ""
    except Exception as error:
        return str(error)
    finally:
        ipr.link("del", index=ipr.link_lookup(ifname="one0")[0])


def _socket(name: str) -> socket.socket:
    # All protocols: others get a frame without its tag.
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    sock.bind((name, ETH_P_ALL))
    sock.setsockopt(SOL_PACKET, PACKET_AUXDATA, 1)
    sock.settimeout(0)
    return sock


def _heard(sockets: dict[str, socket.socket], sender: str, sent: str) -> dict[str, str]:
    """Who hears what one sends, and with what tag."""
    head = b"\xff" * 6 + b"\x52\x54\0\0\1" + bytes((ord(sender[0]),))
    tag = b"" if sent == "-" else struct.pack("!HH", 0x8100, int(sent))
    sockets[sender].send(head + tag + struct.pack("!H", KIND) + bytes(46))
    # A veth delivers in the sender's own call, or soon after.
    heard, end = {}, time.monotonic() + 0.1
    while time.monotonic() < end:
        for name, sock in sockets.items():
            try:
                raw, extra, _, where = sock.recvmsg(2048, 256)
            except BlockingIOError:
                continue
            if raw[:12] == head and where[2] != socket.PACKET_OUTGOING:
                # struct tpacket_auxdata of linux/if_packet.h: TP_STATUS_VLAN_VALID, and the tag.
                status, *_, tci, _ = struct.unpack("IIIHHHH", extra[0][2][:20])
                heard[name] = str(tci & 0xFFF) if status & 0x10 else "-"
        time.sleep(0.005)
    return heard


main()
