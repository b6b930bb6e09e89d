"""A storage pool and its verbs: its definition, its backend, and whether it is active in this boot.

No daemon keeps pools open. run/qkvm/pools/NAME.json records for this boot whether a pool is active, and the
definition that it was started with. Without a record, a pool is active when it is marked for autostart. A pool
whose folder or volume group is gone is inactive in any case.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from qkvm import units
from qkvm.errors import AlreadyExists, DefinitionError, HostError, InvalidState, InvalidValue, NotFound
from qkvm.files import entries, locked, make_private_dir, read_bytes, remove, write_atomic
from qkvm.host import record

if TYPE_CHECKING:
    from qkvm.paths import Tree
    from qkvm.spec import pool as spec
    from qkvm.storage.pool.backend import Backend


class Info(NamedTuple):
    """What pool-info prints; sizes in bytes, 0 where the pool is not active."""

    name: str
    uuid: str
    type: str
    active: bool
    persistent: bool
    autostart: bool
    capacity: int
    allocation: int
    available: int


class Pool:
    """A pool by name: persistent (it has a definition file), active, or both."""

    __slots__ = ("name", "tree")

    def __init__(self, tree: Tree, name: str) -> None:
        self.tree = tree
        self.name = units.check_name(name, "pool")

    # Which pools there are.

    @classmethod
    def lookup(cls, tree: Tree, name_or_uuid: str) -> Pool:
        """Return the pool of that name or UUID. :raises NotFound: there is none."""
        listed = list_pools(tree)
        for found in listed:
            if found.name == name_or_uuid:
                return found
        try:
            uuid = units.parse_uuid(name_or_uuid)
        except InvalidValue:
            uuid = ""
        for found in listed if uuid else ():
            if found.uuid == uuid:
                return found
        raise _not_found(name_or_uuid)

    @classmethod
    def define(cls, tree: Tree, text: str, path: str) -> Pool:
        """Make or replace a persistent pool from TOML text, which is kept as it is, or libvirt's XML.

        A new pool is inactive until it is started; an active one goes on as it was started.

        :param path: where the text came from, for errors. :raises DefinitionError: no valid definition.
        :raises AlreadyExists: another pool has the name, the uuid or the folder.
        """
        make_private_dir(tree.pool_definitions)
        with _locked(tree):
            text, definition = complete(tree, text, path)
            pool = cls(tree, definition.name)
            _check_identity(tree, definition)
            pool._keep_state()
            write_atomic(tree.pool_definition(definition.name), text)
        return pool

    @classmethod
    def create(cls, tree: Tree, text: str, path: str, *, build: bool = False, overwrite: bool = False) -> Pool:
        """Start a transient pool, which is gone when it is destroyed; raises what define and start raise.

        :raises AlreadyExists: there is a pool of that name.
        """
        with _locked(tree):
            _, definition = complete(tree, text, path)
            pool = cls(tree, definition.name)
            if any(found.name == pool.name for found in list_pools(tree)):
                raise AlreadyExists(f"pool '{pool.name}' already exists", hint=f"qkvm pool-start {pool.name}")
            _check_identity(tree, definition)
            pool._start(definition, build, overwrite)
        return pool

    # What it is.

    @property
    def persistent(self) -> bool:
        """Whether it has a definition file."""
        return os.path.exists(self.tree.pool_definition(self.name))

    @property
    def active(self) -> bool:
        """Whether it is active in this boot, and its folder or volume group exists."""
        try:
            return self._said_active() and backend_of(self.tree, self.actual).present(started=self._is_said())
        except DefinitionError:
            return False

    @property
    def autostart(self) -> bool:
        """Whether it is active from the boot on."""
        return self.persistent and bool(_plain(self.tree, self.name).get("autostart"))

    @property
    def uuid(self) -> str:
        """Its UUID, '' where its definition is damaged."""
        try:
            return units.parse_uuid(self.definition.uuid)
        except InvalidValue:
            return ""

    @property
    def definition(self) -> spec.Pool:
        """What the user wants, from its file; for a transient pool, what it was started with.

        :raises NotFound: there is no such pool (any more). :raises DefinitionError: its file is damaged.
        """
        path = self.tree.pool_definition(self.name)
        text = read_bytes(path)
        if text is None:
            return self._of_record()
        definition = _parse(text, path)
        if definition.name != self.name:
            raise DefinitionError(path, f"key name: '{definition.name}' is not the file's name")
        return definition

    @property
    def actual(self) -> spec.Pool:
        """The definition that it was started with in this boot, or the stored one."""
        current = record.read(self.tree.pool_run(self.name))
        return self.definition if current is None or not current["active"] else self._of_record()

    @property
    def type(self) -> str:
        """Its type, '' where its definition is damaged."""
        try:
            return str(self.actual.type)
        except DefinitionError:
            return ""

    @property
    def backend(self) -> Backend:
        """Its backend. :raises InvalidState: it is not active."""
        if not self.active:
            raise InvalidState(f"storage pool '{self.name}' is not active", hint=f"qkvm pool-start {self.name}")
        return backend_of(self.tree, self.actual)

    @property
    def path(self) -> str:
        """Its folder. :raises InvalidState: it is not active."""
        return self.backend.definition.path

    def info(self) -> Info:
        """Return name, uuid, state and sizes."""
        capacity = available = 0
        active = False
        try:
            if self._said_active():
                backend = backend_of(self.tree, self.actual)
                active = backend.present(started=self._is_said())
                capacity, available = backend.space() if active else (0, 0)
        except (DefinitionError, HostError):
            active = False
        facts = (self.name, self.uuid, self.type, active, self.persistent, self.autostart)
        return Info(*facts, capacity, capacity - available, available)

    def describe(self, *, inactive: bool = False) -> str:
        """Return the pool as libvirt's XML (virsh pool-dumpxml); with ``inactive`` its stored definition."""
        from qkvm.spec.libvirt import pool as libvirt

        if inactive or not self.active:
            return libvirt.dumps(self.definition)
        info = self.info()
        space = libvirt.Space(info.capacity, info.allocation, info.available)
        return libvirt.dumps(self.actual, space=space, owner=self.backend.owner())

    # Changes.

    def set_autostart(self, on: bool) -> None:
        """Set whether it is active from the next boot on. :raises InvalidState: it is transient."""
        from msgspec.structs import replace

        from qkvm.spec import toml

        with _locked(self.tree):
            path = self.tree.pool_definition(self.name)
            text = read_bytes(path)
            if text is None:
                raise InvalidState("pool has no config file")
            self._keep_state()
            write_atomic(path, toml.update(text.decode(), replace(self.definition, autostart=on)))

    def undefine(self) -> None:
        """Remove its definition; its folder or volume group stays. :raises InvalidState: it is active."""
        with _locked(self.tree):
            self._refuse_active()
            remove(self.tree.pool_definition(self.name))
            remove(self.tree.pool_run(self.name))

    def start(self, *, build: bool = False, overwrite: bool = False) -> None:
        """Make it active. :param build: make its folder or volume group before; see :meth:`build`.

        :raises InvalidState: it is active. :raises HostError: its folder or volume group does not exist.
        """
        with _locked(self.tree):
            if self.active:
                raise InvalidState(f"storage pool '{self.name}' is already active")
            self._start(self.definition, build, overwrite)

    def destroy(self) -> None:
        """Make it inactive until it is started or the next boot; its content stays.

        :raises InvalidState: it is not active. :raises HostError: a logical volume is in use.
        """
        with _locked(self.tree):
            if not self._said_active():
                raise InvalidState(f"storage pool '{self.name}' is not active")
            backend_of(self.tree, self.actual).stop()
            if self.persistent:
                record.write(self.tree.pool_run(self.name), {"active": False})
            else:
                remove(self.tree.pool_run(self.name))

    def build(self, *, overwrite: bool = False) -> None:
        """Make its folder with the definition's mode and owner, or its volume group on its devices.

        :param overwrite: devices may carry data. :raises InvalidState: it is active.
        """
        with _locked(self.tree):
            self._refuse_active()
            backend_of(self.tree, self.definition).build(overwrite=overwrite)

    def delete(self) -> None:
        """Remove its folder or volume group, which must be empty. :raises InvalidState: it is active."""
        with _locked(self.tree):
            self._refuse_active()
            backend_of(self.tree, self.definition).delete()

    def _start(self, definition: spec.Pool, build: bool, overwrite: bool) -> None:
        from qkvm.spec import toml

        backend = backend_of(self.tree, definition)
        if build:
            backend.build(overwrite=overwrite)
        backend.start()
        record.write(self.tree.pool_run(self.name), {"active": True, "definition": toml.to_plain(definition)})

    def _keep_state(self) -> None:
        """Record the present state before a change of the definition could alter it."""
        from qkvm.spec import toml

        state = {"active": True, "definition": toml.to_plain(self.actual)} if self.active else {"active": False}
        record.write(self.tree.pool_run(self.name), state)

    def _said_active(self) -> bool:
        current = record.read(self.tree.pool_run(self.name))
        return self.autostart if current is None else bool(current["active"])

    def _is_said(self) -> bool:
        """Whether it was started or destroyed in this boot, and so does not depend on autostart."""
        return record.read(self.tree.pool_run(self.name)) is not None

    def _of_record(self) -> spec.Pool:
        from qkvm.spec import pool, toml

        current = record.read(self.tree.pool_run(self.name))
        if current is None or not current["active"]:
            raise _not_found(self.name)
        return toml.from_plain(current["definition"], pool.Pool, f"record of pool '{self.name}'")

    def _refuse_active(self) -> None:
        if not self.persistent:
            self._of_record()
        if self.active:
            raise InvalidState(
                f"storage pool '{self.name}' is still active", hint=f"qkvm pool-destroy {self.name}"
            )


