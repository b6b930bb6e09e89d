"""``qkvm help``: all verbs, one group or one verb in virsh's layout; topics of the guide; manual pages."""

from __future__ import annotations

from qkvm.cli.parse import Args, UsageError
from qkvm.cli.shell import guide
from qkvm.cli.shell.usage import GROUPS, groups, verb_help
from qkvm.cli.verbs import find, names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.cli.context import Context


def help_(context: Context, args: Args) -> int | None:
    """Run the verb ``help``."""
    topic = args.text("command")
    args.exclusive("guide", "man", "parity")
    for name in ("man", "parity"):
        if topic and args.has(name):
            raise UsageError(f"Options --{name} and --command are mutually exclusive")
    if args.flag("parity"):
        from qkvm.cli.shell import parity

        parity.show(context, args.json)
        return None
    if args.json:
        raise UsageError("Option --parity is required by option --json")
    if (folder := args.text("man")) is not None:
        from qkvm.cli.shell import manual

        context.say("".join(f"{path}\n" for path in manual.write(folder)))
    elif args.flag("guide"):
        context.out(_guide(topic or guide.KEYWORD))
    elif not topic:
        verbs = "".join(f"{text}\n" for text in groups().values())
        context.out(f"Grouped commands:\n\n{verbs}{guide.listing()}\n")
    else:
        return _about(context, topic)
    return None


def _about(context: Context, name: str) -> int | None:
    """Print the help on a group, a verb or a topic of the guide: the first one with that name."""
    for keyword, title in GROUPS.items():
        if name in (keyword, title) or (keyword == "qkvm" and name in ("virsh", "Virsh itself")):
            context.out(groups()[keyword])
            return None
    verb = find(name)
    if verb is None and (name == guide.KEYWORD or name in guide.topics()):
        context.out(_guide(name))
        return None
    if verb is None:
        from qkvm.cli.shell.parity import absence

        if (why := absence(name)) is not None:
            raise UsageError(why)
        hint = _near(name, [*guide.topics(), *GROUPS, *names()])
        raise UsageError(f"command or command group '{name}' doesn't exist", hint=hint)
    if "raw" not in verb.marks:
        context.out(verb_help(verb))
        return None
    # The verb reads its words itself, so it also prints its help.
    __import__(verb.module)
    import sys

    code: int | None = getattr(sys.modules[verb.module], verb.function)(context, Args({}, {}, raw=("--help",)))
    return code


def _guide(name: str) -> str:
    """Return a topic of the guide, or the list of topics.

    :raises UsageError: there is no such topic.
    """
    if name == guide.KEYWORD:
        return guide.listing()
    topics = guide.topics()
    if name in topics:
        return guide.shown(name)
    raise UsageError(f"topic '{name}' doesn't exist", hint=_near(name, topics))


def _near(name: str, known: list[str]) -> str:
    from difflib import get_close_matches

    near = get_close_matches(name, known)
    return f"did you mean {' or '.join(near)}?" if near else "qkvm help lists all"
