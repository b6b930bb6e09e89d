"""<disk> as the destination of a copy: a source and a driver, and nothing that a guest would see."""

from __future__ import annotations

from typing import NamedTuple

from qkvm import xml
from qkvm.spec.libvirt.node import Source
from qkvm.spec.libvirt.text import root_of
from qkvm.units import printable

_ATTRIBUTES = {"file": "file", "block": "dev"}


class Target(NamedTuple):
    """Path and format of an image; '' of ``format`` was not said."""

    path: str
    format: str


def loads(text: bytes | str, path: str) -> Target:
    """The destination that a <disk> describes.

    :raises DefinitionError: not XML, no disk, or it asks for what qkvm can't do; with the line.
    """
    root = root_of(text, Source(path), "disk")
    with root:
        kind = root.take("type", "file")
        root.drop("device")
        if kind not in _ATTRIBUTES:
            raise root.refusal(f"type '{printable(kind)}' is not supported", hint="file or block")
        source = root.child("source")
        if source is None:
            raise root.malformed("<source> is missing")
        with source:
            source.drop("index")
            found = source.required(_ATTRIBUTES[kind])
        form = ""
        driver = root.child("driver")
        if driver is not None:
            with driver:
                driver.only("name", "qemu")
                form = driver.take("type")
        root.drop_children("target", "backingStore")
    return Target(found, form)


def dumps(target: Target, *, block: bool) -> str:
    """The <disk> of a destination."""
    root = xml.element("disk", type="block" if block else "file")
    root.add("source", **{"dev" if block else "file": target.path})
    if target.format:
        root.add("driver", type=target.format)
    return xml.dump(root)
