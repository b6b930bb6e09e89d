"""The journal: every event of a domain's QEMU, written by QEMU itself.

QEMU's first monitor is on stdio. Its stdin is a file of QMP commands (the start script), its stdout this file,
opened with O_APPEND: QEMU negotiates by itself, runs the script, and appends a line for every event for its
whole life (qapi/run-state.json and others). Nobody has to listen, and everybody can read.
"""

from __future__ import annotations

import os
import time

from qkvm.errors import MonitorGone, NotReached

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    Event = dict[str, Any]

_TAIL = 65536
_POLL = 0.002  # Seconds between two looks at the file; a look costs some ten microseconds.


def script(commands: list[tuple[str, dict[str, Any]]]) -> bytes:
    """The start script: QMP commands, one a line, each with its number as id; negotiation goes first."""
    import json

    lines = [{"execute": "qmp_capabilities", "id": 0}]
    lines += [
        {"execute": name, "arguments": arguments, "id": number}
        for number, (name, arguments) in enumerate(commands, 1)
    ]
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


def size(path: str) -> int:
    """Length of the journal in bytes, 0 where there is none: the mark from which later events are read."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def lines_from(path: str, offset: int) -> tuple[list[Event], int]:
    """Whole lines from ``offset`` on as parsed JSON, and the offset behind them.

    Each carries its own offset as ``_offset``. What is no JSON object is left out: QEMU writes a few words of
    its own among the first lines.
    """
    try:
        with open(path, "rb") as stream:
            stream.seek(offset)
            raw = stream.read()
    except FileNotFoundError:
        return [], offset
    whole = raw[: raw.rfind(b"\n") + 1]
    return list(_parse(whole, offset)), offset + len(whole)


def events_from(path: str, offset: int) -> tuple[list[Event], int]:
    """Events from ``offset`` on, and the offset behind them."""
    lines, end = lines_from(path, offset)
    return [line for line in lines if "event" in line], end


def newest(path: str, names: frozenset[str], start: int = 0) -> Iterator[Event]:
    """Events of these names, newest first, not looking before byte ``start``."""
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
                # The first line may have been cut: it is left to the next block.
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
    import json

    for line in raw.splitlines(keepends=True):
        if line.startswith(b"{"):
            try:
                parsed = json.loads(line)
            except ValueError:
                parsed = None
            if isinstance(parsed, dict):
                yield {**parsed, "_offset": offset}
        offset += len(line)


def deleted_device(event: Event) -> str:
    """Id of the device that a DEVICE_DELETED event tells is gone; '' for any other event.

    A vCPU takes its local APIC along. Under TCG QEMU 7.2 reports that one alone, by its path.
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
    """The first line from ``offset`` on for which ``wanted`` is true.

    :param timeout: seconds. :param alive: whether QEMU still runs. :param what: what is awaited, for errors.
    :raises NotReached: not seen in time. :raises MonitorGone: QEMU ended before.
    """
    deadline = time.monotonic() + timeout
    while True:
        # Asked before the look: a QEMU that ends writes its last words first.
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
