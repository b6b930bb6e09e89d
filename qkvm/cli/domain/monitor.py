"""Verbs that send raw commands to QEMU and to the guest agent."""

from __future__ import annotations

import json
import os
from typing import Any

from qkvm.cli import common
from qkvm.cli.parse import UsageError
from qkvm.domain.guest import agent
from qkvm.errors import CommandRefused, InvalidValue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.api.domain import Domain
    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args


def qemu_monitor_command(context: Context, args: Args) -> int:
    """Run a QEMU command and print the answer; an error from QEMU is printed unchanged, as in virsh."""
    domain = common.domain(context, args)
    words, fd = args.texts("cmd"), _passed_fd(args.text("pass-fds"))
    if args.flag("hmp"):
        args.exclusive("hmp", "pretty")
        args.exclusive("hmp", "return-value")
        context.out(domain.qemu.line(" ".join(words), fd=fd).replace("\r\n", "\n") + "\n")
        return 0
    command, arguments = parse_command(_wrapped(words))
    answer: dict[str, Any]
    try:
        answer = {"return": domain.qemu.command(command, arguments, fd=fd)}
    except CommandRefused as error:
        answer = {"error": {"class": error.error_class, "desc": error.desc}}
    if command == "add-fd" and "return" in answer and not _has_set(domain, answer["return"]["fdset-id"]):
        # QEMU before 9.1, monitor_fdsets_cleanup(): an unused fd set is removed with the last connection.
        context.warn("QEMU dropped the new set of fds as soon as this command ended; one that getfd names stays")
    if args.flag("return-value"):
        if "return" not in answer:
            raise CommandRefused(command, answer["error"]["class"], answer["error"]["desc"])
        answer = answer["return"]
    pretty = args.flag("pretty") or args.flag("return-value")
    context.out(json.dumps(answer, indent=2 if pretty else None, separators=None if pretty else (",", ":")) + "\n")
    return 0


def _has_set(domain: Domain, number: int) -> bool:
    """Return whether QEMU still has an fd set; this opens a new connection."""
    return any(entry["fdset-id"] == number for entry in domain.qemu.command("query-fdsets"))


def _passed_fd(text: str | None) -> int | None:
    """Return the fd of --pass-fds, which must have been open when qkvm started. QEMU takes one a command."""
    if text is None:
        return None
    for number in text.split(","):
        if not (number.isascii() and number.isdigit() and len(number) < 10):
            raise UsageError(f"Unable to parse FD number '{number}'")
    if "," in text:
        raise InvalidValue("invalid argument: at most 1 fd can be passed to qemu along with a command")
    try:
        # qkvm opens its own fds close-on-exec; inherited ones are not.
        if os.get_inheritable(int(text)):
            return int(text)
    except OSError:
        pass
    raise InvalidValue(f"Cannot duplicate FD {text}: Bad file descriptor", hint="the shell opens one: 3<FILE")


def _wrapped(words: list[str]) -> str:
    """Wrap a bare command and its arguments into a JSON object; return an object unchanged.

    As in virsh the arguments are an object or its members: ``device_add '"driver":"…"' '"id":"…"'``.
    """
    text = " ".join(words)
    if text.lstrip().startswith(("{", "[")):
        return text
    name, rest = words[0], words[1:]
    if not rest:
        return json.dumps({"execute": name})
    for arguments in (" ".join(rest), "{" + ",".join(rest) + "}"):
        try:
            found = json.loads(arguments)
        except ValueError:
            continue
        if isinstance(found, dict):
            return json.dumps({"execute": name, "arguments": found})
    raise InvalidValue(
        f"failed to wrap arguments '{' '.join(rest)}' into a QMP command wrapper", hint="""'"NAME":VALUE' each"""
    )


def parse_command(text: str) -> tuple[str, dict[str, Any] | None]:
    """Return the command and arguments of a QMP command (QMP specification, 'Issuing Commands')."""
    try:
        plain = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidValue(
            f"cannot parse json {text}: {error}", hint='{"execute": "query-status"}, or a line with --hmp'
        ) from error
    if not isinstance(plain, dict) or not isinstance(plain.get("execute"), str):
        raise InvalidValue("a QMP command is an object with 'execute'", hint='{"execute": "query-status"}')
    unknown = set(plain) - {"execute", "arguments", "id"}
    if unknown or not isinstance(plain.get("arguments", {}), dict):
        raise InvalidValue("a QMP command has 'execute', 'arguments' (an object) and 'id', and nothing else")
    return plain["execute"], plain.get("arguments")


def qemu_agent_command(context: Context, args: Args) -> None:
    """Run an agent command and print the answer."""
    import msgspec

    from qkvm.errors import AgentUnresponsive

    given = [name for name in ("timeout", "async", "block") if args.has(name)]
    if len(given) > 1:
        raise UsageError("timeout, async and block options are exclusive")
    timeout = args.signed("timeout")
    if timeout is not None and timeout < 1:
        raise UsageError("timeout must be positive")
    if given and timeout is None:
        timeout = agent.NOWAIT if args.flag("async") else agent.BLOCK
    domain = common.domain(context, args)
    name, arguments = parse_command(" ".join(args.texts("cmd")))
    answer = domain.guest.command(name, arguments, timeout=timeout)
    if answer is None:
        return
    try:
        # Format the text itself: parsed, a hostile answer of many small parts would take much memory.
        text = msgspec.json.format(b'{"return":' + bytes(answer) + b"}", indent=2 if args.flag("pretty") else -1)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise AgentUnresponsive(f"its answer to {name} is not one: {error}", name=domain.name) from error
    context.out(_ascii(text.decode("utf-8", "replace")) + "\n")


def guest_agent_timeout(context: Context, args: Args) -> None:
    """Set how long to wait for the agent's answers."""
    seconds = args.signed("timeout")
    common.domain(context, args).guest.set_timeout(agent.BLOCK if seconds is None else seconds)


def _ascii(text: str) -> str:
    """Return JSON text with all but printable ASCII escaped; such characters occur only in strings."""
    if text.isascii():
        return text.replace("\x7f", "\\u007f")
    raw = text.encode("utf-16-be", "surrogatepass")
    units = (int.from_bytes(raw[at : at + 2], "big") for at in range(0, len(raw), 2))
    return "".join(chr(unit) if unit < 127 else f"\\u{unit:04x}" for unit in units)
