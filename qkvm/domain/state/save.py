"""Save a running guest to a file and end its QEMU: virsh's save and managedsave.

Whatever happens on the way, the guest runs on or is saved. The record says how far it has come, for the next
verb after this process was killed (job.recover).
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
"""States of QEMU in which a guest can be saved, and what it is restored into; prelaunch is start --paused."""

_CHANNELS = 255
"""multifd-channels of qapi/migration.json is a number of eight bits."""

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

    :param image_format: how the state lies in it, one of savefile.FORMATS. :param channels: how many threads write
        a sparse one; 0 is one.

    :param definition: what it is to be when it is restored; what the guest sees must stay.
    :param running: whether it is to run when it is restored; None: as now.
    :param report: called now and then with the bytes that remain and the bytes in all.
    :raises Aborted: it was canceled. :raises HostError: the file can't be written. The guest goes on then.
    """
    path = units.check_path(os.path.abspath(path), "file")
    check_channels(image_format, channels, bypass_cache=bypass_cache)
    with domain.lock():
        _save(
            domain, path, bypass_cache=bypass_cache, definition=definition, running=running,
            image_format=image_format, channels=channels, report=report,
        )  # fmt: skip


def check_channels(image_format: str, channels: int, *, bypass_cache: bool) -> None:
    """Refuse what only sparse files can, and what they can't.

    :raises InvalidValue: saying which.
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
    """Save the guest's state to where the next start takes it up (virsh managedsave); as :func:`save`."""
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
    """The name of a managed save whose guest has been handed on to QEMU, and is about to run."""
    return f"{path}.used"


def remove_managed_save(domain: Handle) -> bool:
    """Throw the saved state away (virsh managedsave-remove); False where there was none."""
    with domain.lock():
        settle(domain.tree, domain.name)
        return discard_managed_save(domain)


def discard_managed_save(domain: Handle) -> bool:
    """As :func:`remove_managed_save`; call it under the domain's lock."""
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
    """Whether it is to run or be paused when it is restored.

    :raises InvalidState: QEMU can't save it as it is.
    """
    status = str(session.execute("query-status")["status"])
    if status not in _SAVABLE:
        raise InvalidState(f"a guest that is {status} can't be saved", hint=_HINTS.get(status, ""))
    return _SAVABLE[status]


def pinned(run: Run, session: Session) -> spec.Domain:
    """What a live domain is now, with what it leaves open (machine version, accelerator) as it was chosen."""
    present = actual.definition(run)
    machine = str(session.execute("qom-get", {"path": "/machine", "property": "type"}))
    _, version = spec.Machine.parse(machine.removesuffix("-machine"))
    return replace(present, machine_version=version, accel=spec.Accel(run.record["accel"]))


def kept(run: Run) -> dict[str, Any]:
    """Ids and places of the devices of a run, as a plain form of :class:`qkvm.qemu.launch.Kept`."""
    plugged = [entry for kind in ("controllers", "disks", "nics", "filesystems") for entry in run.devices(kind)]
    shares = [entry["id"] for entry in run.devices("filesystems")]
    return {
        "nics": [entry["id"] for entry in run.devices("nics")],
        "places": {entry["id"]: entry["place"] for entry in plugged},
        **({"filesystems": shares} if shares else {}),
    }


def vcpus_in_order(run: Run) -> bool:
    """Whether the vCPUs that are plugged are those that a start of as many would have."""
    started = definitions.started_with(run.record)
    present = {entry["id"] for entry in run.devices("vcpus")}
    numbers = range(1, len(present) + 1)
    return present == {devices.vcpu_device(started, run.record["accel"], number).id for number in numbers}


def _take_back(run: Run, session: Session, stream: StreamWriter, error: BaseException, *, go_on: bool) -> None:
    """Undo a save: the guest goes on, and nothing of the file stays."""
    try:
        stream.discard()
        # A file that got its name although the folder could not be synced must not be restored beside the guest.
        if run.record["job"].get("phase") == "named" and _is_named(stream.path, run.record["job"]["token"]):
            files.remove(stream.path)
        if run.pid is not None and go_on:
            migration.go_on(run, session)
            run.mark_resumed("save canceled")
    except (MonitorError, HostError) as failure:
        error.add_note(f"while undoing: {failure}")
    jobs.end(run, jobs.type_of(error))


def _is_named(path: str, token: str) -> bool:
    try:
        return bool(savefile.read(path).description.get("token") == token)
    except HostError:
        return False


def check_options(*, running: bool, paused: bool) -> bool | None:
    """--running and --paused as one answer. :raises InvalidValue: both."""
    if running and paused:
        raise InvalidValue("Options --running and --paused are mutually exclusive")
    return True if running else False if paused else None
