"""Limits and shares of a domain: <memoryBacking>, <vcpu>, <iothreads>, <cputune>, <memtune> and similar."""

from __future__ import annotations

from typing import Any

from qkvm.spec.boot import MemoryBacking, MemorySource
from qkvm.spec.libvirt.node import Node
from qkvm.spec.size import Size
from qkvm.spec.tuning import (
    Bandwidth,
    BlkioDevice,
    BlkioTune,
    CpuTune,
    IoThread,
    MemTune,
    NumaMode,
    NumaTune,
    Throttle,
)
from qkvm.xml import Element

_UNLIMITED = 9007199254740991
"""The size in KiB that means no limit (VIR_DOMAIN_MEMORY_PARAM_UNLIMITED of libvirt)."""

_CPU_NUMBERS = (
    "shares", "period", "quota", "global_period", "global_quota", "emulator_period", "emulator_quota",
    "iothread_period", "iothread_quota",
)  # fmt: skip
_MEMORY_LIMITS = ("hard_limit", "soft_limit", "swap_hard_limit")
_BLKIO_NUMBERS = ("weight", "read_bytes_sec", "write_bytes_sec", "read_iops_sec", "write_iops_sec")
_BLKIO_ORDER = ("weight", "read_iops_sec", "write_iops_sec", "read_bytes_sec", "write_bytes_sec")
_POLLS = {"max": "poll_max_ns", "grow": "poll_grow", "shrink": "poll_shrink"}
_POOLS = ("thread_pool_min", "thread_pool_max")


# Memory.


def read_backing(node: Node | None) -> MemoryBacking:
    """Read <memoryBacking>."""
    if node is None:
        return MemoryBacking()
    with node:
        page = _read_hugepages(node)
        source, access, allocation = MemorySource.ANONYMOUS, "private", "ondemand"
        for found in node.children("source"):
            with found:
                source = found.choice("type", MemorySource, source)
        for found in node.children("access"):
            with found:
                access = found.take("mode", access)
                if access not in ("private", "shared"):
                    raise found.malformed("mode is shared or private")
        for found in node.children("allocation"):
            with found:
                allocation = found.take("mode", allocation)
                if allocation not in ("immediate", "ondemand"):
                    raise found.malformed("mode is immediate or ondemand")
        return MemoryBacking(
            source=source, shared=access == "shared", hugepages=page is not None, hugepage_size=page or Size(0),
            locked=node.present("locked"), mergeable=not node.present("nosharepages"),
            preallocated=allocation == "immediate",
        )  # fmt: skip


def _read_hugepages(node: Node) -> Size | None:
    """Return the size of huge pages, 0 for the host's default; None for no huge pages."""
    found = node.child("hugepages")
    if found is None:
        return None
    with found:
        page = found.child("page")
        if page is None:
            return Size(0)
        with page:
            number = page.number_of(page.required("size"), "size")
            return Node(Element("page", {"unit": page.take("unit", "KiB")}, str(number)), page.source).size()


def write_backing(parent: Element, backing: MemoryBacking) -> None:
    """Write <memoryBacking> if it differs from the default."""
    if backing == MemoryBacking():
        return
    element = parent.add("memoryBacking")
    if backing.hugepages:
        pages = element.add("hugepages")
        if backing.hugepage_size:
            pages.add("page", size=int(backing.hugepage_size), unit="KiB")
    if not backing.mergeable:
        element.add("nosharepages")
    if backing.locked:
        element.add("locked")
    if backing.source is not MemorySource.ANONYMOUS:
        element.add("source", type=backing.source)
    if backing.shared:
        element.add("access", mode="shared")
    if backing.preallocated:
        element.add("allocation", mode="immediate")


def read_memtune(node: Node | None) -> MemTune:
    """Read <memtune>."""
    if node is None:
        return MemTune()
    limits: dict[str, Size] = {}
    with node:
        for name in _MEMORY_LIMITS:
            found = node.child(name)
            if found is not None:
                with found:
                    size = found.size()
                if size < _UNLIMITED:
                    limits[name] = size
    return MemTune(**limits)


