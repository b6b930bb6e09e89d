"""Verbs that back domains up into folders and bring them back."""

from __future__ import annotations

from qkvm.cli import common
from qkvm.cli.output import json_text, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args
    from qkvm.storage.backup import Backup, Manifest


def backup(context: Context, args: Args) -> None:
    """Back a domain up into a folder."""
    from qkvm.domain import backup as library
    from qkvm.units import pretty_size

    args.exclusive("full", "incremental")
    options = library.Options(
        args.flag("full"), args.flag("incremental"), args.flag("compress"), not args.flag("no-freeze"),
        common.bandwidth(args),
    )  # fmt: skip
    domain, folder = common.domain(context, args), args.required("to")
    found = library.backup(domain, folder, options, report=_report(context, args, "Backup"))
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
    """Make a domain of a backup, or list what a folder holds."""
    from qkvm.domain import restorebackup as library
    from qkvm.domain.host import Host

    folder = args.required("from")
    if args.flag("list"):
        return _list(context, args, library.contents(folder))
    Host(context.tree.root).prepare()
    domain = library.restore(
        context.tree, folder, name=args.text("name") or "", number=args.number("number") or 0,
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
    """Full where nothing is based on an earlier one, incremental where all is, else partly."""
    based = sum(bool(one.base) for one in backup.disks)
    return "full" if not based else "incremental" if based == len(backup.disks) else "partly incremental"


def _row(backup: Backup) -> dict[str, object]:
    import msgspec

    plain: dict[str, object] = msgspec.to_builtins(backup)
    del plain["definition"]
    # What is printed may be kept in logs, and a seed may hold passwords.
    plain["seed"] = backup.seed is not None
    return {"kind": _kind(backup), **plain}


def _report(context: Context, args: Args, label: str) -> Callable[[int, int], None] | None:
    """What says on stderr how far it is, as virsh does for its jobs; None without --verbose."""
    if not args.flag("verbose"):
        return None

    def report(done: int, total: int) -> None:
        share = min(done * 100.0 / total, 99.99) if total else 0.0
        context.progress(f"\r{label}: [{share:5.2f} %]")

    return report


def _done(context: Context, args: Args, label: str) -> None:
    if args.flag("verbose"):
        context.progress(f"\r{label}: [100.00 %]\n")
