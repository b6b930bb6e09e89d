"""Debian's osinfo-db: names, sizes, install media and images of operating systems.

The database is libosinfo's: one XML file a system, such as os/debian.org/debian-12.xml. The administrator's and
the user's files replace those of the same place; files in folders named '*.d', which add devices only, are not
read. To read all 800 files takes 40 ms, to parse them 250: a search parses only files in which it finds its words.
"""

from __future__ import annotations

import os
import re
from glob import escape as escape_glob
from glob import iglob
from typing import TYPE_CHECKING, NamedTuple

from qkvm.files import os_error
from qkvm.storage.media import installtree, iso
from qkvm.xml import escape, parse

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qkvm.xml import Element

PACKAGE = "osinfo-db"
"""The package of Debian that brings the database."""

_PLACES = (
    ("OSINFO_USER_DIR", "~/.config/osinfo"),
    ("OSINFO_LOCAL_DIR", "/etc/osinfo"),
    ("OSINFO_SYSTEM_DIR", "/usr/share/osinfo"),
)
"""libosinfo's variables and its folders; of files with the same place the first counts."""

_ARCHITECTURES = ("x86_64", "all")
"""Those whose sizes count, the best first."""

_FILE_MAX = 1 << 20
"""Bytes that are read of a file; the longest has 23,000."""

_ANCESTORS = 8
"""How far back sizes are inherited; a cycle ends there."""

_VERSION = "0123456789."

_HEAD = re.compile(r"\^?(\w+)\w")
"""The letters that a pattern begins with, without the last one, to which a quantifier may belong."""


class Sizes(NamedTuple):
    """Bytes of memory, number of vCPUs and bytes of disk; 0 for what is not known."""

    memory: int = 0
    vcpus: int = 0
    disk: int = 0


class System(NamedTuple):
    """An operating system; ``names`` are its short ids, ``title`` is for people."""

    id: str
    names: tuple[str, ...]
    title: str
    minimum: Sizes
    recommended: Sizes


def is_installed() -> bool:
    """Whether there is a database."""
    return bool(_files())


def find(key: str) -> System | None:
    """Return the system of a short id, or of an id if there is '://' in it; None where there is none."""
    node = _node(key)
    return None if node is None else _system(node)


def names() -> list[tuple[str, ...]]:
    """Return the short ids of each system, in virt-install's order: by name, the newest release first."""
    found = [tuple(sorted(set(_names(node)))) for node in _systems(b"<short-id")]
    return sorted(found, key=lambda one: [(-int(w), "") if w.isdecimal() else (0, w) for w in _words(one[0])])


def has_release(key: str) -> bool:
    """Whether there is a release of the same product: debian11 for debian12, for which it may be too old."""
    stem = key.rstrip(_VERSION)
    return any(
        one.rstrip(_VERSION) == stem
        for node in _systems(escape(stem).encode())
        for one in (*_names(node), node.get("id") or "")
    )


def of_disc(path: str) -> list[System]:
    """Return the systems that a CD image or drive fits, the best first; its first volume descriptor tells.

    As libosinfo does, take what is for one architecture before what is for all. Several fit where a maker gives
    releases the same labels, as with Windows; then the newest goes first.
    """
    label = iso.label(path)
    return _fitting("media", "iso", label) if label.get("volume-id") else []


def of_tree(path: str) -> list[System]:
    """Return the systems that the .treeinfo of a folder or CD image fits. :raises HostError: it can't be read."""
    with installtree.medium(path) as source:
        return _fitting("tree", "treeinfo", installtree.general(source))


def of_image(path: str, source: str) -> list[System]:
    """Return the systems that an image fits, the best first.

    A CD image has labels; of a disk only the name can tell, if it is published under it.

    :param source: the path or URL that it came from.
    """
    name = "/" + os.path.basename(source)
    return of_disc(path) or [
        _system(node)
        for node in _systems(escape(name).encode())
        if any((image.content("url") or "").endswith(name) for image in node.all("image"))
    ]


def line(fits: list[System]) -> str:
    """Return what people read of the systems that something fits: 'debian12 (Debian 12)'; '' for none."""
    if not fits:
        return ""
    others = ", ".join(one.names[0] for one in fits[1:])
    return f"{fits[0].names[0]} ({fits[0].title})" + (f", or {others}" if others else "")


