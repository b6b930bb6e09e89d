"""Verbs on a domain's NICs, and on devices that a file describes."""

from __future__ import annotations

from qkvm.cli import common
from qkvm.cli.output import fields, json_text, measured, table
from qkvm.cli.parse import UsageError
from qkvm.errors import InvalidValue, NotFound
from qkvm.units import parse_mac, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from qkvm.api.domain import Domain
    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args


def attach_device(context: Context, args: Args) -> None:
    """Plug the device that a file describes."""

    domain, scope = common.domain(context, args), common.scope(args)
    for warning in domain.devices.attach(*common.read_file(args.required("file")), scope=scope):
        context.warn(warning)
    context.say("Device attached successfully\n")


def detach_device(context: Context, args: Args) -> None:
    """Unplug the device that a file describes."""

    domain, scope = common.domain(context, args), common.scope(args)
    described = common.read_file(args.required("file"))
    domain.devices.detach(*described, scope=scope, **common.patience(args))
    context.say("Device detached successfully\n")


def detach_device_alias(context: Context, args: Args) -> None:
    """Unplug the device that has an alias."""

    domain = common.domain(context, args)
    domain.devices.detach_alias(args.required("alias"), scope=common.scope(args), **common.patience(args))
    context.say("Device detach request sent successfully\n")


def update_device(context: Context, args: Args) -> None:
    """Change the device that a file describes."""

    domain, scope = common.domain(context, args), common.scope(args)
    described = common.read_file(args.required("file"))
    domain.devices.update(*described, force=args.flag("force"), scope=scope)
    context.say("Device updated successfully\n")


def attach_interface(context: Context, args: Args) -> None:
    """Plug a NIC."""
    domain, scope = common.domain(context, args), common.scope(args)
    if args.flag("print-xml"):
        context.out(_interface_xml(args))
        return
    common.refuse(args, _NOT_ATTACHED)
    domain.nics.attach(
        type=args.required("type"),
        source=args.required("source") if args.required("type") != "user" else "",
        model=args.text("model") or "virtio",
        mac=args.text("mac") or "",
        target=args.text("target") or "",
        alias=args.text("alias") or "",
        source_mode=args.text("source-mode") or "",
        scope=scope,
        **_bandwidth(args),
    )
    context.say("Interface attached successfully\n")


_NOT_ATTACHED = {
    "script": "a NIC is plugged into its bridge by qkvm itself, which runs no scripts as root",
    "managed": "it is for devices of the host, and none is passed to a guest",
}
"""Options of attach-interface that qkvm does not support."""


def _bandwidth(args: Args) -> dict[str, Any]:
    """Return --inbound and --outbound as keywords, if they are given."""
    if not args.has("inbound") and not args.has("outbound"):
        return {}
    from qkvm.domain.device.nic.tune import DIRECTIONS, parse

    return {name: parse(args.text(name) or "", name) for name in DIRECTIONS if args.has(name)}


def detach_interface(context: Context, args: Args) -> None:
    """Unplug a NIC."""
    domain, scope = common.domain(context, args), common.scope(args)
    if args.flag("print-xml"):
        from qkvm.domain.device.nic.plug import pick

        inactive = not domain.resolve(scope).live
        listed = domain.nics.all(inactive=inactive)
        mac = pick(listed, args.required("type"), parse_mac(args.text("mac") or "") if args.has("mac") else "").mac
        context.out(_described(domain, mac, inactive=inactive))
        return
    domain.nics.detach(
        type=args.required("type"), mac=args.text("mac") or "", scope=scope, **common.patience(args)
    )
    context.say("Interface detached successfully\n")


def domif_setlink(context: Context, args: Args) -> None:
    """Set the link of a NIC up or down."""
    from qkvm.domain.device.nic import status as nic
    from qkvm.scope import Scope

    domain, interface, state = common.domain(context, args), args.required("interface"), args.required("state")
    if state not in ("up", "down"):
        raise UsageError(f"invalid link state '{state}'", hint="up or down")
    inactive = args.flag("config")
    try:
        mac = nic.find(domain.nics.all(inactive=inactive), interface).mac
    except NotFound as error:
        raise UsageError(f"interface '{interface}' not found", hint=error.hint) from error
    if args.flag("print-xml"):
        context.out(_described(domain, mac, inactive=inactive, link=state))
        return
    domain.nics.set_link(mac, state == "up", scope=Scope.CONFIG if inactive else Scope.CURRENT)
    context.say("Device updated successfully\n")


def domif_getlink(context: Context, args: Args) -> None:
    """Show whether the link of a NIC is up."""
    from qkvm.domain.device.nic import status as nic

    domain = common.domain(context, args)
    interface = args.required("interface")
    found = nic.find(domain.nics.all(inactive=args.flag("config")), interface)
    state = "up" if found.link else "down"
    if args.json:
        return context.out(json_text({"interface": interface, "link": state}))
    return context.out(f"{interface} {state}")


