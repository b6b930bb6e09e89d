"""Another QEMU than the one here: this host's, behind a script that has it say and do what that one would.

The script changes what the real one answers to questions and refuses what the other would; the rest is real.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import NamedTuple

from qkvm.host import process

_SCRIPT = '''\
#!{python}
import json, os, subprocess, sys, tempfile

REAL, GONE, OLD, OPTIONS = {real!r}, {gone!r}, {old!r}, {options!r}
WORDS, NEWEST, LOG, RELEASE = {lacks!r}, {newest!r}, {log!r}, {release!r}
RENAMED = {renamed!r}


def known(entry):
    return not isinstance(entry, dict) or entry.get("name") not in (*GONE, *WORDS)


def changed(entry):
    """What stands in a list in the place of one of its entries."""
    if isinstance(entry, dict) and "cpu-max" in entry:
        entry["name"] = RENAMED.get(entry["name"], entry["name"])
        if entry.get("name") in OLD:
            entry["deprecated"] = True
        if entry.get("alias") in NEWEST:
            alias = entry.pop("alias")
            yield {{**entry, "name": NEWEST[alias], "alias": alias}}
    if isinstance(entry, dict) and "parameters" in entry:
        entry["parameters"] = [one for one in entry["parameters"] if known(one)]
    yield entry


words = sys.argv[1:]
if LOG:
    with open(LOG, "a") as stream:
        stream.write(json.dumps(words) + "\\n")
for option in OPTIONS:
    if option in words:
        sys.exit(f"qemu: {{option}}: invalid option")
if "-machine" in words:
    place = words.index("-machine") + 1
    name, comma, rest = words[place].partition(",")
    if name in GONE or name in RENAMED:
        sys.exit(f"qemu: -machine {{words[place]}}: unsupported machine type")
    for machine, other in RENAMED.items():
        if name == other:
            words[place] = machine + comma + rest
    for machine, newest in NEWEST.items():
        if name == newest:
            words[place] = machine + comma + rest
for word in words:
    for lacking in WORDS:
        if f'"{{lacking}}"' in word:
            sys.exit(f"qemu: {{lacking}} is not known here")
if "stdio" not in words:
    os.execv(REAL, [REAL, *words])
said = tempfile.TemporaryFile()
done = subprocess.run([REAL, *words], stdout=said)
said.seek(0)
for line in said:
    answer = json.loads(line)
    told = answer.get("return")
    if isinstance(told, list):
        answer["return"] = [new for entry in told if known(entry) for new in changed(entry)]
    elif isinstance(told, dict) and RELEASE and "qemu" in told:
        told["qemu"] |= dict(zip(("major", "minor", "micro"), RELEASE))
    elif isinstance(told, dict) and "model" in told:
        for word in WORDS:
            told["model"].get("props", {{}}).pop(word, None)
    print(json.dumps(answer))
sys.exit(done.returncode)
'''


class Other(NamedTuple):
    """What is different.

    Machine types that are gone or deprecated, options of the command line that are gone, types and properties that
    it lacks; the newest version of a machine by the machine's name; machine types under another name. ``log`` is a
    file that gets each line that it is started with, as JSON.
    """

    gone: tuple[str, ...] = ()
    deprecated: tuple[str, ...] = ()
    options: tuple[str, ...] = ()
    lacks: tuple[str, ...] = ()
    newest: tuple[tuple[str, str], ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    release: tuple[int, ...] = ()
    log: str = ""


def make(path: Path, other: Other) -> str:
    """Write the program and give its path."""
    path.write_text(
        _SCRIPT.format(
            python=sys.executable,
            real=process.find_program("qemu-system-x86_64", "this test", "qemu-system-x86"),
            gone=other.gone,
            old=other.deprecated,
            options=other.options,
            lacks=other.lacks,
            newest=dict(other.newest),
            renamed=dict(other.renamed),
            release=other.release,
            log=other.log,
        )
    )
    path.chmod(0o755)
    return str(path)
