"""Domains (virtual machines): their definitions and runs, and the verbs on them.

Every process that takes a domain's lock first mends what a killed one has left; that is registered here.

A module imports only what is listed before it:

run: the record, journal and state of a domain that was started
definition: read and change a stored definition, alone or together with the running guest
handle: a domain by its name: its run, definition, lock, monitor
define: check and store a new definition
plug: what plugging of all kinds of devices shares
store: the files of snapshots and checkpoints
guest: what the agent in the guest is asked: power, clock, users, file systems
image: UEFI firmware, and which images are needed
tuning: vCPUs, memory, limits of CPU and I/O, pinning, control group
block: disk images and block jobs: pull, copy, commit
device: NICs, disks, shares, TPM
launch: start QEMU, end it, show its command line
state: save, restore, dump, clone
snapshot: snapshots
backup: backups and checkpoints
life: start, shutdown, reboot, destroy, suspend, resume, autostart
watch: events, statistics, addresses
access: ways into a guest: commands, ssh, files
screen: console, VNC display, keys, monitor commands
manage: install, undefine, rename, volumes and XML of domains, gc, mending
"""

from __future__ import annotations

from qkvm.domain import handle


def _mend(domain: handle.Handle) -> None:
    """Mend what killed processes have left of a domain."""
    from qkvm.domain.manage import mend

    mend.pass_by(domain)


handle.mended_by(_mend)
