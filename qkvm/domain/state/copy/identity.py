"""What tells a copy of a domain from its original: UUID, addresses, names, and the cloud-init seed."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING

from msgspec.structs import replace

from qkvm import units
from qkvm.errors import InvalidValue
from qkvm.spec import domain as spec
from qkvm.spec import stability

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qkvm.storage.media.seed import Seed

_BOOTHOOK = """#cloud-boothook
#!/bin/sh
# This guest is a copy: it gets a machine id of its own, once. cloud-init makes its ssh host keys anew.
done=/var/lib/cloud/qkvm-{id}
[ -e /etc/machine-id ] && [ ! -e "$done" ] || exit 0
echo {id} >/etc/machine-id
[ -L /var/lib/dbus/machine-id ] || [ ! -e /var/lib/dbus/machine-id ] || echo {id} >/var/lib/dbus/machine-id
: >"$done"
"""
"""The vendor-data of a copy's seed (NoCloud): cloud-init runs them early, whatever the user-data say."""

_HOST_PORTS = (spec.PortKind.FILE, spec.PortKind.UNIX, spec.PortKind.TCP)


def renewed(before: spec.Domain, name: str, macs: Sequence[str] = ()) -> tuple[spec.Domain, list[str]]:
    """Return the definition of a copy under another name, and warnings about what it can't have as well.

    UUID and MAC addresses are new; it does not start by itself. Names and ports of the host that one guest alone
    can have go, or are chosen anew.

    :param macs: MAC addresses for the NICs, in their order; the others are random.
    :raises InvalidValue: there are more addresses than NICs, or one is none.
    """
    units.check_name(name, "domain")
    if len(macs) > len(before.nics):
        raise InvalidValue(f"there are {len(macs)} MAC addresses for {len(before.nics)} NICs", hint="fewer --mac")
    given = [*map(units.parse_mac, macs), *(units.random_mac() for _ in before.nics[len(macs) :])]
    words = [
        f"NIC {mac} has no forwarded ports: '{before.name}' has these"
        for nic, mac in zip(before.nics, given, strict=True)
        if nic.forwards
    ]
    words += [
        f"'{name}' and '{before.name}' have one end on the host: {port.path or f'{port.host}:{port.port}'}"
        for port in before.serials
        if port.kind in _HOST_PORTS
    ]
    words += [
        f"'{name}' and '{before.name}' have one end on the host: {channel.path}"
        for channel in before.channels
        if channel.path
    ]
    nics = tuple(
        replace(nic, mac=mac, target="", forwards=()) for nic, mac in zip(before.nics, given, strict=True)
    )
    vnc = before.vnc
    if vnc is not None:
        vnc = replace(vnc, port=-1, websocket=-1 if vnc.websocket else 0)
    smbios = {field: text for field, text in before.smbios.items() if field != "uuid"}
    return replace(
        stability.renewed(before), name=name, uuid=units.random_uuid(), nics=nics, vnc=vnc, smbios=smbios,
        autostart=False, autostart_once=False,
    ), words  # fmt: skip


def addresses(before: spec.Domain, after: spec.Domain) -> dict[str, str]:
    """Return the new MAC address for each former one."""
    return {old.mac: new.mac for old, new in zip(before.nics, after.nics, strict=True)}


def seed_of(before: Seed, name: str, macs: dict[str, str]) -> Seed:
    """Return the seed of a copy: cloud-init takes it for a new machine, and the user's own data stay.

    :param macs: the new MAC address for each former one.
    """
    own = {"instance-id": units.random_uuid(), "local-hostname": units.host_name(name)}
    try:
        meta = json.dumps({**json.loads(before.meta_data), **own}) + "\n"
    except (ValueError, TypeError):
        # YAML: a key of the first level begins a line.
        kept = [line for line in before.meta_data.splitlines() if line.partition(":")[0].strip("\"' ") not in own]
        meta = "\n".join([*(f"{key}: {value}" for key, value in own.items()), *kept, ""])
    # All at once: a new address may be another NIC's former one.
    former = "|".join(map(re.escape, macs)) or "(?!)"
    network = re.sub(former, lambda found: macs[found[0].lower()], before.network_config, flags=re.IGNORECASE)
    hook = _BOOTHOOK.replace("{id}", os.urandom(16).hex())
    return before._replace(meta_data=meta, network_config=network, vendor_data=hook)


def names_itself(seed: Seed) -> bool:
    """Return whether the user's own user-data name the host, as all copies then do."""
    return re.search(r'^\s*[{,]?\s*"?(hostname|fqdn)"?\s*:', seed.user_data, re.MULTILINE) is not None
