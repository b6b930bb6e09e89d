"""The verb that changes one part of a network."""

from __future__ import annotations

from qkvm.cli.parse import UsageError
from qkvm.units import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args


def net_update(context: Context, args: Args) -> None:
    """Change one part of a network, of what runs or of its definition."""
    from qkvm.cli.common import read_file, scope
    from qkvm.cli.net.networks import network_of
    from qkvm.net.network import change
    from qkvm.spec.libvirt.network import update

    asked = scope(args)
    network = network_of(context, args)
    command, section = args.required("command"), args.required("section")
    if command not in update.COMMANDS:
        raise UsageError(f"unrecognized command name '{printable(command)}'", hint=", ".join(update.COMMANDS))
    if section not in update.sections():
        raise UsageError(f"unrecognized section name '{printable(section)}'", hint=", ".join(update.sections()))
    xml = args.required("xml")
    # As in virsh the element itself may stand in place of a file's name.
    text, path = (xml.encode(), "network_update_xml") if xml.startswith("<") else read_file(xml)
    live, config = change.scope(network, live=asked["live"], config=asked["config"])
    index = args.signed("parent-index")
    network.update(command, section, text, path, index=-1 if index is None else index, live=live, config=config)
    parts = [word for word, wanted in (("persistent config", config), ("live state", live)) if wanted]
    context.say(f"Updated network {network.name} {' and '.join(parts)}")
