"""The verb run: a guest on an image, with its console or a command in it, that is gone when it ends."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from typing import TYPE_CHECKING, Any

from qkvm.cli.install.table import OPTIONS
from qkvm.cli.parse import UsageError
from qkvm.units import printable

if TYPE_CHECKING:
    from types import FrameType

    from qkvm.api.domain import Domain
    from qkvm.cli.context import Context
    from qkvm.cli.install.reader import Options
    from qkvm.cli.parse import Args
    from qkvm.domain.manage.install import Plan
    from qkvm.paths import Tree

_OWN: dict[str, tuple[str, str]] = {
    "image": ("IMAGE", "what to run: the name of a base image, or the path of one; needs no --image in front"),
    "format": ("FORMAT", "format of an image at a path, if its first bytes do not tell it: qcow2, raw or iso"),
    "size": ("GIB", "size of the guest's disk; default: the image's"),
    "kernel": ("FILE", "boot this kernel, with or without an image"),
    "initrd": ("FILE", "its initrd"),
    "append": ("ARGUMENTS", "its arguments (console=ttyS0)"),
    "publish": ("PORTS*", "a port of the host that leads to the guest: 2222:22, 127.0.0.1:53:53/udp"),
    "keep": ("", "make an ordinary domain, which stays"),
    "timeout": ("SECONDS", "how long to wait until the command can be run (300)"),
}
"""Options that install does not have, or has with another meaning."""

_NOT = (
    "arch", "autoconsole", "autostart", "cdrom", "connect", "destroy-on-exit", "extra-args", "hvm", "import",
    "initrd-inject", "install", "location", "noautoconsole", "noreboot", "print-xml", "pxe", "reinstall",
    "transient", "wait",
)  # fmt: skip
"""Options of install that mean nothing here."""

KNOWN: dict[str, tuple[str, str]] = {
    **_OWN,
    **{name: entry for name, entry in OPTIONS.items() if name not in (*_OWN, *_NOT)},
}
"""All options of this verb, as in install's table."""

_TIMEOUT = 300
_AGAIN = 0.5
"""Seconds between two tries to enter the guest."""

_NAME_MAX = 60

_CODES = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGHUP: 129}
"""Exit codes by the signals that end a run: 128 and the number."""


def run(context: Context, args: Args) -> int:
    """Make a guest on an image, show its console or run a command in it, and remove it."""
    words, command = list(args.raw), None
    if not words or words[0] in ("--help", "-h"):
        from qkvm.cli.install import help_text

        context.out(help_text("run a guest on an image, and remove it when it ends", usage()))
        return 0
    if "--" in words:
        at = words.index("--")
        words, command = words[:at], words[at + 1 :]
    options = read(words)
    context.quiet = context.quiet or options.flag("quiet")
    if options.flag("debug") and context.session is not None:
        context.session.console.debug = True
    if command == []:
        raise UsageError("there is no command behind --")
    if command is None and not options.flag("keep") and not options.flag("dry-run") and not os.isatty(0):
        raise UsageError("the guest's console needs a terminal", hint="-- COMMAND runs one in the guest")
    signals = _Signals()
    try:
        return _run(context, options, command, signals)
    except KeyboardInterrupt:
        return signals.code
    except Exception:
        # The terminal's ^C ends programs that are at work for us too.
        if signals.got is not None:
            return signals.code
        raise
    finally:
        signals.leave()


def read(words: list[str]) -> Options:
    """Return the options of a line; the word without a hyphen is the image."""
    from qkvm.cli.install.reader import read as read_options

    return read_options(words, KNOWN, "run", "image")


def _run(context: Context, options: Options, command: list[str] | None, signals: _Signals) -> int:
    from contextlib import nullcontext

    from qkvm.api.domain import Domain
    from qkvm.cli.install import checks, cloudinit
    from qkvm.cli.install.build import build
    from qkvm.domain.manage import passing
    from qkvm.domain.manage.install import refuse_present

    keep = options.flag("keep")
    timeout = _seconds(options)
    context.host.prepare()
    line, seeded = _line(context.tree, options, keep=keep)
    plan = build(context.tree, line, context.warn, seed=cloudinit.own if seeded else None).plan
    # Paused until its console is there, so that no output is missed.
    plan = plan._replace(paused=command is None and os.isatty(0))
    if not keep:
        plan = _passing(context.tree, plan)
    domain = Domain(context.tree, plan.definition.name)
    refuse_present(domain)
    checks.run(context.tree, line, plan, context.warn)
    if options.flag("dry-run"):
        context.say("Dry run completed successfully\n")
        return 0
    with passing.owned(domain) if not keep else nullcontext():
        return _live(context, domain, plan, command, timeout, signals)


