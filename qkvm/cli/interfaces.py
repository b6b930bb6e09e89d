"""Verbs on a domain's NICs."""

from __future__ import annotations

from qkvm.cli import common
from qkvm.cli.output import fields, json_text, table
from qkvm.errors import InvalidValue
from qkvm.units import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.cli.main import Context
    from qkvm.cli.parse import Args
    from qkvm.spec import domain as spec


def attach_interface(context: Context, args: Args) -> None:
    """Plug a NIC."""
    args.exclusive("persistent", "current")
    domain = common.domain(context, args)
    if args.flag("print-xml"):
        context.out(_interface_xml(args))
        return
    domain.attach_interface(
        type=args.required("type"),
        source=args.required("source") if args.required("type") != "user" else "",
        model=args.text("model") or "virtio",
        mac=args.text("mac") or "",
        target=args.text("target") or "",
        persistent=args.flag("persistent"),
        **_bandwidth(args),
        **common.scope(args),
    )
    context.say("Interface attached successfully\n")


def _bandwidth(args: Args) -> dict[str, spec.Bandwidth | None]:
    """--inbound and --outbound, where they are given."""
    if not args.has("inbound") and not args.has("outbound"):
        return {}
    from qkvm.domain.nictune import DIRECTIONS, parse

    return {name: parse(args.text(name) or "", name) for name in DIRECTIONS if args.has(name)}


def detach_interface(context: Context, args: Args) -> None:
    """Unplug a NIC."""
    args.exclusive("persistent", "current")
    domain = common.domain(context, args)
    domain.detach_interface(
        type=args.required("type"),
        mac=args.text("mac") or "",
        persistent=args.flag("persistent"),
        **common.scope(args),
        **common.patience(args),
    )
    context.say("Interface detached successfully\n")


def domif_setlink(context: Context, args: Args) -> None:
    """Pull or plug the cable of a NIC."""
    from qkvm.domain import nic

    state = args.required("state")
    if state not in ("up", "down"):
        raise InvalidValue(f"invalid link state '{state}'", hint="up or down")
    nic.set_link(
        common.domain(context, args), args.required("interface"), state == "up", config=args.flag("config")
    )
    context.say("Device updated successfully\n")


def domif_getlink(context: Context, args: Args) -> None:
    """Show whether the cable of a NIC is plugged."""
    from qkvm.domain import nic

    domain = common.domain(context, args)
    interface = args.required("interface")
    found = nic.find(nic.interfaces(domain, inactive=args.flag("config")), interface)
    state = "up" if found.link else "down"
    if args.json:
        return context.out(json_text({"interface": interface, "link": state}))
    return context.out(f"{interface} {state}")


def domiftune(context: Context, args: Args) -> None:
    """Show or set the bandwidth limits of a NIC."""
    from qkvm.cli.parse import UsageError
    from qkvm.domain import nictune

    domain, where = common.domain(context, args), common.scope(args)
    interface, changes = args.required("interface"), _bandwidth(args)
    if changes:
        return nictune.set_limits(domain, interface, changes, **where)
    if where["live"] and where["config"]:
        raise UsageError("cannot query both live and config at once")
    found = nictune.limits(domain, interface, **where)
    rows = {}
    for direction in nictune.DIRECTIONS:
        band = found[direction]
        for name in ("average", "peak", "burst", *(("floor",) if direction == "inbound" else ())):
            rows[f"{direction}.{name}"] = getattr(band, name, 0)
    return context.out(json_text(rows) if args.json else fields(rows.items()))


def domiflist(context: Context, args: Args) -> None:
    """List the NICs of a domain, and with --slots how many more devices it can take while it runs."""
    from qkvm.domain import nic

    domain = common.domain(context, args)
    found = nic.interfaces(domain, inactive=args.flag("inactive"))
    if args.json:
        return context.out(json_text({
            "interfaces": [{key: getattr(entry, key) for key in entry.__slots__} for entry in found],
            "free_slots": nic.free_slots(domain),
        }))  # fmt: skip
    rows = [(entry.interface, entry.type, entry.source, entry.model, entry.mac) for entry in found]
    text = table(("Interface", "Type", "Source", "Model", "MAC"), rows, header=not context.quiet)
    if args.flag("slots"):
        slots = nic.free_slots(domain)
        text += f"\nFree slots: {'-' if slots is None else slots}\n"
    return context.out(text)


def domifaddr(context: Context, args: Args) -> None:
    """Show the IP addresses of a running domain's NICs."""
    from qkvm.domain import address

    source = args.text("source")
    if source not in (None, *address.SOURCES):
        raise InvalidValue(f"Unknown data source '{source}'", hint=", ".join(address.SOURCES))
    timeout = args.number("timeout") or 60
    found = address.wait(
        common.domain(context, args), sources=(source,) if source else address.SOURCES,
        interface=args.text("interface"), timeout=timeout if args.flag("wait") else 0,
    )  # fmt: skip
    if args.json:
        return context.out(json_text([entry._asdict() for entry in found if entry.ip]))
    # virsh's own layout here is not that of its other tables.
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
    """Show what went through a NIC, as the guest sees it."""
    from qkvm.domain import nic

    interface = args.required("interface")
    counters = nic.counters(common.domain(context, args), interface)
    if args.json:
        return context.out(json_text(counters))
    return context.out("".join(f"{interface} {key} {value}\n" for key, value in counters.items()))


def _interface_xml(args: Args) -> str:
    """The libvirt element that the options mean, without attaching anything."""
    from xml.sax.saxutils import escape

    def quoted(text: str | None) -> str:
        return "'" + escape(text or "", {"'": "&apos;"}) + "'"

    kind = args.required("type")
    lines = [f"<interface type={quoted(kind)}>"]
    if kind in ("network", "bridge"):
        lines.append(f"  <source {kind}={quoted(args.required('source'))}/>")
    for option, element in (("target", "target dev"), ("mac", "mac address"), ("model", "model type")):
        if args.has(option):
            lines.append(f"  <{element}={quoted(args.text(option))}/>")
    return "\n".join((*lines, "</interface>\n"))
