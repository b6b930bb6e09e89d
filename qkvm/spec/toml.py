"""Definitions as TOML text. Errors name the file, line or key; changes keep the user's comments."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from contextlib import suppress
from types import NoneType
from typing import Any, TypeVar, get_args

import msgspec
from msgspec import Struct

from qkvm import units
from qkvm.errors import DefinitionError, InvalidValue
from qkvm.spec.size import Size

T = TypeVar("T")

_HEADER = re.compile(r"\s*(\[\[?)\s*([^\[\]#]+?)\s*\]\]?\s*(#.*)?$")
_KEY = re.compile(r"\s*([\w.\"' -]+?)\s*=")
_QUOTES = re.compile(r"\"\"\"|'''")


def loads(text: bytes | str, kind: type[T], path: str) -> T:
    """Return a definition of type ``kind`` from TOML text.

    :param path: the file it came from, for errors.
    :raises DefinitionError: not UTF-8, not TOML (names the line), or not of the type (names the key).
    """
    text = decoded(text, path)
    try:
        plain = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise DefinitionError(path, f"not TOML: {error}") from error
    return from_plain(plain, kind, path, text)


def decoded(text: bytes | str, path: str) -> str:
    """Return the text of bytes. :raises DefinitionError: they are not UTF-8."""
    try:
        return text.decode() if isinstance(text, bytes) else text
    except UnicodeDecodeError as error:
        raise DefinitionError(path, f"not UTF-8 text (byte {error.start})") from error


def from_plain(plain: object, kind: type[T], path: str, text: str = "") -> T:
    """Return a definition from plain dicts, lists and strings (a record, parsed TOML).

    :param text: the TOML text that it was parsed from, for the line in an error.
    """
    try:
        return msgspec.convert(_with_nothing(plain, kind), kind, dec_hook=_decode)
    except msgspec.ValidationError as error:
        words, where = _describe(error)
        raise DefinitionError(path, words, line=line_of(text, where)) from error


def to_plain(definition: object) -> dict[str, Any]:
    """Return a definition as plain dicts, lists and strings, without defaults.

    A part that exists by default but not in this definition is False, as TOML has no null.
    """
    plain = msgspec.to_builtins(definition, enc_hook=_encode)
    defaults = _without_defaults(definition, plain)
    assert isinstance(defaults, dict)
    return defaults


def dumps(definition: object) -> str:
    """Return a definition as new TOML text."""
    return update("", definition)


def update(text: str, definition: object) -> str:
    """Return the TOML text changed to match ``definition``; keep comments and order if possible.

    tomlkit (seen in 0.15.2) fails at some changes of dotted keys and tables out of order. So this function reads
    the result again; if it differs, it writes a new text.
    """
    import tomlkit

    wanted = to_plain(definition)
    whole = msgspec.to_builtins(definition, enc_hook=_encode)
    try:
        document = tomlkit.parse(text)
        _merge(document, wanted, whole)
        changed = tomlkit.dumps(document)
        if loads(changed, type(definition), "") == definition:
            return changed
    except (tomlkit.exceptions.TOMLKitError, DefinitionError, LookupError, ValueError, TypeError):
        pass
    document = tomlkit.document()
    _merge(document, wanted, whole)
    return tomlkit.dumps(document)


def with_string(text: str, kind: type[Struct], key: str, value: str, *, after: tuple[str, ...]) -> str:
    """Return the text of a definition with one top-level string changed; the rest stays as the user wrote it.

    :param after: keys; a new line goes after the line of the first of these that is there.
    """
    wanted = msgspec.structs.replace(loads(text, kind, ""), **{key: value})

    def says(changed: str) -> bool:
        with suppress(DefinitionError):
            return loads(changed, kind, "") == wanted
        return False

    lines = text.splitlines(keepends=True)
    for other in after:
        for number, line in enumerate(lines, 1):
            if line.partition("=")[0].strip() != other:
                continue
            changed = "".join([*lines[:number], f'{key} = "{value}"\n', *lines[number:]])
            # This fails if the line is inside a text or a table, or if the key has a line already.
            if says(changed):
                return changed
    import tomlkit

    with suppress(tomlkit.exceptions.TOMLKitError, LookupError, ValueError, TypeError):
        document = tomlkit.parse(text)
        document[key] = value
        changed = tomlkit.dumps(document)
        if says(changed):
            return changed
    return update(text, wanted)


def _merge(target: Any, wanted: dict[str, Any], whole: dict[str, Any]) -> None:
    """Change ``target`` to match ``wanted``; keep explicit defaults that match ``whole``."""
    import tomlkit

    for key in [key for key in target if key not in wanted]:
        default = whole.get(key)
        if isinstance(default, dict) and isinstance(target[key], dict):
            _merge(target[key], {}, default)
        elif default is None or target[key] != default:
            del target[key]
    for key, value in wanted.items():
        present = target.get(key)
        if isinstance(value, dict) and isinstance(present, dict):
            _merge(present, value, whole[key])
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            tables = present if isinstance(present, list) and len(present) == len(value) else None
            if tables is None:
                target[key] = _tables(value, whole[key])
            else:
                for table, item, full in zip(tables, value, whole[key], strict=True):
                    _merge(table, item, full)
        elif isinstance(value, dict):
            table = tomlkit.table()
            _merge(table, value, whole[key])
            target[key] = table
        elif present != value:
            target[key] = value


def _tables(items: list[dict[str, Any]], whole: list[dict[str, Any]]) -> Any:
    import tomlkit

    tables = tomlkit.aot()
    for item, full in zip(items, whole, strict=True):
        table = tomlkit.table()
        _merge(table, item, full)
        tables.append(table)
    return tables


def _without_defaults(definition: object, plain: Any) -> Any:
    """Return ``plain`` without the fields that equal their default, at all levels."""
    if isinstance(definition, (list, tuple)):
        return [_without_defaults(item, value) for item, value in zip(definition, plain, strict=True)]
    if not isinstance(definition, msgspec.Struct):
        return plain
    kept: dict[str, Any] = {}
    for field in msgspec.structs.fields(definition):
        value = getattr(definition, field.name)
        default = field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
        if value is None and default is not None:
            kept[field.encode_name] = False
        elif value is not None and value != default:
            kept[field.encode_name] = _without_defaults(value, plain[field.encode_name])
    return kept


def _with_nothing(plain: object, kind: type) -> object:
    """Return ``plain`` with None for each False that :func:`to_plain` wrote."""
    if kind is dict or not isinstance(plain, dict) or not any(value is False for value in plain.values()):
        return plain
    absent = {field.encode_name for field in msgspec.structs.fields(kind) if NoneType in get_args(field.type)}
    return {key: None if value is False and key in absent else value for key, value in plain.items()}


def _decode(kind: type, value: object) -> object:
    if kind is Size:
        # msgspec adds the key only to a ValueError.
        if not isinstance(value, str):
            raise ValueError(f"Expected a size such as '512MiB', got {value!r}")
        try:
            return Size(units.parse_size(value))
        except InvalidValue as error:
            raise ValueError(str(error)) from error
    raise NotImplementedError(kind)


def _encode(value: object) -> str:
    if isinstance(value, Size):
        return units.format_size(value)
    raise NotImplementedError(type(value))


def _describe(error: msgspec.ValidationError) -> tuple[str, str]:
    """Return msgspec's message with the key in front, and the key; msgspec writes ' - at `$.vcpus.current`'."""
    message, _, where = str(error).partition(" - at `$.")
    where = where.rstrip("`")
    _, found, unknown = message.rstrip("`").partition("unknown field `")
    place = ".".join(filter(None, (where, unknown))) if found else where
    return (f"key {where}: {message}" if where else message), place


