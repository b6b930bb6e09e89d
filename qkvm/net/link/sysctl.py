"""The kernel's network settings under /proc/sys, in this thread's network namespace."""

from __future__ import annotations

from qkvm.files import os_error


def read(key: str) -> str:
    """Return a setting such as 'net/ipv4/ip_forward'; '' where this kernel lacks it."""
    try:
        with open(f"/proc/sys/{key}", encoding="ascii") as stream:
            return stream.read().strip()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise os_error(error, f"cannot read {key}") from error


def write(key: str, value: str, *, optional: bool = False) -> None:
    """Change a setting; with ``optional``, one that this kernel lacks is no error."""
    try:
        with open(f"/proc/sys/{key}", "w", encoding="ascii") as stream:
            stream.write(value)
    except OSError as error:
        if optional and isinstance(error, FileNotFoundError):
            return
        raise os_error(error, f"cannot write {key}") from error
