"""Save a running guest to a file and end its QEMU (virsh save, managedsave).

Whatever fails, the guest runs on or is saved: the record says how far the job has come, so that the next verb can
end it if this process is killed (life/job.py).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from qkvm import files, units
from qkvm.domain import definition as definitions
from qkvm.domain.device import actual
from qkvm.domain.launch.end import end
from qkvm.domain.run import settle
from qkvm.domain.state import job as jobs
from qkvm.domain.state import migration
from qkvm.errors import HostError, InvalidState, InvalidValue, MonitorError
from qkvm.qemu import devices
from qkvm.qmp import commands
from qkvm.spec import domain as spec
from qkvm.spec import stability, toml
from qkvm.storage import savefile

if TYPE_CHECKING:
    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run
    from qkvm.domain.state.migration import Report
    from qkvm.qmp.session import Session
    from qkvm.storage.stream import StreamWriter

_SAVABLE = {
    "running": "running", "paused": "paused", "prelaunch": "paused", "io-error": "paused", "watchdog": "paused",
}  # fmt: skip
"""QEMU's states in which a guest can be saved -> the state it is restored to; prelaunch is start --paused."""

_CHANNELS = 255
"""QMP's multifd-channels has eight bits."""

_HINTS = {
    "suspended": "qkvm dompmwakeup wakes it",
    "postmigrate": "it was paused while a save or dump ended, and must run for a moment: qkvm resume",
}


def save(
    domain: Handle,
    path: str,
    *,
    bypass_cache: bool = False,
    definition: spec.Domain | None = None,
    running: bool | None = None,
    image_format: str = "raw",
    channels: int = 0,
    report: Report | None = None,
) -> None:
    """Save the guest's state to a file and end its QEMU (virsh save).

    :param definition: the one to restore; the guest must see the same hardware. :param running: whether it runs
        when it is restored; None: as now. :param image_format: one of savefile.FORMATS.
    :param channels: how many threads write a sparse file; 0 is one.
    :param report: called now and then with the bytes that remain and the bytes in all.
    :raises Aborted: it was canceled. :raises HostError: the file can't be written. The guest runs on then.
    """
    path = units.check_path(os.path.abspath(path), "file")
    check_channels(image_format, channels, bypass_cache=bypass_cache)
    with domain.lock():
        _save(
            domain, path, bypass_cache=bypass_cache, definition=definition, running=running,
            image_format=image_format, channels=channels, report=report,
        )  # fmt: skip


def check_channels(image_format: str, channels: int, *, bypass_cache: bool) -> None:
    """Refuse options that do not fit the image format.

    :raises InvalidValue: naming the option.
    """
    if channels and image_format != "sparse":
        raise InvalidValue("parallel channels need the image format sparse", hint="save --image-format sparse")
    if channels > _CHANNELS:
        raise InvalidValue(f"{channels} parallel channels are too many", hint=f"{_CHANNELS} at most")
    if bypass_cache and image_format == "sparse":
        raise InvalidValue("--bypass-cache does not go with the image format sparse")


def managed_save(
    domain: Handle, *, bypass_cache: bool = False, running: bool | None = None, report: Report | None = None
) -> None:
    """Save the guest's state for the domain's next start (virsh managedsave); see :func:`save`."""
    with domain.lock():
        domain.live  # noqa: B018  raises where it does not run
        if not domain.is_persistent:
            raise InvalidState("cannot do managed save for transient domain", hint=f"qkvm save {domain.name} FILE")
        files.make_private_dir(domain.tree.saves)
        files.sweep(domain.tree.saves)
        path = domain.tree.managed_save(domain.name)
        _save(domain, path, bypass_cache=bypass_cache, running=running, report=report)
        files.remove(used_name(path))


def used_name(path: str) -> str:
    """Return the name that a managed save gets when QEMU has loaded it, before the guest runs."""
    return f"{path}.used"


def remove_managed_save(domain: Handle) -> bool:
    """Remove the managed save (virsh managedsave-remove); return whether there was one."""
    with domain.lock():
        settle(domain.tree, domain.name)
        return discard_managed_save(domain)


