"""A line taken apart: quotes, commands, comments. The cases are what virsh 9.0 was seen to do with them."""

from __future__ import annotations

import io
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qkvm.cli import words
from qkvm.cli.main import Session, _Console
from qkvm.cli.parse import UsageError


@pytest.mark.parametrize(
    ("line", "commands"),
    [
        ("", []),
        (" \t ", []),
        (";;", []),
        ("list --all", [["list", "--all"]]),
        ("list;dominfo vm\nquit", [["list"], ["dominfo", "vm"], ["quit"]]),
        (" ;;a;; ", [["a"]]),
        ("echo a\\\nb", [["echo", "ab"]]),
        ('echo "a\\\nb"', [["echo", "ab"]]),
        ("echo 'a\nb' c", [["echo", "a\nb", "c"]]),
        ("echo a \\\n b", [["echo", "a", "b"]]),
        ('echo "x;y" z\\;w', [["echo", "x;y", "z;w"]]),
        ("echo a;#c\necho b #d;echo e", [["echo", "a"], ["echo", "b"]]),
        ("echo a#b '#c' \\#d", [["echo", "a#b", "#c", "#d"]]),
        ("# nothing", []),
        ('echo "a\\"b\\\\c\\$" \'d\\e\'', [["echo", 'a"b\\c$', "d\\e"]]),
        ("echo a\"b c\"d'e f'", [["echo", "ab cde f"]]),
        ('echo "it\'s" \'a "b"\'', [["echo", "it's", 'a "b"']]),
        ("echo \"\" ''", [["echo", "", ""]]),
        ("echo é\u00a0x", [["echo", "é\u00a0x"]]),
    ],
)
def test_split(line: str, commands: list[list[str]]) -> None:
    assert words.split(line) == commands


@pytest.mark.parametrize(
    ("line", "error"),
    [('a "b', 'missing "'), ("a 'b\"", "missing '"), ("a b\\", "dangling \\"), ('a "b\\', "dangling \\")],
)
def test_without_an_end(line: str, error: str) -> None:
    with pytest.raises(UsageError) as caught:
        words.split(line)
    assert str(caught.value) == error


@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=8), min_size=1))
def test_what_echo_quotes_is_read_back(given: list[str]) -> None:
    out = io.StringIO()
    Session(_Console(out, None)).run([["echo", "--shell", "--", *given]])
    assert words.split(out.getvalue()) == [given]


@given(st.text("ab '\"\\;#\n\t", max_size=20))
def test_no_line_is_too_odd(line: str) -> None:
    found = words.scan(line)
    assert 0 <= found.begin <= len(line)
    if not found.unclosed and line[found.begin :]:
        assert words.split(line[found.begin :]) == [[found.commands[-1][-1]]]


def test_a_long_line_takes_no_longer_than_it_must() -> None:
    assert words.split("a" * 1_000_000) == [["a" * 1_000_000]]


# The verbs of the shell itself.


def run(*commands: list[str], interactive: bool = False) -> tuple[str, str, int]:
    out, err = io.StringIO(), io.StringIO()
    session = Session(_Console(out, err))
    session.interactive = interactive
    code = session.run(list(commands))
    return out.getvalue(), err.getvalue(), code


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        (["hi", "there"], "hi there\n\n"),
        ([], "\n\n"),
        (["--shell", "a b", "c'd", "e", "", "x~y", "ü"], "'a b' 'c'\\''d' e '' 'x~y' ü\n\n"),
        (["--shell", "a-b_c.d/e:f@g%h+i,j=k"], "a-b_c.d/e:f@g%h+i,j=k\n\n"),
        (["--xml", "a<b&'", '"'], "a&lt;b&amp;&apos; &quot;\n\n"),
        (["--split", "a,b,,c", "d"], "a\nb,c\n d\n\n\n"),
        (["--split", ",a,"], "\na\n\n\n\n"),
        (["--", "--shell", "x"], "--shell x\n\n"),
        (["--prefix", "a b", "--shell", "c d"], "a b 'c d'\n\n"),
        (["--prefix", "p"], "p\n\n"),
    ],
)
def test_echo(given: list[str], shown: str) -> None:
    assert run(["echo", *given]) == (shown, "", 0)


def test_echo_to_stderr() -> None:
    assert run(["echo", "--err", "x", "y"]) == ("\n", "error: x y\n", 0)
    assert run(["echo", "--err", "--prefix", "p", "x"]) == ("\n", "error: p x\n", 0)


def test_echo_quotes_in_one_way_only() -> None:
    out, err, code = run(["echo", "--shell", "--xml", "x"])
    assert (out, err, code) == ("\n", "error: Options --shell and --xml are mutually exclusive\n", 1)


def test_cd_and_pwd(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert run(["cd", "/usr"]) == ("\n", "error: cd: command valid only in interactive mode\n", 1)
    assert run(["cd", "/usr"], ["pwd"], ["cd"], ["pwd"], interactive=True)[0] == f"\n/usr\n\n\n{tmp_path}\n\n"
    out, err, code = run(["cd", "/nonexistent"], interactive=True)
    assert (err, code, os.getcwd()) == ("error: cd: No such file or directory: /nonexistent\n", 1, str(tmp_path))


def test_connect() -> None:
    assert run(["connect"], ["connect", "qemu:///system"])[2] == 0
    out, err, code = run(["connect", "xen:///system"])
    assert code == 1 and err.startswith("error: failed to connect to the hypervisor: ") and "session" in err


def test_exit_and_quit_end_it() -> None:
    for verb in ("exit", "quit"):
        assert run(["echo", "a"], [verb], ["echo", "b"]) == ("a\n\n", "", 0)
