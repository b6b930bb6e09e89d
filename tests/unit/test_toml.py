"""Definitions as TOML: what is written is what is read, comments stay, errors say where."""

from __future__ import annotations

import json
import tomllib
from enum import StrEnum
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
import pytest
from golden_cases import MACHINES, full, minimal
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from qkvm.errors import DefinitionError, InvalidValue
from qkvm.spec import toml
from qkvm.spec.domain import Balloon, Boot, Domain, Machine, Memory, Nic, Vcpus, Vnc
from qkvm.spec.size import Size

TEXT = st.text(max_size=20)


def values(kind: Any) -> st.SearchStrategy[Any]:
    """Values of a type as definitions use them: structs of structs, tuples, dicts, enums, None."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        hints = get_type_hints(kind)
        return st.builds(kind, **{name: values(hints[name]) for name in kind.__struct_fields__})
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return st.sampled_from(kind)
    if get_origin(kind) is tuple:
        return st.lists(values(get_args(kind)[0]), max_size=2).map(tuple)
    if get_origin(kind) is dict:
        return st.dictionaries(TEXT, TEXT, max_size=2)
    if get_origin(kind) is UnionType:
        return st.one_of(*map(values, get_args(kind)))
    simple = {
        NoneType: st.none(),
        str: TEXT,
        bool: st.booleans(),
        int: st.integers(-1, 1 << 40),
        Size: st.integers(0, 1 << 42).map(Size),
    }
    return simple[kind]


DOMAINS = values(Domain)


def read(text: str | bytes) -> Domain:
    return toml.loads(text, Domain, "/etc/x.toml")


# There and back.

COMPACT = """\
name = "vm"
uuid = "5a1b4f5e-0f6b-4a59-9c5e-3c1d7f0b2a11"
memory = { current = "512MiB", maximum = "1GiB" }
nics = [ { mac = "52:54:00:00:00:01", source = "a" }, { mac = "52:54:00:00:00:02", source = "b" } ]
balloon = false
disks = []
boot.kernel = "/boot/vmlinuz"
boot.cmdline = "quiet"
rng = false
"""


@settings(max_examples=6, deadline=None)
@given(DOMAINS, DOMAINS)
def test_what_is_written_is_read_and_becomes_any_other(before: Domain, after: Domain) -> None:
    """As a file, as a file that is changed, of whatever way of writing, and as what a record holds of it."""
    text = toml.dumps(before)
    assert read(text) == before
    assert read(text.encode()) == before
    assert read(toml.update(text, after)) == after
    assert read(toml.update(COMPACT, after)) == after
    plain = json.loads(json.dumps(toml.to_plain(before)))
    assert toml.from_plain(plain, Domain, "record") == before


@pytest.mark.parametrize("machine", MACHINES)
def test_what_is_default_is_not_written(machine: Machine) -> None:
    text = toml.dumps(minimal(machine))
    assert set(tomllib.loads(text)) <= {"name", "uuid", "machine", "memory", "boot"}
    assert read(text) == minimal(machine)
    assert read(toml.dumps(full(machine))) == full(machine)


def test_no_balloon_is_said() -> None:
    domain = replace(minimal(Machine.Q35), balloon=None)
    assert tomllib.loads(toml.dumps(domain))["balloon"] is False
    assert read(toml.dumps(domain)).balloon is None


@pytest.mark.parametrize("part", ["vcpus", "boot", "memory", "nics"])
def test_false_is_no_other_part(part: str) -> None:
    text = toml.dumps(minimal(Machine.Q35)).replace("[memory]", "[other]") if part == "memory" else ""
    with pytest.raises(DefinitionError, match=f"key {part}: Expected"):
        read(f"{part} = false\n" + (text or toml.dumps(minimal(Machine.Q35))))


# Changes keep what a person wrote.

WRITTEN = """\
# My machine.
name = "vm"   # the name
uuid = "5a1b4f5e-0f6b-4a59-9c5e-3c1d7f0b2a11"
machine = 'q35'

# Memory, as measured.
[memory]
current = "512MiB"  # half
maximum = "1GiB"

[[nics]]  # to the world
mac = "52:54:00:00:00:01"
source = "default"  # nat

