"""Change volumes, unless a guest uses them, and find out their format."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from qkvm.domain import run as runs
from qkvm.domain.block.use import user_of
from qkvm.domain.handle import Handle, names
from qkvm.errors import InvalidState, InvalidValue, QkvmError
from qkvm.files import Undo, identity
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
    """Return the name of a running domain that has this image now or in its definition; '' for none."""
    found = user_of(tree, path)
    if found is not None:
        return found[0]
    for run in runs.live_runs(tree):
        if identity(path) in map(identity, images_of(Handle(tree, run.name))):
            return run.name
    return ""


def refuse_used(volume: Volume, instead: str = "") -> None:
    """Refuse a volume that a running domain uses.

    :param instead: a verb that does the same to a disk in use, with {} where the domain's name goes.
    :raises InvalidState: naming the domain.
    """
    name = user(volume.pool.tree, volume.path)
    if name:
        raise InvalidState(
            f"volume '{printable(volume.name)}' is in use by domain '{name}'",
            hint=instead.format(name) or f"qkvm shutdown {name}",
        )


def refuse_needed(volume: Volume, *, states: bool = True) -> None:
    """Refuse to change a volume that others are based on; see :func:`qkvm.domain.image.needs.refuse_needed`."""
    from qkvm.domain.image import needs as imageuse

    imageuse.refuse_needed(volume.pool.tree, volume.path, volume.name, states=states)


def format_of(volume: Volume, given: str = "", *, convert: bool = False) -> str:
    """Return the format of a volume: as given, noted when it was made, or named by a definition; else raw.

    Its content does not decide: a guest may have written it.

    :param convert: allow formats that can only be converted.
    :raises InvalidValue: the format is not known, and the volume looks like an image.
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
    """Return the error about an image whose format is not known; its look is only a hint."""
    from qkvm.spec.pool import INPUT_FORMATS

    listed = INPUT_FORMATS if option == "--input-format" else INPUT_FORMATS[:2]
    return InvalidValue(
        f"{what} looks like {look}, but its format must be said: it is not guessed",
        hint=f"{option} {look}, if it is one" if look in listed else f"{option} " + " or ".join(listed),
    )


def delete(volume: Volume, *, states: bool = False, checked: bool = False) -> None:
    """Remove a volume.

    :param states: also if a domain's snapshots have states in it, and with its LVM snapshots.
    :param checked: the caller has checked that nothing needs it.
    :raises InvalidState: a running domain uses it or one of the LVM snapshots, or others are based on it.
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

    A logical volume may grow while a guest uses it; blockresize then tells the guest.

    :param delta: ``size`` is the difference. :param fmt: its format.
    """
    if shrink or volume.pool.type == "dir":
        instead = "" if shrink or delta else f"qkvm blockresize {{}} {printable(volume.path)} {size}B"
        refuse_used(volume, instead or "a disk in use can only grow, to a size: qkvm blockresize {}")
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

    :param checked: the caller has checked that nothing needs it. :raises InvalidState: as :func:`delete`.
    """
    if not checked:
        refuse_used(volume)
        refuse_needed(volume)
    making.wipe(volume)


def upload(
    volume: Volume, source: int, *, offset: int = 0, length: int | None = None, sparse: bool = False
) -> None:
    """Write a file into a volume; see :func:`qkvm.storage.pool.making.upload`.

    :raises InvalidState: as :func:`delete`.
    """
    refuse_used(volume)
    refuse_needed(volume)
    making.upload(volume, source, offset=offset, length=length, sparse=sparse)


def clone(
    source: Volume, pool: Pool, wanted: spec.Volume,
    *, fmt: str = "", reflink: bool = False, preallocate: bool = False, grow: int = 0,
    report: Callable[[float], object] | None = None,
) -> Volume:  # fmt: skip
    """Copy a volume; see :func:`qkvm.storage.pool.making.clone`.

    :param grow: its smallest capacity in bytes. :raises InvalidState: a running domain may write to the source.
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
) -> Volume:
    """Convert an image anywhere on the host to a volume; see :func:`qkvm.storage.pool.making.convert`.

    :param fmt: the image's format, one of spec.pool.INPUT_FORMATS; it is not guessed.
    :raises InvalidState: a running domain may write to the image.
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
    """Return the images in a domain's definition, none for a damaged one."""
    try:
        disks = domain.definition.disks
    except QkvmError:
        return []
    return [path for disk in disks for path in (disk.path, *(layer.path for layer in disk.backing)) if path]


def _format_said(tree: Tree, path: str) -> str:
    """Return the format of an image in the definitions; '' if none names it, or two differ."""
    said = set()
    for name in names(tree):
        try:
            disks = Handle(tree, name).definition.disks
        except QkvmError:
            continue
        layers = [(disk.path, disk.format) for disk in disks]
        layers += [(layer.path, layer.format) for disk in disks for layer in disk.backing]
        said |= {str(fmt) for image, fmt in layers if image and identity(path) == identity(image)}
    return said.pop() if len(said) == 1 else ""
