"""Verbs on backups and checkpoints."""

from __future__ import annotations

import time

from qkvm.cli import common
from qkvm.cli.output import draw_tree, json_text, measured, pairs, print_xml, table
from qkvm.cli.parse import UsageError
from qkvm.domain.store import children, descendants, parent_of
from qkvm.errors import NotFound
from qkvm.spec.checkpoint import BITMAP, KINDS, Checkpoint, CheckpointDisk

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from qkvm.api.domain import Domain
    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args
    from qkvm.storage.backup import Backup, Manifest

    Checkpoints = dict[str, Checkpoint]


def backup(context: Context, args: Args) -> None:
    """Back up a domain into a folder."""
    from qkvm.domain.backup import folder as library
    from qkvm.units import pretty_size

    args.exclusive("full", "incremental")
    options = library.Options(
        args.flag("full"), args.flag("incremental"), args.flag("compress"), not args.flag("no-freeze"),
        common.bandwidth(args),
    )  # fmt: skip
    domain, folder = common.domain(context, args), args.required("to")
    found = domain.backup.into(folder, options, report=_report(context, args, "Backup"))
    _done(context, args, "Backup")
    for note in found.notes:
        context.warn(note)
    if args.json:
        return context.out(json_text({**_row(found.backup), "resumed": found.resumed, "notes": list(found.notes)}))
    taken = pretty_size(sum(one.length for one in found.backup.images))
    begun = ", begun by an earlier verb" if found.resumed else ""
    return context.say(
        f"Backup {found.backup.number} of domain '{domain.name}' is in {folder}: "
        f"{_kind(found.backup)}, {taken}{begun}\n"
    )


def restore_backup(context: Context, args: Args) -> None:
    """Create a domain from a backup, or list the backups in a folder."""
    from qkvm.domain.backup import restore as library

    folder = args.required("from")
    if args.flag("list"):
        return _list(context, args, library.contents(folder))
    context.host.prepare()
    domain = context.host.restore_backup(
        folder, name=args.text("name") or "", number=args.number("number") or 0,
        in_place=args.flag("in-place"), report=_report(context, args, "Restore"),
    )  # fmt: skip
    _done(context, args, "Restore")
    if args.json:
        return context.out(json_text({"name": domain.name, "uuid": domain.uuid}))
    return context.say(f"Domain '{domain.name}' restored from {folder}\n")


def _list(context: Context, args: Args, manifest: Manifest) -> None:
    if args.json:
        rows = [_row(backup) for backup in manifest.backups]
        return context.out(json_text({"domain": manifest.name, "uuid": manifest.uuid, "backups": rows}))
    from time import localtime, strftime

    from qkvm.units import pretty_size

    cells = [
        (
            str(backup.number), strftime("%Y-%m-%d %H:%M:%S %z", localtime(backup.time)), _kind(backup),
            backup.guest, " ".join(one.target for one in backup.disks),
            pretty_size(sum(one.length for one in backup.images)),
        )
        for backup in manifest.backups
    ]  # fmt: skip
    return context.out(
        table(("Number", "Time", "Kind", "Guest", "Disks", "Size"), cells, header=not context.quiet)
    )


def _kind(backup: Backup) -> str:
    """Return "full" if no disk has a base backup, "incremental" if all have, else "partly incremental"."""
    based = sum(bool(one.base) for one in backup.disks)
    return "full" if not based else "incremental" if based == len(backup.disks) else "partly incremental"


def _row(backup: Backup) -> dict[str, object]:
    import msgspec

    plain: dict[str, object] = msgspec.to_builtins(backup)
    del plain["definition"]
    # The output may end up in logs, and a seed may hold passwords.
    plain["seed"] = backup.seed is not None
    images = [measured(one, bytes="size length") for one in msgspec.to_builtins(backup.disks)]
    return {"kind": _kind(backup), **measured(plain, at="time"), "disks": images}


def _report(context: Context, args: Args, label: str) -> Callable[[int, int], None] | None:
    """Return a function that prints the progress on stderr as virsh does; None without --verbose."""
    if not args.flag("verbose"):
        return None

    def report(done: int, total: int) -> None:
        share = min(done * 100.0 / total, 99.99) if total else 0.0
        context.progress(f"\r{label}: [{share:5.2f} %]")

    return report


def _done(context: Context, args: Args, label: str) -> None:
    if args.flag("verbose"):
        context.progress(f"\r{label}: [100.00 %]\n")


