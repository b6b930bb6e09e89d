"""The NICs of an install line."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from qkvm import units
from qkvm.cli.install.place import address
from qkvm.cli.install.reader import Suboptions
from qkvm.cli.parse import UsageError
from qkvm.spec import domain as spec
from qkvm.spec.forward import PortForward, Protocol, parse_ports

if TYPE_CHECKING:
    from qkvm.cli.install.osinfo import Profile
    from qkvm.cli.install.reader import Options

_ABSENT = {
    "ethernet": "a tap is qkvm's own; bridge= puts it where you want it",
    "hostdev": "devices of the host are not handed out yet",
    "vhostuser": "vhost-user is not there yet",
    "vdpa": "vDPA is not there yet",
    "null": "link.state=down cuts a NIC off",
    "udp": "QEMU's own tunnels are not there yet",
    "mcast": "QEMU's own tunnels are not there yet",
    "server": "QEMU's own tunnels are not there yet",
    "client": "QEMU's own tunnels are not there yet",
    "internal": "use network=NAME",
}


def nics(options: Options, profile: Profile) -> tuple[spec.Nic, ...]:
    """Return the NICs of --network; none for 'none' and --nonetworks.

    Without either there is one NIC: on the default network for root, of type user for other users.
    """
    asked = options.each("network")
    if options.flag("nonetworks"):
        if asked:
            raise UsageError("Cannot use --nonetworks with --network")
        return ()
    if not asked:
        asked = [Suboptions("network", {"network": "default"} if os.geteuid() == 0 else {"type": "user"})]
    if any(given.text("type") == "none" for given in asked):
        if len(asked) > 1:
            raise UsageError("--network none excludes any other --network")
        return ()
    return tuple(_nic(given, profile) for given in asked)


def _nic(given: Suboptions, profile: Profile) -> spec.Nic:
    kind, source = _source(given)
    state = given.text("link.state", "up")
    if state not in ("up", "down"):
        raise UsageError(f"--network link.state '{units.printable(state)}' is not known", hint="up or down")
    mac = given.text("mac.address", "RANDOM")
    return spec.Nic(
        mac=units.random_mac() if mac.upper() == "RANDOM" else units.parse_mac(mac),
        type=kind,
        source=source,
        source_mode=given.choice("source.mode", spec.SourceMode, spec.SourceMode.VEPA),
        model=given.choice("model.type", spec.NicModel, profile.nic),
        target=given.text("target.dev"),
        link=state == "up",
        boot_order=given.count("boot.order", minimum=1, maximum=99),
        mtu=given.count("mtu.size", maximum=65535),
        queues=given.count("driver.queues", 1, minimum=1),
        vhost=_vhost(given),
        filter=given.choice("filterref.filter", spec.NicFilter, spec.NicFilter.NONE),
        isolated=given.flag("port.isolated"),
        backend=_backend(given),
        forwards=tuple(one for found in given.numbered("portForward") for one in _forwards(found)),
        alias=given.text("alias.name"),
        address=address(given),
    )


def _vhost(given: Suboptions) -> spec.Vhost:
    """Return the vhost setting; libvirt's values say what serves the NIC."""
    words = {"": spec.Vhost.AUTO, "vhost": spec.Vhost.ON, "qemu": spec.Vhost.OFF}
    name = given.text("driver.name")
    if name not in words:
        raise UsageError(f"--network driver.name '{units.printable(name)}' is not known", hint="vhost or qemu")
    return words[name]


def _backend(given: Suboptions) -> spec.UserBackend:
    """Return the backend of a user NIC; '--network passt' is short for passt."""
    given.only("backend.type", "", "default", spec.UserBackend.PASST, spec.UserBackend.SLIRP)
    word = given.text("backend.type") or given.text("type")
    return spec.UserBackend(word) if word in ("passt", "slirp") else spec.UserBackend.AUTO


def _forwards(given: Suboptions) -> list[PortForward]:
    """Return the port forwards: portForward=8080:80, with an optional address before and /udp after, or ranges."""
    if given.has(""):
        return [_short_forward(given.text(""))]
    protocol = given.choice("proto", Protocol, Protocol.TCP)
    found = []
    for part in given.numbered("range"):
        first = part.count("start", minimum=1, maximum=65535)
        if not first:
            raise UsageError("--network portForward: a range needs its start", hint="portForward=8080:80")
        last = part.count("end", first, maximum=65535)
        found.append(
            PortForward(
                protocol=protocol,
                listen=given.text("address"),
                ports=parse_ports(f"{first}-{last}"),
                to=part.count("to", maximum=65535),
            )
        )
    return found


def _short_forward(text: str) -> PortForward:
    found = re.fullmatch(r"(?:\[(.+)\]:|([\d.]+):)??([\d-]+)(?::(\d+)(?:-\d+)?)?(?:/(tcp|udp))?", text)
    if found is None:
        raise UsageError(
            f"--network portForward '{units.printable(text)}' is not one", hint="8080:80, 127.0.0.1:53:53/udp"
        )
    ports, to = parse_ports(found[3]), int(found[4] or 0)
    return PortForward(
        protocol=Protocol(found[5] or "tcp"),
        listen=found[1] or found[2] or "",
        ports=ports,
        to=0 if str(to) == ports.partition("-")[0] else to,
    )


def _source(given: Suboptions) -> tuple[spec.NicType, str]:
    """Return type and source; '--network default' means the network of that name, as in newer virt-installs."""
    kinds = [key for key in ("network", "bridge") if given.has(key)]
    word = given.text("type")
    if word in _ABSENT:
        raise UsageError(f"--network type={word} is not supported: {_ABSENT[word]}", hint=", ".join(spec.NicType))
    if len(kinds) > 1 or (kinds and word not in ("", kinds[0])):
        raise UsageError("--network: network, bridge and user exclude each other")
    if kinds:
        given.exclude("source", reason=f"{kinds[0]}= says it")
        return spec.NicType(kinds[0]), given.text(kinds[0])
    if word in ("user", "passt"):
        return spec.NicType.USER, given.text("source")
    if word in ("network", "bridge", "direct") and given.has("source"):
        return spec.NicType(word), given.text("source")
    given.exclude("source", reason="type=network or type=bridge goes with it")
    return spec.NicType.NETWORK, word or "default"