def discard_managed_save(domain: Handle) -> bool:
    """Remove the managed save, under the domain's lock; return whether there was one."""
    path = domain.tree.managed_save(domain.name)
    files.remove(used_name(path))
    present = os.path.lexists(path)
    files.remove(path)
    return present


def _save(
    domain: Handle,
    path: str,
    *,
    bypass_cache: bool,
    definition: spec.Domain | None = None,
    running: bool | None,
    image_format: str = "raw",
    channels: int = 0,
    report: Report | None,
) -> None:
    from qkvm.domain.block import job as blockjob
    from qkvm.domain.device.share import serve as share

    run = domain.live
    run.require_sound()
    blockjob.refuse_busy(run)
    with domain.monitor() as session:
        share.refuse_unsavable(run, session, "saved")
        state = savable(session)
        present = pinned(run, session)
        wanted = present if definition is None else stability.fitted(definition, present)
        token = units.random_uuid()
        description = {
            "name": domain.name, "uuid": present.uuid, "token": token,
            "state": state if running is None else "running" if running else "paused",
            "definition": toml.to_plain(wanted), "kept": kept(run),
            **({"format": image_format} if image_format != "raw" else {}),
        }  # fmt: skip
        stream = savefile.writer(path, bypass_cache=bypass_cache, format=image_format)
        jobs.begin(run, "Save", temporary=stream.temporary, path=path, token=token, goes_on=state == "running")
        try:
            if image_format == "sparse":
                migration.send_sparse(run, session, stream, channels=channels or 1, report=report)
            else:
                migration.send(run, session, stream, what="save", report=report)
            answer = session.execute("query-migrate")
            savefile.finish(stream, description)
            jobs.update(run, phase="named")
            stream.commit()
        except BaseException as error:
            _take_back(run, session, stream, error, go_on=state == "running")
            raise
    jobs.end(run, "Completed", answer, store=False)
    end(domain, run, "saved")


def savable(session: Session) -> str:
    """Return the state that the guest is restored to: 'running' or 'paused'.

    :raises InvalidState: QEMU can't save it in its present state.
    """
    status = commands.status(session)
    if status not in _SAVABLE:
        raise InvalidState(f"a guest that is {status} can't be saved", hint=_HINTS.get(status, ""))
    return _SAVABLE[status]


def pinned(run: Run, session: Session) -> spec.Domain:
    """Return a live domain's present definition with the machine version and accelerator that it runs with."""
    present = actual.definition(run)
    machine = str(commands.get(session, "/machine", "type"))
    _, version = spec.Machine.parse(machine.removesuffix("-machine"))
    return replace(present, machine_version=version, accel=spec.Accel(run.record["accel"]))


def kept(run: Run) -> dict[str, Any]:
    """Return ids and places of a run's devices: the plain form of :class:`qkvm.qemu.launch.Kept`."""
    plugged = [entry for kind in ("controllers", "disks", "nics", "filesystems") for entry in run.devices(kind)]
    shares = [entry["id"] for entry in run.devices("filesystems")]
    return {
        "nics": [entry["id"] for entry in run.devices("nics")],
        "places": {entry["id"]: entry["place"] for entry in plugged},
        **({"filesystems": shares} if shares else {}),
    }


def vcpus_in_order(run: Run) -> bool:
    """Return whether the plugged vCPUs are those that a start with the same number would have."""
    started = definitions.started_with(run.record)
    present = {entry["id"] for entry in run.devices("vcpus")}
    numbers = range(1, len(present) + 1)
    return present == {devices.vcpu_device(started, run.record["accel"], number).id for number in numbers}


def _take_back(run: Run, session: Session, stream: StreamWriter, error: BaseException, *, go_on: bool) -> None:
    """Undo a save: remove the file, and let the guest run on."""
    try:
        stream.discard()
        # The file may have got its name before the folder's sync failed; it must not be restored any more.
        job = run.record["job"]
        if job.get("phase") == "named" and savefile.has_token(stream.path, job["token"]):
            files.remove(stream.path)
        if run.pid is not None and go_on:
            migration.go_on(run, session)
            run.mark_resumed("save canceled")
    except (MonitorError, HostError) as failure:
        error.add_note(f"while undoing: {failure}")
    jobs.end(run, jobs.type_of(error))
