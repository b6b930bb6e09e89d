"""Entries in the journal: one for each verb that changes something, and one for each warning and error of it.

An entry has MESSAGE, PRIORITY, QKVM_VERB, QKVM_ROOT, and, by the verb's subject, QKVM_DOMAIN, QKVM_NETWORK,
QKVM_POOL or QKVM_VOL, so that `journalctl QKVM_DOMAIN=vm01` shows a guest's history. Entries contain no arguments,
since these may include passwords. Verbs that change nothing write no entries.
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
"""Options that name a verb's subject."""

_SILENT = frozenset(("autostart-all", "shutdown-all"))
"""Verbs that write an entry for each outcome themselves."""


def tell(verb: Verb, args: Args, code: int, said: Sequence[tuple[str, str]]) -> None:
    """Write the entries of a verb that has ended, if it does not only look.

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
    """Write one entry, in journald's own format (systemd.io/JOURNAL_NATIVE_PROTOCOL).

    :param kind: error, warning or info. :param about: kind and name of the subject.
    """
    fields = {
        "MESSAGE": message, "PRIORITY": str(_PRIORITIES[kind]), "SYSLOG_IDENTIFIER": "qkvm", "QKVM_VERB": verb,
        "QKVM_ROOT": Tree().root, **{f"QKVM_{name.upper()}": value for name, value in about.items()},
    }  # fmt: skip
    # If the journal does not accept the entry at once, drop it: work must go on.
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.sendto(datagram(fields), socket.MSG_DONTWAIT, JOURNAL)


def datagram(fields: Mapping[str, str]) -> bytes:
    """Return fields in journald's format; printable() removes newlines, which would begin another field."""
    raw = "".join(f"{name}={printable(value)}\n" for name, value in fields.items())
    return raw.encode("utf-8", "backslashreplace")


def is_there() -> bool:
    """Return whether journald accepts entries here."""
    return os.path.exists(JOURNAL)


def _named(words: Sequence[str]) -> dict[str, str]:
    """Return the domain that the words of install name."""
    for number, word in enumerate(words):
        if word.startswith("--name="):
            return {"domain": word.partition("=")[2]}
        if word in ("--name", "-n") and number + 1 < len(words):
            return {"domain": words[number + 1]}
    return {}
