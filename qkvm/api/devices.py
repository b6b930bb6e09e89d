"""A domain's devices: NICs, disks and the jobs on them, shared folders; `qkvm.Domain` provides these nouns."""

from __future__ import annotations

from qkvm.api.verb import Noun, lazily, part, verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.domain.block import copy, disk, job, merge
    from qkvm.domain.device import attach
    from qkvm.domain.device.disk import media, throttle, throttlegroup
    from qkvm.domain.device.disk import plug as diskplug
    from qkvm.domain.device.nic import plug as nicplug
    from qkvm.domain.device.nic import status, tune, update
    from qkvm.domain.device.share import plug as shareplug
else:
    copy, disk, job, merge = lazily("qkvm.domain.block", "copy", "disk", "job", "merge")
    (attach,) = lazily("qkvm.domain.device", "attach")
    media, throttle, throttlegroup, diskplug = lazily(
        "qkvm.domain.device.disk", "media", "throttle", "throttlegroup", "plug"
    )
    nicplug, status, tune, update = lazily("qkvm.domain.device.nic", "plug", "status", "tune", "update")
    (shareplug,) = lazily("qkvm.domain.device.share", "plug")


class Devices(Noun):
    """Devices described in XML or TOML (virsh attach-device)."""

    __slots__ = ()
    attach = verb(lambda: attach.attach)
    detach = verb(lambda: attach.detach)
    detach_alias = verb(lambda: attach.detach_alias)
    update = verb(lambda: attach.update)


class Nics(Noun):
    """A domain's NICs (virsh domiflist, attach-interface)."""

    __slots__ = ()
    all = verb(lambda: status.interfaces)
    attach = verb(lambda: nicplug.attach)
    detach = verb(lambda: nicplug.detach)
    update = verb(lambda: update.update)
    free_slots = verb(lambda: status.free_slots)
    counters = verb(lambda: status.counters)
    set_link = verb(lambda: update.set_link)
    limits = verb(lambda: tune.limits)
    set_limits = verb(lambda: tune.set_limits)


class Disks(Noun):
    """A domain's disks (virsh domblklist, attach-disk)."""

    __slots__ = ()
    all = verb(lambda: disk.disks)
    find = verb(lambda: disk.find)
    attach = verb(lambda: diskplug.attach)
    detach = verb(lambda: diskplug.detach)
    change_media = verb(lambda: media.change)
    counters = verb(lambda: throttle.counters)
    sizes = verb(lambda: throttle.sizes)
    errors = verb(lambda: throttle.errors)
    resize = verb(lambda: throttle.resize)
    set_threshold = verb(lambda: throttle.set_threshold)
    throttle = verb(lambda: throttle.throttle)
    set_throttle = verb(lambda: throttle.set_throttle)
    copy = verb(lambda: copy.copy)
    commit = verb(lambda: merge.commit)
    pull = verb(lambda: merge.pull)
    jobs = part(lambda: BlockJobs)
    groups = part(lambda: ThrottleGroups)


class BlockJobs(Noun):
    """Running copy, commit and pull jobs (virsh blockjob)."""

    __slots__ = ()
    info = verb(lambda: job.info)
    of = verb(lambda: job.of)
    wait = verb(lambda: job.wait)
    set_speed = verb(lambda: job.set_speed)
    pivot = verb(lambda: job.pivot)
    abort = verb(lambda: job.abort)


class ThrottleGroups(Noun):
    """Limits that several disks share (virsh domthrottlegroupset)."""

    __slots__ = ()
    all = verb(lambda: throttlegroup.groups)
    find = verb(lambda: throttlegroup.find)
    change = verb(lambda: throttlegroup.change)
    remove = verb(lambda: throttlegroup.remove)


class Shares(Noun):
    """Folders of the host that the guest can mount (virsh attach-device with a filesystem)."""

    __slots__ = ()
    attach = verb(lambda: shareplug.attach)
    detach = verb(lambda: shareplug.detach)
