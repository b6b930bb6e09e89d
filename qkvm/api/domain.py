"""A domain and the verbs on it.

The verbs themselves lie in the package :mod:`qkvm.domain`, each where its method says; the methods here only lead
there, so that a caller pays for what it uses.
"""

from __future__ import annotations

from qkvm.domain.handle import Handle

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any, Unpack

    from qkvm.api import options
    from qkvm.domain.device.nic.status import NicStatus
    from qkvm.net.dhcp.address import Address
    from qkvm.qmp.agent import AgentSession
    from qkvm.spec import domain as spec
    from qkvm.spec.snapshot import Snapshot


class Domain(Handle):
    """One domain of a tree. Nothing is cached that another process could change."""

    def start(self, **options: Unpack[options.Start]) -> list[str]:
        """Start it (virsh start) and give warnings that the user should see; see life.start."""
        from qkvm.domain.life import start

        return start.start(self, **options)

    def save(self, path: str, **options: Unpack[options.Save]) -> None:
        """Save it to a file and end it (virsh save); Host.restore brings it back; see state.save."""
        from qkvm.domain.state import save

        save.save(self, path, **options)

    def managed_save(self, **options: Unpack[options.ManagedSave]) -> None:
        """Save it to where its next start takes it up (virsh managedsave); see state.save."""
        from qkvm.domain.state import save

        save.managed_save(self, **options)

    def remove_managed_save(self) -> bool:
        """Throw its saved state away (virsh managedsave-remove); False where there was none."""
        from qkvm.domain.state import save

        return save.remove_managed_save(self)

    @property
    def snapshots(self) -> dict[str, Snapshot]:
        """Its snapshots by name (virsh snapshot-list)."""
        from qkvm.domain.store import snapshots as snapshotstore

        return snapshotstore.load(self)

    def create_snapshot(self, name: str = "", **options: Unpack[options.Snapshot]) -> Snapshot:
        """Take a snapshot (virsh snapshot-create-as); the options are those of snapshot.taking.Wanted."""
        from qkvm.domain.snapshot import create as snapshot
        from qkvm.domain.snapshot.taking import Wanted

        return snapshot.create(self, Wanted(name, **options))

    def revert_to_snapshot(self, name: str, **options: Unpack[options.Revert]) -> list[str]:
        """Go back to a snapshot (virsh snapshot-revert) and give warnings; see snapshot.revert."""
        from qkvm.domain.snapshot import revert as snapshotrevert

        return snapshotrevert.revert(self, name, **options)

    def delete_snapshot(self, name: str, **options: Unpack[options.DeleteSnapshot]) -> list[str]:
        """Delete a snapshot (virsh snapshot-delete) and give the names of all that are gone."""
        from qkvm.domain.snapshot import delete as snapshotdelete

        return snapshotdelete.delete(self, name, **options)

    def dump(self, path: str, **options: Unpack[options.Dump]) -> None:
        """Write its memory to a file (virsh dump); see state.dump."""
        from qkvm.domain.state import dump

        dump.dump(self, path, **options)

    def shutdown(self, *, modes: Sequence[str] = (), wait: bool = False, timeout: float = 60.0) -> None:
        """Ask the guest to power off, by its agent or ACPI (virsh shutdown); see life.stop."""
        from qkvm.domain.life import stop

        stop.shutdown(self, modes=modes, wait=wait, timeout=timeout)

    def reboot(self, *, modes: Sequence[str] = (), timeout: float = 60.0) -> None:
        """Ask the guest to reboot, by its agent or ACPI (virsh reboot); see life.stop."""
        from qkvm.domain.life import stop

        stop.reboot(self, modes=modes, timeout=timeout)

    def reset(self) -> None:
        """Press the reset button (virsh reset)."""
        from qkvm.domain.life import stop

        stop.reset(self)

    def destroy(self, *, graceful: bool = False) -> None:
        """End QEMU now (virsh destroy)."""
        from qkvm.domain.life import stop

        stop.destroy(self, graceful=graceful)

    def suspend(self) -> None:
        """Stop its vCPUs (virsh suspend)."""
        from qkvm.domain.life import stop

        stop.suspend(self)

    def resume(self) -> None:
        """Let its vCPUs go on (virsh resume)."""
        from qkvm.domain.life import stop

        stop.resume(self)

    def rename(self, name: str) -> None:
        """Give it another name while it does not run (virsh domrename); this object keeps the old one."""
        from qkvm.domain.manage import rename

        rename.rename(self, name)

    def xml(self, **options: Unpack[options.Xml]) -> str:
        """What it is, in libvirt's XML (virsh dumpxml); see manage.xml."""
        from qkvm.domain.manage import xml as description

        return description.dump(self, **options)

    def undefine(self, **options: Unpack[options.Undefine]) -> list[str]:
        """Remove the definition (virsh undefine) and give warnings; see manage.undefine."""
        from qkvm.domain.manage import undefine

        return undefine.undefine(self, **options)

    def set_vcpus(self, count: int, **options: Unpack[options.Vcpus]) -> int:
        """Plug or unplug vCPUs to this count and give what was reached (virsh setvcpus); see tuning.vcpu."""
        from qkvm.domain.tuning import vcpu

        return vcpu.set_count(self, count, **options)

    def set_memory(self, kib: int, **options: Unpack[options.Memory]) -> int:
        """Move the balloon to this many KiB and give what was reached (virsh setmem); see tuning.balloon."""
        from qkvm.domain.tuning import balloon as memory

        return memory.set_current(self, kib, **options)

    def set_max_memory(self, kib: int, **options: Unpack[options.Scoped]) -> None:
        """Change the most memory it can have, in the definition (virsh setmaxmem); see tuning.balloon."""
        from qkvm.domain.tuning import balloon as memory

        memory.set_maximum(self, kib, **options)

    def memory_stats(self) -> dict[str, int]:
        """What the balloon and the guest's driver tell, in KiB (virsh dommemstat)."""
        from qkvm.domain.tuning import balloon as memory

        return memory.stats(self)

    def attach_interface(self, **options: Unpack[options.AttachInterface]) -> str:
        """Plug a NIC and give its MAC address (virsh attach-interface); see device.nic.plug."""
        from qkvm.domain.device.nic import plug as nicplug

        return nicplug.attach(self, **options)

    def detach_interface(self, **options: Unpack[options.DetachInterface]) -> None:
        """Unplug a NIC (virsh detach-interface); see device.nic.plug."""
        from qkvm.domain.device.nic import plug as nicplug

        nicplug.detach(self, **options)

    def attach_disk(self, disk: spec.Disk, **options: Unpack[options.Scoped]) -> list[str]:
        """Plug a disk and give warnings (virsh attach-disk); see device.disk.plug."""
        from qkvm.domain.device.disk import plug as diskplug

        return diskplug.attach(self, disk, **options)

    def detach_disk(self, target: str, **options: Unpack[options.Unplugging]) -> None:
        """Unplug a disk (virsh detach-disk); see device.disk.plug."""
        from qkvm.domain.device.disk import plug as diskplug

        diskplug.detach(self, target, **options)

    def change_media(self, target: str, path: str, **options: Unpack[options.ChangeMedia]) -> None:
        """Change the medium of a drive (virsh change-media); see device.disk.media."""
        from qkvm.domain.device.disk import media

        media.change(self, target, path, **options)

    def interfaces(self) -> list[NicStatus]:
        """Its NICs (virsh domiflist)."""
        from qkvm.domain.device.nic import status as nic

        return nic.interfaces(self)

    def addresses(self, **options: Unpack[options.Addresses]) -> list[Address]:
        """The IP addresses of its NICs (virsh domifaddr); see watch.address."""
        from qkvm.domain.watch import address

        return address.addresses(self, **options)

    def monitor_command(self, command: str, arguments: dict[str, Any] | None = None) -> Any:
        """Run a QMP command of one's own and give what it returns (virsh qemu-monitor-command)."""
        from qkvm.domain.screen import monitor

        return monitor.command(self, command, arguments)

    # What its guest's agent can be told.

    def agent(self, **options: Unpack[options.Agent]) -> AgentSession:
        """A session with the agent in the guest; see guest.agent.

        :raises AgentError: there is none.
        """
        from qkvm.domain.guest import agent

        return agent.session(self, **options)

    def guest_info(self, *groups: str) -> dict[str, Any]:
        """What the agent tells of the guest, by group (virsh guestinfo); see guest.info."""
        from qkvm.domain.guest import info as guestinfo

        return guestinfo.collect(self, groups)

    def freeze(self, mountpoints: Sequence[str] = ()) -> int:
        """Freeze the guest's file systems and give how many (virsh domfsfreeze)."""
        from qkvm.domain.guest import filesystems as guestfs

        return guestfs.freeze(self, mountpoints)

    def thaw(self) -> int:
        """Thaw the guest's file systems and give how many (virsh domfsthaw)."""
        from qkvm.domain.guest import filesystems as guestfs

        return guestfs.thaw(self)