def write_memtune(parent: Element, tune: MemTune) -> None:
    """Write <memtune> if there are limits."""
    limits = [(name, getattr(tune, name)) for name in _MEMORY_LIMITS if getattr(tune, name) is not None]
    if limits:
        element = parent.add("memtune")
        for name, size in limits:
            element.add(name, int(size), unit="KiB")


def read_numatune(node: Node | None) -> NumaTune | None:
    """Read <numatune>."""
    if node is None:
        return None
    with node:
        found = node.child("memory")
        if found is None:
            return None
        with found:
            found.only("placement", "static")
            mode = found.choice("mode", NumaMode, NumaMode.STRICT)
            return NumaTune(mode=mode, nodeset=found.required("nodeset"))


def write_numatune(parent: Element, tune: NumaTune | None) -> None:
    """Write <numatune> if there is one."""
    if tune is not None:
        parent.add("numatune").add("memory", mode=tune.mode, nodeset=tune.nodeset)


# Threads.


def read_iothreads(count: Node | None, listed: Node | None) -> tuple[IoThread, ...]:
    """Read <iothreads> and <iothreadids>; number the threads without an id from 1."""
    threads: dict[int, IoThread] = {}
    if listed is not None:
        with listed:
            for found in listed.children("iothread"):
                thread = _read_iothread(found)
                if thread.id in threads:
                    raise found.malformed(f"iothread {thread.id} is there twice")
                threads[thread.id] = thread
    wanted = len(threads)
    if count is not None:
        with count:
            wanted = max(wanted, count.number_of(count.text(), "iothreads"))
        if wanted > 999:
            raise count.malformed("more than 999 iothreads")
    number = 0
    while len(threads) < wanted:
        number += 1
        threads.setdefault(number, IoThread(id=number))
    return tuple(threads.values())


def _read_iothread(found: Node) -> IoThread:
    values: dict[str, int] = {}
    with found:
        values["id"] = found.number_of(found.required("id"), "id")
        for name in _POOLS:
            if found.has(name):
                values[name] = found.number(name)
        poll = found.child("poll")
        if poll is not None:
            with poll:
                values |= {field: poll.number(name) for name, field in _POLLS.items() if poll.has(name)}
    return IoThread(**values)


def write_iothreads(parent: Element, threads: tuple[IoThread, ...]) -> None:
    """Write <iothreads>, and <iothreadids> unless the threads are plainly numbered from 1."""
    if not threads:
        return
    parent.add("iothreads", len(threads))
    if threads == tuple(IoThread(id=number + 1) for number in range(len(threads))):
        return
    element = parent.add("iothreadids")
    for thread in threads:
        child = element.add("iothread", id=thread.id, **{name: getattr(thread, name) for name in _POOLS})
        polls = {name: getattr(thread, field) for name, field in _POLLS.items()}
        if any(value is not None for value in polls.values()):
            child.add("poll", **polls)


def read_cputune(node: Node | None) -> CpuTune:
    """Read <cputune>."""
    if node is None:
        return CpuTune()
    with node:
        values: dict[str, Any] = {name: node.leaf_number(name) for name in _CPU_NUMBERS}
        for kind in ("vcpu", "iothread"):
            pins = values[f"{kind}_pins"] = {}
            for found in node.children(f"{kind}pin"):
                with found:
                    number = found.number_of(found.required(kind), kind)
                    pins[str(number)] = found.required("cpuset")
        emulator = node.child("emulatorpin")
        if emulator is not None:
            with emulator:
                values["emulator_pin"] = emulator.required("cpuset")
        for tag in ("vcpusched", "iothreadsched", "emulatorsched"):
            node.spoil(tag, "real-time scheduling is not supported")
        for tag in ("cachetune", "memorytune"):
            node.spoil(tag, "resctrl is not supported")
    return CpuTune(**values)


def write_cputune(parent: Element, tune: CpuTune) -> None:
    """Write <cputune> if anything is set."""
    if tune == CpuTune():
        return
    element = parent.add("cputune")
    for name in _CPU_NUMBERS:
        if getattr(tune, name):
            element.add(name, getattr(tune, name))
    for number, cpus in tune.vcpu_pins.items():
        element.add("vcpupin", vcpu=number, cpuset=cpus)
    if tune.emulator_pin:
        element.add("emulatorpin", cpuset=tune.emulator_pin)
    for number, cpus in tune.iothread_pins.items():
        element.add("iothreadpin", iothread=number, cpuset=cpus)


