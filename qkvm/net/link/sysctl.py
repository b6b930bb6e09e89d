"""Settings of the kernel's network under /proc/sys, of this thread's network namespace."""

from __future__ import annotations

from qkvm.files import os_error


def read(key: str) -> str:
    """The value of a setting such as 'net/ipv4/ip_forward'; '' where this kernel has no such one.

    :raises HostError: it can't be read.
    """
    try:
        with open(f"/proc/sys/{key}", encoding="ascii") as stream:
            return stream.read().strip()
    except FileNotFoundError:
        return ""
    except OSError as error:
        raise os_error(error, f"cannot read {key}") from error


def write(key: str, value: str, *, optional: bool = False) -> None:
    """Change a setting.

    :param optional: one that this kernel does not have is no error. :raises HostError: it can't be written.
    """
    try:
        with open(f"/proc/sys/{key}", "w", encoding="ascii") as stream:
            stream.write(value)
    except OSError as error:
        if optional and isinstance(error, FileNotFoundError):
            return
        raise os_error(error, f"cannot write {key}") from error
