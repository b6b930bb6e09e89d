"""What the last word of a command line can become: the completer of qkvm's own shell and of bash and zsh.

Reads only, never the monitor, and no definition where a record tells: a key press waits for it. Whatever fails on
the way gives fewer candidates, never an error.
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
    """What the last of the words behind ``qkvm`` can become; options may stand in front of the verb.

    :param words: may not be empty; the last one may.
    """
    try:
        return _outside(tree, list(words))
    except Exception:
        # A damaged file or a missing right: an error would only disturb the user, who is typing.
        return []


def candidates(tree: Tree, words: Sequence[str]) -> list[str]:
    """What the last of a command's words can become: whole words, sorted. Values first, options if there are none.

    :param words: may not be empty; the last one may.
    """
    try:
        return _candidates(tree, words)
    except Exception:
        # As above.
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
        return _fitting(partial, _install_options()) if partial.startswith("-") else []
    typed = Typed(verb)
    for word in words[1:-1]:
        try:
            typed.take(word)
        except UsageError:
            # The verb itself will tell; what follows can be completed nevertheless.
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
    """What a value is looked for: what was typed of it, the option that it is of, and the words before it."""

    __slots__ = ("option", "partial", "tree", "typed")

    def __init__(self, tree: Tree, typed: Typed, option: Option, partial: str) -> None:
        self.tree = tree
        self.typed = typed
        self.option = option
        self.partial = partial

    def given(self, name: str) -> str | None:
        """The value of another option, None where it was not given."""
        values = self.typed.values.get(name)
        return values[0] if values else None

    def fits(self, active: bool) -> bool:
        """Whether a network or pool is in the state that the verb needs."""
        return self.option.values not in _STATES or active == (self.option.values == "active")

    def domain(self) -> Domain | None:
        """The domain that was named, None where none was, or there is none of that name."""
        from qkvm.api.domain import Domain
        from qkvm.errors import NotFound

        name = self.given("domain")
        try:
            return Domain.lookup(self.tree, name) if name is not None else None
        except NotFound:
            return None


_STATES = ("active", "inactive", "paused", "persistent", "running")
"""Values that narrow the usual ones of an option."""


def _values(asked: Asked) -> Iterable[str]:
    values = asked.option.values
    if not values or values in _STATES:
        values, _ = usual(asked.option.name)
    provider = _PROVIDERS.get(values)
    return provider(asked) if provider is not None else values.split("|")


def _fitting(partial: str, found: Iterable[str]) -> list[str]:
    """Return what begins with the typed text, without names that a terminal could act on."""
    return sorted({word for word in found if word.startswith(partial) and word.isprintable()})


# The kinds of values.


def _domains(asked: Asked) -> Iterable[str]:
    """Names of the domains that the verb can act upon (not their ids: nobody types those)."""
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
    """Names of the volumes of the pool that was named, else the paths of those of all active pools."""
    from qkvm.storage.pool.pool import list_pools
    from qkvm.storage.pool.volume import list_volumes

    named = asked.given("inputpool") or asked.given("pool")
    for pool in list_pools(asked.tree):
        if pool.active and (not named or pool.name == named):
            yield from (info.name if named else info.path for info in list_volumes(pool))


def _macs(asked: Asked) -> Iterable[str]:
    return (entry["mac"] for entry in _devices(asked, "nics") if entry.get("mac"))


def _interfaces(asked: Asked) -> Iterable[str]:
    """A NIC's names: its MAC address, and its interface on the host."""
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
    """Entries of the record of the domain that was named while it runs, else of its definition."""
    domain = asked.domain()
    if domain is None:
        return []
    run = domain.run
    if run is not None and run.pid is not None:
        return run.devices(kind)
    import tomllib

    # What is in the file is enough here; to check it would take three times as long as all else.
    with open(asked.tree.domain_definition(domain.name), "rb") as stream:
        found: list[dict[str, str]] = tomllib.load(stream).get(kind, [])
    return found


def _sources(asked: Asked) -> Iterable[str]:
    """What a new NIC can be plugged into: qkvm's networks, or any bridge of the host."""
    kind = asked.given("type")
    if kind == "network":
        return _networks(asked)
    if kind != "bridge":
        return ()
    from qkvm.net.link import table

    # /sys alone may show another network namespace than this process is in.
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


def _install_options() -> Iterable[str]:
    from qkvm.cli.install.table import OPTIONS

    return (f"--{name}" for name in OPTIONS)


def _files(partial: str, *, folders_only: bool = False) -> Iterable[str]:
    """Files and folders, the latter with a slash behind them; hidden ones where a dot was typed."""
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
