"""Verbs on ports of networks."""

from __future__ import annotations

from qkvm.cli.output import json_text, print_xml, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args


def net_port_list(context: Context, args: Args) -> None:
    """List the ports of a network."""
    from qkvm.cli.net.networks import network_of

    args.exclusive("table", "uuid")
    found = network_of(context, args).ports()
    if args.json:
        context.out(json_text([port._asdict() for port in found]))
    elif args.flag("uuid"):
        context.out("".join(f"{port.uuid}\n" for port in found))
    else:
        context.out(table(("UUID",), [(port.uuid,) for port in found], header=not context.quiet))


def net_port_dumpxml(context: Context, args: Args) -> None:
    """Print a port as libvirt's XML."""
    from qkvm import xml
    from qkvm.cli.net.networks import find_network
    from qkvm.domain.device.nic import port as netport
    from qkvm.errors import NotFound
    from qkvm.units import printable

    network, wanted = find_network(context, args), args.required("port")
    try:
        port = netport.find(network, wanted)
    except NotFound as error:
        raise NotFound(
            f"failed to get network port '{printable(wanted)}'",
            kind="port",
            name=wanted,
            hint=f"net-port-list {network.name} shows them",
        ) from error
    if args.json:
        return context.out(json_text(port._asdict()))
    return print_xml(context, args, xml.dump(netport.describe(port)))
