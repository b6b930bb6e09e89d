"""Network namespaces for tests: made without names, entered by threads, gone with the last of their fds."""

from __future__ import annotations

import ctypes
import os
import re
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyroute2
from pyroute2.netlink.exceptions import NetlinkError

WORLD, OUTSIDE = "203.0.113.2", "203.0.113.1"
"""The outside world's address (TEST-NET-3 of RFC 5737), and the host's own on the way there."""

WORLD6, OUTSIDE6 = "2001:db8::2", "2001:db8::1"
"""The same of IPv6 (RFC 3849)."""

NODAD = 0x02
"""IFA_F_NODAD of linux/if_addr.h: an address that is used at once."""

NODAD = 0x2
"""IFA_F_NODAD of linux/if_addr.h."""

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)
IPRoute: Any = vars(pyroute2)["IPRoute"]


def _call(name: str, *arguments: int) -> None:
    """A system call of libc; os.setns and os.unshare came with Python 3.12."""
    if getattr(_libc, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)} (these tests need root)")


class Namespace:
    """A network namespace by its fd."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def current(cls) -> Namespace:
        return cls(os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    @classmethod
    def new(cls) -> Namespace:
        made: list[Namespace] = []
        failed: list[OSError] = []

        def make() -> None:
            try:
                _call("unshare", CLONE_NEWNET)
                made.append(cls.current())
            except OSError as error:
                failed.append(error)

        worker = threading.Thread(target=make)
        worker.start()
        worker.join()
        if failed:
            raise failed[0]
        with made[0].entered(), IPRoute() as ipr:
            ipr.link("set", index=1, state="up")
        return made[0]

    def enter(self) -> None:
        _call("setns", self.fd, CLONE_NEWNET)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """This thread inside for a while; sockets and children that it makes stay there."""
        before = Namespace.current()
        try:
            self.enter()
            yield
        finally:
            before.enter()
            before.close()

    def close(self) -> None:
        os.close(self.fd)

    def open(self, kind: int = socket.SOCK_STREAM, family: int = socket.AF_INET) -> socket.socket:
        with self.entered():
            made = socket.socket(family, kind)
        made.settimeout(5.0)
        return made

    def run(self, *argv: str) -> subprocess.CompletedProcess[str]:
        with self.entered():
            return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)

    def connect(self, address: tuple[str, int], *, source_port: int = 0, timeout: float = 5.0) -> socket.socket:
        """A TCP connection from within. :raises OSError: refused, unreachable, timed out."""
        client = self.open(family=socket.AF_INET6 if ":" in address[0] else socket.AF_INET)
        client.settimeout(timeout)
        try:
            if source_port:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                client.bind(("", source_port))
            client.connect(address)
        except BaseException:
            client.close()
            raise
        return client


class Server:
    """A TCP server of both families inside a namespace that greets whoever comes and keeps the address it sees."""

    def __init__(self, namespace: Namespace, port: int) -> None:
        self.seen: list[tuple[str, int]] = []
        self._listener = namespace.open(family=socket.AF_INET6)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("::", port))
        self._listener.listen()
        self._listener.settimeout(None)
        self._worker = threading.Thread(target=self._serve)
        self._worker.start()

    def _serve(self) -> None:
        while True:
            try:
                connection, peer = self._listener.accept()
            except OSError:
                return
            with connection:
                self.seen.append((peer[0].removeprefix("::ffff:"), peer[1]))
                connection.sendall(b"hello")

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._worker.join()
        self._listener.close()


BR_STATE_FORWARDING = 3
"""linux/if_bridge.h."""


class Guest:
    """What a guest is to a network: a namespace with one interface, on a port of the bridge."""

    counter = 0

    def __init__(self, bridge: str, mac: str) -> None:
        Guest.counter += 1
        self.mac = mac
        self.port = f"port{Guest.counter}"
        self.ip = ""
        self.options: dict[int, bytes] = {}
        self.boot = "", ""
        """The next server and the boot file of the last answer."""
        self.namespace = Namespace.new()
        with IPRoute() as ipr:
            ipr.link("add", ifname=self.port, kind="veth", peer={"ifname": "eth0", "net_ns_fd": self.namespace.fd})
            port = ipr.link("get", ifname=self.port)[0]["index"]
            master = ipr.link("get", ifname=bridge)[0]["index"]
            ipr.link("set", index=port, master=master, state="up")
        with self.namespace.entered(), IPRoute() as ipr:
            ipr.link("set", index=self.index(ipr), address=mac, state="up")

    @staticmethod
    def index(ipr: Any) -> int:
        return int(ipr.link("get", ifname="eth0")[0]["index"])

    def wait_forwarding(self) -> None:
        """Wait until the bridge passes on what comes; the kernel sees the port's carrier a moment later."""
        deadline = time.monotonic() + 30
        with IPRoute() as ipr:
            while True:
                details = ipr.link("get", ifname=self.port)[0].get_attr("IFLA_LINKINFO")
                if details.get_attr("IFLA_INFO_SLAVE_DATA").get_attr("IFLA_BRPORT_STATE") == BR_STATE_FORWARDING:
                    return
                assert time.monotonic() < deadline, f"{self.port} does not forward"
                time.sleep(0.01)

    def flush(self) -> None:
        """Forget all IPv4 addresses."""
        with self.namespace.entered():
            sh("ip", "-4", "addr", "flush", "dev", "eth0")

    def lease(self, hostname: str | bytes = "") -> str:
        """Get a lease, without using it; gives the address."""
        with self.namespace.open(socket.SOCK_DGRAM) as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
            client.bind(("0.0.0.0", 68))
            offer, options = self._ask(client, {53: b"\1"}, hostname)
            wanted = {53: b"\3", 50: offer, 54: options[54]}
            given, self.options = self._ask(client, wanted, hostname)
        self.ip = socket.inet_ntoa(given)
        assert self.options[53] == b"\5", "the server refused what it had offered"
        return self.ip

    def dhcp(self, hostname: str | bytes = "") -> str:
        """Get a lease and use it; gives the address."""
        self.lease(hostname)
        router = self.options.get(3)
        self.configure(self.ip, bin(int.from_bytes(self.options[1], "big")).count("1"))
        if router:
            self.route(socket.inet_ntoa(router))
        return self.ip

    def dhcp6(self) -> str:
        """Get an IPv6 address by DHCPv6 (RFC 8415), without using it; '' where the server has none to give."""
        duid = b"\0\3\0\1" + bytes.fromhex(self.mac.replace(":", ""))
        mine = _option6(1, duid) + _option6(3, b"\0\0\0\7" + bytes(8)) + _option6(8, bytes(2))
        with self.namespace.entered(), IPRoute() as ipr:
            index = self.index(ipr)
            client = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        with client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
            client.bind(("::", 546))
            client.settimeout(1.0)
            offered = self._ask6(client, index, 1, mine)
            server = next(value for code, value in _options6(offered) if code == 2)
            given = self._ask6(client, index, 3, mine + _option6(2, server))
        for code, value in _options6(given):
            for inner, address in _options6(value[12:]) if code == 3 else ():
                if inner == 5:
                    return socket.inet_ntop(socket.AF_INET6, address[:16])
        return ""

    def _ask6(self, client: socket.socket, index: int, kind: int, options: bytes) -> bytes:
        """One DHCPv6 exchange, repeated until it is answered: the options of the answer."""
        transaction = os.urandom(3)
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                client.sendto(bytes([kind]) + transaction + options, ("ff02::1:2", 547, 0, index))
                answer = client.recv(4096)
            except OSError:
                # No answer yet, or the interface has no address of its own yet to ask from.
                time.sleep(0.05)
                continue
            if answer[1:4] == transaction:
                return answer[4:]
        raise AssertionError("no DHCPv6 answer within 30 s")

    def addresses6(self) -> list[str]:
        """The global IPv6 addresses that the guest has made itself."""
        with self.namespace.entered(), IPRoute() as ipr:
            listed = ipr.get_addr(family=socket.AF_INET6, index=self.index(ipr))
        return [
            str(one.get_attr("IFA_ADDRESS"))
            for one in listed
            if one["scope"] == 0 and not one.get_attr("IFA_FLAGS") & 0x40
        ]

    def configure(self, ip: str, prefix: int) -> None:
        self.ip = ip
        with self.namespace.entered(), IPRoute() as ipr:
            extra = {"flags": NODAD} if ":" in ip else {}
            ipr.addr("add", index=self.index(ipr), address=ip, prefixlen=prefix, **extra)

    def route(self, gateway: str) -> None:
        with self.namespace.entered(), IPRoute() as ipr:
            ipr.route("add", dst="::/0" if ":" in gateway else "0.0.0.0/0", gateway=gateway)

    def _ask(
        self, client: socket.socket, options: dict[int, bytes], hostname: str | bytes
    ) -> tuple[bytes, dict[int, bytes]]:
        """One DHCP exchange (RFC 2131), repeated until it is answered: yiaddr and options of the answer."""
        transaction = os.urandom(4)
        body = struct.pack("!4B4sHH4x4x4x4x", 1, 1, 6, 0, transaction, 0, 0x8000)
        body += bytes.fromhex(self.mac.replace(":", "")).ljust(16, b"\0") + bytes(192) + b"\x63\x82\x53\x63"
        name = hostname.encode() if isinstance(hostname, str) else hostname
        given = {**options, 55: bytes([1, 3, 6, 15])} | ({12: name} if name else {})
        for code, value in given.items():
            body += bytes([code, len(value)]) + value
        deadline = time.monotonic() + 10
        client.settimeout(1.0)
        while time.monotonic() < deadline:
            client.sendto(body + b"\xff", ("255.255.255.255", 67))
            try:
                answer = client.recv(4096)
            except TimeoutError:
                continue
            if answer[4:8] == transaction:
                self.boot = socket.inet_ntoa(answer[20:24]), answer[108:236].rstrip(b"\0").decode()
                return answer[16:20], _dhcp_options(answer[240:])
        raise AssertionError("no DHCP answer within 10 s")

    def close(self) -> None:
        """Take the port away; the namespace goes with its fd, the veth with the namespace. Twice is once."""
        if self.namespace.fd < 0:
            return
        with IPRoute() as ipr:
            try:
                ipr.link("del", index=ipr.link("get", ifname=self.port)[0]["index"])
            except NetlinkError as error:
                if error.code != 19:
                    raise
        self.namespace.close()
        self.namespace.fd = -1


