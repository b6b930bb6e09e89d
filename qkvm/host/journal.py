"""The journal: all events of a domain's QEMU, written by QEMU itself.

QEMU's first monitor is on stdio: stdin is a file of QMP commands (the start script), stdout is this file, opened
with O_APPEND. QEMU negotiates, runs the script, and appends a line for every event for its whole life
(qapi/run-state.json and others). Nobody has to listen, and any process can read. Between the events, qkvm adds
notes of what only it knows.
"""

from __future__ import annotations

import os
import time

from qkvm import jsontext
from qkvm.errors import MonitorGone, NotReached

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, BinaryIO

    Event = dict[str, Any]

_TAIL = 65536
_POLL = 0.002  # Seconds between two looks at the file; a look costs some ten microseconds.


def script(commands: list[tuple[str, dict[str, Any]]]) -> bytes:
    """Return the start script: negotiation, then QMP commands, one a line, each with its number as id."""
    import json

    lines = [{"execute": "qmp_capabilities", "id": 0}]
    lines += [
        {"execute": name, "arguments": arguments, "id": number}
        for number, (name, arguments) in enumerate(commands, 1)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def size(path: str) -> int:
    """Return the journal's length in bytes, 0 where there is none; later events are read from there."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


class Reader:
    """Reads a journal on from an offset, to its end even if the file is removed meanwhile."""

    def __init__(self, path: str, offset: int) -> None:
        self._path = path
        self._offset = offset
        self._stream: BinaryIO | None = None
        self._open()

    def lines(self) -> list[Event]:
        """Return events and notes that are new since the last look."""
        self._open()
        if self._stream is None:
            return []
        lines, self._offset = _whole_lines(self._stream, self._offset)
        return [line for line in lines if "event" in line or "note" in line]

    def close(self) -> None:
        """Close the file."""
        if self._stream is not None:
            self._stream.close()

    def _open(self) -> None:
        if self._stream is None and os.path.exists(self._path):
            self._stream = open(self._path, "rb")  # noqa: SIM115  closed by close()


def note(path: str, what: str, data: dict[str, Any]) -> None:
    """Append a note of what only qkvm knows of a run, for those who watch.

    O_APPEND keeps lines whole. A note that can't be written is lost; what must last is in the record.
    """
    import json

    moment = time.time()
    stamp = {"seconds": int(moment), "microseconds": int(moment % 1 * 1e6)}
    line = json.dumps({"timestamp": stamp, "note": what, "data": data}) + "\n"
    try:
        with open(path, "ab", buffering=0, opener=_open_existing) as stream:
            stream.write(line.encode())
    except OSError:
        return


def _open_existing(path: str, _flags: int) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW)


def lines_from(path: str, offset: int) -> tuple[list[Event], int]:
    """Return whole lines from ``offset`` on as parsed JSON, and the offset after them.

    Each has its own offset as ``_offset``. Lines without a JSON object are left out: QEMU begins with a few words.
    """
    try:
        with open(path, "rb") as stream:
            return _whole_lines(stream, offset)
    except FileNotFoundError:
        return [], offset


def _whole_lines(stream: BinaryIO, offset: int) -> tuple[list[Event], int]:
    stream.seek(offset)
    raw = stream.read()
    whole = raw[: raw.rfind(b"\n") + 1]
    return list(_parse(whole, offset)), offset + len(whole)


def events_from(path: str, offset: int) -> tuple[list[Event], int]:
    """Return the events from ``offset`` on, and the offset after them."""
    lines, end = lines_from(path, offset)
    return [line for line in lines if "event" in line], end


def newest(path: str, names: frozenset[str], start: int = 0) -> Iterator[Event]:
    """Yield events of these names, newest first, back to byte ``start``."""
    try:
        stream = open(path, "rb")  # noqa: SIM115  closed below, at the generator's end
    except FileNotFoundError:
        return
    wanted = [name.encode() for name in names]
    with stream:
        end, cut = stream.seek(0, os.SEEK_END), b""
        while end > start:
            begin = max(start, end - _TAIL)
            stream.seek(begin)
            block = stream.read(end - begin) + cut
            position = begin + len(block)
            if begin > start:
                # The first line may be cut; the next block completes it.
                head = block.find(b"\n") + 1 or len(block)
                cut, block = block[:head], block[head:]
            for line in reversed(block.splitlines(keepends=True)):
                position -= len(line)
                if any(name in line for name in wanted):
                    for event in _parse(line, position):
                        if event.get("event") in names:
                            yield event
            end = begin


def _parse(raw: bytes, offset: int) -> Iterator[Event]:
    for line in raw.splitlines(keepends=True):
        if line.startswith(b"{"):
            try:
                parsed = jsontext.loads(line)
            except ValueError:
                parsed = None
            if isinstance(parsed, dict):
                yield {**parsed, "_offset": offset}
        offset += len(line)


def deleted_device(event: Event) -> str:
    """Return the id of the device that a DEVICE_DELETED event reports; '' for any other event.

    A vCPU's local APIC goes with it. Under TCG, QEMU 7.2 reports only that, by its path.
    """
    if event.get("event") != "DEVICE_DELETED":
        return ""
    data = event.get("data", {})
    if "device" in data:
        return str(data["device"])
    head, _, rest = str(data.get("path", "")).partition("/machine/peripheral/")
    ident, _, part = rest.partition("/")
    return ident if not head and part == "lapic" else ""


def wait(
    path: str,
    offset: int,
    wanted: Callable[[Event], bool],
    *,
    timeout: float,
    alive: Callable[[], bool],
    what: str,
) -> Event:
    """Wait for the first line from ``offset`` on for which ``wanted`` is true.

    :param timeout: seconds. :param alive: whether QEMU still runs. :param what: what is awaited, for errors.
    :raises NotReached: not seen in time. :raises MonitorGone: QEMU ended before.
    """
    deadline = time.monotonic() + timeout
    while True:
        # Checked before reading: QEMU writes its last events before it ends.
        lives = alive()
        lines, offset = lines_from(path, offset)
        for line in lines:
            if wanted(line):
                return line
        if not lives:
            raise MonitorGone(f"QEMU ended while waiting for {what}")
        if time.monotonic() >= deadline:
            raise NotReached(f"{what} was not seen within {timeout:g} s", asked=what, reached=None)
        time.sleep(_POLL)
