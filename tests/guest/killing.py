"""Verbs that are killed on their way."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys

from tests.guest.conftest import TOP, Lab

KILLER = """
import os, signal, sys
from qkvm.cli.main import main
from qkvm.qmp.session import Session
when, command = sys.argv[1].split(":")
plain = Session.execute
def execute(self, name, *rest, **more):
    if (when, name) == ("before", command):
        os.kill(os.getpid(), signal.SIGKILL)
    answer = plain(self, name, *rest, **more)
    if (when, name) == ("after", command):
        os.kill(os.getpid(), signal.SIGKILL)
    return answer
Session.execute = execute
main(sys.argv[2:])
"""
"""A qkvm that is killed before or after a QMP command."""


def killed(lab: Lab, moment: str, line: str) -> None:
    """Run a verb that is killed with SIGKILL in its middle."""
    done = subprocess.run(
        [sys.executable, "-c", KILLER, moment, "--root", lab.root, *shlex.split(line)],
        cwd=TOP,
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
