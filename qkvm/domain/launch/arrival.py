"""Wait until a QEMU that was just started is up, or say why it is not."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING

from qkvm import files
from qkvm.domain.block import use as diskuse
from qkvm.domain.device import sidecar
from qkvm.errors import HostError, LaunchError
from qkvm.host import journal, process

if TYPE_CHECKING:
    from collections.abc import Callable

    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run

READY_TIMEOUT = 60.0
"""Seconds until QEMU must have run its start script; it usually takes 0.03."""


def await_ready(domain: Handle, run: Run, argv: list[str], pid: int, commands: int) -> None:
    """Wait until a domain's QEMU holds its lock and has run the whole start script.

    :raises LaunchError: it ended before, or refused a command.
    """
    await_up(run, pid, commands, lambda message: launch_error(domain, argv, pid, message))


def await_up(run: Run, pid: int, commands: int, failure: Callable[[str], HostError]) -> None:
    """Wait for any QEMU with a run's folder.

    :param failure: makes the error from a message, '' where QEMU has ended.
    """
    deadline = time.monotonic() + READY_TIMEOUT
    offset, answered = 0, 0
    while answered <= commands or run.pid != pid:
        ended = process.start_time(pid) is None
        lines, offset = journal.lines_from(run.journal, offset)
        for line in lines:
            if "error" in line:
                raise failure(f"QEMU refused: {line['error'].get('desc')}")
            answered += "return" in line
        if ended:
            raise failure("")
        if time.monotonic() > deadline:
            raise failure(f"QEMU was not ready within {READY_TIMEOUT:g} s")
        time.sleep(0.001)


def launch_error(domain: Handle, argv: list[str], pid: int, message: str = "") -> LaunchError:
    """Return the error for a QEMU that did not come up; without a message it quotes QEMU's last output."""
    log = domain.tree.qemu_log(domain.name)
    words = (files.read_bytes(log) or b"").decode("utf-8", "replace").strip()
    code = 0
    if not message:
        code = process.exit_code(pid) or 0
        message = diskuse.in_use(domain, _images(domain, words), words)
        message = message or f"QEMU ended at its start ({process.describe_exit(code)}): {process.last_line(words)}"
    run = domain.run
    other = sidecar.failure(run) if run is not None else ""
    if other:
        message = f"{message}; {other}"
    return LaunchError(message, argv=argv, code=code, stderr=words, log=log)


def _images(domain: Handle, words: str) -> list[str]:
    """Return the paths of a start's images, first the one whose fd set QEMU's output names."""
    found = re.search(r"/dev/fdset/(\d+)", words)
    paths: list[str] = []
    for entry in domain.run.record["disks"] if domain.run is not None else []:
        layers = [entry["path"], *(layer["path"] for layer in entry["spec"].get("backing", ()))]
        for path, fdset in zip(reversed(layers), entry["images"]["fdsets"].values(), strict=False):
            paths.insert(0 if found and fdset == int(found[1]) else len(paths), path)
    return paths


def kill(pid: int) -> None:
    """End a QEMU that was just started."""
    pidfd = process.open_pidfd(pid)
    if pidfd is not None:
        try:
            process.end(pidfd, grace=0.5)
        finally:
            os.close(pidfd)