def backup_begin(context: Context, args: Args) -> None:
    """Begin a backup that an XML file describes, or a backup of all disks."""
    from qkvm.domain.backup.checkpoint import Wanted
    from qkvm.spec.libvirt import backup, checkpoint

    domain = common.domain(context, args)
    described, at_once = args.text("backupxml"), args.text("checkpointxml")
    told = backup.loads(*common.read_file(described)) if described is not None else None
    wanted = None
    if at_once is not None:
        found = checkpoint.loads(*common.read_file(at_once))
        wanted = Wanted(found.name, found.description, found.disks)
    domain.backup.begin(told, at_once=wanted, reuse=args.flag("reuse-external"))
    context.say("Backup started\n")


def backup_dumpxml(context: Context, args: Args) -> None:
    """Print the description of the running backup."""
    from qkvm.cli.output import json_text, print_xml

    text = common.domain(context, args).backup.xml()
    if args.json:
        return context.out(json_text({"xml": text}))
    return print_xml(context, args, text)


def checkpoint_create(context: Context, args: Args) -> None:
    """Create a checkpoint that an XML file describes, or rewrite the metadata of one."""
    from qkvm.domain.backup import checkpoint
    from qkvm.spec.libvirt import checkpoint as libvirt

    domain, file = common.domain(context, args), args.text("xmlfile")
    args.needs("redefine-validate", "redefine")
    args.exclusive("redefine", "quiesce")
    told = libvirt.loads(*common.read_file(file)) if file is not None else None
    if args.flag("redefine"):
        if told is None:
            raise UsageError("--redefine needs the description of the checkpoint")
        name = domain.checkpoints.redefine(told, validate=args.flag("redefine-validate")).name
    else:
        wanted = checkpoint.Wanted(told.name, told.description, told.disks) if told else checkpoint.Wanted()
        name = domain.checkpoints.create(wanted, quiesce=args.flag("quiesce")).name
    context.say(f"Domain checkpoint {name} created" + (f" from '{file}'" if file is not None else ""))


def checkpoint_create_as(context: Context, args: Args) -> None:
    """Create a checkpoint from options."""
    from qkvm.domain.backup import checkpoint

    domain = common.domain(context, args)
    disks = tuple(_disk(text) for text in args.texts("diskspec"))
    wanted = checkpoint.Wanted(args.text("name") or "", args.text("description") or "", disks)
    if args.flag("print-xml"):
        from qkvm.spec.libvirt import checkpoint as libvirt

        bare = Checkpoint(wanted.name, created=0, disks=disks, definition={}, description=wanted.description)
        return context.out(libvirt.dumps(bare, accel=""))
    made = domain.checkpoints.create(wanted, quiesce=args.flag("quiesce"))
    return context.say(f"Domain checkpoint {made.name} created")


def _disk(text: str) -> CheckpointDisk:
    """Parse a --diskspec: disk[,checkpoint=type][,bitmap=name]; two commas mean a literal one."""
    parts = [part.replace("\0", ",") for part in text.replace(",,", "\0").split(",")]
    found = CheckpointDisk(parts[0], BITMAP)
    for part in parts[1:]:
        key, _, value = part.partition("=")
        if key == "checkpoint" and value in KINDS:
            found.kind = value
        elif key == "bitmap" and value:
            found.bitmap = value
        else:
            raise UsageError(f"unable to parse diskspec: {text}", hint="disk[,checkpoint=no|bitmap][,bitmap=name]")
    return found


def _named(args: Args) -> str:
    name = args.text("checkpointname")
    if name is None:
        raise UsageError("--checkpointname is required")
    return name


def checkpoint_delete(context: Context, args: Args) -> None:
    """Delete a checkpoint and its bitmaps."""

    args.exclusive("children", "children-only")
    domain, name, only = common.domain(context, args), _named(args), args.flag("children-only")
    domain.checkpoints.delete(
        name, children=args.flag("children"), children_only=only, metadata=args.flag("metadata")
    )
    context.say(f"Domain checkpoint {name} {'children ' if only else ''}deleted\n")


def checkpoint_dumpxml(context: Context, args: Args) -> None:
    """Print a checkpoint's metadata as libvirt's XML."""

    domain = common.domain(context, args)
    found = domain.checkpoints[_named(args)]
    if args.json:
        row = _checkpoint_row(domain.checkpoints.all(), found)
        if args.flag("size"):
            sizes = domain.checkpoints.sizes(found)
            row["sizes"] = [{"target": target, "size_bytes": size} for target, size in sizes.items()]
        return context.out(json_text(row))
    return print_xml(context, args, domain.checkpoints.xml(
        found, secret=args.flag("security-info"), with_domain=not args.flag("no-domain"),
        size=args.flag("size"),
    ))  # fmt: skip


