"""The manual page has every verb and option that the help has, and none of their words is taken for a macro."""

from __future__ import annotations

from qkvm.cli import verbs
from qkvm.cli.install.table import OPTIONS
from qkvm.cli.shell import manual, roff
from qkvm.cli.shell.usage import verb_help_parts
from qkvm.paths import Tree


def plain(page: str) -> str:
    """The page's words, without roff's."""
    for mark, sign in (("\\fB", ""), ("\\fR", ""), ("\\&", ""), ("\\-", "-"), ("\\(aq", "'"), ("\\(dq", '"')):
        page = page.replace(mark, sign)
    return page


def test_the_page_is_the_help() -> None:
    made = manual.page("what it is", "2026-01-02")
    assert made.startswith('.TH QKVM 1 2026-01-02 "qkvm ')
    assert all(len(line) and line.isascii() for line in made.splitlines())
    words = plain(made)
    shown = verbs.listed()
    for verb in shown:
        assert f"\n.SS {verb.name}\n" in words
        if "raw" not in verb.marks:
            synopsis, _, options = verb_help_parts(verb)
            assert f"\n{synopsis}\n" in words.replace("\\(ha", "^").replace("\\(rs", "\\")
            for label, _ in options:
                assert f"\n.TP\n{label}\n" in words
    assert len(shown) == made.count("\n.SS ")
    for option in OPTIONS:
        assert f"--{option}" in words
    assert "\n.TP\nrun/qkvm/\n" in words and Tree("/").run == "/run/qkvm"


def test_what_roff_would_read_is_escaped() -> None:
    escaped = roff.escaped('.TH \\fB it\'s "a" – ^b~ `c`')
    assert escaped == "\\&.TH \\(rsfB it\\(aqs \\(dqa\\(dq \\[u2013] \\(hab\\(ti \\(gac\\(ga"
