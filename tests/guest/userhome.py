"""A user of this machine who is not root, for a test: home, runtime folder, and all programs within their reach.

The checkout, its environment and the test's own folders may lie where that user may not look; so there are copies.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

UID = 65533
"""Nobody's: Debian's "UID and GID classes" reserve it, beside nobody's own 65534."""

TOP = Path(__file__).resolve().parents[2]

_LEFT_OUT = shutil.ignore_patterns(
    "__pycache__", "mypy*", "*mypyc*", "ruff*", "pip", "pip-*", "setuptools*", "wheel*", "*.pth"
)
"""What of the environment takes room and no test needs."""


class UserHome:
    """What a user has: ``folder`` that all can enter, in it the home, the runtime folder and the copies."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = folder / "home"
        self.runtime = folder / "run"
        self.code = folder / "code"

    def fill(self, files: dict[str, str]) -> None:
        """Copy the code and the environment, and files by the names that they get in the home."""
        for place in (self.home, self.runtime):
            place.mkdir(mode=0o700)
            os.chown(place, UID, UID)
        for name in ("qkvm", "templates", "tests"):
            shutil.copytree(TOP / name, self.code / name, ignore=_LEFT_OUT)
        shutil.copy(TOP / "pyproject.toml", self.code)
        subprocess.run(
            [os.path.realpath(sys.executable), "-m", "venv", "--without-pip", self.folder / "env"], check=True
        )
        (site,) = (self.folder / "env/lib").glob("python*/site-packages")
        shutil.copytree(Path(msgspec.__file__).parent.parent, site, ignore=_LEFT_OUT, dirs_exist_ok=True)
        for name, source in files.items():
            shutil.copyfile(source, self.home / name)
        # Of whatever umask they were made under.
        subprocess.run(
            ["chmod", "-R", "a+rX", self.code, self.folder / "env", *(self.home / name for name in files)],
            check=True,
        )

    def environment(self, **more: str) -> dict[str, str]:
        """The user's environment, as after a login."""
        return {
            "PATH": "/usr/local/bin:/usr/bin:/bin",
            "HOME": str(self.home),
            "USER": "somebody",
            "XDG_RUNTIME_DIR": str(self.runtime),
            "PYTHONPATH": str(self.code),
            "PYTHONDONTWRITEBYTECODE": "1",
            "LC_ALL": "C.UTF-8",
            **more,
        }

    def run(self, *argv: str, timeout: float = 300, **more: str) -> subprocess.CompletedProcess[str]:
        """Run a Python program as the user, in this process's namespaces."""
        return subprocess.run(
            [
                "setpriv",
                f"--reuid={UID}",
                f"--regid={UID}",
                "--clear-groups",
                "--inh-caps=-all",
                str(self.folder / "env/bin/python"),
                *argv,
            ],
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
            stdin=subprocess.DEVNULL,
            cwd=self.home,
            env=self.environment(**more),
        )


@contextmanager
def user_home(files: dict[str, str]) -> Iterator[UserHome]:
    """Make a user's things for a block; afterwards no process of theirs in them may be left."""
    with tempfile.TemporaryDirectory(prefix="qkvm-user-", dir="/tmp") as name:
        os.chmod(name, 0o755)
        made = UserHome(Path(name))
        made.fill(files)
        yield made
