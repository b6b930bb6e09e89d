"""virsh's option rules: a verb's words become an :class:`Args`, or one error in virsh's words.

--opt value and --opt=value; required options and, after them, optional values also by position;
flags; ``--`` ends the options; nothing is abbreviated; nothing but a repeated option is given twice.
"""

from __future__ import annotations

from qkvm.errors import InvalidValue
from qkvm.units import parse_count, parse_size, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.cli.verbs import Verb

NUMBER_MAX = (1 << 31) - 1
"""Largest <number>: what virsh's int options take."""


class UsageError(InvalidValue):
    """The command line itself is wrong; the verb was not begun."""


class Option:
    """One option of a synopsis.

    ``kind`` is flag, string, number, signed or size; ``shown`` is the word between the angle brackets.
    """

    __slots__ = ("kind", "name", "positional", "repeated", "required", "shown")

    def __init__(
        self,
        name: str,
        kind: str,
        *,
        shown: str = "string",
        required: bool = False,
        positional: bool = False,
        repeated: bool = False,
    ) -> None:
        self.name = name
        self.kind = kind
        self.shown = shown
        self.required = required
        self.positional = positional
        self.repeated = repeated


class Args:
    """What the user gave for the options of one verb.

    Asking for an option that the verb's synopsis does not have is a mistake in the program: KeyError.
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
        """Whether the option was given."""
        return self._options[name].name in self._values

    flag = has

    def given(self, name: str) -> bool:
        """The same for an option that the synopsis may lack."""
        return name in self._values

    def text(self, name: str) -> str | None:
        """The option's value, or None where it was not given."""
        values = self._values.get(self._options[name].name)
        return values[0] if values else None

    def required(self, name: str) -> str:
        """The value of a required option."""
        if not self._options[name].required:
            raise KeyError(name)
        return self._values[name][0]

    def texts(self, name: str) -> list[str]:
        """All values of a repeated option."""
        return self._values.get(self._options[name].name, [])

    def number(self, name: str) -> int | None:
        """The value of a <number> option, or None where it was not given."""
        text = self.text(name)
        return None if text is None else _number(name, text)

    def signed(self, name: str) -> int | None:
        """The value of a <number:signed> option, of 64 bits and a sign, or None where it was not given."""
        text = self.text(name)
        return None if text is None else _signed(name, text)

    def size(self, name: str) -> int | None:
        """The value of a size option in KiB (KiB is meant where there is no suffix), or None."""
        text = self.text(name)
        return None if text is None else parse_size(text, what=name)

    def exclusive(self, *names: str) -> None:
        """Refuse two or more of these together."""
        given = [name for name in names if self.has(name)]
        if len(given) > 1:
            raise UsageError(f"Options --{given[0]} and --{given[1]} are mutually exclusive")

    def needs(self, name: str, other: str) -> None:
        """Refuse ``name`` without ``other``."""
        if self.has(name) and not self.has(other):
            raise UsageError(f"Option --{other} is required by option --{name}")

    @property
    def json(self) -> bool:
        """Whether --json was given."""
        return "json" in self._values

    @property
    def values(self) -> dict[str, str]:
        """The first value of each given option, made printable: what a headline is filled with."""
        return {name: printable(values[0]) for name, values in self._values.items() if values}

    @property
    def subject(self) -> str | None:
        """Value of the verb's first required option: the domain, network or file that it is about."""
        for option in self._options.values():
            if option.required:
                return self.text(option.name)
        return None


def parse_synopsis(synopsis: str) -> dict[str, Option]:
    """The options of a synopsis (notation: :mod:`qkvm.cli.verbs`) by name, in order.

    :raises ValueError: the synopsis is not in the notation.
    """
    options: dict[str, Option] = {}
    depth = start = 0
    for position, char in enumerate(synopsis + " "):
        if char in "<[{":
            depth += 1
        elif char in ">]}":
            depth -= 1
        elif char == " " and depth == 0:
            if position > start:
                option = _option_of(synopsis[start:position])
                if option.name in options:
                    raise ValueError(f"option {option.name} is there twice")
                options[option.name] = option
            start = position + 1
    if depth:
        raise ValueError(f"brackets do not match in {synopsis!r}")
    return options


