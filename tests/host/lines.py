"""Command lines of qkvm on a root of the test's own."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]


class Lines:
    """Runs qkvm command lines on a root of the test's own."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.images = root / "var/lib/qkvm/images"

    def argv(self, line: str) -> list[str]:
        return [sys.executable, "-m", "qkvm", "--root", str(self.root), *shlex.split(line)]

    def run(self, line: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.argv(line),
            capture_output=True,
            text=True,
            check=False,
            timeout=120,
            cwd=TOP,
            input=stdin,
            env={**os.environ, "EDITOR": "sed -i s,<mode>0711,<mode>0750,"},
        )

    def ok(self, line: str, stdin: str = "") -> str:
        done = self.run(line, stdin)
        assert done.returncode == 0, f"qkvm {line}: {done.stderr}"
        return done.stdout

    def fails(self, line: str, words: str, stdin: str = "") -> None:
        done = self.run(line, stdin)
        assert done.returncode == 1 and "internal error" not in done.stderr, f"qkvm {line}: {done.stderr}"
        assert words in done.stderr and done.stderr.count("\n") == 1, done.stderr
