"""Verbs that change a domain, and those that name it."""

from __future__ import annotations

from qkvm.cli.output import json_text
from qkvm.domain.domain import lookup
from qkvm.errors import InvalidState, InvalidValue
from qkvm.files import remove

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from qkvm.cli.main import Context
    from qkvm.cli.parse import Args
    from qkvm.domain.domain import Domain


def _domain(context: Context, args: Args) -> Domain:
    return lookup(context.tree, args.required("domain"))


def _scope(args: Args) -> dict[str, Any]:
    return {name: args.flag(name) for name in ("live", "config", "current")}


def _patience(args: Args) -> dict[str, Any]:
    timeout = args.number("timeout")
    patience: dict[str, Any] = {"wait": not args.flag("no-wait")}
    return patience if timeout is None else {**patience, "timeout": float(timeout)}


def define(context: Context, args: Args) -> None:
    """Store a domain's definition from a TOML file."""
    from qkvm.domain.host import Host

    domain = Host(context.tree.root).define(*read_definition(args.required("file")))
    context.say(f"Domain '{domain.name}' defined from {args.required('file')}\n")


def read_definition(path: str) -> tuple[str, str]:
    """The text of a definition file, /dev/stdin included, and its name for errors."""
    from qkvm.errors import DefinitionError
    from qkvm.files import os_error

    try:
        with open(path, encoding="utf-8") as stream:
            return stream.read(), path
    except UnicodeDecodeError as error:
        raise DefinitionError(path, f"not UTF-8 text (byte {error.start})") from error
    except OSError as error:
        raise os_error(error, f"Failed to open file '{path}'") from error


def undefine(context: Context, args: Args) -> None:
    """Remove a definition; disks stay."""
    domain = _domain(context, args)
    domain.undefine()
    context.say(f"Domain '{domain.name}' has been undefined\n")


def start(context: Context, args: Args) -> None:
    """Start a domain, and attach to its console if asked."""
    from qkvm.domain.host import Host

    Host(context.tree.root).prepare()
    domain = _domain(context, args)
    for warning in domain.start(paused=args.flag("paused")):
        context.warn(warning)
    context.say(f"Domain '{domain.name}' started\n")
    if args.flag("console"):
        attach_console(context, domain, force=False)


def shutdown(context: Context, args: Args) -> None:
    """Press a domain's power button, and with --wait see it power off."""
    _check_mode(args)
    domain = _domain(context, args)
    domain.shutdown(wait=args.flag("wait"), timeout=float(args.number("timeout") or 60))
    done = "has shut down" if args.flag("wait") else "is being shutdown"
    context.say(f"Domain '{domain.name}' {done}\n")


def reboot(context: Context, args: Args) -> None:
    """Have a guest power off in order and start again."""
    _check_mode(args)
    domain = _domain(context, args)
    domain.reboot()
    context.say(f"Domain '{domain.name}' is being rebooted\n")


def _check_mode(args: Args) -> None:
    mode = args.text("mode")
    if mode not in (None, "acpi"):
        raise InvalidValue(f"Unknown mode '{mode}' value", hint="acpi")


def reset(context: Context, args: Args) -> None:
    """Press a domain's reset button."""
    domain = _domain(context, args)
    domain.reset()
    context.say(f"Domain '{domain.name}' was reset\n")


def destroy(context: Context, args: Args) -> None:
    """End a domain's QEMU."""
    domain = _domain(context, args)
    domain.destroy(graceful=args.flag("graceful"))
    if args.flag("remove-logs"):
        remove(context.tree.qemu_log(domain.name))
        remove(context.tree.serial_log(domain.name))
    context.say(f"Domain '{domain.name}' destroyed\n")


def suspend(context: Context, args: Args) -> None:
    """Stop a domain's vCPUs."""
    domain = _domain(context, args)
    domain.suspend()
    context.say(f"Domain '{domain.name}' suspended\n")


def resume(context: Context, args: Args) -> None:
    """Let a domain's vCPUs go on."""
    domain = _domain(context, args)
    domain.resume()
    context.say(f"Domain '{domain.name}' resumed\n")


def domid(context: Context, args: Args) -> None:
    """Print the id of a domain, - where it does not run."""
    run = _domain(context, args).run
    context.out(f"{run.id if run is not None and run.pid is not None else '-'}\n")


def domuuid(context: Context, args: Args) -> None:
    """Print the UUID of a domain."""
    context.out(f"{_domain(context, args).uuid}\n")


def domname(context: Context, args: Args) -> None:
    """Print the name of a domain."""
    context.out(f"{_domain(context, args).name}\n")


def setvcpus(context: Context, args: Args) -> None:
    """Plug or unplug vCPUs."""
    args.exclusive("current", "live")
    args.exclusive("current", "config")
    args.needs("maximum", "config")
    domain = _domain(context, args)
    count = args.number("count") or 0
    domain.set_vcpus(count, maximum=args.flag("maximum"), **_scope(args), **_patience(args))
    run = domain.run
    if run is not None and run.pid is not None and run.record.get("lost_vcpu") and not args.flag("config"):
        context.warn(
            "QEMU's TCG does not survive a change of devices, a reset or a reboot after a vcpu was unplugged: "
            f"shut {domain.name} down and start it anew before any of these"
        )


