"""What comes from outside is parsed or refused, and never anything else."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from qkvm import units
from qkvm.errors import InvalidValue

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=100)
"""Text with everything in it, halves of surrogate pairs too."""

SCALES = {
    **dict.fromkeys(("b", "byte", "bytes"), 1),
    "KB": 1000,
    "k": 1024,
    "KiB": 1024,
    "MB": 1000**2,
    "M": 1024**2,
    "MiB": 1024**2,
    "GB": 1000**3,
    "G": 1024**3,
    "GiB": 1024**3,
    "TB": 1000**4,
    "T": 1024**4,
    "TiB": 1024**4,
    "PB": 1000**5,
    "P": 1024**5,
    "PiB": 1024**5,
    "EB": 1000**6,
    "E": 1024**6,
    "EiB": 1024**6,
}
"""virsh's suffixes and the bytes that they stand for."""


@pytest.mark.parametrize("suffix", SCALES)
def test_every_suffix_in_any_case(suffix: str) -> None:
    for text in (suffix, suffix.lower(), suffix.upper(), suffix.swapcase()):
        for gap in ("", " "):
            assert units.parse_size(f"3{gap}{text}") == -(-3 * SCALES[suffix] // 1024)


@pytest.mark.parametrize(
    ("text", "kib"),
    [
        ("0", 0),
        ("1", 1),
        (" 512 ", 512),
        ("1b", 1),
        ("1024b", 1),
        ("1025b", 2),
        ("0b", 0),
        ("1KB", 1),
        ("1000MB", 976563),
        ("007M", 7168),
        ("7EiB", 7 << 50),
    ],
)
def test_sizes_are_rounded_up_to_kib(text: str, kib: int) -> None:
    assert units.parse_size(text) == kib


def test_the_unit_where_none_is_said() -> None:
    assert units.parse_size("2", default="MiB") == 2048
    assert units.parse_size("2k", default="MiB") == 2


@pytest.mark.parametrize(
    "text",
    [
        *(
            "",
            " ",
            "-1",
            "+1",
            "1.5G",
            "1e3",
            "0x10",
            "M",
            "1 2",
            "1MiBs",
            "1Ki",
            "1bit",
            "1x",
            "1ZB",
            "8EiB",
            "8EB8",
        ),
        *("9" * 21, "1" * 400, "1MiB\n2", "1\0M", "٣", "१MiB", "3\u00a0M\u0131B", "\ud800"),
    ],
)
def test_no_size(text: str) -> None:
    with pytest.raises(InvalidValue, match="malformed or out of range"):
        units.parse_size(text)


@given(ANY_TEXT)
def test_no_text_breaks_parse_size(text: str) -> None:
    try:
        assert 0 <= units.parse_size(text) < 1 << 53
    except InvalidValue as error:
        assert str(error).isprintable()


@given(st.integers(0, (1 << 53) - 1))
def test_a_size_shown_is_the_size_meant(kib: int) -> None:
    assert units.parse_size(units.format_size(kib)) == kib


@pytest.mark.parametrize(
    ("kib", "text"), [(0, "0KiB"), (1, "1KiB"), (1024, "1MiB"), (1025, "1025KiB"), (1 << 33, "8TiB")]
)
def test_format_size(kib: int, text: str) -> None:
    assert units.format_size(kib) == text


@pytest.mark.parametrize("text", ["", "x", "1.0", "--1", "+-1", "1 0", "1_0", "٣", "²", "0", "11", "-5", "9" * 30])
def test_no_count(text: str) -> None:
    with pytest.raises(InvalidValue, match="<vcpus>"):
        units.parse_count(text, "vcpus", maximum=10)


def test_counts() -> None:
    assert [units.parse_count(text, "x", minimum=-3) for text in ("1", " 7 ", "+2", "-3", "007")] == [
        1,
        7,
        2,
        -3,
        7,
    ]


@pytest.mark.parametrize("name", ["a", "A1", "_x", "vm01-centos7.4-64", "a+b@c:d", "9" * 80, "x" * 80, "0"])
def test_names(name: str) -> None:
    assert units.check_name(name, "domain") == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        ".x",
        "-x",
        "+x",
        "a b",
        "a/b",
        "a,b",
        "a=b",
        "a\nb",
        "a\0",
        "é",
        "x" * 81,
        "{{x}}",
        "a$",
        "\ud800",
    ],
)
def test_no_name(name: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        units.check_name(name, "domain")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("name", ["a", "virbr0", "vnet12", "br-lan.7", "eth0@if3", "x" * 15])
def test_interface_names(name: str) -> None:
    assert units.check_interface_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "all",
        "default",
        "x" * 16,
        "a b",
        "a/b",
        "a:b",
        "vnet%d",
        "-a",
        "é" * 8,
        "é",
        "\ud800",
        "a\n",
    ],
)
def test_no_interface_name(name: str) -> None:
    with pytest.raises(InvalidValue):
        units.check_interface_name(name)


