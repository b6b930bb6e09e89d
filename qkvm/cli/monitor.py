"""qemu-monitor-command: QMP as the user typed it, or a line of the human monitor."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from qkvm.cli import common
from qkvm.errors import CommandRefused, InvalidValue

if TYPE_CHECKING:
    from qkvm.cli.main import Context
    from qkvm.cli.parse import Args


def qemu_monitor_command(context: Context, args: Args) -> int:
    """Run it and print the answer; an error that QEMU answers is printed as it is, as virsh does."""
    domain = common.domain(context, args)
    text = " ".join(args.texts("cmd"))
    if args.flag("hmp"):
        args.exclusive("hmp", "pretty")
        args.exclusive("hmp", "return-value")
        with domain.lock(), domain.monitor() as session:
            context.out(session.hmp(text).replace("\r\n", "\n") + "\n")
        return 0
    command, arguments = parse_command(text)
    answer: dict[str, Any]
    try:
        answer = {"return": domain.monitor_command(command, arguments)}
    except CommandRefused as error:
        answer = {"error": {"class": error.error_class, "desc": error.desc}}
    if args.flag("return-value"):
        if "return" not in answer:
            raise CommandRefused(command, answer["error"]["class"], answer["error"]["desc"])
        answer = answer["return"]
    pretty = args.flag("pretty") or args.flag("return-value")
    context.out(json.dumps(answer, indent=2 if pretty else None, separators=None if pretty else (",", ":")) + "\n")
    return 0


def parse_command(text: str) -> tuple[str, dict[str, Any] | None]:
    """The command and arguments of a QMP command (QMP specification, 'Issuing Commands')."""
    try:
        plain = json.loads(text)
    except ValueError as error:
        raise InvalidValue(
            f"cannot parse json {text}: {error}", hint='{"execute": "query-status"}, or a line with --hmp'
        ) from error
    if not isinstance(plain, dict) or not isinstance(plain.get("execute"), str):
        raise InvalidValue("a QMP command is an object with 'execute'", hint='{"execute": "query-status"}')
    unknown = set(plain) - {"execute", "arguments", "id"}
    if unknown or not isinstance(plain.get("arguments", {}), dict):
        raise InvalidValue("a QMP command has 'execute', 'arguments' (an object) and 'id', and nothing else")
    return plain["execute"], plain.get("arguments")
