"""Split a line of the shell, or an argument such as 'list --all; dominfo vm01', into commands.

The rules are virsh's (vshCommandStringGetArg of libvirt). Blanks separate words; ';' and newlines separate
commands. 'single' and "double" quotes and backslashes work as in a shell, but nothing is expanded. A word that
begins with '#' starts a comment to the end of its line. Unlike virsh, a missing ' is an error too.
"""

from __future__ import annotations

from qkvm.cli.parse import UsageError

SPECIAL = frozenset(" \t\n;#'\"\\")
"""The characters that make a single argument more than the name of a verb."""


class Scan:
    """The result of the scan of a line.

    ``commands`` has the words of each command, even of empty ones. ``begin`` is the start of the last word, or
    the length of the line if no word is open at its end. ``unclosed`` is the quote or backslash that lacks its
    end, or ''.
    """

    __slots__ = ("begin", "commands", "unclosed")

    def __init__(self, commands: list[list[str]], begin: int, unclosed: str) -> None:
        self.commands = commands
        self.begin = begin
        self.unclosed = unclosed


def split(line: str) -> list[list[str]]:
    """Return the commands of a line as lists of words, without empty commands.

    :raises UsageError: a quote is not closed, in virsh's words.
    """
    found = scan(line)
    if found.unclosed:
        raise UsageError("dangling \\" if found.unclosed == "\\" else f"missing {found.unclosed}")
    return [words for words in found.commands if words]


def scan(line: str) -> Scan:
    """Scan a line that may be incomplete; the shell's completion uses this for what is typed so far."""
    commands: list[list[str]] = [[]]
    word: list[str] = []
    is_word = False
    quote = ""
    begin = position = 0
    while position < len(line):
        char = line[position]
        if not is_word:
            begin = position
        position += 1
        if char == "\\" and quote != "'":
            if position == len(line):
                quote = "\\"
                break
            if line[position] != "\n":
                word.append(line[position])
                is_word = True
            position += 1
        elif quote and char != quote:
            word.append(char)
        elif char in "'\"":
            quote = "" if quote else char
            is_word = True
        elif char in " \t\n;":
            if is_word:
                commands[-1].append("".join(word))
                word, is_word = [], False
            if char in "\n;":
                commands.append([])
        elif char == "#" and not is_word:
            newline = line.find("\n", position)
            position = len(line) if newline < 0 else newline
        else:
            word.append(char)
            is_word = True
    if is_word:
        commands[-1].append("".join(word))
    return Scan(commands, begin if is_word or quote else len(line), quote)
