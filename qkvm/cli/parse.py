"""virsh's option rules: parse a verb's words to :class:`Args`, or raise one error in virsh's words.

The rules: --opt value and --opt=value; required options, then optional values, also by position; flags; ``--``
ends the options; no abbreviations; only a repeated option may be given twice.
"""

from __future__ import annotations

from qkvm.errors import InvalidValue
from qkvm.units import parse_count, parse_size, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.cli.verbs import Verb

NUMBER_MAX = (1 << 31) - 1
"""Largest <number>, as for virsh's int options."""


class UsageError(InvalidValue):
    """The command line itself is wrong; the verb has not started."""


class Option:
    """One option of a verb, parsed from the table (notation: :mod:`qkvm.cli.verbs`).

    ``kind`` is flag, string, number, signed or size; ``shown`` is the word in angle brackets. ``values`` are the
    possible values and ``meaning`` is the help text; both are "" for the usual ones (verbs.options).
    """

    __slots__ = ("changes", "kind", "meaning", "name", "positional", "repeated", "required", "shown", "values")

    def __init__(self, item: str, meaning: str) -> None:
        """:raises ValueError: the item is not in the notation."""
        word = item.removesuffix("!")
        body = word.removesuffix("...")
        self.changes = word != item
        self.repeated = body != word
        self.required = body.startswith("<")
        value = ""
        if body.startswith("[--"):
            self.name, by_name_only, value = body[3:-1].partition("=")
            if not by_name_only:
                self.name, _, value = self.name.partition(" ")
            self.positional = bool(value) and not by_name_only
            self.shown, _, type_ = value[1:-1].partition(":")
        else:
            self.name, _, type_ = body[1:-1].partition(":")
            self.positional = self.required or self.repeated
            self.shown = "string" if self.repeated else self.name
        if body[:1] + body[-1:] not in ("<>", "[]") or value[:1] + value[-1:] not in ("<>", "") or not self.name:
            raise ValueError(f"{item!r} is not in the notation of an option")
        kind = type_ or self.shown
        self.kind = kind if kind in _NUMBERS else "string" if kind else "flag"
        self.values = type_ if self.kind == "string" else ""
        self.meaning = meaning


_NUMBERS = ("number", "signed", "size")


class Args:
    """The options that the user gave to one verb.

    A query for an option that the verb's table does not have is a bug: KeyError.
    """

    __slots__ = ("_options", "_values", "help", "raw")

    def __init__(
        self,
        options: dict[str, Option],
        values: dict[str, list[str]],
        *,
        help: bool = False,
        raw: tuple[str, ...] = (),
    ) -> None:
        """:param help: --help was among the words.

        :param raw: the words of a verb that reads them itself.
        """
        self._options = options
        self._values = values
        self.help = help
        self.raw = raw

    def has(self, name: str) -> bool:
        """Return whether the option was given."""
        return self._options[name].name in self._values

    flag = has

    def given(self, name: str) -> bool:
        """Return the same as has(), also for an option that the verb may not have."""
        return name in self._values

    def text(self, name: str) -> str | None:
        """Return the option's value, or None if it was not given."""
        values = self._values.get(self._options[name].name)
        return values[0] if values else None

    def required(self, name: str) -> str:
        """Return the value of a required option."""
        if not self._options[name].required:
            raise KeyError(name)
        return self._values[name][0]

    def texts(self, name: str) -> list[str]:
        """Return all values of a repeated option."""
        return self._values.get(self._options[name].name, [])

    def number(self, name: str) -> int | None:
        """Return the value of a <number> option, or None if it was not given."""
        text = self.text(name)
        return None if text is None else _number(name, text)

    def signed(self, name: str) -> int | None:
        """Return the value of a <number:signed> option, a signed 64-bit number, or None if it was not given."""
        text = self.text(name)
        return None if text is None else _signed(name, text)

    def size(self, name: str) -> int | None:
        """Return the value of a size option in KiB (also the default unit), or None if it was not given."""
        text = self.text(name)
        return None if text is None else parse_size(text, what=name)

    def exclusive(self, *names: str) -> None:
        """Refuse two or more of these options together."""
        given = [name for name in names if self.has(name)]
        if len(given) > 1:
            raise UsageError(f"Options --{given[0]} and --{given[1]} are mutually exclusive")

    def needs(self, name: str, other: str) -> None:
        """Refuse ``name`` without ``other``."""
        if self.has(name) and not self.has(other):
            raise UsageError(f"Option --{other} is required by option --{name}")

    @property
    def changes(self) -> bool:
        """Whether an option was given that makes the verb change something, though it otherwise only looks."""
        return any(self._options[name].changes for name in self._values)

    @property
    def json(self) -> bool:
        """Whether --json was given."""
        return "json" in self._values

    @property
    def values(self) -> dict[str, str]:
        """The first value of each given option, made printable, to fill a headline."""
        return {name: printable(values[0]) for name, values in self._values.items() if values}

    @property
    def subject(self) -> str | None:
        """Value of the verb's first required option: the domain, network or file that it acts on."""
        for option in self._options.values():
            if option.required:
                return self.text(option.name)
        return None


