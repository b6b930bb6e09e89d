"""Measure instant clones beside the same steps by hand with a bare QEMU, in turn: scripts/bench --clones.

Both begin with a call and end when the
guest has answered over its serial line: by hand a QEMU is started on a template's memory, gets the state, a NIC on
QEMU's own network and a host name; 'qkvm clone' does the same with a tap on a bridge.
Cold boots of the same guest stand beside them, and 'exec' of true in a clone.
"""

from __future__ import annotations

import array
import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

from qkvm import Host
from qkvm.api.domain import Domain
from scripts.sides import guest_files

MEMORY = 256
TOP = Path(__file__).resolve().parent.parent


class Bare:
    """A QEMU that is driven by hand."""

    def __init__(self, folder: Path, name: str, *more: str, fds: tuple[int, ...] = ()) -> None:
        guest = guest_files()
        self.serial, control = folder / f"{name}.serial", folder / f"{name}.qmp"
        self.process = subprocess.Popen(
            ["qemu-system-x86_64", "-nodefaults", "-no-user-config", "-S", "-m", f"size={MEMORY * 1024}k",
             "-machine", "q35,usb=off", "-accel", "tcg,thread=multi", "-cpu", "max", "-kernel", guest["kernel"],
             "-initrd", guest["initrd"], "-append", "console=ttyS0 no_timer_check", "-display", "none",
             "-chardev", f"socket,id=s,path={self.serial},server=on,wait=off", "-serial", "chardev:s",
             "-qmp", f"unix:{control},server=on,wait=off", "-device", "virtio-rng-pci",
             "-device", "pcie-root-port,id=rp0,bus=pcie.0,addr=8,chassis=1", *more],
            pass_fds=fds,
        )  # fmt: skip
        self.socket = _connected(control)
        self.stream = self.socket.makefile("r")
        self.stream.readline()
        self.ask("qmp_capabilities")

    def ask(self, command: str, **arguments: Any) -> Any:
        """Run a command over QMP."""
        self.socket.sendall(json.dumps({"execute": command, "arguments": arguments}).encode())
        return self._answer()

    def give(self, fd: int) -> None:
        """Pass an fd under the name state."""
        text = json.dumps({"execute": "getfd", "arguments": {"fdname": "state"}}).encode()
        self.socket.sendmsg([text], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [fd]))])
        self._answer()

    def _answer(self) -> Any:
        while True:
            told = json.loads(self.stream.readline())
            if "error" in told:
                raise RuntimeError(told["error"]["desc"])
            if "return" in told:
                return told["return"]

    def capability(self, name: str) -> None:
        """Set a capability of migrations."""
        self.ask("migrate-set-capabilities", capabilities=[{"capability": name, "state": True}])

    def moved(self) -> None:
        """Wait until a migration is completed."""
        while self.ask("query-migrate").get("status") != "completed":
            time.sleep(0.002)

    def end(self) -> None:
        """Kill it."""
        self.process.kill()
        self.process.wait()


def _connected(path: Path) -> socket.socket:
    while True:
        try:
            found = socket.socket(socket.AF_UNIX)
            found.connect(str(path))
            return found
        except OSError:
            found.close()
            time.sleep(0.002)


def _answers(serial: Path, command: str) -> None:
    """Run a command in the guest over its serial line."""
    with _connected(serial) as line:
        line.settimeout(120)
        line.sendall(f"@bench {command}\n".encode())
        seen = b""
        while b"@bench exit=0" not in seen:
            seen += line.recv(4096)


def _bare_template(folder: Path) -> None:
    first = Bare(folder, "first")
    with _connected(first.serial) as line:
        first.ask("cont")
        seen = b""
        while b"guest: ready" not in seen:
            seen += line.recv(4096)
    time.sleep(2)
    first.ask("stop")
    second = Bare(folder, "second", "-incoming", "defer", *_memory(folder / "memory", "on"))
    near, far = socket.socketpair()
    for one, end in ((second, near), (first, far)):
        one.give(end.fileno())
        end.close()
    second.ask("migrate-incoming", uri="fd:state")
    first.ask("migrate-set-parameters", **{"max-bandwidth": (1 << 63) - 1})
    first.ask("migrate", uri="fd:state")
    first.moved()
    second.moved()
    second.capability("x-ignore-shared")
    second.ask("migrate", uri=f"exec:cat >{folder}/state")
    second.moved()
    first.end()
    second.end()


def _memory(path: Path, share: str) -> tuple[str, ...]:
    told = f"memory-backend-file,id=pc.ram,size={MEMORY * 1024}k,share={share},mem-path={path}"
    return ("-object", f"{told},x-use-canonical-path-for-ramblock-id=off", "-machine", "memory-backend=pc.ram")


