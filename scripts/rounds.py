"""Start and destroy a network again and again, with each packet filter, and see that nothing stays or grows.

Run by scripts/rounds in a network namespace of its own; tests/host/test_net_check.py does fewer of them.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from qkvm.host import process
from qkvm.net.network.network import Network
from qkvm.paths import Tree

DEFINITION = """name = "rounds"
bridge = "virbr7"
address = "192.168.77.1/24"

[dhcp]
start = "192.168.77.100"
end = "192.168.77.200"

[ipv6]
address = "fd77::1/64"
nat = true

[[forwards]]
ports = "8022"
guest = "192.168.77.50"
to = 22
"""

SYSCTLS = ("ipv4/ip_forward", "ipv6/conf/all/forwarding")


def state(tree: Tree) -> dict[str, object]:
    """What must be the same after a round: of the host, of this process, of the network's processes and files."""
    process.reap()
    listed = [_run("ip", *words) for words in (("-o", "link"), ("route", "show", "table", "all"))]
    save = [_run(f"{program}-legacy-save") for program in ("iptables", "ip6tables")]
    return {
        "links and routes": [line for text in listed for line in text.splitlines() if "virbr" in line],
        "nft's rules": _run("nft", "--stateless", "list", "ruleset"),
        "legacy rules": [line for text in save for line in text.splitlines() if line.startswith(("-", ":QKVM"))],
        "sysctls": [Path("/proc/sys/net", name).read_text(encoding="ascii") for name in SYSCTLS],
        "open files": len(os.listdir("/proc/self/fd")),
        "processes": [
            entry for entry in os.listdir("/proc")
            if entry.isdigit() and entry != str(os.getpid()) and tree.root in _words(entry)
        ],
        "files": sorted(str(path) for path in Path(tree.run).rglob("*")),
    }  # fmt: skip


def rounds(network: Network, count: int, firewall: str) -> None:
    """Start and destroy a network that often."""
    for _ in range(count):
        network.start(firewall=firewall)
        network.destroy()


def main(words: list[str]) -> int:
    """Do the rounds (a thousand, or as many as asked for) with each packet filter; 1 where anything differs."""
    count = int(words[0]) if words else 1000
    tree = Tree(tempfile.mkdtemp(prefix="qkvm-rounds-"))
    differing = 0
    try:
        network = Network.define(tree, DEFINITION, "rounds.toml")
        for firewall in ("nftables", "iptables"):
            # The first start loads tables and libraries, for good.
            rounds(network, 1, firewall)
            before, begin = state(tree), time.monotonic()
            rounds(network, count, firewall)
            seconds, after = time.monotonic() - begin, state(tree)
            print(f"{firewall}: {count} rounds, {1000 * seconds / count:.0f} ms each")
            for what, was in before.items():
                if after[what] != was:
                    differing = 1
                    print(f"{firewall}: {what} differ: {was} -> {after[what]}")
    finally:
        shutil.rmtree(tree.root)
    print("rounds: something is left" if differing else "rounds: nothing is left")
    return differing


def _run(*argv: str) -> str:
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout


def _words(pid: str) -> str:
    try:
        return Path("/proc", pid, "cmdline").read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
