"""Remove what nothing needs any more (qkvm gc)."""

from __future__ import annotations

import os
from functools import partial
from typing import TYPE_CHECKING

from qkvm import files
from qkvm.domain import run as runs
from qkvm.domain.device.nic import guard as nicguard
from qkvm.domain.handle import Handle
from qkvm.domain.launch.end import forget
from qkvm.domain.life import autostart
from qkvm.domain.manage import passing
from qkvm.domain.manage import pool as guarded
from qkvm.domain.state.copy import template
from qkvm.domain.tuning import group
from qkvm.host import view
from qkvm.net import run as networks
from qkvm.net.grant import handout
from qkvm.net.network.network import Network
from qkvm.net.uplink import uplink
from qkvm.storage.base import store
from qkvm.storage.pool import unfinished
from qkvm.storage.pool.pool import Pool, list_pools

if TYPE_CHECKING:
    from collections.abc import Callable

    from qkvm.domain.life.autostart import Outcome
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


def running(tree: Tree) -> dict[str, list[str]]:
    """Return what runs, by kind: domains, networks, pools, and bridges over NICs of the host."""
    return {
        "domain": sorted(run.name for run in runs.live_runs(tree)),
        "network": sorted(networks.records(tree)),
        "pool": [pool.name for pool in list_pools(tree) if pool.active],
        "bridge": sorted(uplink.bridges(tree)),
    }


def stop_everything(
    tree: Tree, tell: Callable[[Outcome], object], *, timeout: float = autostart.SHUTDOWN_TIMEOUT
) -> None:
    """Shut down all domains and stop all else that runs; then collect. A failure does not stop the others.

    Definitions, disks and other files of domains stay.

    :param tell: called with each outcome. :param timeout: seconds that the guests have.
    """
    autostart.shutdown_all(tree, tell, timeout=timeout)
    steps: dict[str, Callable[[str], object]] = {
        "network": lambda name: Network(tree, name).destroy(),
        "pool": lambda name: guarded.destroy(Pool(tree, name)),
        "bridge": lambda name: uplink.undo(tree, name),
    }
    found = running(tree)
    for kind, step in steps.items():
        for name in found[kind]:
            tell(autostart.tried(kind, name, "stopped", partial(step, name)))
    collect(tree)


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
