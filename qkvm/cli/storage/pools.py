"""Verbs on storage pools."""

from __future__ import annotations

import os

from qkvm.api.storage import Pools
from qkvm.cli.output import json_text, measured, pairs, print_xml, show_value, table
from qkvm.cli.parse import UsageError
from qkvm.errors import InvalidState, InvalidValue, NotFound
from qkvm.storage.pool.pool import ensure_default, list_pools
from qkvm.units import pretty_size, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.api.storage import Pool
    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args
    from qkvm.spec import pool as spec
    from qkvm.storage.pool.pool import Info

_GROUP = ("source-dev", "source-name", "source-format")
"""Options for the source of a volume group."""

_FOREIGN = (
    "source-host", "source-path", "auth-type", "auth-username", "secret-usage", "secret-uuid", "adapter-name",
    "adapter-wwnn", "adapter-wwpn", "adapter-parent", "adapter-parent-wwnn", "adapter-parent-wwpn",
    "adapter-parent-fabric-wwn", "source-protocol-ver", "source-initiator",
)  # fmt: skip
"""Options for the source of other types of pools."""


def find(context: Context, wanted: str) -> Pool:
    """Return the pool that has a name or UUID. :raises NotFound: there is none."""
    ensure_default(context.tree)
    try:
        return Pools(context.tree)[wanted]
    except NotFound as error:
        shown = printable(wanted)
        raise NotFound(
            f"failed to get pool '{shown}': Storage pool not found: no storage pool with matching name '{shown}'",
            kind="pool",
            name=wanted,
        ) from error


def _pool(context: Context, args: Args) -> Pool:
    return find(context, args.required("pool"))


def pool_define(context: Context, args: Args) -> None:
    """Store a pool's definition from a file."""
    from qkvm.cli.common import read_text

    ensure_default(context.tree)
    pool = Pools(context.tree).define(*read_text(args.required("file")))
    context.say(f"Pool {pool.name} defined from {args.required('file')}\n")


def pool_define_as(context: Context, args: Args) -> None:
    """Store a pool's definition from options."""
    from qkvm.spec import toml

    wanted = _from_options(args)
    if args.flag("print-xml"):
        return _print(context, wanted)
    ensure_default(context.tree)
    pool = Pools(context.tree).define(toml.dumps(wanted))
    return context.say(f"Pool {pool.name} defined\n")


def pool_create(context: Context, args: Args) -> None:
    """Create and start a transient pool from a file."""
    from qkvm.cli.common import read_text

    build, overwrite = _build_flags(args)
    ensure_default(context.tree)
    pool = Pools(context.tree).create(*read_text(args.required("file")), build=build, overwrite=overwrite)
    context.say(f"Pool {pool.name} created from {args.required('file')}\n")


def pool_create_as(context: Context, args: Args) -> None:
    """Create and start a transient pool from options."""
    from qkvm.spec import toml

    build, overwrite = _build_flags(args)
    wanted = _from_options(args)
    if args.flag("print-xml"):
        return _print(context, wanted)
    ensure_default(context.tree)
    pool = Pools(context.tree).create(toml.dumps(wanted), build=build, overwrite=overwrite)
    return context.say(f"Pool {pool.name} created\n")


def pool_undefine(context: Context, args: Args) -> None:
    """Remove a pool's definition."""
    pool = _pool(context, args)
    pool.undefine()
    context.say(f"Pool {pool.name} has been undefined\n")


def pool_autostart(context: Context, args: Args) -> None:
    """Mark a pool to become active at boot, or unmark it."""
    pool = _pool(context, args)
    off = args.flag("disable")
    pool.set_autostart(not off)
    context.say(f"Pool {pool.name} {'unmarked' if off else 'marked'} as autostarted\n")


def pool_start(context: Context, args: Args) -> None:
    """Make a pool active."""

    build, overwrite = _build_flags(args)
    pool = _pool(context, args)
    pool.start(build=build, overwrite=overwrite)
    context.say(f"Pool {pool.name} started\n")


def pool_destroy(context: Context, args: Args) -> None:
    """Make a pool inactive."""

    pool = _pool(context, args)
    pool.destroy()
    context.say(f"Pool {pool.name} destroyed\n")


def pool_build(context: Context, args: Args) -> None:
    """Create a pool's folder or volume group."""

    args.exclusive("overwrite", "no-overwrite")
    pool = _pool(context, args)
    pool.build(overwrite=args.flag("overwrite"))
    context.say(f"Pool {pool.name} built\n")


def pool_delete(context: Context, args: Args) -> None:
    """Remove a pool's empty folder or volume group."""
    pool = _pool(context, args)
    pool.delete()
    context.say(f"Pool {pool.name} deleted\n")


def pool_refresh(context: Context, args: Args) -> None:
    """Remove leftovers of unfinished volumes; the list of volumes needs no refresh."""
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
        name = Pools(context.tree).define(text, f"{pool.name} as edited").name

    if editor.edit(context, pool.describe(inactive=True), accept, suffix=".xml"):
        context.say(f"Pool {name} XML configuration edited.\n")
    else:
        context.say(f"Pool {name} XML configuration not changed.\n")


def pool_dumpxml(context: Context, args: Args) -> None:
    """Print a pool as libvirt's XML."""

    pool, inactive = _pool(context, args), args.flag("inactive")
    if args.json:
        from qkvm.spec import toml

        return context.out(
            json_text(toml.to_plain(pool.definition if inactive or not pool.active else pool.actual))
        )
    return print_xml(context, args, pool.describe(inactive=inactive))


