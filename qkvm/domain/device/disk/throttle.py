"""Statistics, sizes, errors, I/O limits, resizing and write thresholds of a domain's disks."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec.structs import replace

from qkvm.domain.block import stats as blockstats
from qkvm.domain.block.disk import is_block, pick, plugged, top
from qkvm.domain.definition import together
from qkvm.domain.run import write
from qkvm.errors import CommandRefused, InvalidState, InvalidValue, NotReached
from qkvm.qemu.disks import throttle_arguments
from qkvm.qmp import commands
from qkvm.scope import Scope
from qkvm.spec import domain as spec
from qkvm.spec import toml
from qkvm.storage.image import image
from qkvm.storage.pool import content

if TYPE_CHECKING:
    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run
    from qkvm.qmp.session import Session

COUNTERS = (
    ("rd_req", "rd.reqs"), ("rd_bytes", "rd.bytes"), ("wr_req", "wr.reqs"), ("wr_bytes", "wr.bytes"),
    ("flush_operations", "fl.reqs"), ("rd_total_times", "rd.times"), ("wr_total_times", "wr.times"),
    ("flush_total_times", "fl.times"),
)  # fmt: skip
"""domblkstat's names in virsh's order -> domstats' names."""


class Sizes(NamedTuple):
    """Sizes of a disk in bytes: the guest's view, the room taken on the host, the length of the file."""

    target: str
    capacity: int
    allocation: int
    physical: int


def counters(domain: Handle, device: str = "") -> dict[str, int]:
    """Return a disk's counters of operations, bytes and ns, or their sums for all disks (virsh domblkstat).

    :raises InvalidState: it does not run. :raises NotFound: no such disk.
    """
    with domain.lock():
        run = domain.live
        entries = [pick(plugged(run), device)] if device else plugged(run)
        found = dict.fromkeys((name for name, _ in COUNTERS), 0)
        for row in _rows(domain, entries):
            for name, key in COUNTERS:
                found[name] += int(row.get(key, 0))
    return found


def sizes(domain: Handle, device: str = "") -> list[Sizes]:
    """Return the sizes of a disk, or of all but empty drives (virsh domblkinfo), by QEMU or by the image's file.

    :raises NotFound: no such disk. :raises InvalidValue: the named drive is empty.
    """
    run = domain.live_run
    if run is not None:
        with domain.lock():
            entries = [pick(plugged(run), device)] if device else plugged(run)
            rows = _rows(domain, entries)
        listed = [(entry["target"], entry["path"]) for entry in entries]
    else:
        disks = [pick(domain.definition.disks, device)] if device else list(domain.definition.disks)
        rows = [_stored(domain, disk) for disk in disks]
        listed = [(disk.target, disk.path) for disk in disks]
    if device and not listed[0][1]:
        raise InvalidValue(f"no disk source in drive {listed[0][0]}", hint="change-media inserts a medium")
    return [_sizes(target, path, row) for (target, path), row in zip(listed, rows, strict=True) if path]


def _rows(domain: Handle, entries: list[dict[str, Any]]) -> list[blockstats.Values]:
    """Return QEMU's statistics of these disks, under domstats' names without their numbers."""
    with domain.monitor() as session:
        stats = session.execute("query-blockstats")
        nodes = session.execute("query-named-block-nodes", {"flat": True})
    return [_unnumbered(blockstats.of_run([entry], stats, nodes, backing=False)) for entry in entries]


def _stored(domain: Handle, disk: spec.Disk) -> blockstats.Values:
    alone = replace(domain.definition, disks=(disk,))
    return _unnumbered(blockstats.of_definition(alone, backing=False))


def _unnumbered(values: blockstats.Values) -> blockstats.Values:
    return {name.removeprefix("block.0."): value for name, value in values.items() if name.startswith("block.0.")}


def _sizes(target: str, path: str, row: blockstats.Values) -> Sizes:
    """Return sizes by libvirt's rule: allocation is the highest byte written, or else the blocks of the file."""
    try:
        info = os.stat(path)
    except OSError:
        return Sizes(
            target, int(row.get("capacity", 0)), int(row.get("allocation", 0)), int(row.get("physical", 0))
        )
    physical = info.st_size or int(row.get("physical", 0))
    allocation = int(row.get("allocation", 0)) or info.st_blocks * 512
    return Sizes(target, int(row.get("capacity", physical)), allocation, physical)


def errors(domain: Handle) -> dict[str, str]:
    """Return the disks with I/O errors, and virsh's words for these (virsh domblkerror)."""
    words = {"nospace": "no space", "failed": "unspecified error"}
    with domain.lock():
        entries = plugged(domain.live)
        with domain.monitor() as session:
            shown = commands.drives(session)
    failed = {entry["target"]: shown.get(entry["id"], {}).get("io-status", "ok") for entry in entries}
    return {target: words[state] for target, state in failed.items() if state in words}


def throttle(domain: Handle, device: str, *, config: bool = False) -> spec.Throttle:
    """Return the limits of a disk: QEMU's for a running guest, else those of the definition.

    :raises NotFound: no such disk.
    """
    run = domain.live_run
    if config or run is None:
        return pick(domain.definition.disks, device).throttle or spec.Throttle()
    with domain.lock(), domain.monitor() as session:
        return _reported(session, pick(plugged(run), device)["id"])


def set_throttle(
    domain: Handle, device: str, limits: dict[str, int | str], *, scope: Scope = Scope.CURRENT
) -> None:
    """Set some of a disk's limits (block_set_io_throttle).

    :param limits: fields of spec.Throttle; see :func:`merged`.
    :raises InvalidValue: limits that exclude each other. :raises NotReached: QEMU has others afterwards.
    """

    def edit(present: spec.Domain) -> spec.Domain:
        stored = pick(present.disks, device)
        changed = merged(stored.throttle, limits, stored.target)
        kept = None if changed == spec.Throttle() else changed
        disks = (replace(disk, throttle=kept) if disk is stored else disk for disk in present.disks)
        return replace(present, disks=tuple(disks))

    together(domain, scope, lambda run, _: _set_live(domain, run, pick(plugged(run), device), limits), edit)


def _set_live(domain: Handle, run: Run, entry: dict[str, Any], limits: dict[str, int | str]) -> None:
    disk = toml.from_plain(entry["spec"], spec.Disk, "record")
    if not disk.path:
        raise InvalidState(f"drive {disk.target} is empty: there is nothing to limit")
    with domain.monitor() as session:
        chosen = merged(_reported(session, entry["id"]), limits, disk.target)
        spec.check_disk(replace(disk, throttle=chosen))
        machine = spec.Machine(run.record["machine"])
        session.execute("block_set_io_throttle", throttle_arguments(machine, disk, chosen))
        reached = _reported(session, entry["id"])
    if replace(reached, group_name="") != replace(_rounded(chosen), group_name=""):
        raise NotReached(f"QEMU shows other limits of {disk.target} than were set", asked=chosen, reached=reached)
    entry["spec"] = toml.to_plain(replace(disk, throttle=None if chosen == spec.Throttle() else chosen))
    write(run)


def _rounded(chosen: spec.Throttle) -> spec.Throttle:
    """Return limits as QEMU reports them: a burst without a length has one second."""
    lengths = {}
    for one in ("total", "read", "write"):
        for kind in ("bytes", "iops"):
            name = f"{one}_{kind}_sec_max"
            lengths[f"{name}_length"] = (getattr(chosen, f"{name}_length") or 1) if getattr(chosen, name) else 0
    return replace(chosen, **lengths)


def merged(present: spec.Throttle | None, limits: dict[str, int | str], target: str) -> spec.Throttle:
    """Return limits with some of them changed; a total replaces limits of reading and writing, and vice versa.

    :raises InvalidValue: they exclude each other.
    """
    fields: dict[str, Any] = {
        name: getattr(present or spec.Throttle(), name) for name in spec.Throttle.__struct_fields__
    }
    for kind in ("bytes", "iops"):
        total = [name for name in fields if name.startswith(f"total_{kind}")]
        parts = [name for name in fields if name.startswith((f"read_{kind}", f"write_{kind}"))]
        # One kind replaces the other; if both are given, check_throttle refuses that.
        if any(limits.get(name) for name in total):
            fields |= dict.fromkeys(parts, 0)
        if any(limits.get(name) for name in parts):
            fields |= dict.fromkeys(total, 0)
    fields |= limits
    for name in list(fields):
        # A length without its burst has no meaning.
        if name.endswith("_max_length") and not fields[name.removesuffix("_length")] and name not in limits:
            fields[name] = 0
    chosen = spec.Throttle(**fields)
    spec.check_throttle(chosen, target)
    return chosen


