"""A log of what is said to a domain's QEMU and agent, without secrets (qkvm help tracing)."""

from __future__ import annotations

import json
import os
import re
import sys
import time

from qkvm.errors import CommandRefused
from qkvm.files import read_bytes, trim_log
from qkvm.paths import VERB_VARIABLE
from qkvm.units import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from qkvm.paths import Tree

    T = TypeVar("T")

TRACE_VARIABLE = "QKVM_TRACE"
"""1 turns transcripts on, 0 off; it overrides the settings."""

_CAP = 1 << 20
"""Most bytes of a transcript; a longer one is cut to its newest half."""

_LONGEST = 2000
"""Most characters of arguments, or of an answer, in a line."""

_HIDDEN = "…"
_SECRETS = re.compile("password|passwd|passphrase|secret|private")
"""Parts of names whose values are left out."""

_CONTENTS = frozenset(("arg", "buf-b64", "data", "env", "err-data", "events", "input-data", "keys", "out-data"))
"""Names whose values are left out: content of files, keystrokes, arguments of programs, data of secret objects."""


def of(tree: Tree, domain: str) -> Transcript | None:
    """Return the transcript of a domain; None if none is kept."""
    wanted = os.environ.get(TRACE_VARIABLE)
    if wanted is None:
        # Parsing the settings takes longer than most verbs, so a file that does not mention it is not parsed.
        if b"trace" not in (read_bytes(tree.settings) or b""):
            return None
        from qkvm.host import settings

        wanted = "1" if settings.load(tree).trace else "0"
    return None if wanted in ("", "0") else Transcript(tree.transcript(domain))


class Transcript:
    """Appends lines to the file at ``path``, and creates it if needed."""

    def __init__(self, path: str) -> None:
        self._path = path
        who = os.environ.get(VERB_VARIABLE) or os.path.basename(sys.argv[0]) or "python"
        self._who = f"{printable(who)}[{os.getpid()}]"

    def follow(self, command: str, arguments: dict[str, Any] | None, run: Callable[[], T]) -> T:
        """Note a command, run it, and note its answer or its error."""
        self.sent(command, arguments)
        try:
            answer = run()
        except BaseException as error:
            self.failed(command, error.desc if isinstance(error, CommandRefused) else repr(error))
            raise
        self.answered(command, answer)
        return answer

    def sent(self, command: str, arguments: dict[str, Any] | None) -> None:
        """Note a command that is about to be sent."""
        self._write(">", command, arguments or {})

    def answered(self, command: str, answer: Any) -> None:
        """Note what a command returned. Plain text is left out: it may be the guest's memory or console."""
        self._write("<", command, _HIDDEN if isinstance(answer, str) else answer)

    def failed(self, command: str, why: str) -> None:
        """Note why a command returned nothing."""
        self._write("!", command, why)

    def _write(self, sign: str, command: str, value: Any) -> None:
        now = time.time()
        when = f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(now))}.{int(now % 1 * 1000):03}Z"
        try:
            line = f"{when} {self._who} {sign} {printable(f'{command} {_text(value)}')}\n"
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            # A pipe in the file's place that nobody reads would hold the verb for ever.
            flags |= os.O_NONBLOCK
            with open(os.open(self._path, flags, 0o600), "ab", buffering=0) as stream:
                stream.write(line.encode("utf-8", "backslashreplace"))
                size = os.fstat(stream.fileno()).st_size
            if size > _CAP:
                trim_log(self._path, _CAP)
        except (OSError, RecursionError):
            # A full disk, or nonsense from a hostile guest, must not stop a verb.
            pass


def _text(value: Any) -> str:
    """Return a text unchanged, anything else as JSON without secrets; both without passwords in URLs."""
    text = value if isinstance(value, str) else json.dumps(_public(value), ensure_ascii=False)
    text = re.sub(r'//[^/@\s"]+@', f"//{_HIDDEN}@", text)
    return f"{text[:_LONGEST]} and {len(text) - _LONGEST} characters more" if len(text) > _LONGEST else text


def _public(value: Any) -> Any:
    if isinstance(value, list):
        return [_public(one) for one in value]
    if isinstance(value, dict):
        # qom-set names a property, and its value apart.
        named = _is_secret(str(value.get("property", "")), "")
        return {
            name: _HIDDEN if _is_secret(name, one) or (named and name == "value") else _line(name, one)
            for name, one in value.items()
        }
    return value


def _is_secret(name: str, value: Any) -> bool:
    return bool(_SECRETS.search(name)) or (name in _CONTENTS and not isinstance(value, dict))


def _line(name: str, value: Any) -> Any:
    """Return a value to show; of a line of the human monitor only the first word, unless that is 'info'."""
    if name != "command-line" or not isinstance(value, str) or value.startswith("info "):
        return _public(value)
    return f"{value.partition(' ')[0]} {_HIDDEN}"
