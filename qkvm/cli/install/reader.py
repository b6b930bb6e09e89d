"""Read virt-install's options and suboptions, such as '--memory 512,maxmemory=1024', by the tables."""

from __future__ import annotations

import re
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import cache
from typing import TypeVar

from qkvm.cli.install.suboptions import BARE, CPU_LISTS, POSITIONS, REPEATED, SUBOPTIONS
from qkvm.cli.install.suboptions import REFUSED as REFUSED_SUBOPTIONS
from qkvm.cli.install.table import ALIASES, OPTIONS, REFUSED
from qkvm.cli.parse import UsageError
from qkvm.spec.disk import DiskFormat, format_hint
from qkvm.units import parse_count, printable

T = TypeVar("T", bound=StrEnum)

_YES = ("on", "yes", "true", "1")
_NO = ("off", "no", "false", "0")
_CPUS = re.compile(r"\^?\d{1,4}(-\d{1,4})?")


class Suboptions:
    """The given suboptions of one option, by their listed names."""

    __slots__ = ("name", "values")

    def __init__(self, name: str, values: dict[str, str]) -> None:
        self.name = name
        self.values = values

    def text(self, key: str, default: str = "") -> str:
        """Return the suboption's value, or the default."""
        return self.values.get(key, default)

    def has(self, key: str) -> bool:
        """Return whether the suboption was given."""
        return key in self.values

    def flag(self, key: str, default: bool = False) -> bool:
        """Return a yes-or-no suboption (on, yes, true, 1); the default if it was not given."""
        chosen = self.switch(key)
        return default if chosen is None else chosen

    def switch(self, key: str) -> bool | None:
        """Return a yes-or-no suboption; None if it was not given."""
        text = self.values.get(key)
        if text is None:
            return None
        if text.lower() not in _YES + _NO:
            raise UsageError(f"--{self.name} {key}={printable(text)}: yes or no was expected")
        return text.lower() in _YES

    def count(self, key: str, default: int = 0, *, minimum: int = 0, maximum: int = 1 << 31) -> int:
        """Return a whole number; the default if it was not given."""
        if key not in self.values:
            return default
        return parse_count(self.values[key], key, minimum=minimum, maximum=maximum)

    def choice(self, key: str, kind: type[T], default: T) -> T:
        """Return a member of an enumeration; the default if it was not given."""
        return choose(kind, self.values[key], f"--{self.name} {key}") if key in self.values else default

    def several(self, key: str) -> list[str]:
        """Return the values of a suboption that may be given several times."""
        return [text for text in self.values.get(key, "").split("\n") if text]

    def numbered(self, prefix: str) -> list[Suboptions]:
        """Return the groups of numbered suboptions: path and weight for each of device0.path, device0.weight, …"""
        pattern = re.compile(re.escape(prefix) + r"(\d*)(?:\.(.+))?")
        groups: dict[int, dict[str, str]] = {}
        for key, value in self.values.items():
            found = pattern.fullmatch(key)
            if found:
                groups.setdefault(int(found[1] or 0), {})[found[2] or ""] = value
        return [Suboptions(self.name, groups[number]) for number in sorted(groups)]

    def only(self, key: str, *allowed: str) -> None:
        """Refuse a value that virt-install knows and qkvm does not support."""
        if key in self.values and self.values[key] not in allowed:
            raise UsageError(
                f"--{self.name} {key}={printable(self.values[key])} is not supported", hint=", ".join(allowed)
            )

    def exclude(self, *keys: str, reason: str) -> None:
        """Refuse suboptions that contradict other options."""
        for key in keys:
            if key in self.values:
                raise UsageError(f"--{self.name} {key}= can't be given here: {reason}")


class Options:
    """All options of an install line."""

    __slots__ = ("_given",)

    def __init__(self, given: dict[str, list[str]]) -> None:
        self._given = given

    def has(self, name: str) -> bool:
        """Return whether the option was given."""
        return name in self._given

    flag = has

    def plus(self, added: dict[str, str]) -> Options:
        """Return these options and others, each given once."""
        return Options({**self._given, **{name: [text] for name, text in added.items()}})

    def names(self) -> list[str]:
        """Return the names of the given options."""
        return list(self._given)

    def single(self, name: str, default: str | None = None) -> str:
        """Return the value of an option without suboptions.

        :raises UsageError: it was not given and has no default.
        """
        if name in self._given:
            return self._given[name][0]
        if default is None:
            raise UsageError(f"--{name} is required")
        return default

    def every(self, name: str) -> list[str]:
        """Return the values of an option without suboptions that may be given several times."""
        return self._given.get(name, [])

    def first(self, name: str) -> Suboptions:
        """Return the suboptions of an option; empty if it was not given."""
        given = self.each(name)
        return given[0] if given else Suboptions(name, {})

    def each(self, name: str) -> list[Suboptions]:
        """Return the suboptions for each time that the option was given."""
        return [split(name, text) for text in self._given.get(name, [])]


def choose(kind: type[T], text: str, what: str) -> T:
    """Return the enumeration's member of that name.

    :raises UsageError: there is no such member.
    """
    try:
        return kind(text)
    except ValueError:
        hint = format_hint(text) if kind is DiskFormat else ", ".join(filter(None, kind))
        raise UsageError(f"{what} '{printable(text)}' is not known", hint=hint) from None


