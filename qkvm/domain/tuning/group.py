"""The control group of a domain's run: made before QEMU starts, named in the record, removed after it has ended.

Under systemd it is that of a scope, which systemd makes and removes (host/systemd/unit.py); elsewhere qkvm does
(host/cgroup.py).
"""

from __future__ import annotations

import os

from qkvm.domain.run import find, write
from qkvm.errors import HostError, InvalidState
from qkvm.host import cgroup
from qkvm.host.systemd import unit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run
    from qkvm.files import Undo
    from qkvm.paths import Tree


def begin(domain: Handle, ident: int, undo: Undo) -> unit.Keeper | None:
    """Have systemd begin to make the scope of a start; return None if there will be none.

    It need not be in the record: it ends by itself, with this process at the latest.

    :param ident: the id of the run.
    """
    from qkvm.host import settings

    if settings.load(domain.tree).cgroup != "auto" or not unit.usable():
        return None
    keeper = unit.begin_machine(f"{domain.tree.label}-{ident}-{domain.name}", f"qkvm guest {domain.name}")
    undo.add(keeper.leave)
    return keeper


def complete(domain: Handle, run: Run, keeper: unit.Keeper | None, undo: Undo) -> cgroup.Group | None:
    """Return the group of a start: the scope's, else one that is made here.

    Return None if there can be none, and note the reason in the record.
    """
    try:
        group = keeper.wait() if keeper is not None else None
    except (HostError, InvalidState):
        group = None
    if group is None:
        return _make(domain, run, undo)
    run.record |= {"unit": group.unit, "cgroup": group.path}
    write(run)
    return group


def _make(domain: Handle, run: Run, undo: Undo) -> cgroup.Group | None:
    from qkvm.host import settings

    setting = settings.load(domain.tree).cgroup
    if setting == "off":
        _note(run, f'{domain.tree.settings} has cgroup = "off"')
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
            words = (
                "without root it takes one that is delegated to you: by loginctl enable-linger before the start, "
                f"or as cgroup in {domain.tree.settings}"
            )
        _note(run, words)
        return None
    return group


def _note(run: Run, reason: str) -> None:
    """Note in the record why the run has no control group."""
    run.record["no_cgroup"] = reason
    write(run)


def group_of(run: Run, controller: str) -> cgroup.Group:
    """Return the control group of a run, which must have this controller.

    :raises InvalidState: it has no group, or not that controller; the message says why.
    """
    return checked(run, any_group_of(run), controller)


def checked(run: Run, group: cgroup.Group | None, controller: str) -> cgroup.Group:
    """Return this group of a run if it has the controller; raise as :func:`group_of`."""
    if group is None:
        reason = str(run.record.get("no_cgroup", "")) or "it was started without one"
        raise cgroup.unavailable(controller, f"domain '{run.name}' has no control group: {reason}")
    if controller not in group.controllers():
        raise cgroup.unavailable(controller, cgroup.why_not(os.path.dirname(group.path), controller))
    return group


def any_group_of(run: Run) -> cgroup.Group | None:
    """Return the control group of a run with any controllers; None for none."""
    path, scope = str(run.record.get("cgroup", "")), str(run.record.get("unit", ""))
    group = unit.UnitGroup(path, scope) if scope else cgroup.Group(path)
    return group if path and group.exists() else None


def release(run: Run) -> None:
    """Remove the group of a run that has ended; call it under the domain's lock."""
    path = str(run.record.get("cgroup", ""))
    if not path:
        return
    try:
        # A scope ends by itself, with its last process.
        if "unit" not in run.record:
            cgroup.remove(path)
    except HostError:
        # Another process runs in it, or QEMU is half started: the next verb tries again.
        return
    del run.record["cgroup"]
    run.record.pop("unit", None)
    write(run)


def left_over(tree: Tree) -> list[str]:
    """Return the names of a tree's domains that have a control group."""
    from qkvm.host import settings

    return sorted(cgroup.left_over(tree, settings.load(tree).cgroup))


def collect(tree: Tree, name: str) -> bool:
    """Remove an empty group that no record names; return whether it is gone. Call it under the domain's lock."""
    from qkvm.host import settings

    run = find(tree, name)
    path = cgroup.left_over(tree, settings.load(tree).cgroup).get(name, "")
    if not path or (run is not None and run.record.get("cgroup") == path) or cgroup.Group(path).processes():
        return False
    return cgroup.remove(path)
