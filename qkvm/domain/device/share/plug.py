"""Share a folder of the host with a running guest or its definition, and unshare it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from qkvm.domain import definition as definitions
from qkvm.domain import plug
from qkvm.domain.device import sidecar
from qkvm.domain.device.share import serve
from qkvm.domain.plug import Site
from qkvm.domain.tuning import place as placing
from qkvm.errors import InvalidState, InvalidValue, NotFound
from qkvm.host import journal
from qkvm.qemu import shares, slots
from qkvm.scope import Scope
from qkvm.spec import domain as spec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run
    from qkvm.files import Undo
    from qkvm.qmp.session import Session


def attach(domain: Handle, share: spec.Filesystem, *, scope: Scope = Scope.CURRENT) -> None:
    """Share a folder with the running guest, the definition, or both.

    :raises InvalidState: it can't be plugged while the guest runs: 9p, or a guest whose memory is its own.
    """
    plug.attach(domain, SHARES, share, scope=scope)


def detach(
    domain: Handle,
    target: str,
    *,
    scope: Scope = Scope.CURRENT,
    timeout: float = plug.TIMEOUT,
    wait: bool = True,
) -> None:
    """Take a share from the running guest, the definition, or both.

    :param target: its tag.
    :raises NotReached: the guest did not release it within ``timeout`` seconds; it is still served.
    """
    plug.detach(domain, SHARES, named(target), scope=scope, timeout=timeout, wait=wait)


def named(target: str) -> Callable[[Sequence[spec.Filesystem]], spec.Filesystem]:
    """Return what chooses the share of a tag, or raises libvirt's error."""

    def choose(listed: Sequence[spec.Filesystem]) -> spec.Filesystem:
        for share in listed:
            if share.target == target:
                return share
        raise NotFound("matching filesystem device was not found", kind="filesystem", name=target)

    return choose


class _Shares(plug.Kind[spec.Filesystem]):
    """Shares: a folder, its virtiofsd, the socket between that and QEMU, and the device."""

    part, name, key, described = "filesystems", "filesystem", "target", spec.Filesystem

    def check(self, device: spec.Filesystem) -> list[str]:
        spec.check_filesystem(device)
        return []

    def plug(self, site: Site, device: spec.Filesystem) -> dict[str, Any]:
        tree, run = site.domain.tree, site.run
        started = definitions.started_with(run.record)
        (share,) = serve.decided(replace(started, filesystems=(device,))).filesystems
        _refuse_unpluggable(run, started, share)
        serve.check_one(tree, share, as_root=False)
        place = site.place(share.address)
        ident = share.alias or slots.next_id("fs", [entry["id"] for entry in run.record["filesystems"]])
        site.refuse_taken(ident)
        held = serve.hold(tree, run, share, ident, None, site.opened)
        plugged = shares.share_device(started.machine, share, ident, place, held.qemu)
        entry = serve.entry(plugged, since=journal.size(run.journal))
        site.record("filesystems", entry, self.forget)
        serve.serve(tree, run, held, placing.present(run, started))
        site.send_fd(f"fd-{plugged.backend}", held.qemu)
        site.undo.add(plug.quietly, self.close, site.session, entry)
        address = {"type": "fd", "data": {"str": f"fd-{plugged.backend}"}}
        backend = {"type": "socket", "data": {"addr": address, "server": False}}
        site.session.execute("chardev-add", {"id": plugged.backend, "backend": backend})
        site.opened.close()
        site.add("share", share=plugged)
        return entry

    def fd_names(self, entry: dict[str, Any]) -> Iterable[str]:
        return (f"fd-chr-{entry['id']}",)

    def before_release(self, run: Run, session: Session, entry: dict[str, Any], undo: Undo) -> None:
        if entry["driver"] == spec.FilesystemDriver.NINEP:
            raise InvalidState(
                "a filesystem by 9p can't be detached from a running domain: QEMU keeps its folder to its end",
                hint="--config takes it out from the next start on",
            )

    def close(self, session: Session, entry: dict[str, Any]) -> None:
        session.execute("chardev-remove", {"id": f"chr-{entry['id']}"})

    def forget(self, run: Run, entry: dict[str, Any]) -> None:
        # virtiofsd ends by itself, since QEMU has closed the connection.
        sidecar.end_one(run, serve.name_of(entry["id"]))
        super().forget(run, entry)


SHARES = _Shares()


def _refuse_unpluggable(run: Run, started: spec.Domain, share: spec.Filesystem) -> None:
    """:raises InvalidState: this share can't be plugged into this guest while it runs."""
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
