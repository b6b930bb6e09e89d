"""Verbs that only read a network's state must start at once: nothing heavy may come with them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = ("pyroute2", "iptc", "jinja2", "msgspec", "tomlkit", "ipaddress", "subprocess", "asyncio", "dataclasses")

VERBS = {
    "net-list": "from qkvm.net.network import list_networks; list_networks(tree)",
    "net-name": "from qkvm.net.network import Network; Network.lookup(tree, 'lan')",
    "net-dhcp-leases": "from qkvm.net.network import Network; Network.lookup(tree, 'lan').dhcp_leases()",
    "domifaddr": "from qkvm.net.address import addresses; addresses(tree, {'52:54:00:00:00:01': 'lan'})",
    "domifstat": "from qkvm.net.link import counters; counters('lo')",
}


@pytest.mark.parametrize("verb", VERBS)
def test_nothing_heavy_is_imported(verb: str, tmp_path: Path) -> None:
    networks = tmp_path / "etc/qkvm/networks"
    networks.mkdir(parents=True)
    (networks / "lan.toml").write_text('name = "lan"\n')
    script = (
        f"import sys; from qkvm.paths import Tree; tree = Tree(sys.argv[1]); {VERBS[verb]}; print(*sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], capture_output=True, text=True, check=True,
        cwd=Path(__file__).parent.parent.parent,
    )  # fmt: skip
    assert not set(HEAVY) & set(done.stdout.split())