def by_hand(folder: Path) -> float:
    """Seconds until a bare QEMU's clone has answered."""
    begin = time.monotonic()
    clone = Bare(folder, "clone", "-incoming", "defer", *_memory(folder / "memory", "off"))
    try:
        clone.capability("x-ignore-shared")
        clone.ask("migrate-incoming", uri=f"exec:cat {folder}/state")
        clone.moved()
        clone.ask("cont")
        _answers(clone.serial, "echo clone >/proc/sys/kernel/hostname")
        clone.ask("netdev_add", type="user", id="n0")
        clone.ask("device_add", driver="virtio-net-pci", netdev="n0", bus="rp0", id="net0")
        _answers(clone.serial, "hostname")
        return time.monotonic() - begin
    finally:
        clone.end()
        for path in (clone.serial, folder / "clone.qmp"):
            path.unlink(missing_ok=True)


def _qkvm(root: str, *words: str) -> None:
    subprocess.run(
        [sys.executable, "-m", "qkvm", "--root", root, *words], check=True, cwd=TOP, stdout=subprocess.DEVNULL
    )


def by_qkvm(host: Host, *names: str) -> float:
    """Seconds until all clones of one call have answered."""
    begin = time.monotonic()
    _qkvm(host.tree.root, "clone", "--from-template", "gold", *names)
    for name in names:
        _answers(Path(host.domain(name).live.console), "hostname")
    seconds = time.monotonic() - begin
    for name in names:
        domain = host.domain(name)
        domain.destroy()
        domain.undefine()
    return seconds


def cold(domain: Domain) -> float:
    """Seconds from a start by the command line to the guest's own answer."""
    log = Path(domain.tree.serial_log(domain.name))
    before = log.stat().st_size if log.exists() else 0
    begin = time.monotonic()
    _qkvm(domain.tree.root, "start", domain.name)
    while b"guest: ready" not in log.read_bytes()[before:]:
        time.sleep(0.01)
    _answers(Path(domain.live.console), "hostname")
    return time.monotonic() - begin


def _exec(domain: Domain) -> tuple[float, float]:
    """Seconds of 'qkvm exec NAME -- true', and of the same in a process that runs already."""
    begin = time.monotonic()
    _qkvm(domain.tree.root, "exec", domain.name, "--", "true")
    between = time.monotonic()
    domain.guest.exec(["true"])
    return between - begin, time.monotonic() - between


def main() -> int:
    """Measure, and print the medians."""
    rounds, check = int(sys.argv[1]), "--check" in sys.argv
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    folder = Path(tempfile.mkdtemp(prefix="qkvm-bench-"))
    host = Host(str(folder / "root"))
    try:
        (folder / "root").mkdir(mode=0o700)
        host.prepare()
        host.networks["default"].start()
        guest = guest_files()
        domain = host.define(
            f"name = 'source'\nmemory = {{ current = '{MEMORY}MiB', maximum = '{MEMORY}MiB' }}\n"
            f"boot = {{ kernel = '{guest['kernel']}', initrd = '{guest['initrd']}', "
            "cmdline = 'console=ttyS0 no_timer_check' }\n"
            "uuid = '00000000-0000-4000-8000-000000000001'\n"
            "[[nics]]\nmac = '52:54:00:00:bb:01'\nsource = 'default'\n"
        )
        _bare_template(folder)
        boots = [cold(domain)]
        time.sleep(2)
        domain.make_template("gold")
        domain.destroy()
        found: dict[str, list[float]] = {"by hand": [], "qkvm clone": [], "ten clones": []}
        for number in range(rounds):
            found["by hand"].append(by_hand(folder))
            found["qkvm clone"].append(by_qkvm(host, f"one{number}"))
            found["ten clones"].append(by_qkvm(host, *(f"ten{number}x{count}" for count in range(10))))
            boots.append(cold(domain))
            domain.wait("agent")
            for label, second in zip(("exec", "exec in a process"), _exec(domain), strict=True):
                found.setdefault(label, []).append(second)
            domain.destroy()
        for label, seconds in (*found.items(), ("cold boot", boots)):
            print(f"{label:17} {median(seconds) * 1000:8.0f} ms   {[round(one, 2) for one in seconds]}")
        hand, one, ten = (median(found[label]) for label in ("by hand", "qkvm clone", "ten clones"))
        reached = {
            "one clone / by hand": (one / hand, 1.5),
            "one clone / cold boot": (one / median(boots), 0.25),
            "ten clones / one": (ten / one, 3.0),
            "exec, ms": (median(found["exec"]) * 1000, 150.0),
            "exec in a process, ms": (median(found["exec in a process"]) * 1000, 15.0),
        }
        for what, (value, target) in reached.items():
            print(f"{what:22} {value:8.2f}   at most {target:g}{'' if value <= target else '   missed'}")
        missed = any(value > target for value, target in reached.values())
    finally:
        for left in host.domains():
            if left.is_running:
                left.destroy()
        host.networks["default"].destroy()
        shutil.rmtree(folder)
    return 1 if check and missed else 0


if __name__ == "__main__":
    sys.exit(main())
