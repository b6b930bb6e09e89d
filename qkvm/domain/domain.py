"""A domain: its name, its definition and its run, and the verbs on it.

The verbs themselves lie in the other modules of this package, one noun a file; the methods here only lead
there, so that a caller pays for what it uses.
"""

from __future__ import annotations

import os

from qkvm.domain import run as runs
from qkvm.errors import DefinitionError, InvalidState, NotFound, QkvmError
from qkvm.files import check_private_dir, entries, locked

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from qkvm.domain.nic import NicStatus
    from qkvm.domain.run import Run
    from qkvm.net.dhcp.address import Address
    from qkvm.paths import Tree
    from qkvm.qmp.agent import AgentSession
    from qkvm.qmp.session import Session
    from qkvm.spec import domain as spec
    from qkvm.spec.snapshot import Snapshot


class Domain:
    """One domain of a tree. Nothing is cached that another process could change."""

    def __init__(self, tree: Tree, name: str) -> None:
        self.tree = tree
        self.name = name

    def __repr__(self) -> str:
        return f"Domain({self.name!r})"

    # What it is.

    @property
    def run(self) -> Run | None:
        """The latest run in this boot, live or ended."""
        return runs.find(self.tree, self.name)

    @property
    def live(self) -> Run:
        """The run that is live now.

        :raises InvalidState: the domain is not running.
        """
        found = self.run
        if found is None or found.pid is None:
            raise InvalidState("domain is not running")
        return found

    @property
    def is_running(self) -> bool:
        """Whether its QEMU lives; a paused domain runs too."""
        found = self.run
        return found is not None and found.pid is not None

    @property
    def is_persistent(self) -> bool:
        """Whether it has a definition that outlives its run."""
        return os.path.lexists(self.tree.domain_definition(self.name))

    @property
    def state(self) -> tuple[str, str]:
        """State and reason in virsh's words: ('running', 'booted'), ('shut off', 'destroyed')."""
        found = self.run
        return found.state() if found is not None else ("shut off", "unknown")

    @property
    def uuid(self) -> str:
        """Its UUID."""
        found = self.run
        return found.uuid if found is not None else self.definition.uuid

    @property
    def definition(self) -> spec.Domain:
        """What the user wants; for a transient domain what it was started with.

        :raises DefinitionError: the file is damaged.
        """
        from qkvm.domain import definition

        return definition.load(self)

    # What it can be told.

    def lock(self, *, timeout: float = 30.0) -> locked:
        """Hold the domain's lock: no other qkvm changes it meanwhile. Its logs are capped on the way.

        :param timeout: seconds to wait for who holds it.
        """
        return _DomainLock(self, timeout)

    def monitor(self) -> Session:
        """A session with its monitor, to be used under its lock.

        :raises InvalidState: the domain is not running.
        """
        from qkvm.qmp.session import Session

        return Session(self.live.monitor, name=self.name)

    @property
    def has_managed_save(self) -> bool:
        """Whether its next start takes up a saved state."""
        return os.path.lexists(self.tree.managed_save(self.name))

    def start(self, **options: Any) -> list[str]:
        """Start it (virsh start) and give warnings that the user should see; see start.start."""
        from qkvm.domain import start

        return start.start(self, **options)

    def save(self, path: str, **options: Any) -> None:
        """Save it to a file and end it (virsh save); Host.restore brings it back; see save.save."""
        from qkvm.domain import save

        save.save(self, path, **options)

    def managed_save(self, **options: Any) -> None:
        """Save it to where its next start takes it up (virsh managedsave); see save.managed_save."""
        from qkvm.domain import save

        save.managed_save(self, **options)

    def remove_managed_save(self) -> bool:
        """Throw its saved state away (virsh managedsave-remove); False where there was none."""
        from qkvm.domain import save

        return save.remove_managed_save(self)

    @property
    def snapshots(self) -> dict[str, Snapshot]:
        """Its snapshots by name (virsh snapshot-list)."""
        from qkvm.domain import snapshotstore

        return snapshotstore.load(self)

    def create_snapshot(self, name: str = "", **options: Any) -> Snapshot:
        """Take a snapshot (virsh snapshot-create-as); the options are those of snapshot.Wanted."""
        from qkvm.domain import snapshot

        return snapshot.create(self, snapshot.Wanted(name, **options))

    def revert_to_snapshot(self, name: str, **options: Any) -> list[str]:
        """Go back to a snapshot (virsh snapshot-revert) and give warnings; see snapshotrevert.revert."""
        from qkvm.domain import snapshotrevert

        return snapshotrevert.revert(self, name, **options)

    def delete_snapshot(self, name: str, **options: Any) -> list[str]:
        """Delete a snapshot (virsh snapshot-delete) and give the names of all that are gone."""
        from qkvm.domain import snapshotdelete

        return snapshotdelete.delete(self, name, **options)

    def dump(self, path: str, **options: Any) -> None:
        """Write its memory to a file (virsh dump); see dump.dump."""
        from qkvm.domain import dump

        dump.dump(self, path, **options)

    def shutdown(self, *, modes: Sequence[str] = (), wait: bool = False, timeout: float = 60.0) -> None:
        """Ask the guest to power off, by its agent or ACPI (virsh shutdown); see stop.shutdown."""
        from qkvm.domain import stop

        stop.shutdown(self, modes=modes, wait=wait, timeout=timeout)

    def reboot(self, *, modes: Sequence[str] = (), timeout: float = 60.0) -> None:
        """Ask the guest to reboot, by its agent or ACPI (virsh reboot); see stop.reboot."""
        from qkvm.domain import stop

        stop.reboot(self, modes=modes, timeout=timeout)

    def reset(self) -> None:
        """Press the reset button (virsh reset)."""
        from qkvm.domain import stop

        stop.reset(self)

    def destroy(self, *, graceful: bool = False) -> None:
        """End QEMU now (virsh destroy)."""
        from qkvm.domain import stop

        stop.destroy(self, graceful=graceful)

    def suspend(self) -> None:
        """Stop its vCPUs (virsh suspend)."""
        from qkvm.domain import stop

        stop.suspend(self)

    def resume(self) -> None:
        """Let its vCPUs go on (virsh resume)."""
        from qkvm.domain import stop

        stop.resume(self)

    def rename(self, name: str) -> None:
        """Give it another name while it does not run (virsh domrename); this object keeps the old one."""
        from qkvm.domain import rename

        rename.rename(self, name)

    def xml(self, **options: Any) -> str:
        """What it is, in libvirt's XML (virsh dumpxml); see description.dump."""
        from qkvm.domain import description

        return description.dump(self, **options)

    def undefine(self, **options: Any) -> list[str]:
        """Remove the definition (virsh undefine) and give warnings; see definition.undefine."""
        from qkvm.domain import definition

        return definition.undefine(self, **options)

    def set_vcpus(self, count: int, **options: Any) -> int:
        """Plug or unplug vCPUs to this count and give what was reached (virsh setvcpus); see vcpu.set_count."""
        from qkvm.domain import vcpu

        return vcpu.set_count(self, count, **options)

    def set_memory(self, kib: int, **options: Any) -> int:
        """Move the balloon to this many KiB and give what was reached (virsh setmem); see memory.set_current."""
        from qkvm.domain import memory

        return memory.set_current(self, kib, **options)

    def set_max_memory(self, kib: int, **options: Any) -> None:
        """Change the most memory it can have, in the definition (virsh setmaxmem); see memory.set_maximum."""
        from qkvm.domain import memory

        memory.set_maximum(self, kib, **options)

    def memory_stats(self) -> dict[str, int]:
        """What the balloon and the guest's driver tell, in KiB (virsh dommemstat)."""
        from qkvm.domain import memory

        return memory.stats(self)

    def attach_interface(self, **options: Any) -> str:
        """Plug a NIC and give its MAC address (virsh attach-interface); see nicplug.attach."""
        from qkvm.domain import nicplug

        return nicplug.attach(self, **options)

    def detach_interface(self, **options: Any) -> None:
        """Unplug a NIC (virsh detach-interface); see nicplug.detach."""
        from qkvm.domain import nicplug

        nicplug.detach(self, **options)

    def attach_disk(self, disk: spec.Disk, **options: Any) -> list[str]:
        """Plug a disk and give warnings (virsh attach-disk); see diskplug.attach."""
        from qkvm.domain import diskplug

        return diskplug.attach(self, disk, **options)

    def detach_disk(self, target: str, **options: Any) -> None:
        """Unplug a disk (virsh detach-disk); see diskplug.detach."""
        from qkvm.domain import diskplug

        diskplug.detach(self, target, **options)

    def change_media(self, target: str, path: str, **options: Any) -> None:
        """Change the medium of a drive (virsh change-media); see media.change."""
        from qkvm.domain import media

        media.change(self, target, path, **options)

    def interfaces(self) -> list[NicStatus]:
        """Its NICs (virsh domiflist)."""
        from qkvm.domain import nic

        return nic.interfaces(self)

    def addresses(self, **options: Any) -> list[Address]:
        """The IP addresses of its NICs (virsh domifaddr); see address.addresses."""
        from qkvm.domain import address

        return address.addresses(self, **options)

    def monitor_command(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        """Run a QMP command of one's own and give what it returns (virsh qemu-monitor-command)."""
        from qkvm.domain import monitor

        return monitor.command(self, command, arguments)

    # What its guest's agent can be told.

    def agent(self, **options: Any) -> AgentSession:
        """A session with the agent in the guest; see agent.session.

        :raises AgentError: there is none.
        """
        from qkvm.domain import agent

        return agent.session(self, **options)

    def guest_info(self, *groups: str) -> dict[str, Any]:
        """What the agent tells of the guest, by group (virsh guestinfo); see guestinfo.collect."""
        from qkvm.domain import guestinfo

        return guestinfo.collect(self, groups)

    def freeze(self, mountpoints: Sequence[str] = ()) -> int:
        """Freeze the guest's file systems and give how many (virsh domfsfreeze)."""
        from qkvm.domain import guestfs

        return guestfs.freeze(self, mountpoints)

    def thaw(self) -> int:
        """Thaw the guest's file systems and give how many (virsh domfsthaw)."""
        from qkvm.domain import guestfs

        return guestfs.thaw(self)


class _DomainLock(locked):
    """The lock of a domain; who has taken it looks after the domain's logs first."""

    def __init__(self, domain: Domain, timeout: float) -> None:
        folder = domain.tree.domain_runs
        super().__init__(os.path.join(folder, f".{domain.name}.lock"), f"domain '{domain.name}'", timeout)
        self._folder = folder
        self._domain = domain

    def __enter__(self) -> int:
        from qkvm.domain.upkeep import pass_by

        check_private_dir(self._folder)
        fd = super().__enter__()
        try:
            pass_by(self._domain)
        except BaseException:
            self.__exit__()
            raise
        return fd

    def __exit__(self, *_: object) -> None:
        from qkvm.host import view

        try:
            view.refresh_domain(self._domain.tree, self._domain.name)
        except (QkvmError, OSError):
            # What was done is done; setup-read tells what keeps others from seeing it.
            pass
        finally:
            super().__exit__()


def lookup(tree: Tree, text: str) -> Domain:
    """The domain of that id, UUID or name, looked for in this order as virsh does.

    :raises NotFound: there is none.
    """
    if text.isdigit():
        for run in runs.all_runs(tree):
            if run.id == int(text) and run.pid is not None:
                return Domain(tree, run.name)
    # A path is made of it: what can't be a name is not looked for.
    elif "/" not in text and text not in ("", ".", "..") and "\0" not in text and len(text.encode()) < 240:
        domain = Domain(tree, text)
        if domain.is_persistent or domain.is_running:
            return domain
        found = _by_uuid(tree, text.lower().replace("-", ""))
        if found is not None:
            return found
    raise NotFound(f"failed to get domain '{text}'", kind="domain", name=text)


def names(tree: Tree) -> list[str]:
    """Names of all domains: defined, or running without a definition."""
    defined = set(entries(tree.domain_definitions, ".toml"))
    transient = [run.name for run in runs.all_runs(tree) if run.name not in defined and run.pid is not None]
    return sorted(defined.union(transient))


def _by_uuid(tree: Tree, digits: str) -> Domain | None:
    if len(digits) != 32 or not set(digits) <= set("0123456789abcdef"):
        return None
    for name in names(tree):
        domain = Domain(tree, name)
        try:
            if domain.uuid.replace("-", "") == digits:
                return domain
        except (NotFound, DefinitionError):
            # Undefined between the listing and the look, or damaged: not the one that is looked for.
            continue
    return None