def _live(
    context: Context, domain: Domain, plan: Plan, command: list[str] | None, timeout: float, signals: _Signals
) -> int:
    """Start the guest and stay with it."""
    for warning in context.host.install(plan, lambda *_: None):
        context.warn(warning)
    with signals:
        if command is not None:
            return _command(context, domain, command, timeout)
        if not os.isatty(0):
            context.say(f"Domain '{domain.name}' started\n")
            return 0
        from qkvm.cli.domain.screen import attach_console

        attach_console(context, domain, force=False, connected=domain.resume)
        return 0


def _command(context: Context, domain: Domain, command: list[str], timeout: float) -> int:
    """Run a command in the guest as soon as there is a way into it, and return its exit code.

    :raises NoWayIn: there is none in time. :raises InvalidState: the guest has ended.
    """
    from qkvm.cli.inside.access import write
    from qkvm.domain.access import roads
    from qkvm.domain.access.byagent import Command
    from qkvm.errors import InvalidState, NoWayIn

    waiting = _Waiting(context, domain.name)
    stdin = None if os.isatty(0) else sys.stdin.buffer
    deadline = time.monotonic() + timeout

    def sink(name: str, piece: bytes) -> None:
        waiting.end()
        write(name, piece)

    context.flush()
    try:
        while True:
            try:
                return roads.execute(
                    domain, Command(command), stdin=stdin, sink=sink, timeout=0, tell=waiting.tell
                )  # fmt: skip
            except (NoWayIn, InvalidState) as error:
                if domain.state[0] in ("in shutdown", "shut off"):
                    raise InvalidState(
                        f"guest '{domain.name}' has ended before it could be entered",
                        hint="without a command its console tells why",
                    ) from None
                if isinstance(error, InvalidState):
                    raise
                if time.monotonic() >= deadline:
                    raise NoWayIn(domain.name, error.tried, timeout) from None
                waiting.show(error.tried[-1])
                time.sleep(_AGAIN)
    finally:
        waiting.end()


class _Waiting:
    """A line on stderr, where that is a terminal, that tells how long the guest is waited for."""

    def __init__(self, context: Context, name: str) -> None:
        self._context = context
        self._name = name
        self._begin = time.monotonic()
        self._live = not context.quiet and bool(sys.stderr) and os.isatty(2)
        self._shown = False

    def show(self, why: str) -> None:
        """Show the time and why it is waited for."""
        if self._live:
            self._context.progress(f"\r\x1b[K{self._name}: {time.monotonic() - self._begin:.0f} s, {why[:60]}")
            self._shown = True

    def tell(self, text: str) -> None:
        """Take what :func:`roads.execute` tells; once a road is there, the command's output begins."""
        if text.endswith(("answers", "runs the command")):
            self.end()

    def end(self) -> None:
        """Remove the line."""
        if self._shown:
            self._context.progress("\r\x1b[K")
            self._shown = False


class _Signals:
    """What ends a run: ^C, SIGTERM, SIGHUP. Inside of its block they interrupt; before and after it they wait.

    So neither the making of a guest nor its end is left half-way.
    """

    def __init__(self) -> None:
        self.got: int | None = None
        self._interrupt = False
        self._before: dict[int, Any] = {}
        for number in _CODES:
            before = signal.getsignal(number)
            # As nohup and a shell's background have it.
            if before is not signal.SIG_IGN:
                self._before[number] = before
                signal.signal(number, self._note)

    def leave(self) -> None:
        """Handle signals as before."""
        for number, before in self._before.items():
            signal.signal(number, before)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self.got = self.got or number
        if self._interrupt:
            self._interrupt = False
            raise KeyboardInterrupt

    def __enter__(self) -> None:
        if self.got is not None:
            raise KeyboardInterrupt
        self._interrupt = True

    def __exit__(self, *_: object) -> None:
        self._interrupt = False

    @property
    def code(self) -> int:
        """The exit code of the signal that came; SIGINT's where the console took it."""
        return _CODES.get(signal.Signals(self.got), 130) if self.got is not None else 130


