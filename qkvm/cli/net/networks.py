"""Verbs on networks."""

from __future__ import annotations

from qkvm.cli.output import json_text, measured, pairs, print_xml, show_value, table
from qkvm.cli.parse import UsageError
from qkvm.errors import NotFound, QkvmError
from qkvm.units import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.api.network import Network
    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args
    from qkvm.net.network.handle import Handle
    from qkvm.net.run import Started


def find_network(context: Context, args: Args) -> Handle:
    """Return the network to read, found by name or UUID. :raises NotFound: with virsh's message."""
    return network_named(context, args.required("network"))


def network_of(context: Context, args: Args) -> Network:
    """Return the network to change, found by name or UUID. :raises NotFound: with virsh's message."""
    from qkvm.api.network import Network

    return Network(context.tree, find_network(context, args).name)


def network_named(context: Context, wanted: str) -> Handle:
    """Return the network that has a name or UUID. :raises NotFound: with virsh's message."""
    from qkvm.net.network.handle import Handle, ensure_default

    ensure_default(context.tree)
    try:
        return Handle.lookup(context.tree, wanted)
    except NotFound as error:
        raise NotFound(
            f"failed to get network '{wanted}': Network not found: no network with matching name '{wanted}'",
            kind="network",
            name=wanted,
        ) from error


def net_define(context: Context, args: Args) -> None:
    """Store a network's definition from a file in TOML or libvirt's XML."""
    from qkvm.cli.common import read_file

    path = args.required("file")
    told: list[str] = []
    network = context.host.networks.define(*read_file(path), told=told)
    for warning in told:
        context.warn(warning)
    context.say(f"Network {network.name} defined from {path}\n")


def net_create(context: Context, args: Args) -> None:
    """Start a network from a file without keeping its definition."""
    from qkvm.cli.common import read_file
    from qkvm.net.network.network import Network

    context.host.prepare()
    path = args.required("file")
    network, started = Network.create(context.tree, *read_file(path))
    _tell_moved(context, network.name, started)
    context.say(f"Network {network.name} created from {path}\n")


def net_undefine(context: Context, args: Args) -> None:
    """Remove a network's definition."""
    network = network_of(context, args)
    network.undefine()
    context.say(f"Network {network.name} has been undefined\n")


def net_autostart(context: Context, args: Args) -> None:
    """Mark a network to start at boot, or unmark it."""
    network = network_of(context, args)
    off = args.flag("disable")
    network.set_autostart(not off)
    context.say(f"Network {network.name} {'unmarked' if off else 'marked'} as autostarted\n")


def net_start(context: Context, args: Args) -> None:
    """Start a network: bridge, packet-filter rules, dnsmasq; or only print the rules."""

    firewall = args.text("firewall") or ""
    if args.flag("dry-run"):
        return context.out(network_of(context, args).preview(firewall))
    context.host.prepare()
    network = network_of(context, args)
    _tell_moved(context, network.name, network.start(firewall=firewall))
    return context.say(f"Network {network.name} started\n")


def _tell_moved(context: Context, name: str, started: Started) -> None:
    for warning in started.warnings:
        context.warn(warning)
    if started.relocated:
        actual = started.definition
        where = " and ".join(map(str, actual.subnets)) or "no address"
        context.warn(f"{started.reason}: network {name} uses {where} on bridge {actual.bridge}")


def net_destroy(context: Context, args: Args) -> None:
    """Stop a network."""
    network = network_of(context, args)
    network.destroy()
    context.say(f"Network {network.name} destroyed\n")


def net_list(context: Context, args: Args) -> None:
    """List networks: the active ones, all with --all, the inactive ones with --inactive."""
    from qkvm.net.network.handle import Handle, ensure_default, list_networks

    ensure_default(context.tree)
    found = [
        entry for entry in list_networks(context.tree) if args.flag("all") or entry.active != args.flag("inactive")
    ]
    if args.flag("persistent") != args.flag("transient"):
        found = [entry for entry in found if entry.persistent == args.flag("persistent")]
    if args.flag("autostart") != args.flag("no-autostart"):
        found = [entry for entry in found if entry.autostart == args.flag("autostart")]
    if args.json:
        context.out(json_text([{**entry._asdict(), "title": _title(context, entry.name)} for entry in found]))
    elif args.flag("name") or args.flag("uuid"):
        for entry in found:
            context.out(f"{Handle(context.tree, entry.name).info().uuid if args.flag('uuid') else entry.name}\n")
    else:
        headers = ["Name", "State", "Autostart", "Persistent"]
        rows = [
            [entry.name, "active" if entry.active else "inactive", _yes(entry.autostart), _yes(entry.persistent)]
            for entry in found
        ]
        if args.flag("title"):
            headers.append("Title")
            for row in rows:
                row.append(_title(context, row[0]))
        context.out(table(headers, rows, header=not context.quiet))


def _title(context: Context, name: str) -> str:
    """Return a network's title; '' for a damaged definition, so that the other networks are shown."""
    from qkvm.net.network.handle import Handle

    network = Handle(context.tree, name)
    try:
        return (network.actual if network.active else network.definition).title
    except QkvmError:
        return ""


