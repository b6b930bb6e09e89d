"""scripts/setup on a host that has no apt: it says what is missing and touches nothing."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]


def test_a_host_without_apt_is_told_what_is_missing(tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    scripts = tmp_path / "source/scripts"
    programs.mkdir()
    shutil.copytree(TOP / "scripts", scripts)
    for name in ("bash", "dirname", "fallocate", "sha256sum"):
        found = shutil.which(name)
        assert found is not None
        programs.joinpath(name).symlink_to(found)
    done = subprocess.run(
        [programs / "bash", scripts / "setup"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": str(programs)},
    )
    assert done.returncode == 1 and not done.stdout
    first, *lines = done.stderr.splitlines()
    assert first == "setup: there is no apt-get here; install these by the means of this system:"
    assert "  qemu-system-x86_64, 7.2 or newer: the emulator" in lines
    assert "  cc: builds a module of python-iptables" in lines
    assert all(": " in line or "with venv" in line for line in lines), "each says what it is for"
    assert not any("fallocate" in line for line in lines)
    assert [entry.name for entry in scripts.parent.iterdir()] == ["scripts"]
