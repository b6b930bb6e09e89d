"""Start a QEMU only to ask it questions.

Its input is a script of QMP commands with ``quit`` at the end: it answers them and ends, even if qkvm is killed.
"""

from __future__ import annotations

from typing import Any

import msgspec

from qkvm.errors import HostError
from qkvm.host import process

_TIMEOUT = 60.0
"""Seconds for all answers; on an idle machine they take 0.2."""


def ask(path: str, accel: str, commands: list[tuple[str, dict[str, Any]]]) -> list[Any]:
    """Start the program without a machine and return its answers to QMP commands; of a refusal, the text.

    :param accel: an accelerator, or several with colons between them: QEMU uses the first that works.
    :raises HostError: it does not speak QMP. :raises ProgramFailed: it does not start.
    """
    argv = [path, "-S", "-machine", f"none,accel={accel}", "-nodefaults", "-no-user-config", "-display", "none"]
    return converse(argv, commands)


def converse(argv: list[str], commands: list[tuple[str, dict[str, Any]]]) -> list[Any]:
    """Do the same with another command line, which must not use -qmp or stdin."""
    script = [("qmp_capabilities", {}), *commands, ("quit", {})]
    lines = (
        {"execute": name, "arguments": arguments, "id": number} for number, (name, arguments) in enumerate(script)
    )
    # At 'quit' QEMU drops output that does not fit into a pipe, so it gets a file (seen in 7.2.22 and 10.0.13).
    said = process.run(
        [*argv, "-qmp", "stdio"],
        stdin=b"".join(msgspec.json.encode(line) + b"\n" for line in lines),
        timeout=_TIMEOUT,
        to_file=True,
    )
    answers: dict[int, Any] = {}
    for line in said.splitlines():
        try:
            answer = msgspec.json.decode(line)
        except msgspec.DecodeError:
            continue
        if isinstance(answer, dict) and isinstance(answer.get("id"), int):
            answers[answer["id"]] = answer["return"] if "return" in answer else answer["error"]["desc"]
    if len(answers) < len(script) - 1:
        raise HostError(f"{argv[0]} is no QEMU that answers QMP", hint="qkvm needs QEMU 7.2 or newer")
    return [answers[number] for number in range(1, len(commands) + 1)]
