"""A recorded session of virsh as data: commands, output, exit codes; and what may differ from run to run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

RECORDED = Path(__file__).parent.parent / "reference/virsh-9.0-session.txt"


class Step(NamedTuple):
    """One command of the session, what it printed on both streams, and its exit code."""

    number: int
    line: str
    output: str
    code: int


def recorded() -> list[Step]:
    """The steps of the recorded session, in order."""
    steps = []
    blocks = re.split(r"^\$ virsh ", RECORDED.read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    for number, block in enumerate(blocks):
        line, _, rest = block.partition("\n")
        output, _, code = rest.rpartition("[exit ")
        steps.append(Step(number, line, output, int(code.partition("]")[0])))
    return steps


_VOLATILE = (
    (r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "UUID"),
    (r"(?:[0-9a-f]{2}:){5}[0-9a-f]{2}", "MAC"),
    (r"/[\w./+-]+/([\w.+-]+)", r"PATH/\1"),
    (r"\bvnet\d+\b", "TAP"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}", "TIME"),
    (r"libvirt-\d+", "ID"),
    (r"\d+(?:\.\d+)? [KMGT]iB\b", "SIZE"),
    (r"\d+(?:\.\d+)?", "N"),
)
"""What is of one run alone, and the word that stands for it: ids, times, paths, counts."""


def shape(text: str) -> list[str]:
    """The lines of an output with everything that is of one run alone taken out, and runs of blanks made one."""
    lines = []
    for line in text.splitlines():
        for pattern, word in _VOLATILE:
            line = re.sub(pattern, word, line)
        line = re.sub(r"-{5,}", "-----", line)
        lines.append(re.sub(r"\s+", " ", line).strip())
    return [line for line in lines if line]


def fields(text: str) -> list[str]:
    """The labels of an output in order: what stands before the first colon, equal sign or number of each line."""
    return [re.split(r"[:=]|\sN\b", line)[0].strip() for line in shape(text)]