def _option6(code: int, value: bytes) -> bytes:
    return struct.pack("!2H", code, len(value)) + value


def _options6(raw: bytes) -> Iterator[tuple[int, bytes]]:
    while len(raw) >= 4:
        code, size = struct.unpack_from("!2H", raw)
        yield code, raw[4 : 4 + size]
        raw = raw[4 + size :]


def _dhcp_options(raw: bytes) -> dict[int, bytes]:
    found, at = {}, 0
    while at < len(raw) and raw[at] != 255:
        if raw[at] == 0:
            at += 1
            continue
        found[raw[at]] = raw[at + 2 : at + 2 + raw[at + 1]]
        at += 2 + raw[at + 1]
    return found


def resolve(namespace: Namespace, server: str, name: str, *, timeout: float = 5.0) -> str:
    """The first A record that a DNS server gives for a name (RFC 1035), '' where it gives none."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0"
    question = b"\x12\x34\x01\x00" + struct.pack("!4H", 1, 0, 0, 0) + labels + struct.pack("!2H", 1, 1)
    with namespace.open(socket.SOCK_DGRAM) as client:
        client.settimeout(timeout)
        client.sendto(question, (server, 53))
        answer = client.recv(512)
    if not struct.unpack_from("!H", answer, 6)[0]:
        return ""
    return socket.inet_ntoa(answer[len(question) + 12 : len(question) + 16])


def sh(*argv: str, stdin: str = "") -> str:
    """A program's stdout; a failure is one of the test."""
    done = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, f"{argv}: {done.stderr}"
    return done.stdout


