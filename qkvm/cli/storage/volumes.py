"""Verbs on volumes."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import contextmanager

from qkvm.api.storage import Pools
from qkvm.cli.output import json_text, measured, pairs, print_xml, show_value, table
from qkvm.cli.parse import UsageError
from qkvm.cli.storage.pools import find
from qkvm.errors import InvalidValue
from qkvm.files import os_error
from qkvm.units import parse_bytes, pretty_size, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from qkvm.api.storage import Pool, Volume
    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args
    from qkvm.spec import pool as spec
    from qkvm.spec.size import Size
    from qkvm.storage.pool.backend import VolumeInfo


def _pool(context: Context, args: Args) -> Pool:
    return find(context, args.required("pool"))


def _volume(context: Context, args: Args, pool: str = "pool") -> Volume:
    """Return the volume that <vol> names, in the pool that an option names."""
    name = args.text(pool) if args.given(pool) else None
    return _named(context, args.required("vol"), find(context, name) if name else None)


def _named(context: Context, text: str, pool: Pool | None) -> Volume:
    """Return the volume with a name in ``pool``, or without a pool the one with a path or key."""
    return pool.volumes[text] if pool is not None else Pools(context.tree).volume(text)


def vol_list(context: Context, args: Args) -> None:
    """List the volumes of a pool."""
    found = _pool(context, args).volumes.all()
    if args.json:
        return context.out(json_text([_plain(info) for info in found]))
    header = not context.quiet
    if args.flag("details"):
        rows = [
            (info.name, info.path, info.type, pretty_size(info.capacity), pretty_size(info.allocation))
            for info in found
        ]
        return context.out(table(("Name", "Path", "Type", "Capacity", "Allocation"), rows, header=header))
    return context.out(table(("Name", "Path"), [(info.name, info.path) for info in found], header=header))


def _plain(info: VolumeInfo) -> dict[str, object]:
    return measured(info._asdict(), bytes="capacity allocation physical")


def vol_info(context: Context, args: Args) -> None:
    """Show a volume."""
    info = _volume(context, args).info()
    if args.json:
        return context.out(json_text(_plain(info)))
    second = ("Physical", info.physical) if args.flag("physical") else ("Allocation", info.allocation)
    sizes = [
        (label, f"{size} bytes" if args.flag("bytes") else pretty_size(size))
        for label, size in (("Capacity", info.capacity), second)
    ]
    return context.out(pairs((("Name", info.name), ("Type", info.type), *sizes)))


def vol_path(context: Context, args: Args) -> None:
    """Print the path of a volume."""
    show_value(context, args, path=_volume(context, args).path)


def vol_key(context: Context, args: Args) -> None:
    """Print the key of a volume."""
    show_value(context, args, key=_volume(context, args).info().key)


def vol_name(context: Context, args: Args) -> None:
    """Print the name of a volume."""
    show_value(context, args, name=_volume(context, args).name)


def vol_pool(context: Context, args: Args) -> None:
    """Print the pool of a volume."""
    pool = _volume(context, args).pool
    show_value(context, args, pool=pool.uuid if args.flag("uuid") else pool.name)


def vol_dumpxml(context: Context, args: Args) -> None:
    """Print a volume as libvirt's XML."""
    from qkvm.spec.libvirt.pool import dump_volume

    if args.json:
        return context.out(json_text(_plain(_volume(context, args).info())))
    return print_xml(context, args, dump_volume(_volume(context, args).told()))


