"""Programs beside a QEMU: swtpm for its TPM, virtiofsd for a shared folder, passt for a NIC.

Each talks to QEMU over a connected socket whose other end only QEMU has: when QEMU ends, the socket closes and the
program ends too. The record has all of them, so that the next verb ends one that hangs.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

from qkvm.domain.run import write
from qkvm.files import read_bytes, remove
from qkvm.host import process

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qkvm.domain.run import Run
    from qkvm.domain.tuning.place import Place

GOES_WITHIN = 2.0
"""Seconds in which a sidecar must end after its QEMU; it takes 0.01."""

_GRACE = 1.0

_GATE = ("/bin/sh", "-c", 'read -r go && exec "$@" </dev/null', "sh")
"""Starts the program when it is in the record, and not at all if qkvm is killed before that."""


class Ends(NamedTuple):
    """The two fds of a sidecar's socket: ``qemu`` is QEMU's end, ``own`` the sidecar's."""

    qemu: int
    own: int


def start(
    run: Run,
    place: Place,
    name: str,
    argv: Sequence[str],
    fd: int,
    *,
    folder: str = "/",
    user: tuple[int, int] | None = None,
) -> None:
    """Start a program beside a QEMU, and record it.

    :param name: its name in the record and in errors. :param fd: its end of the socket.
    :param folder: its working directory, entered before it becomes ``user``.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
    log = os.open(_log(run, name), flags, 0o600)
    wait, go = os.pipe2(os.O_CLOEXEC)
    try:
        with place.entered():
            pid = process.spawn(
                [*_GATE, *argv], stdin=wait, stdout=log, stderr=log, pass_fds=(fd,), folder=folder, user=user
            )
        started = process.start_time(pid) or 0
        run.record.setdefault("sidecars", []).append({"name": name, "pid": pid, "started": started})
        write(run)
        place.take(pid)
        os.write(go, b"\n")
    finally:
        for one in (log, wait, go):
            os.close(one)


def end(run: Run, patience: float = GOES_WITHIN) -> None:
    """Wait until the sidecars of a run have ended whose QEMU has; call it under the domain's lock.

    :param patience: seconds after which they are ended by signals.
    """
    for entry in run.record.pop("sidecars", []):
        process.see_end(entry["pid"], entry["started"], patience, grace=_GRACE)
    write(run)


def end_one(run: Run, name: str, patience: float = GOES_WITHIN) -> None:
    """Wait until the sidecar of that name has ended, or end it; QEMU has closed its socket. There may be none."""
    listed = run.record.get("sidecars", [])
    for entry in listed:
        if entry["name"] == name:
            process.see_end(entry["pid"], entry["started"], patience, grace=_GRACE)
    run.record["sidecars"] = [entry for entry in listed if entry["name"] != name]
    remove(_log(run, name))


def lives(run: Run, name: str) -> bool:
    """Return whether the sidecar of that name runs."""
    return any(
        process.start_time(entry["pid"]) == entry["started"]
        for entry in run.record.get("sidecars", ())
        if entry["name"] == name
    )


def words(run: Run, name: str) -> str:
    """Return the log of the sidecar of that name."""
    return (read_bytes(_log(run, name)) or b"").decode("utf-8", "replace")


def failure(run: Run) -> str:
    """Return name and last output of a sidecar that has ended, '' if all run: it may be why QEMU did not start."""
    for entry in run.record.get("sidecars", []):
        if process.start_time(entry["pid"]) != entry["started"]:
            said = words(run, entry["name"])
            if said.strip():
                return f"{entry['name']}: {process.last_line(said)}"
    return ""


def messages(run: Run) -> list[str]:
    """Return dominfo's messages about sidecars that have ended before their QEMU."""
    return [
        f"{entry['name']} has ended: what it served hangs until the domain is destroyed and started again"
        for entry in run.record.get("sidecars", [])
        if process.start_time(entry["pid"]) != entry["started"]
    ]


def logs(run: Run) -> list[str]:
    """Return the paths of the sidecars' logs."""
    return [_log(run, entry["name"]) for entry in run.record.get("sidecars", [])]


def _log(run: Run, name: str) -> str:
    return os.path.join(run.folder, f"{name}.log")
