"""The manual pages: qkvm(1) from the verb tables, qkvm-TOPIC(7) from the guide. The build packages them.

They are written in man(7)'s macros. The descriptions of verbs come from the help, so correct errors there.
"""

from __future__ import annotations

import os
import time

from qkvm import paths
from qkvm.cli.context import EXIT_ERROR, EXIT_INTERRUPTED, VERSION
from qkvm.cli.shell import guide
from qkvm.cli.shell.roff import escaped, topic_page
from qkvm.cli.shell.usage import GROUPS, USAGE, raw_module, verb_help_parts
from qkvm.cli.verbs import Verb, listed
from qkvm.files import os_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

SUMMARY = "virsh without libvirtd: a QMP-level hypervisor driver"
"""The description in pyproject.toml."""

_SECTIONS = """\
.SH EXIT STATUS
.TP
0
The verb has done what it says.
.TP
{error}
It has not; one line on stderr says why. Of several commands the last one counts.
.TP
{interrupted}
It was interrupted.
.SH ENVIRONMENT
.TP
{root}
The root of the tree, as with \\-\\-root.
.TP
VISUAL, EDITOR
What the verbs that edit a definition open.
.SH SEE ALSO
.BR virsh (1),
.BR virt\\-install (1),
.BR qemu\\-system\\-x86_64 (1),
"""


def pages() -> dict[str, str]:
    """Return the file name (such as qkvm.1) and text of each page; the date is $SOURCE_DATE_EPOCH or today."""
    date = time.strftime("%Y-%m-%d", time.gmtime(int(os.environ.get("SOURCE_DATE_EPOCH") or time.time())))
    return {"qkvm.1": page(SUMMARY, date)} | {
        f"qkvm-{topic}.7": topic_page(topic, date, VERSION) for topic in guide.topics()
    }


def write(folder: str) -> list[str]:
    """Write all pages into an existing folder, over older ones, and return their paths.

    :raises HostError: one can't be written.
    """
    written = []
    for name, text in pages().items():
        path = os.path.join(folder, name)
        try:
            with open(path, "w", encoding="utf-8") as stream:
                stream.write(text)
        except OSError as error:
            raise os_error(error, f"cannot write {path}") from error
        written.append(path)
    return written


def page(summary: str, date: str) -> str:
    """Return the text of qkvm(1).

    :param summary: a description of qkvm in one line. :param date: the date of the page, YYYY-MM-DD.
    """
    usage, _, options = USAGE.partition("  options:\n")
    options, _, _ = options.partition("  commands")
    *_, last = topics = guide.topics()
    verbs = listed()
    parts = [
        f'.TH QKVM 1 {date} "qkvm {VERSION}" "User Commands"\n',
        f".SH NAME\nqkvm \\- {escaped(summary)}\n",
        ".SH SYNOPSIS\n.nf\n" + "".join(f"{escaped(line)}\n" for line in usage.splitlines() if line) + ".fi\n",
        ".SH DESCRIPTION\nWithout a verb qkvm is a shell that reads them.\n"
        "Every verb takes \\-\\-help; every one that lists or shows takes \\-\\-json.\n",
        ".SH OPTIONS\n" + _listed(options.splitlines()),
        *(
            f'.SH "{escaped(title).upper()}"\n' + "".join(_verb(verb) for verb in verbs if verb.group == group)
            for group, title in GROUPS.items()
        ),
        ".SH FILES\nUnder the root, which is / unless it is said:\n" + _listed(_files()),
        _SECTIONS.format(error=EXIT_ERROR, interrupted=EXIT_INTERRUPTED, root=paths.ROOT_VARIABLE),
        *(f".BR qkvm\\-{topic} (7){',' * (topic != last)}\n" for topic in topics),
    ]
    return "".join(parts)


def _verb(verb: Verb) -> str:
    if "raw" in verb.marks:
        synopsis, description, options = raw_module(verb).usage()
    else:
        synopsis, description, options = verb_help_parts(verb)
    described = "".join(f".PP\n{escaped(line)}\n" for line in (_sentence(verb.summary), *description.splitlines()))
    name, _, words = synopsis.partition(" ")
    return (
        f".SS {escaped(name)}\n\\fB{escaped(name)}\\fR {escaped(words)}".rstrip()
        + f"\n{described}{_pairs(options)}"
    )


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}".rstrip(".") + "."


def _pairs(pairs: Iterable[tuple[str, str]]) -> str:
    return "".join(f".TP\n\\fB{escaped(label)}\\fR\n{escaped(told)}\n" for label, told in pairs)


def _listed(lines: Iterable[str]) -> str:
    """Return the lines of a help text, "label   meaning", as a list; several labels may share one meaning."""
    made, opened = "", False
    for line in filter(str.strip, lines):
        label, _, told = line.strip().partition("  ")
        if not told and line.startswith(" " * 12):
            label, told = "", label
        if label:
            made += f"{'.TQ' if opened else '.TP'}\n\\fB{escaped(label)}\\fR\n"
        if told:
            made += f"{escaped(told.strip())}\n"
        opened = not told
    return made


def _files() -> list[str]:
    return [line for line in (paths.__doc__ or "").splitlines() if line.startswith("    ")]
