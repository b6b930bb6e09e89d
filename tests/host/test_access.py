"""The key pair that opens guests, made by ssh-keygen."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from qkvm.domain.access import keys
from qkvm.errors import MissingProgram
from qkvm.host import process
from qkvm.paths import Tree


def test_a_key_pair_for_each_root(tmp_path: Path) -> None:
    """It is made once, also if several ask at once; only its owner may read it."""
    tree = Tree(str(tmp_path))
    asking = "from qkvm.domain.access import keys; from qkvm.paths import Tree"
    asking += f"; print(keys.public_key(Tree({tree.root!r})))"
    running = [
        subprocess.Popen([sys.executable, "-c", asking], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    answers = {one.communicate(timeout=60)[0].strip() for one in running}
    (key,) = answers
    assert key.startswith("ssh-ed25519 ") and key == keys.public_key(tree)
    private = keys.private_key(tree)
    assert sorted(os.listdir(tree.ssh)) == ["id_ed25519", "id_ed25519.pub"]
    assert os.stat(private).st_mode & 0o777 == 0o600 and os.stat(tree.ssh).st_mode & 0o777 == 0o700
    # A killed qkvm may have left the private half alone: the other one is told from it.
    os.remove(f"{private}.pub")
    assert keys.public_key(tree).split()[:2] == key.split()[:2]
    assert keys.public_key(Tree(str(tmp_path / "other"))) != key


def test_no_key_without_ssh_keygen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str, needed_for: str, package: str) -> str:
        raise MissingProgram(name, needed_for, package)

    monkeypatch.setattr(process, "find_program", missing)
    with pytest.raises(MissingProgram, match="ssh-keygen is not installed") as caught:
        keys.public_key(Tree(str(tmp_path)))
    assert caught.value.hint == "on Debian: apt install openssh-client"
    assert not os.listdir(tmp_path / "var/lib/qkvm/ssh")
