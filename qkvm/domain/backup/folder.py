"""Full and incremental backups of a domain into a folder (qkvm backup).

Each backup begins a bitmap in every disk that records what the guest writes from then on, named after the folder's
series and the backup's number. The former bitmap is removed only when the manifest lists the new backup, so there
is always one that fits the last complete backup. Where a bitmap is missing, or inconsistent since QEMU was killed,
the whole disk is copied.
"""

from __future__ import annotations

import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from qkvm import units
from qkvm.domain import definition as definitions
from qkvm.domain.backup import job
from qkvm.domain.backup.part import Part
from qkvm.domain.block import job as blockjob
from qkvm.domain.block import nodes as blocknodes
from qkvm.domain.block.disk import plugged
from qkvm.domain.device import actual
from qkvm.domain.run import settle
from qkvm.errors import AgentError, Busy, InvalidState, InvalidValue, QkvmError
from qkvm.qmp import commands
from qkvm.spec import toml
from qkvm.storage import backup as folders
from qkvm.storage.image import image
from qkvm.storage.media import seed as seeds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qkvm.domain.backup.job import Report, State
    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run
    from qkvm.qmp.commands import Node
    from qkvm.qmp.session import Session
    from qkvm.storage.backup import Manifest


class Options(NamedTuple):
    """The options of a backup; with neither ``full`` nor ``incremental`` it is incremental where possible.

    ``freeze``: have the guest's agent, if there is one, freeze its file systems meanwhile. ``bandwidth``: bytes
    per second and disk, 0 for no limit.
    """

    full: bool = False
    incremental: bool = False
    compress: bool = False
    freeze: bool = True
    bandwidth: int = 0


class Outcome(NamedTuple):
    """A complete backup from the manifest, whether an earlier process had begun it, and notes for the user."""

    backup: folders.Backup
    resumed: bool
    notes: tuple[str, ...]


def backup(
    domain: Handle, folder: str, options: Options | None = None, *, report: Report | None = None
) -> Outcome:
    """Back the domain up into a folder, which is made if it is missing, and wait until that is done.

    If a backup into this folder is under way, begun by a process that was killed, wait for that one.

    :param report: called with the bytes that are copied and the bytes in all.
    :raises InvalidState: another backup is under way, or there is none to add an incremental one to.
    :raises HostError: it failed, for example for lack of room; the folder's earlier backups are unchanged.
    """
    options = options or Options()
    folder = units.check_path(os.path.abspath(folder), "folder")
    if options.full and options.incremental:
        raise InvalidValue("Options --full and --incremental are mutually exclusive")
    with domain.lock():
        settle(domain.tree, domain.name)
        run = domain.live_run
        under_way = run.record.get("backup") if run is not None else None
        resumed = under_way is not None
        if under_way is not None and under_way.get("folder") != folder:
            raise Busy("a backup of the domain is under way", hint="domjobinfo shows it, domjobabort ends it")
        if under_way is None:
            state = (
                _running(domain, run, folder, options)
                if run is not None
                else _stopped(domain, folder, options, report)
            )
        else:
            state = under_way
            with domain.monitor() as session:
                job.set_speed(session, state, options.bandwidth)
    if run is not None:
        try:
            job.wait(domain, state, report)
        except KeyboardInterrupt:
            job.abort(domain)
            raise
    manifest = folders.load(folder)
    assert manifest is not None
    found = folders.add_digests(folder, manifest).find(state["entry"]["number"])
    return Outcome(found, resumed, tuple(state["notes"]))


def _running(domain: Handle, run: Run, folder: str, options: Options) -> State:
    blockjob.refuse_busy(run)
    entries = [entry for entry in plugged(run) if counts(entry["spec"])]
    flash = run.record.get("flash")
    variables = (flash["node"], flash["path"]) if flash else None
    with domain.monitor() as session:
        blocknodes.sweep(run, session)
        guest = run.state()[0]
        text = toml.dumps(actual.definition(run)) if not domain.is_persistent else definitions.stored_text(domain)
        source = _Source(entries, variables, text, guest, _seed(domain))
        return _begin(domain, session, run, folder, options, source)


def _stopped(domain: Handle, folder: str, options: Options, report: Report | None) -> State:
    from qkvm.domain.block import offline
    from qkvm.domain.image import firmware, nvram

    if not domain.is_persistent:
        raise InvalidState("domain is not running")
    definition = domain.definition
    listed = tuple(disk for disk in definition.disks if counts(toml.to_plain(disk)))
    if domain.has_managed_save:
        raise InvalidState(
            "the domain has a managed save, without which its disks are half of it", hint="start it first"
        )
    with offline.opened(domain, listed) as (session, entries):
        store = firmware.store_path(domain.tree, definition) if nvram.is_there(domain) else ""
        variables = ("", store) if store else None
        source = _Source(entries, variables, definitions.stored_text(domain), "shut off", _seed(domain))
        state = _begin(domain, session, None, folder, options, source)
        try:
            found = job.await_held(session, state, report)
            error = found.error
        except KeyboardInterrupt:
            for ident in state["jobs"].values():
                session.execute("job-cancel", {"id": ident})
            job.conclude(session, state, job.await_held(session, state).error or "interrupted")
            raise
        ended = {"started": state["started"], "canceled": False}
        job.raise_for({**ended, "error": job.conclude(session, state, error)}, state)
    return state


def counts(disk: dict[str, Any]) -> bool:
    """Return whether a disk is backed up: it must be writable and no CD or floppy."""
    return disk.get("device", "disk") == "disk" and bool(disk.get("path")) and not disk.get("readonly")


class _Source(NamedTuple):
    """What is backed up: entries of disks, node ('' if not open) and path of the UEFI variables, the definition's
    text, the guest's state, its seed.
    """

    entries: list[dict[str, Any]]
    variables: tuple[str, str] | None
    text: str
    guest: str
    seed: folders.Seed | None


def _seed(domain: Handle) -> folders.Seed | None:
    """Return the domain's cloud-init seed, None for none."""
    path = domain.tree.seed(domain.name)
    if not os.path.lexists(path):
        return None
    texts = seeds.read(path)
    return folders.Seed(
        path=path, user_data=texts.user_data, meta_data=texts.meta_data, network_config=texts.network_config
    )


class _Plan:
    """What one backup copies: its parts and images, bitmaps to add and to drop, notes for the user."""

    def __init__(self, folder: str, manifest: Manifest, options: Options) -> None:
        self.folder, self.manifest, self.options = folder, manifest, options
        self.number = manifest.last.number + 1 if manifest.last is not None else 1
        self.parts: list[Part] = []
        self.images: list[folders.Image] = []
        self.add: list[tuple[str, str, bool]] = []
        self.drop: list[tuple[str, str]] = []
        self.notes: list[str] = []

    def take(self, session: Session, entry: dict[str, Any], shown: Node) -> None:
        """Add a disk: what has changed since the last backup where that is known, else all of it.

        :param shown: QEMU's description of its node.
        """
        node, target, size = entry["node"], entry["target"], shown["image"]["virtual-size"]
        bitmaps = {one["name"]: one for one in shown.get("dirty-bitmaps", ())}
        base, name = _base(self.manifest, target, size, bitmaps, self.options, self.notes)
        fresh = _bitmap(self.manifest.series, self.number)
        # A bitmap of that name is from a backup that was broken off; older ones are useless after this backup.
        if fresh in bitmaps:
            session.execute("block-dirty-bitmap-remove", {"node": node, "name": fresh})
        ours = [other for other in bitmaps if other.startswith(f"qkvm-{self.manifest.series}-") and other != fresh]
        self.drop += [(node, other) for other in ours]
        self.add.append((node, fresh, entry["format"] == "qcow2"))
        one = folders.Image(
            target=target, file=f"{self.number:04}-{target}.qcow2", base=base, length=0, size=size,
            path=entry["path"], format=entry["format"],
        )  # fmt: skip
        self.images.append(one)
        self.parts.append(Part(
            target, node, os.path.join(self.folder, one.file), "qcow2", bitmap=name,
            compress=self.options.compress, backed=bool(base), bandwidth=self.options.bandwidth,
        ))  # fmt: skip

    def facts(self, source: _Source, nvram: folders.Image | None) -> State:
        """Return the facts for the jobs' state from which the manifest's entry is made at the end."""
        entry = folders.Backup(
            number=self.number, time=time.time(), guest=source.guest, definition=source.text,
            disks=tuple(self.images), nvram=nvram, seed=source.seed,
        )  # fmt: skip
        manifest = self.manifest
        return {
            "folder": self.folder,
            "entry": msgspec.to_builtins(entry),
            "notes": self.notes,
            "series": [manifest.name, manifest.uuid, manifest.series],
        }


