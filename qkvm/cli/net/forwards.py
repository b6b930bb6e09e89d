"""Verbs that forward ports of the host to guests."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qkvm.cli.output import json_text, table
from qkvm.cli.parse import UsageError
from qkvm.units import printable

if TYPE_CHECKING:
    from qkvm.api.network import Network
    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args
    from qkvm.net.network.forward import Entry
    from qkvm.scope import Scope
    from qkvm.spec.forward import Forward

_ACTIONS = ("add", "delete", "list", "refresh")


def net_forward(context: Context, args: Args) -> None:
    """Add, delete or list the ports of the host that are forwarded to a network's guests."""
    from qkvm.cli.net.networks import network_of

    action = args.required("action")
    if action not in _ACTIONS:
        raise UsageError(f"unknown action '{printable(action)}'", hint=", ".join(_ACTIONS))
    network = network_of(context, args)
    if action == "list":
        _list(context, args, network)
    elif action == "refresh":
        network.forwards.refresh()
    else:
        wanted = _forward(args, whole=action == "add")
        scope = _scope(args, network)
        if action == "add":
            network.forwards.add(wanted, scope=scope)
            _warn_of_unknown(context, wanted)
        else:
            network.forwards.delete(wanted.label, args.text("guest") or "", scope=scope)
        context.say(f"Forward {wanted.label} {'added' if action == 'add' else 'deleted'}\n")


def _warn_of_unknown(context: Context, wanted: Forward) -> None:
    """Warn if the guest does not exist: it may be created later, or its name may be misspelled."""
    from qkvm.domain.handle import names

    if not wanted.address and wanted.guest not in names(context.tree):
        context.warn(
            f"there is no domain '{printable(wanted.guest)}' yet; the forward leads nowhere until there is"
        )


def _forward(args: Args, *, whole: bool) -> Forward:
    """Return the forward that the options describe; without ``whole``, as for delete, the guest may be omitted."""
    from qkvm.spec.forward import Forward, Protocol, parse_ports

    protocol = args.text("protocol") or "tcp"
    if protocol not in ("tcp", "udp"):
        raise UsageError(f"unknown protocol '{printable(protocol)}'", hint="tcp or udp")
    guest = args.text("guest")
    if whole and not guest:
        raise UsageError("add needs a guest", hint="a domain's name, or an address on the network")
    ports = args.text("ports")
    if not ports:
        raise UsageError("a port is needed", hint="8080, or 8000-8010")
    return Forward(
        protocol=Protocol(protocol), listen=args.text("listen") or "", ports=parse_ports(ports),
        guest=guest or "any", to=args.number("to") or 0,
    )  # fmt: skip


def _scope(args: Args, network: Network) -> Scope:
    """Return the requested scope; by default live and config, as far as the network has them."""
    from qkvm.scope import Scope

    live, config = args.flag("live"), args.flag("config")
    if not live and not config:
        live, config = network.active, network.persistent
    return (Scope.LIVE if live else Scope.CURRENT) | (Scope.CONFIG if config else Scope.CURRENT)


def _list(context: Context, args: Args, network: Network) -> None:
    from qkvm.spec import toml

    found = network.forwards.all()
    if args.json:
        rows = [
            {
                **toml.to_plain(one.forward), "protocol": one.forward.protocol.value,
                "addresses": list(one.addresses), "live": one.live, "config": one.config,
            }
            for one in found
        ]  # fmt: skip
        context.out(json_text(rows))
        return
    headers = ("Protocol", "Listen", "Ports", "Guest", "Address", "To", "State")
    context.out(table(headers, [_row(one) for one in found], header=not context.quiet))


def _row(entry: Entry) -> tuple[str, ...]:
    one = entry.forward
    first, last = one.target
    state = "live, config" if entry.live and entry.config else "live" if entry.live else "config"
    return (
        one.protocol.value, one.listen or "-", one.ports, one.guest, " ".join(entry.addresses) or "-",
        str(first) if first == last else f"{first}-{last}", state,
    )  # fmt: skip
