"""The demo's steps, under KVM."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.guest.conftest import TOP, Lab


def test_the_demo_under_kvm(lab: Lab) -> None:
    done = subprocess.run(
        [sys.executable, "scripts/demo.py"],
        cwd=TOP,
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
        env={**os.environ, "PYTHONPATH": str(TOP), "KERNEL": lab.kernel, "INITRD": lab.initrd},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "TCG" not in done.stdout + done.stderr