def backend_of(tree: Tree, definition: spec.Pool) -> Backend:
    """Return the backend of a pool's type."""
    if definition.type == "logical":
        from qkvm.storage.pool.logical import Logical

        return Logical(tree, definition)
    from qkvm.storage.pool.folder import Folder

    return Folder(tree, definition)


def _not_found(text: str) -> NotFound:
    words = f"Storage pool not found: no storage pool with matching name '{units.printable(text)}'"
    return NotFound(words, kind="pool", name=text)


def list_pools(tree: Tree) -> list[Pool]:
    """Return all pools by name, also those with a damaged definition."""
    defined = set(entries(tree.pool_definitions, ".toml"))
    runs = entries(tree.pool_runs, ".json")
    said = {name for name in runs if (record.read(tree.pool_run(name)) or {}).get("active")}
    found = []
    for name in sorted(defined | said):
        try:
            found.append(Pool(tree, name))
        except InvalidValue:
            # No pool can have the name of this file.
            continue
    return found


def ensure_default(tree: Tree) -> None:
    """Define the default pool in a tree that never had a pool; once undefined it stays gone."""
    if os.path.isdir(tree.pool_definitions):
        return
    from qkvm.spec import toml
    from qkvm.spec.pool import default_pool

    for folder in (tree.state, tree.images, tree.config, tree.pool_definitions):
        make_private_dir(folder)
    definition = default_pool(units.random_uuid(), tree.images)
    write_atomic(tree.pool_definition(definition.name), toml.dumps(definition))


