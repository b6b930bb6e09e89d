"""Remove what nothing needs any more (qkvm gc)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from qkvm import files
from qkvm.domain import run as runs
from qkvm.domain.device.nic import guard as nicguard
from qkvm.domain.handle import Handle
from qkvm.domain.launch.end import forget
from qkvm.domain.manage import passing
from qkvm.domain.state.copy import template
from qkvm.domain.tuning import group
from qkvm.host import view
from qkvm.net.grant import handout
from qkvm.storage.base import store
from qkvm.storage.pool import unfinished

if TYPE_CHECKING:
    from qkvm.paths import Tree


def collect(tree: Tree) -> list[str]:
    """Remove what is left of domains without a run or definition and of earlier boots; return the domains' names.

    Also control groups that no record names, kernels of installations that have ended, the addresses kept for
    NICs, and filters of users' taps.
    """
    for folder in (
        tree.run,
        tree.config,
        tree.domain_definitions,
        tree.network_definitions,
        tree.pool_definitions,
        tree.nvrams,
        *(tree.snapshots(name) for name in files.entries(tree.snapshot_folders)),
        *(tree.checkpoints(name) for name in files.entries(tree.checkpoint_folders)),
    ):
        files.sweep(folder)
    for folder in (tree.images, tree.nvrams):
        unfinished.clear(tree, folder)
    store.sweep(tree)
    collected = passing.sweep(tree)
    for name in files.entries(tree.makings, ".json"):
        # Whoever takes the lock removes a clone whose maker was killed.
        with Handle(tree, name).lock():
            collected.append(name)
    collected += template.collect(tree)
    for name in files.entries(tree.domain_runs):
        domain = Handle(tree, name)
        with domain.lock():
            runs.settle(tree, name)
            found = runs.find(tree, name)
            if found is None and domain.is_persistent:
                files.remove_dir(tree.domain_run(name))
            elif not domain.is_persistent and not domain.is_running:
                forget(domain)
            else:
                continue
        collected.append(name)
    for name in group.left_over(tree):
        with Handle(tree, name).lock():
            if group.collect(tree, name):
                collected.append(name)
    for name in files.entries(tree.snapshot_folders):
        if os.path.lexists(os.path.join(tree.snapshots(name), "pending")):
            with Handle(tree, name).lock():
                collected.append(name)
    collected += _collect_boot_files(tree)
    handout.collect(tree)
    nicguard.forget(tree)
    view.refresh(tree)
    return sorted(set(collected))


def _collect_boot_files(tree: Tree) -> list[str]:
    """Remove boot files of installations that have ended, and return the names of their domains."""
    collected = []
    for kind in ("kernel", "initrd"):
        for name in files.entries(tree.boot_files, f".{kind}"):
            domain, path = Handle(tree, name), tree.boot_file(name, kind)
            with domain.lock():
                run = domain.run
                if run is None or run.pid is None or run.record["definition"].get("boot", {}).get(kind) != path:
                    files.remove(path)
                    collected.append(name)
    return collected
