"""Parts of a running network changed: guests see it, and nothing else of it changes."""

from __future__ import annotations

import shlex
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from qkvm.cli.main import main
from qkvm.domain.manage import describe
from qkvm.errors import InvalidState, InvalidValue, ProgramFailed, QkvmError
from qkvm.net.dhcp import dnsmasq
from qkvm.net.network.network import Network
from qkvm.paths import Tree
from qkvm.scope import Scope
from tests.host import nslab

pytestmark = pytest.mark.usefixtures("netns")

LAN = """# Guests that may go out.
name = "lan"
bridge = "virbr7"
address = "192.168.77.1/24"
domain = "lan.example"

[dhcp]
start = "192.168.77.100"
end = "192.168.77.200"
"""

MakeGuest = Callable[[str], nslab.Guest]
Serve = Callable[[nslab.Namespace, int], nslab.Server]
BOTH = Scope.LIVE | Scope.CONFIG


@pytest.fixture
def lan(root: Tree) -> Network:
    return Network.define(root, LAN, "lan.toml")


def update(network: Network, command: str, section: str, text: str, scope: Scope = BOTH) -> None:
    network.update(command, section, text, scope=scope)


def serving(network: Network) -> dnsmasq.Server:
    found = dnsmasq.find(network.tree, network.name)
    assert found is not None
    return found


def test_a_host_and_names_come_and_go(lan: Network, make_guest: MakeGuest) -> None:
    lan.start()
    first = make_guest("virbr7")
    update(lan, "add", "ip-dhcp-host", f"<host mac='{first.mac}' ip='192.168.77.41'/>", Scope.LIVE)
    given = first.dhcp("first")
    before = serving(lan)
    second = make_guest("virbr7")
    host = f"<host mac='{second.mac}' name='second' ip='192.168.77.42'/>"
    update(lan, "add", "ip-dhcp-host", host)
    update(lan, "add", "dns-host", "<host ip='192.168.77.9'><hostname>printer.lan.example</hostname></host>")
    assert serving(lan) != before, "dnsmasq says something else"
    assert second.lease() == "192.168.77.42"
    assert nslab.resolve(first.namespace, "192.168.77.1", "printer.lan.example") == "192.168.77.9"
    assert nslab.resolve(first.namespace, "192.168.77.1", "second.lan.example") == "192.168.77.42"
    assert nslab.resolve(first.namespace, "192.168.77.1", "first.lan.example") == given, "leases survive"
    text = Path(lan.tree.network_definition("lan")).read_text(encoding="utf-8")
    assert "# Guests that may go out." in text and "192.168.77.42" in text

    update(lan, "modify", "ip-dhcp-host", host.replace(".42", ".43"), Scope.LIVE)
    assert second.lease() == "192.168.77.43"
    assert lan.definition.hosts[0].ip == "192.168.77.42", "the definition was not asked for"
    update(lan, "delete", "dns-host", "<host ip='192.168.77.9'/>")
    assert nslab.resolve(first.namespace, "192.168.77.1", "printer.lan.example") == ""
    before = serving(lan)
    update(lan, "add", "dns-txt", "<txt name='t.lan.example' value='v'/>", Scope.CONFIG)
    assert serving(lan) == before, "what runs was not asked for"
    lan.destroy()


def test_no_question_is_lost_for_long(lan: Network, make_guest: MakeGuest) -> None:
    """While dnsmasq is started anew a client asks again after a moment, as resolvers do, and is answered."""
    lan.start()
    guest = make_guest("virbr7")
    guest.configure("192.168.77.50", 24)
    update(lan, "add", "dns-host", "<host ip='192.168.77.9'><hostname>there.lan.example</hostname></host>")
    longest, done = 0.0, threading.Event()

    def ask() -> None:
        nonlocal longest
        last = time.monotonic()
        while not done.is_set():
            try:
                answer = nslab.resolve(guest.namespace, "192.168.77.1", "there.lan.example", timeout=0.05)
            except OSError:
                continue
            assert answer == "192.168.77.9"
            longest, last = max(longest, time.monotonic() - last), time.monotonic()

    worker = threading.Thread(target=ask)
    worker.start()
    try:
        for number in range(5):
            update(lan, "add", "dns-txt", f"<txt name='t{number}.lan.example' value='v'/>")
    finally:
        done.set()
        worker.join()
    assert 0 < longest < 3.0
    lan.destroy()


