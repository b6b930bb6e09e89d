"""A pool of type logical: an LVM volume group, and its logical volumes, which are block devices.

Only the pool's own group is ever changed. An unfinished volume has its token as a tag from the start, so that
leftovers of killed or failed processes can be recognised.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from qkvm.errors import AlreadyExists, HostError, InvalidState, InvalidValue, NotFound
from qkvm.files import Undo, closing_fd, os_error
from qkvm.storage.pool import content, lvm, unfinished, vacancy
from qkvm.storage.pool.backend import Backend, Space, VolumeInfo, not_found, shrinks
from qkvm.units import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from qkvm.paths import Tree
    from qkvm.spec import pool as spec
    from qkvm.spec.libvirt.pool import Told


_DEVICE_NAME_MAX = 127
"""Longest name of a mapped device: DM_NAME_LEN of linux/dm-ioctl.h, less its NUL."""


class Logical(Backend):
    """The volume group of a pool."""

    __slots__ = ("_seen",)

    def __init__(self, tree: Tree, definition: spec.Pool) -> None:
        super().__init__(tree, definition)
        self._seen: lvm.Group | None = None

    @property
    def group(self) -> str:
        """The group's name."""
        return self.definition.volume_group

    # The pool.

    def present(self, *, started: bool) -> bool:
        """Whether it exists and, where it was not started, whether its volumes are active.

        The folder of its volumes' links tells that without running a program.
        """
        if os.path.isdir(self.definition.path):
            return True
        try:
            self._seen = lvm.find_group(self.group)
            if self._seen is None:
                return False
            return started or not lvm.volumes(self.group)
        except HostError:
            return False

    def space(self) -> Space:
        """Return the size of its extents, and the free ones."""
        found = self._seen or self._group()
        return Space(found.size, found.free)

    def owner(self) -> None:
        """Return None: a volume group has no owner."""

    def build(self, *, overwrite: bool = False) -> None:
        """Make the group on its devices, which must be empty; ``overwrite`` clears them.

        :raises AlreadyExists: the group exists. :raises HostError: a device is in use, or carries data.
        """
        devices = self.definition.devices
        if not devices:
            raise InvalidValue(f"pool '{self.definition.name}' names no devices", hint="--source-dev /dev/sdX")
        if lvm.find_group(self.group) is not None:
            raise AlreadyExists(f"volume group '{self.group}' exists already", hint="pool-start uses it as it is")
        real = vacancy.check(devices, overwrite=overwrite)
        owners = {_number(device): group for device, group in lvm.labelled().items() if group}
        for node in (node for device in real for node in vacancy.nodes(device)):
            if _number(node) in owners:
                raise HostError(
                    f"device {node} is part of volume group '{owners[_number(node)]}'", hint="vgreduce, vgremove"
                )
        if overwrite:
            for device in real:
                vacancy.clear(device)
        with Undo() as undo:
            undo.add(_forget, real)
            lvm.create_group(self.group, real)
            undo.commit()

    def start(self) -> None:
        """Activate its volumes. :raises HostError: it does not exist, or is on none of the pool's devices."""
        found = self._group()
        wanted = {os.path.realpath(device) for device in self.definition.devices}
        if wanted and not wanted & {os.path.realpath(device) for device in found.devices}:
            hint = f"it lies on {', '.join(found.devices)}"
            words = f"cannot find any matching source devices for logical volume group '{self.group}'"
            raise HostError(words, hint=hint)
        lvm.activate(self.group, True)

    def stop(self) -> None:
        """Deactivate its volumes, if it exists. :raises HostError: one is in use."""
        try:
            lvm.activate(self.group, False)
        except HostError:
            if lvm.find_group(self.group) is not None:
                raise

    def delete(self) -> None:
        """Remove the group, which must be empty, and LVM's labels on its devices."""
        found = self._group()
        kept = [volume.name for volume in lvm.volumes(self.group)]
        if kept:
            words = f"volume group '{self.group}' is not empty: it has volume '{kept[0]}'"
            raise InvalidState(words, hint="vol-delete, lvremove")
        lvm.remove_group(self.group)
        for device in found.devices:
            lvm.forget(device)

    def sweep(self) -> None:
        """Remove unfinished volumes whose makers are gone, if they are of this root."""
        self._swept()

    def _swept(self) -> list[lvm.LogicalVolume]:
        """Sweep; return the volumes that are left, also unfinished ones."""
        listed = lvm.volumes(self.group)
        tagged = {tag: volume for volume in listed for tag in volume.tags}
        for token in unfinished.abandoned(self.tree, tagged):
            lvm.remove_volume(self.group, tagged[token].name)
            listed.remove(tagged[token])
        return listed

    # Its volumes.

    def volumes(self) -> list[VolumeInfo]:
        """Return its usable volumes, without inactive ones and thin pools."""
        return [self._told(volume) for volume in _usable(lvm.volumes(self.group))]

    def has(self, name: str) -> bool:
        """Whether the kernel has the block device of a volume of that name; no program is run."""
        try:
            return lvm.mapped_name(os.stat(self._path(name))) == lvm.name_of_mapping(self.group, name)
        except OSError:
            return False

    def info(self, name: str) -> VolumeInfo | None:
        """Return what vol-info shows."""
        return next((info for info in self.volumes() if info.name == name), None)

    def told(self, name: str) -> Told:
        """Return what libvirt's XML says of a volume."""
        from qkvm.spec.libvirt.pool import Owner, Told

        volume = self._find(name)
        with self.opened(name) as fd:
            entry = os.fstat(fd)
        info = self._told(volume)._replace(format="")
        backing = volume.origin if volume.is_snapshot and not volume.origin.startswith("[") else ""
        return Told(
            **info._asdict(),
            owner=Owner(entry.st_mode, entry.st_uid, entry.st_gid),
            atime=entry.st_atime_ns,
            mtime=entry.st_mtime_ns,
            ctime=entry.st_ctime_ns,
            backing=self._path(backing) if backing else "",
            extents=volume.extents,
        )

    def snapshots(self, name: str) -> list[str]:
        """Return the volumes that are snapshots of one."""
        return _snapshots(lvm.volumes(self.group), name)

    @contextmanager
    def opened(self, name: str, *, write: bool = False) -> Iterator[int]:
        """Open the block device of the volume for a block, wherever its links lead."""
        path, mode = self._path(name), os.O_RDWR if write else os.O_RDONLY
        try:
            fd = os.open(os.path.realpath(path), mode | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            raise not_found(name) from None
        except OSError as error:
            raise os_error(error, f"cannot open volume '{name}'") from error
        with closing_fd(fd):
            if lvm.mapped_name(os.fstat(fd)) != lvm.name_of_mapping(self.group, name):
                raise HostError(f"{path} does not lead to volume '{name}'", hint="udevadm settle; vgmknodes")
            yield fd

    @contextmanager
    def new(self, wanted: spec.Volume) -> Iterator[int]:
        """Make a fully allocated volume and open it for a block; it is removed if the block fails."""
        from msgspec.structs import replace

        with self._made(replace(wanted, allocation=None)) as fd:
            yield fd

    def create(self, wanted: spec.Volume, *, preallocate: bool = False) -> None:
        """Make a volume: sparse if its allocation is less than its capacity, a snapshot if it has a backing."""
        if preallocate:
            raise InvalidValue("metadata preallocation only available with qcow2")
        with self._made(wanted):
            pass

    @contextmanager
    def _made(self, wanted: spec.Volume) -> Iterator[int]:
        """Make a volume and open it for a block; it is removed if the block fails."""
        _check_length(self.group, wanted.name)
        listed = self._swept()
        if any(volume.name == wanted.name for volume in listed):
            raise AlreadyExists(f"storage volume '{wanted.name}' already exists")
        token = unfinished.new_token(self.tree)
        with unfinished.held(self.tree, token), Undo() as undo:
            undo.add(self._discard, token)
            self._make(wanted, token, listed)
            with self.opened(wanted.name, write=True) as fd:
                # Until it is complete, no guest and no other qkvm may write to it.
                content.claim(fd, wanted.name)
                yield fd
                os.fchown(fd, wanted.owner, wanted.group)
                os.fchmod(fd, int(wanted.mode, 8))
                os.fsync(fd)
            lvm.untag(self.group, wanted.name, token)
            undo.commit()

    def _make(self, wanted: spec.Volume, token: str, listed: list[lvm.LogicalVolume]) -> None:
        taken = wanted.allocation
        if wanted.backing:
            origin = self._origin(wanted.backing, listed)
            if taken is not None and -(-origin.capacity // 1024) != wanted.capacity:
                raise InvalidValue(
                    f"a snapshot of '{origin.name}' has the capacity of that: {origin.capacity} bytes",
                    hint="the allocation is its room for changes; without one the capacity is that",
                )
            room = wanted.capacity if taken is None else taken
            lvm.create_volume(self.group, wanted.name, max(room, 1), origin=origin.name, tag=token)
        elif taken is not None and taken < wanted.capacity:
            lvm.create_volume(self.group, wanted.name, max(taken, 1), virtual_kib=wanted.capacity, tag=token)
        else:
            lvm.create_volume(self.group, wanted.name, wanted.capacity, tag=token)

    def _origin(self, path: str, listed: list[lvm.LogicalVolume]) -> lvm.LogicalVolume:
        """Return the volume that a snapshot is to be of."""
        for volume in _usable(listed):
            if self._path(volume.name) == path:
                if volume.is_snapshot:
                    raise InvalidValue(f"volume '{volume.name}' is a snapshot or sparse, of which LVM makes none")
                return volume
        raise InvalidValue(
            f"backing volume '{printable(path)}' is none of volume group '{self.group}'",
            hint="a snapshot is of a volume of its own group",
        )

    def _discard(self, token: str) -> None:
        for volume in lvm.volumes(self.group):
            if token in volume.tags:
                lvm.remove_volume(self.group, volume.name)

    def remove(self, name: str, *, snapshots: bool = False) -> None:
        """Remove a volume, with its snapshots if ``snapshots`` allows that.

        :raises InvalidState: it has snapshots. :raises HostError: it is in use.
        """
        listed = lvm.volumes(self.group)
        kept = _snapshots(listed, _named(listed, name).name)
        if kept and not snapshots:
            raise InvalidState(
                f"volume '{name}' has snapshots: {', '.join(kept)}", hint="--delete-snapshots removes them, too"
            )
        with self.opened(name, write=True) as fd:
            # This finds a guest that has it open; LVM finds the kernel's uses.
            content.claim(fd, name)
        lvm.remove_volume(self.group, name)

    def resize(
        self,
        name: str,
        size: int,
        *,
        fmt: str,
        capacity_of: Callable[[str], int],
        shrink: bool = False,
        allocate: bool = False,
    ) -> None:
        """Give a volume more extents or fewer; they are always allocated."""
        listed = lvm.volumes(self.group)
        volume, kept = _named(listed, name), _snapshots(listed, name)
        if volume.is_snapshot:
            raise InvalidState(
                f"volume '{name}' is sparse or a snapshot: its capacity is what it was made with",
                hint=f"room for changes: lvextend --size +1G {self.group}/{name}",
            )
        if kept:
            raise InvalidState(f"volume '{name}' has snapshots, which need it as it is: {', '.join(kept)}")
        wanted = -(-size // volume.unit) * volume.unit
        if wanted < volume.size and not shrink:
            raise shrinks(volume.size)
        if wanted != volume.size:
            lvm.resize_volume(self.group, name, wanted, shrink=wanted < volume.size)

    def wipe(self, name: str) -> None:
        """Overwrite a volume with zeros.

        :raises InvalidState: it is sparse or a snapshot, and would become full.
        """
        if self._find(name).is_snapshot:
            raise InvalidState(f"logical volume '{name}' is sparse, volume wipe not supported")
        super().wipe(name)

    def _group(self) -> lvm.Group:
        found = lvm.find_group(self.group)
        if found is None:
            words = f"cannot find logical volume group name '{self.group}'"
            raise NotFound(words, kind="volume group", name=self.group, hint="pool-build makes it")
        return found

    def _find(self, name: str) -> lvm.LogicalVolume:
        return _named(lvm.volumes(self.group), name)

    def _told(self, volume: lvm.LogicalVolume) -> VolumeInfo:
        size = volume.capacity
        path = self._path(volume.name)
        return VolumeInfo(volume.name, path, volume.uuid, "block", "raw", size, volume.size, size)

    def _path(self, name: str) -> str:
        return os.path.join(self.definition.path, name)


def _usable(listed: list[lvm.LogicalVolume]) -> list[lvm.LogicalVolume]:
    """Return the complete volumes that hold bytes."""
    return [
        volume
        for volume in listed
        if volume.active
        and not volume.is_thin_pool
        and not any(tag.startswith(unfinished.PREFIX) for tag in volume.tags)
    ]


def _named(listed: list[lvm.LogicalVolume], name: str) -> lvm.LogicalVolume:
    for volume in _usable(listed):
        if volume.name == name:
            return volume
    raise not_found(name)


def _snapshots(listed: list[lvm.LogicalVolume], name: str) -> list[str]:
    return [volume.name for volume in listed if volume.origin == name and volume.is_snapshot]


def _check_length(group: str, name: str) -> None:
    """Refuse names whose combination is too long for the kernel; hyphens count twice (dm-ioctl.h)."""
    length = len(lvm.name_of_mapping(group, name))
    if length > _DEVICE_NAME_MAX:
        raise InvalidValue(
            f"the names of volume group and volume are too long together: {length} of {_DEVICE_NAME_MAX} bytes",
            hint="hyphens count twice",
        )


def _number(device: str) -> int:
    """Return the number of a block device, 0 where it is gone."""
    try:
        return os.stat(device).st_rdev
    except OSError:
        return 0


def _forget(devices: tuple[str, ...]) -> None:
    """Remove LVM's labels from devices that are in no group."""
    for device, group in lvm.labelled().items():
        if not group and _number(device) in {_number(one) for one in devices}:
            lvm.forget(device)
