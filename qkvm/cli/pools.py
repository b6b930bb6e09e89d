"""Verbs on storage pools."""

from __future__ import annotations

import os

from qkvm.cli.output import json_text, pairs, table
from qkvm.cli.parse import UsageError
from qkvm.errors import InvalidState, InvalidValue, NotFound
from qkvm.storage.pool import Pool, ensure_default, list_pools
from qkvm.units import pretty_size, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.cli.main import Context
    from qkvm.cli.parse import Args
    from qkvm.spec import pool as spec
    from qkvm.storage.pool import Info

_FOREIGN = (
    "source-host", "source-path", "source-dev", "source-name", "source-format", "auth-type", "auth-username",
    "secret-usage", "secret-uuid", "adapter-name", "adapter-wwnn", "adapter-wwpn", "adapter-parent",
    "adapter-parent-wwnn", "adapter-parent-wwpn", "adapter-parent-fabric-wwn", "source-protocol-ver",
    "source-initiator",
)  # fmt: skip
"""What tells where other types of pools are."""


def find(context: Context, wanted: str) -> Pool:
    """The pool of that name or UUID. :raises NotFound: there is none."""
    ensure_default(context.tree)
    try:
        return Pool.lookup(context.tree, wanted)
    except NotFound as error:
        shown = printable(wanted)
        raise NotFound(
            f"failed to get pool '{shown}': Storage pool not found: no storage pool with matching name '{shown}'",
            kind="pool", name=wanted,
        ) from error  # fmt: skip


def _pool(context: Context, args: Args) -> Pool:
    return find(context, args.required("pool"))


def pool_define(context: Context, args: Args) -> None:
    """Store a pool's definition from a file."""
    from qkvm.cli.common import read_text

    ensure_default(context.tree)
    pool = Pool.define(context.tree, *read_text(args.required("file")))
    context.say(f"Pool {pool.name} defined from {args.required('file')}\n")


def pool_define_as(context: Context, args: Args) -> None:
    """Store a pool's definition from options."""
    from qkvm.spec import toml

    wanted = _from_options(args)
    if args.flag("print-xml"):
        return _print(context, wanted)
    ensure_default(context.tree)
    pool = Pool.define(context.tree, toml.dumps(wanted), "definition")
    return context.say(f"Pool {pool.name} defined\n")


def pool_create(context: Context, args: Args) -> None:
    """Start a transient pool from a file."""
    from qkvm.cli.common import read_text

    _refuse_overwrite(args)
    ensure_default(context.tree)
    pool = Pool.create(context.tree, *read_text(args.required("file")), build=args.flag("build"))
    context.say(f"Pool {pool.name} created from {args.required('file')}\n")


def pool_create_as(context: Context, args: Args) -> None:
    """Start a transient pool from options."""
    from qkvm.spec import toml

    _refuse_overwrite(args)
    wanted = _from_options(args)
    if args.flag("print-xml"):
        return _print(context, wanted)
    ensure_default(context.tree)
    pool = Pool.create(context.tree, toml.dumps(wanted), "definition", build=args.flag("build"))
    return context.say(f"Pool {pool.name} created\n")


def pool_undefine(context: Context, args: Args) -> None:
    """Remove a pool's definition."""
    pool = _pool(context, args)
    pool.undefine()
    context.say(f"Pool {pool.name} has been undefined\n")


def pool_autostart(context: Context, args: Args) -> None:
    """Mark a pool to be active from the boot on, or unmark it."""
    pool = _pool(context, args)
    off = args.flag("disable")
    pool.set_autostart(not off)
    context.say(f"Pool {pool.name} {'unmarked' if off else 'marked'} as autostarted\n")


def pool_start(context: Context, args: Args) -> None:
    """Make a pool active."""
    _refuse_overwrite(args)
    pool = _pool(context, args)
    pool.start(build=args.flag("build"))
    context.say(f"Pool {pool.name} started\n")


def pool_destroy(context: Context, args: Args) -> None:
    """Make a pool inactive."""
    pool = _pool(context, args)
    pool.destroy()
    context.say(f"Pool {pool.name} destroyed\n")


def pool_build(context: Context, args: Args) -> None:
    """Make a pool's folder."""
    _refuse_overwrite(args)
    pool = _pool(context, args)
    pool.build()
    context.say(f"Pool {pool.name} built\n")


def pool_delete(context: Context, args: Args) -> None:
    """Remove a pool's empty folder."""
    pool = _pool(context, args)
    pool.delete()
    context.say(f"Pool {pool.name} deleted\n")


def pool_refresh(context: Context, args: Args) -> None:
    """Remove what volumes that were not finished have left; the list of volumes is always fresh."""
    pool = _pool(context, args)
    pool.backend.sweep()
    context.say(f"Pool {pool.name} refreshed\n")