def _files() -> list[str]:
    found: dict[str, str] = {}
    for variable, usual in _PLACES:
        root = os.environ.get(variable) or os.path.expanduser(usual)
        for path in iglob(f"{escape_glob(root)}/os/*/*.xml"):
            found.setdefault(path[len(root) :], path)
    return list(found.values())


def _systems(sign: bytes, first: str = "") -> Iterator[Element]:
    """Yield the elements of systems in whose files the sign is.

    :param first: a name or id; files that are named like it are looked at first.
    :raises HostError: a file can't be read. :raises DefinitionError: it is no XML.
    """
    wanted = _plain("".join(first.split("/")[-2:]))
    for path in sorted(_files(), key=lambda path: _plain(os.path.basename(path)[:-4]) != wanted):
        try:
            with open(path, "rb") as stream:
                raw = stream.read(_FILE_MAX)
        except OSError as error:
            raise os_error(error, f"cannot read {path}") from error
        if sign in raw:
            yield from parse(raw, path).all("os")


def _plain(text: str) -> str:
    return "".join(filter(str.isalnum, text)).lower()


def _words(name: str) -> list[str]:
    return re.split(r"(\d+)", name.lower())


def _names(node: Element) -> tuple[str, ...]:
    return tuple(one.text.strip() for one in node.all("short-id")) or (node.get("id") or "",)


def _node(key: str) -> Element | None:
    for node in _systems(escape(key).encode(), key):
        if key in ((node.get("id"),) if "://" in key else _names(node)):
            return node
    return None


def _system(node: Element) -> System:
    minimum = _sizes(node, "minimum")
    # virt-install recommends the double where only the least is known.
    recommended = (more or 2 * least for more, least in zip(_sizes(node, "recommended"), minimum, strict=True))
    return System(
        node.get("id") or "", _names(node), node.content("name") or "", minimum, Sizes(*recommended)
    )  # fmt: skip


def _sizes(node: Element, kind: str, ancestors: int = _ANCESTORS) -> Sizes:
    """Return the sizes of a kind, minimum or recommended; those of the systems before where the file says so."""
    given = {one.get("arch"): one for one in node.all("resources")}
    texts = [
        [given[arch].content(f"{kind}/{name}") or "" for arch in _ARCHITECTURES if arch in given]
        for name in ("ram", "n-cpus", "storage")
    ]
    sizes = Sizes(*(next((int(text) for text in found if text.isdecimal()), 0) for found in texts))
    if ancestors and any(one.get("inherit") == "true" for one in given.values()):
        for relation in (*node.all("derives-from"), *node.all("clones")):
            before = _node(relation.get("id") or "")
            if before is not None:
                theirs = _sizes(before, kind, ancestors - 1)
                sizes = Sizes(*(own or other for own, other in zip(sizes, theirs, strict=True)))
    return sizes


def _fitting(kind: str, inner: str, seen: dict[str, str]) -> list[System]:
    """Return the systems of which a medium or tree says most closely what was seen, the newest first."""
    ranked: list[tuple[tuple[int, ...], str, System]] = []
    for node in _systems(f"<{inner}".encode()):
        fit = max((_fit(one, inner, seen) for one in node.all(kind)), default=())
        if fit:
            ranked.append((fit, node.content("release-date") or "", _system(node)))
    ranked.sort(key=lambda one: one[:2], reverse=True)
    return [system for fit, _, system in ranked if fit == ranked[0][0]]


def _fit(one: Element, inner: str, seen: dict[str, str]) -> tuple[int, ...]:
    """Return how closely a medium or tree says what was seen; () if it does not.

    Patterns are searched for, as libosinfo does, not anchored.
    """
    described = one.find(inner)
    marks = [part for part in described or () if part.tag in seen]
    if marks and all(_is_like(part.text.strip(), seen[part.tag], part.tag) for part in marks):
        return one.get("arch") != "all", len(marks)
    return ()


def _is_like(pattern: str, text: str, tag: str) -> bool:
    if tag == "volume-size":
        return pattern == text
    # To compile all of 2500 patterns takes half a second, and most begin with letters that are not there.
    head = _HEAD.match(pattern) if "|" not in pattern else None
    if not text or (head is not None and head[1] not in text):
        return False
    try:
        return re.search(pattern, text) is not None
    except re.error:
        return False
