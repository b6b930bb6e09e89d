"""Ask a QEMU that is started for the questions alone, and ends with them.

A script of QMP commands that ends in ``quit`` is its whole input: it answers them and ends, also when whoever
asked is killed meanwhile.
"""

from __future__ import annotations

from typing import Any

import msgspec

from qkvm.errors import HostError
from qkvm.host import process

_TIMEOUT = 60.0
"""Seconds for all answers; they take 0.2 on an idle machine."""


def ask(path: str, accel: str, commands: list[tuple[str, dict[str, Any]]]) -> list[Any]:
    """Start the program without a machine, run QMP commands and give what each returned; a refusal is its text.

    :param accel: as -machine takes it: one, or several with colons, of which the first that works is taken.
    :raises HostError: it does not speak QMP. :raises ProgramFailed: it does not start.
    """
    argv = [path, "-S", "-machine", f"none,accel={accel}", "-nodefaults", "-no-user-config", "-display", "none"]
    return converse(argv, commands)


def converse(argv: list[str], commands: list[tuple[str, dict[str, Any]]]) -> list[Any]:
    """The same with a command line of one's own, which has no -qmp and needs no stdin."""
    script = [("qmp_capabilities", {}), *commands, ("quit", {})]
    lines = (
        {"execute": name, "arguments": arguments, "id": number} for number, (name, arguments) in enumerate(script)
    )
    # QEMU ends at 'quit' with what a full pipe has not taken yet unsaid (seen in 7.2.22 and 10.0.13).
    said = process.run(
        [*argv, "-qmp", "stdio"], stdin=b"".join(msgspec.json.encode(line) + b"\n" for line in lines),
        timeout=_TIMEOUT, to_file=True,
    )  # fmt: skip
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
