"""Compare how much a guest of qkvm and one of libvirt send: to its host, and through NAT, in turn.

Run by scripts/bench --network. The guest gets Debian's iperf3 in a second initramfs behind its own; its agent
runs it, on both sides in the same words.
"""

from __future__ import annotations

import base64
import json
import os
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from scripts.sides import NAME, PATIENCE, WORLD_ADDRESS, Remote, SideError, both, guest_files, output

PORT = 5201
GATEWAY = "192.168.122.1"
PATHS = {"guest to host": GATEWAY, "guest through NAT": WORLD_ADDRESS}
TARGET = 0.95
"""What qkvm's guest has to reach of what libvirt's does."""


def network_bench(names: list[str], rounds: int, seconds: int) -> dict[str, dict[str, list[float]]]:
    """Mbit/s by path and side.

    :raises SideError: iperf3 is missing, or a guest did not answer.
    """
    found: dict[str, dict[str, list[float]]] = {path: {name: [] for name in names} for path in PATHS}
    with tempfile.TemporaryDirectory(prefix="qkvm-bench-") as folder:
        guest = guest_files()
        guest["initrd"] = str(_with_iperf(Path(guest["initrd"]), Path(folder)))
        with both(names, guest) as sides:
            for side in sides:
                side.ask("command", words=["start", NAME])
                side.ask("world", port=PORT)
            for side in sides:
                side.ask("await_guest")
                _await_address(side)
            for number in range(rounds + 1):
                for path, address in PATHS.items():
                    for side in sides:
                        reached = _measure(side, address, seconds)
                        # The first round only warms up.
                        if number:
                            found[path][side.name].append(reached)
            for side in sides:
                side.ask("command", words=["destroy", NAME])
                side.ask("close")
    return found


def report(found: dict[str, dict[str, list[float]]]) -> tuple[str, bool]:
    """The table, and whether every ratio reaches the target."""
    lines, met = [f"{'median, Mbit/s':<24}{'libvirt':>9}{'qkvm':>9}{'ratio':>8}   target"], True
    for path, samples in found.items():
        ours, theirs = (median(samples[name]) if name in samples else None for name in ("qkvm", "libvirt"))
        ratio = ours / theirs if ours and theirs else None
        met &= ratio is None or ratio >= TARGET
        words = "" if ratio is None else f"{ratio:>8.2f}   {TARGET} {'met' if ratio >= TARGET else 'NOT MET'}"
        lines.append(f"{path:<24}{'-' if theirs is None else f'{theirs:.0f}':>9}{ours or 0:>9.0f}{words}")
    return "\n".join(lines), met


def _agent(side: Remote, execute: str, **arguments: object) -> dict[str, object]:
    words = json.dumps({"execute": execute, "arguments": arguments})
    done = side.ask("output", words=["qemu-agent-command", NAME, words])
    if done["code"]:
        raise SideError(f"{side.name}: {done['error'].strip()}")
    answer: dict[str, object] = json.loads(done["output"])["return"]
    return answer


def _run(side: Remote, *argv: str) -> str:
    """What a program in the guest prints. :raises SideError: it fails, or does not end."""
    started = _agent(side, "guest-exec", **{"path": argv[0], "arg": list(argv[1:]), "capture-output": True})
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        status = _agent(side, "guest-exec-status", pid=started["pid"])
        if status["exited"]:
            shown = base64.b64decode(str(status.get("out-data", ""))).decode()
            if status.get("exitcode"):
                raise SideError(f"{side.name}: {' '.join(argv)} in the guest: {shown}")
            return shown
        time.sleep(0.2)
    raise SideError(f"{side.name}: {' '.join(argv)} in the guest does not end")


def _await_address(side: Remote) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            if "192.168.122." in _run(side, "/bin/ip", "-4", "addr", "show", "dev", "eth0"):
                return
        except SideError:
            # The agent comes up a moment after the guest.
            if time.monotonic() > deadline:
                raise
        if time.monotonic() > deadline:
            raise SideError(f"{side.name}: the guest has no address")
        time.sleep(0.5)


def _measure(side: Remote, address: str, seconds: int) -> float:
    """Mbit/s that arrive of one TCP connection out of the guest."""
    told = _run(side, "/bin/iperf3", "-c", address, "-p", str(PORT), "-t", str(seconds), "-O", "1", "-J")
    return float(json.loads(told)["end"]["sum_received"]["bits_per_second"]) / 1e6


# The second initramfs.


def _with_iperf(initrd: Path, folder: Path) -> Path:
    """The guest's initramfs with iperf3 and its libraries behind it, as the kernel lets them follow each other."""
    program = next((path for path in ("/usr/bin/iperf3", "/usr/local/bin/iperf3") if os.path.exists(path)), "")
    if not program:
        raise SideError("iperf3 is not installed\n  apt install --no-install-recommends iperf3\nbrings it")
    made = folder / "initrd.img"
    libraries = [word for word in output("ldd", program).split() if word.startswith("/")]
    members = {"bin/iperf3": program, **{path.lstrip("/"): path for path in libraries}}
    with made.open("wb") as stream:
        raw = initrd.read_bytes()
        stream.write(raw + bytes(-len(raw) % 512))
        stream.write(b"".join(_cpio(members)))
    return made


def _cpio(members: dict[str, str]) -> Iterator[bytes]:
    """Files, and the folders that they lie in, as a cpio archive of format newc (cpio(5))."""
    folders = {str(parent) for name in members for parent in Path(name).parents if str(parent) != "."}
    number = 0
    for name in sorted(folders):
        number += 1
        yield _member(name, number, stat.S_IFDIR | 0o755, b"")
    for name, source in members.items():
        number += 1
        yield _member(name, number, stat.S_IFREG | 0o755, Path(source).read_bytes())
    yield _member("TRAILER!!!", 0, 0, b"")


def _member(name: str, number: int, mode: int, content: bytes) -> bytes:
    fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
    return head + bytes(-len(head) % 4) + content + bytes(-len(content) % 4)


def require() -> None:
    """See that iperf3 works. :raises SideError: it does not."""
    try:
        subprocess.run(["iperf3", "--version"], stdout=subprocess.DEVNULL, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise SideError(f"iperf3 does not run: {error}\n  apt install --no-install-recommends iperf3") from error
