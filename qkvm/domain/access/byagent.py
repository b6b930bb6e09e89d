"""Run a command in a guest by its agent (guest-exec): its output as it comes, its exit code as a shell has it.

The agent keeps at most 16 MiB of output, and none of it before the end. So a small script in the guest writes the
output into two files, which the agent reads in pieces. Where both stay small it prints them, so that a short
command takes two questions to the agent. The files are readable for their owner alone.
"""

from __future__ import annotations

import os
import time
from base64 import b64decode, b64encode
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from qkvm.domain.guest import agent as agents
from qkvm.domain.guest import script
from qkvm.errors import AgentError, AgentRefused, AgentUnresponsive, Busy, GuestCommandError, InvalidState
from qkvm.units import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import BinaryIO

    from qkvm.domain.handle import Handle
    from qkvm.qmp.agent import AgentSession

SMALL = 65536
"""Most bytes of each output that come with the end of the command; more are read from its file."""

_PIECE = 1 << 16
"""Bytes that the agent reads or writes at once: under TCG on a busy host a MiB takes it more than its time."""

_PIECES = 32
"""Most pieces that are read in one go."""

_INPUT = 1 << 16
"""Most bytes of stdin that go with the command; more go into a file first."""

_SLICE = 0.5
"""Seconds for which one command keeps the agent, so that others get it too."""

_POLLS = 0.001, 0.1
"""Seconds between two questions about a command: at first, and at most."""

_EARLY = 0.3
"""Seconds after which output is read while the command runs; until then the agent is kept."""

_SHORT = 10.0
"""Seconds that a script has which does nothing but make a file."""

_LOST = 30.0
"""Seconds for which an agent that stopped answering is asked again."""

_SCRIPT = r"""
d=$1 most=$2 user=$3 work=$4 n=$5; shift 5
while [ "$n" -gt 0 ]; do export "$1"; shift; n=$((n - 1)); done
trap : INT TERM HUP
umask 077; set -C
exec 8>"$d.out" 9>"$d.err" || exit 126
umask 022; set +C
[ ! -e "$d.in" ] || exec <"$d.in"
(
    exec >&8 2>&9 8>&- 9>&-
    [ -z "$work" ] || cd "$work" || exit 126
    [ -z "$user" ] || exec su -s /bin/sh -c 'exec "$@"' -- "$user" sh "$@"
    exec "$@"
)
code=$?
for f in out err; do
    [ ! -s "$d.$f" ] || [ "$(wc -c <"$d.$f")" -le "$most" ] || { printf F; exit "$code"; }
done
printf C
[ ! -s "$d.out" ] || cat "$d.out"
[ ! -s "$d.err" ] || cat "$d.err" >&2
rm -f "$d.out" "$d.err" "$d.in" >/dev/null 2>&1 </dev/null &
exit "$code"
"""
"""Arguments: the files' common path, SMALL, a user, a folder, how many of the next are NAME=VALUE, the command."""

_KILL = r"""
ends() { for c in $(cat "/proc/$1/task/$1/children"); do ends "$c"; kill -s "$2" "$c"; done; }
ends "$1" "$2" 2>/dev/null
"""
"""Send a signal to all children of the script, which itself stays to tell how they ended."""

_PREPARE = r'umask 077; set -C; : >"$1.in"'
_REMOVE = r'rm -f "$1.out" "$1.err" "$1.in"'


class Command(NamedTuple):
    """A program to run in a guest, its arguments, and where it runs; ``user`` '' is the agent's own, root."""

    argv: Sequence[str]
    env: Mapping[str, str] = {}
    user: str = ""
    workdir: str = ""


class Ended(NamedTuple):
    """A command that has ended: its exit code as a shell has it (127 not found, 128+n by signal n), its output."""

    code: int
    stdout: bytes
    stderr: bytes


