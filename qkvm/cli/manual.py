"""The manual page qkvm(1), made of the verb tables and help texts; the build puts it into the wheel.

It is written in man(7)'s macros. Nothing here describes a verb: what is wrong in the page is wrong in the help.
"""

from __future__ import annotations

from qkvm import paths
from qkvm.cli.context import EXIT_ERROR, EXIT_INTERRUPTED, VERSION
from qkvm.cli.help import USAGE, verb_help_parts
from qkvm.cli.install import usage as install_usage
from qkvm.cli.verbs import GROUPS, HIDDEN, Verb, find, names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

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
.BR qemu\\-system\\-x86_64 (1)
"""


def page(summary: str, date: str) -> str:
    """The page's text.

    :param summary: what qkvm is, in one line. :param date: when it was made, YYYY-MM-DD.
    """
    usage, _, options = USAGE.partition("  options:\n")
    options, _, _ = options.partition("  commands")
    parts = [
        f'.TH QKVM 1 {date} "qkvm {VERSION}" "User Commands"\n',
        f".SH NAME\nqkvm \\- {_text(summary)}\n",
        ".SH SYNOPSIS\n.nf\n" + "".join(f"{_text(line)}\n" for line in usage.splitlines() if line) + ".fi\n",
        ".SH DESCRIPTION\nWithout a verb qkvm is a shell that reads them.\n"
        "Every verb takes \\-\\-help; every one that lists or shows takes \\-\\-json.\n",
        ".SH OPTIONS\n" + _listed(options.splitlines()),
        *(f'.SH "{_text(title).upper()}"\n' + "".join(map(_verb, _of(group))) for group, title in GROUPS.items()),
        ".SH FILES\nUnder the root, which is / unless it is said:\n" + _listed(_files()),
        _SECTIONS.format(error=EXIT_ERROR, interrupted=EXIT_INTERRUPTED, root=paths.ROOT_VARIABLE),
    ]
    return "".join(parts)


def _of(group: str) -> Iterator[Verb]:
    for name in names():
        verb = find(name)
        if verb is not None and verb.group == group and name not in HIDDEN:
            yield verb


def _verb(verb: Verb) -> str:
    if verb.raw:
        synopsis, description, options = install_usage()
    else:
        synopsis, description, options = verb_help_parts(verb)
    described = "".join(f".PP\n{_text(line)}\n" for line in (_sentence(verb.summary), *description.splitlines()))
    name, _, words = synopsis.partition(" ")
    return f".SS {_text(name)}\n\\fB{_text(name)}\\fR {_text(words)}".rstrip() + f"\n{described}{_pairs(options)}"


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}".rstrip(".") + "."


def _pairs(pairs: Iterable[tuple[str, str]]) -> str:
    return "".join(f".TP\n\\fB{_text(label)}\\fR\n{_text(told)}\n" for label, told in pairs)


def _listed(lines: Iterable[str]) -> str:
    """Lines of a help text, "label   what it is", as a list; several labels may stand over one text."""
    made, opened = "", False
    for line in filter(str.strip, lines):
        label, _, told = line.strip().partition("  ")
        if not told and line.startswith(" " * 12):
            label, told = "", label
        if label:
            made += f"{'.TQ' if opened else '.TP'}\n\\fB{_text(label)}\\fR\n"
        if told:
            made += f"{_text(told.strip())}\n"
        opened = not told
    return made


def _files() -> list[str]:
    return [line for line in (paths.__doc__ or "").splitlines() if line.startswith("    ")]


def _text(text: str) -> str:
    """Words as roff prints them as they are."""
    plain = text.replace("\\", "\\(rs").replace("-", "\\-").replace("^", "\\(ha").replace("~", "\\(ti")
    plain = plain.replace("'", "\\(aq").replace("`", "\\(ga").replace('"', "\\(dq")
    plain = "".join(sign if ord(sign) < 128 else f"\\[u{ord(sign):04X}]" for sign in plain)
    return f"\\&{plain}" if plain.startswith(".") else plain
