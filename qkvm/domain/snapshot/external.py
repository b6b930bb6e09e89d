"""Go back to an external snapshot: its images stay as they are, and the guest gets new ones laid over them."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from qkvm import files
from qkvm.domain.launch.bring_up import Origin, bring_up
from qkvm.domain.snapshot import chain, disks, memory, pending
from qkvm.domain.snapshot import layers as snapshotlayers
from qkvm.domain.snapshot.returning import (
    as_plain,
    end_present,
    refuse_unfit,
    renew_nvram,
    restore_definition,
    with_present_disks,
)
from qkvm.domain.state import bring_back
from qkvm.domain.state import saved as savedguests
from qkvm.domain.state.save import discard_managed_save
from qkvm.domain.store import snapshots as store
from qkvm.errors import InvalidState
from qkvm.spec.snapshot import EXTERNAL, Snapshot
from qkvm.storage.image import image
from qkvm.storage.image import states as imagestates

if TYPE_CHECKING:
    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run
    from qkvm.domain.snapshot.disks import Image


def revert(
    domain: Handle, run: Run | None, snapshot: Snapshot, *, running: bool | None, force: bool, reset_nvram: bool
) -> list[str]:
    """As :func:`qkvm.domain.snapshot.revert.revert`, of an external snapshot; call it under the domain's lock."""
    if not domain.is_persistent:
        raise InvalidState("a transient domain can't go back to an external snapshot")
    changed = chain.changed_base(snapshot)
    if changed and not force:
        raise InvalidState(
            f"{changed} was written to since snapshot '{snapshot.name}' was taken, and is not what it was",
            hint="--force goes back to what it is now",
        )
    if snapshot.memory == EXTERNAL and not memory.is_whole(snapshot):
        raise InvalidState(f"{snapshot.memory_file} does not hold the memory of snapshot '{snapshot.name}'")
    definition = disks.past(snapshot)
    refuse_unfit(domain, definition)
    external = {disk.target for disk in snapshot.disks if disk.place == EXTERNAL}
    bases = [one for one in disks.of_definition(definition) if one.target in external]
    nvram = _nvram(domain, snapshot, reset_nvram=reset_nvram)
    layers = [{"target": one.target, "base": one.path, "path": _fresh_path(one), "made": True} for one in bases]
    present = domain.definition
    left = {
        path for disk in present.disks for path in (disk.path, *(layer.path for layer in disk.backing)) if path
    }
    end_present(domain, run)
    told = {
        "snapshot": snapshot.to_plain(), "way": "layers", "phase": "making", "layers": layers,
        "images": as_plain(nvram), "left": sorted(left),
    }  # fmt: skip
    with pending.work(domain, "revert", **told) as work:
        for layer, base in zip(layers, bases, strict=True):
            snapshotlayers.make(domain, str(layer["path"]), base)
        work.note(phase="made")
        _complete(domain, snapshot, work.facts)
    if reset_nvram:
        renew_nvram(domain)
    discard_managed_save(domain)
    if snapshot.memory == EXTERNAL:
        saved = savedguests.load(snapshot.memory_file)
        # Not the definition in the file: images may have been brought together since.
        now = with_present_disks(definition, present, snapshot, _overlays(layers))
        return bring_back.bring_back(
            domain, saved._replace(definition=now), running=running, reason="from snapshot"
        )
    if running is None:
        return []
    return bring_up(domain, Origin(domain.definition, "from snapshot"), paused=not running)


def _nvram(domain: Handle, snapshot: Snapshot, *, reset_nvram: bool) -> list[Image]:
    """The image of the UEFI variables, where they are to be as they were."""
    nvram = disks.nvram_of(domain, disks.past(snapshot)) if snapshot.nvram and not reset_nvram else None
    if nvram is not None and imagestates.has(nvram.path, snapshot.tag):
        return [nvram]
    if snapshot.nvram and not reset_nvram:
        raise InvalidState(
            f"the domain's nvram does not hold snapshot '{snapshot.name}' any more",
            hint="--reset-nvram makes it anew",
        )
    return []


def _fresh_path(base: Image) -> str:
    """A name for a new image that is laid over an old one: with the time, as libvirt has it."""
    second = int(time.time())
    folder, file = os.path.split(base.path)
    stem, dot, _ = file.rpartition(".")
    while os.path.lexists(path := os.path.join(folder, f"{stem if dot and stem else file}.{second}")):
        second += 1
    image.check(base.path, base.format, backing=bool(base.backing))
    return path


def _overlays(layers: list[dict[str, Any]]) -> dict[tuple[str, str], str]:
    return {(layer["target"], layer["base"]): layer["path"] for layer in layers}


def _complete(domain: Handle, snapshot: Snapshot, told: dict[str, Any]) -> None:
    for one in told["images"]:
        imagestates.apply(one["path"], snapshot.tag, backing=one["backing"])
    store.set_layers(domain, store.layers(domain) | {layer["path"] for layer in told["layers"]})
    restore_definition(domain, snapshot, _overlays(told["layers"]))
    store.set_current(domain, snapshot.name)
    chain.sweep(domain, set(told["left"]))


def recover_revert(domain: Handle, run: Run | None, snapshot: Snapshot, told: dict[str, Any]) -> None:
    """Complete the return where all images are there, else take it back."""
    del run
    if told["phase"] == "made":
        _complete(domain, snapshot, told)
    else:
        for layer in told["layers"]:
            files.remove(layer["path"])
