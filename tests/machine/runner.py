"""Run pytest in a whole host with KVM, on this tree's tests and with qkvm installed from its wheel.

Run by scripts/test --kvm. What pytest prints there is printed here, and its exit code is this program's.
"""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from qkvm.errors import AgentUnresponsive
from tests.machine.machine import SHARE, TOP, Machine

TESTS = ("tests/machine/inside",)
"""What is run where nothing is named."""

TIMEOUT = 3600.0

_PARTS = ("tests", "scripts", "templates", "pyproject.toml")
"""What the tests need of the checkout; qkvm itself is installed."""


def main(release: str, arguments: list[str]) -> int:
    """Run it in a host of this release of Debian."""
    begin = time.monotonic()
    # Who ends this ends the host as well.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with Machine(release) as machine:
        guest = _bring_tests(machine.share)
        machine.install_qkvm()
        print(f"host of {release} with KVM is up after {time.monotonic() - begin:.0f} s", flush=True)
        output = machine.share / "output"
        output.touch()
        words = shlex.join(["/opt/qkvm/bin/python", "-u", "-m", "pytest", "-p", "no:cacheprovider", *arguments])
        environment = f"CI={os.environ.get('CI', '')} QKVM_MACHINE=yes {guest} QKVM_PATIENCE=5"
        ended = threading.Event()
        follower = threading.Thread(target=_follow, args=(output, ended))
        follower.start()
        try:
            done = machine.run(f"cd {SHARE} && {environment} {words} >{output.name} 2>&1", timeout=TIMEOUT)
        except AgentUnresponsive:
            print(f"--- the host answers no more; its console:\n{machine.console()}", flush=True)
            raise
        finally:
            ended.set()
            follower.join()
        if done.returncode:
            print(f"--- the host's console:\n{machine.console()}", flush=True)
    return done.returncode


def _bring_tests(share: Path) -> str:
    """Copy the tests and the test guest into the shared folder; gives what names the guest's files there."""
    for part in _PARTS:
        if (TOP / part).is_dir():
            shutil.copytree(TOP / part, share / part, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(TOP / part, share / part)
    made = subprocess.run([str(TOP / "scripts/make-guest")], stdout=subprocess.PIPE, text=True, check=True)
    words = []
    for line in made.stdout.splitlines():
        name, _, path = line.partition("=")
        shutil.copy(path, share)
        words.append(f"{name}={SHARE}/{Path(path).name}")
    return " ".join(words)


def _follow(path: Path, ended: threading.Event) -> None:
    """Print what is appended to a file, until its writer has ended."""
    with open(path, encoding="utf-8", errors="replace") as stream:
        while True:
            last = ended.wait(0.2)
            sys.stdout.write(stream.read())
            sys.stdout.flush()
            if last:
                return


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:] or list(TESTS)))
