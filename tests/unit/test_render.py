"""Templates: data stays data wherever it lands, and a wrong template is an error with a name and a line."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import golden_cases
import pytest
from golden_cases import MACHINES
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from qkvm.errors import TemplateError
from qkvm.qemu import render
from qkvm.qemu.render import Option
from qkvm.spec.domain import Boot, Disk, DiskFormat, Domain, Machine

NASTY = (
    "a,b=c",
    ",,",
    'say "hello"',
    "it's",
    "back\\slash",
    "{curly}",
    "}}, {",
    "{{ launch.user }}",
    "{% for x in y %}",
    "{# no comment #}",
    "$(touch /tmp/x) `id` ${HOME} !!",
    "-S",
    "--help",
    " -daemonize",
    "-device x",
    "spaces   kept  ",
    "\ttab",
    "größe 日本語 🐧",
    "\u2028\x85\x0b",
    "\udcff\udc80",
    "\ue000\ue001",
    "\ue0006162\ue001",
    "\ue000j6162\ue001",
    "null",
    "",
)
"""Text that means something to QEMU, JSON, Jinja, a shell, a terminal or the renderer itself."""

ANY_TEXT = st.one_of(st.sampled_from(NASTY), st.text(st.characters(exclude_categories=()), max_size=30))


def rendered(folder: Path, source: str, **context: object) -> list[Option]:
    """What a template of this source gives."""
    folder.joinpath("one.j2").write_text(source, encoding="utf-8")
    return render.render(str(folder / "one.j2"), context)


def refusal(folder: Path, source: str, **context: object) -> TemplateError:
    with pytest.raises(TemplateError) as caught:
        rendered(folder, source, **context)
    return caught.value


# Where a value lands decides how it is written.


@pytest.mark.parametrize("value", NASTY)
def test_commas_are_doubled_in_a_list_of_keys(tmp_path: Path, value: str) -> None:
    (option,) = rendered(tmp_path, "-chardev file,path={{ value }},id=x", value=value)
    assert option.argv() == ["-chardev", f"file,path={value.replace(',', ',,')},id=x"]


@pytest.mark.parametrize("value", NASTY)
def test_a_whole_argument_stays_as_it_is(tmp_path: Path, value: str) -> None:
    names = ["-kernel", "-initrd", "-append", "-pidfile"]
    options = rendered(tmp_path, "".join(f"{name} {{{{ value }}}}\n" for name in names), value=value)
    assert [option.argv() for option in options] == [[name, value] for name in names]


@pytest.mark.parametrize("value", NASTY)
def test_json_arrives_as_it_was(tmp_path: Path, value: str) -> None:
    (option,) = rendered(tmp_path, '-device {"driver": "x", "id": {{ value|json }}}', value=value)
    assert json.loads(option.argv()[1]) == {"driver": "x", "id": value}


def test_a_whole_json_object_may_come_from_the_filter(tmp_path: Path) -> None:
    (option,) = rendered(tmp_path, '-device {{ {"driver": value}|json }}', value='"}')
    assert option.value == {"driver": '"}'}


@pytest.mark.parametrize("value", ['"', "a b", "a,b", "}", "\\", "é", '", "x": "'])
def test_raw_text_inside_json_is_refused(tmp_path: Path, value: str) -> None:
    for place in ('{"id": "{{ value }}"}', '{"id": {{ value }}}', '{"{{ value }}": 1}'):
        error = refusal(tmp_path, f"-device {place}", value=value)
        assert "without the json filter" in str(error)
        assert "|json" in error.hint


def test_json_outside_json_is_refused(tmp_path: Path) -> None:
    assert "outside JSON" in str(refusal(tmp_path, "-name guest={{ value|json }}", value="a,debug-threads=off"))


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "a\0b", "\n-daemonize\n"])
@pytest.mark.parametrize(
    "line", ["-append {{ value }}", "-name guest={{ value }}", '-device {"id": "{{ value }}"}']
)
def test_newline_and_nul_are_refused(tmp_path: Path, line: str, value: str) -> None:
    error = refusal(tmp_path, line, value=value)
    assert "newline or NUL" in str(error)
    assert "\n" not in str(error)


def test_numbers_and_yes_or_no(tmp_path: Path) -> None:
    (option,) = rendered(tmp_path, "-x a={{ one }},b={{ yes }},c={{ no }}", one=-1, yes=True, no=False)
    assert option.value == "a=-1,b=on,c=off"


@pytest.mark.parametrize("value", [None, [1], {"a": 1}, 1.5, b"bytes", golden_cases.KERNEL])
def test_other_types_are_not_printed(tmp_path: Path, value: object) -> None:
    assert "can't be printed" in str(refusal(tmp_path, "-x {{ value }}", value=value))


def test_flags_and_empty_lines(tmp_path: Path) -> None:
    assert rendered(tmp_path, "\n  -S  \n\n\t-nodefaults\n") == [Option("-S", None), Option("-nodefaults", None)]
    assert Option("-S", None).argv() == ["-S"]


# Whatever a definition says, the command line keeps its shape.


def shape(options: list[Option]) -> list[tuple[str, list[str]]]:
    """Names of the options and, where they have JSON, of its keys."""
    return [(option.name, sorted(option.value) if isinstance(option.value, dict) else []) for option in options]


def with_texts(machine: Machine, name: str, path: str, cmdline: str) -> Domain:
    """A domain that was never validated, with any text in its fields."""
    plain = golden_cases.full(machine)
    disks = (Disk(path=path or "d", format=DiskFormat.RAW, target="vda", serial=name or "x"),)
    nics = (replace(plain.nics[0], mac=name),)
    boot = Boot(kernel=path or "k", initrd=path or "i", cmdline=cmdline or "c")
    return replace(plain, name=name, uuid=name, cpu="", disks=disks, nics=nics, boot=boot)


@settings(max_examples=20, deadline=None)
@given(st.sampled_from(MACHINES), ANY_TEXT, ANY_TEXT, ANY_TEXT)
@example(Machine.Q35, *NASTY[:3])
def test_no_text_changes_the_shape(machine: Machine, name: str, path: str, cmdline: str) -> None:
    plain = golden_cases.options(with_texts(machine, "n", "/p", "c"))
    domain = with_texts(machine, name, path, cmdline)
    try:
        options = golden_cases.options(domain)
    except TemplateError as error:
        assert str(error).isprintable()
        return
    assert shape(options) == shape(plain)
    words = [word for option in options for word in option.argv()]
    assert len(words) == sum(len(option.argv()) for option in plain)
    assert dict((option.name, option.value) for option in options)["-append"] == (cmdline or "c")


@settings(max_examples=30, deadline=None)
@given(st.lists(ANY_TEXT, min_size=1, max_size=4))
def test_hot_plug_takes_any_text_as_data(texts: list[str]) -> None:
    nic = replace(golden_cases.NICS[0], mac=texts[0])
    try:
        commands = dict(golden_cases.hot_nic(Machine.Q35, nic))
    except TemplateError:
        return
    assert commands["device_add"]["mac"] == texts[0]
    assert json.loads(json.dumps(commands)) == commands


# Wrong templates.


WRONG = {
    "-S\n-name {{ nothing }}": (2, "'nothing' is undefined"),
    "-S\n-name {{ value.nothing }}": (2, "no attribute 'nothing'"),
    "-S\n-device {{ nothing|json }}": (2, "'nothing' is undefined"),
    "-S\n\n{% if %}": (3, "Expected an expression"),
    "-S\n{{ value": (2, "unexpected"),
    "-S\n{% include 'parts/gone.j2' %}": (0, "parts/gone.j2 is not there"),
    "-S\nwords": (2, "'words' is no option"),
    "-S\n{{ value }}": (2, "is no option"),
    "-S\n--name x": (2, "'--name x' is no option"),
    "-S yes": (1, "-S takes no value"),
    "-name": (1, "-name has no value"),
    '-device {"a": }': (1, "not JSON"),
    '-device {"a": 1}}': (1, "not JSON"),
    "-device {{ [1]|json }}": (1, "no JSON object"),
    "-device {{ value|json }}": (1, "no JSON object"),
    "-S\n{{ ''.__class__.__mro__ }}": (2, "unsafe"),
    "-S\n{{ value.__init__.__globals__ }}": (2, "unsafe"),
    "-S\n{{ seen.append(1) }}": (2, "unsafe"),
    "{% for i in range(10 ** 9) %}{% endfor %}": (1, "Range too big"),
    "-S\n{{ 'x'.encode('no-such') }}": (2, "unknown encoding"),
    "-S\n{{ '{}'.format() }}": (2, "out of range"),
    "-S\n{{ 1 // 0 }}": (2, "zero"),
    "{% include 'one.j2' %}": (1, "recursion"),
}
"""A template -> the line and a word of what is said of it."""


@pytest.mark.parametrize("source", WRONG)
def test_wrong_template(tmp_path: Path, source: str) -> None:
    line, words = WRONG[source]
    error = refusal(tmp_path, source, value="text", seen=[])
    assert words in str(error)
    assert error.line == line
    assert error.template.endswith("one.j2")
    assert str(error).isprintable()


def test_a_template_that_is_not_there(tmp_path: Path) -> None:
    for name in ("gone.j2", str(tmp_path / "gone.j2"), "../../etc/passwd", "parts"):
        with pytest.raises(TemplateError, match="is not there"):
            render.render(name, {}, own=str(tmp_path))


def test_a_template_that_is_no_text(tmp_path: Path) -> None:
    tmp_path.joinpath("one.j2").write_bytes(b"-name \xff\n")
    with pytest.raises(TemplateError):
        render.render(str(tmp_path / "one.j2"), {})


def test_a_line_that_has_no_command_is_not_plugged() -> None:
    with pytest.raises(TemplateError, match="-m can't be plugged"):
        render.hotplug_commands([Option("-m", "1024")])
    with pytest.raises(TemplateError, match="-device can't be plugged"):
        render.hotplug_commands([Option("-device", "virtio-net-pci")])


# Whose template it is.


def test_the_administrators_template_wins(tmp_path: Path) -> None:
    own = tmp_path / "templates"
    own.joinpath("parts").mkdir(parents=True)
    own.joinpath("parts/vcpu.j2").write_text('-device {"driver": "mine"}\n')
    device: dict[str, Any] = {
        "vcpu": {"driver": "x", "id": "vcpu1", "socket": 1, "die": 0, "core": 0, "thread": 0}
    }
    assert render.render("parts/vcpu.j2", device, own=str(own)) == [Option("-device", {"driver": "mine"})]
    assert render.render("parts/vcpu.j2", device, own=str(tmp_path)) != [Option("-device", {"driver": "mine"})]


def test_an_own_machine_includes_packaged_parts(tmp_path: Path) -> None:
    tmp_path.joinpath("q35.args.j2").write_text('-S\n{% include "parts/vcpu.j2" %}\n')
    options = render.render(
        "q35.args.j2",
        {"vcpu": {"driver": "x", "id": "vcpu1", "socket": 1, "die": 0, "core": 0, "thread": 0}},
        own=str(tmp_path),
    )
    assert [option.name for option in options] == ["-S", "-device"]


def test_an_edited_template_counts_at_once(tmp_path: Path) -> None:
    assert rendered(tmp_path, "-name one")[0].value == "one"
    tmp_path.joinpath("one.j2").write_text("-name two")
    # Two writes can fall into one tick of the file system's clock.
    os.utime(tmp_path / "one.j2", (1, 1))
    assert render.render(str(tmp_path / "one.j2"), {})[0].value == "two"
