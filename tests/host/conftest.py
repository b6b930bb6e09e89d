"""Fixtures of the tests on the real kernel: a namespace each, and a look for leaks after each."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from qkvm.host import process
from qkvm.paths import Tree
from tests.host import nslab


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Tree]:
    """A tree of the test's own; afterwards nothing may run for it, and nothing may lie under its run/."""
    tree = Tree(str(tmp_path / "root"))
    yield tree
    left = nslab.processes_naming(tree.root)
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert not left, f"processes of this test still run: {left}"
    assert not nslab.files_under(tree.run), "files were left under run/"


@pytest.fixture
def netns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[nslab.Namespace]:
    """The test runs inside a fresh network namespace, with an xtables lock of its own.

    No fresh /sys is mounted: nothing here may read /sys for a network namespace's state. Afterwards links,
    rules, forwarding, this process's fds and its children must be as they were.
    """
    monkeypatch.setenv("XTABLES_LOCKFILE", str(tmp_path / "xtables.lock"))
    home = nslab.Namespace.current()
    fresh = nslab.Namespace.new()
    fresh.enter()
    try:
        _warm_up()
        before = _state()
        yield fresh
        process.reap()
        after = _state()
        differences = [f"{key}: {before[key]} -> {after[key]}" for key in before if before[key] != after[key]]
        assert not differences, "the test left something behind:\n" + "\n".join(differences)
    finally:
        home.enter()
        home.close()
        fresh.close()


def _warm_up() -> None:
    """What the first use of a table or library leaves for good (built-in chains, caches) is no leak."""
    nslab.legacy_rules()
    for table in ("filter", "nat", "mangle", "raw", "security"):
        nslab.sh("iptables-legacy", "-t", table, "-S")
        nslab.sh("ip6tables-legacy", "-t", table, "-S")


def _state() -> dict[str, Any]:
    state: dict[str, Any] = {
        "links": nslab.links(),
        "nft": nslab.nft_rules(),
        "legacy": nslab.legacy_rules(),
        "forwarding": nslab.forwarding(),
        "children": _children(),
        # Fds last: what the others need is closed by then.
        "fds": sorted(f"{fd}={_target(fd)}" for fd in os.listdir("/proc/self/fd")),
    }
    return state


def _target(fd: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}").partition(":")[0]
    except OSError:
        return "gone"


def _children() -> list[int]:
    found: list[int] = []
    for task in os.listdir("/proc/self/task"):
        with open(f"/proc/self/task/{task}/children", encoding="ascii") as stream:
            found += [int(pid) for pid in stream.read().split()]
    return sorted(found)


@pytest.fixture
def world(netns: nslab.Namespace) -> Iterator[nslab.Namespace]:
    """A namespace beyond the host: the host is 203.0.113.1 to it, and its way to everything else."""
    outside = nslab.Namespace.new()
    with nslab.IPRoute() as ipr:
        ipr.link("add", ifname="uplink", kind="veth", peer={"ifname": "eth0", "net_ns_fd": outside.fd})
        index = ipr.link("get", ifname="uplink")[0]["index"]
        ipr.addr("add", index=index, address=nslab.OUTSIDE, prefixlen=24)
        ipr.addr("add", index=index, address=nslab.OUTSIDE6, prefixlen=64, flags=nslab.NODAD)
        ipr.link("set", index=index, state="up")
    with outside.entered(), nslab.IPRoute() as ipr:
        inner = ipr.link("get", ifname="eth0")[0]["index"]
        ipr.addr("add", index=inner, address=nslab.WORLD, prefixlen=24)
        ipr.addr("add", index=inner, address=nslab.WORLD6, prefixlen=64, flags=nslab.NODAD)
        ipr.link("set", index=inner, state="up")
        ipr.route("add", dst="0.0.0.0/0", gateway=nslab.OUTSIDE)
        ipr.route("add", dst="::/0", gateway=nslab.OUTSIDE6)
    yield outside
    with nslab.IPRoute() as ipr:
        ipr.link("del", index=index)
    outside.close()


@pytest.fixture
def make_guest(netns: nslab.Namespace) -> Iterator[Callable[[str], nslab.Guest]]:
    """Makes guests: a namespace each, with an interface on a bridge."""
    made: list[nslab.Guest] = []

    def make(bridge: str) -> nslab.Guest:
        made.append(nslab.Guest(bridge, f"52:54:00:00:00:{len(made) + 1:02x}"))
        return made[-1]

    yield make
    for guest in made:
        guest.close()


@pytest.fixture
def serve() -> Iterator[Callable[[nslab.Namespace, int], nslab.Server]]:
    """Starts TCP servers inside namespaces."""
    made: list[nslab.Server] = []

    def start(namespace: nslab.Namespace, port: int) -> nslab.Server:
        made.append(nslab.Server(namespace, port))
        return made[-1]

    yield start
    for server in made:
        server.close()
