"""Verbs on grants of networks to users."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qkvm.cli.output import json_text, table
from qkvm.cli.parse import UsageError

if TYPE_CHECKING:
    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args
    from qkvm.net.network.handle import Handle


def net_grant(context: Context, args: Args) -> None:
    """Grant a network to a user, revoke a grant, or list the grants."""
    from qkvm.net.grant import grants, handout, right
    from qkvm.net.network.handle import Handle
    from qkvm.spec.grant import Grant

    args.exclusive("list", "revoke")
    name, who = args.text("network"), args.text("who")
    if args.flag("list") or who is None:
        if args.flag("revoke"):
            raise UsageError("--revoke needs a user", hint="qkvm net-grant NETWORK USER --revoke")
        return _list(context, args, name)
    network = Handle.lookup(context.tree, name or "")
    if args.flag("revoke"):
        grants.revoke(context.tree, network.name, who)
    else:
        _require_dhcp(network)
        taps = args.number("taps")
        wanted = {} if taps is None else {"taps": taps}
        right.check_code()
        grants.allow(context.tree, network.name, Grant(who=who, isolated=not args.flag("not-isolated"), **wanted))
    handout.enforce(context.tree, network.name)
    for warning in right.refresh(context.tree):
        context.warn(warning)
    done = "no longer granted" if args.flag("revoke") else "granted"
    return context.say(f"Network {network.name} {done} to {who}\n")


def _require_dhcp(network: Handle) -> None:
    from qkvm.errors import InvalidState

    if network.definition.dhcp is None:
        raise InvalidState(
            f"network '{network.name}' gives no addresses by DHCP",
            hint="what a user's guest sends is filtered by the address that DHCP keeps for it",
        )


def _list(context: Context, args: Args, name: str | None) -> None:
    from qkvm.net import run
    from qkvm.net.grant import grants, handout
    from qkvm.net.network.handle import Handle
    from qkvm.spec import toml

    names = [Handle.lookup(context.tree, name).name] if name else grants.networks(context.tree)
    records = run.records(context.tree)
    found = []
    for network in names:
        live = handout.live(records.get(network, {}))
        for one in grants.load(context.tree, network):
            used = sum(grants.of(context.tree, network, entry["uid"]) == one for entry in live)
            found.append((network, one, used))
    if args.json:
        rows = [
            {**toml.to_plain(one), "taps": one.taps, "isolated": one.isolated, "network": network, "used": used}
            for network, one, used in found
        ]
        return context.out(json_text(rows))
    headers = ("Network", "Granted to", "NICs", "In use", "Isolated")
    shown = [
        (network, one.who, str(one.taps), str(used), "yes" if one.isolated else "no")
        for network, one, used in found
    ]
    return context.out(table(headers, shown, header=not context.quiet))
