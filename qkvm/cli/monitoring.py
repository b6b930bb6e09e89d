"""Verbs that look: list, dominfo, domstate and their like. They come from files and the kernel."""

from __future__ import annotations

from qkvm.cli.output import json_text, pairs, table
from qkvm.domain import run as runs
from qkvm.domain.domain import Domain, lookup, names
from qkvm.errors import DefinitionError, InvalidValue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.cli.main import Context
    from qkvm.cli.parse import Args


def list_(context: Context, args: Args) -> None:
    """List domains: the running ones, or with --all and --inactive the others too."""
    rows = [entry for entry in _entries(context, args) if _wanted(entry, args)]
    rows.sort(key=lambda entry: (not entry["id"], entry["id"] or 0, entry["name"]))
    if args.json:
        return _out(context, json_text(rows))
    if args.flag("name") or args.flag("uuid") or args.flag("id"):
        columns = [key for key in ("id", "uuid", "name") if args.flag(key)]
        lines = ("   ".join(str(entry[key] or "-") for key in columns) for entry in rows)
        return _out(context, "".join(f"{line}\n" for line in lines))
    headers = ["Id", "Name", "State"] + (["Title"] if args.flag("title") else [])
    keys = [header.lower() for header in headers]
    body = [["-" if entry[key] is None else entry[key] for key in keys] for entry in rows]
    return _out(context, table(headers, body, header=not context.quiet))


def _entries(context: Context, args: Args) -> list[dict[str, object]]:
    """What list can show of each domain; a definition is read only where something in it is asked for."""
    needs_definition = any(args.flag(name) for name in ("title", "autostart", "no-autostart")) or args.json
    found = []
    for name in names(context.tree):
        domain = Domain(context.tree, name)
        run = runs.find(context.tree, name)
        alive = run is not None and run.pid is not None
        state = run.state()[0] if run is not None else "shut off"
        entry: dict[str, object] = {
            "id": run.id if run is not None and alive else None,
            "name": name,
            "state": state,
            "persistent": domain.is_persistent,
        }
        if needs_definition or args.flag("uuid"):
            entry |= _defined(domain, needs_definition)
        found.append(entry)
    return found


def _defined(domain: Domain, whole: bool) -> dict[str, object]:
    """What a definition tells; one that is damaged does not hide the other domains."""
    try:
        found: dict[str, object] = {"uuid": domain.uuid}
        if whole:
            definition = domain.definition
            found["title"] = definition.title
            found["autostart"] = definition.autostart and domain.is_persistent
        return found
    except DefinitionError:
        return {"uuid": None, "title": "", "autostart": False}


def _wanted(entry: dict[str, object], args: Args) -> bool:
    active = entry["id"] is not None
    state = entry["state"]
    by_state = {
        "state-running": state == "running",
        "state-paused": state == "paused",
        "state-shutoff": state == "shut off",
        "state-other": state not in ("running", "paused", "shut off"),
    }
    asked = [name for name in by_state if args.flag(name)]
    if asked:
        if not any(by_state[name] for name in asked):
            return False
    elif not (args.flag("all") or active != args.flag("inactive")):
        return False
    if args.flag("persistent") != args.flag("transient") and entry["persistent"] != args.flag("persistent"):
        return False
    if args.flag("autostart") != args.flag("no-autostart"):
        return entry["autostart"] == args.flag("autostart")
    return True


def dominfo(context: Context, args: Args) -> None:
    """Show a domain: id, state, vCPUs, CPU time, memory."""
    domain = lookup(context.tree, args.required("domain"))
    run = domain.run
    pid = run.pid if run is not None else None
    if run is not None and pid is not None:
        from qkvm.domain.cputime import process_time_ns

        memory = (int(run.record["memory"]["maximum"]), run.balloon())
        vcpus, seconds = run.vcpu_count(), process_time_ns(pid) / 1e9
        autostart = domain.is_persistent and _autostarts(domain)
    else:
        definition = domain.definition
        memory = (definition.memory.maximum, definition.memory.current)
        vcpus, seconds, autostart = definition.vcpus.current, 0.0, definition.autostart
    state = domain.state[0]
    if args.json:
        return _out(context, json_text({
            "id": run.id if run is not None and pid is not None else None,
            "name": domain.name, "uuid": domain.uuid,
            "os_type": "hvm", "state": state, "vcpus": vcpus, "cpu_time": round(seconds, 2),
            "max_memory_kib": memory[0], "used_memory_kib": memory[1],
            "persistent": domain.is_persistent, "autostart": autostart,
        }))  # fmt: skip
    items: list[tuple[str, object]] = [
        ("Id", run.id if run is not None and pid is not None else "-"),
        ("Name", domain.name), ("UUID", domain.uuid), ("OS Type", "hvm"), ("State", state), ("CPU(s)", vcpus),
    ]  # fmt: skip
    if pid is not None:
        items.append(("CPU time", f"{seconds:.1f}s"))
    items += [
        ("Max memory", f"{memory[0]} KiB"), ("Used memory", f"{memory[1]} KiB"),
        ("Persistent", "yes" if domain.is_persistent else "no"),
        ("Autostart", "enable" if autostart else "disable"),
        ("Managed save", "no"), ("Security model", "none"), ("Security DOI", "0"),
    ]  # fmt: skip
    return _out(context, pairs(items))


