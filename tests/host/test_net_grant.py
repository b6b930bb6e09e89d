"""Taps for users who are granted a network: what they can do with them, and what they can't, on a real kernel.

Users are threads that have become another uid, with no capability left; the helper is started for each connection
as an init does it.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import json
import os
import shlex
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from qkvm.domain.manage import gc
from qkvm.errors import AlreadyExists, HostError, InvalidValue, NotFound, QkvmError
from qkvm.files import Undo, make_private_dir
from qkvm.net.grant import client as tapclient
from qkvm.net.grant import grants as grant
from qkvm.net.grant import handout, right
from qkvm.net.grant.handout import Handed
from qkvm.net.health.check import check
from qkvm.net.health.repair import repair
from qkvm.net.network.network import Network
from qkvm.net.run import locked_networks
from qkvm.paths import Tree
from qkvm.spec.grant import Grant
from tests.host import nslab
from tests.host.tapinit import HELPER, Init

T = TypeVar("T")

NAME, BRIDGE, GATEWAY = "lab", "virbr7", "10.77.0.1"
DEFINITION = f"""
name = "{NAME}"
uuid = "702ec947-419d-405a-ba80-ba4e81a9f7b2"
mode = "isolated"
bridge = "{BRIDGE}"
address = "{GATEWAY}/24"
hosts = [{{ mac = "52:54:00:00:05:05", ip = "10.77.0.5" }}]
[dhcp]
start = "10.77.0.100"
end = "10.77.0.199"
"""
ALICE, MALLORY = 60123, 60124
MAC, OTHER = "52:54:00:0a:0a:01", "52:54:00:0a:0a:02"
_SETRESUID, _SETRESGID, _SETGROUPS = 117, 119, 116
"""Of x86-64; libc's own would change all threads."""


def as_user(uid: int, act: Callable[[], T]) -> T:
    """What ``act`` gives when a user without root calls it."""
    found: list[T] = []
    failed: list[BaseException] = []

    def run() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        assert not libc.syscall(_SETGROUPS, 0, None)
        assert not libc.syscall(_SETRESGID, uid, uid, uid)
        assert not libc.syscall(_SETRESUID, uid, uid, uid)
        try:
            found.append(act())
        except BaseException as error:
            failed.append(error)

    worker = threading.Thread(target=run)
    worker.start()
    worker.join()
    if failed:
        raise failed[0]
    return found[0]


@pytest.fixture
def network(root: Tree, netns: nslab.Namespace) -> Iterator[Network]:
    made = Network.define(root, DEFINITION, "lab.toml")
    made.start(firewall="nftables")
    yield made
    with contextlib.suppress(QkvmError):
        made.destroy()


@pytest.fixture
def init(network: Network) -> Iterator[Init]:
    made = Init(network.tree)
    yield made
    made.close()


def ask(init: Init, uid: int, mac: str = MAC, network: str = NAME) -> Handed:
    return as_user(uid, lambda: tapclient.ask(init.system, network, mac))


def allow(network: Network, uid: int = ALICE, **options: Any) -> None:
    grant.allow(network.tree, network.name, Grant(who=str(uid), **options))


@contextlib.contextmanager
def given(init: Init, uid: int = ALICE, mac: str = MAC) -> Iterator[Handed]:
    """A tap for a while, and afterwards nothing of it."""
    handed = ask(init, uid, mac)
    try:
        yield handed
    finally:
        os.close(handed.fd)
        nslab.until(lambda: handed.port not in " ".join(nslab.links()), "the tap's port goes")