def pool_edit(context: Context, args: Args) -> None:
    """Let the user edit a pool's definition as libvirt's XML."""
    from qkvm.cli import editor

    pool = _pool(context, args)
    if not pool.persistent:
        raise InvalidState("a transient pool has no definition to edit")
    name = pool.name

    def accept(text: str) -> None:
        nonlocal name
        name = Pool.define(context.tree, text, f"{pool.name} as edited").name

    if editor.edit(context, pool.describe(inactive=True), accept, suffix=".xml"):
        context.say(f"Pool {name} XML configuration edited.\n")
    else:
        context.say(f"Pool {name} XML configuration not changed.\n")


def pool_dumpxml(context: Context, args: Args) -> None:
    """Print a pool as libvirt's XML."""
    from qkvm.cli.describing import print_xml

    print_xml(context, args, _pool(context, args).describe(inactive=args.flag("inactive")))


def pool_info(context: Context, args: Args) -> None:
    """Show a pool."""
    info = _pool(context, args).info()
    if args.json:
        return context.out(json_text(info._asdict()))
    rows = [
        ("Name", info.name), ("UUID", info.uuid), ("State", _state(info)),
        ("Persistent", _yes(info.persistent)), ("Autostart", _yes(info.autostart)),
    ]  # fmt: skip
    if info.active:
        sizes = (("Capacity", info.capacity), ("Allocation", info.allocation), ("Available", info.available))
        rows += [(label, str(size) if args.flag("bytes") else pretty_size(size)) for label, size in sizes]
    return context.out(pairs(rows))


def pool_list(context: Context, args: Args) -> None:
    """List pools: the active ones, or with --all and --inactive the others too."""
    ensure_default(context.tree)
    if not _has_dir(args.text("type")):
        found: list[Info] = []
    else:
        found = [pool.info() for pool in list_pools(context.tree)]
    if not args.flag("all"):
        found = [info for info in found if info.active != args.flag("inactive")]
    if args.flag("persistent") != args.flag("transient"):
        found = [info for info in found if info.persistent == args.flag("persistent")]
    if args.flag("autostart") != args.flag("no-autostart"):
        found = [info for info in found if info.autostart == args.flag("autostart")]
    if args.json:
        return context.out(json_text([info._asdict() for info in found]))
    if args.flag("name") or args.flag("uuid"):
        return context.out("".join(f"{info.uuid if args.flag('uuid') else info.name}\n" for info in found))
    header = not context.quiet
    if args.flag("details"):
        titles = ("Name", "State", "Autostart", "Persistent", "Capacity", "Allocation", "Available")
        return context.out(table(titles, [_details(info) for info in found], header=header))
    rows = [(info.name, "active" if info.active else "inactive", _yes(info.autostart)) for info in found]
    return context.out(table(("Name", "State", "Autostart"), rows, header=header))


def _details(info: Info) -> tuple[str, ...]:
    sizes = (info.capacity, info.allocation, info.available)
    shown = (pretty_size(size) if info.active else "-" for size in sizes)
    return info.name, _state(info), _yes(info.autostart), _yes(info.persistent), *shown


def pool_name(context: Context, args: Args) -> None:
    """Print the name of a pool."""
    context.out(f"{_pool(context, args).name}\n")


def pool_uuid(context: Context, args: Args) -> None:
    """Print the UUID of a pool."""
    context.out(f"{_pool(context, args).uuid}\n")


def pool_capabilities(context: Context, args: Args) -> None:
    """Print what pools can be."""
    from qkvm.spec.libvirt.pool import capabilities

    context.out(capabilities())


def _has_dir(text: str | None) -> bool:
    """Whether a list of types of pools has the one that there is."""
    from qkvm.spec.pool import TYPES

    if text is None:
        return True
    for word in text.split(","):
        if word not in TYPES:
            raise UsageError(f"Invalid pool type '{printable(word)}'", hint=", ".join(TYPES))
    return "dir" in text.split(",")


def _from_options(args: Args) -> spec.Pool:
    from qkvm.spec import pool as spec
    from qkvm.units import random_uuid

    kind = args.required("type")
    if kind != "dir":
        raise InvalidValue(
            f"pools of type '{printable(kind)}' are not supported", hint="a folder: dir --target PATH"
        )
    for name in _FOREIGN:
        if args.has(name):
            raise InvalidValue(f"--{name} means nothing for a pool of type dir", hint="--target PATH")
    target = args.text("target")
    if not target:
        raise InvalidValue("a pool of type dir needs its folder", hint="--target PATH")
    path = "/" + os.path.abspath(target).lstrip("/")
    return spec.validate(spec.Pool(name=args.required("name"), uuid=random_uuid(), path=path))


def _print(context: Context, wanted: spec.Pool) -> None:
    from qkvm.spec.libvirt.pool import dumps

    context.out(dumps(wanted))


def _refuse_overwrite(args: Args) -> None:
    for name in ("overwrite", "no-overwrite"):
        if args.given(name):
            raise InvalidValue(f"--{name} means nothing for a pool of type dir: no file system is made")


def _state(info: Info) -> str:
    return "running" if info.active else "inactive"


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"
