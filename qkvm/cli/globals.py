"""The options before the verb: virsh's, and qkvm's own --root and --debug without a number.

As with virsh's getopt_long, short options may be combined (-tq) or carry their value (-ex), and a long option may
be abbreviated if that is unambiguous. This module is loaded only if there are such options.
"""

from __future__ import annotations

from qkvm.cli.parse import UsageError
from qkvm.paths import SESSION, SYSTEM
from qkvm.units import printable

OPTIONS: dict[str, tuple[str, str]] = {
    "connect": ("c", "URI"),
    "debug": ("d", "NUM"),
    "escape": ("e", "CHAR"),
    "help": ("h", ""),
    "keepalive-interval": ("k", "NUM"),
    "keepalive-count": ("K", "NUM"),
    "log": ("l", "FILE"),
    "quiet": ("q", ""),
    "readonly": ("r", ""),
    "root": ("", "DIR"),
    "timing": ("t", ""),
    "version": ("v", ""),
}
"""Long name -> short name, and the name of its value ('' if it takes none)."""

URIS = (SYSTEM, SESSION)
"""The URIs of qkvm: the hypervisor of this host, with root's tree or the user's own."""

ESCAPE = "^]"
"""The key that leaves a guest's console, unless --escape names another."""

_CONTROL = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ@[\\]^_")

_LEVELS = range(5)
"""virsh's debug levels: 0 logs most, 4 errors only."""

_QUIETEST = 4


class Globals:
    """The given options, and defaults for the others."""

    __slots__ = (
        "escape", "help", "ignored", "level", "log", "quiet", "readonly", "root", "timing", "uri", "version",
    )  # fmt: skip

    def __init__(self) -> None:
        self.help = self.quiet = self.readonly = self.timing = False
        self.root: str | None = None
        self.log: str | None = None
        self.version = self.uri = ""
        self.escape = ESCAPE
        self.level = _QUIETEST
        self.ignored: list[str] = []
        """What was wrong with an option that is ignored, as in virsh."""

    def read(self, words: list[str]) -> list[str]:
        """Take the options from the front and return the rest: the verb and its words.

        :raises UsageError: an option is unknown, lacks its value, or has an invalid one.
        """
        rest = list(words)
        while rest and rest[0].startswith("-") and rest[0] != "-":
            word = rest.pop(0)
            if word == "--":
                break
            if word.startswith("--"):
                self._long(word, rest)
            else:
                self._short(word, rest)
            if self.help or self.version:
                break
        return rest

    def _long(self, word: str, rest: list[str]) -> None:
        given, equals, value = word[2:].partition("=")
        name = whole_name(given)
        if name is None or (equals and not OPTIONS[name][1] and name != "version"):
            raise _unsupported(word)
        if name == "version":
            if value not in ("", "short", "long"):
                raise _unsupported(word)
            self.version = value or "short"
        elif name == "debug" and not equals and not (rest and rest[0].isdigit()):
            self.level = _LEVELS[0]
        elif not OPTIONS[name][1]:
            self._flag(name)
        elif equals:
            self._value(name, f"--{name}", value)
        else:
            self._value(name, f"--{name}", _next(name, rest))

    def _short(self, word: str, rest: list[str]) -> None:
        for position, letter in enumerate(word[1:], 2):
            if letter == "V":
                self.version = "long"
                continue
            name = next((name for name, (short, _) in OPTIONS.items() if short == letter), None)
            if name is None:
                raise _unsupported(f"-{letter}")
            if name == "version":
                self.version = "short"
            elif not OPTIONS[name][1]:
                self._flag(name)
            else:
                self._value(name, f"-{letter}", word[position:] or _next(name, rest))
                return

    def _flag(self, name: str) -> None:
        setattr(self, name, True)

    def _value(self, name: str, option: str, value: str) -> None:
        if name == "root":
            if not value:
                raise UsageError("option '--root' requires an argument")
            self.root = value
        elif name == "log":
            self.log = value
        elif name == "connect":
            check_uri(value)
            self.uri = value
        elif name == "escape":
            _check_escape(value)
            self.escape = value
        elif name == "debug":
            if not _is_number(value):
                raise UsageError(f"option {option} takes a numeric argument")
            if int(value) in _LEVELS:
                self.level = int(value)
            else:
                self.ignored.append(f"ignoring debug level {value} out of range [0-4]")
        # Keepalives are for a connection to a daemon. qkvm has none, so it only checks that this is a number.
        elif not _is_number(value):
            raise UsageError(f"Invalid value for option {option}")
        elif int(value) < 0:
            raise UsageError(f"option {option} requires a positive integer argument")


def check_uri(uri: str) -> None:
    """Check that a URI of -c or of the verb connect is one of qkvm's.

    :raises UsageError: it is not.
    """
    if uri not in URIS:
        raise UsageError(
            f"failed to connect to the hypervisor: qkvm drives this host's QEMU itself, not '{printable(uri)}'",
            hint=f"leave the URI out, or say {SYSTEM} or {SESSION}",
        )


def _check_escape(text: str) -> None:
    """Check that this is a character, or ^ and a character for Ctrl, as in virsh."""
    with_control = len(text) == 2 and text[0] == "^" and text[1] in _CONTROL
    if not with_control and not (len(text) == 1 and text != "^" and text.isascii()):
        raise UsageError(f"Invalid string '{printable(text)}' for escape sequence")


def _next(name: str, rest: list[str]) -> str:
    if rest:
        return rest.pop(0)
    short = OPTIONS[name][0]
    shown = f"'-{short}'/'--{name}'" if short else f"'--{name}'"
    raise UsageError(f"option {shown} requires an argument")


def whole_name(given: str) -> str | None:
    """Return the full name of a long option that may be abbreviated; None if it is unknown or ambiguous."""
    if given in OPTIONS:
        return given
    matching = [name for name in OPTIONS if given and name.startswith(given)]
    return matching[0] if len(matching) == 1 else None


def _unsupported(word: str) -> UsageError:
    return UsageError(f"unsupported option '{word}'. See --help.")


def _is_number(text: str) -> bool:
    return text.removeprefix("-").isdigit() and text.isascii()