def vol_create_as(context: Context, args: Args) -> None:
    """Create a volume from options."""
    from qkvm.spec import pool as spec
    from qkvm.spec.disk import DiskFormat
    from qkvm.spec.libvirt.pool import describe_volume

    pool = _pool(context, args)
    given, backing = args.text("backing-vol"), ""
    if given:
        backing = _named(context, given, None if "/" in given else pool).path
    fmt, below, taken = args.text("format"), args.text("backing-vol-format"), args.text("allocation")
    kind = pool.backend.definition.type
    if kind is spec.PoolType.LOGICAL and below == "lvm2":
        below = None
    wanted = spec.validate_volume(spec.Volume(
        name=args.required("name"), capacity=_kib(args.required("capacity"), "capacity"),
        allocation=None if taken is None else _kib(taken, "allocation"),
        format=spec.volume_format(fmt) if fmt else DiskFormat.RAW, backing=backing,
        backing_format=spec.volume_format(below, "backing format") if below else None,
    ), kind)  # fmt: skip
    if args.flag("print-xml"):
        return context.out(describe_volume(wanted))
    pool.volumes.create(wanted, preallocate=args.flag("prealloc-metadata"))
    return context.say(f"Vol {wanted.name} created\n")


def vol_create(context: Context, args: Args) -> None:
    """Create a volume from libvirt's XML."""

    pool = _pool(context, args)
    wanted = _described(args, pool)
    pool.volumes.create(wanted, preallocate=args.flag("prealloc-metadata"))
    context.say(f"Vol {wanted.name} created from {args.required('file')}\n")


def vol_create_from(context: Context, args: Args) -> None:
    """Create a volume from libvirt's XML with the content of another volume."""

    pool = _pool(context, args)
    wanted = _described(args, pool)
    source = _named(context, args.required("vol"), find(context, args.text("inputpool") or args.required("pool")))
    if wanted.backing:
        raise InvalidValue("a volume that is made from another one has that one's backing volume")
    fmt = source.format(args.text("input-format") or "", convert=True)
    with _progress(context, args) as report:
        made = source.clone(
            pool, wanted, fmt=fmt, reflink=args.flag("reflink"),
            preallocate=args.flag("prealloc-metadata"), grow=wanted.capacity * 1024, report=report,
        )  # fmt: skip
    context.say(f"Vol {made.name} created from input vol {source.name}\n")


def vol_import(context: Context, args: Args) -> None:
    """Create a volume from an image file outside the pool."""
    from qkvm.spec import pool as spec
    from qkvm.spec.size import Size

    pool, path = _pool(context, args), os.path.abspath(args.required("file"))
    kind, stem = pool.backend.definition.type, os.path.splitext(os.path.basename(path))[0]
    is_file = kind is spec.PoolType.DIR
    fmt = spec.volume_format(args.text("format") or ("qcow2" if is_file else "raw"))
    name = args.text("name") or (f"{stem}.{fmt}" if is_file else stem)
    # The capacity is a placeholder: the image's own is used.
    wanted = spec.validate_volume(spec.Volume(name=name, capacity=Size(1), format=fmt), kind)
    with _progress(context, args) as report:
        pool.volumes.take(path, wanted, fmt=args.text("input-format") or "", report=report)
    context.say(f"Vol {wanted.name} created from {printable(path)}\n")


@contextmanager
def _progress(context: Context, args: Args) -> Iterator[Callable[[float], object] | None]:
    """Yield a function that prints a conversion's progress on stderr; None without --verbose or a terminal."""
    if not args.flag("verbose") and not (sys.stdout and sys.stdout.isatty()):
        yield None
        return
    shown = False

    def report(share: float) -> None:
        nonlocal shown
        shown = True
        context.progress(f"\rConverting: [{share:5.2f} %]")

    try:
        yield report
    except BaseException:
        if shown:
            context.progress("\n")
        raise
    if shown:
        context.progress("\rConverting: [100.00 %]\n")


