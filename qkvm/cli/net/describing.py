"""Verbs that show what a network is called, and change it."""

from __future__ import annotations

from qkvm.cli.domain.describing import show_description, show_metadata
from qkvm.cli.net.networks import network_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args


def net_desc(context: Context, args: Args) -> None:
    """Show or set the description or the title of a network."""
    show_description(context, args, network_of(context, args), "network")


def net_metadata(context: Context, args: Args) -> None:
    """Show or set an element of a network's metadata."""
    show_metadata(context, args, network_of(context, args))
