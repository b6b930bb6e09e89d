"""What the last word of a command line can become: the completer of qkvm's own shell and of bash and zsh.

Reads only, never the monitor, and no definition where a record tells: a key press waits for it. Whatever fails on
the way gives fewer candidates, never an error.
"""

from __future__ import annotations

import os

from qkvm.api.domain import Domain
from qkvm.cli.parse import Option, looks_like_option, parse_synopsis
from qkvm.cli.verbs import GROUPS, HIDDEN, Verb, find, names
from qkvm.cli.verbs.values import DOMAINS, KINDS, NETWORKS, POOLS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from qkvm.domain.run import DeviceKind
    from qkvm.paths import Tree


class Typed:
    """The words of a command so far, sorted by option as its verb would read them.

    ``waiting`` is the option whose value comes next because it was named; ``data_only`` tells of a ``--``.
    """

    __slots__ = ("data_only", "options", "tree", "values", "verb", "waiting")

    def __init__(self, tree: Tree, verb: Verb, words: Sequence[str]) -> None:
        self.tree = tree
        self.verb = verb
        self.options = parse_synopsis(verb.synopsis)
        self.values: dict[str, list[str]] = {}
        self.waiting: Option | None = None
        self.data_only = False
        for word in words:
            self._take(word)

    def next_positional(self) -> Option | None:
        """The option that a word without a name would belong to."""
        for option in self.options.values():
            if option.positional and (option.repeated or option.name not in self.values):
                return option
        return None

    def left(self) -> list[str]:
        """The options that can still be given, with their hyphens."""
        return [
            f"--{option.name}"
            for option in self.options.values()
            if option.repeated or option.name not in self.values
        ]

    def domain(self) -> Domain | None:
        """The domain that was named, None where none was, or there is none of that name."""
        from qkvm.errors import NotFound

        try:
            return Domain.lookup(self.tree, self.values["domain"][0])
        except (KeyError, IndexError, NotFound):
            return None

    def _take(self, word: str) -> None:
        option: Option | None
        if self.waiting is not None:
            self.values.setdefault(self.waiting.name, []).append(word)
            self.waiting = None
        elif not self.data_only and word == "--":
            self.data_only = True
        elif not self.data_only and looks_like_option(word):
            name, equals, value = word[2:].partition("=")
            option = self.options.get(name)
            if option is None:
                return
            given = self.values.setdefault(name, [])
            if equals:
                given.append(value)
            elif option.kind != "flag":
                self.waiting = option
        else:
            option = self.next_positional()
            if option is not None:
                self.values.setdefault(option.name, []).append(word)


def outside(tree: Tree, words: Sequence[str]) -> list[str]:
    """What the last of the words behind ``qkvm`` can become; options may stand in front of the verb.

    :param words: may not be empty; the last one may.
    """
    try:
        return _outside(tree, list(words))
    except Exception:
        # A damaged file or a missing right: no reason to disturb who is typing.
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
        return _fitting(partial, (name for name in names() if name not in HIDDEN))
    verb = find(words[0])
    if verb is None:
        return []
    if verb.raw:
        return _fitting(partial, _install_options()) if partial.startswith("-") else []
    return _of_verb(Typed(tree, verb, words[1:-1]), partial)


def _of_verb(typed: Typed, partial: str) -> list[str]:
    if typed.waiting is not None:
        return _fitting(partial, _values(typed, typed.waiting, partial))
    if partial.startswith("-") and not typed.data_only:
        name, equals, value = partial[2:].partition("=")
        option = typed.options.get(name)
        if not equals:
            return _fitting(partial, typed.left())
        if option is None or option.kind == "flag":
            return []
        return [f"--{name}={found}" for found in _fitting(value, _values(typed, option, value))]
    option = typed.next_positional()
    found = _fitting(partial, _values(typed, option, partial)) if option is not None else []
    return found if found or partial or typed.data_only else sorted(typed.left())


def _values(typed: Typed, option: Option, partial: str) -> Iterable[str]:
    name = option.name
    kind = KINDS.get((typed.verb.name, name), KINDS.get(name, ()))
    return _PROVIDERS[kind](typed, partial) if isinstance(kind, str) else kind


def _fitting(partial: str, found: Iterable[str]) -> list[str]:
    """Those that begin as what was typed; a name that a terminal could act on is left out."""
    return sorted({word for word in found if word.startswith(partial) and word.isprintable()})


# The kinds of values.