def _option_of(item: str) -> Option:
    """One item of a synopsis, such as ``<count:int>`` or ``[--mac <string>]``."""
    if item.startswith("<") and item.endswith(">"):
        name, _, type_ = item[1:-1].partition(":")
        return Option(name, _KINDS[type_], shown=name, required=True, positional=True)
    if item.endswith("..."):
        name, _, shown = item[1:-4].partition(" ")
        if not name.startswith("[--") or not name.endswith("]"):
            raise ValueError(f"{item!r} is not in the notation of a synopsis")
        return Option(
            name[3:-1], "string", shown=shown[1:-1], required=item[0] == "{", positional=True, repeated=True
        )
    if not item.startswith("[--") or not item.endswith("]"):
        raise ValueError(f"{item!r} is not in the notation of a synopsis")
    name, by_name_only, shown = item[3:-1].partition("=")
    if not by_name_only:
        name, _, shown = name.partition(" ")
    if not shown:
        return Option(name, "flag")
    shown, _, type_ = shown[1:-1].partition(":")
    kind = type_ or (shown if shown in ("number", "size") else "string")
    return Option(name, kind, shown=shown, positional=not by_name_only)


_KINDS = {"": "string", "int": "number", "size": "size"}


def parse(verb: Verb, words: list[str]) -> Args:
    """The words behind the verb, checked against its synopsis.

    :raises UsageError: in virsh's words; where several things are wrong, the first.
    """
    if verb.raw:
        return Args({}, {}, raw=tuple(words))
    options = parse_synopsis(verb.synopsis)
    values, wants_help = _gather(verb.name, options, words)
    if not wants_help:
        _check(verb.name, options, values)
    return Args(options, values, help=wants_help)


def _gather(verb: str, options: dict[str, Option], words: list[str]) -> tuple[dict[str, list[str]], bool]:
    """Sort the words by option; says too whether --help was among them (as often as one likes)."""
    values: dict[str, list[str]] = {}
    wants_help = data_only = False
    rest = iter(words)
    for word in rest:
        if not data_only and word == "--":
            data_only = True
        elif data_only or not looks_like_option(word):
            values.setdefault(_next_positional(options, values, word), []).append(word)
        else:
            name, equals, value = word[2:].partition("=")
            if name == "help" and "help" not in options:
                if equals:
                    raise UsageError("invalid '=' after option --help")
                wants_help = True
                continue
            option = _named(verb, options, values, name)
            if option.kind == "flag":
                if equals:
                    raise UsageError(f"invalid '=' after option --{name}")
                values[name] = []
                continue
            given = value if equals else next(rest, None)
            if given is None:
                raise UsageError(f"expected syntax: --{name} <{_type_word(option)}>")
            values.setdefault(name, []).append(given)
    return values, wants_help


def looks_like_option(word: str) -> bool:
    """Two hyphens and an ASCII letter or digit (vshCommandParse of libvirt); the rest is data."""
    return word.startswith("--") and word[2:3].isascii() and word[2:3].isalnum()


def _next_positional(options: dict[str, Option], values: dict[str, list[str]], word: str) -> str:
    """The option that the next word without a name belongs to: the first one that has no value yet."""
    for option in options.values():
        if option.positional and (option.repeated or option.name not in values):
            return option.name
    raise UsageError(f"unexpected data '{printable(word)}'")


def _named(verb: str, options: dict[str, Option], values: dict[str, list[str]], name: str) -> Option:
    option = options.get(name)
    if option is None:
        raise UsageError(f"command '{verb}' doesn't support option --{printable(name)}")
    if name in values and not option.repeated:
        raise UsageError(f"option --{name} already seen")
    return option


def _check(verb: str, options: dict[str, Option], values: dict[str, list[str]]) -> None:
    """Required options are there, numbers are numbers and sizes are sizes."""
    for name, option in options.items():
        if option.required and name not in values:
            # virsh shows text options between angle brackets, numeric ones with their hyphens.
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
    """A <number>; a deadline of no seconds at all is refused, as in virsh."""
    return parse_count(text, name, minimum=1 if name == "timeout" else 0, maximum=NUMBER_MAX)


def _signed(name: str, text: str) -> int:
    """A <number> that may be negative: what virsh's long long options take."""
    return parse_count(text, name, minimum=-(1 << 63), maximum=(1 << 63) - 1)


def _type_word(option: Option) -> str:
    return "string" if option.kind == "string" else "number"
