"""Short files in /proc and /sys: a number, a word or a list of CPUs."""

from __future__ import annotations

import os

from qkvm.files import closing_fd, os_error


def text(path: str) -> str | None:
    """Return a file's text, stripped; None where it can't be read."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read().strip()
    except OSError:
        return None


def number(path: str) -> int | None:
    """Return the whole number in a file; None where there is none."""
    said = text(path)
    return int(said) if said and said.lstrip("-").isdigit() else None


def write(path: str, value: object, what: str) -> None:
    """Write a value to a file.

    :param what: what fails, for the error. :raises HostError: the kernel refuses it.
    """
    try:
        with closing_fd(os.open(path, os.O_WRONLY | os.O_CLOEXEC)) as fd:
            os.write(fd, str(value).encode())
    except OSError as error:
        raise os_error(error, what) from error


def cpus(path: str) -> list[int]:
    """Return the numbers in a list such as ``0-3,8`` (Documentation/core-api/cpu_hotplug of Linux), in order."""
    found: list[int] = []
    for part in (text(path) or "").split(","):
        first, _, last = part.partition("-")
        if first.isdigit() and (not last or last.isdigit()):
            found += range(int(first), int(last or first) + 1)
    return found


def numbered(folder: str, prefix: str) -> list[int]:
    """Return the numbers of the entries named ``prefix`` and a number, in order; an absent folder has none."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    ends = (name.removeprefix(prefix) for name in names if name.startswith(prefix))
    return sorted(int(end) for end in ends if end.isdigit())
