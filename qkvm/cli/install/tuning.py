"""Limits of a domain in an install line: CPU, memory, NUMA, block I/O, iothreads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qkvm import units
from qkvm.cli.parse import UsageError
from qkvm.spec import domain as spec
from qkvm.spec.size import Size

if TYPE_CHECKING:
    from qkvm.cli.install.reader import Options

_MOST = (1 << 63) - 1


def cputune(options: Options) -> spec.CpuTune:
    """Return the settings of --cputune."""
    given = options.first("cputune")
    numbers = {
        name: given.count(name, minimum=-1, maximum=_MOST)
        for name in (
            "shares", "period", "quota", "global_period", "global_quota", "emulator_period", "emulator_quota",
            "iothread_period", "iothread_quota",
        )
    }  # fmt: skip
    return spec.CpuTune(
        **numbers,
        vcpu_pins=_pins(options, "vcpupin", "vcpu"),
        emulator_pin=given.text("emulatorpin.cpuset"),
        iothread_pins=_pins(options, "iothreadpin", "iothread"),
    )


def _pins(options: Options, prefix: str, key: str) -> dict[str, str]:
    found = {}
    for pin in options.first("cputune").numbered(prefix):
        if not pin.has(key) or not pin.has("cpuset"):
            raise UsageError(f"--cputune {prefix}: {key} and cpuset go together")
        found[str(pin.count(key))] = pin.text("cpuset")
    return found


def numatune(options: Options) -> spec.NumaTune | None:
    """Return the settings of --numatune."""
    given = options.first("numatune")
    if not given.values:
        return None
    if not given.has("memory.nodeset"):
        raise UsageError("--numatune: the nodes are missing", hint="--numatune 0-1,mode=preferred")
    mode = given.choice("memory.mode", spec.NumaMode, spec.NumaMode.STRICT)
    return spec.NumaTune(nodeset=given.text("memory.nodeset"), mode=mode)


def memtune(options: Options) -> spec.MemTune:
    """Return the settings of --memtune; KiB without a suffix, as in libvirt."""
    given = options.first("memtune")
    return spec.MemTune(
        **{
            name: Size(units.parse_size(given.text(name), what=name)) if given.has(name) else None
            for name in ("hard_limit", "soft_limit", "swap_hard_limit")
        }
    )


def blkiotune(options: Options) -> spec.BlkioTune:
    """Return the settings of --blkiotune."""
    given = options.first("blkiotune")
    devices = []
    for device in given.numbered("device"):
        limits = {name: device.count(name, maximum=_MOST) for name in device.values if name != "path"}
        devices.append(spec.BlkioDevice(path=device.text("path"), **limits))
    return spec.BlkioTune(weight=given.count("weight", minimum=1), devices=tuple(devices))


def iothreads(options: Options) -> tuple[spec.IoThread, ...]:
    """Return the iothreads of --iothreads: the listed ones, then the lowest free numbers up to the count."""
    given = options.first("iothreads")
    listed = []
    for thread in given.numbered("iothreadids.iothread"):
        if not thread.has("id"):
            raise UsageError("--iothreads: an iothread needs its id")
        listed.append(
            spec.IoThread(
                id=thread.count("id", minimum=1, maximum=999),
                **{
                    name: thread.count(name) for name in ("thread_pool_min", "thread_pool_max") if thread.has(name)
                },
            )
        )
    taken = {thread.id for thread in listed}
    wanted = given.count("iothreads", len(listed), maximum=999)
    free = (number for number in range(1, 1000) if number not in taken)
    listed += [spec.IoThread(id=next(free)) for _ in range(wanted - len(listed))]
    return tuple(sorted(listed, key=lambda thread: thread.id))
