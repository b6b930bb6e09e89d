"""Verbs on base images."""

from __future__ import annotations

import os
import sys

from qkvm.api.storage import Images
from qkvm.cli.output import json_text, pairs, table
from qkvm.cli.parse import UsageError
from qkvm.units import pretty_size, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args
    from qkvm.storage.base.checksum import Checksum
    from qkvm.storage.base.store import Base


def image_import(context: Context, args: Args) -> None:
    """Add a base image from a file or the web."""
    from qkvm.storage.base import store
    from qkvm.storage.media import osinfo

    place = args.required("place")
    name = store.check(args.text("name") or store.default_name(place))
    limit = args.size("max-size")
    tell = Teller(context)
    try:
        source = store.Source(
            place, args.text("format") or "", _expected(args, place),
            store.SIZE_MAX if limit is None else limit * 1024,
        )  # fmt: skip
        made = context.host.images.take(name, source, tell)
    finally:
        tell.end()
    context.say(f"Image {made.name} imported from {printable(place)}\n")
    if system := osinfo.line(osinfo.of_image(made.path, made.source)):
        context.say(f"It is {system}\n")
    if not made.checksum:
        context.say(f"sha256 {made.source_sha256 or made.sha256}\n")


def _expected(args: Args, place: str) -> Checksum | None:
    """Return the checksum that the options ask for.

    :raises UsageError: several ask for one, or an option lacks the one that it belongs to.
    """
    from qkvm.storage.base import checksum, store

    for one, other in (("sha256", "sha512"), ("sha256", "checksums"), ("sha512", "checksums")):
        args.exclusive(one, other)
    args.needs("keyring", "checksums")
    args.needs("signature", "keyring")
    for kind in ("sha256", "sha512"):
        given = args.text(kind)
        if given is not None:
            return checksum.parse(given, kind)
    listing = args.text("checksums")
    if listing is None:
        return None
    if not listing:
        raise UsageError("--checksums needs a file or URL")
    return store.promised(place, listing, args.text("signature") or "", args.text("keyring") or "")


class Teller:
    """Tells on stderr how far a long step is: on a terminal, anew in the same line."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._live = not context.quiet and bool(sys.stderr) and os.isatty(2)
        self._shown = ""

    def __call__(self, what: str, done: int, whole: int) -> None:
        """Tell one step and how much of it is done, in bytes; 0 where the whole is not known."""
        if not self._live:
            return
        share = f"{100 * done // whole:3} %" if whole else pretty_size(done)
        line = f"{what}: {share}"
        if line != self._shown:
            # A shorter text must not leave the end of a longer one.
            self._context.progress(f"\r{line:<30}")
            self._shown = line

    def end(self) -> None:
        """End the line."""
        if self._shown:
            self._context.progress(f"\r{'':<30}\r")
            self._shown = ""


def image_list(context: Context, args: Args) -> None:
    """List base images."""
    images = Images(context.tree)
    if args.flag("name") and not args.json:
        return context.out("".join(f"{name}\n" for name in images))
    found = [images[name] for name in images]
    if args.json:
        return context.out(json_text([_plain(base) for base in found]))
    rows = [(base.name, base.format, pretty_size(base.size), pretty_size(_allocated(base))) for base in found]
    return context.out(table(("Name", "Format", "Capacity", "Allocation"), rows, header=not context.quiet))


def image_info(context: Context, args: Args) -> int:
    """Show a base image, and whether it still is what it was."""
    from qkvm.storage.base import store
    from qkvm.storage.media import osinfo

    images = Images(context.tree)
    base = images[args.required("image")]
    users = images.users(base.name)
    fits = osinfo.of_image(base.path, base.source)
    intact = None
    if args.flag("check"):
        tell = Teller(context)
        intact = store.intact(base, tell)
        tell.end()
    if args.json:
        systems = [{"id": one.id, "name": one.names[0], "title": one.title} for one in fits]
        context.out(json_text({**_plain(base), "os": systems, "users": users, "intact": intact}))
        return 1 if intact is False else 0
    rows: list[tuple[str, object]] = [
        ("Name", base.name), ("Path", base.path), ("Format", base.format), ("Capacity", pretty_size(base.size)),
        ("Allocation", pretty_size(_allocated(base))), ("Source", base.source), ("Imported", _time(base.imported)),
        ("SHA256", base.sha256),
    ]  # fmt: skip
    if fits:
        rows.insert(3, ("OS", osinfo.line(fits)))
    if base.source_sha256:
        rows.append(("Source SHA256", base.source_sha256))
    rows.append(("Checked", base.checksum.partition(":")[0] or "no checksum was given"))
    rows += [("Used by", user) for user in users] or [("Used by", "-")]
    if intact is not None:
        rows.append(("Intact", "yes" if intact else "no: its bytes have changed"))
    context.out(pairs(rows))
    return 1 if intact is False else 0


def image_remove(context: Context, args: Args) -> None:
    """Remove a base image."""
    name = args.required("image")
    Images(context.tree).remove(name)
    context.say(f"Image {name} removed\n")


def _allocated(base: Base) -> int:
    try:
        return os.stat(base.path).st_blocks * 512
    except OSError:
        return 0


def _plain(base: Base) -> dict[str, object]:
    """Return an image for JSON."""
    return {
        "name": base.name, "path": base.path, "format": base.format, "capacity_bytes": base.size,
        "allocation_bytes": _allocated(base), "sha256": base.sha256, "source": base.source,
        "source_sha256": base.source_sha256, "checksum": base.checksum, "imported_at": base.imported,
    }  # fmt: skip


def _time(seconds: float) -> str:
    import time

    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))