def checkpoint_edit(context: Context, args: Args) -> None:
    """Let the user edit a checkpoint's metadata."""
    from qkvm.cli import editor
    from qkvm.spec.libvirt import checkpoint as libvirt

    domain, name = common.domain(context, args), _named(args)

    def accept(text: str) -> None:
        told = libvirt.loads(text, f"checkpoint {name} as edited")
        if told.name != name:
            raise UsageError(f"checkpoint {name} can't be given another name")
        domain.checkpoints.redefine(told)

    text = domain.checkpoints.xml(domain.checkpoints[name], secret=True)
    if editor.edit(context, text, accept, suffix=".xml"):
        context.say(f"Checkpoint {name} edited.\n")
    else:
        context.say(f"Checkpoint {name} XML configuration not changed.\n")


def checkpoint_info(context: Context, args: Args) -> None:
    """Show basic information about a checkpoint."""
    domain = common.domain(context, args)
    row = _checkpoint_row(domain.checkpoints.all(), domain.checkpoints[_named(args)])
    if args.json:
        return context.out(json_text({"domain": domain.name, **row}))
    return context.out(pairs([
        ("Name", row["name"]), ("Domain", domain.name), ("Parent", row["parent"] or "-"),
        ("Children", row["children"]), ("Descendants", row["descendants"]),
    ]))  # fmt: skip


def _checkpoint_row(checkpoints: Checkpoints, checkpoint: Checkpoint) -> dict[str, Any]:
    return {
        "name": checkpoint.name,
        "description": checkpoint.description,
        "created_at": checkpoint.created,
        "parent": parent_of(checkpoints, checkpoint) or None,
        "children": len(children(checkpoints, checkpoint.name)),
        "descendants": len(descendants(checkpoints, checkpoint.name)),
        "disks": [disk.to_plain() for disk in checkpoint.disks],
    }


def checkpoint_parent(context: Context, args: Args) -> None:
    """Print the name of a checkpoint's parent."""
    domain = common.domain(context, args)
    found = domain.checkpoints[_named(args)]
    parent = parent_of(domain.checkpoints.all(), found)
    if not parent:
        raise NotFound(f"checkpoint '{found.name}' has no parent", kind="checkpoint", name="")
    context.out(json_text({"name": parent}) if args.json else parent)


def checkpoint_list(context: Context, args: Args) -> None:
    """List checkpoints."""
    for pair in (
        ("tree", "name"), ("parent", "roots"), ("parent", "tree"), ("roots", "tree"), ("roots", "from"),
        ("parent", "name"), ("tree", "leaves"), ("tree", "no-leaves"),
    ):  # fmt: skip
        args.exclusive(*pair)
    args.needs("descendants", "from")
    domain = common.domain(context, args)
    checkpoints, start = domain.checkpoints.all(), args.text("from") or ""
    if start:
        domain.checkpoints[start]
    if args.flag("tree"):
        below = {name: [one.name for one in children(checkpoints, name)] for name in ("", *checkpoints)}
        return context.out(draw_tree(lambda name: below[name], start))
    listed = _listed(domain, checkpoints, args, start)
    if args.json:
        return context.out(json_text([_checkpoint_row(checkpoints, one) for one in listed]))
    if args.flag("name"):
        return context.out("".join(f"{one.name}\n" for one in listed))
    headers = ["Name", "Creation Time"] + (["Parent"] if args.flag("parent") else [])
    rows = [
        [one.name, time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(one.created))]
        + ([parent_of(checkpoints, one)] if args.flag("parent") else [])
        for one in listed
    ]
    return context.out(table(headers, rows, header=not context.quiet))


def _listed(domain: Domain, checkpoints: Checkpoints, args: Args, start: str) -> list[Checkpoint]:
    """Return the checkpoints that the options select, in the order that they ask for."""
    if start and not args.flag("descendants"):
        listed = children(checkpoints, start)
    else:
        listed = children(checkpoints, "") if args.flag("roots") else descendants(checkpoints, start)
    parents = {parent_of(checkpoints, one) for one in checkpoints.values()}
    if args.flag("leaves") != args.flag("no-leaves"):
        listed = [one for one in listed if (one.name in parents) == args.flag("no-leaves")]
    return listed if args.flag("topological") else sorted(listed, key=lambda one: (one.name.lower(), one.name))
