"""A domain and the verbs on it. Its nouns have the verbs on its parts: ``vm.snapshots.create("before")``."""

from __future__ import annotations

from qkvm.api.verb import lazily, part, verb
from qkvm.domain.handle import Handle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from qkvm.api import devices as plugged
    from qkvm.api import guest as guests
    from qkvm.api import snapshots as kept
    from qkvm.api import tuning
    from qkvm.domain.launch import preview
    from qkvm.domain.life import actions, autostart, job, start, stop
    from qkvm.domain.manage import delete, describe, rename, undefine, xml
    from qkvm.domain.state import dump, save, saved
    from qkvm.domain.state.copy import clone, freeze
    from qkvm.domain.watch import address, control, dirtyrate, doctor, wait
    from qkvm.domain.watch.events import Event
else:
    plugged, guests, kept, tuning = lazily("qkvm.api", "devices", "guest", "snapshots", "tuning")
    clone, freeze = lazily("qkvm.domain.state.copy", "clone", "freeze")
    (preview,) = lazily("qkvm.domain.launch", "preview")
    actions, autostart, job, start, stop = lazily(
        "qkvm.domain.life", "actions", "autostart", "job", "start", "stop"
    )
    delete, describe, rename, undefine, xml = lazily(
        "qkvm.domain.manage", "delete", "describe", "rename", "undefine", "xml"
    )
    dump, save, saved = lazily("qkvm.domain.state", "dump", "save", "saved")
    address, control, dirtyrate, doctor, wait = lazily(
        "qkvm.domain.watch", "address", "control", "dirtyrate", "doctor", "wait"
    )


class Domain(Handle):
    """One domain of a tree. It caches nothing that another process could change."""

    start = verb(lambda: start.start)
    shutdown = verb(lambda: stop.shutdown)
    reboot = verb(lambda: stop.reboot)
    reset = verb(lambda: stop.reset)
    destroy = verb(lambda: stop.destroy)
    suspend = verb(lambda: stop.suspend)
    resume = verb(lambda: stop.resume)
    set_autostart = verb(lambda: autostart.set_autostart)
    set_action = verb(lambda: actions.set_action)

    save = verb(lambda: save.save)
    managed_save = verb(lambda: save.managed_save)
    remove_managed_save = verb(lambda: save.remove_managed_save)
    change_managed_save = verb(lambda: saved.change_managed)
    dump = verb(lambda: dump.dump)
    job_info = verb(lambda: job.info)
    completed_job = verb(lambda: job.completed)
    abort_job = verb(lambda: job.abort)

    xml = verb(lambda: xml.dump)
    plain = verb(lambda: xml.plain)
    command_line = verb(lambda: preview.command_line)
    set_title = verb(lambda: describe.set_title)
    set_description = verb(lambda: describe.set_description)
    metadata = verb(lambda: describe.get_metadata)
    set_metadata = verb(lambda: describe.set_metadata)
    rename = verb(lambda: rename.rename)
    clone_plan = verb(lambda: clone.plan)
    make_template = verb(lambda: freeze.create)
    undefine = verb(lambda: undefine.undefine)
    belongings = verb(lambda: delete.belongings)
    delete = verb(lambda: delete.delete)

    addresses = verb(lambda: address.addresses)
    wait_for_addresses = verb(lambda: address.wait)
    wait = verb(lambda: wait.wait)
    examine = verb(lambda: doctor.examine)
    control = verb(lambda: control.state)
    dirty_rate = verb(lambda: dirtyrate.calculate)

    devices = part(lambda: plugged.Devices)
    nics = part(lambda: plugged.Nics)
    disks = part(lambda: plugged.Disks)
    shares = part(lambda: plugged.Shares)
    vcpus = part(lambda: tuning.Vcpus)
    memory = part(lambda: tuning.Memory)
    iothreads = part(lambda: tuning.IoThreads)
    blockio = part(lambda: tuning.BlockIo)
    guest = part(lambda: guests.Guest)
    screen = part(lambda: guests.Screen)
    console = part(lambda: guests.Console)
    qemu = part(lambda: guests.Monitor)
    snapshots = part(lambda: kept.Snapshots)
    checkpoints = part(lambda: kept.Checkpoints)
    backup = part(lambda: kept.Backup)

    def events(self, *, timeout: float | None = None) -> Iterator[Event]:
        """Yield the domain's events from now on, until ``timeout`` seconds have passed (virsh event)."""
        from qkvm.domain.watch import events

        return events.watch(self.tree, domain=self.name, timeout=timeout)
