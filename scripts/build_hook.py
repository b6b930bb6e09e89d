"""The build's own step: the manual pages and the completion files go into the wheel, as the program tells them.

pip puts them under share/ of the environment, where man and the shells look.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

PLACES = {
    "bash": "share/bash-completion/completions/qkvm",
    "zsh": "share/zsh/site-functions/_qkvm",
}


class SharedFiles(BuildHookInterface[Any]):
    """Writes them into a folder that goes when the wheel is there."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """Add the files to what the wheel is made of."""
        sys.path.insert(0, self.root)
        from qkvm.cli.shell.completion import SCRIPTS
        from qkvm.cli.shell.manual import pages

        manual = pages()
        places = PLACES | {name: f"share/man/man{name[-1]}/{name}" for name in manual}
        self._folder = tempfile.TemporaryDirectory(prefix="qkvm-build")
        for name, text in (SCRIPTS | manual).items():
            path = Path(self._folder.name, name)
            path.write_text(text, encoding="utf-8")
            build_data["shared_data"][str(path)] = places[name]

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        """Remove the folder."""
        self._folder.cleanup()