def read(
    words: list[str], known: dict[str, tuple[str, str]] = OPTIONS, verb: str = "install", place: str = ""
) -> Options:
    """Return the options of an install line: '--name X' or '--name=X'.

    :param known: the options of another verb. :param place: the option whose value needs no name, '' for none.
    :raises UsageError: an option is unknown, lacks its value, or is given twice.
    """
    given: dict[str, list[str]] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if place and not word.startswith("-"):
            word = f"--{place}={word}"
        name, equals, value = _option(word, known, verb)
        how = known[name][0]
        optional = how.startswith("[")
        if not how:
            if equals:
                raise UsageError(f"--{name} takes no value")
        elif optional:
            # As in argparse, a word that looks like an option is not the value.
            if not equals and rest and (not rest[0].startswith("-") or rest[0].lstrip("-").isdigit()):
                value = rest.pop(0)
        elif not equals:
            if not rest:
                raise UsageError(f"argument --{name}: expected one argument")
            value = rest.pop(0)
        if name in given and not how.endswith("*"):
            raise UsageError(f"--{name} was given twice")
        given.setdefault(name, []).append(value)
    return Options(given)


def questions(words: list[str]) -> list[str]:
    """Return the options whose suboptions the user asks for: '--disk=?', '--disk ?' and '--disk help'."""
    found = []
    for number, word in enumerate(words):
        option, equals, value = word.partition("=")
        following = value if equals else (words[number + 1] if number + 1 < len(words) else "")
        if word.startswith("-") and (following == "?" or (following == "help" and _takes_suboptions(option))):
            found.append(option)
    return found


def _takes_suboptions(option: str) -> bool:
    return _name(option) in SUBOPTIONS


def _name(option: str) -> str:
    return ALIASES.get(option) or (option[2:] if option.startswith("--") else "")


def _option(word: str, known: dict[str, tuple[str, str]] = OPTIONS, verb: str = "install") -> tuple[str, str, str]:
    """Return name, '=' or '', and value of a word that must be an option."""
    option, equals, value = word.partition("=")
    name = _name(option)
    if name in REFUSED and name not in known:
        reason, hint = REFUSED[name]
        raise UsageError(f"--{name} is not supported: {reason}", hint=hint)
    if name not in known:
        raise UsageError(
            f"unrecognized arguments: {printable(word)}", hint=f"qkvm {verb} --help lists the options"
        )
    return name, equals, value


@cache
def _known(option: str) -> tuple[tuple[re.Pattern[str], str], ...]:
    """Return the patterns of all names of each suboption, with its listed name."""
    found = []
    for entry in SUBOPTIONS[option].split():
        names = [name.removeprefix("~") for name in entry.split("|")]
        for name in names:
            pattern = re.escape(name).replace(re.escape("[0-9]*"), "[0-9]*").replace(r"\.", "[._]")
            found.append((re.compile(pattern), names[0]))
    return tuple(found)


def _canonical(option: str, key: str) -> str:
    """Return the listed name of a suboption, with its number if it has one.

    :raises UsageError: the suboption is unknown or refused.
    """
    for pattern, name in _known(option):
        if pattern.fullmatch(key):
            return key if "[0-9]*" in name else name
    for patterns in (REFUSED_SUBOPTIONS.get(option, {}), REFUSED_SUBOPTIONS[""]):
        for glob, reason in patterns.items():
            if fnmatchcase(key, glob) or fnmatchcase(key, glob.replace(".", "_")):
                raise UsageError(f"--{option} {printable(key)}= is not supported: {reason}")
    raise UsageError(f"Unknown --{option} options: ['{printable(key)}']", hint=f"qkvm install --{option}=?")


def split(option: str, text: str) -> Suboptions:
    """Split 'a=1,b=2' into suboptions; a doubled comma is a comma inside a value.

    :raises UsageError: a suboption is unknown or given twice.
    """
    values: dict[str, str] = {}
    if not text and OPTIONS[option][0].startswith("["):
        return Suboptions(option, values)
    positions = POSITIONS.get(option, (SUBOPTIONS[option].split()[0].split("|")[0],))
    last = ""
    for number, part in enumerate(text.replace(",,", "\0").split(",")):
        key, equals, value = part.replace("\0", ",").partition("=")
        if option == "cpu" and not equals and key[:1] in ("+", "-") and number:
            # '+vmx' and '-vmx' are short for force=vmx and disable=vmx.
            key, value = ("force" if key[0] == "+" else "disable"), key[1:]
        elif not equals and key in BARE.get(option, ()):
            value = "yes"
        elif not equals and _CPUS.fullmatch(key) and last.endswith(CPU_LISTS.get(option, ("\0",))):
            values[last] += f",{key}"
            continue
        elif not equals and number < len(positions) and key:
            # The first suboption's name may be left out.
            key, value = positions[number], key
        elif not equals:
            raise UsageError(
                f"Unknown --{option} options: ['{printable(key)}']", hint=f"qkvm install --{option}=?"
            )
        last = _canonical(option, key)
        if last in values and last in REPEATED.get(option, ()):
            values[last] += f"\n{value}"
        elif last in values:
            raise UsageError(f"--{option}: {last} was given twice")
        else:
            values[last] = value
    return Suboptions(option, values)


def describe(option: str) -> str:
    """Return what --OPTION=? prints: the option and its suboptions.

    :raises UsageError: there is no such option.
    """
    name = _option(option)[0]
    if name in SUBOPTIONS:
        listed = {
            word for entry in SUBOPTIONS[name].split() for word in entry.split("|") if not word.startswith("~")
        }
        return f"--{name} options:\n" + "".join(f"  {word}\n" for word in sorted(listed))
    return f"--{name} {OPTIONS[name][0].rstrip('*')}".rstrip() + "\n"
