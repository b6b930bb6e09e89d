"""Text in man(7)'s macros: escaped words, and a topic of the guide as a page of section 7."""

from __future__ import annotations

import re
from itertools import groupby

from qkvm.cli.shell import guide

_MARKED = re.compile(r"\*\*(.+?)\*\*|`([^`]+)`")
"""Markdown's marks within a line: bold words, and code."""

_BEGIN = re.compile(r"\n(?=- |\|)")
"""Matches a line that begins a list item or a table row."""


def escaped(text: str) -> str:
    """Return words escaped for roff."""
    plain = text.replace("\\", "\\(rs").replace("-", "\\-").replace("^", "\\(ha").replace("~", "\\(ti")
    plain = plain.replace("'", "\\(aq").replace("`", "\\(ga").replace('"', "\\(dq")
    plain = "".join(sign if ord(sign) < 128 else f"\\[u{ord(sign):04X}]" for sign in plain)
    return f"\\&{plain}" if plain.startswith(".") else plain


def topic_page(topic: str, date: str, version: str) -> str:
    """Return the text of qkvm-TOPIC(7). :param date: the date of the page, YYYY-MM-DD."""
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
    """Return the macro that begins a paragraph; '' after a heading, which begins one itself."""
    return "" if before.splitlines()[-1].startswith(".SH") else ".PP\n"


def _line(line: str, begin: str) -> str:
    """Return a heading, a list item, a table row, or a paragraph that begins with ``begin``."""
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
    """Return words with the marked ones in bold."""
    made, end = "", 0
    for found in _MARKED.finditer(text):
        bold = (found[1] or found[2]).replace("`", "")
        made += f"{escaped(text[end : found.start()]).removeprefix(chr(92) + '&')}\\fB{escaped(bold)}\\fR"
        end = found.end()
    made += escaped(text[end:])
    return f"\\&{made}" if made.startswith((".", "'")) else made
