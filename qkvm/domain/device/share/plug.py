"""Give a running guest, or its definition, a folder of the host, and take it away again (attach-device …)."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from qkvm.domain import definition as definitions
from qkvm.domain import plug
from qkvm.domain.device import sidecar
from qkvm.domain.device.share import serve
from qkvm.domain.run import write
from qkvm.domain.tuning import place as placing
from qkvm.errors import AlreadyExists, InvalidState, InvalidValue, NotFound, NotReached
from qkvm.files import Undo
from qkvm.host import journal
from qkvm.qemu import render, shares, slots
from qkvm.scope import Scope
from qkvm.spec import domain as spec

if TYPE_CHECKING:
    from collections.abc import Callable

    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run
    from qkvm.qmp.session import Session


def attach(
    domain: Handle,
    share: spec.Filesystem,
    *,
    scope: Scope = Scope.CURRENT,
) -> None:
    """Share a folder with the running guest, the definition, or both; where one fails both are as before.

    :raises InvalidState: the share can't be plugged while it runs: 9p, or a guest whose memory is its own.
    """
    with domain.lock(), Undo() as undo:
        wanted = domain.resolve(scope)
        spec.check_filesystem(share)
        if wanted.config:
            definitions.change(
                domain, lambda present: replace(present, filesystems=(*present.filesystems, share)), undo
            )
        if wanted.live:
            _plug(domain, domain.live, share)
        undo.commit()


def _plug(domain: Handle, run: Run, share: spec.Filesystem) -> None:
    """The folder, its virtiofsd, the socket between that and QEMU, the device: all undone where one fails."""
    started = definitions.started_with(run.record)
    (share,) = serve.decided(replace(started, filesystems=(share,))).filesystems
    with domain.monitor() as session, Undo() as undo, ExitStack() as opened:
        _sweep(run, session)
        _refuse_unpluggable(run, started, share)
        serve.check_one(domain.tree, share, as_root=False)
        place = plug.place(run, share.address)
        ident = share.alias or slots.next_id("fs", [entry["id"] for entry in run.record["filesystems"]])
        if ident in plug.peripherals(session):
            raise AlreadyExists(f"there is a device of alias {ident}")
        held = serve.hold(domain.tree, run, share, ident, None, opened)
        device = shares.share_device(started.machine, share, ident, place, held.qemu)
        entry = serve.entry(device, since=journal.size(run.journal))
        run.record["filesystems"].append(entry)
        undo.add(_forget, run, entry)
        write(run)
        serve.serve(domain.tree, run, held, placing.present(run, started))
        _connect(session, device.backend, held.qemu, undo)
        opened.close()
        options = render.render("parts/share.j2", {"share": device}, own=domain.tree.templates)
        for command, arguments in render.hotplug_commands(options):
            session.execute(command, arguments)
        if ident not in plug.peripherals(session):
            raise NotReached(
                f"QEMU took filesystem {share.target} but does not show it", asked=ident, reached=None
            )
        undo.commit()


def _refuse_unpluggable(run: Run, started: spec.Domain, share: spec.Filesystem) -> None:
    """:raises InvalidState: this share can't come to this guest while it runs; says why."""
    if not started.machine.hotplugs_pci:
        raise InvalidState(f"machine {started.machine} can't plug devices while it runs")
    run.require_sound()
    if share.driver is spec.FilesystemDriver.NINEP:
        raise InvalidState(
            "a filesystem by 9p can't be attached to a running domain: QEMU takes one at its start only",
            hint="--config shares it from the next start on; driver virtiofs can be attached",
        )
    if any(entry["target"] == share.target for entry in run.devices("filesystems")):
        raise InvalidValue(f"filesystem tag '{share.target}' is used twice in one domain")
    backing = started.memory_backing
    if not backing.shared or (backing.source is spec.MemorySource.ANONYMOUS and not backing.hugepages):
        raise InvalidState(
            "virtiofs needs a guest whose memory is shared, and this one was started with memory of its own",
            hint='memory_backing = { source = "memfd", shared = true } and a new start, or --config now',
        )