def vcpucount(context: Context, args: Args) -> None:
    """Show how many vCPUs a domain has and can have, now and in its definition."""
    from qkvm.domain import vcpu

    domain = _domain(context, args)
    args.exclusive("maximum", "active")
    args.exclusive("live", "config")
    args.exclusive("current", "live")
    args.exclusive("current", "config")
    counts = vcpu.counts(domain)
    if args.json:
        context.out(json_text(counts))
        return
    one = [name for name in ("maximum", "active") if args.flag(name)]
    where = [name for name in ("live", "config", "current") if args.flag(name)]
    if not one and not where:
        rows = [
            (kind, place, counts[kind][place])
            for kind in counts
            for place in ("config", "live")
            if place in counts[kind]
        ]
        context.out("".join(f"{kind:<12} {place:<12} {number:>3}\n" for kind, place, number in rows))
        return
    kind = "maximum" if one == ["maximum"] else "current"
    place = where[0] if where and where[0] != "current" else ("live" if domain.is_running else "config")
    if place not in counts[kind]:
        raise InvalidState(
            "domain is not running" if place == "live" else "transient domains do not have any persistent config"
        )
    context.out(f"{counts[kind][place]}\n")


def vcpuinfo(context: Context, args: Args) -> None:
    """Show where each vCPU runs and how much CPU time it has used."""
    from qkvm.domain import cputime

    domain = _domain(context, args)
    if not domain.is_running:
        return _configured_vcpus(context, args, domain)
    found, total = cputime.vcpus(domain), cputime.host_cpus()
    if args.json:
        rows = [
            {"vcpu": vcpu.number, "cpu": vcpu.cpu, "state": vcpu.state, "time_ns": vcpu.time_ns,
             "affinity": sorted(vcpu.affinity)}
            for vcpu in found
        ]  # fmt: skip
        context.out(json_text(rows))
        return None
    blocks = []
    for vcpu in found:
        affinity = "".join("y" if cpu in vcpu.affinity else "-" for cpu in range(total))
        if args.flag("pretty"):
            affinity = f"{cputime.format_cpu_list(vcpu.affinity)} (out of {total})"
        blocks.append(
            f"VCPU:           {vcpu.number}\nCPU:            {vcpu.cpu}\nState:          {vcpu.state}\n"
            f"CPU time:       {vcpu.time_ns / 1e9:.1f}s\nCPU Affinity:   {affinity}\n"
        )
    context.out("\n".join(blocks))
    return None


def _configured_vcpus(context: Context, args: Args, domain: Domain) -> None:
    """Of a domain that does not run there is only the count; virsh shows as little."""
    count = domain.definition.vcpus.current
    if args.json:
        rows = [{"vcpu": number, "cpu": None, "state": "N/A", "time_ns": None} for number in range(count)]
        context.out(json_text(rows))
        return
    block = (
        "VCPU:           {}\nCPU:            N/A\nState:          N/A\nCPU time        N/A\nCPU Affinity:   N/A\n"
    )
    context.out("\n".join(block.format(number) for number in range(count)))


def setmem(context: Context, args: Args) -> None:
    """Move a domain's balloon."""
    args.exclusive("current", "live")
    args.exclusive("current", "config")
    _domain(context, args).set_memory(args.size("size") or 0, **_scope(args), **_patience(args))


def setmaxmem(context: Context, args: Args) -> None:
    """Change the most memory a domain can have."""
    args.exclusive("current", "live")
    args.exclusive("current", "config")
    _domain(context, args).set_max_memory(args.size("size") or 0, **_scope(args))


def attach_interface(context: Context, args: Args) -> None:
    """Plug a NIC."""
    args.exclusive("persistent", "current")
    domain = _domain(context, args)
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
        **_scope(args),
    )
    context.say("Interface attached successfully\n")


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


def detach_interface(context: Context, args: Args) -> None:
    """Unplug a NIC."""
    args.exclusive("persistent", "current")
    domain = _domain(context, args)
    domain.detach_interface(
        type=args.required("type"),
        mac=args.text("mac") or "",
        persistent=args.flag("persistent"),
        **_scope(args),
        **_patience(args),
    )
    context.say("Interface detached successfully\n")


def domif_setlink(context: Context, args: Args) -> None:
    """Pull or plug the cable of a NIC."""
    from qkvm.domain import nic

    state = args.required("state")
    if state not in ("up", "down"):
        raise InvalidValue(f"invalid link state '{state}'", hint="up or down")
    nic.set_link(_domain(context, args), args.required("interface"), state == "up", config=args.flag("config"))
    context.say("Device updated successfully\n")


def qemu_monitor_command(context: Context, args: Args) -> int:
    """Run a command of the user's own on the monitor, QMP or with --hmp the human one."""
    from qkvm.cli.monitor import run

    return run(context, args, _domain(context, args))


def console(context: Context, args: Args) -> None:
    """Connect the terminal to a guest's serial console."""
    attach_console(context, _domain(context, args), force=args.flag("force"))


def attach_console(context: Context, domain: Domain, *, force: bool) -> None:
    """Attach to the console with virsh's words before and after."""
    from qkvm.domain import console as consoles

    domain.live  # noqa: B018  raises where it does not run
    context.out(f"Connected to domain '{domain.name}'\nEscape character is ^] (Ctrl + ])\n")
    context.flush()
    consoles.attach(domain, 0, force=force)
    context.out("\n")


def domargv(context: Context, args: Args) -> None:
    """Print the command line that start would run, one option a line, quoted for a shell where need be."""
    import os
    from shlex import quote

    from qkvm.domain.start import command_line

    template = args.text("template")
    binary, options = command_line(_domain(context, args), template=os.path.abspath(template) if template else "")
    lines = [[binary], *(option.argv() for option in options)]
    context.out("".join(" ".join(quote(word) for word in line) + "\n" for line in lines))


def gc(context: Context, args: Args) -> None:
    """Forget what ended domains and earlier boots have left under run/."""
    from qkvm.domain import upkeep

    for name in upkeep.collect(context.tree):
        context.say(f"Domain '{name}' collected\n")
