"""Verbs that speak with the agent in a guest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qkvm.cli import common
from qkvm.cli.monitor import parse_command
from qkvm.cli.parse import UsageError
from qkvm.domain import agent

if TYPE_CHECKING:
    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args


def qemu_agent_command(context: Context, args: Args) -> None:
    """Run an agent's command as the user typed it, and print the answer."""
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
    answer = agent.command(domain, name, arguments, timeout=timeout)
    if answer is None:
        return
    try:
        # Formatted as text: a hostile answer of many small parts would be large as objects.
        text = msgspec.json.format(b'{"return":' + bytes(answer) + b"}", indent=2 if args.flag("pretty") else -1)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise AgentUnresponsive(f"its answer to {name} is not one: {error}", name=domain.name) from error
    context.out(_ascii(text.decode("utf-8", "replace")) + "\n")


def guest_agent_timeout(context: Context, args: Args) -> None:
    """Set how long an agent's answers are waited for."""
    seconds = args.signed("timeout")
    agent.set_timeout(common.domain(context, args), agent.BLOCK if seconds is None else seconds)


def _ascii(text: str) -> str:
    """JSON text in ASCII: nothing that a terminal could act on. Other characters stand in strings alone."""
    if text.isascii():
        return text.replace("\x7f", "\\u007f")
    raw = text.encode("utf-16-be", "surrogatepass")
    units = (int.from_bytes(raw[at : at + 2], "big") for at in range(0, len(raw), 2))
    return "".join(chr(unit) if unit < 127 else f"\\u{unit:04x}" for unit in units)
