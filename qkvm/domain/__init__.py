"""What is known of domains, and the verbs on them.

Whoever takes a domain's lock mends what a killed process has left of it: that is said here.

A module imports only what is listed before it:

run: what is known of a run: record, lock, journal
definition: what the user wants
handle: a domain by its name, its lock
scope: the running guest, the definition, or both
define: a definition stored
plug: what plugging of every kind of device shares
store: files of snapshots and checkpoints
guest: the agent in the guest
image: firmware, and who needs which image
tuning: how much of the host it gets
block: the images below its disks
device: what is plugged
launch: a run brought up and ended
state: the guest's state, saved and brought back
snapshot: snapshots
backup: backups and checkpoints
life: from start to shutdown
watch: what can be seen from outside
screen: console, screen, keys, monitor
manage: install, undefine, rename, and what else needs much of the rest
"""

from __future__ import annotations

from qkvm.domain import handle


def _mend(domain: handle.Handle) -> None:
    """Mend what killed ones have left of a domain."""
    from qkvm.domain.manage import mend

    mend.pass_by(domain)


handle.mended_by(_mend)
