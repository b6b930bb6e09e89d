"""Verbs on this host and on qkvm."""

from __future__ import annotations

import sys

from qkvm.cli import terminal
from qkvm.cli.output import json_text, print_xml, show_value
from qkvm.paths import SESSION, SYSTEM
from qkvm.units import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args


def capabilities(context: Context, args: Args) -> None:
    """Print the host's capabilities as libvirt's XML."""
    emulators = context.host.emulators
    found = emulators.capabilities(emulators.find())
    if args.json:
        return context.out(json_text(found))
    return print_xml(context, args, emulators.capabilities_xml(found))


def domcapabilities(context: Context, args: Args) -> None:
    """Print the capabilities for domains as libvirt's XML."""
    from qkvm import xml

    emulators = context.host.emulators
    found = emulators.find(binary=args.text("emulatorbin") or "", arch=args.text("arch") or "")
    machine = emulators.machine(found, args.text("machine") or "")
    kind = emulators.type(found, args.text("virttype") or "")
    facts = emulators.domain_capabilities(
        found, machine, kind, deprecated=not args.flag("disable-deprecated-features")
    )
    if args.json:
        return context.out(json_text(facts))
    return print_xml(context, args, xml.dump(emulators.domain_capabilities_xml(facts)))


def host_validate(context: Context, args: Args) -> int:
    """Check this host and print one line a check."""
    from qkvm.cli.parse import UsageError

    wanted = args.text("hypervisor") or "qemu"
    if wanted.lower() != "qemu":
        raise UsageError(f"unknown hypervisor '{printable(wanted)}'", hint="qkvm runs guests under qemu")

    made = context.host.validate()
    if args.json:
        context.out(json_text([check._asdict() for check in made]))
    else:
        shown = (check for check in made if not (context.quiet and check.level == "PASS"))
        context.out("".join(check.line(terminal.paint(check.level, sys.stdout)) for check in shown))
    return 1 if any(check.level == "FAIL" for check in made) else 0


def hostname(context: Context, args: Args) -> None:
    """Print this host's name."""
    import socket

    name = socket.gethostname()
    show_value(context, args, hostname=name)


def maxvcpus(context: Context, args: Args) -> None:
    """Print the maximum number of vCPUs that a guest of the default machine can have."""
    from qkvm.errors import InvalidValue

    wanted = args.text("type") or ""
    if wanted not in ("", "kvm", "qemu"):
        raise InvalidValue(f"invalid argument: unknown type '{printable(wanted)}'", hint="kvm or qemu")
    emulators = context.host.emulators
    found = emulators.find()
    limit = emulators.vcpu_limit(emulators.machine(found), emulators.type(found, wanted))
    show_value(context, args, max_vcpus=limit)


def nodesevinfo(context: Context, args: Args) -> None:
    """Print the host's support for AMD's memory encryption."""
    from qkvm.errors import HostError

    found = context.host.emulators.find()
    if not found.sev:
        raise HostError(
            "Operation not supported: QEMU does not support SEV guest", hint=f"QEMU says: {found.sev_refusal}"
        )
    if args.json:
        return context.out(json_text(found.sev))
    return context.out("".join(f"{name:<18}: {printable(str(value))}\n" for name, value in found.sev.items()))


def sysinfo(context: Context, args: Args) -> None:
    """Print the SMBIOS information of this machine."""
    from qkvm.host.node import smbios

    parts = context.host.node.firmware()
    if args.json:
        return context.out(json_text([
            {"part": part.kind, "entries": [{"name": name, "value": value} for name, value in part.entries]}
            for part in parts
        ]))  # fmt: skip
    return context.out(smbios.document(parts))


def uri(context: Context, args: Args) -> None:
    """Print the connection URI."""
    root = context.tree.root
    address = SYSTEM if root == "/" else SESSION if context.tree.is_session else f"{SYSTEM}?root={root}"
    context.out(json_text({"uri": address, "root": root}) if args.json else f"{printable(address)}\n")


def version(context: Context, args: Args) -> None:
    """Print the versions of qkvm and of the QEMU that it would start."""
    from qkvm.cli.context import VERSION
    from qkvm.host import process, programs, settings

    binary = programs.emulator(settings.load(context.tree).qemu)
    # "QEMU emulator version 7.2.22 (Debian …)": the fourth word of the first line.
    words = process.run([binary, "--version"]).decode("utf-8", "replace").split()
    qemu = words[3] if len(words) > 3 else "unknown"
    if args.json:
        context.out(json_text({"qkvm": VERSION, "qemu": qemu, "emulator": binary, "daemon": None}))
        return
    context.out(
        f"Compiled against library: qkvm {VERSION}\nUsing library: qkvm {VERSION}\n"
        f"Using API: QEMU {VERSION}\nRunning hypervisor: QEMU {qemu}\n"
    )
    if args.flag("daemon"):
        context.out("Running against daemon: none\n")
