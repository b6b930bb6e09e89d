"""The control group of a domain's run: made before QEMU, named in the record, gone after it."""

from __future__ import annotations

import os

from qkvm.domain.run import find, write
from qkvm.errors import HostError, InvalidState
from qkvm.host import cgroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.domain.domain import Domain
    from qkvm.domain.run import Run
    from qkvm.files import Undo
    from qkvm.paths import Tree


def make(domain: Domain, run: Run, undo: Undo) -> cgroup.Group | None:
    """Make the group of a start, recorded first; None where there can be none, and why in the record."""
    from qkvm.host import settings

    setting = settings.load(domain.tree).cgroup
    if setting == "off":
        run.record["no_cgroup"] = f'{domain.tree.settings} has cgroup = "off"'
        return None
    try:
        group = cgroup.domain_group(domain.tree, domain.name, setting)
        run.record["cgroup"] = group.path
        write(run)
        undo.add(cgroup.remove, group.path)
        cgroup.create(group)
    except (HostError, InvalidState) as error:
        run.record.pop("cgroup", None)
        words = str(error).removeprefix("Requested operation is not valid: ")
        if os.geteuid() != 0 and setting == "auto":
            words = f"without root it takes one that is delegated to you, as cgroup in {domain.tree.settings}"
        run.record["no_cgroup"] = words
        return None
    return group


def group_of(run: Run, controller: str) -> cgroup.Group:
    """The control group of a run, with a controller.

    :raises InvalidState: it has no group, or not that controller; its words say why.
    """
    group = any_group_of(run)
    if group is None:
        reason = str(run.record.get("no_cgroup", "")) or "it was started without one"
        raise cgroup.unavailable(controller, f"domain '{run.name}' has no control group: {reason}")
    if controller not in group.controllers():
        raise cgroup.unavailable(controller, cgroup.why_not(os.path.dirname(group.path), controller))
    return group


def any_group_of(run: Run) -> cgroup.Group | None:
    """The control group of a run with whatever controllers it has, None where there is none."""
    group = cgroup.Group(str(run.record.get("cgroup", "")))
    return group if group.path and group.exists() else None


def release(run: Run) -> None:
    """Remove the group of a run that has ended; call it under the domain's lock."""
    path = str(run.record.get("cgroup", ""))
    if not path:
        return
    try:
        cgroup.remove(path)
    except HostError:
        # Something of another's runs in it, or QEMU is half started: the next verb tries again.
        return
    del run.record["cgroup"]
    write(run)


def left_over(tree: Tree) -> list[str]:
    """Names of the domains of a tree that have a control group."""
    from qkvm.host import settings

    return sorted(cgroup.left_over(tree, settings.load(tree).cgroup))


def collect(tree: Tree, name: str) -> bool:
    """Remove a group that is empty and that no record names; call it under the domain's lock.

    Whether it is gone now.
    """
    from qkvm.host import settings

    run = find(tree, name)
    path = cgroup.left_over(tree, settings.load(tree).cgroup).get(name, "")
    if not path or (run is not None and run.record.get("cgroup") == path) or cgroup.Group(path).processes():
        return False
    return cgroup.remove(path)