def _passing(tree: Tree, plan: Plan) -> Plan:
    """Return the plan of a guest that goes with this process, and with it all disks that are made for it.

    :raises UsageError: a new disk is to be elsewhere.
    """
    from msgspec.structs import replace

    folder = tree.passing_disks(plan.definition.name)
    moved = {}
    for one in plan.disks:
        if os.path.dirname(one.path) not in (tree.images, folder):
            raise UsageError(
                f"--disk {printable(one.path)} is not there, and one that is made for this guest goes with it",
                hint="size= without path=, or --keep",
            )
        moved[one.path] = os.path.join(folder, os.path.basename(one.path))
    disks = tuple(replace(disk, path=moved.get(disk.path, disk.path)) for disk in plan.definition.disks)
    return plan._replace(
        definition=replace(plan.definition, disks=disks),
        disks=tuple(one._replace(path=moved[one.path]) for one in plan.disks),
        transient=True,
        passing=True,
    )


def _seconds(options: Options) -> float:
    from qkvm.units import parse_count

    return float(parse_count(options.single("timeout", str(_TIMEOUT)), "timeout", maximum=1_000_000))


def _line(tree: Tree, options: Options, *, keep: bool) -> tuple[Options, bool]:
    """Return the install line for a run, and whether the guest gets a seed of qkvm's own.

    :raises UsageError: there is nothing to run, or options exclude each other.
    """
    from qkvm.cli.install.reader import Options as Line
    from qkvm.storage.base import look, store

    given = {name: options.every(name) for name in options.names() if name in OPTIONS and name != "image"}
    image = options.single("image", "")
    if not image and not options.has("kernel") and not options.has("disk"):
        raise UsageError("there is nothing to run", hint="qkvm run IMAGE, or --kernel FILE")
    name = options.single("name", "") or _made_up(image or options.single("kernel", ""))
    given["name"] = [name]
    seeded = bool(image) and not options.has("cloud-init")
    if image:
        path, found = store.locate(tree, image, options.single("format", ""))
        seeded = seeded and found.format != look.ISO
        parts = [path, f"format={found.format}"]
        if options.has("size"):
            parts.append(f"size={options.single('size')}")
        if not keep and found.format != look.ISO:
            parts.append(f"path={os.path.join(tree.passing_disks(name), 'image.qcow2')}")
        given["image"] = [",".join(part.replace(",", ",,") for part in parts)]
    elif not options.has("disk"):
        given["nodisks"] = [""]
    if options.has("kernel"):
        given["boot"] = [",".join([*_kernel(options), *given.get("boot", [])])]
    given.setdefault("graphics", ["none"])
    usual = _network(tree, options)
    if not options.flag("nonetworks"):
        given.setdefault("network", [usual])
    return Line(given), seeded


def _kernel(options: Options) -> list[str]:
    """Return suboptions of --boot; the console is the one that is shown, where the arguments name none."""
    arguments = options.single("append", "")
    if "console=" not in arguments:
        arguments = f"console=ttyS0 {arguments}".rstrip()
    parts = [f"kernel={options.single('kernel')}", f"cmdline={arguments}"]
    if options.has("initrd"):
        parts.append(f"initrd={options.single('initrd')}")
    return [part.replace(",", ",,") for part in parts]


def _network(tree: Tree, options: Options) -> str:
    """Return the usual NIC: on the default network where root has it active, else of type user."""
    from qkvm.net.network.handle import Handle

    if options.has("publish") and (options.has("network") or options.flag("nonetworks")):
        raise UsageError(
            "--publish is for the usual NIC", hint="--network user,portForward=2222:22, or qkvm net-forward"
        )
    forwards = "".join(
        f",portForward{number}={ports.replace(',', ',,')}" for number, ports in enumerate(options.every("publish"))
    )
    if not forwards and os.geteuid() == 0 and Handle(tree, "default").active:
        return "network=default"
    return f"type=user{forwards}"


def _made_up(image: str) -> str:
    """Return a name for a guest: the image's and a number."""
    from qkvm.storage.base.store import default_name

    stem = re.sub(r"[^\w.+-]|^[^a-zA-Z0-9]+", "", default_name(image), flags=re.ASCII)[:_NAME_MAX]
    return f"{stem or 'guest'}-{os.urandom(2).hex()}"


def usage() -> tuple[str, str, list[tuple[str, str]]]:
    """Return the synopsis, a description of the options, and each option with its meaning."""
    from qkvm.cli.install import labels

    note = "most are install's; qkvm install --OPTION=? lists the suboptions of one"
    return "run IMAGE [options] [-- COMMAND...]", note, labels(KNOWN)


def options() -> list[str]:
    """Return the names of all options, for completion."""
    return list(KNOWN)
