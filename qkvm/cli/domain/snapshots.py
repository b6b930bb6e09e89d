"""Verbs on snapshots of domains."""

from __future__ import annotations

import time

from qkvm.cli import common
from qkvm.cli.output import draw_tree, json_text, pairs, print_xml, table
from qkvm.cli.parse import UsageError
from qkvm.domain.store import children, descendants, parent_of
from qkvm.domain.store import snapshots as store
from qkvm.errors import NotFound, QkvmError
from qkvm.spec.snapshot import DISK, EXTERNAL, PLACES, SHUTOFF, Snapshot, SnapshotDisk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from qkvm.api.domain import Domain
    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args
    from qkvm.domain.snapshot.create import Wanted

    Snapshots = dict[str, Snapshot]


def snapshot_create(context: Context, args: Args) -> None:
    """Create a snapshot that an XML file describes, or rewrite the metadata of one."""
    from qkvm.domain.snapshot.create import Wanted
    from qkvm.spec.libvirt import snapshot as libvirt

    domain, file = common.domain(context, args), args.text("xmlfile")
    told = libvirt.loads(*common.read_file(file)) if file is not None else None
    args.needs("current", "redefine")
    if args.flag("redefine"):
        for option in ("no-metadata", "halt", "disk-only", "reuse-external", "quiesce", "live"):
            args.exclusive("redefine", option)
        if told is None:
            raise UsageError("--redefine needs the description of the snapshot")
        name = domain.snapshots.redefine(told, current=args.flag("current")).name
    else:
        wanted = Wanted()
        if told is not None:
            wanted = Wanted(told.name, told.description, told.memory, told.memory_file, told.disks)
        name = domain.snapshots.create(_with_flags(args, wanted)).name
    context.say(f"Domain snapshot {name} created" + (f" from '{file}'" if file is not None else ""))


def snapshot_create_as(context: Context, args: Args) -> None:
    """Create a snapshot from options."""
    from qkvm.domain.snapshot.create import Wanted, print_only

    domain = common.domain(context, args)
    place, file = _memory(args.text("memspec"))
    disks = tuple(_disk(text) for text in args.texts("diskspec"))
    wanted = Wanted(args.text("name") or "", args.text("description") or "", place, file, disks)
    wanted = _with_flags(args, wanted)
    if args.flag("print-xml"):
        from qkvm.spec.libvirt import snapshot as libvirt

        return context.out(libvirt.dumps(print_only(domain, wanted), accel=""))
    return context.say(f"Domain snapshot {domain.snapshots.create(wanted).name} created")


def _with_flags(args: Args, wanted: Wanted) -> Wanted:
    args.exclusive("live", "disk-only")
    args.exclusive("live", "halt")
    return wanted._replace(
        disk_only=args.flag("disk-only"), metadata=not args.flag("no-metadata"), halt=args.flag("halt"),
        reuse=args.flag("reuse-external"), quiesce=args.flag("quiesce"),
    )  # fmt: skip


def _parts(text: str) -> list[str]:
    """Return the comma-separated parts; two commas mean a literal one."""
    return [part.replace("\0", ",") for part in text.replace(",,", "\0").split(",")]


def _memory(text: str | None) -> tuple[str, str]:
    """Return the place and the file in --memspec."""
    place, file = "", ""
    for number, part in enumerate(_parts(text) if text is not None else []):
        key, equals, value = part.partition("=")
        if key == "snapshot" and equals and value in PLACES:
            place = value
        elif key == "file" and equals:
            file = value
        elif not number and not equals:
            file = part
        else:
            raise UsageError(f"unable to parse memspec: {text}", hint="[file=]name[,snapshot=type]")
    return place or (EXTERNAL if file else ""), file


def _disk(text: str) -> SnapshotDisk:
    """Parse a --diskspec."""
    target, *rest = _parts(text)
    found = SnapshotDisk(target, "")
    for part in rest:
        key, _, value = part.partition("=")
        if key == "snapshot" and value in PLACES:
            found.place = value
        elif key == "file":
            found.path = value
        elif key == "driver":
            found.format = value
        elif key == "stype" and value == "file":
            continue
        else:
            raise UsageError(
                f"unable to parse diskspec: {text}",
                hint="disk[,snapshot=no|internal|external][,driver=qcow2][,stype=file][,file=name]",
            )
    if not found.place and found.path:
        found.place = EXTERNAL
    return found