def _autostarts(domain: Domain) -> bool:
    """Whether the definition asks for it; most do not name it, and are not parsed for this."""
    from qkvm.files import read_bytes

    raw = read_bytes(domain.tree.domain_definition(domain.name)) or b""
    return b"autostart" in raw and domain.definition.autostart


def domstate(context: Context, args: Args) -> None:
    """Show the state of a domain, and with --reason why."""
    state, reason = lookup(context.tree, args.required("domain")).state
    if args.json:
        return _out(context, json_text({"state": state, "reason": reason}))
    return _out(context, f"{state} ({reason})\n" if args.flag("reason") else f"{state}\n")


def domiflist(context: Context, args: Args) -> None:
    """List the NICs of a domain, and with --slots how many more devices it can take while it runs."""
    from qkvm.domain import nic

    domain = lookup(context.tree, args.required("domain"))
    found = nic.interfaces(domain, inactive=args.flag("inactive"))
    if args.json:
        return _out(context, json_text({
            "interfaces": [{key: getattr(entry, key) for key in entry.__slots__} for entry in found],
            "free_slots": nic.free_slots(domain),
        }))  # fmt: skip
    rows = [(entry.interface, entry.type, entry.source, entry.model, entry.mac) for entry in found]
    text = table(("Interface", "Type", "Source", "Model", "MAC"), rows, header=not context.quiet)
    if args.flag("slots"):
        slots = nic.free_slots(domain)
        text += f"\nFree slots: {'-' if slots is None else slots}\n"
    return _out(context, text)


def domifaddr(context: Context, args: Args) -> None:
    """Show the IP addresses of a running domain's NICs."""
    from qkvm.domain import nic

    source = args.text("source")
    if source not in (None, "lease", "arp"):
        raise InvalidValue(f"Unknown data source '{source}'", hint="lease or arp")
    sources = (source,) if source else ("lease", "arp")
    domain = lookup(context.tree, args.required("domain"))
    wanted = args.text("interface")
    timeout = args.number("timeout") or 60
    found = nic.await_addresses(
        domain, sources=sources, interface=wanted, timeout=timeout if args.flag("wait") else 0
    )
    if args.json:
        return _out(context, json_text([entry._asdict() for entry in found]))
    # virsh's own layout here is not that of its other tables.
    lines = [f" {'Name':<10} {'MAC address':<20} {'Protocol':<12} {'Address'}\n", "-" * 79 + "\n"]
    last = ""
    for entry in found:
        same = entry.interface == last and not args.flag("full")
        name, mac = ("-", "-") if same else (entry.interface or "-", entry.mac)
        lines.append(f" {name:<10} {mac:<17}    {'ipv4':<12} {entry.ip}/{entry.prefix}\n")
        last = entry.interface
    return _out(context, "".join(lines[2:] if context.quiet else lines))


def domif_getlink(context: Context, args: Args) -> None:
    """Show whether the cable of a NIC is plugged."""
    from qkvm.domain import nic

    domain = lookup(context.tree, args.required("domain"))
    interface = args.required("interface")
    found = nic.find(nic.interfaces(domain, inactive=args.flag("config")), interface)
    state = "up" if found.link else "down"
    if args.json:
        return _out(context, json_text({"interface": interface, "link": state}))
    return _out(context, f"{interface} {state}")


def domifstat(context: Context, args: Args) -> None:
    """Show what went through a NIC, as the guest sees it."""
    from qkvm.domain import nic

    interface = args.required("interface")
    counters = nic.counters(lookup(context.tree, args.required("domain")), interface)
    if args.json:
        return _out(context, json_text(counters))
    return _out(context, "".join(f"{interface} {key} {value}\n" for key, value in counters.items()))


def domblklist(context: Context, args: Args) -> None:
    """List the disks of a domain."""
    from qkvm.domain import disk

    domain = lookup(context.tree, args.required("domain"))
    found = disk.disks(domain, inactive=args.flag("inactive"))
    if args.json:
        return _out(context, json_text([{key: getattr(entry, key) for key in entry.__slots__} for entry in found]))
    if args.flag("details"):
        rows: list[tuple[str, ...]] = [(entry.type, entry.device, entry.target, entry.source) for entry in found]
        return _out(context, table(("Type", "Device", "Target", "Source"), rows, header=not context.quiet))
    rows = [(entry.target, entry.source) for entry in found]
    return _out(context, table(("Target", "Source"), rows, header=not context.quiet))


def dommemstat(context: Context, args: Args) -> None:
    """Show what the balloon and the guest's driver tell; --period sets how often the driver is asked."""
    from qkvm.domain import memory

    domain = lookup(context.tree, args.required("domain"))
    period = args.number("period")
    if period is not None:
        if period < 0:
            raise InvalidValue(f"Invalid collection period value '{period}'", hint="0 or more seconds")
        return memory.set_period(
            domain, period, live=args.flag("live"), config=args.flag("config"), current=args.flag("current")
        )
    stats = domain.memory_stats()
    if args.json:
        return _out(context, json_text(stats))
    return _out(context, "".join(f"{key} {value}\n" for key, value in stats.items()))


def event(context: Context, args: Args) -> int:
    """Wait for events and show them."""
    from qkvm.cli.events import show

    return show(context, args)


def _out(context: Context, text: str) -> None:
    context.out(text)
