"""A line of the shell, or a single argument such as 'list --all; dominfo vm01', taken apart into commands.

The rules are virsh's (vshCommandStringGetArg of libvirt): blanks separate words, ';' and newlines commands;
'single' and "double" quotes and backslashes as in a shell, but nothing is expanded; a word that begins with '#'
opens a comment to the end of its line. Other than in virsh a missing ' is an error too.
"""

from __future__ import annotations

from qkvm.cli.parse import UsageError

SPECIAL = frozenset(" \t\n;#'\"\\")
"""What makes a single argument more than the name of one verb."""


class Scan:
    """What was found in a line.

    ``commands`` holds the words of each command, empty ones too. ``begin`` is where the last word starts, the
    length of the line where no word is open at its end. ``unclosed`` is the quote or the backslash that lacks
    its end, '' where none does.
    """

    __slots__ = ("begin", "commands", "unclosed")

    def __init__(self, commands: list[list[str]], begin: int, unclosed: str) -> None:
        self.commands = commands
        self.begin = begin
        self.unclosed = unclosed


def split(line: str) -> list[list[str]]:
    """The commands of a line as lists of words; empty ones are left out.

    :raises UsageError: a quote has no end, in virsh's words.
    """
    found = scan(line)
    if found.unclosed:
        raise UsageError("dangling \\" if found.unclosed == "\\" else f"missing {found.unclosed}")
    return [words for words in found.commands if words]


def scan(line: str) -> Scan:
    """Take a line apart that need not be whole: the shell's completion reads what is typed so far with it."""
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