def options_of(verb: Verb) -> dict[str, Option]:
    """Return the options of a verb by name, in order.

    :raises ValueError: its table is not in the notation.
    """
    options: dict[str, Option] = {}
    for line in verb.options:
        items, _, meaning = line.partition("  ")
        for item in items.replace(" [", "\n[").replace("> <", ">\n<").replace("] <", "]\n<").split("\n"):
            option = Option(item, meaning.lstrip(" "))
            if option.name in options:
                raise ValueError(f"option {option.name} is there twice")
            options[option.name] = option
    return options


def parse(verb: Verb, words: list[str]) -> Args:
    """Parse the words after the verb and check them against its table.

    :raises UsageError: in virsh's words; only the first of several errors.
    """
    if "raw" in verb.marks:
        return Args({}, {}, raw=tuple(words))
    typed = Typed(verb)
    for word in words:
        typed.take(word)
    if typed.waiting is not None:
        raise UsageError(f"expected syntax: --{typed.waiting.name} <{_type_word(typed.waiting)}>")
    if not typed.help:
        _check(verb.name, typed.options, typed.values)
    return Args(typed.options, typed.values, help=typed.help)


class Typed:
    """The words after a verb, assigned to options one by one; the verb itself and completion use it.

    ``waiting`` is the named option whose value is the next word; ``data_only`` is True after a ``--``.
    """

    __slots__ = ("_short", "data_only", "help", "options", "values", "verb", "waiting")

    def __init__(self, verb: Verb) -> None:
        self.verb = verb
        self.options = options_of(verb)
        self._short = verb.short
        self.values: dict[str, list[str]] = {}
        self.waiting: Option | None = None
        self.data_only = False
        self.help = False
        """Whether --help was among the words; it may be repeated."""

    def take(self, word: str) -> None:
        """Assign the next word to an option.

        :raises UsageError: in virsh's words; the word is then ignored.
        """
        if self.waiting is not None:
            self.values.setdefault(self.waiting.name, []).append(word)
            self.waiting = None
        elif not self.data_only and word == "--":
            self.data_only = True
        elif not self.data_only and looks_like_option(word):
            self._take_option(word)
        elif not self.data_only and self._short and word[:1] == "-" and word[1:]:
            self._take_letters(word)
        elif (option := self.next_positional()) is not None:
            self.values.setdefault(option.name, []).append(word)
            self.data_only |= option.repeated and "words" in self.verb.marks
        else:
            raise UsageError(f"unexpected data '{printable(word)}'")

    def next_positional(self) -> Option | None:
        """Return the option of the next word without a name: the first one that has no value yet."""
        for option in self.options.values():
            if option.positional and self.can_be_given(option):
                return option
        return None

    def can_be_given(self, option: Option) -> bool:
        """Return whether the option may be given (again)."""
        return option.repeated or option.name not in self.values

    def _take_letters(self, word: str) -> None:
        """Assign '-it', options of a letter each; only the last one may have a value."""
        for letter in word[1:]:
            if letter not in self._short or self.waiting is not None:
                raise UsageError(f"command '{self.verb.name}' doesn't support option -{printable(letter)}")
            self._take_option(f"--{self._short[letter]}")

    def _take_option(self, word: str) -> None:
        name, equals, value = word[2:].partition("=")
        option = self.options.get(name)
        if option is None and name != "help":
            raise UsageError(f"command '{self.verb.name}' doesn't support option --{printable(name)}")
        if option is not None and not self.can_be_given(option):
            raise UsageError(f"option --{name} already seen")
        if equals and (option is None or option.kind == "flag"):
            raise UsageError(f"invalid '=' after option --{name}")
        if option is None:
            self.help = True
        elif equals:
            self.values.setdefault(name, []).append(value)
        elif option.kind == "flag":
            self.values[name] = []
        else:
            self.waiting = option


def looks_like_option(word: str) -> bool:
    """Return whether a word begins with two hyphens and an ASCII letter or digit (vshCommandParse of libvirt)."""
    return word.startswith("--") and word[2:3].isascii() and word[2:3].isalnum()


def _check(verb: str, options: dict[str, Option], values: dict[str, list[str]]) -> None:
    """Check that required options are given, and that numbers and sizes are valid."""
    for name, option in options.items():
        if option.required and name not in values:
            # virsh's message has angle brackets around text options and hyphens before numeric ones.
            shown = f"<{name}>" if option.kind == "string" else f"--{name}"
            raise UsageError(f"command '{verb}' requires {shown} option")
    for name, given in values.items():
        try:
            if options[name].kind == "number":
                _number(name, given[0])
            elif options[name].kind == "signed":
                _signed(name, given[0])
            elif options[name].kind == "size":
                parse_size(given[0], what=name)
        except InvalidValue as error:
            raise UsageError(str(error), hint=error.hint) from None


def _number(name: str, text: str) -> int:
    """Return a <number>; as in virsh, a timeout of 0 seconds is refused."""
    return parse_count(text, name, minimum=1 if name == "timeout" else 0, maximum=NUMBER_MAX)


def _signed(name: str, text: str) -> int:
    """Return a <number> that may be negative, as for virsh's long long options."""
    return parse_count(text, name, minimum=-(1 << 63), maximum=(1 << 63) - 1)


def _type_word(option: Option) -> str:
    return "string" if option.kind == "string" else "number"
