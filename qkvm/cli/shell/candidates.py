"""Candidates for the last word of a command line: the completer of qkvm's own shell, bash and zsh.

This only reads. It never asks the monitor, and prefers a record to a definition, since every key press waits for
it. An error on the way reduces the candidates and is never shown.
"""

from __future__ import annotations

import os

from qkvm.cli.parse import Option, Typed, UsageError
from qkvm.cli.verbs import find, listed
from qkvm.cli.verbs.options import usual

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from qkvm.api.domain import Domain
    from qkvm.domain.run import DeviceKind
    from qkvm.paths import Tree


def outside(tree: Tree, words: Sequence[str]) -> list[str]:
    """Return the candidates for the last of the words after ``qkvm``; options may precede the verb.

    :param words: not empty; the last one may be ''.
    """
    try:
        return _outside(tree, list(words))
    except Exception:
        # A damaged file or a missing right: an error message would disturb the user's typing.
        return []


def candidates(tree: Tree, words: Sequence[str]) -> list[str]:
    """Return the candidates for the last of a command's words: whole words, sorted.

    These are values, or options if there are no values.

    :param words: not empty; the last one may be ''.
    """
    try:
        return _candidates(tree, words)
    except Exception:
        # As in outside().
        return []


def _outside(tree: Tree, rest: list[str]) -> list[str]:
    from qkvm.cli.globals import OPTIONS, URIS, whole_name
    from qkvm.paths import ROOT_VARIABLE, Tree, default_root

    while rest[0].startswith("-"):
        option, equals, value = rest[0].partition("=")
        if len(rest) == 1 and not equals:
            return _fitting(option, (f"--{name}" for name in OPTIONS))
        if option.startswith("--"):
            name = whole_name(option[2:])
        else:
            name = next((name for name, (short, _) in OPTIONS.items() if short and short == option[-1]), None)
        if name is not None and OPTIONS[name][1] and not equals and (name != "debug" or rest[1].isdigit()):
            option, value = "", rest.pop(1)
        rest.pop(0)
        if not rest:
            kinds = {"connect": URIS, "log": _files(value), "root": _folders(value)}
            found = _fitting(value, kinds.get(name or "", ()))
            return [f"{option}={word}" for word in found] if equals else found
        if name == "root":
            tree = Tree(value)
        elif name == "connect" and not os.environ.get(ROOT_VARIABLE):
            tree = Tree(default_root(value))
    return _candidates(tree, rest)


def _candidates(tree: Tree, words: Sequence[str]) -> list[str]:
    partial = words[-1]
    if len(words) == 1:
        return _fitting(partial, (verb.name for verb in listed()))
    verb = find(words[0])
    if verb is None:
        return []
    if "raw" in verb.marks:
        if partial.startswith("-"):
            from qkvm.cli.shell.usage import raw_module

            return _fitting(partial, (f"--{name}" for name in raw_module(verb).options()))
        return _fitting(partial, _base_images(tree)) if verb.name == "run" and len(words) == 2 else []
    typed = Typed(verb)
    for word in words[1:-1]:
        try:
            typed.take(word)
        except UsageError:
            # The verb reports this error; the following words can still be completed.
            continue
    return _of_verb(tree, typed, partial)


def _of_verb(tree: Tree, typed: Typed, partial: str) -> list[str]:
    if typed.waiting is not None:
        return _fitting(partial, _values(Asked(tree, typed, typed.waiting, partial)))
    left = [f"--{option.name}" for option in typed.options.values() if typed.can_be_given(option)]
    if partial.startswith("-") and not typed.data_only:
        name, equals, value = partial[2:].partition("=")
        option = typed.options.get(name)
        if not equals:
            return _fitting(partial, left)
        if option is None or option.kind == "flag":
            return []
        return [f"--{name}={found}" for found in _fitting(value, _values(Asked(tree, typed, option, value)))]
    option = typed.next_positional()
    found = _fitting(partial, _values(Asked(tree, typed, option, partial))) if option is not None else []
    return found if found or partial or typed.data_only else sorted(left)


class Asked:
    """The value to complete: the typed part, its option, and the words before it."""

    __slots__ = ("option", "partial", "tree", "typed")

    def __init__(self, tree: Tree, typed: Typed, option: Option, partial: str) -> None:
        self.tree = tree
        self.typed = typed
        self.option = option
        self.partial = partial

    def given(self, name: str) -> str | None:
        """Return the value of another option; None if it was not given."""
        values = self.typed.values.get(name)
        return values[0] if values else None

    def fits(self, active: bool) -> bool:
        """Return whether a network or pool is in the state that the verb needs."""
        return self.option.values not in _STATES or active == (self.option.values == "active")

    def domain(self) -> Domain | None:
        """Return the named domain; None if none was named or it does not exist."""
        from qkvm.api.domain import Domain
        from qkvm.errors import NotFound

        name = self.given("domain")
        try:
            return Domain.lookup(self.tree, name) if name is not None else None
        except NotFound:
            return None


_STATES = ("active", "inactive", "paused", "persistent", "running")
"""Filters for the usual values of an option."""


def _values(asked: Asked) -> Iterable[str]:
    values = asked.option.values
    if not values or values in _STATES:
        values, _ = usual(asked.option.name)
    provider = _PROVIDERS.get(values)
    return provider(asked) if provider is not None else values.split("|")


def _fitting(partial: str, found: Iterable[str]) -> list[str]:
    """Return what begins with the typed text, without names that contain control characters for a terminal."""
    return sorted({word for word in found if word.startswith(partial) and word.isprintable()})


# The kinds of values.


