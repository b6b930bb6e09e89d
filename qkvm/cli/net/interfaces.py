"""Verbs on the host's own network interfaces."""

from __future__ import annotations

from qkvm.cli.output import json_text, print_xml, show_value, table
from qkvm.errors import InvalidValue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args
    from qkvm.xml import Element


def iface_list(context: Context, args: Args) -> None:
    """List the host's interfaces: the active ones, all with --all, the inactive ones with --inactive."""
    found = context.host.interfaces.all()
    if not args.flag("all"):
        found = [entry for entry in found if entry.active != args.flag("inactive")]
    if args.json:
        return context.out(json_text([entry.plain() for entry in found]))
    rows = [(entry.name, "active" if entry.active else "inactive", entry.mac) for entry in found]
    return context.out(table(("Name", "State", "MAC Address"), rows, header=not context.quiet))


def iface_mac(context: Context, args: Args) -> None:
    """Print the MAC address of an interface."""
    show_value(context, args, mac=context.host.interfaces.by_name(args.required("interface")).mac)


def iface_name(context: Context, args: Args) -> None:
    """Print the name of the interface that has a MAC address."""
    show_value(context, args, name=context.host.interfaces.by_mac(args.required("interface")).name)


def iface_dumpxml(context: Context, args: Args) -> None:
    """Print an interface as libvirt's XML."""
    from qkvm import xml

    root = context.host.interfaces.describe(context.host.interfaces.find(args.required("interface")).name)
    if args.json:
        return context.out(json_text(_plain(root)))
    return print_xml(context, args, xml.dump(root))


def iface_bridge(context: Context, args: Args) -> None:
    """Create a bridge over an interface."""
    _refuse_no_start(args)
    found = context.host.interfaces.find(args.required("interface"))
    delay = args.number("delay") or 0
    made = context.host.interfaces.bridge(
        found.name, args.required("bridge"), stp=not args.flag("no-stp"), delay=delay
    )
    context.say(f"Created bridge {made.bridge} with attached device {made.nic}\n")
    context.say(f"Bridge interface {made.bridge} started\n")
    for told in made.warnings:
        context.warn(told)
    context.warn(
        f"bridge {made.bridge} lasts until this machine boots; to have it for good, configure it where {made.nic} "
        "is configured: netplan, ifupdown, NetworkManager or systemd-networkd"
    )


def iface_unbridge(context: Context, args: Args) -> None:
    """Remove the bridge over an interface."""
    _refuse_no_start(args)
    bridge = args.required("bridge")
    context.host.interfaces.by_name(bridge)
    nic = context.host.interfaces.unbridge(bridge)
    if nic:
        context.say(f"Device {nic} un-attached from bridge {bridge}\n")
        context.say(f"Interface {nic} started\n")
    else:
        context.say(f"Bridge {bridge} removed: its device is gone\n")


def _refuse_no_start(args: Args) -> None:
    if args.flag("no-start"):
        raise InvalidValue(
            "--no-start would only change a stored configuration, and qkvm keeps none of the host's interfaces",
            hint="leave it out; netplan, ifupdown and their like keep configurations",
        )


_MANY = ("protocol", "ip", "interface")
"""Elements that can occur more than once; they are lists in JSON."""


def _plain(element: Element) -> dict[str, Any]:
    """Return an element as JSON: its attributes, and its children by name."""
    found: dict[str, Any] = {
        name: int(text) if text.isdecimal() else text for name, text in element.attributes.items()
    }
    for child in element:
        if child.tag in _MANY:
            found.setdefault(child.tag, []).append(_plain(child))
        else:
            found[child.tag] = _plain(child)
    return found
