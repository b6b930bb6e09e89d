"""Devices that are described in libvirt's XML: plugged, unplugged and changed (virsh attach-device and its like).

Each kind of device has its functions in a table; how a device is plugged lies with its kind.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from qkvm.domain import plug
from qkvm.domain.block.disk import plugged
from qkvm.domain.device.disk import media
from qkvm.domain.device.disk import plug as diskplug
from qkvm.domain.device.nic import plug as nicplug
from qkvm.domain.device.nic import update as nicupdate
from qkvm.domain.device.share import plug as shareplug
from qkvm.errors import InvalidState, InvalidValue, NotFound
from qkvm.scope import Scope
from qkvm.spec import domain as spec
from qkvm.spec import toml
from qkvm.spec.libvirt import text
from qkvm.units import printable

if TYPE_CHECKING:
    from qkvm.domain.handle import Handle

Device = spec.Disk | spec.Nic | spec.Filesystem


class _Kind(NamedTuple):
    """What can be done with devices of a kind: of a domain, by a device or its description, in a scope."""

    attach: Callable[..., list[str]]
    detach: Callable[..., None]
    update: Callable[..., None]


def attach(domain: Handle, described: bytes | str, path: str, *, scope: Scope = Scope.CURRENT) -> list[str]:
    """Plug a device into the running guest, the definition, or both, and give warnings.

    :raises DefinitionError: the description can't be read, or is of a device that can't be plugged.
    """
    device = text.load_device(described, path)
    return _kind(device.device).attach(domain, device.device, scope=scope)


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
    _kind(device.device).detach(domain, device, scope=scope, timeout=timeout, wait=wait)


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
    _kind(device.device).update(domain, device.device, scope=scope, **options)


def detach_alias(
    domain: Handle,
    alias: str,
    *,
    scope: Scope = Scope.CURRENT,
    timeout: float = plug.TIMEOUT,
    wait: bool = True,
) -> None:
    """Unplug the device of that alias: live its id in QEMU, in the definition one of the user's own.

    :raises NotFound: there is none.
    """
    run = domain.run
    disks: list[tuple[str, str]] = []
    if run is not None and run.pid is not None:
        disks += [(entry["id"], entry["target"]) for entry in run.devices("disks")]
    if domain.is_persistent:
        disks += [(disk.alias, disk.target) for disk in domain.definition.disks]
    target = dict(disks).get(alias)
    if target and alias:
        diskplug.detach(domain, target, scope=scope, timeout=timeout, wait=wait)
        return

    def choose(listed: list[dict[str, Any]]) -> dict[str, Any]:
        for device in listed:
            if alias and device["alias"] == alias:
                return device
        raise NotFound(f"no device found with alias {printable(alias)}", kind="device", name=alias)

    shares = (
        [entry["id"] for entry in run.devices("filesystems")] if run is not None and run.pid is not None else []
    )
    if domain.is_persistent:
        shares += [share.alias for share in domain.definition.filesystems]
    if alias and alias in shares:
        shareplug.detach(domain, choose, scope=scope, timeout=timeout, wait=wait)
        return
    nicplug.remove(domain, choose, scope=scope, timeout=timeout, wait=wait)


# NICs.


def _attach_nic(domain: Handle, nic: spec.Nic, *, scope: Scope) -> list[str]:
    nicplug.attach_nic(domain, nic, scope=scope)
    return []


def _detach_nic(domain: Handle, described: text.Described, **options: Any) -> None:
    nic = described.device
    assert isinstance(nic, spec.Nic)
    wanted = {"mac": nic.mac if described.has_mac else "", "alias": nic.alias, "address": nic.address}
    named = {key: value for key, value in wanted.items() if value}

    def choose(listed: list[dict[str, Any]]) -> dict[str, Any]:
        found = [entry for entry in listed if all(entry[key] == value for key, value in named.items())]
        words = " and ".join(f"{_SHOWN[key]} '{value}'" for key, value in named.items())
        if not found:
            raise NotFound(
                f"device not found: no device found {words and 'matching '}{words}".rstrip(),
                kind="interface", name=nic.mac,
            )  # fmt: skip
        if len(found) > 1:
            raise InvalidValue("multiple devices match", hint="name one by <mac address='…'/>")
        return found[0]

    nicplug.remove(domain, choose, **options)


_SHOWN = {"mac": "MAC address", "alias": "alias", "address": "address"}


# Disks.


def _attach_disk(domain: Handle, disk: spec.Disk, *, scope: Scope) -> list[str]:
    return diskplug.attach(domain, disk, scope=scope)


def _detach_disk(domain: Handle, described: text.Described, **options: Any) -> None:
    disk = described.device
    assert isinstance(disk, spec.Disk)
    diskplug.detach(domain, disk.target, **options)


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


# Shared folders.


def _attach_share(domain: Handle, share: spec.Filesystem, *, scope: Scope) -> list[str]:
    shareplug.attach(domain, share, scope=scope)
    return []


def _detach_share(domain: Handle, described: text.Described, **options: Any) -> None:
    share = described.device
    assert isinstance(share, spec.Filesystem)
    shareplug.detach(domain, shareplug.pick(share), **options)


def _update_share(domain: Handle, share: spec.Filesystem, *, scope: Scope) -> None:
    raise InvalidState("nothing of a filesystem can change in place", hint="detach it, and attach it anew")


_KINDS: dict[type, _Kind] = {
    spec.Nic: _Kind(_attach_nic, _detach_nic, nicupdate.update),
    spec.Disk: _Kind(_attach_disk, _detach_disk, _update_disk),
    spec.Filesystem: _Kind(_attach_share, _detach_share, _update_share),
}


def _kind(device: Device) -> _Kind:
    return _KINDS[type(device)]
