"""The examples of the guide and the README: a fenced block each, which says in its first line what it is.

console             commands of a shell: lines behind '# ' (root) or '$ '; a backslash goes on with the next line
console elsewhere   the same, which can't be run in a test
sh                  a shell's lines that are not run either: packages, other hosts, other programs
toml WHAT [FILE]    a definition; FILE is the name that console lines of the same text know it by
xml WHAT            a description in libvirt's words
python              of the library
json                the forms of what --json prints; tests.jsonform reads them
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from qkvm.cli.shell import guide

TOP = Path(__file__).parent.parent
README = "README"


class Block(NamedTuple):
    """An example: the text that it is in, its place there, and the words of its first line."""

    topic: str
    line: int
    kind: str
    words: tuple[str, ...]
    text: str

    @property
    def name(self) -> str:
        """Where it is, for messages."""
        return f"{self.topic}:{self.line}"

    @property
    def is_run(self) -> bool:
        """Whether it is one that can be run."""
        return self.kind in ("console", "python") and "elsewhere" not in self.words

    @property
    def commands(self) -> list[str]:
        """The lines that are typed, of a console's or a shell's block."""
        joined = self.text.replace("\\\n", "")
        if self.kind == "sh":
            return joined.splitlines()
        return [line[2:] for line in joined.splitlines() if line.startswith(("# ", "$ "))]


def texts() -> dict[str, str]:
    """Each text by its topic's name, the README's too."""
    readme = (TOP / "README.md").read_text(encoding="utf-8")
    return {README: readme, **{topic: guide.text(topic) for topic in guide.topics()}}


def blocks() -> list[Block]:
    """All examples, in order."""
    return [block for topic, text in texts().items() for block in _blocks(topic, text)]


def prose(text: str) -> str:
    """A text without its examples."""
    return "\n".join(line for kind, line in guide.parts(text) if kind is None)


def _blocks(topic: str, text: str) -> Iterator[Block]:
    begin: tuple[int, str, list[str]] | None = None
    for number, line in enumerate(text.splitlines(), 1):
        if not line.startswith("```"):
            if begin is not None:
                begin[2].append(line)
        elif begin is None:
            begin = (number, line[3:], [])
        else:
            kind, *words = begin[1].split() or [""]
            yield Block(topic, begin[0], kind, tuple(words), "".join(f"{one}\n" for one in begin[2]))
            begin = None
    assert begin is None, f"{topic}: an example has no end"


def qkvm_lines(command: str) -> Iterator[list[str]]:
    """The words behind each 'qkvm' of a shell's line."""
    lexer = shlex.shlex(re.sub(r" # .*", "", command), posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    lexer.commenters = ""
    words: list[str] | None = None
    for word in lexer:
        if set(word) <= set("|&;<>"):
            if words is not None:
                yield words
            words = None
        elif words is not None:
            words.append(word)
        elif word == "qkvm":
            words = []
    if words is not None:
        yield words
