"""--check: refuse what works but is probably a mistake, unless the check is turned off."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qkvm.domain.manage import install as installing
from qkvm.errors import InvalidState
from qkvm.units import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from qkvm.cli.install.reader import Options
    from qkvm.domain.manage.install import Plan
    from qkvm.paths import Tree


def run(tree: Tree, options: Options, plan: Plan, warn: Callable[[str], object]) -> None:
    """Check whether other guests have the same disks or MAC addresses, and whether there is enough free space.

    :raises InvalidState: another guest has one of them. :raises HostError: the disks to be allocated do not fit.
    """
    given = options.first("check")
    everything = given.flag("all", True)
    given.flag("path_exists")
    users = installing.users(tree, plan)
    if given.flag("path_in_use", everything):
        for path, names in users.disks.items():
            raise InvalidState(
                f"Disk {printable(path)} is already in use by other guests {names}",
                hint="--check path_in_use=off takes it all the same",
            )
    if given.flag("mac_in_use", everything):
        for mac, names in users.macs.items():
            raise InvalidState(
                f"The MAC address '{mac}' is in use by other guests {names}",
                hint="--check mac_in_use=off takes it all the same",
            )
    if given.flag("disk_size", everything):
        words = installing.short_of_space(plan.disks)
        if words:
            warn(words)
