"""Verbs that save and restore guests, dump their memory, and show and edit saved guests."""

from __future__ import annotations

from qkvm.cli import common
from qkvm.cli.output import json_text, print_xml
from qkvm.domain.state import saved

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args
    from qkvm.domain.state.saved import SavedGuest
    from qkvm.spec import domain as spec


def save(context: Context, args: Args) -> None:
    """Save a guest to a file and end its QEMU."""
    domain = common.domain(context, args)
    path = args.required("file")
    options = {**_how(args), "definition": _definition(args, lambda: domain.uuid)}
    options |= {"image_format": args.text("image-format") or "raw", "channels": _channels(args)}
    _with_progress(context, args, "Save", lambda report: domain.save(path, report=report, **options))
    context.say(f"\nDomain '{domain.name}' saved to {path}\n")


def restore(context: Context, args: Args) -> None:
    """Restore a domain from a file."""

    path = args.required("file")
    options = {**_how(args), "definition": _definition(args, lambda: _saved(path).definition.uuid)}
    options |= {"reset_nvram": args.flag("reset-nvram"), "channels": _channels(args)}
    _, warnings = context.host.restore(path, **options)
    for warning in warnings:
        context.warn(warning)
    context.say(f"Domain restored from {path}\n")


def managedsave(context: Context, args: Args) -> None:
    """Save a guest to a managed file, from which its next start restores it."""
    domain = common.domain(context, args)
    options = _how(args)
    _with_progress(context, args, "Managedsave", lambda report: domain.managed_save(report=report, **options))
    context.say(f"\nDomain '{domain.name}' state saved by qkvm\n")


def managedsave_remove(context: Context, args: Args) -> None:
    """Remove a managed save."""
    domain = common.domain(context, args)
    if domain.remove_managed_save():
        context.say(f"Removed managedsave image for domain '{domain.name}'")
    else:
        context.say(f"Domain '{domain.name}' has no manage save image; removal skipped")


def dump(context: Context, args: Args) -> None:
    """Write a guest's memory to a file."""
    from qkvm.cli.parse import UsageError

    domain = common.domain(context, args)
    path = args.required("file")
    if args.has("format") and not args.flag("memory-only"):
        raise UsageError("--format only works with --memory-only")
    options: dict[str, Any] = {
        name.replace("-", "_"): args.flag(name)
        for name in ("live", "crash", "reset", "memory-only", "bypass-cache")
    }
    options["format"] = args.text("format") or "elf"
    _with_progress(context, args, "Dump", lambda report: domain.dump(path, report=report, **options))
    context.say(f"\nDomain '{domain.name}' dumped to {path}\n")


def _channels(args: Args) -> int:
    """Return --parallel-channels, 0 if it is not given."""
    from qkvm.cli.parse import UsageError

    channels = args.number("parallel-channels")
    if channels == 0:
        raise UsageError("number of parallel save channels cannot be 0")
    return channels or 0


def _how(args: Args) -> dict[str, Any]:
    """Return --bypass-cache, --running and --paused as keywords."""
    return {"bypass_cache": args.flag("bypass-cache"), "running": running(args)}


def running(args: Args) -> bool | None:
    """Return True for --running, False for --paused, None for neither."""
    args.exclusive("running", "paused")
    return True if args.flag("running") else False if args.flag("paused") else None


def _definition(args: Args, uuid: Callable[[], str]) -> spec.Domain | None:
    """Return the definition in the file of --xml; ``uuid`` returns the UUID for a definition without one."""
    path = args.text("xml")
    if path is None:
        return None
    from qkvm.domain.state import saved

    return saved.parse(*common.read_file(path), uuid())


def _saved(path: str) -> SavedGuest:
    from qkvm.domain.state import saved

    return saved.load(path)


def _with_progress(
    context: Context, args: Args, label: str, work: Callable[[Callable[[int, int], None] | None], None]
) -> None:
    """Run ``work``, and with --verbose print the progress on stderr as virsh does."""

    def report(remaining: int, total: int) -> None:
        # 100 % is printed only when the verb is done.
        share = min(100.0 - remaining * 100.0 / total, 99.99) if total else 0.0
        context.progress(f"\r{label}: [{share:5.2f} %]")

    verbose = args.flag("verbose")
    if verbose:
        report(1, 1)
    work(report if verbose else None)
    if verbose:
        context.progress(f"\r{label}: [{100:5.2f} %]")


def save_image_dumpxml(context: Context, args: Args) -> None:
    """Print the definition in a saved file as XML."""
    _dump(context, args, args.required("file"))


def managedsave_dumpxml(context: Context, args: Args) -> None:
    """Print the definition in a managed save as XML."""
    _dump(context, args, saved.managed_path(common.domain(context, args)))


def _dump(context: Context, args: Args, path: str) -> None:
    secret = args.flag("security-info")
    if args.json:
        return context.out(json_text(saved.plain(path, secret=secret)))

    return print_xml(context, args, saved.dump(path, secret=secret))


def save_image_define(context: Context, args: Args) -> None:
    """Replace the definition in a saved file."""
    path = args.required("file")
    saved.change(path, definition=_given(args, path), running=running(args))
    context.say(f"State file {path} updated.\n")


def managedsave_define(context: Context, args: Args) -> None:
    """Replace the definition in a managed save."""
    domain = common.domain(context, args)
    definition = _given(args, saved.managed_path(domain))
    domain.change_managed_save(definition=definition, running=running(args))
    context.say(f"Managed save state file of domain '{domain.name}' updated.\n")


def _given(args: Args, path: str) -> spec.Domain:
    return saved.parse(*common.read_file(args.required("xml")), saved.load(path).definition.uuid)


def save_image_edit(context: Context, args: Args) -> None:
    """Let the user edit the definition in a saved file."""
    path, goes = args.required("file"), running(args)
    if _edit(context, path, lambda definition: saved.change(path, definition=definition, running=goes)):
        context.say(f"State file {path} edited.\n")
    else:
        context.say(f"Saved image {path} XML configuration not changed.\n")


def managedsave_edit(context: Context, args: Args) -> None:
    """Let the user edit the definition in a managed save."""
    domain, goes = common.domain(context, args), running(args)
    path = saved.managed_path(domain)
    if _edit(context, path, lambda definition: domain.change_managed_save(definition=definition, running=goes)):
        context.say(f"Managed save image of Domain '{domain.name}' XML configuration edited.\n")
    else:
        context.say(f"Managed save image of domain '{domain.name}' XML configuration not changed.\n")


def _edit(context: Context, path: str, change: Callable[[spec.Domain], None]) -> bool:
    """Let the user edit a file's definition, passwords included; return False if nothing was changed."""
    from qkvm.cli import editor

    uuid = saved.load(path).definition.uuid
    text = saved.dump(path, secret=True)
    return editor.edit(context, text, lambda edited: change(saved.parse(edited, path, uuid)), suffix=".xml")
