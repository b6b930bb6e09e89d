"""Run a command in a guest by the first road that there is: vsock, the agent, ssh over the network."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

from qkvm.domain.access import ssh
from qkvm.domain.access.byagent import Command, Ended, Running
from qkvm.errors import AgentError, Busy, NoWayIn
from qkvm.host import process

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from qkvm.domain.handle import Handle
    from qkvm.domain.watch.sshd import Place

    Tell = Callable[[str], object]


def execute(
    domain: Handle,
    command: Command,
    *,
    stdin: BinaryIO | None,
    sink: Callable[[str, bytes], object],
    tty: bool = False,
    timeout: float,
    tell: Tell,
) -> int:
    """Run a command in the guest on this process's own streams, and return its exit code as a shell has it.

    :param stdin: its input; None for none. :param sink: gets 'out' or 'err', and bytes, of a command by the agent.
    :param tty: give it a terminal, which an agent can't. :param timeout: seconds to wait for a road.
    :param tell: gets what is tried. :raises NoWayIn: there is no road; says what was tried on each.
    """
    chosen = _choose(domain, command, stdin, tty=tty, timeout=timeout, tell=tell)
    if isinstance(chosen, Running):
        for name, piece in chosen.output():
            sink(name, piece)
        return chosen.code
    code = process.foreground(chosen)
    return code if code >= 0 else 128 - code


class Stream:
    """A command in the guest whose output is read here; ``code`` is its exit code at the end of that."""

    def __init__(
        self, domain: Handle, command: Command, stdin: BinaryIO | None = None, *, timeout: float, tell: Tell
    ) -> None:
        """Start it. The parameters are those of :func:`execute`."""
        chosen = _choose(domain, command, stdin, tty=False, timeout=timeout, tell=tell)
        self._running = chosen if isinstance(chosen, Running) else process.Piped(chosen, stdin)

    def output(self) -> Iterator[tuple[str, bytes]]:
        """Yield pieces of its output: 'out' or 'err', and bytes."""
        return self._running.output()

    @property
    def code(self) -> int:
        """Its exit code."""
        return self._running.code


def collect(
    domain: Handle, command: Command, stdin: BinaryIO | None = None, *, timeout: float, tell: Tell
) -> Ended:
    """Run a command in the guest and return its exit code and output; see :func:`execute` for the parameters."""
    running = Stream(domain, command, stdin, timeout=timeout, tell=tell)
    found = {"out": bytearray(), "err": bytearray()}
    for name, piece in running.output():
        found[name] += piece
    return Ended(running.code, bytes(found["out"]), bytes(found["err"]))


def _choose(
    domain: Handle, command: Command, stdin: BinaryIO | None, *, tty: bool, timeout: float, tell: Tell
) -> Running | list[str]:
    """Return the command as it runs by the agent, or the command line of an ssh that runs it.

    :raises NoWayIn: there is no road.
    """
    tried: list[str] = []
    if domain.live.record.get("vsock_cid"):
        try:
            return _by_ssh(domain, ssh.find(domain, timeout=0, tell=tell), command, stdin, tty)
        except NoWayIn as error:
            tried += error.tried
    else:
        tried.append("vsock: the domain has none")
        tell(tried[-1])
    if not tty:
        try:
            running = Running(domain, command, stdin)
            tell("agent: it runs the command")
            return running
        except (AgentError, Busy) as error:
            tried.append(f"agent: {error}")
    else:
        tried.append("agent: it has no terminals")
    tell(tried[-1])
    try:
        road = ssh.find(domain, timeout=timeout, tell=tell, vsock=False)
    except NoWayIn as error:
        raise NoWayIn(domain.name, [*tried, *error.tried], timeout) from error
    return _by_ssh(domain, road, command, stdin, tty)


def _by_ssh(domain: Handle, road: Place, command: Command, stdin: BinaryIO | None, tty: bool) -> list[str]:
    given = [f"{name}={value}" for name, value in command.env.items()]
    line = shlex.join(["exec", *(["env", *given] if given else []), *command.argv])
    if command.workdir:
        line = f"cd {shlex.quote(command.workdir)} || exit 126; {line}"
    argv = ssh.command(domain, road, [line], user=command.user, tty=tty, batch=not tty)
    if stdin is None and not tty:
        argv.insert(1, "-n")
    return argv
