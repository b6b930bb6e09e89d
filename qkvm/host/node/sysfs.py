"""What the kernel tells in /proc and /sys: short files with a number, a word or a list of CPUs."""

from __future__ import annotations

import os

from qkvm.files import os_error


def text(path: str) -> str | None:
    """What a file says, without the space around it; None where it is not there or says that it can't."""
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            return stream.read().strip()
    except OSError:
        return None


def number(path: str) -> int | None:
    """The whole number in a file; None where there is none."""
    said = text(path)
    return int(said) if said and said.lstrip("-").isdigit() else None


def write(path: str, value: object, what: str) -> None:
    """Tell the kernel a value.

    :param what: what that is meant to do, for the error.
    :raises HostError: there is no such file, or the kernel refuses the value.
    """
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, str(value).encode())
        finally:
            os.close(fd)
    except OSError as error:
        raise os_error(error, what) from error


def cpus(path: str) -> list[int]:
    """The numbers in a list such as ``0-3,8`` (Documentation/core-api/cpu_hotplug of Linux), in order."""
    found: list[int] = []
    for part in (text(path) or "").split(","):
        first, _, last = part.partition("-")
        if first.isdigit() and (not last or last.isdigit()):
            found += range(int(first), int(last or first) + 1)
    return found


def numbered(folder: str, prefix: str) -> list[int]:
    """The numbers of the entries called ``prefix`` and a number, in order; an absent folder has none."""
    try:
        names = os.listdir(folder)
    except OSError:
        return []
    return sorted(int(name.removeprefix(prefix)) for name in names if _is_numbered(name, prefix))


def _is_numbered(name: str, prefix: str) -> bool:
    return name.startswith(prefix) and name.removeprefix(prefix).isdigit()
