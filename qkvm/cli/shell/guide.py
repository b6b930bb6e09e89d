"""The guide: one text a topic, which ``qkvm help TOPIC`` prints and a manual page of section 7 is made of.

The texts are Markdown in ``qkvm/guide``, with headings, paragraphs, lists, tables and fenced blocks. The first
line is ``# TOPIC: SUMMARY``.
"""

from __future__ import annotations

import os

from qkvm.paths import package

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

KEYWORD = "guide"
"""What ``qkvm help`` takes for the list of topics."""

FOLDER = os.path.join(package(), "guide")


def topics() -> list[str]:
    """The names of all topics, sorted."""
    return sorted(name.removesuffix(".md") for name in os.listdir(FOLDER) if name.endswith(".md"))


def text(topic: str) -> str:
    """The text of a topic, one of :func:`topics`, as it is kept."""
    with open(os.path.join(FOLDER, f"{topic}.md"), encoding="utf-8") as stream:
        return stream.read()


def summary(topic: str) -> str:
    """What a topic is about, in one line."""
    with open(os.path.join(FOLDER, f"{topic}.md"), encoding="utf-8") as stream:
        return stream.readline().partition(": ")[2].rstrip("\n")


def parts(markdown: str) -> Iterator[tuple[str | None, str]]:
    """Each line of a text, with the kind of the fenced block that it is in, None outside of one.

    Lines that are for the keepers of the text are left out: fences and comments.
    """
    kind: str | None = None
    for line in markdown.splitlines():
        if line.startswith("```"):
            kind = line[3:] if kind is None else None
        elif not line.startswith("<!--"):
            yield kind, line


def shown(topic: str) -> str:
    """A topic as the help prints it: examples are indented."""
    return "".join(
        f"    {line}\n" if kind is not None and line else f"{line}\n" for kind, line in parts(text(topic))
    )


def listing() -> str:
    """All topics with what they are about, as a group of the help."""
    lines = "".join(f"    {topic:<30} {summary(topic)}\n" for topic in topics())
    return f" Guide (help keyword '{KEYWORD}'):\n{lines}"
