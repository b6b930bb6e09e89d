"""Verbs that tidy up."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args


def gc(context: Context, args: Args) -> None:
    """Forget what ended domains and earlier boots have left under run/."""
    from qkvm.domain.manage import gc as collector
    from qkvm.net.uplink import uplink

    for told in uplink.mend(context.tree):
        context.say(f"{told[:1].upper()}{told[1:]}\n")
    for name in collector.collect(context.tree):
        context.say(f"Domain '{name}' collected\n")
