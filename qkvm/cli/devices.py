"""Verbs on devices that are described in a file."""

from __future__ import annotations

from qkvm.cli import common

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args


def attach_device(context: Context, args: Args) -> None:
    """Plug the device that a file describes."""
    from qkvm.domain import deviceplug

    args.exclusive("persistent", "current")
    domain = common.domain(context, args)
    scope = {"persistent": args.flag("persistent"), **common.scope(args)}
    for warning in deviceplug.attach(domain, *common.read_file(args.required("file")), **scope):
        context.warn(warning)
    context.say("Device attached successfully\n")


def detach_device(context: Context, args: Args) -> None:
    """Unplug the device that a file describes."""
    from qkvm.domain import deviceplug

    args.exclusive("persistent", "current")
    domain = common.domain(context, args)
    options = {"persistent": args.flag("persistent"), **common.scope(args), **common.patience(args)}
    deviceplug.detach(domain, *common.read_file(args.required("file")), **options)
    context.say("Device detached successfully\n")


def detach_device_alias(context: Context, args: Args) -> None:
    """Unplug the device of an alias."""
    from qkvm.domain import deviceplug

    domain = common.domain(context, args)
    deviceplug.detach_alias(domain, args.required("alias"), **common.scope(args), **common.patience(args))
    context.say("Device detach request sent successfully\n")


def update_device(context: Context, args: Args) -> None:
    """Change the device that a file describes."""
    from qkvm.domain import deviceplug

    args.exclusive("persistent", "current")
    domain = common.domain(context, args)
    scope = {"persistent": args.flag("persistent"), "force": args.flag("force"), **common.scope(args)}
    deviceplug.update(domain, *common.read_file(args.required("file")), **scope)
    context.say("Device updated successfully\n")