def raw(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def arp(mac: str, ip: str, *, sender: str = "", target: str = GATEWAY) -> bytes:
    """A question who has an address, behind the header that virtio puts before a frame."""
    head = bytes(10) + b"\xff" * 6 + raw(sender or mac) + b"\x08\x06"
    return (
        head
        + struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
        + raw(mac)
        + socket.inet_aton(ip)
        + bytes(6)
        + socket.inet_aton(target)
    )


def frames(fd: int, seconds: float) -> list[bytes]:
    """What comes out at a tap within some time."""
    os.set_blocking(fd, False)
    found, deadline = [], time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            found.append(os.read(fd, 4096)[10:])
        except BlockingIOError:
            time.sleep(0.01)
    return found


def is_answered(handed: Handed, frame: bytes, *, seconds: float = 3.0) -> bool:
    """Whether the host answers an ARP question to the guest's MAC, which is asked again as any guest would.

    A bridge drops what comes before it has seen that its new port is up.
    """
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        os.write(handed.fd, frame)
        if any(one[:6] == raw(MAC) and one[12:14] == b"\x08\x06" for one in frames(handed.fd, 0.05)):
            return True
    return False


# What a grant gives.


def test_a_user_who_is_granted_a_network_reaches_the_host(network: Network, init: Init) -> None:
    allow(network)
    with given(init) as handed:
        assert handed.bridge == BRIDGE
        assert handed.ip.startswith("10.77.0.1")
        assert is_answered(handed, arp(MAC, handed.ip))
        assert f"qkvm:grant={NAME}:{ALICE}" in " ".join(nslab.links())
        assert f"{MAC} {handed.ip}" in Path(network.tree.reservations(NAME)).read_text()
        first = handed.ip
    with given(init) as handed:
        assert handed.ip == first, "the address stays the MAC's"


@pytest.mark.parametrize("forged", ["mac", "sender", "ip", "gateway"])
def test_what_a_user_forges_reaches_nobody(network: Network, init: Init, forged: str) -> None:
    allow(network)
    with given(init) as handed:
        wrong = {
            "mac": arp(OTHER, handed.ip, sender=MAC),
            "sender": arp(MAC, handed.ip, sender=OTHER),
            "ip": arp(MAC, "10.77.0.9"),
            "gateway": arp(MAC, GATEWAY),
        }[forged]
        assert is_answered(handed, arp(MAC, handed.ip)), "what is right passes"
        os.write(handed.fd, wrong)
        assert is_answered(handed, arp(MAC, handed.ip)), "and so it does behind what is wrong"
        met = nslab.sh("ip", "neigh", "show", "dev", BRIDGE)
        assert OTHER not in met
        assert OTHER not in nslab.sh("bridge", "fdb", "show", "br", BRIDGE)
        assert "10.77.0.9" not in met


def test_members_of_a_group_are_granted_what_it_is(network: Network, init: Init) -> None:
    import grp
    import pwd

    nobody = pwd.getpwnam("nobody")
    group = grp.getgrgid(nobody.pw_gid).gr_name
    grant.allow(network.tree, NAME, Grant(who=f"@{group}"))
    with given(init, nobody.pw_uid) as handed:
        assert handed.bridge == BRIDGE
    with pytest.raises(QkvmError, match="not granted"):
        ask(init, ALICE)


def test_guests_of_users_are_isolated_unless_root_says_otherwise(network: Network, init: Init) -> None:
    allow(network)
    with given(init) as handed:
        assert "isolated on" in nslab.sh("bridge", "-d", "link", "show", "dev", handed.port)
    allow(network, isolated=False)
    with given(init) as handed:
        assert "isolated off" in nslab.sh("bridge", "-d", "link", "show", "dev", handed.port)


# Who is granted nothing.


def test_a_user_without_a_grant_learns_nothing_but_the_remedy(network: Network, init: Init) -> None:
    for name in (NAME, "nowhere"):
        with pytest.raises(QkvmError, match=f"network '{name}' is not granted to you") as caught:
            ask(init, MALLORY, network=name)
        assert caught.value.hint == f"root can: qkvm net-grant {name} {MALLORY}"
    assert "handed" not in (network.record or {})


def test_without_a_helper_the_remedy_is_the_same(tmp_path: Path) -> None:
    with pytest.raises(QkvmError, match="not granted") as caught:
        tapclient.ask(Tree(str(tmp_path)), "lab", MAC)
    assert caught.value.hint == "root can: qkvm net-grant lab root"


def test_a_revoked_grant_cuts_off_at_once(network: Network, init: Init) -> None:
    allow(network)
    handed = ask(init, ALICE)
    grant.revoke(network.tree, NAME, str(ALICE))
    handout.enforce(network.tree, network.name)
    assert handed.port not in " ".join(nslab.links())
    assert not is_answered(handed, arp(MAC, handed.ip), seconds=0.3)
    with pytest.raises(QkvmError, match="not granted"):
        ask(init, ALICE)
    assert not handout.macs(network.tree, NAME)
    os.close(handed.fd)


def test_root_needs_a_grant_too_where_somebody_connects_for_it(network: Network, init: Init) -> None:
    """A service of root's that can be told to connect to a path must not be a way to taps."""
    with pytest.raises(QkvmError, match="not granted"):
        tapclient.ask(init.system, NAME, MAC)


def test_a_network_that_is_down_gives_no_taps(network: Network, init: Init) -> None:
    allow(network)
    handed = ask(init, ALICE)
    network.destroy()
    assert handed.port not in " ".join(nslab.links())
    with pytest.raises(QkvmError, match="not active"):
        ask(init, ALICE)
    os.close(handed.fd)


# Attacks.


def test_no_user_chooses_another_uid(network: Network, init: Init) -> None:
    allow(network)

    def forge() -> bytes:
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(init.system.tap_socket)
            peer.sendall(json.dumps({"network": NAME, "mac": MAC, "uid": ALICE, "root": "/tmp"}).encode() + b"\n")
            return peer.recv(4096)

    assert b"not granted" in as_user(MALLORY, forge)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\n",
        b"[" * 1023 + b"\n",
        b"x" * 5000,
        b"null\n",
        b"\xff\n",
        b'{"network": "lab"}\n',
        b'{"network": 1, "mac": []}\n',
        b'{"network": "../lab", "mac": "52:54:00:0a:0a:01"}\n',
        b'{"network": "lab\\u0000", "mac": "x"}\n',
    ],
)
def test_nonsense_is_refused(network: Network, init: Init, sent: bytes) -> None:
    allow(network)

    def speak() -> bytes:
        with socket.socket(socket.AF_UNIX) as peer:
            peer.connect(init.system.tap_socket)
            peer.sendall(sent)
            peer.shutdown(socket.SHUT_WR)
            return peer.recv(4096)

    assert set(json.loads(as_user(ALICE, speak))) == {"error", "hint", "kind"}
    assert "handed" not in (network.record or {})


