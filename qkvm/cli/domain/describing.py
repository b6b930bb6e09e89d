"""Verbs that show and edit a domain's description."""

from __future__ import annotations

from qkvm.cli import common
from qkvm.cli.output import json_text, print_xml
from qkvm.cli.parse import UsageError
from qkvm.errors import HostError, InvalidState

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from qkvm.api.domain import Domain
    from qkvm.api.network import Network
    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args
    from qkvm.scope import Scope


def dumpxml(context: Context, args: Args) -> None:
    """Print a domain as libvirt's XML."""

    domain = common.domain(context, args)
    scope = {"inactive": args.flag("inactive"), "migratable": args.flag("migratable")}
    if args.json:
        return context.out(json_text(domain.plain(secret=args.flag("security-info"), **scope)))
    return print_xml(context, args, domain.xml(secret=args.flag("security-info"), **scope))


def edit(context: Context, args: Args) -> None:
    """Let the user edit a domain's definition."""
    from qkvm.cli import editor
    from qkvm.domain import define, definition

    domain = common.domain(context, args)
    if not domain.is_persistent:
        raise InvalidState("transient domains do not have any persistent config")

    def now() -> str:
        if args.flag("toml"):
            return definition.stored_text(domain)
        return domain.xml(inactive=True, secret=True)

    before, name = now(), domain.name

    def accept(text: str) -> None:
        nonlocal name
        if now() != before:
            raise HostError("the configuration was changed by another user")
        name = define.define(context.tree, text, f"{domain.name} as edited").name

    kind = "TOML" if args.flag("toml") else "XML"
    if editor.edit(context, before, accept, suffix=f".{kind.lower()}"):
        context.say(f"Domain '{name}' {kind} configuration edited.\n")
    else:
        context.say(f"Domain '{name}' {kind} configuration not changed.\n")


def desc(context: Context, args: Args) -> None:
    """Show or set the description or the title of a domain."""
    show_description(context, args, common.domain(context, args), "domain")


def show_description(context: Context, args: Args, owner: Domain | Network, kind: str) -> None:
    """Show or set the description or the title of a domain or a network."""
    from qkvm.domain.manage import describe

    scope = common.scope(args)
    what = "title" if args.flag("title") else "description"
    words = args.texts("new-desc")
    if not words and not args.flag("edit"):
        told = describe.told(owner, scope=scope)
        if args.json:
            return context.out(json_text({"title": told.title, "description": told.description}))
        return context.out(getattr(told, what) or f"No {what} for {kind}: {owner.name}")
    change = describe.set_title if args.flag("title") else describe.set_description
    text = " ".join(words)
    if args.flag("edit"):
        before = getattr(describe.told(owner, scope=scope), what)
        if not _edit_line(context, text or before, before, lambda edited: change(owner, edited, scope=scope)):
            return context.say(f"{kind.capitalize()} {what} not changed\n")
    else:
        change(owner, text, scope=scope)
    return context.say(f"{kind.capitalize()} {what} updated successfully")


def _edit_line(context: Context, text: str, before: str, accept: Callable[[str], object]) -> bool:
    """Let the user edit a text; return False if the result equals ``before``."""
    from qkvm.cli import editor

    # Some editors add a newline at the end.
    changed = editor.edit(context, text, lambda edited: accept(edited.removesuffix("\n")), suffix=".txt")
    if not changed and text != before:
        accept(text)
        return True
    return changed


def metadata(context: Context, args: Args) -> None:
    """Show or set an element of a domain's metadata."""
    show_metadata(context, args, common.domain(context, args))


def show_metadata(context: Context, args: Args, owner: Domain | Network) -> None:
    """Show or set an element of the metadata of a domain or a network."""
    args.exclusive("remove", "set")
    args.exclusive("remove", "edit")
    args.exclusive("set", "edit")
    scope, uri = common.scope(args), args.required("uri")
    if (args.has("set") or args.flag("edit")) and not args.has("key"):
        raise UsageError("namespace key is required when modifying metadata")
    key = args.text("key") or ""
    if args.flag("remove"):
        owner.set_metadata(uri, "", "", scope=scope)
        context.say("Metadata removed\n")
    elif args.has("set"):
        owner.set_metadata(uri, args.text("set") or "", key, scope=scope)
        context.say("Metadata modified\n")
    elif args.flag("edit"):
        before = _shown(owner, uri, scope)
        changed = _edit_line(context, before, before, lambda text: owner.set_metadata(uri, text, key, scope=scope))
        context.say("Metadata modified\n" if changed else "Metadata not changed")
    elif args.json:
        context.out(json_text({"uri": uri, "xml": owner.metadata(uri, scope=scope)}))
    else:
        owner.metadata(uri, scope=scope)
        context.out(_shown(owner, uri, scope))


def _shown(owner: Domain | Network, uri: str, scope: Scope) -> str:
    """Return the element of a namespace as virsh shows it, without the namespace; '' if there is none."""
    from qkvm import xpath
    from qkvm.domain.manage import describe
    from qkvm.spec.libvirt.metadata import without_namespace

    text = describe.told(owner, scope=scope).metadata.get(uri)
    return f"{xpath.show(without_namespace(text))}\n" if text else ""
