"""Backups that say what is not so."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

from tests.host import nslab

UUID = "702ec947-419d-405a-ba80-ba4e81a9f7b2"


def forge(folder: Path, path: str, lies: dict[str, Any]) -> Path:
    """A folder with one backup of one raw disk, true but for the lies."""
    folder.mkdir(mode=0o700)
    image = folder / "0001-vda.qcow2"
    nslab.sh("qemu-img", "create", "-q", "-f", "qcow2", str(image), "1M")
    raw = image.read_bytes()
    disk = {
        "target": "vda",
        "file": image.name,
        "size": 1 << 20,
        "length": len(raw),
        "sha256": hashlib.sha256(raw).hexdigest(),
        "path": path,
        "format": "raw",
    } | lies
    text = (
        f"name = 'vm'\nuuid = '{UUID}'\nmemory = {{ current = '64MiB', maximum = '64MiB' }}\n"
        f"[[disks]]\npath = '{path}'\nformat = 'raw'\ntarget = 'vda'\n"
    )
    backup = {"number": 1, "time": 1.0, "guest": "shut off", "definition": text, "disks": [disk]}
    manifest = {
        "kind": "qkvm-backup",
        "version": 1,
        "name": "vm",
        "uuid": UUID,
        "series": "x",
        "backups": [backup],
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder
