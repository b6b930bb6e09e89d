"""Render a template into a command line: each line gives one option; there is no shell string.

What a template prints with ``{{ }}`` stays data. Jinja prints an opaque token for each value; the value replaces
it only after the text has been split into lines and options, escaped for its place. Inside JSON it must have
passed the ``json`` filter. In an option of the form ``key=value,…`` its commas are doubled (qemu-options.hx). An
option that takes its whole argument as it is gets the value unchanged.
"""

from __future__ import annotations

import json
import os
import re
from functools import lru_cache
from typing import Any, NamedTuple, NoReturn

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from qkvm import paths, units
from qkvm.errors import TemplateError

_WHOLE = frozenset(("-kernel", "-initrd", "-append", "-uuid", "-pidfile", "-runas", "-k", "-display", "-bios"))
"""Options whose argument QEMU does not split at commas."""

_FLAGS = frozenset(("-S", "-nodefaults", "-no-user-config"))
"""Options without an argument."""

_OPEN, _CLOSE = "\ue000", "\ue001"
_TOKEN = re.compile(f"{_OPEN}(j?)([0-9a-f]*){_CLOSE}")
"""A token: the value in hexadecimal digits; the j marks JSON."""

_OPTION = re.compile(r"-[A-Za-z][a-z-]*")
_PLAIN = re.compile(r"[A-Za-z0-9_.:-]*")

HOTPLUG = {"-netdev": "netdev_add", "-device": "device_add", "-blockdev": "blockdev-add", "-object": "object-add"}
"""Option -> QMP command that does the same in a running QEMU, with the same JSON."""


class Option(NamedTuple):
    """One option of a command line; ``value`` is a dict if it was JSON, None if there is no argument."""

    name: str
    value: str | dict[str, Any] | None

    def argv(self) -> list[str]:
        """Return the words of the option on the command line."""
        if self.value is None:
            return [self.name]
        return [self.name, json.dumps(self.value) if isinstance(self.value, dict) else self.value]

    def parts(self) -> list[str]:
        """Return the parts of a value that is not JSON; commas inside a part stay doubled."""
        text = self.value if isinstance(self.value, str) else ""
        return [part.replace("\0", ",") for part in text.replace(",,", "\0").split(",")]


class _Fragment(str):
    """Text that is JSON."""

    __slots__ = ()


def render(template: str, context: dict[str, Any], *, own: str = "") -> list[Option]:
    """Return the options that a template gives.

    :param template: an absolute path, or a name to look for in the administrator's folder ``own`` and then in the
        packaged one.
    :raises TemplateError: it does not exist, uses an undefined name, or gives something that is not an option.
    """
    name = template
    folders: tuple[str, ...] = (own, paths.packaged_templates())
    if os.path.isabs(template):
        name, folders = os.path.basename(template), (os.path.dirname(template), *folders)
    environment = _environment(folders)
    try:
        text = environment.get_template(name).render(context)
    except jinja2.TemplateNotFound as error:
        raise TemplateError(template, 0, f"{error.name} is not there") from error
    except jinja2.TemplateSyntaxError as error:
        raise TemplateError(error.name or name, error.lineno, error.message or "syntax error") from error
    except (
        jinja2.TemplateError, TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RecursionError
    ) as error:  # fmt: skip
        raise TemplateError(name, _line_of(error), str(error)) from error
    return [_parse(name, number, line.strip()) for number, line in enumerate(text.split("\n"), 1) if line.strip()]


def hotplug_commands(options: list[Option]) -> list[tuple[str, dict[str, Any]]]:
    """Return the QMP commands, in order, that plug what these options give at start."""
    commands = []
    for option in options:
        if option.name not in HOTPLUG or not isinstance(option.value, dict):
            raise TemplateError("part", 0, f"{option.name} can't be plugged while the domain runs")
        commands.append((HOTPLUG[option.name], option.value))
    return commands


@lru_cache(maxsize=8)
def _environment(folders: tuple[str, ...]) -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        loader=jinja2.FileSystemLoader([folder for folder in folders if folder]),
        undefined=jinja2.StrictUndefined,
        finalize=_finalize,
        keep_trailing_newline=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["json"] = _to_json
    return environment


def _to_json(value: Any) -> _Fragment:
    if isinstance(value, jinja2.Undefined):
        # Using an undefined value raises an error that names it.
        str(value)
    return _Fragment(json.dumps(value))


def _finalize(value: Any) -> str:
    if isinstance(value, _Fragment):
        return f"{_OPEN}j{value.encode().hex()}{_CLOSE}"
    if isinstance(value, bool):
        return "on" if value else "off"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, jinja2.Undefined):
        return str(value)
    if not isinstance(value, str):
        raise TypeError(f"a value of type {type(value).__name__} can't be printed; name one of its fields")
    return f"{_OPEN}{value.encode('utf-8', 'surrogateescape').hex()}{_CLOSE}"


def _parse(template: str, number: int, line: str) -> Option:
    name, _, rest = line.partition(" ")
    rest = rest.strip()
    if not _OPTION.fullmatch(name):
        raise TemplateError(template, number, f"'{_shown(line)}' is no option", hint="-option value, one a line")
    if name in _FLAGS:
        if rest:
            raise TemplateError(template, number, f"{name} takes no value")
        return Option(name, None)
    if not rest:
        raise TemplateError(template, number, f"{name} has no value")
    if rest.startswith(("{", f"{_OPEN}j")):
        return Option(name, _parse_json(template, number, rest))
    whole = name in _WHOLE
    return Option(name, _TOKEN.sub(lambda found: _escaped(template, number, found, whole), rest))


def _parse_json(template: str, number: int, text: str) -> dict[str, Any]:
    def plain(found: re.Match[str]) -> str:
        value = _value(template, number, found)
        if not found[1] and not _PLAIN.fullmatch(value):
            _refuse(template, number, value, "stands inside JSON without the json filter", "{{ value|json }}")
        return value

    try:
        parsed = json.loads(_TOKEN.sub(plain, text))
    except ValueError as error:
        raise TemplateError(template, number, f"not JSON: {error}: {_shown(text)}") from error
    if not isinstance(parsed, dict):
        raise TemplateError(template, number, f"no JSON object: {_shown(text)}")
    return parsed


def _escaped(template: str, number: int, found: re.Match[str], whole: bool) -> str:
    value = _value(template, number, found)
    if found[1]:
        _refuse(template, number, value, "went through the json filter outside JSON", "{{ value }}")
    return value if whole else value.replace(",", ",,")


def _value(template: str, number: int, found: re.Match[str]) -> str:
    value = bytes.fromhex(found[2]).decode("utf-8", "surrogateescape")
    if any(char in value for char in "\n\r\0"):
        _refuse(template, number, value, "holds a newline or NUL", "one line of text")
    return value


def _refuse(template: str, number: int, value: str, message: str, hint: str) -> NoReturn:
    raise TemplateError(template, number, f"'{units.printable(value)}' {message}", hint=hint)


def _shown(line: str) -> str:
    readable = _TOKEN.sub(lambda found: bytes.fromhex(found[2]).decode("utf-8", "replace"), line)
    return units.printable(readable)


def _line_of(error: BaseException) -> int:
    """Return the line of the template where the error arose; Jinja puts template frames into the traceback."""
    line, trace = 0, error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename.endswith(".j2"):
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