def domiftune(context: Context, args: Args) -> None:
    """Show or set the bandwidth limits of a NIC."""
    from qkvm.domain.device.nic import tune as nictune

    domain, where = common.domain(context, args), common.scope(args)
    interface, changes = args.required("interface"), _bandwidth(args)
    if changes:
        return domain.nics.set_limits(interface, changes, scope=where)
    found = domain.nics.limits(interface, scope=common.one_of(where))
    rows = {
        direction: {
            name: getattr(found[direction], name, 0)
            for name in ("average", "peak", "burst", *(("floor",) if direction == "inbound" else ()))
        }
        for direction in nictune.DIRECTIONS
    }
    if args.json:
        units = {"kib_per_s": "average peak floor", "kib": "burst"}
        return context.out(json_text({way: measured(band, **units) for way, band in rows.items()}))
    return context.out(
        fields((f"{way}.{name}", rate) for way, band in rows.items() for name, rate in band.items())
    )


def domiflist(context: Context, args: Args) -> None:
    """List the NICs of a domain; with --slots show how many devices can still be plugged while it runs."""

    domain = common.domain(context, args)
    found = domain.nics.all(inactive=args.flag("inactive"))
    if args.json:
        return context.out(json_text({
            "interfaces": [{key: getattr(entry, key) for key in entry.__slots__} for entry in found],
            "free_slots": domain.nics.free_slots(),
        }))  # fmt: skip
    rows = [(entry.interface, entry.type, entry.source, entry.model, entry.mac) for entry in found]
    text = table(("Interface", "Type", "Source", "Model", "MAC"), rows, header=not context.quiet)
    if args.flag("slots"):
        slots = domain.nics.free_slots()
        text += f"\nFree slots: {'-' if slots is None else slots}\n"
    return context.out(text)


def domifaddr(context: Context, args: Args) -> None:
    """Show the IP addresses of a running domain's NICs."""
    from qkvm.domain.watch import address

    source = args.text("source")
    if source not in (None, *address.SOURCES):
        raise InvalidValue(f"Unknown data source '{source}'", hint=", ".join(address.SOURCES))
    timeout = args.number("timeout") or 60
    found = common.domain(context, args).wait_for_addresses(
        sources=(source,) if source else address.SOURCES,
        interface=args.text("interface"),
        timeout=timeout if args.flag("wait") else 0,
    )
    if args.json:
        return context.out(json_text([entry._asdict() for entry in found if entry.ip]))
    # virsh formats this table differently from its other tables.
    lines = [f" {'Name':<10} {'MAC address':<20} {'Protocol':<12} {'Address'}\n", "-" * 79 + "\n"]
    last = ""
    for entry in found:
        same = entry.interface == last and not args.flag("full")
        name, mac = ("-", "-") if same else (entry.interface or "-", entry.mac or "-")
        kind = "ipv6" if ":" in entry.ip else "ipv4"
        protocol, text = (kind, f"{entry.ip}/{entry.prefix}") if entry.ip else ("N/A", "N/A")
        lines.append(f" {printable(name):<10} {printable(mac):<17}    {protocol:<12} {text}\n")
        last = entry.interface
    return context.out("".join(lines[2:] if context.quiet else lines))


def domifstat(context: Context, args: Args) -> None:
    """Show the traffic statistics of a NIC, as the guest sees it."""

    interface = args.required("interface")
    counters = common.domain(context, args).nics.counters(interface)
    if args.json:
        return context.out(json_text(counters))
    return context.out("".join(f"{interface} {key} {value}\n" for key, value in counters.items()))


def _interface_xml(args: Args) -> str:
    """Return the libvirt element that the options describe; attach nothing."""
    from xml.sax.saxutils import escape

    def quoted(text: str | None) -> str:
        return "'" + escape(text or "", {"'": "&apos;"}) + "'"

    kind = args.required("type")
    managed = " managed='yes'" if args.flag("managed") else ""
    lines = [f"<interface type={quoted(kind)}{managed}>"]
    if kind in ("network", "bridge"):
        lines.append(f"  <source {kind}={quoted(args.required('source'))}/>")
    if kind == "direct":
        mode = f" mode={quoted(args.text('source-mode'))}" if args.has("source-mode") else ""
        lines.append(f"  <source dev={quoted(args.required('source'))}{mode}/>")
    for option, element in (
        ("target", "target dev"), ("mac", "mac address"), ("script", "script path"), ("model", "model type"),
        ("alias", "alias name"),
    ):  # fmt: skip
        if args.has(option):
            lines.append(f"  <{element}={quoted(args.text(option))}/>")
    if args.has("inbound") or args.has("outbound"):
        lines += ["  <bandwidth>", *_bandwidth_xml(args), "  </bandwidth>"]
    return "\n".join((*lines, "</interface>\n"))


def _bandwidth_xml(args: Args) -> list[str]:
    """Return a line for each direction that has a limit."""
    lines = []
    for direction, band in _bandwidth(args).items():
        given = [(name, getattr(band, name)) for name in ("average", "peak", "burst") if getattr(band, name, 0)]
        if given:
            values = " ".join(f"{name}='{value}'" for name, value in given)
            lines.append(f"    <{direction} {values}/>")
    return lines


def _described(domain: Domain, mac: str, *, inactive: bool, link: str = "") -> str:
    """Return the <interface> element of an existing NIC; ``link`` replaces its link state."""
    from qkvm import xml

    devices = xml.parse(domain.xml(inactive=inactive), "description").find("devices")
    assert devices is not None
    macs = {str(shown.get("address")): one for one in devices.all("interface") for shown in one.all("mac")}
    element = macs[mac]
    if link:
        shown = element.find("link") or element.add("link")
        shown.attributes["state"] = link
    return xml.dump(element)
