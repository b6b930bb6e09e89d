"""Programs beside a QEMU that serve one run of a domain: swtpm for its TPM, virtiofsd for a shared folder, passt
for a NIC.

Each talks to its QEMU over a connected socket whose other end QEMU alone has: when QEMU is gone, however it went,
the program reads the end of it and goes too. The record names each, so that one which hangs is ended by the verb
that comes by next.
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
"""Seconds in which a sidecar ends by itself when QEMU is gone; it takes 0.01."""

_GRACE = 1.0

_GATE = ("/bin/sh", "-c", 'read -r go && exec "$@" </dev/null', "sh")
"""Lets a program begin when it is in the record, and not at all where who was to write that has been killed."""


class Ends(NamedTuple):
    """The two fds of a sidecar's socket: ``qemu`` is a connected one, ``own`` what the sidecar is given."""

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
    """Start a program beside the QEMU that is about to be started, and record it.

    :param name: what it is called in the record and in errors. :param fd: its end of the socket.
    :param folder: where it starts, entered before it becomes ``user``.
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
    """See the sidecars of a run end whose QEMU is gone; end those that do not. Call it under the domain's lock.

    :param patience: seconds until a signal helps.
    """
    for entry in run.record.pop("sidecars", []):
        process.see_end(entry["pid"], entry["started"], patience, grace=_GRACE)
    write(run)


def end_one(run: Run, name: str, patience: float = GOES_WITHIN) -> None:
    """See the one of that name end whose QEMU has hung up, or end it; absence is no error."""
    listed = run.record.get("sidecars", [])
    for entry in listed:
        if entry["name"] == name:
            process.see_end(entry["pid"], entry["started"], patience, grace=_GRACE)
    run.record["sidecars"] = [entry for entry in listed if entry["name"] != name]
    remove(_log(run, name))


def lives(run: Run, name: str) -> bool:
    """Whether the one of that name runs."""
    return any(
        process.start_time(entry["pid"]) == entry["started"]
        for entry in run.record.get("sidecars", ())
        if entry["name"] == name
    )


def words(run: Run, name: str) -> str:
    """What the one of that name has written."""
    return (read_bytes(_log(run, name)) or b"").decode("utf-8", "replace")


def failure(run: Run) -> str:
    """The last words of a sidecar that has ended, with its name; '' where all live.

    A QEMU that does not come up says little of it.
    """
    for entry in run.record.get("sidecars", []):
        if process.start_time(entry["pid"]) != entry["started"]:
            said = words(run, entry["name"])
            if said.strip():
                return f"{entry['name']}: {process.last_line(said)}"
    return ""


def messages(run: Run) -> list[str]:
    """What dominfo says of those that have ended while their QEMU lives on: nothing takes their place."""
    return [
        f"{entry['name']} has ended: what it served hangs in the guest until it is destroyed and started anew"
        for entry in run.record.get("sidecars", [])
        if process.start_time(entry["pid"]) != entry["started"]
    ]


def logs(run: Run) -> list[str]:
    """Paths of what the sidecars have written."""
    return [_log(run, entry["name"]) for entry in run.record.get("sidecars", [])]


def _log(run: Run, name: str) -> str:
    return os.path.join(run.folder, f"{name}.log")