def line_of(text: str, where: str) -> int:
    """Return the number of the line that sets a key, such as 'vcpus.current' or 'nics[1].mac'; 0 if none does.

    If the key is in a value of several keys, it is the line where that value begins.
    """
    wanted = _parts(where.replace("[", ".["))
    counts: dict[tuple[str, ...], int] = {}
    table: tuple[str, ...] = ()
    best = found = 0
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        begins_inside, inside = inside, inside != (len(_QUOTES.findall(line)) % 2 == 1)
        header, key = _HEADER.match(line), _KEY.match(line)
        if begins_inside:
            continue
        if header:
            name = _inner(_parts(header[2]), counts)
            if header[1] == "[[":
                counts[name] = counts.get(name, -1) + 1
                name += (f"[{counts[name]}]",)
            table = name
        length = len(table) if header else 0
        if key and not header:
            full = (*table, *_parts(key[1]))
            length = len(full) if wanted[: len(full)] == full else 0
        elif table != wanted[:length]:
            length = 0
        if length > best:
            best, found = length, number
    return found


def _parts(name: str) -> tuple[str, ...]:
    return tuple(part.strip(" \"'") for part in name.split(".") if part)


def _inner(name: tuple[str, ...], counts: dict[tuple[str, ...], int]) -> tuple[str, ...]:
    """Return the path of a table in the newest elements of arrays of tables."""
    path: tuple[str, ...] = ()
    for number, part in enumerate(name):
        path += (part,)
        if path in counts and number < len(name) - 1:
            path += (f"[{counts[path]}]",)
    return path


def uuid_of(text: bytes | str) -> str:
    """Return the UUID in a definition's text, in its usual form; '' if the text is damaged or has none."""
    try:
        plain = tomllib.loads(text.decode() if isinstance(text, bytes) else text)
        return units.parse_uuid(str(plain.get("uuid", "")))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, InvalidValue):
        return ""


def with_uuid(text: bytes | str, path: str, known: Callable[[str], str]) -> str:
    """Return a definition's text with a UUID; if it has none, add the one known for its name, or a new one.

    :param known: returns the UUID of a definition by name, '' for none. :raises DefinitionError: not TOML.
    """
    text = decoded(text, path)
    plain = loads(text, dict, path)
    if "uuid" in plain:
        return text
    try:
        uuid = known(str(plain.get("name", "")))
    except InvalidValue:
        # Reading the whole definition later refuses the name and says where it is.
        uuid = ""
    # At the very start, the key belongs to no table.
    return f'uuid = "{uuid or units.random_uuid()}"\n{text}'