# I/O.


def read_blkiotune(node: Node | None) -> BlkioTune:
    """Read <blkiotune>."""
    if node is None:
        return BlkioTune()
    devices = []
    with node:
        weight = node.leaf_number("weight")
        for found in node.children("device"):
            with found:
                path = found.leaf("path")
                if not path:
                    raise found.malformed("<path> is missing")
                values = {name: found.leaf_number(name) for name in _BLKIO_NUMBERS}
            devices.append(BlkioDevice(path=path, **values))
    return BlkioTune(weight=weight, devices=tuple(devices))


def write_blkiotune(parent: Element, tune: BlkioTune) -> None:
    """Write <blkiotune> if anything is set."""
    if tune == BlkioTune():
        return
    element = parent.add("blkiotune")
    if tune.weight:
        element.add("weight", tune.weight)
    for device in tune.devices:
        child = element.add("device")
        child.add("path", device.path)
        for name in _BLKIO_ORDER:
            if getattr(device, name):
                child.add(name, getattr(device, name))


def read_iotune(node: Node | None) -> Throttle | None:
    """Read <iotune> of a disk."""
    if node is None:
        return None
    throttle = _read_limits(node)
    return None if throttle == Throttle() else throttle


def _read_limits(node: Node) -> Throttle:
    numbers = [name for name in Throttle.__struct_fields__ if name != "group_name"]
    with node:
        values: dict[str, Any] = {name: node.leaf_number(name) for name in numbers}
        return Throttle(**values, group_name=node.leaf("group_name") or "")


def write_iotune(parent: Element, throttle: Throttle | None) -> None:
    """Write <iotune> of a disk if it has limits."""
    if throttle is not None and throttle != Throttle():
        _write_limits(parent.add("iotune"), throttle)


def _write_limits(element: Element, throttle: Throttle) -> None:
    for name in Throttle.__struct_fields__:
        if getattr(throttle, name):
            element.add(name, getattr(throttle, name))


def read_throttle_groups(node: Node | None) -> tuple[Throttle, ...]:
    """Read <throttlegroups>, limits that disks share."""
    if node is None:
        return ()
    with node:
        return tuple(_read_limits(one) for one in node.children("throttlegroup"))


def write_throttle_groups(parent: Element, groups: tuple[Throttle, ...]) -> None:
    """Write <throttlegroups> if there are any."""
    element = parent.add("throttlegroups") if groups else parent
    for group in groups:
        _write_limits(element.add("throttlegroup"), group)


def read_throttle_filters(node: Node | None) -> tuple[str, ...]:
    """Read <throttlefilters>; return the groups of a disk."""
    if node is None:
        return ()
    with node:
        found = []
        for one in node.children("throttlefilter"):
            with one:
                found.append(one.required("group"))
        return tuple(found)


def write_throttle_filters(parent: Element, groups: tuple[str, ...]) -> None:
    """Write <throttlefilters> if a disk is in any groups."""
    element = parent.add("throttlefilters") if groups else parent
    for name in groups:
        element.add("throttlefilter", group=name)


def read_bandwidth(node: Node | None) -> dict[str, Bandwidth]:
    """Read <bandwidth> of an interface; return inbound and outbound, if set."""
    found: dict[str, Bandwidth] = {}
    if node is None:
        return found
    with node:
        for way in ("inbound", "outbound"):
            limits = node.child(way)
            if limits is not None:
                with limits:
                    average = limits.number_of(limits.required("average"), "average")
                    found[way] = Bandwidth(
                        average=average, peak=limits.number("peak"), burst=limits.number("burst")
                    )
                    if limits.has("floor"):
                        limits.unsupported("a floor is not supported: qkvm has no class for each guest")
                        limits.drop("floor")
    return found


def write_bandwidth(parent: Element, inbound: Bandwidth | None, outbound: Bandwidth | None) -> None:
    """Write <bandwidth> of an interface if it has limits."""
    if inbound is None and outbound is None:
        return
    element = parent.add("bandwidth")
    for way, band in (("inbound", inbound), ("outbound", outbound)):
        if band is not None:
            element.add(way, average=band.average, peak=band.peak or None, burst=band.burst or None)