def _connect(session: Session, backend: str, fd: int, undo: Undo) -> None:
    """Give QEMU the connected socket as a chardev (chardev-add)."""
    name = f"fd-{backend}"
    session.send_fd(name, fd)
    undo.add(plug.quietly, session, "closefd", {"fdname": name})
    address = {"type": "fd", "data": {"str": name}}
    session.execute(
        "chardev-add",
        {"id": backend, "backend": {"type": "socket", "data": {"addr": address, "server": False}}},
    )
    undo.add(plug.quietly, session, "chardev-remove", {"id": backend})


def _forget(run: Run, entry: dict[str, Any]) -> None:
    """Take a share out of the record, and see its virtiofsd end, whose QEMU has hung up."""
    sidecar.end_one(run, serve.name_of(entry["id"]))
    run.record["filesystems"] = [other for other in run.record["filesystems"] if other["id"] != entry["id"]]
    write(run)


def _sweep(run: Run, session: Session) -> None:
    """Hang up on the virtiofsd of shares that a guest released after nobody waited any more.

    Those too that who was to plug them, and was killed, has left in the record.
    """
    if not run.record["filesystems"]:
        return
    present = {entry["id"] for entry in run.devices("filesystems")} & plug.peripherals(session)
    for entry in list(run.record["filesystems"]):
        if entry["id"] not in present:
            plug.quietly(session, "chardev-remove", {"id": f"chr-{entry['id']}"})
            _forget(run, entry)


def detach(
    domain: Handle,
    choose: Callable[[list[dict[str, Any]]], dict[str, Any]],
    *,
    scope: Scope = Scope.CURRENT,
    timeout: float = plug.TIMEOUT,
    wait: bool = True,
) -> None:
    """Take a share from the running guest, the definition, or both; where one fails both are as before.

    :param choose: picks one of entries that have target, source, alias and address, or raises that there is none.
    :raises NotReached: the guest did not release it within ``timeout`` seconds; it goes on being served.
    """
    with domain.lock(), Undo() as undo:
        wanted = domain.resolve(scope)
        run = domain.live if wanted.live else None
        if run is not None:
            with domain.monitor() as session:
                _sweep(run, session)
        entry = choose([_listed(one) for one in run.devices("filesystems")]) if run is not None else None
        if wanted.config:
            stored = choose([_told(share) for share in domain.definition.filesystems])["target"]
            definitions.change(domain, lambda present: _without(present, stored), undo)
        if run is not None and entry is not None:
            _unplug(domain, run, entry["entry"], timeout=timeout, wait=wait)
        undo.commit()


def _listed(entry: dict[str, Any]) -> dict[str, Any]:
    """A record's entry as what :func:`detach` lets choose from."""
    told = entry["spec"]
    return {
        "target": entry["target"], "source": told["source"], "alias": entry["id"],
        "address": told.get("address", ""), "entry": entry,
    }  # fmt: skip


def _told(share: spec.Filesystem) -> dict[str, Any]:
    return {"target": share.target, "source": share.source, "alias": share.alias, "address": share.address}


def _without(present: spec.Domain, target: str) -> spec.Domain:
    return replace(present, filesystems=tuple(one for one in present.filesystems if one.target != target))


def pick(described: spec.Filesystem) -> Callable[[list[dict[str, Any]]], dict[str, Any]]:
    """What chooses the share that a description fits, by its tag; with libvirt's words where there is none."""

    def choose(listed: list[dict[str, Any]]) -> dict[str, Any]:
        for one in listed:
            if one["target"] == described.target:
                return one
        raise NotFound("matching filesystem device was not found", kind="filesystem", name=described.target)

    return choose


def _unplug(domain: Handle, run: Run, entry: dict[str, Any], *, timeout: float, wait: bool) -> None:
    """The device first, and only when the guest has released it (DEVICE_DELETED) the socket and virtiofsd."""
    if entry["driver"] == spec.FilesystemDriver.NINEP:
        raise InvalidState(
            "a filesystem by 9p can't be detached from a running domain: QEMU keeps its folder to its end",
            hint="--config takes it out from the next start on",
        )
    run.require_sound()
    with domain.monitor() as session:
        shown = entry["target"]
        if not plug.release(run, session, entry, what="filesystem", shown=shown, timeout=timeout, wait=wait):
            return
        session.execute("chardev-remove", {"id": f"chr-{entry['id']}"})
    _forget(run, entry)