def test_a_silent_user_holds_no_lock_and_no_helper(network: Network, init: Init) -> None:
    allow(network)
    with socket.socket(socket.AF_UNIX) as peer:
        peer.connect(init.system.tap_socket)
        with given(init):
            pass
        peer.settimeout(30)
        assert b"error" in peer.recv(4096), "the helper has given up"


@pytest.mark.parametrize(
    "mac",
    [
        "00:16:3e:00:00:01",
        "fe:54:00:0a:0a:01",
        "01:00:5e:00:00:01",
        "ff:ff:ff:ff:ff:ff",
        "52:54:00:0a:0a",
        "",
        "x" * 600,
    ],
)
def test_mac_addresses_are_of_those_that_guests_carry(network: Network, init: Init, mac: str) -> None:
    allow(network)
    with pytest.raises(QkvmError, match="(?i)mac address"):
        ask(init, ALICE, mac)


def test_no_mac_address_of_anybody_else_is_given(
    network: Network, init: Init, make_guest: Callable[[str], nslab.Guest]
) -> None:
    tree = network.tree
    allow(network)
    allow(network, MALLORY)
    make_private_dir(tree.domain_definitions)
    Path(tree.domain_definition("vm")).write_text('name = "vm"\n[[nics]]\nmac = "52-54-00-0C-0C-01"\n')
    make_private_dir(tree.domain_runs)
    make_private_dir(tree.domain_run("gone"))
    run = Path(tree.domain_run("gone"), "record.json")
    run.write_text('{"nics": [{"mac": "52:54:00:0c:0c:02"}]}')
    guest = make_guest(BRIDGE)
    guest.dhcp()
    record = network.record
    assert record is not None
    with given(init, ALICE, MAC):
        taken = (
            MAC,
            "52:54:00:0c:0c:01",
            "52:54:00:0c:0c:02",
            "52:54:00:00:05:05",
            record["mac"],
            # Another guest's, which the bridge has met and dnsmasq has a lease for.
            guest.mac,
        )
        for mac in taken:
            with pytest.raises(QkvmError, match=f"{mac} is in use"):
                ask(init, MALLORY, mac)
    with pytest.raises(QkvmError, match=f"{MAC} is in use"):
        # It stays the other user's when the tap is gone: its address is kept for it.
        ask(init, MALLORY, MAC)
    run.unlink()