@pytest.mark.parametrize("text", ["52:54:00:AB:cd:01", "52-54-00-ab-cd-01"])
def test_mac_addresses(text: str) -> None:
    assert units.parse_mac(text) == "52:54:00:ab:cd:01"


@pytest.mark.parametrize(
    "text",
    [
        "",
        "52:54:00:ab:cd",
        "52:54:00:ab:cd:01:02",
        "52:54:00:ab:cd:1",
        "52:54:00:ab:cd:+1",
        "52:54:00:ab:cd: 1",
        "525400abcd01",
        "52:54:00:ab:cd:0g",
        "01:00:5e:00:00:01",
        "ff:ff:ff:ff:ff:ff",
        "00:00:00:00:00:00",
        "::::::",
    ],
)
def test_no_mac_address(text: str) -> None:
    with pytest.raises(InvalidValue):
        units.parse_mac(text)


def test_random_macs_and_uuids_are_well_formed_and_differ() -> None:
    macs, uuids = {units.random_mac() for _ in range(50)}, {units.random_uuid() for _ in range(50)}
    assert len(macs) > 45
    assert len(uuids) == 50
    assert all(units.parse_mac(mac) == mac and mac.startswith("52:54:00:") for mac in macs)
    assert all(units.parse_uuid(uuid) == uuid and uuid[14] == "4" and uuid[19] in "89ab" for uuid in uuids)


@pytest.mark.parametrize(
    "text",
    [
        "702ec947-419d-405a-ba80-ba4e81a9f7b2",
        "702EC947-419D-405A-BA80-BA4E81A9F7B2",
        "702ec947419d405aba80ba4e81a9f7b2",
    ],
)
def test_uuids(text: str) -> None:
    assert units.parse_uuid(text) == "702ec947-419d-405a-ba80-ba4e81a9f7b2"


@pytest.mark.parametrize("text", ["", "702ec947", "g" * 32, "0" * 33, "-" * 36, "0" * 32 + "-" * 5, "٣" * 32])
def test_no_uuid(text: str) -> None:
    with pytest.raises(InvalidValue):
        units.parse_uuid(text)


@pytest.mark.parametrize("text", ["", "a", "./a", "~/a", "/a\nb", "/a\0b", "/a\x7f", "/a\x1b[2J", "/a\udcff"])
def test_no_path(text: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        units.check_path(text, "kernel")
    assert str(caught.value).isprintable()


CHECKS: list[Callable[[str], object]] = [
    lambda text: units.check_name(text, "x"),
    units.check_interface_name,
    units.parse_mac,
    units.parse_uuid,
    lambda text: units.parse_count(text, "x"),
    lambda text: units.check_path(f"/{text}", "x"),
    lambda text: units.check_text(text, "x"),
    lambda text: units.check_unicode(text, "x"),
]


@given(st.sampled_from(CHECKS), ANY_TEXT)
@example(units.check_interface_name, "\ud800")
@example(units.parse_uuid, "İ" * 32)
def test_no_text_breaks_a_check(check: Callable[[str], object], text: str) -> None:
    try:
        result = check(text)
    except InvalidValue as error:
        assert str(error).isprintable()
        assert error.hint.isprintable()
    else:
        str(result).encode()


@given(ANY_TEXT)
def test_printable_text_is_printable(text: str) -> None:
    shown = units.printable(text)
    assert shown.isprintable()
    assert shown == text or not text.isprintable()
