"""Plug, unplug and change devices that an XML describes (virsh attach-device and its like)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from qkvm.domain import plug
from qkvm.domain.block.disk import pick, plugged
from qkvm.domain.device.disk import media
from qkvm.domain.device.disk.plug import DISKS
from qkvm.domain.device.nic import update as nicupdate
from qkvm.domain.device.nic.plug import NICS
from qkvm.domain.device.share import plug as shareplug
from qkvm.domain.device.share.plug import SHARES
from qkvm.errors import InvalidState, InvalidValue, NotFound
from qkvm.scope import Scope
from qkvm.spec import domain as spec
from qkvm.spec import toml
from qkvm.spec.libvirt import text
from qkvm.units import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from qkvm.domain.handle import Handle
    from qkvm.domain.plug import Kind


class _Way(NamedTuple):
    """How devices of a kind are plugged, chosen to be unplugged, and changed."""

    kind: Kind[Any]
    chooser: Callable[[text.Described], Callable[[Sequence[Any]], Any]]
    update: Callable[..., None]


def attach(domain: Handle, described: bytes | str, path: str, *, scope: Scope = Scope.CURRENT) -> list[str]:
    """Plug a device into the running guest, the definition, or both, and return warnings.

    :raises DefinitionError: the description can't be read, or is of a device that can't be plugged.
    """
    device = text.load_device(described, path).device
    return plug.attach(domain, _WAYS[type(device)].kind, device, scope=scope)


def detach(
    domain: Handle,
    described: bytes | str,
    path: str,
    *,
    scope: Scope = Scope.CURRENT,
    timeout: float = plug.TIMEOUT,
    wait: bool = True,
) -> None:
    """Unplug the device that a description fits: its MAC address, target, alias or place.

    :raises NotFound: there is none. :raises NotReached: the guest did not release it.
    """
    device = text.load_device(described, path)
    way = _WAYS[type(device.device)]
    plug.detach(domain, way.kind, way.chooser(device), scope=scope, timeout=timeout, wait=wait)


def update(
    domain: Handle, described: bytes | str, path: str, *, force: bool = False, scope: Scope = Scope.CURRENT
) -> None:
    """Change a device that is there to what is described, as far as it can change.

    :param force: open a tray also where the guest has locked it.
    :raises NotFound: there is none. :raises InvalidState: it can't change in this way.
    """
    device = text.load_device(described, path)
    if isinstance(device.device, spec.Nic) and not device.has_mac:
        raise InvalidValue("a network device is told by its MAC address", hint="<mac address='…'/>")
    if force and not isinstance(device.device, spec.Disk):
        kind = "network device" if isinstance(device.device, spec.Nic) else "filesystem"
        raise InvalidValue(f"force is for trays that a guest has locked; a {kind} has none")
    options = {"force": True} if force else {}
    _WAYS[type(device.device)].update(domain, device.device, scope=scope, **options)


def detach_alias(
    domain: Handle,
    alias: str,
    *,
    scope: Scope = Scope.CURRENT,
    timeout: float = plug.TIMEOUT,
    wait: bool = True,
) -> None:
    """Unplug the device of that alias: its id in the running guest, or one of the user's own.

    :raises NotFound: there is none.
    """
    kinds: tuple[Kind[Any], ...] = (DISKS, SHARES, NICS)
    named = {kind: keys for kind in kinds if (keys := _named(domain, kind, alias))}
    kind, keys = next(iter(named.items()), (NICS, set()))

    def choose(listed: Sequence[Any]) -> Any:
        for device in listed:
            if getattr(device, kind.key) in keys:
                return device
        raise NotFound(f"no device found with alias {printable(alias)}", kind="device", name=alias)

    plug.detach(domain, kind, choose, scope=scope, timeout=timeout, wait=wait)


def _named(domain: Handle, kind: Kind[Any], alias: str) -> set[str]:
    """Return the keys of devices with an alias, of the running guest and of the definition."""
    run = domain.live_run
    entries = run.devices(kind.part) if alias and run is not None else []
    listed = getattr(domain.definition, kind.part) if alias and domain.is_persistent else ()
    found = {str(entry[kind.key]) for entry in entries if entry["id"] == alias}
    return found | {str(getattr(device, kind.key)) for device in listed if device.alias == alias}


def _that_nic(described: text.Described) -> Callable[[Sequence[spec.Nic]], spec.Nic]:
    nic = described.device
    assert isinstance(nic, spec.Nic)
    wanted = {"mac": nic.mac if described.has_mac else "", "alias": nic.alias, "address": nic.address}
    named = {key: value for key, value in wanted.items() if value}

    def choose(listed: Sequence[spec.Nic]) -> spec.Nic:
        found = [one for one in listed if all(getattr(one, key) == value for key, value in named.items())]
        words = " and ".join(f"{_SHOWN[key]} '{value}'" for key, value in named.items())
        if not found:
            raise NotFound(
                f"device not found: no device found {words and 'matching '}{words}".rstrip(),
                kind="interface",
                name=nic.mac,
            )
        if len(found) > 1:
            raise InvalidValue("multiple devices match", hint="name one by <mac address='…'/>")
        return found[0]

    return choose


_SHOWN = {"mac": "MAC address", "alias": "alias", "address": "address"}


def _that_disk(described: text.Described) -> Callable[[Sequence[spec.Disk]], spec.Disk]:
    return lambda listed: pick(listed, described.device.target)


def _that_share(described: text.Described) -> Callable[[Sequence[spec.Filesystem]], spec.Filesystem]:
    return shareplug.named(described.device.target)


def _update_disk(domain: Handle, disk: spec.Disk, *, scope: Scope, force: bool = False) -> None:
    """Change the medium of a drive: nothing else of a disk can change in place."""
    wanted = domain.resolve(scope)
    present = []
    if wanted.live:
        present += [toml.from_plain(entry["spec"], spec.Disk, "record") for entry in plugged(domain.live)]
    if wanted.config:
        present += domain.definition.disks
    found = [other for other in present if other.target == disk.target]
    if not found:
        raise NotFound(f"disk '{disk.target}' not found", kind="disk", name=disk.target)
    for former in found:
        for name in spec.Disk.__struct_fields__:
            given = getattr(disk, name)
            if name not in _MEDIUM and given != getattr(former, name) and (given or name not in _LEFT_OPEN):
                raise InvalidState(
                    f"cannot modify field '{name}' (or it's parts) of the disk",
                    hint="detach it, and attach it anew",
                )
    if any((former.path, former.backing) != (disk.path, disk.backing) for former in found):
        action = "update" if disk.path else "eject"
        media.change(domain, disk.target, disk.path, action=action, force=force, scope=scope)


_MEDIUM = ("path", "backing")
_LEFT_OPEN = ("alias", "address", "throttle", "throttle_groups", "boot_order")
"""What a description need not name: then it stays as it is."""


def _update_share(domain: Handle, share: spec.Filesystem, *, scope: Scope) -> None:
    raise InvalidState("nothing of a filesystem can change in place", hint="detach it, and attach it anew")


_WAYS: dict[type, _Way] = {
    spec.Nic: _Way(NICS, _that_nic, nicupdate.update),
    spec.Disk: _Way(DISKS, _that_disk, _update_disk),
    spec.Filesystem: _Way(SHARES, _that_share, _update_share),
}
