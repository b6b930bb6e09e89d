"""Verbs about this host and this program."""

from __future__ import annotations

from qkvm.cli.output import json_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.cli.main import Context
    from qkvm.cli.parse import Args


def version(context: Context, args: Args) -> None:
    """Print the versions of qkvm and of the QEMU that it would start."""
    from qkvm.cli.main import VERSION
    from qkvm.host import process, settings

    binary = process.find_program(settings.load(context.tree).qemu, "every domain", "qemu-system-x86")
    # "QEMU emulator version 7.2.22 (Debian …)": the fourth word of the first line.
    words = process.run([binary, "--version"]).decode("utf-8", "replace").split()
    qemu = words[3] if len(words) > 3 else "unknown"
    if args.json:
        context.out(json_text({"qkvm": VERSION, "qemu": qemu, "emulator": binary}))
        return
    context.out(
        f"Compiled against library: qkvm {VERSION}\nUsing library: qkvm {VERSION}\n"
        f"Using API: QEMU {VERSION}\nRunning hypervisor: QEMU {qemu}\n"
    )


def hostname(context: Context, args: Args) -> None:
    """Print this host's name."""
    import socket

    context.out(f"{socket.gethostname()}\n")


def uri(context: Context, args: Args) -> None:
    """Print where qkvm works: this host's QEMU, and the root that holds everything."""
    context.out(f"qemu:///system?root={context.tree.root}\n" if context.tree.root != "/" else "qemu:///system\n")
