"""What the methods of the handles take by keyword; each class is one method's, or a part of several.

For type checkers alone: at run time nobody imports it. What an option means is said where the work is done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Required, TypedDict

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qkvm.domain.manage.ownstorage import Wanted
    from qkvm.scope import Scope
    from qkvm.spec import domain as spec
    from qkvm.spec.snapshot import SnapshotDisk


class Scoped(TypedDict, total=False):
    """Which of the two a change is for: the running guest, the definition."""

    scope: Scope


class Patience(TypedDict, total=False):
    """Whether the guest is waited for, and how many seconds."""

    timeout: float
    wait: bool


class Unplugging(Scoped, Patience, total=False):
    """Of detach_disk."""


class Start(TypedDict, total=False):
    """Of start."""

    paused: bool
    force_boot: bool
    bypass_cache: bool
    reset_nvram: bool


class ManagedSave(TypedDict, total=False):
    """Of managed_save; ``report`` is called with the bytes that remain, and all of them."""

    bypass_cache: bool
    running: bool | None
    report: Callable[[int, int], None] | None


class Save(ManagedSave, total=False):
    """Of save."""

    definition: spec.Domain | None
    image_format: str
    channels: int


class Dump(TypedDict, total=False):
    """Of dump."""

    memory_only: bool
    format: str
    crash: bool
    reset: bool
    live: bool
    bypass_cache: bool
    report: Callable[[int, int], None] | None


class Snapshot(TypedDict, total=False):
    """Of create_snapshot."""

    description: str
    memory: str
    memory_file: str
    disks: tuple[SnapshotDisk, ...]
    disk_only: bool
    metadata: bool
    halt: bool
    reuse: bool
    quiesce: bool


class Revert(TypedDict, total=False):
    """Of revert_to_snapshot."""

    running: bool | None
    force: bool
    reset_nvram: bool


class DeleteSnapshot(TypedDict, total=False):
    """Of delete_snapshot."""

    children: bool
    children_only: bool
    metadata: bool


class Xml(TypedDict, total=False):
    """Of xml."""

    inactive: bool
    secret: bool
    migratable: bool


class Undefine(TypedDict, total=False):
    """Of undefine."""

    managed_save: bool
    snapshots_metadata: bool
    checkpoints_metadata: bool
    nvram: bool | None
    keep_tpm: bool
    storage: Wanted | None


class Vcpus(Scoped, Patience, total=False):
    """Of set_vcpus."""

    maximum: bool
    hotpluggable: bool


class Memory(Scoped, Patience, total=False):
    """Of set_memory."""


class Bandwidth(TypedDict, total=False):
    """The most that a guest receives, and sends."""

    inbound: spec.Bandwidth | None
    outbound: spec.Bandwidth | None


class AttachInterface(Scoped, Bandwidth, total=False):
    """Of attach_interface."""

    type: str
    source: str
    model: str
    mac: str
    target: str
    alias: str
    source_mode: str


class DetachInterface(Unplugging, total=False):
    """Of detach_interface."""

    type: Required[str]
    mac: str


class ChangeMedia(Scoped, total=False):
    """Of change_media."""

    action: str
    force: bool
    timeout: float


class Addresses(TypedDict, total=False):
    """Of addresses."""

    sources: Sequence[str]


class Agent(TypedDict, total=False):
    """Of agent."""

    patience: float
    timeout: int | None
    within: float | None


class Create(TypedDict, total=False):
    """Of Host.create."""

    paused: bool
    reset_nvram: bool
    left_out: list[str] | None


class Restore(TypedDict, total=False):
    """Of Host.restore."""

    bypass_cache: bool
    definition: spec.Domain | None
    running: bool | None
    reset_nvram: bool
    channels: int


class Statistics(TypedDict, total=False):
    """Of Host.statistics."""

    backing: bool
    nowait: bool
    enforce: bool
