"""The limits of a control group as properties of its systemd unit (org.freedesktop.systemd1(5)).

A property is words for busctl(1): its name, its type, its value. systemd computes the kernel's files from these,
so each value is chosen to give back exactly what was written. Only a CPU quota is rounded down to a whole percent
of a CPU at a daemon-reload, as systemd's own files have it so.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.host.cgroup import Group

Property = tuple[str, ...]

_NONE = str((1 << 64) - 1)
"""systemd's number for no limit."""

_SECOND = 1000000

_MEMORY = {"memory.max": "MemoryMax", "memory.high": "MemoryHigh", "memory.swap.max": "MemorySwapMax"}

_IO = {
    "rbps": "IOReadBandwidthMax",
    "wbps": "IOWriteBandwidthMax",
    "riops": "IOReadIOPSMax",
    "wiops": "IOWriteIOPSMax",
}


def properties(group: Group, name: str, text: str) -> list[Property]:
    """Return the properties for what was just written to a file of the group; none if it is no limit."""
    if name == "cpu.weight":
        return [("CPUWeight", "t", text)]
    if name == "cpu.max":
        return _cpu_max(*text.split())
    if name in _MEMORY:
        return [(_MEMORY[name], "t", _NONE if text == "max" else text)]
    if name == "io.max":
        return _io_max(*text.split())
    if name in ("io.weight", "io.bfq.weight"):
        return _weight(group, name, *text.split())
    if name == "cpuset.mems":
        return [("AllowedMemoryNodes", "ay", *_bytes(text))]
    return []


def _cpu_max(quota: str, period: str) -> list[Property]:
    """The quota is per second there; it is rounded up, since systemd rounds down when it computes the file's."""
    share = _NONE if quota == "max" else str(-(-int(quota) * _SECOND // int(period)))
    return [("CPUQuotaPeriodUSec", "t", period), ("CPUQuotaPerSecUSec", "t", share)]


def _io_max(number: str, limit: str) -> list[Property]:
    key, _, value = limit.partition("=")
    return [(_IO[key], "a(st)", "1", _device(number), _NONE if value == "max" else value)]


def _weight(group: Group, name: str, number: str, weight: str) -> list[Property]:
    if number == "default":
        return [("IOWeight", "t", _general(name, weight))]
    from qkvm.host.limits import device_weights

    # An entry can't be removed alone: all are, and the present ones are set again.
    listed = [
        word for key, value in device_weights(group).items() for word in (_device(key), _general(name, str(value)))
    ]
    cleared: Property = ("IODeviceWeight", "a(st)", "0")
    return [cleared, ("IODeviceWeight", "a(st)", str(len(listed) // 2), *listed)] if listed else [cleared]


def _general(name: str, weight: str) -> str:
    """Return a weight on systemd's scale of 1 to 10000; above 100 it computes bfq's 1 to 1000 from it."""
    number = int(weight)
    return str(100 + (number - 100) * 11) if name == "io.bfq.weight" and number > 100 else weight


def _device(number: str) -> str:
    from qkvm.host.limits import device_path

    path = device_path(number)
    return path if path.startswith("/") else f"/dev/block/{number}"


def _bytes(nodes: str) -> list[str]:
    """Return a list of nodes as the count and the bytes of a bit mask, the lowest first."""
    mask = 0
    for part in filter(None, nodes.strip().split(",")):
        first, _, last = part.partition("-")
        for node in range(int(first), int(last or first) + 1):
            mask |= 1 << node
    raw = mask.to_bytes((mask.bit_length() + 7) // 8, "little")
    return [str(len(raw)), *map(str, raw)]