@contextmanager
def _locked(tree: Tree) -> Iterator[None]:
    """Hold the lock of a root's pools."""
    make_private_dir(tree.run)
    make_private_dir(tree.pool_runs)
    with locked(os.path.join(tree.pool_runs, ".lock"), "the set of pools"):
        yield


def _plain(tree: Tree, name: str) -> dict[str, Any]:
    """Return a definition file as plain TOML without any check; empty where it is damaged or absent."""
    import tomllib

    try:
        return tomllib.loads((read_bytes(tree.pool_definition(name)) or b"").decode())
    except ValueError:
        return {}


def _parse(text: bytes | str, path: str) -> spec.Pool:
    from qkvm.spec import pool, toml

    try:
        return pool.validate(toml.loads(text, pool.Pool, path))
    except DefinitionError:
        raise
    except InvalidValue as error:
        raise DefinitionError(path, str(error), hint=error.hint) from error


def complete(tree: Tree, text: str, path: str) -> tuple[str, spec.Pool]:
    """Return a definition and its text in TOML, with a uuid."""
    from qkvm.spec import toml
    from qkvm.spec.libvirt import pool as libvirt
    from qkvm.spec.libvirt.node import looks_like_xml

    def known(name: str) -> str:
        return Pool(tree, name).uuid if name in entries(tree.pool_definitions, ".toml") else ""

    if looks_like_xml(text):
        definition = libvirt.loads(text, path)
        if "<uuid" not in text and known(definition.name):
            definition = libvirt.loads(text, path, known_uuid=known(definition.name))
        return toml.dumps(definition), definition
    text = toml.with_uuid(text, path, known)
    return text, _parse(text, path)


def _check_identity(tree: Tree, definition: spec.Pool) -> None:
    """Refuse a second pool with the same uuid, name or folder, as libvirt does."""
    wanted = units.parse_uuid(definition.uuid)
    for pool in list_pools(tree):
        uuid = pool.uuid
        if pool.name == definition.name:
            if uuid not in ("", wanted):
                raise AlreadyExists(f"pool '{pool.name}' already exists with uuid {uuid}")
        elif uuid == wanted:
            raise AlreadyExists(f"pool '{pool.name}' is already defined with uuid {uuid}")
        elif uuid and pool.definition.path == definition.path:
            raise AlreadyExists(f"Storage source conflict with pool: '{pool.name}'")