def _domains(asked: Asked) -> Iterable[str]:
    """Return the names of the domains that the verb can act on; not their ids, which are rarely typed."""
    from qkvm.domain import run as runs
    from qkvm.domain.handle import names as domain_names

    wanted = asked.option.values
    for name in domain_names(asked.tree):
        if not name.startswith(asked.partial):
            continue
        if wanted == "persistent":
            fits = os.path.lexists(asked.tree.domain_definition(name))
        elif wanted not in _STATES:
            fits = True
        else:
            run = runs.find(asked.tree, name)
            alive = run is not None and run.pid is not None
            fits = alive != (wanted == "inactive")
            if fits and wanted == "paused":
                fits = run is not None and run.state()[0] in ("paused", "pmsuspended")
        if fits:
            yield name


def _networks(asked: Asked) -> Iterable[str]:
    from qkvm.net.network.handle import list_networks

    return (network.name for network in list_networks(asked.tree) if asked.fits(network.active))


def _pools(asked: Asked) -> Iterable[str]:
    from qkvm.storage.pool.pool import list_pools

    return (pool.name for pool in list_pools(asked.tree) if asked.fits(pool.active))


def _volumes(asked: Asked) -> Iterable[str]:
    """Return the names of the volumes of the named pool; without one, the paths of volumes in all active pools."""
    from qkvm.storage.pool.pool import list_pools
    from qkvm.storage.pool.volume import list_volumes

    named = asked.given("inputpool") or asked.given("pool")
    for pool in list_pools(asked.tree):
        if pool.active and (not named or pool.name == named):
            yield from (info.name if named else info.path for info in list_volumes(pool))


def _base_images(tree: Tree) -> Iterable[str]:
    from qkvm.storage.base import store

    return store.names(tree)


def _macs(asked: Asked) -> Iterable[str]:
    return (entry["mac"] for entry in _devices(asked, "nics") if entry.get("mac"))


def _interfaces(asked: Asked) -> Iterable[str]:
    """Return the names of each NIC: its MAC address and its interface on the host."""
    for entry in _devices(asked, "nics"):
        yield from (entry[key] for key in ("mac", "target") if entry.get(key))


def _disks(asked: Asked) -> Iterable[str]:
    return (entry["target"] for entry in _devices(asked, "disks") if entry.get("target"))


def _throttle_groups(asked: Asked) -> Iterable[str]:
    domain = asked.domain()
    return (group.group_name for group in domain.disks.groups.all()) if domain is not None else ()


def _snapshots(asked: Asked) -> Iterable[str]:
    from qkvm.domain.store import snapshots as snapshotstore

    domain = asked.domain()
    return snapshotstore.names(asked.tree, domain.name) if domain is not None else ()


def _devices(asked: Asked, kind: DeviceKind) -> list[dict[str, str]]:
    """Return entries of the named domain: from its record while it is running, else from its definition."""
    domain = asked.domain()
    if domain is None:
        return []
    run = domain.run
    if run is not None and run.pid is not None:
        return run.devices(kind)
    import tomllib

    # Read the file without checks; they would take three times as long as the rest.
    with open(asked.tree.domain_definition(domain.name), "rb") as stream:
        found: list[dict[str, str]] = tomllib.load(stream).get(kind, [])
    return found


def _sources(asked: Asked) -> Iterable[str]:
    """Return what a new NIC can be connected to: qkvm's networks, or any bridge of the host."""
    kind = asked.given("type")
    if kind == "network":
        return _networks(asked)
    if kind != "bridge":
        return ()
    from qkvm.net.link import table

    # /sys may show another network namespace than this process is in.
    return (name for name in table.names() if os.path.isdir(f"/sys/class/net/{name}/bridge"))


def _links(asked: Asked) -> Iterable[str]:
    from qkvm.net.link import table

    return table.names()


def _uplinks(asked: Asked) -> Iterable[str]:
    from qkvm.net.uplink import uplink

    return uplink.bridges(asked.tree)


def _events(asked: Asked) -> Iterable[str]:
    from qkvm.domain.watch.events import NAMES

    return NAMES


def _topics(asked: Asked) -> Iterable[str]:
    from qkvm.cli.shell import guide
    from qkvm.cli.shell.usage import GROUPS

    if "guide" in asked.typed.values:
        return guide.topics()
    return (*GROUPS, guide.KEYWORD, *guide.topics(), *(verb.name for verb in listed()))


def _files(partial: str, *, folders_only: bool = False) -> Iterable[str]:
    """Return files and folders, folders with a slash at the end; hidden ones only if a dot was typed."""
    begin = partial.rpartition("/")[2]
    typed = partial[: len(partial) - len(begin)]
    for entry in os.scandir(os.path.expanduser(typed) or "."):
        if entry.name.startswith(".") and not begin.startswith("."):
            continue
        if entry.is_dir():
            yield f"{typed}{entry.name}/"
        elif not folders_only:
            yield f"{typed}{entry.name}"


def _folders(partial: str) -> Iterable[str]:
    return _files(partial, folders_only=True)


_PROVIDERS: dict[str, Callable[[Asked], Iterable[str]]] = {
    "": lambda asked: (),
    "any": lambda asked: (),
    "disk": _disks,
    "domain": _domains,
    "event": _events,
    "file": lambda asked: _files(asked.partial),
    "folder": lambda asked: _folders(asked.partial),
    "image": lambda asked: _base_images(asked.tree),
    "interface": _interfaces,
    "link": _links,
    "mac": _macs,
    "network": _networks,
    "pool": _pools,
    "snapshot": _snapshots,
    "source": _sources,
    "throttlegroup": _throttle_groups,
    "topic": _topics,
    "uplink": _uplinks,
    "volume": _volumes,
}