[vcpus]
current = 1
maximum = 4  # enough
"""


def test_only_what_changes_changes() -> None:
    domain = read(WRITTEN)
    assert toml.update(WRITTEN, domain) == WRITTEN
    changed = replace(
        domain, memory=Memory(current=Size(1 << 20), maximum=Size(1 << 20)), vcpus=Vcpus(current=2, maximum=4)
    )
    text = toml.update(WRITTEN, changed)
    assert text == WRITTEN.replace('"512MiB"', '"1GiB"').replace("current = 1\n", "current = 2\n")


def test_comments_stay_when_tables_come_and_go() -> None:
    domain = read(WRITTEN)
    nic = Nic(mac="52:54:00:00:00:02", source="other")
    more = replace(domain, autostart=True, balloon=None, vnc=Vnc(port=5901), nics=(*domain.nics, nic))
    text = toml.update(WRITTEN, more)
    assert read(text) == more
    for comment in ("# My machine.", "# the name", "# Memory, as measured.", "# half", "# enough"):
        assert comment in text
    assert read(toml.update(text, domain)) == domain


def test_a_default_that_is_said_stays_said() -> None:
    text = WRITTEN + "\n[balloon]\nstats_period = 5  # as ever\n"
    assert toml.update(text, read(text)) == text
    assert toml.update(text, replace(read(text), autostart=True)).endswith("# as ever\n")
    assert read(toml.update(text, replace(read(text), machine=Machine.PC))).machine is Machine.PC


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_inline_tables_lose_and_gain(count: int) -> None:
    before = read(COMPACT)
    assert before.balloon is None
    nics = tuple(Nic(mac=f"52:54:00:00:01:0{number}", source="c") for number in range(count))
    after = replace(before, nics=nics, balloon=Balloon(stats_period=1), boot=Boot(kernel="/k"))
    assert read(toml.update(COMPACT, after)) == after


# Errors say where.


def error_of(text: str | bytes) -> str:
    with pytest.raises(DefinitionError) as caught:
        read(text)
    assert caught.value.path == "/etc/x.toml"
    message = str(caught.value)
    assert message.startswith("/etc/x.toml: ")
    assert message.isprintable()
    return message.removeprefix("/etc/x.toml: ")


def test_a_line_that_is_no_toml() -> None:
    assert "line 2" in error_of('name = "x"\nuuid 5\n')


def test_bytes_that_are_no_text() -> None:
    assert error_of(b'name = "\xff"') == "not UTF-8 text (byte 8)"


WRONG: list[tuple[str, Any, str]] = [
    ("name", 5, "key name: Expected `str`, got `int`"),
    ("vcpus", {"current": "2"}, "key vcpus.current: Expected `int`, got `str`"),
    ("vcpus", {"currant": 2}, "key vcpus: Object contains unknown field `currant`"),
    ("machine", "vax", "key machine: Invalid enum value 'vax'"),
    ("memory", {"current": 5, "maximum": "1GiB"}, "key memory.current: Expected a size such as '512MiB', got 5"),
    ("memory", {"current": "1GiB"}, "key memory: Object missing required field `maximum`"),
    ("memory", {"current": "much", "maximum": "1GiB"}, "key memory.current: Scaled numeric value 'much'"),
    ("nics", [{"mac": "x", "modle": "virtio"}], "key nics[0]: Object contains unknown field `modle`"),
    ("balloon", True, "key balloon: Expected `object | null`, got `bool`"),
    ("nosuch", 1, "Object contains unknown field `nosuch`"),
]


@pytest.mark.parametrize(("key", "value", "words"), WRONG)
def test_a_key_that_is_wrong(key: str, value: object, words: str) -> None:
    plain = {**toml.to_plain(minimal(Machine.Q35)), key: value}
    with pytest.raises(DefinitionError) as caught:
        toml.from_plain(plain, Domain, "/etc/x.toml")
    assert str(caught.value).startswith("/etc/x.toml: ")
    assert words in str(caught.value)


def test_a_missing_key() -> None:
    assert error_of('name = "x"') == "Object missing required field `uuid`"


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60) | st.binary(max_size=60))
def test_no_text_breaks_the_reader(text: str | bytes) -> None:
    with pytest.raises(InvalidValue):
        read(text)
    toml.uuid_of(text)


def test_the_uuid_of_a_text() -> None:
    plain = b'uuid = "ABCDEF00111141118111111111111111"'
    assert toml.uuid_of(plain) == "abcdef00-1111-4111-8111-111111111111"
    for damaged in (b"uuid = 5", b"uuid", b"\xff", b"", b'uuid = "zz"'):
        assert toml.uuid_of(damaged) == ""


def test_a_missing_uuid_is_filled_in() -> None:
    def refuse(name: str) -> str:
        raise InvalidValue(name)

    assert toml.with_uuid('uuid = "zz"\n', "x", refuse) == 'uuid = "zz"\n', "what is there is judged by others"
    assert (
        toml.with_uuid('name = "a"\n[t]\n', "x", lambda name: f"of-{name}") == 'uuid = "of-a"\nname = "a"\n[t]\n'
    )
    made = [toml.with_uuid("name = 5\n", "x", known) for known in (refuse, lambda name: "")]
    assert len({toml.uuid_of(text) for text in made}) == 2 and all(toml.uuid_of(text) for text in made)


@pytest.mark.parametrize("line", ["rng = false", "balloon = false", "autostart = false"])
def test_a_definition_that_says_no_to_something_gets_its_uuid(line: str) -> None:
    text = toml.with_uuid(f'name = "vm"\n{line}\n', "file", lambda name: "known")
    assert text == f'uuid = "known"\nname = "vm"\n{line}\n'


PINNED = replace(minimal(Machine.Q35), machine_version="9.9")
PIN = 'machine_version = "9.9"'


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('# mine\nmachine = "q35"  # old\n', f'# mine\nmachine = "q35"  # old\n{PIN}\n'),
        ('name = "NAME"\n# about memory\n', f'name = "NAME"\n{PIN}\n# about memory\n'),
        ('machine_version = ""  # newest\n', f"{PIN}  # newest\n"),
        ("description = '''\nmachine = 1\n'''\nmachine = 'q35'\n", f"machine = 'q35'\n{PIN}\n"),
    ],
)
def test_a_string_gets_a_line_of_its_own(before: str, after: str) -> None:
    definition = replace(PINNED, description="machine = 1\n" if "description" in before else "")
    rest = toml.dumps(replace(definition, machine_version="", description=""))
    if "NAME" in before:
        first, rest = rest.split("\n", 1)
        assert first.startswith("name = ")
        before, after = (text.replace('name = "NAME"', first) for text in (before, after))
    changed = toml.with_string(before + rest, Domain, "machine_version", "9.9", after=("machine", "name"))
    assert toml.loads(changed, Domain, "") == definition
    assert after in changed and changed.count("machine_version") == 1
    assert len(changed.splitlines()) - len((before + rest).splitlines()) == ("machine_version" not in before)


@pytest.mark.parametrize("line", ["", 'machine_version = ""\n'])
def test_a_string_leaves_the_other_values_in_the_users_form(line: str) -> None:
    text = (
        f'{line}name = "x"\nuuid = "ABCDEF00111141118111111111111111"\n'
        'memory = { current = "1024MiB", maximum = "1024MiB" }\n[[nics]]\nmac = "52-54-00-AA-00-01"\n'
    )
    changed = toml.with_string(text, Domain, "machine_version", "9.9", after=("name",))
    assert changed == (text.replace('""', '"9.9"') if line else text.replace('"x"\n', f'"x"\n{PIN}\n'))


# Lines in errors.

PLACES = """\
name = "a"
vcpus = { current = "x" }
nics = [
  { mac = 1 },
]
description = '''
memory = 1
'''
[memory]
current = 4   # five
[[disks]]
path = "x"
[disks.throttle]
read_bytes_sec = 1
[[disks]]
path = 5
[disks.throttle]
bogus = 1
"""


@pytest.mark.parametrize(
    ("where", "line"),
    [
        ("name", 1),
        ("vcpus.current", 2),
        ("nics[0].mac", 3),
        ("memory.current", 10),
        ("memory.maximum", 9),
        ("disks[0].throttle.read_bytes_sec", 14),
        ("disks[1].path", 16),
        ("disks[1].throttle.bogus", 18),
        ("uuid", 0),
        ("", 0),
    ],
)
def test_the_line_of_a_key(where: str, line: int) -> None:
    assert toml.line_of(PLACES, where) == line


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("[vcpus]\ncurrent = 'two'\n", "x:8: key vcpus.current: Expected `int`"),
        ("[vcpus]\nbogus = 2\n", "x:8: key vcpus: Object contains unknown field `bogus`"),
        ("bogus = 2\n", "x:7: Object contains unknown field `bogus`"),
    ],
)
def test_an_error_names_its_line(more: str, words: str) -> None:
    text = 'name = "vm"\nuuid = "5a1b4f5e-0f6b-4a59-9c5e-3c1d7f0b2a11"\n# mine\n\n'
    text += 'memory = { current = "1GiB", maximum = "1GiB" }\nmachine = "q35"\n'
    with pytest.raises(DefinitionError) as caught:
        toml.loads(text + more, Domain, "x")
    assert str(caught.value).startswith(words) and caught.value.line == int(words.split(":")[1])
