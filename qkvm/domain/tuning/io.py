"""A domain's share and limits of the host's block I/O (virsh blkiotune); blkdeviotune limits a single disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from qkvm.domain.definition import together
from qkvm.domain.tuning import tuned
from qkvm.domain.tuning.group import group_of
from qkvm.errors import InvalidValue
from qkvm.files import Undo
from qkvm.host import limits
from qkvm.scope import Scope
from qkvm.spec import domain as spec
from qkvm.units import printable

if TYPE_CHECKING:
    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run
    from qkvm.host.cgroup import Group

WEIGHT = "weight"
DEVICE_FIELDS = (WEIGHT, *limits.DEVICE_LIMITS)
"""Parameters of one device; virsh's names begin with device_."""

_LARGEST = (1 << 63) - 1


def parameters(domain: Handle, *, scope: Scope = Scope.CURRENT) -> tuple[int, dict[str, dict[str, int]]]:
    """Return the weight (0: not set), and each kind of limit by device: {'read_iops_sec': {'/dev/sda': 100}, …}.

    :raises InvalidState: the host has no io controller for the running guest.
    """
    wanted = domain.resolve(scope)
    table: dict[str, dict[str, int]] = {name: {} for name in DEVICE_FIELDS}
    if not wanted.live:
        tune = domain.definition.blkiotune
        for device in tune.devices:
            for name in DEVICE_FIELDS:
                if getattr(device, name):
                    table[name][device.path] = getattr(device, name)
        return tune.weight, table
    group = group_of(domain.live, "io")
    for number, weight in limits.device_weights(group).items():
        table[WEIGHT][limits.device_path(number)] = weight
    for number, values in limits.device_limits(group).items():
        for name, value in values.items():
            table[name][limits.device_path(number)] = value
    return limits.io_weight(group), table


def of_run(run: Run) -> spec.BlkioTune:
    """Return the present tuning of a running guest, as the user set it."""
    return tuned.live(run, "blkiotune", spec.BlkioTune) or spec.BlkioTune()


def set_parameters(
    domain: Handle, weight: int | None, devices: dict[str, dict[str, int]], *, scope: Scope = Scope.CURRENT
) -> None:
    """Change the weight, and limits by kind and device (0 removes one), live, in the definition, or both.

    :raises InvalidValue: not a whole block device, or a number out of range.
    :raises InvalidState: no io controller.
    """
    if weight is not None and not 1 <= weight <= 10000:
        raise InvalidValue(f"invalid argument: weight '{weight}' must be in range [1, 10000]")

    def live(run: Run, undo: Undo) -> None:
        _set_live(group_of(run, "io"), weight, devices, undo)
        tuned.remember(run, "blkiotune", _with(of_run(run), weight, devices), undo)

    together(domain, scope, live, lambda old: replace(old, blkiotune=_with(old.blkiotune, weight, devices)))


def _set_live(group: Group, weight: int | None, devices: dict[str, dict[str, int]], undo: Undo) -> None:
    if weight is not None:
        undo.add(limits.set_io_weight, group, limits.io_weight(group))
        limits.set_io_weight(group, weight)
    for name, values in devices.items():
        for path, value in values.items():
            number = limits.device_number(path)
            if name == WEIGHT:
                undo.add(limits.set_device_weight, group, path, limits.device_weights(group).get(number, 0))
                limits.set_device_weight(group, path, value)
            else:
                before = limits.device_limits(group).get(number, {}).get(name, 0)
                undo.add(limits.set_device_limit, group, path, name, before)
                limits.set_device_limit(group, path, name, value)


def _with(tune: spec.BlkioTune, weight: int | None, devices: dict[str, dict[str, int]]) -> spec.BlkioTune:
    listed = {device.path: device for device in tune.devices}
    for name, values in devices.items():
        for path, value in values.items():
            listed[path] = replace(listed.get(path) or spec.BlkioDevice(path=path), **{name: value})
    # A device without any value is left out.
    kept = tuple(device for device in listed.values() if any(getattr(device, name) for name in DEVICE_FIELDS))
    return replace(tune, weight=tune.weight if weight is None else weight, devices=kept)


def parse_devices(text: str, name: str) -> dict[str, int]:
    """Parse virsh's list of devices and values: '/dev/sda,1000,/dev/sdb,500'.

    :raises InvalidValue: it has no pairs of paths and whole numbers.
    """
    words = text.split(",")
    if len(words) % 2:
        raise _unreadable(name, text)
    found = {}
    for path, value in zip(words[::2], words[1::2], strict=True):
        if not path.startswith("/") or not value.isascii() or not value.isdigit() or int(value) > _LARGEST:
            raise _unreadable(name, text)
        found[path] = int(value)
    return found


def _unreadable(name: str, text: str) -> InvalidValue:
    return InvalidValue(f"Unable to parse device '{name}' parameters: '{printable(text)}'", hint="/dev/sda,1000")
