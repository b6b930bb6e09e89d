"""The command line's grammar: virsh's rules and virsh's words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qkvm.cli.parse import Args, UsageError, options_of, parse
from qkvm.cli.verbs import Verb, find, names
from qkvm.errors import QkvmError


def read(*words: str) -> Args:
    verb = find(words[0])
    assert verb is not None
    return parse(verb, list(words[1:]))


def a_verb(*options: str) -> Verb:
    return Verb("family", "\n    ".join(("verb (domain): summary", *options)))


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["list", "--bogus"], "command 'list' doesn't support option --bogus"),
        (["list", "--bogus=3"], "command 'list' doesn't support option --bogus"),
        (["list", "--al"], "command 'list' doesn't support option --al"),
        (["list", "--ALL"], "command 'list' doesn't support option --ALL"),
        (["list", "--bogus", "--help"], "command 'list' doesn't support option --bogus"),
        (["list", "--help", "--bogus"], "command 'list' doesn't support option --bogus"),
        (["list", "--help=3"], "invalid '=' after option --help"),
        (["list", "--all", "--all"], "option --all already seen"),
        (["list", "--all", "--all=3"], "option --all already seen"),
        (["list", "--all=3"], "invalid '=' after option --all"),
        (["list", "x"], "unexpected data 'x'"),
        (["list", "--name", "x"], "unexpected data 'x'"),
        (["list", "-"], "unexpected data '-'"),
        (["list", "-h"], "unexpected data '-h'"),
        (["list", "--=x"], "unexpected data '--=x'"),
        (["list", "---x"], "unexpected data '---x'"),
        (["list", "--_x"], "unexpected data '--_x'"),
        (["list", "--é"], "unexpected data '--é'"),
        (["list", "--", "--all"], "unexpected data '--all'"),
        (["list", "a\nb"], "unexpected data 'a\\nb'"),
        (["start"], "command 'start' requires <domain> option"),
        (["start", "--domain"], "expected syntax: --domain <string>"),
        (["start", "--domain=x", "--domain", "y"], "option --domain already seen"),
        (["start", "--dom", "x"], "command 'start' doesn't support option --dom"),
        (["start", "a", "b"], "unexpected data 'b'"),
        (["start", "--paused"], "command 'start' requires <domain> option"),
        (["setvcpus"], "command 'setvcpus' requires <domain> option"),
        (["setvcpus", "a"], "command 'setvcpus' requires --count option"),
        (["setvcpus", "a", "--count"], "expected syntax: --count <number>"),
        (["setvcpus", "a", "x"], "Numeric value 'x' for <count> option is malformed or out of range"),
        (["setvcpus", "a", "-1"], "Numeric value '-1' for <count> option is malformed or out of range"),
        (["setvcpus", "a", "0x2"], "Numeric value '0x2' for <count> option is malformed or out of range"),
        (
            ["setvcpus", "a", "9" * 11],
            f"Numeric value '{'9' * 11}' for <count> option is malformed or out of range",
        ),
        (["setvcpus", "a", "2", "3"], "unexpected data '3'"),
        (["setvcpus", "a", "2", "--timeout", "0"], "Numeric value '0' for <timeout> option is malformed"),
        (["setmem", "a"], "command 'setmem' requires --size option"),
        (["setmem", "a", "bogus"], "Scaled numeric value 'bogus' for <size> option is malformed or out of range"),
        (["setmem", "a", "--size", "4", "5"], "unexpected data '5'"),
        (["setmem", "4", "--domain", "a"], "option --domain already seen"),
        (["event", "--timeout"], "expected syntax: --timeout <number>"),
        (["event", "--timeout", "x"], "Numeric value 'x' for <timeout> option is malformed or out of range"),
        (["event", "a", "b", "5", "x"], "unexpected data 'x'"),
        (["domifaddr", "a", "vnet0", "lease", "x"], "unexpected data 'x'"),
        (["dommemstat", "a", "5"], "unexpected data '5'"),
        (["net-dhcp-leases", "a", "mac", "x"], "unexpected data 'x'"),
        (["qemu-monitor-command", "a"], "command 'qemu-monitor-command' requires <cmd> option"),
        (["qemu-monitor-command", "a", "--cmd"], "expected syntax: --cmd <string>"),
        (["qemu-monitor-command", "a", "x", "--bogus"], "command 'qemu-monitor-command' doesn't support option"),
        (["domargv", "a", "--template"], "expected syntax: --template <string>"),
        (["define", "a.toml", "--xml"], "command 'define' doesn't support option --xml"),
    ],
)
def test_refused(words: list[str], error: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(*words)
    assert str(caught.value).startswith(error)


@pytest.mark.parametrize(
    ("words", "domain", "count", "live"),
    [
        (["vm", "2"], "vm", 2, False),
        (["vm", "2", "--live"], "vm", 2, True),
        (["--live", "vm", "2"], "vm", 2, True),
        (["--count", "2", "vm"], "vm", 2, False),
        (["--count=2", "--domain=vm"], "vm", 2, False),
        (["2", "--count", "3"], "2", 3, False),
        (["--", "--live", "2"], "--live", 2, False),
        (["--live", "--", "vm", "2"], "vm", 2, True),
        (["--domain", "--live", "2"], "--live", 2, False),
        (["-a", "2"], "-a", 2, False),
        (["-", " 2"], "-", 2, False),
        (["--domain=", "2"], "", 2, False),
        (["--domain=a=b", "+2"], "a=b", 2, False),
    ],
)
def test_setvcpus(words: list[str], domain: str, count: int, live: bool) -> None:
    args = read("setvcpus", *words)
    assert (args.required("domain"), args.number("count"), args.flag("live")) == (domain, count, live)


def test_optional_values_by_position() -> None:
    args = read("domifaddr", "vm", "vnet0", "lease")
    assert (args.text("interface"), args.text("source"), args.number("timeout")) == ("vnet0", "lease", None)
    args = read("event", "vm", "lifecycle", "5")
    assert (args.text("domain"), args.text("event"), args.number("timeout")) == ("vm", "lifecycle", 5)


@pytest.mark.parametrize(
    ("words", "commands"),
    [
        (["vm", "info", "status"], ["info", "status"]),
        (["vm", "info", "--hmp", "status"], ["info", "status"]),
        (["vm", "--cmd", "x", "--cmd=y", "z", "--hmp"], ["x", "y", "z"]),
        (["--hmp", "vm", "--", "x", "--bogus", "--"], ["x", "--bogus", "--"]),
    ],
)
def test_repeated(words: list[str], commands: list[str]) -> None:
    args = read("qemu-monitor-command", *words)
    assert args.texts("cmd") == commands
    assert args.required("domain") == "vm"


def test_size_is_kib() -> None:
    assert read("setmem", "vm", "700M").size("size") == 700 * 1024
    assert read("setmem", "vm", "--size=524288").size("size") == 524288


def test_help_is_no_error_where_something_is_missing() -> None:
    for words in (["--help"], ["--help", "--help"], ["vm", "--help", "x"]):
        assert read("setvcpus", *words).help


def test_help_can_be_a_value() -> None:
    args = read("start", "--domain", "--help")
    assert not args.help
    assert args.text("domain") == "--help"


def test_raw_words_are_left_alone() -> None:
    words = ("--disk", "a", "--disk=b", "--", "--network=?", "--help")
    assert read("install", *words).raw == words


def test_unknown_names_are_mistakes_of_the_program() -> None:
    args = read("list")
    for ask in (args.flag, args.text, args.texts, args.number, args.size, args.required):
        with pytest.raises(KeyError):
            ask("domain")
    with pytest.raises(KeyError):
        args.required("all")


def test_rules_between_options() -> None:
    args = read("setvcpus", "vm", "2", "--live", "--current", "--maximum")
    with pytest.raises(UsageError, match="Options --current and --live are mutually exclusive"):
        args.exclusive("current", "live")
    with pytest.raises(UsageError, match="Option --config is required by option --maximum"):
        args.needs("maximum", "config")
    args.exclusive("current", "config")
    args.needs("maximum", "live")


def test_subject_and_values() -> None:
    args = read("start", "a\x1bb")
    assert args.subject == "a\x1bb"
    assert args.values == {"domain": "a\\x1bb"}
    assert read("list").subject is None


@pytest.mark.parametrize("options", ["<a", "<a]", "[b>", "[", "<>", "<a> x", "<a> <a>", "[--a <b>", "[--a b]"])
def test_bad_notation(options: str) -> None:
    with pytest.raises(ValueError, match="notation|twice"):
        options_of(a_verb(options))


def test_notation() -> None:
    options = options_of(
        a_verb(
            "<a> <n:number> <s:size> [--f] [--o <string:x|y>] [--t=<number>] [--i=<number:signed>]",
            "[--p=<file:folder>]!  what it means",
            "<c>...",
        )
    )
    got = [(o.name, o.kind, o.required, o.positional, o.repeated) for o in options.values()]
    assert [(o.name, o.values, o.changes, o.meaning) for o in options.values() if o.values or o.changes] == [
        ("o", "x|y", False, ""),
        ("p", "folder", True, "what it means"),
    ]
    assert got == [
        ("a", "string", True, True, False),
        ("n", "number", True, True, False),
        ("s", "size", True, True, False),
        ("f", "flag", False, False, False),
        ("o", "string", False, True, False),
        ("t", "number", False, False, False),
        ("i", "signed", False, False, False),
        ("p", "string", False, False, False),
        ("c", "string", True, True, True),
    ]
    repeated = options_of(a_verb("[c]..."))["c"]
    assert repeated.repeated and repeated.positional and not repeated.required


def test_tables() -> None:
    for name in names():
        verb = find(name)
        assert verb is not None
        options = options_of(verb)
        assert verb.summary, name
        assert verb.headline.format_map({o.name: "x" for o in options.values() if o.required}) is not None, name
        required = [option.required for option in options.values() if not option.repeated]
        assert required == sorted(required, reverse=True), f"{name}: required options come first"


WORDS = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        ["--", "-", "--live", "--domain", "--domain=", "--timeout=1", "--help", "--cmd", "2", "1G", ""]
    ),
)


@given(st.sampled_from(names()), st.lists(WORDS, max_size=6))
def test_any_words_give_args_or_one_printable_error(name: str, words: list[str]) -> None:
    verb = find(name)
    assert verb is not None
    try:
        args = parse(verb, words)
    except QkvmError as error:
        assert str(error).isprintable()
        return
    if "raw" in verb.marks or args.help:
        return
    for option in options_of(verb).values():
        if option.required:
            assert args.required(option.name) is not None
        if option.kind == "number":
            args.number(option.name)
        if option.kind == "signed":
            args.signed(option.name)
        if option.kind == "size":
            args.size(option.name)


@given(st.lists(st.sampled_from(["--a", "--a=x", "--a=", "--b", "--b=3", "x", "3", "--", "--f"]), max_size=5))
def test_no_word_is_lost(words: list[str]) -> None:
    verb = a_verb("<a> [--f] [--b <number>] [c]...")
    try:
        args = parse(verb, words)
    except UsageError:
        return
    values = sum(len(args.texts(name)) for name in "abc")
    assert values >= sum(1 for word in words if not word.startswith("--"))