def _plain(info: Info) -> dict[str, object]:
    return measured(info._asdict(), bytes="capacity allocation available")


def pool_info(context: Context, args: Args) -> None:
    """Show a pool."""
    info = _pool(context, args).info()
    if args.json:
        return context.out(json_text(_plain(info)))
    rows = [
        ("Name", info.name), ("UUID", info.uuid), ("State", _state(info)),
        ("Persistent", _yes(info.persistent)), ("Autostart", _yes(info.autostart)),
    ]  # fmt: skip
    if info.active:
        sizes = (("Capacity", info.capacity), ("Allocation", info.allocation), ("Available", info.available))
        rows += [(label, str(size) if args.flag("bytes") else pretty_size(size)) for label, size in sizes]
    return context.out(pairs(rows))


def pool_list(context: Context, args: Args) -> None:
    """List pools: the active ones, all with --all, the inactive ones with --inactive."""
    ensure_default(context.tree)
    types = _types(args.text("type"))
    found = [pool.info() for pool in list_pools(context.tree) if not types or pool.type in types]
    if not args.flag("all"):
        found = [info for info in found if info.active != args.flag("inactive")]
    if args.flag("persistent") != args.flag("transient"):
        found = [info for info in found if info.persistent == args.flag("persistent")]
    if args.flag("autostart") != args.flag("no-autostart"):
        found = [info for info in found if info.autostart == args.flag("autostart")]
    if args.json:
        return context.out(json_text([_plain(info) for info in found]))
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
    show_value(context, args, name=_pool(context, args).name)


def pool_uuid(context: Context, args: Args) -> None:
    """Print the UUID of a pool."""
    show_value(context, args, uuid=_pool(context, args).uuid)


def pool_capabilities(context: Context, args: Args) -> None:
    """Print the supported types of pools."""
    from qkvm.host.programs import is_installed
    from qkvm.spec.libvirt.pool import capabilities

    context.out(capabilities(lvm=is_installed("lvm")))


def find_storage_pool_sources(context: Context, args: Args) -> None:
    """Print possible sources for pools of a type; --srcSpec is refused."""
    if args.has("srcSpec"):
        raise InvalidValue("--srcSpec says where to look, and volume groups are of this host", hint="leave it out")
    _print_sources(context, args)


def find_storage_pool_sources_as(context: Context, args: Args) -> None:
    """Print possible sources for pools of a type; options that name another host are refused."""
    for name in ("host", "port", "initiator"):
        if args.has(name):
            raise InvalidValue(f"--{name} says where to look, and volume groups are of this host")
    _print_sources(context, args)


def _print_sources(context: Context, args: Args) -> None:
    from qkvm.spec.libvirt.pool import dump_sources
    from qkvm.storage.pool import lvm

    kinds = _types(args.required("type"))
    if kinds != ["logical"]:
        raise InvalidValue(f"pool type '{','.join(kinds)}' does not support source discovery", hint="logical")
    context.out(dump_sources((group.name, group.devices) for group in lvm.groups()))


def _types(text: str | None) -> list[str]:
    """Return the pool types in a comma-separated list; an empty list for None."""
    from qkvm.spec.pool import TYPES

    words = [] if text is None else text.split(",")
    for word in words:
        if word not in TYPES:
            raise UsageError(f"Invalid pool type '{printable(word)}'", hint=", ".join(TYPES))
    return words


def _from_options(args: Args) -> spec.Pool:
    from msgspec.structs import replace

    from qkvm.spec import pool as spec
    from qkvm.units import random_uuid

    kind, target = args.required("type"), args.text("target")
    if kind not in tuple(spec.PoolType):
        raise InvalidValue(
            f"pools of type '{printable(kind)}' are not supported",
            hint="a folder: dir --target PATH; a volume group of LVM's: logical --source-name GROUP",
        )
    for name in _FOREIGN if kind == "logical" else (*_FOREIGN, *_GROUP):
        if args.has(name):
            hint = "--source-name GROUP" if kind == "logical" else "--target PATH"
            raise InvalidValue(f"--{name} means nothing for a pool of type {kind}", hint=hint)
    wanted = spec.Pool(name=args.required("name"), uuid=random_uuid(), type=spec.PoolType(kind))
    path = "/" + os.path.abspath(target).lstrip("/") if target else ""
    if kind == "logical":
        if args.text("source-format") not in (None, "lvm2"):
            raise InvalidValue("the format of a volume group is lvm2", hint="leave out --source-format")
        devices = tuple(device for device in (args.text("source-dev") or "").split(",") if device)
        group = args.text("source-name") or ""
        return spec.validate(replace(wanted, path=path, volume_group=group, devices=devices))
    if not path:
        raise InvalidValue("a pool of type dir needs its folder", hint="--target PATH")
    return spec.validate(replace(wanted, path=path))


def _print(context: Context, wanted: spec.Pool) -> None:
    from qkvm.spec.libvirt.pool import dumps

    context.out(dumps(wanted))


def _build_flags(args: Args) -> tuple[bool, bool]:
    """Return whether to build the pool before starting it, and whether to overwrite its devices."""
    args.exclusive("overwrite", "no-overwrite")
    for name in ("overwrite", "no-overwrite"):
        if args.flag(name) and not args.flag("build"):
            raise InvalidValue(f"--{name} means nothing where nothing is built", hint="--build")
    return args.flag("build"), args.flag("overwrite")


def _state(info: Info) -> str:
    return "running" if info.active else "inactive"


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"