def snapshot_current(context: Context, args: Args) -> None:
    """Show the current snapshot, or set it."""
    domain, name = common.domain(context, args), args.text("snapshotname")
    if name is not None:
        from qkvm.domain.snapshot import define as snapshotdefine

        args.exclusive("name", "snapshotname")
        domain.snapshots.set_current(name)
        return context.say(f"Snapshot {name} set as current")
    current = domain.snapshots[_current(domain)]
    if args.json:
        return context.out(json_text(_row(domain.snapshots.all(), current, current.name)))
    if args.flag("name"):
        return context.out(current.name)
    from qkvm.domain.snapshot import define as snapshotdefine

    return context.out(snapshotdefine.xml(current, secret=args.flag("security-info")))


def _current(domain: Domain) -> str:
    name = domain.snapshots.current()
    if not name:
        raise NotFound(f"domain '{domain.name}' has no current snapshot", kind="snapshot", name="")
    return name


def _named(domain: Domain, args: Args) -> str:
    """Return the name of the snapshot that <snapshotname> or --current selects."""
    args.exclusive("current", "snapshotname")
    name = args.text("snapshotname")
    if name is not None:
        return name
    if not args.flag("current"):
        raise UsageError("--snapshotname or --current is required")
    return _current(domain)


class _Headed:
    """Prefix errors with a headline; a verb's own headline does not know the name that --current stands for."""

    def __init__(self, headline: str) -> None:
        self._headline = headline

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, QkvmError):
            error.args = (f"{self._headline}: {error}",)


def snapshot_delete(context: Context, args: Args) -> None:
    """Delete a snapshot."""

    args.exclusive("children", "children-only")
    domain = common.domain(context, args)
    name = _named(domain, args)
    flags = {"children": args.flag("children"), "children_only": args.flag("children-only")}
    domain.snapshots[name]
    with _Headed(f"Failed to delete snapshot {name}"):
        domain.snapshots.delete(name, metadata=args.flag("metadata"), **flags)
    context.say(f"Domain snapshot {name} {'children ' if flags['children_only'] else ''}deleted\n")


def snapshot_dumpxml(context: Context, args: Args) -> None:
    """Print a snapshot's metadata as libvirt's XML."""
    from qkvm.domain.snapshot import define as snapshotdefine

    domain = common.domain(context, args)
    snapshot = domain.snapshots[args.required("snapshotname")]
    if args.json:
        from qkvm.spec.snapshot import without_secrets

        plain = snapshot.to_plain()
        shown = plain if args.flag("security-info") else without_secrets(plain)
        row = _row(domain.snapshots.all(), snapshot, domain.snapshots.current())
        return context.out(
            json_text({**row, "definition": shown["definition"], "inactive": shown.get("inactive")})
        )
    return print_xml(context, args, snapshotdefine.xml(snapshot, secret=args.flag("security-info")))


def snapshot_edit(context: Context, args: Args) -> None:
    """Let the user edit a snapshot's metadata."""
    from qkvm.cli import editor
    from qkvm.domain.snapshot import define as snapshotdefine
    from qkvm.spec.libvirt import snapshot as libvirt

    args.exclusive("rename", "clone")
    domain = common.domain(context, args)
    name = _named(domain, args)
    given = name

    def accept(text: str) -> None:
        nonlocal given
        told = libvirt.loads(text, f"snapshot {name} as edited")
        given = told.name
        if given == name:
            domain.snapshots.redefine(told)
        elif args.flag("rename") or args.flag("clone"):
            domain.snapshots.rename(name, told, keep=args.flag("clone"))
        else:
            raise UsageError(f"must specify either --rename or --clone to change {name} to {given}")

    text = snapshotdefine.xml(domain.snapshots[name], secret=True)
    if not editor.edit(context, text, accept, suffix=".xml"):
        context.say(f"Snapshot {name} XML configuration not changed.\n")
    elif given == name:
        context.say(f"Snapshot {name} edited.\n")
    else:
        context.say(f"Snapshot {name} {'cloned' if args.flag('clone') else 'renamed'} to {given}.\n")


def snapshot_info(context: Context, args: Args) -> None:
    """Show basic information about a snapshot."""
    domain = common.domain(context, args)
    snapshot = domain.snapshots[_named(domain, args)]
    row = _row(domain.snapshots.all(), snapshot, domain.snapshots.current())
    if args.json:
        return context.out(json_text({"domain": domain.name, **row}))
    return context.out(pairs([
        ("Name", snapshot.name), ("Domain", domain.name), ("Current", "yes" if row["current"] else "no"),
        ("State", snapshot.state), ("Location", snapshot.location), ("Parent", row["parent"] or "-"),
        ("Children", row["children"]), ("Descendants", row["descendants"]), ("Metadata", "yes"),
    ]))  # fmt: skip


