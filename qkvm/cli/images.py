"""Verbs on the files of saved guests: show and change what they say of them."""

from __future__ import annotations

from qkvm.cli import common
from qkvm.cli.output import json_text, print_xml
from qkvm.cli.saving import running
from qkvm.domain import saved

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args
    from qkvm.spec import domain as spec


def save_image_dumpxml(context: Context, args: Args) -> None:
    """Print what the guest of a file is."""
    _dump(context, args, args.required("file"))


def managedsave_dumpxml(context: Context, args: Args) -> None:
    """Print what the guest of a managed save is."""
    _dump(context, args, saved.managed_path(common.domain(context, args)))


def _dump(context: Context, args: Args, path: str) -> None:
    secret = args.flag("security-info")
    if args.json:
        return context.out(json_text(saved.plain(path, secret=secret)))

    return print_xml(context, args, saved.dump(path, secret=secret))


def save_image_define(context: Context, args: Args) -> None:
    """Replace what a file says of its guest."""
    path = args.required("file")
    saved.change(path, definition=_given(args, path), running=running(args))
    context.say(f"State file {path} updated.\n")


def managedsave_define(context: Context, args: Args) -> None:
    """Replace what a managed save says of its guest."""
    domain = common.domain(context, args)
    definition = _given(args, saved.managed_path(domain))
    saved.change_managed(domain, definition=definition, running=running(args))
    context.say(f"Managed save state file of domain '{domain.name}' updated.\n")


def _given(args: Args, path: str) -> spec.Domain:
    return saved.parse(*common.read_file(args.required("xml")), saved.load(path).definition.uuid)


def save_image_edit(context: Context, args: Args) -> None:
    """Let the user edit what a file says of its guest."""
    path, goes = args.required("file"), running(args)
    if _edit(context, path, lambda definition: saved.change(path, definition=definition, running=goes)):
        context.say(f"State file {path} edited.\n")
    else:
        context.say(f"Saved image {path} XML configuration not changed.\n")


def managedsave_edit(context: Context, args: Args) -> None:
    """Let the user edit what a managed save says of its guest."""
    domain, goes = common.domain(context, args), running(args)
    path = saved.managed_path(domain)
    if _edit(context, path, lambda definition: saved.change_managed(domain, definition=definition, running=goes)):
        context.say(f"Managed save image of Domain '{domain.name}' XML configuration edited.\n")
    else:
        context.say(f"Managed save image of domain '{domain.name}' XML configuration not changed.\n")


def _edit(context: Context, path: str, change: Callable[[spec.Domain], None]) -> bool:
    """Edit the description of a file with its passwords in it; False where nothing was changed."""
    from qkvm.cli import editor

    uuid = saved.load(path).definition.uuid
    text = saved.dump(path, secret=True)
    return editor.edit(context, text, lambda edited: change(saved.parse(edited, path, uuid)), suffix=".xml")
