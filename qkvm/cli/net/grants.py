"""Verbs on grants of networks to users."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qkvm.cli.output import json_text, table
from qkvm.cli.parse import UsageError

if TYPE_CHECKING:
    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args
    from qkvm.net.network.granted import Granted


def net_grant(context: Context, args: Args) -> None:
    """Grant a network to a user, revoke a grant, or list the grants."""
    from qkvm.api.network import Network, Networks

    args.exclusive("list", "revoke")
    name, who = args.text("network"), args.text("who")
    if args.flag("list") or who is None:
        if args.flag("revoke"):
            raise UsageError("--revoke needs a user", hint="qkvm net-grant NETWORK USER --revoke")
        found = Network.lookup(context.tree, name).grants.all() if name else Networks(context.tree).grants()
        return _list(context, args, found)
    network = Network.lookup(context.tree, name or "")
    if args.flag("revoke"):
        warnings = network.grants.revoke(who)
    else:
        warnings = network.grants.allow(who, taps=args.number("taps"), isolated=not args.flag("not-isolated"))
    for warning in warnings:
        context.warn(warning)
    done = "no longer granted" if args.flag("revoke") else "granted"
    return context.say(f"Network {network.name} {done} to {who}\n")


def _list(context: Context, args: Args, found: list[Granted]) -> None:
    from qkvm.spec import toml

    if args.json:
        rows = [
            {
                **toml.to_plain(one.grant), "taps": one.grant.taps, "isolated": one.grant.isolated,
                "network": one.network, "used": one.used,
            }
            for one in found
        ]  # fmt: skip
        return context.out(json_text(rows))
    headers = ("Network", "Granted to", "NICs", "In use", "Isolated")
    shown = [
        (one.network, one.grant.who, str(one.grant.taps), str(one.used), "yes" if one.grant.isolated else "no")
        for one in found
    ]
    return context.out(table(headers, shown, header=not context.quiet))
