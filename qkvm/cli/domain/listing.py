"""Verbs that show domains: list, dominfo, domstate and similar ones."""

from __future__ import annotations

from qkvm.cli.output import json_text, pairs, table
from qkvm.domain import run as runs
from qkvm.domain.handle import Handle, names
from qkvm.errors import DefinitionError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args


def list_(context: Context, args: Args) -> None:
    """List domains: the running ones, all with --all, the stopped ones with --inactive."""
    rows = [entry for entry in _entries(context, args) if _wanted(entry, args)]
    rows.sort(key=lambda entry: (not entry["id"], entry["id"] or 0, entry["name"]))
    if args.json:
        return context.out(json_text(rows))
    if args.flag("name") or args.flag("uuid") or args.flag("id"):
        columns = [key for key in ("uuid", "id", "name") if args.flag(key)]
        # As in virsh, --id alone omits domains that have no id.
        shown = [entry for entry in rows if columns != ["id"] or entry["id"] is not None]
        lines = (" ".join(str(entry[key] or "-") for key in columns) for entry in shown)
        return context.out("".join(f"{line}\n" for line in lines))
    if args.flag("managed-save"):
        for entry in rows:
            if entry["state"] == "shut off" and entry["managed_save"]:
                entry["state"] = "saved"
    headers = ["Id", "Name", "State"] + (["Title"] if args.flag("title") else [])
    keys = [header.lower() for header in headers]
    body = [["-" if entry[key] is None else entry[key] for key in keys] for entry in rows]
    return context.out(table(headers, body, header=not context.quiet))


def dominfo(context: Context, args: Args) -> None:
    """Show a domain's id, state, vCPUs, CPU time and memory."""
    domain = Handle.lookup(context.tree, args.required("domain"))
    run = domain.run
    pid = run.pid if run is not None else None
    if run is not None and pid is not None:
        from qkvm.domain.tuning.cputime import process_time_ns

        memory = (int(run.record["memory"]["maximum"]), run.balloon())
        vcpus, nanoseconds = run.vcpu_count(), process_time_ns(pid)
        autostart = _autostarts(domain) if domain.is_persistent else (False, False)
    else:
        definition = domain.definition
        memory = (definition.memory.maximum, definition.memory.current)
        vcpus, nanoseconds = definition.vcpus.current, 0
        autostart = (definition.autostart, definition.autostart_once)
    state, messages = domain.state[0], []
    if run is not None and pid is not None and run.record.get("taints"):
        from qkvm.domain.screen import monitor

        messages += monitor.taints(run)
    if run is not None and pid is not None and run.record.get("sidecars"):
        from qkvm.domain.device import sidecar

        messages += sidecar.messages(run)
    if args.json:
        return context.out(json_text({
            "id": run.id if run is not None and pid is not None else None,
            "name": domain.name, "uuid": domain.uuid,
            "os_type": "hvm", "state": state, "vcpus": vcpus, "cpu_time_ns": nanoseconds,
            "max_memory_kib": memory[0], "used_memory_kib": memory[1],
            "persistent": domain.is_persistent, "autostart": autostart[0], "autostart_once": autostart[1],
            "managed_save": domain.has_managed_save, "messages": messages,
        }))  # fmt: skip
    items: list[tuple[str, object]] = [
        ("Id", run.id if run is not None and pid is not None else "-"),
        ("Name", domain.name), ("UUID", domain.uuid), ("OS Type", "hvm"), ("State", state), ("CPU(s)", vcpus),
    ]  # fmt: skip
    if pid is not None:
        items.append(("CPU time", f"{nanoseconds / 1e9:.1f}s"))
    items += [
        ("Max memory", f"{memory[0]} KiB"),
        ("Used memory", f"{memory[1]} KiB"),
        ("Persistent", "yes" if domain.is_persistent else "no"),
        *zip(("Autostart", "Autostart Once"), ("enable" if on else "disable" for on in autostart), strict=True),
        ("Managed save", "yes" if domain.has_managed_save else "no"),
        ("Security model", "none"),
        ("Security DOI", "0"),
        *(("" if number else "Messages", text) for number, text in enumerate(messages)),
    ]
    return context.out(pairs(items))


def domstate(context: Context, args: Args) -> None:
    """Show the state of a domain, and the reason with --reason."""
    state, reason = Handle.lookup(context.tree, args.required("domain")).state
    if args.json:
        return context.out(json_text({"state": state, "reason": reason}))
    return context.out(f"{state} ({reason})\n" if args.flag("reason") else f"{state}\n")


def _entries(context: Context, args: Args) -> list[dict[str, object]]:
    """Return what list can show of each domain; read a definition only if the options need it."""
    needs_definition = any(args.flag(name) for name in ("title", "autostart", "no-autostart")) or args.json
    needs_saves = args.json or any(
        args.flag(name) for name in ("managed-save", "with-managed-save", "without-managed-save")
    )
    needs_snapshots = args.json or args.flag("with-snapshot") or args.flag("without-snapshot")
    needs_checkpoints = args.json or args.flag("with-checkpoint") or args.flag("without-checkpoint")
    if needs_snapshots:
        from qkvm.domain.store import snapshots as snapshotstore
    if needs_checkpoints:
        from qkvm.domain.store import checkpoints as checkpointstore
    found = []
    for name in names(context.tree):
        domain = Handle(context.tree, name)
        run = runs.find(context.tree, name)
        alive = run is not None and run.pid is not None
        state = run.state()[0] if run is not None else "shut off"
        entry: dict[str, object] = {
            "id": run.id if run is not None and alive else None,
            "name": name,
            "state": state,
            "persistent": domain.is_persistent,
        }
        if needs_snapshots:
            entry["snapshots"] = len(snapshotstore.names(context.tree, name))
        if needs_checkpoints:
            entry["checkpoints"] = len(checkpointstore.names(context.tree, name))
        if needs_saves:
            entry["managed_save"] = domain.has_managed_save
        if needs_definition or args.flag("uuid"):
            entry |= _defined(domain, needs_definition)
        found.append(entry)
    return found


def _defined(domain: Handle, whole: bool) -> dict[str, object]:
    """Return the values of a definition; a damaged one gives empty values, so that list shows the others."""
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
    by_snapshots = args.flag("with-snapshot") != args.flag("without-snapshot")
    if by_snapshots and bool(entry["snapshots"]) != args.flag("with-snapshot"):
        return False
    by_checkpoints = args.flag("with-checkpoint") != args.flag("without-checkpoint")
    if by_checkpoints and bool(entry["checkpoints"]) != args.flag("with-checkpoint"):
        return False
    by_saves = args.flag("with-managed-save") != args.flag("without-managed-save")
    if by_saves and entry["managed_save"] != args.flag("with-managed-save"):
        return False
    by_autostart = args.flag("autostart") != args.flag("no-autostart")
    return not by_autostart or entry["autostart"] == args.flag("autostart")


def _autostarts(domain: Handle) -> tuple[bool, bool]:
    """Return whether a domain starts at each boot and at the next one; skip parsing if neither is mentioned."""
    from qkvm.files import read_bytes

    raw = read_bytes(domain.tree.domain_definition(domain.name)) or b""
    if b"autostart" not in raw:
        return False, False
    stored = domain.stored
    return stored.get("autostart", False), stored.get("autostart_once", False)
