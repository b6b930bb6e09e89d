"""Events of networks, from the library and from the verb."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from qkvm.cli.main import main
from qkvm.errors import AlreadyExists
from qkvm.net.link import table
from qkvm.net.network import events
from qkvm.net.network.network import Network
from qkvm.paths import Tree
from qkvm.scope import Scope
from tests.host.nslab import sh

pytestmark = pytest.mark.usefixtures("netns")

LAN = 'name = "lan"\nbridge = "virbr7"\naddress = "192.168.77.1/24"\n'


def news(found: Iterator[events.Event], count: int) -> list[tuple[str, str]]:
    return [(event.network, event.detail) for event in islice(found, count)]


def test_the_life_of_a_network(root: Tree) -> None:
    found = events.watch(root, network=None, timeout=60)
    other = events.watch(root, network="other", timeout=60)
    lan = Network.define(root, LAN, "x")
    assert news(found, 1) == [("lan", "Defined")]
    lan.start()
    assert news(found, 1) == [("lan", "Started")]
    # None of these is an event of libvirt's; another definition is.
    lan.set_autostart(True)
    lan.update("add", "dns-txt", "<txt name='t' value='v'/>", scope=Scope.LIVE)
    Network.define(root, LAN + 'domain = "lan.example"\n', "x")
    assert news(found, 1) == [("lan", "Defined")]
    # Two runs between two looks.
    lan.destroy()
    lan.start()
    assert news(found, 2) == [("lan", "Stopped"), ("lan", "Started")]
    lan.undefine()
    assert news(found, 1) == [("lan", "Undefined")]
    lan.destroy()
    assert news(found, 1) == [("lan", "Stopped")]
    # A start that fails has never been one.
    lan = Network.define(root, LAN.replace("lan", "other"), "x")
    sh("ip", "link", "add", "virbr7", "type", "bridge")
    with pytest.raises(AlreadyExists):
        lan.start()
    sh("ip", "link", "del", "virbr7")
    transient, _ = Network.create(root, LAN, "x")
    assert news(found, 2) == [("lan", "Started"), ("other", "Defined")]
    # A bridge that somebody takes away ends it.
    sh("ip", "link", "del", "virbr7")
    assert not table.present("virbr7")
    assert news(found, 1) == [("lan", "Stopped")]
    transient.destroy()
    assert news(other, 1) == [("other", "Defined")]
    assert list(events.watch(root, network=None, timeout=0.01)) == []


def test_the_verb(root: Tree, capsys: pytest.CaptureFixture[str]) -> None:
    def net_event(*words: str) -> tuple[str, str, int]:
        code = main(["--root", root.root, "net-event", *words])
        return *capsys.readouterr(), code

    Network.define(root, LAN, "x")
    assert net_event("--list") == ("lifecycle\n\n", "", 0)
    late = "event loop timed out\nevents received: 0\n\n"
    assert net_event("--event", "lifecycle", "--timeout", "1", "--network", "lan") == (late, "", 1)
    for words, error in (
        ((), "error: either --list or --event <type> is required"),
        (("--event", "foo"), "error: unknown event type foo"),
        (("--event", "lifecycle", "--network", "nope"), "error: failed to get network 'nope'"),
    ):
        out, err, code = net_event(*words)
        assert (out.strip(), code) == ("", 1) and error in err


@pytest.mark.parametrize("json_too", [False, True])
def test_one_event_ends_it(root: Tree, json_too: bool) -> None:
    Network.define(root, LAN, "x")
    path = Path(root.network_definition("lan"))
    words = ["net-event", "lan", "lifecycle", *(["--json"] if json_too else ["--timestamp"])]
    with subprocess.Popen(
        [sys.executable, "-m", "qkvm", "--root", root.root, *words], stdout=subprocess.PIPE, text=True
    ) as watching:
        deadline = time.monotonic() + 60
        number = 0
        # It tells of what happens once it looks; when that is, nobody but itself knows.
        while watching.poll() is None and time.monotonic() < deadline:
            number += 1
            path.write_text(f'{LAN}uuid = "{"0" * 8}-0000-4000-8000-{number:012d}"\n', encoding="utf-8")
            time.sleep(0.1)
        watching.kill()
        assert watching.stdout is not None
        out = watching.stdout.read()
    if json_too:
        assert json.loads(out)["detail"] == "Defined" and watching.returncode == 0
    else:
        stamp, _, rest = out.partition(": ")
        assert stamp.endswith("+0000") and watching.returncode == 0
        assert rest == "event 'lifecycle' for network lan: Defined\nevents received: 1\n\n"