def net_info(context: Context, args: Args) -> None:
    """Show a network."""
    info = find_network(context, args).info()
    if args.json:
        context.out(json_text(info._asdict()))
        return
    context.out(pairs((
        ("Name", info.name), ("UUID", info.uuid),
        ("Active", _yes(info.active)), ("Persistent", _yes(info.persistent)),
        ("Autostart", _yes(info.autostart)), ("Bridge", info.bridge),
    )))  # fmt: skip


def net_dump(context: Context, args: Args) -> None:
    """Print a network's definition; for an active network the one that it runs with."""
    from qkvm.spec import toml

    network = find_network(context, args)
    context.out(toml.dumps(network.actual if network.active else network.definition))


def net_dumpxml(context: Context, args: Args) -> None:
    """Print a network's definition as libvirt's XML; for an active network the one that it runs with."""
    from msgspec.structs import replace

    from qkvm.domain.run import live_runs
    from qkvm.spec import toml
    from qkvm.spec.libvirt.network.network import dumps

    network = find_network(context, args)
    active = network.active and not (args.flag("inactive") and network.persistent)
    definition = network.actual if active else network.definition
    current = network.record if active else None
    if current is not None and current.get("mac"):
        definition = replace(definition, mac=current["mac"])
    if args.json:
        return context.out(json_text(toml.to_plain(definition)))
    guests = 0
    if active:
        nics = [nic for run in live_runs(context.tree) for nic in run.devices("nics")]
        guests = sum(nic["type"] == "network" and nic["source"] == network.name for nic in nics)
    return print_xml(context, args, dumps(definition, connections=guests))


def net_edit(context: Context, args: Args) -> None:
    """Let the user edit a network's definition."""
    from qkvm.cli import editor
    from qkvm.errors import HostError, InvalidState
    from qkvm.spec.libvirt.network.network import dumps

    network = find_network(context, args)
    if not network.persistent:
        raise InvalidState("transient networks do not have any persistent config")
    before, name = dumps(network.definition), network.name

    def accept(text: str) -> None:
        nonlocal name
        if dumps(network.definition) != before:
            raise HostError("the configuration was changed by another user")
        name = context.host.networks.define(text, f"{network.name} as edited").name

    changed = editor.edit(context, before, accept, suffix=".xml")
    context.say(f"Network {name} XML configuration {'edited' if changed else 'not changed'}.\n")


def net_dhcp_leases(context: Context, args: Args) -> None:
    """Show the DHCP leases of a network."""
    import time

    network = find_network(context, args)
    leases = network.dhcp_leases(args.text("mac"))
    if args.json:
        context.out(json_text([measured(lease._asdict(), at="expiry") for lease in leases]))
        return
    definition = network.actual if network.active else network.definition
    prefixes: dict[int, int] = {subnet.version: subnet.prefixlen for subnet in definition.subnets}
    rows = [
        (
            time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(lease.expiry)) if lease.expiry else "-",
            lease.mac or "-", *_protocol(lease.ip, prefixes), lease.hostname or "-", lease.client_id or "-",
        )
        for lease in leases
    ]  # fmt: skip
    headers = ("Expiry Time", "MAC address", "Protocol", "IP address", "Hostname", "Client ID or DUID")
    context.out(table(headers, rows, header=not context.quiet))


def _protocol(ip: str, prefixes: dict[int, int]) -> tuple[str, str]:
    """Return the protocol of an address, and the address with its network's prefix."""
    version = 6 if ":" in ip else 4
    return f"ipv{version}", f"{ip}/{prefixes.get(version, 128 if version == 6 else 32)}"


def net_uuid(context: Context, args: Args) -> None:
    """Print the UUID of a network."""
    show_value(context, args, uuid=find_network(context, args).info().uuid)


def net_name(context: Context, args: Args) -> None:
    """Print the name of a network."""
    show_value(context, args, name=find_network(context, args).name)


def _yes(flag: bool) -> str:
    return "yes" if flag else "no"


def net_desc(context: Context, args: Args) -> None:
    """Show or set the description or the title of a network."""
    from qkvm.cli.domain.describing import show_description

    show_description(context, args, network_of(context, args), "network")


def net_metadata(context: Context, args: Args) -> None:
    """Show or set an element of a network's metadata."""
    from qkvm.cli.domain.describing import show_metadata

    show_metadata(context, args, network_of(context, args))


def net_update(context: Context, args: Args) -> None:
    """Change one part of an active network, of its definition, or of both."""
    from qkvm.cli.common import read_file, scope
    from qkvm.spec.libvirt.network import update

    asked = scope(args)
    network = network_of(context, args)
    command, section = args.required("command"), args.required("section")
    if command not in update.COMMANDS:
        raise UsageError(f"unrecognized command name '{printable(command)}'", hint=", ".join(update.COMMANDS))
    if section not in update.sections():
        raise UsageError(f"unrecognized section name '{printable(section)}'", hint=", ".join(update.sections()))
    xml = args.required("xml")
    # As in virsh the argument may be the element itself instead of a file name.
    text, path = (xml.encode(), "network_update_xml") if xml.startswith("<") else read_file(xml)
    wanted = asked.when(running=network.active)
    index = args.signed("parent-index")
    network.update(command, section, text, path, index=-1 if index is None else index, scope=wanted)
    parts = ["persistent config"] * wanted.config + ["live state"] * wanted.live
    context.say(f"Updated network {network.name} {' and '.join(parts)}")
