"""The guide: one text a topic. ``qkvm help TOPIC`` prints it, and it becomes a manual page of section 7.

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
"""The word for which ``qkvm help`` prints the list of topics."""

FOLDER = os.path.join(package(), "guide")


def topics() -> list[str]:
    """Return the names of all topics, sorted."""
    return sorted(name.removesuffix(".md") for name in os.listdir(FOLDER) if name.endswith(".md"))


def text(topic: str) -> str:
    """Return the Markdown text of a topic, one of :func:`topics`."""
    with open(os.path.join(FOLDER, f"{topic}.md"), encoding="utf-8") as stream:
        return stream.read()


def summary(topic: str) -> str:
    """Return a topic's summary in one line."""
    with open(os.path.join(FOLDER, f"{topic}.md"), encoding="utf-8") as stream:
        return stream.readline().partition(": ")[2].rstrip("\n")


def parts(markdown: str) -> Iterator[tuple[str | None, str]]:
    """Yield each line of a text, with the kind of the fenced block around it, None outside of one.

    Fences and comments are left out.
    """
    kind: str | None = None
    for line in markdown.splitlines():
        if line.startswith("```"):
            kind = line[3:] if kind is None else None
        elif not line.startswith("<!--"):
            yield kind, line


def shown(topic: str) -> str:
    """Return a topic as the help prints it, with indented examples."""
    return "".join(
        f"    {line}\n" if kind is not None and line else f"{line}\n" for kind, line in parts(text(topic))
    )


def listing() -> str:
    """Return all topics with their summaries, as a group of the help."""
    lines = "".join(f"    {topic:<30} {summary(topic)}\n" for topic in topics())
    return f" Guide (help keyword '{KEYWORD}'):\n{lines}"
