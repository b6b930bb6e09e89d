"""--reinstall: boot an existing domain by an install method once more."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from qkvm.api.domain import Domain
from qkvm.cli.install import cloudinit, media
from qkvm.cli.install.build import Built
from qkvm.cli.install.drives import Drives
from qkvm.cli.install.osinfo import MODERN
from qkvm.cli.parse import UsageError
from qkvm.domain.manage.install import Plan
from qkvm.errors import InvalidState
from qkvm.spec import domain as spec

if TYPE_CHECKING:
    from qkvm.cli.install.reader import Options
    from qkvm.paths import Tree

_TAKEN = frozenset((
    "reinstall", "cdrom", "location", "extra-args", "initrd-inject", "pxe", "install", "cloud-init",
    "noautoconsole", "autoconsole", "wait", "noreboot", "destroy-on-exit", "print-xml", "dry-run", "connect",
    "quiet", "debug", "os-variant", "check",
))  # fmt: skip


def build_again(tree: Tree, options: Options) -> Built:
    """Return the plan for the first boot of an existing domain.

    Its definition stays the same, but gets a drive for a seed if it lacks one.

    :raises NotFound: there is no such domain. :raises InvalidState: it is running or transient.
    """
    domain = Domain.lookup(tree, options.single("reinstall"))
    for name in options.names():
        if name not in _TAKEN:
            raise UsageError(f"--{name} can't be given with --reinstall", hint="the domain's definition says it")
    if domain.is_running:
        raise InvalidState("domain is already active", hint=f"qkvm shutdown {domain.name}")
    if domain.has_managed_save:
        raise InvalidState("domain has a managed save image", hint=f"qkvm managedsave-remove {domain.name}")
    stays = domain.definition
    chosen = media.method(options)
    if not chosen.is_phase and not options.has("cloud-init"):
        raise UsageError("An install method must be specified", hint="--cdrom, --location, --pxe or --cloud-init")
    drives = Drives(tree, options, MODERN, stays.machine)
    drives.disks = list(stays.disks)
    asked = cloudinit.seed(options, stays, lambda: cloudinit.own_key(tree))
    seed = tree.seed(domain.name)
    if asked is not None and not any(disk.path == seed for disk in drives.disks):
        raise InvalidState("the domain has no drive with a seed", hint="it is there where --cloud-init made it")
    drive = drives.cdrom() if chosen.cdrom else ""
    with_drive = replace(stays, disks=tuple(drives.disks))
    boot_files = (tree.boot_file(domain.name, "kernel"), tree.boot_file(domain.name, "initrd"))
    first = media.first_boot(with_drive, chosen, drive, boot_files, noreboot=options.flag("noreboot"))
    plan = Plan(
        definition=stays,
        first=spec.validate(first) if first is not None else None,
        seed=asked.seed if asked is not None else None,
        media=chosen.media,
        stored=False,
    )
    return Built(plan, asked.password if asked is not None else "")