def vol_clone(context: Context, args: Args) -> None:
    """Copy a volume within its pool."""
    from qkvm.spec import pool as spec
    from qkvm.spec.libvirt.pool import describe_volume
    from qkvm.spec.size import Size

    source, fmt = _volume(context, args), args.text("format") or ""
    if args.flag("prealloc-metadata") or args.flag("print-xml"):
        fmt = source.format(fmt)
    wanted = spec.validate_volume(spec.Volume(
        name=args.required("newname"), capacity=Size(-(-source.info().capacity // 1024)),
        format=spec.volume_format(fmt or "raw"),
    ), source.pool.backend.definition.type)  # fmt: skip
    if args.flag("print-xml"):
        return context.out(describe_volume(wanted))
    source.clone(
        source.pool, wanted, fmt=fmt, reflink=args.flag("reflink"),
        preallocate=args.flag("prealloc-metadata"),
    )  # fmt: skip
    return context.say(f"Vol {wanted.name} cloned from {source.name}\n")


def vol_delete(context: Context, args: Args) -> None:
    """Remove a volume."""

    volume = _volume(context, args)
    volume.delete(states=args.flag("delete-snapshots"))
    context.say(f"Vol {volume.name} deleted\n")


def vol_resize(context: Context, args: Args) -> None:
    """Resize a volume."""

    volume, text = _volume(context, args), args.required("capacity")
    shrink, delta = args.flag("shrink"), args.flag("delta")
    if text.startswith("-"):
        if not shrink:
            raise UsageError("negative size requires --shrink")
        text, delta = text[1:], True
    volume.resize(
        parse_bytes(text, what="capacity"), delta=delta, shrink=shrink, allocate=args.flag("allocate"),
        fmt=args.text("format") or "",
    )  # fmt: skip
    context.say(
        f"Size of volume '{volume.name}' successfully changed {'by' if delta else 'to'} {printable(text)}\n"
    )


def vol_wipe(context: Context, args: Args) -> None:
    """Overwrite a volume with zeros."""

    algorithm = args.text("algorithm") or "zero"
    if algorithm != "zero":
        raise InvalidValue(
            f"algorithm '{printable(algorithm)}' is not supported",
            hint="zero; for others: shred PATH, or scrub PATH",
        )
    volume = _volume(context, args)
    volume.wipe()
    context.say(f"Vol {volume.name} wiped\n")


def vol_upload(context: Context, args: Args) -> None:
    """Write a file's content into a volume."""

    volume, path = _volume(context, args), args.required("file")
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise os_error(error, f"cannot read '{printable(path)}'") from error
    try:
        volume.upload(fd, offset=_bytes(args, "offset") or 0, length=_bytes(args, "length") or None,
               sparse=args.flag("sparse"))  # fmt: skip
    finally:
        os.close(fd)


def vol_download(context: Context, args: Args) -> None:
    """Write a volume's content to a file."""

    volume, path = _volume(context, args), args.required("file")
    made = not os.path.lexists(path)
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | (os.O_CREAT | os.O_EXCL if made else 0), 0o666)
    except OSError as error:
        raise os_error(error, f"cannot create {printable(path)}") from error
    try:
        if stat.S_ISREG(os.fstat(fd).st_mode):
            if os.path.samestat(os.fstat(fd), os.stat(volume.path)):
                raise InvalidValue("the file is the volume itself")
            os.ftruncate(fd, 0)
        volume.download(fd, offset=_bytes(args, "offset") or 0, length=_bytes(args, "length") or None,
                 sparse=args.flag("sparse"))  # fmt: skip
    except BaseException:
        if made:
            os.unlink(path)
        raise
    finally:
        os.close(fd)


def _described(args: Args, pool: Pool) -> spec.Volume:
    from qkvm.cli.common import read_text
    from qkvm.spec.libvirt.pool import load_volume

    return load_volume(*read_text(args.required("file")), pool.backend.definition.type)


def _kib(text: str, what: str) -> Size:
    from qkvm.spec.size import Size
    from qkvm.units import parse_size

    return Size(parse_size(text, default="B", what=what))


def _bytes(args: Args, name: str) -> int | None:
    """Return the value of a number that is too large for virsh's int options."""
    text = args.text(name)
    return None if text is None else parse_bytes(text, what=name)