def test_a_failing_half_leaves_both_as_before(lan: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    lan.start()
    text, server, actual = Path(lan.tree.network_definition("lan")).read_bytes(), serving(lan), lan.actual
    host = "<host mac='52:54:00:00:00:01' ip='192.168.77.42'/>"

    def unchanged() -> None:
        assert Path(lan.tree.network_definition("lan")).read_bytes() == text
        assert lan.actual == actual and dnsmasq.find(lan.tree, "lan") is not None

    # A template that dnsmasq does not take: the one that serves is not even touched.
    own = Path(lan.tree.templates)
    own.mkdir(parents=True)
    (own / "dnsmasq.conf.j2").write_text("no-such-word\n", encoding="utf-8")
    with pytest.raises(ProgramFailed, match="dnsmasq"):
        update(lan, "add", "ip-dhcp-host", host)
    (own / "dnsmasq.conf.j2").unlink()
    unchanged()
    assert serving(lan) == server

    # One that takes it and then does not come up.
    real = dnsmasq.start
    failed: list[bool] = []

    def start(*arguments: object) -> dnsmasq.Server:
        if not failed:
            failed.append(True)
            raise ProgramFailed("dnsmasq: no", argv=[], code=2, stderr="")
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(dnsmasq, "start", start)
    with pytest.raises(ProgramFailed, match="no"):
        update(lan, "add", "ip-dhcp-host", host)
    unchanged()
    assert not dnsmasq.differs(lan.tree, lan.actual)

    # The running half is changed already, so that only the other one could be.
    update(lan, "add", "ip-dhcp-host", host, Scope.LIVE)
    actual = lan.actual
    with pytest.raises(InvalidState, match="there is an existing dhcp host entry"):
        update(lan, "add", "ip-dhcp-host", host)
    unchanged()
    lan.destroy()


def test_a_forward_follows_the_address_that_is_kept_for_its_guest(
    lan: Network,
    world: nslab.Namespace,
    make_guest: MakeGuest,
    serve: Serve,
) -> None:
    from qkvm.host import record
    from qkvm.net.network import forward
    from qkvm.spec.forward import Forward

    lan.start()
    guest = make_guest("virbr7")
    guest.configure("192.168.77.60", 24)
    guest.configure("192.168.77.61", 24)
    guest.route("192.168.77.1")
    serve(guest.namespace, 80)
    folder = Path(lan.tree.domain_run("vm"))
    folder.mkdir(parents=True)
    nics = [{"mac": guest.mac, "type": "network", "source": "lan"}]
    record.write(str(folder / "record.json"), {"name": "vm", "nics": nics})
    update(lan, "add", "ip-dhcp-host", f"<host mac='{guest.mac}' ip='192.168.77.60'/>", Scope.LIVE)
    forward.add(lan, Forward(ports="8080", guest="vm", to=80), scope=Scope.LIVE)

    def reached() -> str:
        with world.connect((nslab.OUTSIDE, 8080)) as connection:
            assert connection.recv(5) == b"hello"
        return str(forward.listing(lan)[0].addresses[0])

    assert reached() == "192.168.77.60"
    update(lan, "modify", "ip-dhcp-host", f"<host mac='{guest.mac}' ip='192.168.77.61'/>", Scope.LIVE)
    assert reached() == "192.168.77.61"
    lan.destroy()
    (folder / "record.json").unlink()
    folder.rmdir()


def test_guests_go_out_by_the_link_that_is_named(
    lan: Network,
    world: nslab.Namespace,
    make_guest: MakeGuest,
    serve: Serve,
) -> None:
    lan.start()
    guest = make_guest("virbr7")
    guest.configure("192.168.77.50", 24)
    guest.route("192.168.77.1")
    serve(world, 8080)
    guest.namespace.connect((nslab.WORLD, 8080)).close()
    update(lan, "add", "forward-interface", "<interface dev='other0'/>", Scope.LIVE)
    with pytest.raises(ConnectionRefusedError):
        guest.namespace.connect((nslab.WORLD, 8080))
    update(lan, "delete", "forward-interface", "<interface dev='other0'/>", Scope.LIVE)
    update(lan, "add", "forward-interface", "<interface dev='uplink'/>", Scope.LIVE)
    guest.namespace.connect((nslab.WORLD, 8080)).close()
    lan.destroy()


def test_where_a_change_has_no_place(root: Tree, lan: Network) -> None:
    with pytest.raises(InvalidState, match="network is not running"):
        update(lan, "add", "dns-txt", "<txt name='t' value='v'/>", Scope.LIVE)
    network, _ = Network.create(root, LAN.replace('"lan"', '"gone"').replace("77", "79"), "x")
    with pytest.raises(InvalidState, match="cannot change persistent config of a transient network"):
        update(network, "add", "dns-txt", "<txt name='t' value='v'/>")
    with pytest.raises(InvalidValue, match="no host of"):
        update(network, "add", "ip-dhcp-host", "<host mac='52:54:00:00:00:01' ip='192.168.77.9'/>", Scope.LIVE)
    network.destroy()
    with pytest.raises(QkvmError):
        network.definition  # noqa: B018


def test_what_people_are_told_of_it(lan: Network, capsys: pytest.CaptureFixture[str]) -> None:
    def verb(line: str) -> str:
        assert main(["--root", lan.tree.root, *shlex.split(line)]) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    lan.start()
    before = serving(lan)
    assert verb("net-desc lan of the lab") == "Network description updated successfully\n"
    assert verb("net-desc lan --title Lab --live --config") == "Network title updated successfully\n"
    assert verb("net-metadata lan urn:x --key k --set '<owner>me</owner>'") == "Metadata modified\n\n"
    assert serving(lan) == before, "nothing that runs has changed"
    assert verb("net-desc lan --live") == verb("net-desc lan") == "of the lab\n"
    assert verb("net-desc lan --config") == "No description for network: lan\n"
    assert verb("net-desc lan --live --config --title") == "Lab\n"
    assert verb("net-metadata lan urn:x") == "<owner>me</owner>\n\n"
    assert "<title>Lab</title>\n  <description>of the lab</description>\n" in verb("net-dumpxml lan")
    assert "# Guests that may go out." in Path(lan.tree.network_definition("lan")).read_text(encoding="utf-8")
    lan.destroy()
    assert verb("net-list --all --title").splitlines()[-2].split() == ["lan", "inactive", "no", "yes", "Lab"]
    assert main(["--root", lan.tree.root, "net-desc", "lan", "--live", "x"]) == 1
    assert "network is not running" in capsys.readouterr().err
    with pytest.raises(InvalidState, match="network is not running|is not active"):
        describe.told(lan, scope=Scope.LIVE)
    transient, _ = Network.create(lan.tree, LAN.replace("lan", "brief").replace("virbr7", "virbr8"), "x")
    with pytest.raises(InvalidState, match="transient networks do not have any persistent config"):
        describe.told(transient, scope=Scope.CONFIG)
    transient.destroy()


def test_the_verb(lan: Network, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    def net_update(*words: str) -> tuple[str, str, int]:
        code = main(["--root", lan.tree.root, "net-update", *words])
        return *capsys.readouterr(), code

    host = "<host mac='52:54:00:00:00:01' ip='192.168.77.42'/>"
    assert net_update("lan", "add", "ip-dhcp-host", host) == ("Updated network lan persistent config\n", "", 0)
    lan.start()
    file = tmp_path / "host.xml"
    file.write_text(host.replace("01", "02").replace("42", "43"), encoding="utf-8")
    said = "Updated network lan persistent config and live state\n"
    assert net_update("lan", "add-first", "ip-dhcp-host", str(file), "--live", "--config") == (said, "", 0)
    assert [one.ip for one in lan.definition.hosts] == ["192.168.77.43", "192.168.77.42"]
    said = "Updated network lan live state\n"
    assert net_update("lan", "delete", "ip-dhcp-host", host, "--parent-index", "0") == (said, "", 0)
    for words, error in (
        (("lan", "frob", "ip-dhcp-host", host), "error: unrecognized command name 'frob'"),
        (("lan", "add", "frob", host), "error: unrecognized section name 'frob'"),
        (("lan", "add", "bridge", "<bridge/>"), "can't update 'bridge' section of network 'lan'"),
        (("nope", "frob", "x", "y"), "error: failed to get network 'nope'"),
        (
            ("lan", "add", "dns-txt", "/nonexistent"),
            "Failed to open file '/nonexistent': No such file or directory",
        ),
        (("lan", "add", "dns-txt", "<t/>", "--live", "--current"), "Options --current and --live are mutually"),
        (
            ("lan", "add", "dns-txt", "<txt name='t'/>"),
            "error: Failed to update network lan: network_update_xml:1:",
        ),
        (
            ("lan", "add", "ip-dhcp-host", host, "--parent-index", "x"),
            "Numeric value 'x' for <parent-index> option",
        ),
    ):
        out, err, code = net_update(*words)
        assert (out.strip(), code) == ("", 1) and error in err
    lan.destroy()
