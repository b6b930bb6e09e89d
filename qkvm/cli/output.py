"""Output formats of verbs: virsh's tables and label-value lists, and JSON.

Each function returns text that ends with a newline, for ``context.out``. Control characters in values are
escaped, so that they can't affect the terminal.
"""

from __future__ import annotations

import sys

from qkvm.units import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args


_NARROWEST = 8
"""Columns that a folded cell has at least."""


def table(headers: Sequence[str], rows: Iterable[Sequence[object]], *, header: bool = True) -> str:
    """Return rows in the layout of virsh's tables (vshTable of libvirt).

    :param rows: one value a column; '-' usually stands for no value.
    :param header: False omits the header and its line, for --quiet.

    On a terminal that is too narrow, long cells go on in the next line; states have colours.
    """
    body = [tuple(printable(str(cell)) for cell in row) for row in rows]
    lines = [tuple(headers), *body] if header else body
    widths = [max(map(columns, column)) for column in zip(*lines, strict=True)]
    state = -1
    if sys.stdout is not None and sys.stdout.isatty():
        from qkvm.cli import terminal

        room = terminal.width()
        if room and sum(widths) + 3 * len(widths) > room:
            lines, widths = _folded(lines, widths, room)
        state = next((number for number, name in enumerate(headers) if name in ("State", "Status")), -1)
    text = [_row(line, widths, state) for line in lines]
    if header:
        text.insert(1, "-" * sum(width + 3 for width in widths) + "\n")
    return "".join(text)


def _row(cells: Sequence[str], widths: Sequence[int], state: int) -> str:
    """Return a row: a blank before each cell, two after its padding; the last one is not padded.

    :param state: the number of the column whose words have colours.
    """
    padded = [cell + " " * (width - columns(cell)) for cell, width in zip(cells[:-1], widths, strict=False)]
    padded.append(cells[-1])
    if state >= 0:
        from qkvm.cli import terminal

        padded[state] = terminal.paint(cells[state], sys.stdout, text=padded[state])
    return " " + "   ".join(padded) + "\n"


def _folded(lines: list[tuple[str, ...]], widths: list[int], room: int) -> tuple[list[tuple[str, ...]], list[int]]:
    """Break the cells of the widest columns over several lines, so that the table fits in ``room`` columns."""
    left = max(room - 3 * len(widths), _NARROWEST * len(widths))
    while sum(widths) > left:
        widest = widths.index(max(widths))
        others = max((width for number, width in enumerate(widths) if number != widest), default=0)
        widths[widest] = max(min(others, widths[widest] - 1), widths[widest] - (sum(widths) - left), _NARROWEST)
    found = []
    for line in lines:
        pieces = [_pieces(cell, width) for cell, width in zip(line, widths, strict=True)]
        found += [
            tuple(one[number] if number < len(one) else "" for one in pieces)
            for number in range(max(map(len, pieces)))
        ]
    return found, widths


def _pieces(text: str, width: int) -> list[str]:
    """Break a text into lines of at most ``width`` columns: behind a blank, '/' or ',' if there is one."""
    found = []
    while columns(text) > width:
        end = next(end for end in range(len(text) - 1, 0, -1) if columns(text[:end]) <= width)
        soft = max(text.rfind(mark, 0, end) for mark in " /,") + 1
        end = soft if soft > end // 2 else end
        found.append(text[:end].rstrip(" "))
        text = text[end:]
    return [*found, text]


def columns(text: str) -> int:
    """Return how many columns a terminal needs for the text."""
    if text.isascii():
        return len(text)
    # Loading the character database takes a millisecond, which plain text does not need.
    from unicodedata import category, east_asian_width

    return sum(
        0 if category(char) in ("Mn", "Me", "Cf") else 2 if east_asian_width(char) in ("W", "F") else 1
        for char in text
    )


def pairs(items: Iterable[tuple[str, object]], width: int = 16) -> str:
    """Return one ``Label:  value`` a line, values aligned at column ``width``; labels come without a colon."""
    return "".join(f"{label + ':':<{width - 1}} {printable(str(value))}\n" for label, value in items)


def json_text(value: object) -> str:
    """Return the value as indented JSON.

    :raises ValueError: it contains a number that JSON does not have (NaN, infinity).
    """
    import json

    return json.dumps(value, indent=2, allow_nan=False) + "\n"


def measured(values: Mapping[str, object], **names: str) -> dict[str, object]:
    """Return a copy for JSON whose keys name their unit: ``kib="total free"`` makes total_kib of total."""
    named = {name: f"{name}_{unit}" for unit, words in names.items() for name in words.split()}
    return {named.get(name, name): value for name, value in values.items()}


def show_value(context: Context, args: Args, **named: object) -> None:
    """Print one value on a line of its own; '-' stands for None. For JSON it has its name."""
    if args.json:
        return context.out(json_text(named))
    (value,) = named.values()
    return context.out(f"{'-' if value is None else printable(str(value))}\n")


def fields(items: Iterable[tuple[str, object]]) -> str:
    """Return one ``name           : value`` a line, as virsh shows parameters (schedinfo, memtune)."""
    return "".join(f"{name:<15}: {printable(str(value))}\n" for name, value in items)


def draw_tree(children: Callable[[str], list[str]], start: str) -> str:
    """Return a tree as virsh draws it: a line after each node with children, an empty one after the last.

    :param children: returns the names below a name, and the roots for ''. :param start: draw only this subtree.
    """
    lines: list[str] = []

    def draw(name: str, indent: str, *, root: bool, last: bool) -> None:
        lines.append(f"{indent}{'' if root else '+- '}{name}")
        if not root:
            indent += "  " if last else "| "
        below = sorted(children(name))
        if below:
            lines.append(f"{indent}  |")
        for child in below:
            draw(child, f"{indent}  ", root=False, last=child == below[-1])
        if not below and last:
            lines.append(indent)

    for root in [start] if start else sorted(children("")):
        draw(root, "", root=True, last=True)
    return "".join(f"{printable(line)}\n" for line in lines)


def print_xml(context: Context, args: Args, text: str) -> None:
    """Print a description, or the part that --xpath selects."""
    wanted = args.text("xpath")
    if wanted is None:
        return context.out(text)
    from qkvm import xml, xpath

    found = [xpath.show(item) for item in xpath.find(xml.parse(text, "description"), wanted)]
    if args.flag("wrap"):
        inside = "".join("  " + line + "\n" for shown in found for line in shown.split("\n"))
        return context.out(f"<nodes>\n{inside}</nodes>\n" if found else "<nodes/>\n")
    return context.out("".join(f"{shown}\n" for shown in found))