def until(condition: Callable[[], object], what: str, seconds: float = 60.0) -> None:
    """Wait for a condition to come true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.005)


def legacy_rules() -> list[str]:
    """The legacy tables as iptables-save and ip6tables-save print them, without dates and counters."""
    found = []
    for program, version in (("iptables-legacy-save", ""), ("ip6tables-legacy-save", "6")):
        lines = sh(program).splitlines()
        found += [version + re.sub(r" \[\d+:\d+\]$", "", line) for line in lines if not line.startswith("#")]
    return found


def nft_rules() -> str:
    return sh("nft", "list", "ruleset")


def links() -> list[str]:
    with IPRoute() as ipr:
        return sorted(
            f"{link.get_attr('IFLA_IFNAME')} {link.get_attr('IFLA_IFALIAS')} {link.get_attr('IFLA_ADDRESS')}"
            for link in ipr.get_links()
        )


def forwarding() -> str:
    """Whether the host forwards IPv4; with IPv6 where it forwards that: '1', '0', '1 and IPv6'."""
    found = []
    for key in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
        with open(f"/proc/sys/net/{key}", encoding="ascii") as stream:
            found.append(stream.read().strip())
    return found[0] + (" and IPv6" if found[1] == "1" else "")


def processes_naming(text: str) -> list[int]:
    """The pids of all processes whose command line holds a text, but for this one."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            try:
                with open(f"/proc/{entry}/cmdline", "rb") as stream:
                    if text.encode() in stream.read():
                        found.append(int(entry))
            except OSError:
                continue
    return found


def files_under(folder: str) -> Sequence[str]:
    return sorted(os.path.join(base, name) for base, _, names in os.walk(folder) for name in names)
