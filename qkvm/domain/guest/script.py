"""A script of the guest's shell, which the agent runs (guest-exec)."""

from __future__ import annotations

import time
from base64 import b64decode, b64encode
from typing import TYPE_CHECKING, Any

from qkvm.errors import GuestCommandError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qkvm.qmp.agent import AgentSession

_POLL = 0.005


def start(agent: AgentSession, script: str, words: Sequence[str] = (), *, input: bytes = b"") -> int:
    """Start a script and return its pid.

    :param words: its arguments. :param input: its stdin. :raises AgentRefused: the agent may not run programs.
    """
    arguments: dict[str, Any] = {"path": "/bin/sh", "arg": ["-c", script, "qkvm", *words], "capture-output": True}
    if input:
        arguments["input-data"] = b64encode(input).decode("ascii")
    return int(agent.execute("guest-exec", arguments, kind=dict[str, Any])["pid"])


def run(
    agent: AgentSession, script: str, words: Sequence[str] = (), *, input: bytes = b"", timeout: float
) -> tuple[int, str]:
    """Run a script to its end; return its exit code and what it prints.

    :param timeout: seconds. :raises GuestCommandError: it does not end within them.
    :raises AgentRefused: the agent may not run programs.
    """
    pid = start(agent, script, words, input=input)
    deadline = time.monotonic() + timeout
    while True:
        status = agent.execute("guest-exec-status", {"pid": pid}, kind=dict[str, Any])
        if status.get("exited"):
            return int(status.get("exitcode", -1)), b64decode(status.get("out-data", "")).decode(
                "utf-8", "replace"
            )
        if time.monotonic() >= deadline:
            raise GuestCommandError(f"the guest's shell does not end within {timeout:g} s")
        time.sleep(_POLL)
