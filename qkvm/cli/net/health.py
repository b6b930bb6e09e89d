"""Verbs that check and repair networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qkvm.cli.output import json_text

if TYPE_CHECKING:
    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args


def net_check(context: Context, args: Args) -> int:
    """Check a network, or all active ones; return 1 if something is wrong."""
    from qkvm.net import run
    from qkvm.net.health import check

    name = _network(context, args)
    with run.locked_networks(context.tree):
        checked = {name: check.check(context.tree, name)} if name else check.check_all(context.tree)
    found = [one for findings in checked.values() for one in findings]
    if args.json:
        context.out(json_text([one._asdict() | {"hint": one.advice} for one in found]))
    else:
        for network, findings in checked.items():
            for one in findings:
                context.out(f"{network}: {one.words} [{one.kind}]\n    {one.advice}\n")
            if not findings:
                context.say(f"{network}: nothing is wrong\n")
    return 1 if found else 0


def net_repair(context: Context, args: Args) -> int:
    """Restore missing parts of a network, or of all active ones; return 1 if something is still wrong."""
    from qkvm.net import run
    from qkvm.net.health import repair

    name = _network(context, args)
    with run.locked_networks(context.tree):
        wanted = [name] if name else sorted(run.records(context.tree))
        done = {network: repair.repair(context.tree, network) for network in wanted}
    if args.json:
        context.out(json_text({
            network: {
                "mended": [one._asdict() for one in one_done.mended], "errors": one_done.errors,
                "left": [one._asdict() | {"hint": one.advice} for one in one_done.left],
            }
            for network, one_done in done.items()
        }))  # fmt: skip
    else:
        for network, result in done.items():
            for one in result.mended:
                context.out(f"{network}: mended: {one.words} [{one.kind}]\n")
            for text in result.errors:
                context.warn(f"{network}: {text}")
            for one in result.left:
                context.out(f"{network}: left: {one.words} [{one.kind}]\n    {one.advice}\n")
            if not (result.mended or result.left):
                context.say(f"{network}: nothing to mend\n")
    return 1 if any(result.left or result.errors for result in done.values()) else 0


def _network(context: Context, args: Args) -> str:
    """Return the name of the selected network, '' for all."""
    from qkvm.cli.net.networks import network_named

    wanted = args.text("network")
    return "" if wanted is None else network_named(context, wanted).name
