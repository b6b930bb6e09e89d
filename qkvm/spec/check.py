"""Checks that several kinds of definitions share; all raise :class:`~qkvm.errors.InvalidValue`."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Protocol

from qkvm import units
from qkvm.errors import InvalidValue

_ADDRESS = re.compile(
    r"(?:[0-9a-f]{4}:)?[0-9a-f]{2}:[01][0-9a-f]\.[0-7]|drive:\d+:\d+:\d+:\d+|usb:\d+:\d+(?:\.\d+)*|virtio-serial:\d+:\d+:\d+"
)
_ALIAS = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,62}")


def word(text: str, what: str) -> str:
    """Check that a text has only letters, digits, hyphens and underscores; return it."""
    if not text.isascii() or not text.replace("-", "a").replace("_", "a").isalnum():
        raise InvalidValue(
            f"{what} '{units.printable(text)}' is not allowed", hint="letters, digits, - and _ alone"
        )
    return text


def once(values: Iterable[str], what: str) -> None:
    """Refuse duplicate values; empty ones do not count."""
    seen: set[str] = set()
    for value in values:
        if value and value in seen:
            raise InvalidValue(f"{what} {units.printable(value)} is used twice in one domain")
        seen.add(value)


def between(number: int, lowest: int, highest: int, what: str) -> int:
    """Check that a number is within its limits (inclusive); return it."""
    if not lowest <= number <= highest:
        raise InvalidValue(f"{what} {number} is out of range", hint=f"{lowest} to {highest}")
    return number


def address(text: str, what: str) -> None:
    """Check a bus address: PCI ('0000:00:05.0'), drive:C:B:T:U, usb:BUS:PORT or virtio-serial:C:B:P."""
    if text and not _ADDRESS.fullmatch(text):
        raise InvalidValue(
            f"address '{units.printable(text)}' of {what} is not one", hint="such as 0000:00:05.0 or drive:0:0:0:1"
        )


def alias(text: str, what: str) -> None:
    """Check a device id set by the user; libvirt requires the prefix ua-, which avoids clashes with other ids."""
    if text and (not _ALIAS.fullmatch(text) or not text.startswith("ua-")):
        raise InvalidValue(
            f"alias '{units.printable(text)}' of {what} is not allowed", hint="ua- and letters, digits, -_."
        )


class Described(Protocol):
    """A definition with name and description: a domain, a network."""

    @property
    def name(self) -> str: ...  # noqa: D102

    @property
    def uuid(self) -> str: ...  # noqa: D102

    @property
    def title(self) -> str: ...  # noqa: D102

    @property
    def description(self) -> str: ...  # noqa: D102

    @property
    def metadata(self) -> dict[str, str]: ...  # noqa: D102


def described(noun: Described) -> None:
    """Check a title of one line, a description, and metadata with one XML element for each namespace."""
    units.check_text(noun.title, "title")
    units.check_unicode(noun.description, "description")
    for uri, text in noun.metadata.items():
        # Imported late, since most definitions have no XML.
        from qkvm import xml

        units.check_text(uri, "metadata namespace")
        units.check_unicode(text, f"metadata of {uri}")
        if xml.namespace(xml.parse(text, f"metadata of {units.printable(uri)}"), {}) != uri:
            raise InvalidValue(f"metadata of {units.printable(uri)} is an element of another namespace")


def cpu_list(text: str, what: str) -> None:
    """Check a list of CPUs as libvirt writes it: '0-3,^2,6'."""
    if not text or not all(re.fullmatch(r"\^?\d{1,4}|\d{1,4}-\d{1,4}", part) for part in text.split(",")):
        raise InvalidValue(f"{what} '{units.printable(text)}' is no list of CPUs", hint="such as 0-3,^2,6")