def _domains(typed: Typed, partial: str) -> Iterable[str]:
    """Names of the domains that the verb can act upon (their ids would be as good, but are nobody's choice)."""
    from qkvm.domain import run as runs
    from qkvm.domain.handle import names as domain_names

    wanted = DOMAINS.get(typed.verb.name)
    for name in domain_names(typed.tree):
        if not name.startswith(partial):
            continue
        if wanted == "persistent":
            fits = os.path.lexists(typed.tree.domain_definition(name))
        elif wanted is None:
            fits = True
        else:
            run = runs.find(typed.tree, name)
            alive = run is not None and run.pid is not None
            fits = alive != (wanted == "inactive")
            if fits and wanted == "paused":
                fits = run is not None and run.state()[0] in ("paused", "pmsuspended")
        if fits:
            yield name


def _networks(typed: Typed, partial: str) -> Iterable[str]:
    from qkvm.net.network.handle import list_networks

    wanted = NETWORKS.get(typed.verb.name)
    return (
        entry.name for entry in list_networks(typed.tree) if wanted is None or entry.active == (wanted == "active")
    )


def _pools(typed: Typed, partial: str) -> Iterable[str]:
    from qkvm.storage.pool.pool import list_pools

    wanted = POOLS.get(typed.verb.name)
    return (pool.name for pool in list_pools(typed.tree) if wanted is None or pool.active == (wanted == "active"))


def _volumes(typed: Typed, partial: str) -> Iterable[str]:
    """Names of the volumes of the pool that was named, else the paths of those of all active pools."""
    from qkvm.storage.pool.pool import list_pools
    from qkvm.storage.pool.volume import list_volumes

    named = typed.values.get("inputpool") or typed.values.get("pool")
    for pool in list_pools(typed.tree):
        if pool.active and (not named or pool.name == named[0]):
            yield from (info.name if named else info.path for info in list_volumes(pool))


def _macs(typed: Typed, partial: str) -> Iterable[str]:
    return (entry["mac"] for entry in _devices(typed, "nics") if entry.get("mac"))


def _interfaces(typed: Typed, partial: str) -> Iterable[str]:
    """A NIC's names: its MAC address, and its interface on the host."""
    for entry in _devices(typed, "nics"):
        yield from (entry[key] for key in ("mac", "target") if entry.get(key))


def _disks(typed: Typed, partial: str) -> Iterable[str]:
    return (entry["target"] for entry in _devices(typed, "disks") if entry.get("target"))


def _throttle_groups(typed: Typed, partial: str) -> Iterable[str]:

    domain = typed.domain()
    return (group.group_name for group in domain.disks.groups.all()) if domain is not None else ()


def _snapshots(typed: Typed, partial: str) -> Iterable[str]:
    from qkvm.domain.store import snapshots as snapshotstore

    domain = typed.domain()
    return snapshotstore.names(typed.tree, domain.name) if domain is not None else ()


def _devices(typed: Typed, kind: DeviceKind) -> list[dict[str, str]]:
    """Entries of the record of the domain that was named while it runs, else of its definition."""
    domain = typed.domain()
    if domain is None:
        return []
    run = domain.run
    if run is not None and run.pid is not None:
        return run.devices(kind)
    import tomllib

    # What is in the file is enough here; to check it would take three times as long as all else.
    with open(typed.tree.domain_definition(domain.name), "rb") as stream:
        found: list[dict[str, str]] = tomllib.load(stream).get(kind, [])
    return found


def _sources(typed: Typed, partial: str) -> Iterable[str]:
    """What a new NIC can be plugged into: qkvm's networks, or any bridge of the host."""
    kind = typed.values.get("type", [""])[0]
    if kind == "network":
        return _networks(typed, partial)
    if kind != "bridge":
        return ()
    from qkvm.net.link import table

    # /sys alone may show another network namespace than this process is in.
    return (name for name in table.names() if os.path.isdir(f"/sys/class/net/{name}/bridge"))


def _links(typed: Typed, partial: str) -> Iterable[str]:
    from qkvm.net.link import table

    return table.names()


def _uplinks(typed: Typed, partial: str) -> Iterable[str]:
    from qkvm.net.uplink import uplink

    return uplink.bridges(typed.tree)


def _events(typed: Typed, partial: str) -> Iterable[str]:
    from qkvm.domain.watch.events import NAMES

    return NAMES


def _topics(typed: Typed, partial: str) -> Iterable[str]:
    from qkvm.cli.shell import guide

    if "guide" in typed.values:
        return guide.topics()
    return (*GROUPS, guide.KEYWORD, *guide.topics(), *(name for name in names() if name not in HIDDEN))


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


_PROVIDERS: dict[str, Callable[[Typed, str], Iterable[str]]] = {
    "disk": _disks,
    "domain": _domains,
    "event": _events,
    "file": lambda typed, partial: _files(partial),
    "folder": lambda typed, partial: _folders(partial),
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
