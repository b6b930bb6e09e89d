"""The test guest's side: ask it over its serial console, see it in its serial log.

The guest of scripts/make-guest answers a line '@ID COMMAND' with '@ID begin', the command's output and
'@ID exit=CODE'.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path
from types import TracebackType

from qkvm.api.domain import Domain
from qkvm.sockets import connect_unix

PATIENCE = float(os.environ.get("QKVM_PATIENCE", "1"))
"""How many times longer than on a machine of its own a guest may take."""

BOOT_TIMEOUT = 120.0 * PATIENCE
"""Seconds; the guest takes 2 to 3 under TCG on an idle machine."""

ANSWER_TIMEOUT = 120.0 * PATIENCE


class Guest:
    """A session on a domain's serial console, for use with ``with``; it blocks any other session meanwhile."""

    def __init__(self, domain: Domain) -> None:
        self._console = domain.live.console
        self._log = domain.tree.serial_log(domain.name)
        self._socket: socket.socket | None = None
        self._number = 0

    def __enter__(self) -> Guest:
        self._socket = connect_unix(self._console)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._socket is not None:
            self._socket.close()

    def ask(self, command: str, *, timeout: float = ANSWER_TIMEOUT) -> str:
        """Run a shell command in the guest and give its output; a failing one is an AssertionError."""
        assert self._socket is not None
        self._number += 1
        ident = f"@q{os.getpid()}n{self._number}"
        self._socket.sendall(f"{ident} {command}\n".encode())
        text = self._read_until(f"{ident} exit=", timeout)
        output = text.partition(f"{ident} begin")[2]
        body, _, code = output.rpartition(f"{ident} exit=")
        assert code.strip().split()[0] == "0", f"guest's '{command}' ended with {code.strip()}: {body.strip()}"
        return body.strip()

    def send(self, command: str) -> None:
        """Type a command that gives no answer, because it ends the guest."""
        assert self._socket is not None
        self._socket.sendall(f"@qend {command}\n".encode())

    def number(self, command: str) -> int:
        """The whole number that a command prints."""
        return int(self.ask(command).split()[0])

    def until(self, command: str, wanted: str, *, timeout: float = ANSWER_TIMEOUT) -> None:
        """Ask again until the output is ``wanted``."""
        deadline = time.monotonic() + timeout
        while (seen := self.ask(command)) != wanted:
            assert time.monotonic() < deadline, f"guest's '{command}' says '{seen}', not '{wanted}'"

    def _read_until(self, end: str, timeout: float) -> str:
        assert self._socket is not None
        deadline = time.monotonic() + timeout
        raw = b""
        # The line that ends the answer must be whole.
        while end.encode() not in raw or not raw.partition(end.encode())[2].count(b"\n"):
            self._socket.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                more = self._socket.recv(65536)
            except TimeoutError:
                raise AssertionError(f"no answer from the guest within {timeout:g} s: {raw!r}") from None
            assert more, f"the guest's console ended: {raw!r}"
            raw += more
        return raw.decode("utf-8", "replace").replace("\r", "")


def log_size(domain: Domain) -> int:
    """Length of the serial log: the mark for :func:`wait_ready`, taken before a start."""
    try:
        return os.stat(domain.tree.serial_log(domain.name)).st_size
    except FileNotFoundError:
        return 0


def wait_ready(domain: Domain, mark: int = 0, *, timeout: float = BOOT_TIMEOUT) -> None:
    """Wait until the guest has said behind ``mark`` of its serial log that it is up."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            with open(domain.tree.serial_log(domain.name), "rb") as stream:
                stream.seek(mark)
                text = stream.read()
        except FileNotFoundError:
            text = b""
        if b"guest: ready" in text:
            return
        assert domain.is_running, f"domain {domain.name} ended while booting: {text[-400:]!r}"
        assert time.monotonic() < deadline, (
            f"domain {domain.name} has not booted: {text[-400:]!r}\n{_registers(domain)}"
        )
        time.sleep(0.02)


def _registers(domain: Domain) -> str:
    """Where each vCPU is, to tell a guest that hangs from one that is slow."""
    with domain.monitor() as session:
        said = session.execute("human-monitor-command", {"command-line": "info registers -a"})
    return "\n".join(line for line in str(said).splitlines() if line.startswith(("CPU#", "RIP", "EIP")))


def tsc_frequency() -> str:
    """A kernel argument that a microvm needs under TCG.

    It has no clock but the PIT to measure its TSC against, and when this process is kept from running for a
    moment meanwhile, the measurement fails and the kernel waits for ever. TCG's TSC is the host's.
    """
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("cpu MHz"):
            return f"tsc_early_khz={round(float(line.split(':')[1]) * 1000)}"
    raise AssertionError("/proc/cpuinfo tells no frequency")


def end_qemu(domain: Domain) -> None:
    """Kill a domain's QEMU, and see it gone."""
    pid = domain.live.pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while domain.is_running:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wait_agent(domain: Domain, *, timeout: float = BOOT_TIMEOUT) -> None:
    """Wait until the guest's agent has opened its port."""
    deadline = time.monotonic() + timeout
    while not domain.live.open_ports():
        assert time.monotonic() < deadline, f"no agent has opened its port in domain {domain.name}"
        time.sleep(0.02)
