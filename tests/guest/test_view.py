"""A group that may look at root's tree: what its members see, and that they see and do no more."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest import guest as guests
from tests.guest.conftest import TOP, Lab
from tests.host import nslab

UID, GROUP = 60130, 60131
SECRET = "hush8888"
NIC = '[[nics]]\nmac = "52:54:00:00:aa:01"\nsource = "seen"\n'
NETWORK = """name = "seen"
bridge = "virbr9"
address = "192.168.79.1/24"
mode = "isolated"
[dhcp]
start = "192.168.79.2"
end = "192.168.79.60"
"""
BODY = f'[vnc]\nport = -1\npassword = "{SECRET}"\n[[credentials]]\nname = "c"\nvalue = "{SECRET}"\n[metadata]\n'


class Looker:
    """Somebody without root, in the group or not, who runs qkvm on root's tree."""

    def __init__(self, root: str, *groups: int) -> None:
        self.root = root
        self.groups = list(groups)

    def run(self, line: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "qkvm", "--root", self.root, *shlex.split(line)],
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            cwd=TOP,
            env={"HOME": "/", "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            user=UID,
            group=UID,
            extra_groups=self.groups,
        )

    def ok(self, line: str) -> str:
        done = self.run(line)
        assert done.returncode == 0, f"qkvm {line}: {done.stderr}"
        assert SECRET not in done.stdout
        return done.stdout

    def fails(self, line: str) -> str:
        done = self.run(line)
        assert done.returncode == 1, f"qkvm {line}: {done.stdout}{done.stderr}"
        (error,) = [text for text in done.stderr.splitlines() if not text.startswith("warning: ")]
        assert "internal error" not in error and SECRET not in done.stdout + done.stderr
        return error


@pytest.fixture
def open_lab(lab: Lab) -> Iterator[Lab]:
    """A tree that others get to: that of all tests lies in a folder of root's alone."""
    root = tempfile.mkdtemp(prefix="qkvm-view-")
    os.chmod(root, 0o755)
    made = Lab(root, lab.kernel, lab.initrd)
    made.host.prepare()
    made.host.networks.define(NETWORK)
    yield made
    for domain in made.host.domains():
        if domain.is_running:
            domain.destroy()
    if made.host.networks["seen"].active:
        made.ok("net-destroy seen")
    shutil.rmtree(root)


def test_members_of_the_group_see_what_runs(open_lab: Lab) -> None:
    root = open_lab
    member, other = Looker(root.root, GROUP), Looker(root.root)
    domain = root.define("vm", body=NIC + "# the password is hush8888\n" + BODY)
    root.define("idle")
    assert "belongs to another user" in member.fails("list --all")
    root.ok(f"setup-read --group {GROUP}")
    assert "shut off" in member.ok("list --all")
    assert "belongs to another user" in other.fails("list --all")

    # Verbs from here on bring it up to date.
    root.ok("net-start seen")
    assert "active" in member.ok("net-list")
    root.boot(domain)
    with guests.Guest(domain) as guest:
        address = guest.ask("ip -4 -o addr show dev eth0 | awk '{print $4}'").partition("/")[0]
    for line in (
        "list --all",
        "dominfo vm",
        "dominfo idle",
        "domstate vm --reason",
        "domiflist vm",
        "domblklist vm",
        "vcpucount vm",
        "dumpxml vm --inactive",
        "domid vm",
        "domuuid vm",
        "net-info seen",
        "net-dumpxml seen",
        "domstate idle",
        "domdisplay vm",
        "list --all --json",
    ):
        assert _timeless(member.ok(line)) == _timeless(root.ok(line)), line
    live = member.ok("dumpxml vm")
    assert "<domain" in live and "vnet" in live
    assert address in member.ok("domifaddr vm")
    assert address in member.ok("net-dhcp-leases seen")
    root.ok("suspend vm")
    assert member.ok("domstate vm").strip() == "paused"
    root.ok("resume vm")

    _see_no_secret(root, member)
    _do_nothing(root, member)

    # What nobody tells the view of: QEMU's own end.
    pid = domain.live.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    nslab.until(lambda: member.ok("domstate vm").strip() == "shut off", "the view shows the end")
    assert "crashed" in member.ok("domstate vm --reason")
    root.ok("domrename vm vm2")
    assert [one["name"] for one in json.loads(member.ok("list --all --json"))] == ["idle", "vm2"]
    root.ok("undefine vm2")
    assert "vm2" not in member.ok("list --all")
    root.ok("setup-read --remove")
    assert "belongs to another user" in member.fails("list")
    assert not Path(root.root, "run/qkvm-read").exists()


def _timeless(text: str) -> str:
    """An output without the time that QEMU has used until then, and where its balloon was."""
    return re.sub(r"(CPU time|Used memory):.*", "", text)


def _see_no_secret(root: Lab, member: Looker) -> None:
    """Nothing that the group can open holds the password, whatever path is tried."""
    Path(root.host.tree.domain_definition("vm")).chmod(0o644)
    script = (
        "import os, sys\n"
        "for base, folders, names in os.walk(sys.argv[1]):\n"
        "    for name in names:\n"
        "        try:\n"
        "            text = open(os.path.join(base, name), 'rb').read()\n"
        "        except OSError:\n"
        "            continue\n"
        "        print(os.path.join(base, name), b'hush' in text)\n"
    )
    seen = subprocess.run(
        [sys.executable, "-c", script, root.root],
        capture_output=True,
        text=True,
        check=True,
        user=UID,
        group=UID,
        extra_groups=[GROUP],
    ).stdout.splitlines()
    assert len(seen) >= 6
    assert not [line for line in seen if line.endswith(" True") or "/qkvm-read/" not in line]


def _do_nothing(root: Lab, member: Looker) -> None:
    for line in (
        "destroy vm",
        "start idle",
        "undefine idle",
        "setvcpus vm 2",
        "define /dev/null",
        "net-destroy seen",
        "net-grant seen 60130",
        "setup-read",
        "gc",
        "domargv vm",
        "snapshot-list vm",
        "domstats vm",
        "console vm",
        "qemu-monitor-command vm '{}'",
        "save vm /tmp/x",
        "edit vm",
    ):
        assert "needs root: you may look" in member.fails(line), line
    assert "passwords are root's alone" in member.fails("dumpxml vm --security-info")
    view = root.host.tree.view()
    for folder in (view.state, view.run, view.domain_definitions, view.domain_run("vm")):
        assert os.stat(folder).st_mode & 0o777 == 0o750, folder
    assert not [path for path in Path(view.run).rglob("*") if path.is_socket()]


def test_a_group_that_is_not_there_is_said_to_be_missing(open_lab: Lab) -> None:
    assert "there is no group 'nobody-knows'" in open_lab.fails("setup-read --group nobody-knows")
