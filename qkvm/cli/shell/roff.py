"""Texts in man(7)'s macros: words as they are, and a topic of the guide as a page of section 7."""

from __future__ import annotations

import re
from itertools import groupby

from qkvm.cli.shell import guide

_MARKED = re.compile(r"\*\*(.+?)\*\*|`([^`]+)`")
"""What Markdown sets apart: bold words, and code."""

_BEGIN = re.compile(r"\n(?=- |\|)")
"""Where a line of a block begins something new: an item of a list, a row of a table."""


def escaped(text: str) -> str:
    """Words as roff prints them as they are."""
    plain = text.replace("\\", "\\(rs").replace("-", "\\-").replace("^", "\\(ha").replace("~", "\\(ti")
    plain = plain.replace("'", "\\(aq").replace("`", "\\(ga").replace('"', "\\(dq")
    plain = "".join(sign if ord(sign) < 128 else f"\\[u{ord(sign):04X}]" for sign in plain)
    return f"\\&{plain}" if plain.startswith(".") else plain


def topic_page(topic: str, date: str, version: str) -> str:
    """The text of qkvm-TOPIC(7). :param date: when it was made, YYYY-MM-DD."""
    made = (
        f'.TH QKVM\\-{topic.upper()} 7 {date} "qkvm {version}" "Guide of qkvm"\n'
        f".SH NAME\nqkvm\\-{topic} \\- {escaped(guide.summary(topic))}\n.SH DESCRIPTION\n"
    )
    for is_code, lines in groupby(list(guide.parts(guide.text(topic)))[1:], lambda part: part[0] is not None):
        text = "\n".join(line for _, line in lines)
        if is_code:
            shown = "".join(f"{escaped(line) or '.sp'}\n" for line in text.splitlines())
            made += f"{_paragraph(made)}.RS 4\n.nf\n{shown}.fi\n.RE\n"
            continue
        for block in filter(None, text.split("\n\n")):
            for line in _BEGIN.split(block.strip("\n")):
                made += _line(line.replace("\n", " "), _paragraph(made))
    return made + ".SH SEE ALSO\n.BR qkvm (1)\n"


def _paragraph(before: str) -> str:
    """What begins a paragraph; behind a heading it would be one too many."""
    return "" if before.splitlines()[-1].startswith(".SH") else ".PP\n"


def _line(line: str, begin: str) -> str:
    """A heading, an item of a list, a row of a table, or a paragraph, which ``begin`` begins."""
    if line.startswith("## "):
        return f'.SH "{escaped(line[3:].upper())}"\n'
    if line.startswith("- "):
        return f".IP \\(bu 2\n{_marked(' '.join(line[2:].split()))}\n"
    if not line.startswith("|"):
        return f"{begin}{_marked(line)}\n" if line else ""
    first, *rest = (cell.strip() for cell in line.strip("|").split("|"))
    ruler = not first.strip("- ")
    return "" if ruler else f".TP\n{_marked(first)}\n{_marked('; '.join(filter(None, rest))) or '.br'}\n"


def _marked(text: str) -> str:
    """Words with what is set apart in bold."""
    made, end = "", 0
    for found in _MARKED.finditer(text):
        bold = (found[1] or found[2]).replace("`", "")
        made += f"{escaped(text[end : found.start()]).removeprefix(chr(92) + '&')}\\fB{escaped(bold)}\\fR"
        end = found.end()
    made += escaped(text[end:])
    return f"\\&{made}" if made.startswith((".", "'")) else made