def test_a_flood_of_taps_ends_at_the_limit(network: Network, init: Init) -> None:
    allow(network, taps=3)
    held = [ask(init, ALICE, f"52:54:00:0a:0b:{number:02x}") for number in range(3)]
    with pytest.raises(QkvmError, match="3 NICs on network 'lab', as many as you may"):
        ask(init, ALICE, "52:54:00:0a:0b:0f")
    for one in held:
        os.close(one.fd)
    # Nor does one after the other take all addresses, or have dnsmasq begin anew each time.
    before = (network.record or {})["dnsmasq"]
    with pytest.raises(QkvmError, match="3 MAC addresses on network 'lab' within an hour"):
        ask(init, ALICE, "52:54:00:0a:0b:0f")
    assert (network.record or {})["dnsmasq"] == before
    with given(init, ALICE, "52:54:00:0a:0b:01"):
        assert len(Path(network.tree.reservations(NAME)).read_text().splitlines()) == 3


def test_a_mac_address_that_rested_makes_room(network: Network, init: Init) -> None:
    allow(network, taps=1)
    with given(init):
        pass
    path = Path(network.tree.owners(NAME))
    nslab.until(lambda: MAC in path.read_text(), "the MAC is the user's")
    path.write_text(f"{MAC} {ALICE} {int(time.time()) - 4000}\n")
    with pytest.raises(QkvmError, match="within an hour"):
        # The tap that has just gone is noted as used until now.
        ask(init, ALICE, OTHER)
    path.write_text(f"{MAC} {ALICE} {int(time.time()) - 4000}\n")
    with given(init, ALICE, OTHER):
        assert handout.macs(network.tree, NAME) == {OTHER}
        assert MAC not in Path(network.tree.reservations(NAME)).read_text()


_SIOCSIFHWADDR, _TUNSETPERSIST, _TUNSETOWNER, _SIOCGSKNS = 0x8924, 0x400454CB, 0x400454CC, 0x894C
"""linux/sockios.h, linux/if_tun.h."""


def test_the_fd_is_no_way_to_anothers_traffic(
    network: Network, init: Init, make_guest: Callable[[str], nslab.Guest]
) -> None:
    """A tap's MAC is its holder's to change: on a bridge the host's frames to it would come out at the tap."""
    allow(network)
    victim = make_guest(BRIDGE)
    victim.dhcp()
    with given(init) as handed:
        wanted = struct.pack("16sH6s16x", b"tap0", 1, raw(victim.mac))
        as_user(ALICE, lambda: fcntl.ioctl(handed.fd, _SIOCSIFHWADDR, wanted))
        frames(handed.fd, 0.2)
        with victim.namespace.open(socket.SOCK_DGRAM) as server, socket.socket(type=socket.SOCK_DGRAM) as client:
            server.bind((victim.ip, 7))
            client.sendto(b"secret", (victim.ip, 7))
            assert server.recv(100) == b"secret"
        seen = frames(handed.fd, 0.5)
        assert not [one for one in seen if b"secret" in one or one[:6] == raw(victim.mac)]
        assert is_answered(handed, arp(MAC, handed.ip)), "the guest's own way is as before"


def test_a_tap_goes_with_its_fd_whatever_its_holder_says(network: Network, init: Init) -> None:
    allow(network)
    with given(init) as handed:
        as_user(ALICE, lambda: fcntl.ioctl(handed.fd, _TUNSETPERSIST, 1))
        as_user(ALICE, lambda: fcntl.ioctl(handed.fd, _TUNSETOWNER, ALICE))
        with pytest.raises(PermissionError):
            as_user(ALICE, lambda: fcntl.ioctl(handed.fd, _SIOCGSKNS, 0))


def test_frames_that_the_port_does_not_take_do_not_reach_the_host(network: Network, init: Init) -> None:
    """What a tap in the host's own namespace gets, the host's stack would get, past the bridge's rules."""
    allow(network)
    with given(init) as handed, socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x0300) as every:
        every.settimeout(0.5)
        os.write(handed.fd, arp(MAC, handed.ip, sender=OTHER))
        with contextlib.suppress(TimeoutError):
            while True:
                assert raw(OTHER) != every.recv(4096)[6:12]


def test_what_a_killed_user_leaves_is_taken_away_by_the_next_pass(network: Network, init: Init) -> None:
    allow(network)
    handed = ask(init, ALICE)
    tables = [line for line in nslab.nft_rules().splitlines() if "qkvm_nic_" in line]
    assert len(tables) == 1
    os.close(handed.fd)
    nslab.until(lambda: handed.port not in " ".join(nslab.links()), "the tap's port goes")
    kept = Path(network.tree.reservations(NAME)).read_text()
    gc.collect(network.tree)
    assert "qkvm_nic_" not in nslab.nft_rules()
    assert not (network.record or {})["handed"]
    assert Path(network.tree.reservations(NAME)).read_text() == kept, "the address stays the MAC's"


