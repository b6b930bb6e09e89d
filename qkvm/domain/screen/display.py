"""The guest's screen and keyboard: address of the VNC server, screenshots, keys; and non-maskable interrupts."""

from __future__ import annotations

import os
from typing import NamedTuple

from qkvm.errors import CommandRefused, InvalidState, InvalidValue, NotReached

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.domain.handle import Handle

_PNG = b"\x89PNG\r\n\x1a\n"
KEYS_MAX = 16
"""The most keys that can be pressed together, as in virsh (VIR_DOMAIN_SEND_KEY_MAX_KEYS)."""


class Display(NamedTuple):
    """The address of a VNC server: host and port, or a Unix socket; ``websocket`` is a port, 0 for none."""

    host: str
    port: int
    socket: str
    websocket: int
    password: str

    @property
    def number(self) -> int:
        """VNC's number of the display: 0 is port 5900."""
        return self.port - 5900

    @property
    def is_wildcard(self) -> bool:
        """Whether it listens on all addresses."""
        return self.host in ("0.0.0.0", "::")

    def uri(self, *, with_password: bool = False) -> str:
        """Return virsh's URI: vnc://HOST:NUMBER, with localhost if it listens on all addresses."""
        secret = f":{self.password}@" if with_password and self.password else ""
        if self.socket:
            return f"vnc+unix://{secret}{self.socket}"
        return f"vnc://{secret}{self._reachable}:{self.number}"

    @property
    def _reachable(self) -> str:
        host = "localhost" if self.is_wildcard else self.host
        return f"[{host}]" if ":" in host else host


def display(domain: Handle) -> Display | None:
    """Return the VNC server of a running domain, None for none.

    :raises InvalidState: it does not run.
    """
    record = domain.live.record
    shown = record.get("vnc")
    if not shown:
        return None
    address, websocket = str(shown["address"]), int(shown["websocket"])
    password = str((record["definition"].get("vnc") or {}).get("password", ""))
    if address.startswith("unix:"):
        return Display("", 0, address.removeprefix("unix:"), websocket, password)
    host, _, number = address.rpartition(":")
    return Display(host.strip("[]"), 5900 + int(number), "", websocket, password)


def screenshot(domain: Handle, *, screen: int = 0) -> bytes:
    """Return a picture of the screen as PNG (screendump).

    :param screen: number of the graphics card. :raises InvalidState: it has no graphics card.
    :raises NotReached: QEMU reported success but wrote no picture.
    """
    with domain.lock():
        if domain.live.record["definition"].get("video", "none") == "none":
            raise InvalidState("domain has no graphics card to take a picture of", hint='video = "vga"')
        if screen:
            raise InvalidValue(f"no such screen: {screen}", hint="a domain has one graphics card, number 0")
        memory = os.memfd_create("screenshot", os.MFD_CLOEXEC)
        try:
            return _screendump(domain, memory)
        finally:
            os.close(memory)


def _screendump(domain: Handle, memory: int) -> bytes:
    with domain.monitor() as session:
        # QEMU needs an fd with exactly the access mode that it opens a file with; a memfd is for reading, too.
        writable = os.open(f"/proc/self/fd/{memory}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            fdset = session.add_fd(writable)
        finally:
            os.close(writable)
        try:
            session.execute("screendump", {"filename": f"/dev/fdset/{fdset}", "format": "png"})
        finally:
            session.execute("remove-fd", {"fdset-id": fdset})
    raw = os.pread(memory, os.fstat(memory).st_size, 0)
    if not raw.startswith(_PNG):
        raise NotReached("QEMU gave no picture of the screen", asked="image/png", reached=None)
    return raw


def send_keys(domain: Handle, keys: list[int], *, hold_ms: int = 0) -> None:
    """Press keys together and release them (QMP send-key).

    :param keys: QEMU's numbers (see :mod:`qkvm.domain.screen.keys`).
    :param hold_ms: milliseconds that they are held; 0 for QEMU's default of 100.
    :raises InvalidState: a microvm has no keyboard.
    """
    if not 1 <= len(keys) <= KEYS_MAX:
        raise InvalidValue(f"{len(keys)} keys can't be pressed together", hint=f"1 to {KEYS_MAX}")
    with domain.lock():
        run = domain.live
        if run.record["machine"] == "microvm":
            raise InvalidState("machine microvm has no keyboard", hint="its serial console takes what is typed")
        arguments: dict[str, object] = {"keys": [{"type": "number", "data": key} for key in keys]}
        if hold_ms:
            arguments["hold-time"] = hold_ms
        with domain.monitor() as session:
            session.execute("send-key", arguments)


def inject_nmi(domain: Handle) -> None:
    """Send every vCPU a non-maskable interrupt (QMP inject-nmi).

    :raises InvalidState: the machine has none.
    """
    with domain.lock(), domain.monitor() as session:
        try:
            session.execute("inject-nmi")
        except CommandRefused as error:
            raise InvalidState(f"this machine takes no NMI: {error.desc}") from error