def execute(
    domain: Handle,
    argv: Sequence[str],
    *,
    input: bytes = b"",
    env: Mapping[str, str] | None = None,
    user: str = "",
    workdir: str = "",
    timeout: float | None = None,
) -> Ended:
    """Run a command in the guest by its agent to its end, and return its exit code and output.

    :param input: its stdin. :param user: who it runs as; '' is the agent's own user, root.
    :param timeout: seconds; it is killed then. :raises GuestCommandError: it was.
    :raises AgentError: no agent answers.
    """
    import io

    found = {"out": bytearray(), "err": bytearray()}
    running = Running(domain, Command(argv, env or {}, user, workdir), io.BytesIO(input) if input else None)
    deadline = None if timeout is None else time.monotonic() + timeout
    for name, piece in running.output(deadline):
        found[name] += piece
    return Ended(running.code, bytes(found["out"]), bytes(found["err"]))


class Running:
    """A command that runs in a guest; ``code`` is its exit code once :meth:`output` has come to its end."""

    def __init__(self, domain: Handle, command: Command, stdin: BinaryIO | None = None) -> None:
        """Start it.

        :param stdin: is read to its end first. :raises AgentRefused: the agent may not run programs.
        """
        self.code = 0
        self._domain = domain
        self._path = f"/tmp/.qkvm-{os.urandom(12).hex()}"
        self._handles: dict[str, int] = {}
        self._seen = {"out": 0, "err": 0}
        given = [f"{name}={value}" for name, value in command.env.items()]
        words = (self._path, str(SMALL), command.user, command.workdir, str(len(given)), *given, *command.argv)
        with agents.session(domain) as agent:
            first = b""
            if stdin is not None:
                # Another road needs the input, where this agent may not run programs.
                _refuse_disabled(agent)
                first = stdin.read(_INPUT + 1)
            if stdin is not None and len(first) > _INPUT:
                self._send_file(agent, first, stdin)
                first = b""
            self._pid = script.start(agent, _SCRIPT, words, input=first)
            self._status: dict[str, Any] = {"exited": False}
            with suppress(AgentUnresponsive):
                # The first questions follow at once: most commands are short, and an agent whose channel was left
                # looks at it again only after a tenth of a second.
                self._status = self._ask(agent, time.monotonic() + _EARLY)

    def output(self, deadline: float | None = None) -> Iterator[tuple[str, bytes]]:
        """Yield pieces of its output, 'out' or 'err' and bytes, until it has ended.

        An error in the meantime, such as ^C or a pipe that nobody reads any more, ends it in the guest.

        :param deadline: when it is killed. :raises GuestCommandError: it was, or it was lost.
        """
        try:
            pause, begin, heard = _POLLS[0], time.monotonic(), time.monotonic()
            while not self._status["exited"]:
                if deadline is not None and time.monotonic() >= deadline:
                    raise GuestCommandError("the command in the guest did not end in time")
                time.sleep(pause)
                pause = min(pause * 2, _POLLS[1])
                pieces: list[tuple[str, bytes]] = []
                try:
                    with agents.session(self._domain) as agent:
                        heard = time.monotonic()
                        if heard - begin > _EARLY:
                            pieces = self._pieces(agent)
                        self._status = self._ask(agent, 0.0)
                except (AgentError, Busy) as error:
                    if isinstance(error, AgentRefused) or time.monotonic() > heard + _LOST:
                        raise
                yield from pieces
                if pieces:
                    pause = _POLLS[0]
            yield from self._rest()
        except BaseException as error:
            self._abandon("PIPE" if isinstance(error, BrokenPipeError) else "INT")
            raise

    def _ask(self, agent: AgentSession, until: float) -> dict[str, Any]:
        """Ask whether it has ended, again and again until then; at least once."""
        pause = _POLLS[0]
        while True:
            status = agent.execute("guest-exec-status", {"pid": self._pid}, kind=dict[str, Any])
            if status["exited"] or time.monotonic() + pause >= until:
                return status
            time.sleep(pause)
            pause = min(pause * 1.5, 0.01)

    def _rest(self) -> Iterator[tuple[str, bytes]]:
        """Yield what is still to come once it has ended, and remove its files."""
        status = self._status
        self.code = 128 + int(status["signal"]) if "signal" in status else int(status.get("exitcode", 0))
        told = b64decode(status.get("out-data", ""))
        if told[:1] == b"C":
            whole = {"out": told[1:], "err": b64decode(status.get("err-data", ""))}
            for name, content in whole.items():
                if content[self._seen[name] :]:
                    yield name, content[self._seen[name] :]
            if self._handles:
                with agents.session(self._domain) as agent:
                    self._close(agent)
            return
        if told[:1] != b"F" and "signal" not in status:
            words = b64decode(status.get("err-data", "")).decode("utf-8", "replace").strip()
            raise GuestCommandError(f"the guest's shell could not run the command: {printable(words[-300:])}")
        while True:
            with agents.session(self._domain) as agent:
                pieces = self._pieces(agent)
                if not pieces:
                    self._close(agent)
                    script.start(agent, _REMOVE, (self._path,))
                    return
            yield from pieces

    def _pieces(self, agent: AgentSession) -> list[tuple[str, bytes]]:
        """Return what its files have beyond what was read, or some MiB of that."""
        found: list[tuple[str, bytes]] = []
        until = time.monotonic() + _SLICE
        for name in ("out", "err"):
            if name not in self._handles:
                where = {"path": f"{self._path}.{name}", "mode": "r"}
                try:
                    self._handles[name] = agent.execute("guest-file-open", where, kind=int)
                except AgentRefused:
                    # A slow guest has not made it yet.
                    continue
            while True:
                what = {"handle": self._handles[name], "count": _PIECE}
                got = agent.execute("guest-file-read", what, kind=dict[str, Any])
                piece = b64decode(got.get("buf-b64", ""))
                if not piece:
                    break
                self._seen[name] += len(piece)
                found.append((name, piece))
                if len(found) >= _PIECES or time.monotonic() >= until:
                    break
        return found

    def _close(self, agent: AgentSession) -> None:
        for handle in self._handles.values():
            agent.execute("guest-file-close", {"handle": handle}, kind=dict[str, Any])
        self._handles.clear()

    def _send_file(self, agent: AgentSession, first: bytes, stdin: BinaryIO) -> None:
        """Write stdin into a file that the command reads."""
        if script.run(agent, _PREPARE, (self._path,), timeout=_SHORT)[0] != 0:
            raise GuestCommandError("the guest's /tmp takes no file for the command's input")
        try:
            self._fill_file(agent, first, stdin)
        except BaseException:
            with suppress(AgentError, Busy, InvalidState):
                script.start(agent, _REMOVE, (self._path,))
            raise

    def _fill_file(self, agent: AgentSession, first: bytes, stdin: BinaryIO) -> None:
        handle = agent.execute("guest-file-open", {"path": f"{self._path}.in", "mode": "a"}, kind=int)
        piece = first
        while piece:
            left = memoryview(piece)
            while left:
                what = {"handle": handle, "buf-b64": b64encode(left).decode("ascii")}
                left = left[agent.execute("guest-file-write", what, kind=dict[str, Any])["count"] :]
            piece = stdin.read(_PIECE)
        agent.execute("guest-file-close", {"handle": handle}, kind=dict[str, Any])

    def _abandon(self, signal: str) -> None:
        """End it in the guest, by the signal and after a while by SIGKILL, and remove its files."""
        # What went wrong first says more than that the agent does not answer either.
        with suppress(AgentError, Busy, InvalidState), agents.session(self._domain) as agent:
            for name in (signal, "KILL"):
                if self._status["exited"]:
                    break
                script.start(agent, _KILL, (str(self._pid), name))
                self._status = self._ask(agent, time.monotonic() + 3.0)
            self._close(agent)
            script.start(agent, _REMOVE, (self._path,))


def _refuse_disabled(agent: AgentSession) -> None:
    """:raises AgentRefused: the agent was told not to run programs, as RHEL's is."""
    known = agent.execute("guest-info", kind=dict[str, Any])["supported_commands"]
    if not any(one["name"] == "guest-exec" and one["enabled"] for one in known):
        raise AgentRefused("guest-exec", "CommandNotFound", "Command guest-exec has been disabled")
