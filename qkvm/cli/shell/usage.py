"""The help texts of the program, its groups of verbs and each verb, in virsh's layout."""

from __future__ import annotations

from typing import Any

from qkvm.cli.parse import Option, options_of
from qkvm.cli.verbs import Verb, listed
from qkvm.cli.verbs.options import usual

GROUPS = {
    "domain": "Domain Management",
    "monitor": "Domain Monitoring",
    "events": "Domain Events",
    "host": "Host and Hypervisor",
    "checkpoint": "Checkpoint",
    "interface": "Interface",
    "network": "Networking",
    "snapshot": "Snapshot",
    "backup": "Backup",
    "pool": "Storage Pool",
    "volume": "Storage Volume",
    "image": "Base Image",
    "qkvm": "Qkvm itself",
}
"""Keyword and title of each help group, in virsh's order."""

USAGE = """\

qkvm [options]... [<command_string>]
qkvm [options]... <command> [args...]

  options:
    -c | --connect=URI      hypervisor connection URI: qemu:///system, or qemu:///session
    -d | --debug=NUM        debug level [0-4]; below 4, errors come with their trace
         --debug            the same as --debug=0
    -e | --escape <char>    set escape sequence for console
    -h | --help             this help
    -k | --keepalive-interval=NUM
    -K | --keepalive-count=NUM
                            taken and not needed: there is no connection to keep alive
    -l | --log=FILE         output logging to file
    -q | --quiet            quiet mode
    -r | --readonly         refuse commands that change anything
         --root=DIR         use the tree under DIR (default: $QKVM_ROOT, else the URI's)
    -t | --timing           print timing information
    -v                      short version
    -V                      long version
         --version[=TYPE]   version, TYPE is short or long (default short)
  commands (non interactive mode):

"""

_USAGE_END = """
  (specify help <group> for details about the commands in the group)

  (specify help <command> for details about the command)

  (specify help <topic> to read the guide; help guide lists its topics)

"""


def usage() -> str:
    """Return what ``qkvm --help`` prints: the global options and all verbs."""
    return USAGE + "".join(f"{text}\n" for text in groups(colon="").values()) + _USAGE_END


def verb_help(verb: Verb) -> str:
    """Return name, synopsis, description and options of one verb."""
    words, description, options = verb_help_parts(verb)
    parts = [f"  NAME\n    {verb.name} - {verb.summary}\n", f"  SYNOPSIS\n    {words}\n"]
    if description:
        text = "".join(f"    {line}\n" for line in description.splitlines())
        parts.append(f"  DESCRIPTION\n{text}")
    if options:
        parts.append("  OPTIONS\n" + "".join(f"    {label:<15}  {told}\n" for label, told in options))
    return "\n".join(parts) + "\n"


def verb_help_parts(verb: Verb) -> tuple[str, str, list[tuple[str, str]]]:
    """Return the synopsis, the description, and each option with its meaning."""
    options = options_of(verb).values()
    words = " ".join((verb.name, *map(_synopsis, options)))
    return (
        words,
        verb.description,
        [(_label(option), option.meaning or usual(option.name)[1]) for option in options],
    )


def raw_module(verb: Verb) -> Any:
    """Return the module of a verb that reads its words itself; its usage() and options() tell of them."""
    from importlib import import_module

    return import_module(verb.module)


def groups(colon: str = ":") -> dict[str, str]:
    """Return for each group's keyword its title and one line a verb."""
    made = {keyword: f" {title} (help keyword '{keyword}'){colon}\n" for keyword, title in GROUPS.items()}
    for verb in listed():
        made[verb.group] += f"    {verb.name:<30} {verb.summary}\n"
    return made


def _synopsis(option: Option) -> str:
    """Return an option as SYNOPSIS shows it."""
    if option.repeated:
        words = f"[--{option.name}] <{option.shown}>"
        return f"{{{words}}}..." if option.required else f"[{words}]..."
    if option.required:
        return f"<{option.name}>"
    if option.kind == "flag":
        return f"[--{option.name}]"
    return f"[--{option.name} <{option.shown}>]"


def _label(option: Option) -> str:
    """Return an option as OPTIONS shows it; an optional name is in brackets."""
    if option.kind == "flag":
        return f"--{option.name}"
    name = f"[--{option.name}]" if option.required or option.repeated else f"--{option.name}"
    if option.kind != "string":
        return f"{name} <number>"
    return f"{name} <string>" if option.required else f"{name} <{option.shown}>"
