"""The options in front of the verb: virsh's, read as getopt_long reads them."""

from __future__ import annotations

import pytest

from qkvm.cli.globals import Globals
from qkvm.cli.parse import UsageError


def read(*words: str) -> tuple[Globals, list[str]]:
    options = Globals()
    rest = options.read(list(words))
    return options, rest


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["list"], {}),
        (["--", "-x"], {}),
        (["-q", "x"], {"quiet": True}),
        (["-tqr", "x"], {"quiet": True, "timing": True, "readonly": True}),
        (["--quiet", "--timing", "x"], {"quiet": True, "timing": True}),
        (["--ti", "--qu", "--read", "x"], {"quiet": True, "timing": True, "readonly": True}),
        (["-cqemu:///system", "-c", "qemu:///system", "--connect=qemu:///system", "x"], {"uri": "qemu:///system"}),
        (["--conn", "qemu:///session", "x"], {"uri": "qemu:///session"}),
        (["-e", "x", "y"], {"escape": "x"}),
        (["-tex", "y"], {"escape": "x", "timing": True}),
        (["--escape=^a", "y"], {"escape": "^a"}),
        (["-d", "2", "x"], {"level": 2}),
        (["-d0", "x"], {"level": 0}),
        (["--debug=3", "x"], {"level": 3}),
        (["--debug", "1", "x"], {"level": 1}),
        (["--debug", "x"], {"level": 0}),
        (["-d", "9", "x"], {"level": 4, "ignored": ["ignoring debug level 9 out of range [0-4]"]}),
        (["-l", "f", "x"], {"log": "f"}),
        (["--root", "r", "x"], {"root": "r"}),
        (["--root=r", "x"], {"root": "r"}),
        (["-k", "5", "-K0", "--keepalive-interval=3", "--keepalive-count", "2", "x"], {}),
        (["-v", "--bogus"], {"version": "short"}),
        (["-qV", "--bogus"], {"version": "long", "quiet": True}),
        (["--version=long"], {"version": "long"}),
        (["-h", "--bogus"], {"help": True}),
    ],
)
def test_read(words: list[str], expected: dict[str, object]) -> None:
    options, _ = read(*words)
    fresh = Globals()
    assert {name: getattr(options, name) for name in Globals.__slots__} == {
        **{name: getattr(fresh, name) for name in Globals.__slots__},
        **expected,
    }


def test_what_is_left() -> None:
    assert read("-q", "list", "-q")[1] == ["list", "-q"]
    assert read("-q", "--", "--all")[1] == ["--all"]
    assert read("-")[1] == ["-"]
    assert read()[1] == []


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["-x"], "unsupported option '-x'. See --help."),
        (["-qx"], "unsupported option '-x'. See --help."),
        (["--bogus"], "unsupported option '--bogus'. See --help."),
        (["--r"], "unsupported option '--r'. See --help."),
        (["--=x"], "unsupported option '--=x'. See --help."),
        (["--quiet=3"], "unsupported option '--quiet=3'. See --help."),
        (["--version=foo"], "unsupported option '--version=foo'. See --help."),
        (["-c"], "option '-c'/'--connect' requires an argument"),
        (["-ql"], "option '-l'/'--log' requires an argument"),
        (["--escape"], "option '-e'/'--escape' requires an argument"),
        (["--root"], "option '--root' requires an argument"),
        (["--root="], "option '--root' requires an argument"),
        (["-d", "x"], "option -d takes a numeric argument"),
        (["--debug=x"], "option --debug takes a numeric argument"),
        (["-k", "x"], "Invalid value for option -k"),
        (["-k", "-1"], "option -k requires a positive integer argument"),
        (["--keepalive-count=-1"], "option --keepalive-count requires a positive integer argument"),
        (["-e", "xy"], "Invalid string 'xy' for escape sequence"),
        (["-e", "^"], "Invalid string '^' for escape sequence"),
        (["-e", "^1"], "Invalid string '^1' for escape sequence"),
        (["-e", "é"], "Invalid string 'é' for escape sequence"),
        (["--escape="], "Invalid string '' for escape sequence"),
    ],
)
def test_refused(words: list[str], error: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(*words)
    assert str(caught.value) == error


@pytest.mark.parametrize(
    "uri", ["", "qemu:///sessions", "qemu:///system?x", "qemu+ssh://host/system", "test:///default"]
)
def test_other_uris_are_refused(uri: str) -> None:
    with pytest.raises(UsageError, match="failed to connect to the hypervisor: .* not "):
        read("-c", uri, "list")
