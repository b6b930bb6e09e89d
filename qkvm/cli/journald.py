"""journald's entries of what qkvm did: one a verb that changes something, one each of its warnings and its error.

An entry has MESSAGE, PRIORITY, QKVM_VERB, QKVM_ROOT, and of what the verb is about QKVM_DOMAIN, QKVM_NETWORK,
QKVM_POOL or QKVM_VOL, so that `journalctl QKVM_DOMAIN=vm01` tells a guest's story. Arguments are not in it: a
password may be among them. Verbs that only look leave none.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress

from qkvm.cli.context import JOURNAL
from qkvm.paths import Tree
from qkvm.units import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from qkvm.cli.parse import Args
    from qkvm.cli.verbs import Verb

_PRIORITIES = {"error": 3, "warning": 4, "info": 6}
"""syslog(3)'s levels."""

_SUBJECTS = ("domain", "network", "pool", "vol")
"""Options that say what a verb is about."""

_SILENT = frozenset(("autostart-all", "shutdown-all"))
"""Verbs whose outcomes are entries already."""


def tell(verb: Verb, args: Args, code: int, said: Sequence[tuple[str, str]]) -> None:
    """Leave the entries of a verb that has ended, and does more than look.

    :param said: kind and text of its warnings and its error.
    """
    if args.help or verb.name in _SILENT:
        return
    about = {name: args.values[name] for name in _SUBJECTS if name in args.values}
    if "raw" in verb.marks:
        about = _named(args.raw)
    what = " ".join((verb.name, *about.values()))
    for kind, text in said:
        entry(kind, f"{what}: {text}", verb.name, about)
    if code == 0:
        entry("info", what, verb.name, about)


def entry(kind: str, message: str, verb: str, about: Mapping[str, str]) -> None:
    """Leave one entry, in journald's own form (systemd.io/JOURNAL_NATIVE_PROTOCOL).

    :param kind: error, warning or info. :param about: kind and name of what it is about.
    """
    fields = {
        "MESSAGE": message, "PRIORITY": str(_PRIORITIES[kind]), "SYSLOG_IDENTIFIER": "qkvm", "QKVM_VERB": verb,
        "QKVM_ROOT": Tree().root, **{f"QKVM_{name.upper()}": value for name, value in about.items()},
    }  # fmt: skip
    # A journal that takes nothing, or not at once, keeps nobody from working.
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(datagram(fields), socket.MSG_DONTWAIT, JOURNAL)


def datagram(fields: Mapping[str, str]) -> bytes:
    """Fields as journald reads them; printable() leaves no newline, which would begin another field."""
    raw = "".join(f"{name}={printable(value)}\n" for name, value in fields.items())
    return raw.encode("utf-8", "backslashreplace")


def is_there() -> bool:
    """Whether journald takes entries here."""
    return os.path.exists(JOURNAL)


def _named(words: Sequence[str]) -> dict[str, str]:
    """The domain that install's own words name."""
    for number, word in enumerate(words):
        if word.startswith("--name="):
            return {"domain": word.partition("=")[2]}
        if word in ("--name", "-n") and number + 1 < len(words):
            return {"domain": words[number + 1]}
    return {}
