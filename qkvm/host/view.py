"""What a group may see of root's tree: a second tree, with what reads need and no secrets.

The tree itself stays root's alone, whatever modes an editor gives to its files. The view has copies of definitions
without passwords and comments, copies of records with the keys known to be harmless, and hard links to two files
of each run, QEMU's pid file and the journal. It is updated before the lock of a domain or of the networks is
released. Without ``var/lib/qkvm-read`` nobody may look, and this costs one system call.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Any

from qkvm.errors import DefinitionError, HostError
from qkvm.files import entries, os_error, read_bytes, remove, remove_dir, write_atomic
from qkvm.host import record

if TYPE_CHECKING:
    from qkvm.paths import Tree

_RUN_KEYS = frozenset((
    "id", "name", "uuid", "started", "origin", "definition", "machine", "accel", "slots", "memory", "vcpus",
    "nics", "disks", "controllers", "filesystems", "vnc", "base_state", "ending", "journal_from", "resumed",
    "stopped", "open_ports", "cputune", "memtune", "blkiotune", "numatune", "iothreads", "lost_vcpu", "taints",
    "cgroup", "no_cgroup",
))  # fmt: skip
"""The shown keys of a run's record."""

_NETWORK_KEYS = frozenset(("name", "bridge", "definition", "mac", "run", "firewall"))

_LINKED = ("qemu.pid", "events.jsonl")
"""Files of a run that QEMU writes: its pid, and its events."""

_SECRETS = frozenset(("password", "secret", "passwd"))
"""Keys that are never shown, at any depth."""


def group(tree: Tree) -> int | None:
    """Return the group that may look at a tree, None where there is none."""
    try:
        info = os.lstat(tree.view().state)
    except OSError:
        return None
    return info.st_gid if stat.S_ISDIR(info.st_mode) and info.st_uid == os.geteuid() else None


def make(tree: Tree, gid: int) -> None:
    """Let a group look at a tree."""
    _make_dir(tree.view().state, gid)
    refresh(tree)


def remove_view(tree: Tree) -> bool:
    """Let nobody look any more; return whether a group could."""
    import shutil

    view = tree.view()
    there = os.path.lexists(view.state)
    for folder in (view.run, view.state):
        if os.path.lexists(folder):
            shutil.rmtree(folder)
    return there


def refresh(tree: Tree) -> None:
    """Update the whole view."""
    view = tree.view()
    domains = {*entries(tree.domain_definitions, ".toml"), *entries(tree.domain_runs)}
    domains |= {*entries(view.domain_definitions, ".toml"), *entries(view.domain_runs)}
    for name in domains:
        refresh_domain(tree, name)
    refresh_networks(tree)


def refresh_domain(tree: Tree, name: str) -> None:
    """Update the view of a domain; call it under the domain's lock."""
    gid = group(tree)
    if gid is None:
        return None
    from qkvm.spec import domain as spec

    view = tree.view()
    _show_definition(tree.domain_definition(name), view.domain_definition(name), spec.Domain, gid)
    mark = view.managed_save(name)
    if os.path.lexists(tree.managed_save(name)):
        # Only its existence is shown.
        _put(mark, b"", gid)
    else:
        remove(mark)
    folder, shown = tree.domain_run(name), view.domain_run(name)
    current = record.read(os.path.join(folder, "record.json"))
    if current is None:
        return remove_dir(shown)
    _put(os.path.join(shown, "record.json"), _record(current, _RUN_KEYS), gid)
    for file in _LINKED:
        _link(os.path.join(folder, file), os.path.join(shown, file), gid)
    return None


def refresh_networks(tree: Tree) -> None:
    """Update the view of all networks; call it under their lock."""
    gid = group(tree)
    if gid is None:
        return
    from qkvm.spec.network import Network

    view = tree.view()
    defined = {*entries(tree.network_definitions, ".toml"), *entries(view.network_definitions, ".toml")}
    for name in defined:
        _show_definition(tree.network_definition(name), view.network_definition(name), Network, gid)
    for name in {*entries(tree.network_runs), *entries(view.network_runs)}:
        current = record.read(os.path.join(tree.network_run(name), "record.json"))
        if current is None:
            remove_dir(view.network_run(name))
        else:
            path = os.path.join(view.network_run(name), "record.json")
            _put(path, _record(current, _NETWORK_KEYS), gid)
        _link(tree.leases(name), view.leases(name), gid)


def _show_definition(path: str, shown: str, kind: type[Any], gid: int) -> None:
    """Show a definition without secrets and comments; a damaged one is not shown."""
    from qkvm.spec import toml

    raw = read_bytes(path)
    try:
        plain = None if raw is None else toml.to_plain(toml.loads(raw, kind, path))
    except DefinitionError:
        plain = None
    if plain is None:
        return remove(shown)
    return _put(shown, toml.dumps(toml.from_plain(_without_secrets(plain), kind, path)).encode(), gid)


def _record(current: dict[str, Any], keys: frozenset[str]) -> bytes:
    import json

    shown = _without_secrets({key: value for key, value in current.items() if key in keys})
    return json.dumps({"version": record.VERSION, "boot_id": record.boot_id(), **shown}, indent=1).encode()


def _without_secrets(plain: Any) -> Any:
    if isinstance(plain, dict):
        shown = {key: _without_secrets(value) for key, value in plain.items() if key not in _SECRETS}
        for one in shown.get("credentials", ()):
            if "value" in one:
                # A definition without it is not valid.
                one["value"] = "…"
        return shown
    return [_without_secrets(value) for value in plain] if isinstance(plain, list) else plain


def _put(path: str, data: bytes, gid: int) -> None:
    _make_dir(os.path.dirname(path), gid)
    if read_bytes(path) != data:
        write_atomic(path, data)
    _give(path, gid, 0o640)


def _link(path: str, shown: str, gid: int) -> None:
    """Hard-link a file that others write; a replaced one is linked again."""
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return remove(shown)
    if not stat.S_ISREG(info.st_mode):
        return remove(shown)
    _make_dir(os.path.dirname(shown), gid)
    if not os.path.lexists(shown) or not os.path.samestat(info, os.lstat(shown)):
        remove(shown)
        try:
            os.link(path, shown, follow_symlinks=False)
        except OSError as error:
            raise os_error(error, f"cannot show {path}") from error
    return _give(path, gid, info.st_mode & 0o600 | 0o040)


def _make_dir(path: str, gid: int) -> None:
    """Make a folder of the view with its missing parents."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path)
    if os.path.basename(path) != "qkvm-read":
        _make_dir(parent, gid)
    try:
        os.makedirs(parent, mode=0o755, exist_ok=True)
        os.mkdir(path, 0o700)
    except FileExistsError as error:
        raise HostError(f"{path} is not a folder", hint="move it out of the way") from error
    except OSError as error:
        raise os_error(error, f"cannot make {path}") from error
    _give(path, gid, 0o750)


def _give(path: str, gid: int, mode: int) -> None:
    """Let the group read a file or folder of the view."""
    try:
        os.chown(path, -1, gid, follow_symlinks=False)
        os.chmod(path, mode)
    except OSError as error:
        raise os_error(error, f"cannot let the group read {path}") from error
