"""Changes of volumes that look first whether a guest has them, and in what format they are said to be."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from qkvm.domain import run as runs
from qkvm.domain.block.use import same, user_of
from qkvm.domain.handle import Handle, names
from qkvm.errors import InvalidState, InvalidValue, QkvmError
from qkvm.files import Undo
from qkvm.storage.image import formats
from qkvm.storage.pool import making
from qkvm.storage.pool.volume import Volume
from qkvm.units import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from qkvm.paths import Tree
    from qkvm.spec import pool as spec
    from qkvm.storage.pool.pool import Pool


def user(tree: Tree, path: str) -> str:
    """The name of a running domain that has this image, or whose definition names it; '' where none does."""
    found = user_of(tree, path)
    if found is not None:
        return found[0]
    for run in runs.all_runs(tree):
        if run.pid is not None and any(same(path, image) for image in images_of(Handle(tree, run.name))):
            return run.name
    return ""


def refuse_used(volume: Volume) -> None:
    """:raises InvalidState: a running domain uses the volume; the error names it."""
    name = user(volume.pool.tree, volume.path)
    if name:
        raise InvalidState(
            f"volume '{printable(volume.name)}' is in use by domain '{name}'", hint=f"qkvm shutdown {name}"
        )


def refuse_needed(volume: Volume, *, states: bool = True) -> None:
    """Refuse to change what others are based on; see :func:`qkvm.domain.image.needs.refuse_needed`."""
    from qkvm.domain.image import needs as imageuse

    imageuse.refuse_needed(volume.pool.tree, volume.path, volume.name, states=states)


def format_of(volume: Volume, given: str = "", *, convert: bool = False) -> str:
    """The format of a volume: as given, as it was made in, or as a definition says; else raw, if it looks so.

    What the first bytes look like decides nothing: a guest may have written them.

    :param convert: whether those are allowed that can only be converted.
    :raises InvalidValue: nothing tells it, and it looks like an image.
    """
    from qkvm.spec.pool import input_format, volume_format

    if given:
        return input_format(given) if convert else str(volume_format(given))
    with volume.opened() as fd:
        noted, look = formats.noted(fd), formats.look(fd).format
    found = noted or _format_said(volume.pool.tree, volume.path)
    if found:
        return found
    if look != "raw":
        raise unsaid(f"volume '{printable(volume.name)}'", look, "--input-format" if convert else "--format")
    return "raw"


def unsaid(what: str, look: str, option: str) -> InvalidValue:
    """The error about an image whose format nobody has said; what it looks like is a hint and no more."""
    from qkvm.spec.pool import INPUT_FORMATS

    listed = INPUT_FORMATS if option == "--input-format" else INPUT_FORMATS[:2]
    return InvalidValue(
        f"{what} looks like {look}, but its format must be said: it is not guessed",
        hint=f"{option} {look}, if it is one" if look in listed else f"{option} " + " or ".join(listed),
    )


def delete(volume: Volume, *, states: bool = False, checked: bool = False) -> None:
    """Remove a volume.

    :param states: also where snapshots of a domain have states in it, and with LVM's snapshots of it.
    :param checked: the caller has looked who needs it.
    :raises InvalidState: a running domain uses it or a snapshot that would go with it, or others are based on it.
    """
    if not checked:
        refuse_used(volume)
        refuse_needed(volume, states=not states)
        for name in volume.pool.backend.snapshots(volume.name) if states else ():
            refuse_used(Volume(volume.pool, name))
            refuse_needed(Volume(volume.pool, name))
    making.delete(volume, snapshots=states)


def resize(
    volume: Volume, size: int, *, delta: bool = False, shrink: bool = False, allocate: bool = False, fmt: str = ""
) -> None:
    """Give a volume another capacity in bytes; see :func:`qkvm.storage.pool.making.resize`.

    A logical volume may grow while a guest runs on it: blockresize tells the guest.

    :param delta: ``size`` is how much larger it becomes, or smaller with ``shrink``. :param fmt: its format.
    """
    if shrink or volume.pool.type == "dir":
        refuse_used(volume)
    refuse_needed(volume, states=False)
    fmt = format_of(volume, fmt)
    if delta:
        info = volume.info()
        present = info.physical if fmt == "raw" else info.capacity
        size = present - size if shrink else present + size
        if size < 0:
            raise InvalidValue(f"can't shrink capacity below zero: it is {present} bytes")
    making.resize(volume, size, fmt=fmt, shrink=shrink, allocate=allocate)


def wipe(volume: Volume, *, checked: bool = False) -> None:
    """Write zeros over a volume.

    :param checked: the caller has looked who needs it. :raises InvalidState: as :func:`delete`.
    """
    if not checked:
        refuse_used(volume)
        refuse_needed(volume)
    making.wipe(volume)


def upload(
    volume: Volume, source: int, *, offset: int = 0, length: int | None = None, sparse: bool = False
) -> None:  # fmt: skip
    """Write a file into a volume; see :mod:`qkvm.storage.pool.making`, and :func:`delete` for who needs it."""
    refuse_used(volume)
    refuse_needed(volume)
    making.upload(volume, source, offset=offset, length=length, sparse=sparse)


def clone(
    source: Volume, pool: Pool, wanted: spec.Volume,
    *, fmt: str = "", reflink: bool = False, preallocate: bool = False, grow: int = 0,
    report: Callable[[float], object] | None = None,
) -> Volume:  # fmt: skip
    """Make a volume of another one's content; see :func:`qkvm.storage.pool.making.clone`.

    :param grow: capacity in bytes that it has at least. :raises InvalidState: a running domain may be writing to
        the other one.
    """
    refuse_used(source)
    if preallocate:
        fmt = format_of(source, fmt)
    made = making.clone(source, pool, wanted, fmt=fmt, reflink=reflink, preallocate=preallocate, report=report)
    if grow and grow > made.info().capacity:
        with Undo() as undo:
            undo.add(making.delete, made)
            making.resize(made, grow, fmt=str(wanted.format))
            undo.commit()
    return made


def take(
    path: str, pool: Pool, wanted: spec.Volume, *, fmt: str = "", report: Callable[[float], object] | None = None
) -> Volume:  # fmt: skip
    """Make a volume of an image that lies anywhere, written anew; see :func:`qkvm.storage.pool.making.convert`.

    :param fmt: the image's format, one of spec.pool.INPUT_FORMATS; it is not guessed.
    :raises InvalidState: a running domain may be writing to the image.
    """
    from qkvm.spec.pool import input_format
    from qkvm.storage.image import image

    name = user(pool.tree, path)
    if name:
        raise InvalidState(f"'{printable(path)}' is in use by domain '{name}'", hint=f"qkvm shutdown {name}")
    if fmt:
        input_format(fmt)
    fd = image.open_image(path, "raw")
    try:
        if not fmt:
            raise unsaid(printable(path), formats.look(fd).format, "--input-format")
        return making.convert(fd, path, fmt, pool, wanted, report=report)
    finally:
        os.close(fd)


def images_of(domain: Handle) -> list[str]:
    """The images that a definition names; a damaged one names none."""
    try:
        disks = domain.definition.disks
    except QkvmError:
        return []
    return [path for disk in disks for path in (disk.path, *(layer.path for layer in disk.backing)) if path]


def _format_said(tree: Tree, path: str) -> str:
    """The format in which a definition has an image; '' where none has it, or two differ."""
    said = set()
    for name in names(tree):
        try:
            disks = Handle(tree, name).definition.disks
        except QkvmError:
            continue
        layers = [(disk.path, disk.format) for disk in disks]
        layers += [(layer.path, layer.format) for disk in disks for layer in disk.backing]
        said |= {str(fmt) for image, fmt in layers if image and same(path, image)}
    return said.pop() if len(said) == 1 else ""