def _row(snapshots: Snapshots, snapshot: Snapshot, current: str) -> dict[str, Any]:
    return {
        "name": snapshot.name, "description": snapshot.description, "created_at": snapshot.created,
        "state": snapshot.state, "location": snapshot.location, "memory": snapshot.memory,
        "current": snapshot.name == current, "parent": parent_of(snapshots, snapshot) or None,
        "children": len(children(snapshots, snapshot.name)),
        "descendants": len(descendants(snapshots, snapshot.name)),
        "disks": [disk.to_plain() for disk in snapshot.disks],
    }  # fmt: skip


def snapshot_parent(context: Context, args: Args) -> None:
    """Print the name of a snapshot's parent."""
    domain = common.domain(context, args)
    snapshot = domain.snapshots[_named(domain, args)]
    if not snapshot.parent or not store.exists(domain, snapshot.parent):
        raise NotFound(f"snapshot '{snapshot.name}' has no parent", kind="snapshot", name="")
    context.out(json_text({"name": snapshot.parent}) if args.json else snapshot.parent)


def snapshot_revert(context: Context, args: Args) -> None:
    """Revert a domain to a snapshot."""

    args.exclusive("running", "paused")
    domain = common.domain(context, args)
    running = True if args.flag("running") else False if args.flag("paused") else None
    flags = {"force": args.flag("force"), "reset_nvram": args.flag("reset-nvram")}
    name = _named(domain, args)
    domain.snapshots[name]
    with _Headed(f"Failed to revert snapshot {name}"):
        warnings = domain.snapshots.revert(name, running=running, **flags)
    for warning in warnings:
        context.warn(warning)


def snapshot_list(context: Context, args: Args) -> None:
    """List snapshots."""
    _check_list(args)
    domain = common.domain(context, args)
    snapshots, current = domain.snapshots.all(), domain.snapshots.current()
    start = args.text("from") or (_current(domain) if args.flag("current") else "")
    if start:
        domain.snapshots[start]
    if args.flag("tree"):
        return context.out(draw_tree(lambda name: [one.name for one in children(snapshots, name)], start))
    listed = _listed(snapshots, args, start)
    if args.json:
        return context.out(json_text([_row(snapshots, one, current) for one in listed]))
    if args.flag("name"):
        return context.out("".join(f"{one.name}\n" for one in listed))
    headers = ["Name", "Creation Time", "State"] + (["Parent"] if args.flag("parent") else [])
    rows = [
        [one.name, _when(one.created), one.state] + ([parent_of(snapshots, one)] if args.flag("parent") else [])
        for one in listed
    ]
    return context.out(table(headers, rows, header=not context.quiet))


_FILTERS = (
    ("leaves", "no-leaves"),
    ("metadata", "no-metadata"),
    ("inactive", "active", "disk-only"),
    ("internal", "external"),
)
"""Groups of filters: if some of a group are given, at least one of these must match."""


def _check_list(args: Args) -> None:
    for pair in (
        ("tree", "name"), ("parent", "roots"), ("parent", "tree"), ("roots", "tree"), ("roots", "from"),
        ("roots", "current"), ("current", "from"), ("parent", "name"),
        *(("tree", option) for group in _FILTERS for option in group if option != "metadata"),
    ):  # fmt: skip
        args.exclusive(*pair)
    if args.flag("descendants") and not args.has("from") and not args.flag("current"):
        raise UsageError("--descendants requires either --from or --current")


def _listed(snapshots: Snapshots, args: Args, start: str) -> list[Snapshot]:
    """Return the snapshots that the options select, in the order that they ask for."""
    if start:
        whole = args.flag("descendants")
        listed = descendants(snapshots, start) if whole else children(snapshots, start)
    else:
        listed = children(snapshots, "") if args.flag("roots") else descendants(snapshots, "")
    parents = {parent_of(snapshots, one) for one in snapshots.values()}
    found = []
    for one in listed:
        is_so = {
            "leaves": one.name not in parents, "no-leaves": one.name in parents, "metadata": True,
            "no-metadata": False, "inactive": one.state == SHUTOFF, "active": one.has_memory,
            "disk-only": one.state == DISK, "internal": not one.is_external, "external": one.is_external,
        }  # fmt: skip
        asked = [[is_so[option] for option in group if args.flag(option)] for group in _FILTERS]
        if all(any(group) for group in asked if group):
            found.append(one)
    return found if args.flag("topological") else sorted(found, key=lambda one: (one.name.lower(), one.name))


def _when(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(seconds))