def test_a_filter_that_was_flushed_is_put_back(network: Network, init: Init) -> None:
    allow(network)
    with given(init) as handed:
        assert not [one for one in check(network.tree, NAME) if one.kind == "filter-missing"]
        (table,) = (line.split()[2] for line in nslab.nft_rules().splitlines() if "qkvm_nic_" in line)
        before = nslab.sh("nft", "list", "table", "bridge", table)
        nslab.sh("nft", "delete", "table", "bridge", table)
        nslab.sh("ip", "link", "set", handed.port, "nomaster")
        found = {one.kind for one in check(network.tree, NAME)}
        assert {"filter-missing", "tap-astray"} <= found
        with locked_networks(network.tree):
            repair(network.tree, NAME)
        assert nslab.sh("nft", "list", "table", "bridge", table) == before
        assert "isolated on" in nslab.sh("bridge", "-d", "link", "show", "dev", handed.port)
        assert is_answered(handed, arp(MAC, handed.ip))


def test_a_helper_that_is_killed_leaves_nothing_that_the_next_pass_does_not_take(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    allow(network)

    class Killed(BaseException):
        pass

    def die(*_: object) -> None:
        raise Killed

    monkeypatch.setattr(handout, "plug", die)
    monkeypatch.setattr(Undo, "__exit__", lambda *_: None)
    with pytest.raises(Killed):
        handout.give(network.tree, network.name, ALICE, MAC)
    monkeypatch.undo()
    assert "qkvm_nic_" in nslab.nft_rules()
    fds = [fd for fd in map(int, os.listdir("/proc/self/fd")) if _is_tap(fd)]
    assert len(fds) == 1
    os.close(fds[0])
    handout.enforce(network.tree, network.name)
    assert "qkvm_nic_" not in nslab.nft_rules()


def _is_tap(fd: int) -> bool:
    try:
        return os.readlink(f"/proc/self/fd/{fd}") == "/dev/net/tun"
    except OSError:
        return False


def test_nothing_of_a_users_environment_changes_what_the_helper_does(network: Network, tmp_path: Path) -> None:
    """sudo may be told to keep variables; the helper keeps none, and imports from nowhere else."""
    evil = tmp_path / "evil"
    trap = "import pathlib; pathlib.Path('TRAP').touch()".replace("TRAP", str(tmp_path / "sprung"))
    for name in ("qkvm/__init__.py", "sitecustomize.py", "usercustomize.py", "json.py", "nft", "msgspec.py"):
        path = evil / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"#!{sys.executable}\n{trap}\n")
        path.chmod(0o755)
    surroundings = {
        "PYTHONPATH": str(evil),
        "PYTHONHOME": str(evil),
        "PYTHONSTARTUP": str(evil / "sitecustomize.py"),
        "PYTHONUSERBASE": str(evil),
        "PATH": str(evil),
        "QKVM_ROOT": str(evil),
        "HOME": str(evil),
        "XTABLES_LOCKFILE": str(tmp_path / "sprung"),
        "PYTHONINSPECT": "1",
        "LD_LIBRARY_PATH": str(evil),
    }
    allow(network)
    init = Init(network.tree, cwd=evil, env=surroundings)
    try:
        with given(init) as handed:
            assert handed.bridge == BRIDGE
        assert not (tmp_path / "sprung").exists()
    finally:
        init.close()


def test_links_in_the_tree_lead_nowhere(network: Network, init: Init, tmp_path: Path) -> None:
    allow(network)
    bait = tmp_path / "bait"
    bait.write_text("grants = [{ who = '60124' }]\n")
    grants = Path(network.tree.grants(NAME))
    grants.unlink()
    grants.symlink_to(bait)
    with pytest.raises(QkvmError, match="cannot read"):
        ask(init, MALLORY)
    grants.unlink()


# By sudo.


def by_sudo(tree: Tree, stdin: Any, sudo_uid: int, *, uid: int = ALICE) -> subprocess.CompletedProcess[bytes]:
    """The helper as sudo would start it."""
    return subprocess.run(
        [*HELPER, "sudo", tree.root], stdin=stdin, capture_output=True, env={"SUDO_UID": str(sudo_uid)}, timeout=30
    )