def _reported(session: Session, ident: str) -> spec.Throttle:
    """Return the limits that QEMU has for a device now (query-block)."""
    found = commands.drives(session).get(ident)
    if found is None:
        raise NotReached(f"QEMU does not show the disk {ident}", asked=ident, reached=None)
    return _of_qemu(found.get("inserted", {}), ident)


def _of_qemu(shown: dict[str, Any], ident: str) -> spec.Throttle:
    fields: dict[str, Any] = {"size_iops_sec": int(shown.get("iops_size", 0))}
    for kind, name in (("bytes", "bps"), ("iops", "iops")):
        for one, suffix in (("total", ""), ("read", "_rd"), ("write", "_wr")):
            burst = int(shown.get(f"{name}{suffix}_max", 0))
            length = int(shown.get(f"{name}{suffix}_max_length", 0)) if burst else 0
            fields[f"{one}_{kind}_sec"] = int(shown.get(f"{name}{suffix}", 0))
            fields[f"{one}_{kind}_sec_max"], fields[f"{one}_{kind}_sec_max_length"] = burst, length
    group = str(shown.get("group", ""))
    # QEMU puts a disk without a group into one named after it.
    return spec.Throttle(**fields, group_name="" if group == ident else group)


def resize(domain: Handle, device: str, size: int | None, *, shrink: bool = False) -> None:
    """Give a disk of a running guest another size (virsh blockresize).

    :param size: bytes; None for the whole block device of a raw disk. :param shrink: allow a smaller size, which
        loses the disk's end.
    :raises InvalidState: it would become smaller, or QEMU refuses, for example to shrink a qcow2 image.
    """
    if size is not None and (size <= 0 or size % 512):
        raise InvalidValue(f"a disk can't have {size} bytes", hint="a multiple of 512")
    with domain.lock():
        entry = pick(plugged(domain.live), device)
        if not entry["path"]:
            raise InvalidState(f"drive {entry['target']} is empty: there is nothing to resize")
        if size is None:
            size = _capacity(entry)
        with domain.monitor() as session:
            present = int(_node(session, entry["node"])["image"]["virtual-size"])
            if size < present and not shrink:
                raise InvalidState(
                    f"{entry['target']} has {present} bytes: what lies behind the first {size} would be lost",
                    hint="--shrink does it anyway",
                )
            try:
                session.execute("block_resize", {"node-name": top(entry), "size": size})
            except CommandRefused as error:
                raise InvalidState(f"{entry['target']} can't have {size} bytes: {error.desc}") from error
            reached = int(_node(session, entry["node"])["image"]["virtual-size"])
    if reached != size:
        raise NotReached(f"{entry['target']} has {reached} bytes, {size} were asked", asked=size, reached=reached)


def _capacity(entry: dict[str, Any]) -> int:
    """Return the bytes of a raw disk's block device.

    :raises InvalidState: it is in another format, or in a file, whose size is not fixed.
    """
    if entry["format"] != spec.DiskFormat.RAW or not is_block(entry["path"]):
        raise InvalidState(
            f"{entry['target']} is no raw disk on a block device: it has the size that it is given",
            hint="--capacity is for a device that has grown; say a size",
        )
    fd = image.open_image(entry["path"], entry["format"], readonly=True)
    try:
        return content.size_of(fd)
    finally:
        os.close(fd)


def set_threshold(domain: Handle, device: str, threshold: int) -> None:
    """Have an event block-threshold when the guest writes beyond this byte (block-set-write-threshold).

    :param threshold: bytes from the image's beginning; 0 removes it.
    """
    with domain.lock():
        entry = pick(plugged(domain.live), device)
        if not entry["path"]:
            raise InvalidState(f"drive {entry['target']} is empty: nothing is written to it")
        with domain.monitor() as session:
            node = _node(session, entry["node"])["image-node"]
            session.execute("block-set-write-threshold", {"node-name": node, "write-threshold": threshold})
            reached = _node(session, node).get("write_threshold")
    if reached != threshold:
        raise NotReached(f"{entry['target']} has another threshold", asked=threshold, reached=reached)


def _node(session: Session, name: str) -> dict[str, Any]:
    """Return QEMU's description of a node, with the protocol node below it as ``image-node``."""
    nodes = commands.nodes(session)
    if name not in nodes:
        raise NotReached(f"QEMU does not show the image {name}", asked=name, reached=None)
    below = f"file-{name.partition('-')[2]}"
    return {**nodes[name], "image-node": below if below in nodes else name}