def _begin(
    domain: Handle, session: Session, run: Run | None, folder: str, options: Options, source: _Source
) -> State:
    """Choose what to copy of each disk, and begin the jobs."""
    if not source.entries:
        raise InvalidState("the domain has no disk that could be backed up")
    manifest = folders.prepare(folder, domain.name, domain.uuid)
    if options.incremental and manifest.last is None:
        raise InvalidState(f"{folder} holds no backup to which this one could add", hint="--full begins")
    folders.sweep(folder, manifest)
    plan = _Plan(folder, manifest, options)
    nodes = commands.nodes(session)
    for entry in source.entries:
        plan.take(session, entry, nodes[entry["node"]])
    nvram = _nvram(folder, plan.number, source.variables, nodes, plan.parts)
    state = plan.facts(source, nvram)

    def make() -> None:
        for one in plan.images:
            folders.create(folder, one.file, one.size, one.base)
        if nvram is not None and source.variables is not None:
            if source.variables[0]:
                folders.create(folder, nvram.file, nvram.size)
            else:
                image.copy(source.variables[1], nvram.format, os.path.join(folder, nvram.file), "qcow2")

    return job.begin(
        session, plan.parts, run=run, add=plan.add, drop=plan.drop, make=make, facts=state,
        quiet=_frozen(domain, run, state) if run is not None and options.freeze else None,
    )  # fmt: skip


def _bitmap(series: str, number: int) -> str:
    return f"qkvm-{series}-{number}"


def _base(
    manifest: Manifest, target: str, size: int, bitmaps: dict[str, Any], options: Options, notes: list[str]
) -> tuple[str, str]:
    """Return the base of a disk's next image and the bitmap of what has changed since; '' for a full copy."""
    last = manifest.last
    if last is None or options.full:
        return "", ""
    before = next((one for one in last.disks if one.target == target), None)
    name = _bitmap(manifest.series, last.number)
    found = bitmaps.get(name)
    if before is None:
        why = f"it was not in backup {last.number}"
    elif found is None:
        why = f"what has changed since backup {last.number} was not recorded"
    elif found.get("inconsistent"):
        why = f"the bitmap of what has changed since backup {last.number} is inconsistent: QEMU was killed"
    elif before.size != size:
        why = f"it had {before.size} bytes in backup {last.number} and has {size}"
    else:
        return before.file, name
    notes.append(f"disk {target} is copied in full: {why}")
    return "", ""


def _nvram(
    folder: str, number: int, variables: tuple[str, str] | None, nodes: dict[str, Node], parts: list[Part]
) -> folders.Image | None:
    """Return the image for the UEFI variables, and add a part for those of a running guest."""
    if variables is None:
        return None
    node, path = variables
    fmt = "qcow2" if path.endswith(".qcow2") else "raw"
    size = nodes[node]["image"]["virtual-size"] if node else image.virtual_size(path, fmt)
    one = folders.Image(
        target="nvram", file=f"{number:04}-nvram.qcow2", size=size, length=0, path=path, format=fmt
    )
    if node:
        parts.append(Part("nvram", node, os.path.join(folder, one.file), "qcow2"))
    return one


@contextmanager
def _frozen(domain: Handle, run: Run, facts: State) -> Iterator[None]:
    """Freeze the guest's file systems during the block, if an agent can; note an error in the state."""
    from qkvm.domain.guest import agent
    from qkvm.domain.guest import filesystems as guestfs

    held = 0
    if agent.is_there(domain):
        try:
            held = guestfs.hold(domain, run)
        except AgentError as error:
            facts["notes"].append(f"the guest's file systems were not frozen: {error}")
    try:
        yield
    finally:
        if held:
            try:
                guestfs.let_go(domain, run)
            except QkvmError as error:
                facts["notes"].append(f"the guest's file systems could not be thawed: {error}")
            facts["entry"]["guest"] = "frozen"
