"""Verbs that check and repair networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qkvm.cli.output import json_text

if TYPE_CHECKING:
    from qkvm.api.network import Network
    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args


def net_check(context: Context, args: Args) -> int:
    """Check a network, or all active ones; return 1 if something is wrong."""
    from qkvm.api.network import Networks

    network = _network(context, args)
    checked = {network.name: network.check()} if network else Networks(context.tree).check()
    found = [one for findings in checked.values() for one in findings]
    if args.json:
        context.out(json_text([one._asdict() | {"hint": one.advice} for one in found]))
    else:
        for name, findings in checked.items():
            for one in findings:
                context.out(f"{name}: {one.words} [{one.kind}]\n    {one.advice}\n")
            if not findings:
                context.say(f"{name}: nothing is wrong\n")
    return 1 if any(not one.harmless for one in found) else 0


def net_repair(context: Context, args: Args) -> int:
    """Restore missing parts of a network, or of all active ones; return 1 if something is still wrong."""
    from qkvm.api.network import Networks

    network = _network(context, args)
    done = {network.name: network.repair()} if network else Networks(context.tree).repair()
    if args.json:
        context.out(json_text([
            {
                "network": name, "errors": one_done.errors,
                "mended": [one._asdict() for one in one_done.mended],
                "left": [one._asdict() | {"hint": one.advice} for one in one_done.left],
            }
            for name, one_done in done.items()
        ]))  # fmt: skip
    else:
        for name, result in done.items():
            for one in result.mended:
                context.out(f"{name}: mended: {one.words} [{one.kind}]\n")
            for text in result.errors:
                context.warn(f"{name}: {text}")
            for one in result.left:
                context.out(f"{name}: left: {one.words} [{one.kind}]\n    {one.advice}\n")
            if not (result.mended or result.left):
                context.say(f"{name}: nothing to mend\n")
    left = [one for result in done.values() for one in result.left if not one.harmless]
    return 1 if left or any(result.errors for result in done.values()) else 0


def _network(context: Context, args: Args) -> Network | None:
    """Return the selected network, None for all."""
    from qkvm.api.network import Network
    from qkvm.cli.net.networks import network_named

    wanted = args.text("network")
    return None if wanted is None else Network(context.tree, network_named(context, wanted).name)