def test_by_sudo_it_is_sudo_that_names_the_user(network: Network) -> None:
    allow(network)
    own, passed = as_user(ALICE, socket.socketpair)
    with own, passed:
        own.sendall(json.dumps({"network": NAME, "mac": MAC}).encode() + b"\n")
        assert by_sudo(network.tree, passed, ALICE).returncode == 0
        answer, fds, _, _ = socket.recv_fds(own, 4096, 1)
    assert json.loads(answer)["bridge"] == BRIDGE
    os.close(fds[0])
    nslab.until(lambda: "qkvm:grant" not in " ".join(nslab.links()), "the tap's port goes")


def test_by_sudo_nothing_but_a_pair_of_the_users_own_is_served(
    network: Network, init: Init, tmp_path: Path
) -> None:
    """The peer of a connection to a service is that service's user: root, for one."""
    allow(network)
    said = b"only qkvm itself"
    theirs, passed = as_user(MALLORY, socket.socketpair)
    with theirs, passed:
        assert said in by_sudo(network.tree, passed, ALICE).stderr
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as client:
        listener.bind(str(tmp_path / "service"))
        listener.listen()
        client.connect(str(tmp_path / "service"))
        assert said in by_sudo(network.tree, client, 0).stderr
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as connected,
    ):
        assert said in by_sudo(network.tree, connected, ALICE).stderr
    assert said in by_sudo(network.tree, subprocess.DEVNULL, ALICE).stderr
    assert "handed" not in (network.record or {})


# What root sets up.


def test_grants_are_of_users_who_exist(network: Network) -> None:
    for who, error in (("nobody-here", NotFound), ("@nobody-here", NotFound), ("root", AlreadyExists)):
        with pytest.raises(error):
            grant.allow(network.tree, NAME, Grant(who=who))
    for who in ("a b", "ALL", "%x", "a,b", "-x", "", "x" * 40, "a=b", "a\nb"):
        with pytest.raises((InvalidValue, NotFound)):
            grant.allow(network.tree, NAME, Grant(who=who))
    with pytest.raises(InvalidValue):
        allow(network, taps=0)
    with pytest.raises(NotFound):
        grant.revoke(network.tree, NAME, "nobody")


def test_a_network_that_is_undefined_is_granted_to_nobody(network: Network) -> None:
    allow(network)
    network.destroy()
    network.undefine()
    assert not grant.networks(network.tree)


@pytest.mark.parametrize("kind", ["systemd", "sudo"])
def test_the_helper_is_set_up_with_the_first_grant_and_goes_with_the_last(
    network: Network, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tree = network.tree
    asked: list[tuple[str, ...]] = []

    def systemctl(*words: str) -> bool:
        asked.append(words)
        return True

    monkeypatch.setattr(right, "_systemctl", systemctl)
    allow(network)
    right.refresh(tree, kind=kind)
    if kind == "systemd":
        folder = Path(tree.root, "etc/systemd/system")
        made = [folder / "qkvm-tap.socket", folder / "qkvm-tap@.service"]
        assert f"ListenStream={tree.tap_socket}\n" in made[0].read_text()
        assert f"ExecStart={shlex.join(right.command())} accepted {tree.root}\n" in made[1].read_text()
        assert asked[-1] == ("enable", "--now", "qkvm-tap.socket")
    else:
        made = [Path(tree.tap_program), Path(tree.root, "etc/sudoers.d/qkvm-tap")]
        assert f'#{ALICE} ALL=(root) NOPASSWD: {tree.tap_program} ""\n' in made[1].read_text()
        assert [path.stat().st_mode & 0o777 for path in made] == [0o755, 0o440]
    grant.revoke(tree, NAME, str(ALICE))
    right.refresh(tree, kind=kind)
    assert not any(path.exists() for path in made)


def test_root_does_not_run_a_qkvm_that_a_user_can_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "module"
    module.mkdir()
    monkeypatch.setattr(sys, "path", [*sys.path, str(module)])
    right.check_code()
    os.chmod(module, 0o777)
    with pytest.raises(HostError, match="not root's alone to change"):
        right.check_code()
    os.chmod(module, 0o755)
    os.chown(module, ALICE, ALICE)
    with pytest.raises(HostError, match="not root's alone to change"):
        right.check_code()
