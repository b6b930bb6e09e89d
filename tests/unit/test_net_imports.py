"""Verbs that only read a network's state must start at once: nothing heavy may come with them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

HEAVY = ("pyroute2", "iptc", "jinja2", "msgspec", "tomlkit", "ipaddress", "subprocess", "asyncio", "dataclasses")

VERBS = {
    "net-list": "from qkvm.net.network.handle import list_networks; list_networks(tree)",
    "net-name": "from qkvm.net.network.handle import Handle; Handle.lookup(tree, 'lan')",
    "net-dhcp-leases": "from qkvm.net.network.handle import Handle; Handle.lookup(tree, 'lan').dhcp_leases()",
    "domifaddr": "from qkvm.net.dhcp.address import addresses; addresses(tree, {'52:54:00:00:00:01': 'lan'})",
    "domifstat": "from qkvm.net.link.table import counters; counters('lo')",
}


def test_nothing_heavy_is_imported(tmp_path: Path) -> None:
    networks = tmp_path / "etc/qkvm/networks"
    networks.mkdir(parents=True)
    (networks / "lan.toml").write_text('name = "lan"\n')
    # Each in a child of an interpreter that has imported nothing of it yet.
    script = (
        "import os, sys\n"
        "for verb, code in zip(sys.argv[2::2], sys.argv[3::2]):\n"
        "    if os.fork() == 0:\n"
        "        exec('from qkvm.paths import Tree; tree = Tree(sys.argv[1]); ' + code)\n"
        "        print(verb, *sys.modules, flush=True)\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path), *(word for verb in VERBS.items() for word in verb)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parent.parent.parent,
    )
    loaded = {line.split()[0]: set(line.split()[1:]) for line in done.stdout.splitlines()}
    assert set(loaded) == set(VERBS), done.stderr
    assert not {verb: found for verb, modules in loaded.items() if (found := set(HEAVY) & modules)}
