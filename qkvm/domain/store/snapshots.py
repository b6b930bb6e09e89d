"""What is known of a domain's snapshots: a file for each, and which one is current.

    var/lib/qkvm/snapshots/DOMAIN/NAME.json   a snapshot
                                 /current     name of the one that the guest comes from
                                 /layers      images that qkvm has laid over others, which may go with a snapshot
                                 /pending     what is being done (see snapshot/pending.py)

Reads only need JSON: a definition in it is read by who uses it.
"""

from __future__ import annotations

import json
import os

from qkvm import files
from qkvm.errors import DefinitionError, NotFound
from qkvm.spec.snapshot import Snapshot, from_plain
from qkvm.units import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.domain.handle import Handle
    from qkvm.paths import Tree

_SUFFIX = ".json"


def _file(domain: Handle, name: str) -> str:
    return os.path.join(domain.tree.snapshots(domain.name), name)


def pending_file(domain: Handle) -> str:
    """The file that says what is being done."""
    return _file(domain, "pending")


def has_pending(domain: Handle) -> bool:
    """Whether something was begun and not ended."""
    return os.path.lexists(pending_file(domain))


def names(tree: Tree, domain: str) -> list[str]:
    """Names of a domain's snapshots."""
    return files.entries(tree.snapshots(domain), _SUFFIX)


def load(domain: Handle) -> dict[str, Snapshot]:
    """All snapshots of a domain by name.

    :raises DefinitionError: a file is damaged.
    """
    found = {}
    for name in names(domain.tree, domain.name):
        raw = files.read_bytes(_file(domain, name + _SUFFIX))
        if raw is not None:
            found[name] = _parse(raw, _file(domain, name + _SUFFIX))
    return found


def find(domain: Handle, name: str) -> Snapshot:
    """One snapshot.

    :raises NotFound: in libvirt's words.
    """
    raw = None
    if "/" not in name and "\0" not in name and 0 < len(name.encode("utf-8", "replace")) < 250:
        raw = files.read_bytes(_file(domain, name + _SUFFIX))
    if raw is None:
        raise NotFound(
            f"Domain snapshot not found: no domain snapshot with matching name '{printable(name)}'",
            kind="snapshot", name=name, hint=f"qkvm snapshot-list {domain.name}",
        )  # fmt: skip
    return _parse(raw, _file(domain, name + _SUFFIX))


def _parse(raw: bytes, path: str) -> Snapshot:
    try:
        plain = json.loads(raw)
    except ValueError as error:
        raise DefinitionError(path, f"damaged: {error}") from error
    return from_plain(plain, path)


def exists(domain: Handle, name: str) -> bool:
    """Whether there is a snapshot of that name."""
    return os.path.lexists(_file(domain, name + _SUFFIX))


def write(domain: Handle, snapshot: Snapshot) -> None:
    """Write a snapshot's file; call it under the domain's lock."""
    prepare(domain)
    files.write_atomic(_file(domain, snapshot.name + _SUFFIX), json.dumps(snapshot.to_plain()))


def prepare(domain: Handle) -> None:
    """Make the domain's folder where it is missing."""
    files.make_private_dir(domain.tree.snapshot_folders)
    files.make_private_dir(domain.tree.snapshots(domain.name))


def remove(domain: Handle, name: str) -> None:
    """Forget a snapshot: its children become its parent's, which is current where it was."""
    snapshots = load(domain)
    gone = snapshots.get(name)
    if gone is None:
        return
    for child in snapshots.values():
        if child.parent == name:
            child.parent = gone.parent
            write(domain, child)
    if current(domain) == name:
        set_current(domain, gone.parent)
    files.remove(_file(domain, name + _SUFFIX))


def current(domain: Handle) -> str:
    """The name of the current snapshot, '' for none."""
    name = (files.read_bytes(_file(domain, "current")) or b"").decode("utf-8", "replace")
    return name if name and exists(domain, name) else ""


def set_current(domain: Handle, name: str) -> None:
    """Say which snapshot the guest comes from; '' for none."""
    if name:
        files.write_atomic(_file(domain, "current"), name)
    else:
        files.remove(_file(domain, "current"))


def layers(domain: Handle) -> set[str]:
    """Paths of the images that qkvm has laid over others for snapshots of this domain."""
    raw = files.read_bytes(_file(domain, "layers"))
    return set(json.loads(raw)) if raw else set()


def set_layers(domain: Handle, paths: set[str]) -> None:
    """Write down which images these are."""
    prepare(domain)
    files.write_atomic(_file(domain, "layers"), json.dumps(sorted(paths)))


def name_domain(domain: Handle, name: str) -> None:
    """Have all definitions in the snapshots of a domain name it so."""
    for snapshot in load(domain).values():
        snapshot.definition["name"] = name
        if snapshot.inactive is not None:
            snapshot.inactive["name"] = name
        write(domain, snapshot)


def forget(tree: Tree, name: str) -> None:
    """Remove all that is known of a domain's snapshots; what lies in images stays there."""
    files.remove_dir(tree.snapshots(name))
