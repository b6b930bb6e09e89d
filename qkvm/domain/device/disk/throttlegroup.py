"""Make, change and remove throttle groups: limits that several disks share.

A group is an object of QEMU (object-add, qom-set). Each disk in it has a filter node on top of its image.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from qkvm.domain.definition import together
from qkvm.domain.device import actual
from qkvm.domain.device.disk import throttle
from qkvm.domain.tuning import tuned
from qkvm.errors import CommandRefused, InvalidState, NotFound, NotReached
from qkvm.files import Undo
from qkvm.qemu import disks
from qkvm.qmp import commands
from qkvm.scope import Scope
from qkvm.spec import domain as spec
from qkvm.units import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run

    Groups = tuple[spec.Throttle, ...]


def groups(domain: Handle, *, inactive: bool = False) -> Groups:
    """Return the groups of the running guest, else or with ``inactive`` those of the definition."""
    run = domain.live_run
    if inactive or run is None:
        return domain.definition.throttle_groups
    return _live(run)


def find(domain: Handle, name: str, *, inactive: bool = False) -> spec.Throttle:
    """Return the group of that name.

    :raises NotFound: there is none.
    """
    return _named(groups(domain, inactive=inactive), name)


def change(domain: Handle, name: str, limits: dict[str, int | str], *, scope: Scope = Scope.CURRENT) -> None:
    """Make a group, or change some of its limits.

    :param limits: fields of spec.Throttle; see :func:`qkvm.domain.device.disk.throttle.merged`.
    :raises InvalidValue: limits that exclude each other. :raises NotReached: QEMU has others afterwards.
    """
    together(
        domain,
        scope,
        lambda run, undo: _change_live(domain, run, name, limits, undo),
        lambda old: replace(old, throttle_groups=_with(old.throttle_groups, name, limits)),
    )


def _with(listed: Groups, name: str, limits: dict[str, int | str]) -> Groups:
    """Return the groups with one changed, or one more."""
    former = next((one for one in listed if one.group_name == name), None)
    group = throttle.merged(former, {**limits, "group_name": name}, f"throttle group '{printable(name)}'")
    if former is None:
        return (*listed, group)
    return tuple(group if one.group_name == name else one for one in listed)


def _change_live(domain: Handle, run: Run, name: str, limits: dict[str, int | str], undo: Undo) -> None:
    listed = _with(_live(run), name, limits)
    spec.check_throttle_groups(listed)
    wanted = disks.throttle_group_object(_named(listed, name))
    # Recorded before it is made; an entry without a group in QEMU does no harm.
    tuned.remember_list(run, "throttle_groups", listed, undo)
    path = f"/objects/{wanted['id']}"
    with domain.monitor() as session:
        if wanted["id"] in {child["name"] for child in session.execute("qom-list", {"path": "/objects"})}:
            commands.put(session, path, "limits", wanted["limits"])
        else:
            session.execute("object-add", wanted)
        reached = commands.get(session, path, "limits")
    if reached != wanted["limits"]:
        raise NotReached(
            f"QEMU shows other limits of throttle group {name} than were set",
            asked=wanted["limits"],
            reached=reached,
        )


def remove(domain: Handle, name: str, *, scope: Scope = Scope.CURRENT) -> None:
    """Remove a group from the running guest, the definition, or both.

    :raises NotFound: there is none of that name. :raises InvalidState: a disk is in it.
    """
    together(
        domain,
        scope,
        lambda run, undo: _remove_live(domain, run, name, undo),
        lambda old: replace(old, throttle_groups=_without(old.throttle_groups, name, old.disks)),
    )


def _without(listed: Groups, name: str, users: Iterable[spec.Disk]) -> Groups:
    group = _named(listed, name)
    for disk in users:
        if name in disk.throttle_groups:
            raise InvalidState(f"throttle group '{name}' is still being used by disk '{disk.target}'")
    return tuple(one for one in listed if one is not group)


def _remove_live(domain: Handle, run: Run, name: str, undo: Undo) -> None:
    present = actual.definition(run)
    listed = _without(present.throttle_groups, name, present.disks)
    with domain.monitor() as session:
        try:
            session.execute("object-del", {"id": disks.throttle_group_id(name)})
        except CommandRefused as error:
            # A disk that the guest has not released yet is not in the present definition.
            if "in use" in error.desc:
                raise InvalidState(
                    f"throttle group '{name}' is still being used by a disk that is being unplugged"
                ) from error
            if "not found" not in error.desc:
                raise
    tuned.remember_list(run, "throttle_groups", listed, undo)


def _live(run: Run) -> Groups:
    return tuned.listed(run, "throttle_groups", spec.Throttle)


def _named(listed: Groups, name: str) -> spec.Throttle:
    for group in listed:
        if group.group_name == name:
            return group
    raise NotFound(
        f"throttle group '{printable(name)}' was not found",
        kind="throttle group",
        name=name,
        hint="domthrottlegrouplist shows them",
    )
