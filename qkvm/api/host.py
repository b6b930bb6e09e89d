"""This host: its tree, domains, networks and pools. Programs that use qkvm as a library start here."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from qkvm.api.domain import Domain
from qkvm.api.verb import lazily, part, verb
from qkvm.domain import handle
from qkvm.errors import HostError
from qkvm.files import make_private_dir, replace_link
from qkvm.host import ids
from qkvm.paths import Tree, session_link

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from qkvm.api import emulator as qemus
    from qkvm.api import node as machine
    from qkvm.api.network import Networks
    from qkvm.api.storage import Images, Pools
    from qkvm.api.templates import Templates
    from qkvm.domain.manage import gc, install
    from qkvm.domain.manage.upgrade import Report
    from qkvm.domain.state.copy.clone import Made
    from qkvm.domain.state.copy.disks import Wanted
    from qkvm.domain.watch import events
    from qkvm.domain.watch.stats import Stats
    from qkvm.host.validate import Check
    from qkvm.spec import domain as spec
else:
    machine, qemus = lazily("qkvm.api", "node", "emulator")
    gc, install = lazily("qkvm.domain.manage", "gc", "install")
    (events,) = lazily("qkvm.domain.watch", "events")


class Host:
    """The domains, networks and pools under one root.

    :param root: the root folder; default: $QKVM_ROOT, else / for root, and an own folder for each other user.
    """

    def __init__(self, root: str | None = None) -> None:
        self.tree = self.subject = Tree(root)

    def __repr__(self) -> str:
        return f"Host({self.tree.root!r})"

    def prepare(self) -> None:
        """Create missing folders, and give a new root its default network and pool.

        :raises HostError: the user has no right to, or a folder is not safe to use.
        """
        from qkvm.net.network.handle import ensure_default
        from qkvm.storage.pool import pool

        tree = self.tree
        if tree.is_session:
            make_private_dir(tree.root)
        for folder in (
            tree.config, tree.domain_definitions, tree.templates, tree.state, tree.images,
            os.path.dirname(tree.leases("any")), tree.run, tree.domain_runs, tree.network_runs,
            tree.pool_runs, tree.log,
        ):  # fmt: skip
            make_private_dir(folder)
        if tree.is_session:
            replace_link(session_link(tree.root), tree.run)
        ids.prepare(tree)
        ensure_default(tree)
        pool.ensure_default(tree)

    def domain(self, name: str) -> Domain:
        """Return the domain with that name, id or UUID.

        :raises NotFound: there is none.
        """
        return Domain.lookup(self.tree, name)

    def domains(self) -> list[Domain]:
        """Return all domains, by name."""
        return [Domain(self.tree, name) for name in handle.names(self.tree)]

    def define(self, text: bytes | str, path: str = "definition", *, left_out: list[str] | None = None) -> Domain:
        """Store a domain's definition from TOML or libvirt's XML (virsh define); ``path`` names it in errors.

        :param left_out: gets the parts of an XML that qkvm does not support; without it they are refused.
        :raises DefinitionError: the text is invalid. :raises AlreadyExists: another domain has the name or UUID.
        """
        from qkvm.domain import define

        self.prepare()
        return Domain(self.tree, define.define(self.tree, text, path, left_out=left_out).name)

    def create(
        self,
        text: bytes | str,
        path: str = "definition",
        *,
        paused: bool = False,
        reset_nvram: bool = False,
        left_out: list[str] | None = None,
    ) -> tuple[Domain, list[str]]:
        """Start a domain whose definition is not kept (virsh create), and return warnings; see life.start."""
        from qkvm.domain.life import start

        self.prepare()
        domain, warnings = start.create(
            self.tree, text, path, paused=paused, reset_nvram=reset_nvram, left_out=left_out
        )
        return Domain(self.tree, domain.name), warnings

    def restore(
        self,
        path: str,
        *,
        bypass_cache: bool = False,
        definition: spec.Domain | None = None,
        running: bool | None = None,
        reset_nvram: bool = False,
        channels: int = 0,
    ) -> tuple[Domain, list[str]]:
        """Start a domain from a file of Domain.save (virsh restore), and return warnings; see life.start."""
        from qkvm.domain.life import start

        self.prepare()
        domain, warnings = start.restore(
            self.tree, path, bypass_cache=bypass_cache, definition=definition, running=running,
            reset_nvram=reset_nvram, channels=channels,
        )  # fmt: skip
        return Domain(self.tree, domain.name), warnings

    def restore_backup(
        self,
        folder: str,
        *,
        name: str = "",
        number: int = 0,
        in_place: bool = False,
        report: Callable[[int, int], object] | None = None,
    ) -> Domain:
        """Make a domain from a backup in a folder (qkvm restore-backup); see backup.restore."""
        from qkvm.domain.backup import restore

        self.prepare()
        domain = restore.restore(self.tree, folder, name=name, number=number, in_place=in_place, report=report)
        return Domain(self.tree, domain.name)

    def clone(
        self,
        source: str,
        *names: str,
        macs: Sequence[str] = (),
        wanted: Wanted | None = None,
        report: Callable[[str, float], object] | None = None,
    ) -> list[Made]:
        """Make clones of a domain that is off, and return them (qkvm clone); see copy.clone.

        :param wanted: how its disks are copied. :raises AlreadyExists: a name is taken; clones made before stay.
        """
        from qkvm.domain.state.copy import clone

        self.prepare()
        original = self.domain(source)
        return [clone.clone(original, name, macs=macs, wanted=wanted, report=report) for name in names]

    def statistics(
        self,
        *names: str,
        groups: Sequence[str] = (),
        backing: bool = False,
        nowait: bool = False,
        enforce: bool = False,
    ) -> list[Stats]:
        """Return statistics of domains (virsh domstats), of all if none is named; see watch.stats for the options.

        :param groups: such as 'balloon' and 'block'; default: all. :raises NotFound: there is no such domain.
        """
        from qkvm.domain.watch import stats

        domains = [self.domain(name) for name in names] or self.domains()
        return stats.collect(domains, groups, backing=backing, nowait=nowait, enforce=enforce)

    @property
    def networks(self) -> Networks:
        """The host's networks."""
        from qkvm.api.network import Networks

        self.prepare()
        return Networks(self.tree)

    @property
    def templates(self) -> Templates:
        """The templates of instant clones."""
        from qkvm.api.templates import Templates

        self.prepare()
        return Templates(self.tree)

    @property
    def pools(self) -> Pools:
        """The host's storage pools."""
        from qkvm.api.storage import Pools

        self.prepare()
        return Pools(self.tree)

    @property
    def images(self) -> Images:
        """The host's base images."""
        from qkvm.api.storage import Images

        return Images(self.tree)

    install = verb(lambda: install.install)
    check_install = verb(lambda: install.check)
    collect = verb(lambda: gc.collect)
    running = verb(lambda: gc.running)
    stop_everything = verb(lambda: gc.stop_everything)
    events = verb(lambda: events.watch)
    qemu_events = verb(lambda: events.watch_qemu)
    boot = part(lambda: machine.Boot)
    readers = part(lambda: machine.Readers)
    emulators = part(lambda: qemus.Emulators)
    node = part(lambda: machine.Node)
    interfaces = part(lambda: machine.Interfaces)

    def upgrade_check(self, *names: str, qemu: str = "") -> Iterator[Report]:
        """Yield what a QEMU would do with each domain, of all if none is named; each report comes at once.

        :param qemu: its path or name; default: each domain's own.
        :raises HostError: it is missing, or it is not a QEMU.
        """
        from qkvm.domain.manage import upgrade

        domains = [self.domain(name) for name in names] or self.domains()
        then = upgrade.find(self.tree, qemu) if qemu else None
        return (upgrade.check(domain, then) for domain in domains)

    def validate(self) -> list[Check]:
        """Return checks of whether this machine can run guests (virt-host-validate)."""
        from qkvm.domain.launch import trial
        from qkvm.host import settings, validate
        from qkvm.net.firewall import choice

        def backend() -> str:
            if os.geteuid() != 0:
                raise HostError("only root can look at it")
            return choice.choose(settings.load(self.tree).firewall).name

        return list(validate.checks(self.tree, backend, lambda: trial.start(self.tree)))
