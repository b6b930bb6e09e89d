"""virt-install's options and suboptions: '--memory 512,maxmemory=1024' read by a table, refused by name."""

from __future__ import annotations

from qkvm.cli.parse import UsageError
from qkvm.units import printable

OPTIONS: dict[str, tuple[str, ...] | str | None] = {
    "name": "NAME",
    "uuid": "UUID",
    "metadata": ("", "title", "description"),
    "memory": ("memory", "maxmemory"),
    "vcpus": ("vcpus", "maxvcpus"),
    "cpu": "MODEL",
    "machine": "q35|pc|microvm",
    "virt-type": "kvm|qemu",
    "disk": ("path", "size", "format", "bus", "readonly", "serial", "target.dev"),
    "network": ("", "network", "bridge", "type", "model", "mac", "target", "link.state"),
    "graphics": ("type", "listen", "port", "keymap"),
    "video": ("model",),
    "boot": ("", "kernel", "initrd", "kernel_args"),
    "extra-args": "ARGUMENTS",
    "memballoon": ("model",),
    "import": None,
    "autostart": None,
    "noreboot": None,
    "autoconsole": None,
    "noautoconsole": None,
    "os-variant": "NAME",
    "osinfo": "NAME",
}
"""An option and its suboptions, the first being the one whose name may be left out ('' where none may);
a word where it takes one plain value; None where it takes none."""

_ALIASES = {"-n": "--name", "--ram": "--memory", "-w": "--network", "-x": "--extra-args"}
_REPEATABLE = frozenset(("disk", "network"))


class Suboptions:
    """The suboptions of one option as given."""

    __slots__ = ("name", "values")

    def __init__(self, name: str, values: dict[str, str]) -> None:
        self.name = name
        self.values = values

    def text(self, key: str, default: str) -> str:
        """The suboption's value, or the default."""
        return self.values.get(key, default)

    def has(self, key: str) -> bool:
        """Whether the suboption was given."""
        return key in self.values

    def flag(self, key: str) -> bool:
        """A yes-or-no suboption (on, yes, true, 1), off where it was not given."""
        text = self.values.get(key, "no").lower()
        if text not in ("on", "yes", "true", "1", "off", "no", "false", "0"):
            raise UsageError(f"--{self.name} {key}={printable(text)}: yes or no was expected")
        return text in ("on", "yes", "true", "1")


class Options:
    """All options of an install line."""

    __slots__ = ("_given",)

    def __init__(self, given: dict[str, list[str]]) -> None:
        self._given = given

    def has(self, name: str) -> bool:
        """Whether the option was given."""
        return name in self._given

    flag = has

    def single(self, name: str, default: str | None = None) -> str:
        """The value of an option that takes a plain one.

        :raises UsageError: it was not given and has no default.
        """
        if name in self._given:
            return self._given[name][0]
        if default is None:
            raise UsageError(f"--{name} is required")
        return default

    def first(self, name: str) -> Suboptions:
        """The suboptions of an option; empty where it was not given."""
        given = self.each(name)
        return given[0] if given else Suboptions(name, {})

    def each(self, name: str) -> list[Suboptions]:
        """The suboptions of each time that the option was given."""
        return [split(name, text) for text in self._given.get(name, [])]


def read(words: list[str]) -> Options:
    """The options of an install line: '--name X' or '--name=X'.

    :raises UsageError: unknown, without its value, or given twice.
    """
    given: dict[str, list[str]] = {}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        option, equals, value = word.partition("=")
        name = _ALIASES.get(option, option).removeprefix("--")
        if not word.startswith("-") or name not in OPTIONS:
            raise UsageError(
                f"unrecognized arguments: {printable(word)}", hint="qkvm install --help lists the options"
            )
        if OPTIONS[name] is None:
            if equals and not (name == "autoconsole" and value in ("text", "none")):
                raise UsageError(f"--{name} takes no value")
            name = "noautoconsole" if value == "none" else name
        elif not equals:
            if not rest:
                raise UsageError(f"argument --{name}: expected one argument")
            value = rest.pop(0)
        if name in given and name not in _REPEATABLE:
            raise UsageError(f"--{name} was given twice")
        given.setdefault(name, []).append(value)
    return Options(given)


def split(option: str, text: str) -> Suboptions:
    """Cut 'a=1,b=2' into suboptions; a doubled comma stands for one inside a value.

    :raises UsageError: one that the option does not have, or given twice.
    """
    known = OPTIONS[option]
    assert isinstance(known, tuple)
    values: dict[str, str] = {}
    for number, part in enumerate(text.replace(",,", "\0").split(",")):
        key, equals, value = part.replace("\0", ",").partition("=")
        if not equals and number == 0 and key:
            # The first suboption's name may be left out.
            key, value = known[0], key
        elif not equals and option == "disk" and key == "readonly":
            value = "yes"
        elif not equals:
            raise UsageError(f"--{option}: '{printable(part)}' is no suboption with a value", hint=_listed(known))
        if key not in known:
            raise UsageError(f"Unknown --{option} options: ['{printable(key)}']", hint=_listed(known))
        if key in values:
            raise UsageError(f"--{option}: {key or 'the first word'} was given twice")
        values[key] = value
    return Suboptions(option, values)


def describe(option: str) -> str:
    """What --OPTION=? prints: the option and its suboptions.

    :raises UsageError: there is no such option.
    """
    name = _ALIASES.get(option, option).removeprefix("--")
    if name not in OPTIONS:
        raise UsageError(f"unrecognized arguments: {printable(option)}")
    known = OPTIONS[name]
    if isinstance(known, tuple):
        return f"--{name} options:\n" + "".join(f"  {key}\n" for key in sorted(known) if key)
    return f"--{name} {known or ''}".rstrip() + "\n"


def _listed(known: tuple[str, ...]) -> str:
    return ", ".join(key for key in known if key)
