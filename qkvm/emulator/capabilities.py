"""What this host and its emulator offer, as data and as libvirt's capabilities document."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qkvm import units, xml
from qkvm.emulator import cpu as cpus
from qkvm.host.node import accel, cpu, node, numa, smbios, suspend, sysfs
from qkvm.units import format_cpu_list

if TYPE_CHECKING:
    from typing import Any

    from qkvm.emulator.survey import Emulator
    from qkvm.qemu.abilities import MachineType


def facts(emulator: Emulator) -> dict[str, Any]:
    """Describe the host and the guests that it can run; sizes are in KiB."""
    return {
        "host": {
            "uuid": host_uuid(),
            "cpu": _cpu(emulator),
            "suspend": suspend.supported(),
            "iommu": has_iommu(),
            "cells": [_cell(cell) for cell in numa.cells()],
            "caches": [
                {
                    "number": cache.number, "level": cache.level, "kind": cache.kind, "size_kib": cache.size,
                    "cpus": list(cache.cpus),
                } for cache in cpu.caches()
            ],
        },
        "guest": {
            "arch": emulator.arch,
            "emulator": emulator.path,
            "machines": [
                {"name": machine.name, "alias": machine.alias, "max_cpus": machine.cpu_max,
                 "deprecated": machine.deprecated}
                for machine in emulator.machines if is_supported(machine)
            ],
            "domains": domain_types(emulator),
        },
    }  # fmt: skip


def host_uuid(root: str = "") -> str:
    """Return the firmware's UUID, else the machine id (machine-id(5)), else ''."""
    found = smbios.uuid(root)
    digits = sysfs.text(f"{root}/etc/machine-id") or ""
    if not found and len(digits) == 32 and not set(digits) - set("0123456789abcdef"):
        found = units.format_uuid(digits)
    return found


def has_iommu(root: str = "") -> bool:
    """Tell whether the kernel uses an IOMMU: then there are IOMMU groups."""
    return bool(sysfs.numbered(f"{root}/sys/kernel/iommu_groups", ""))


def is_supported(machine: MachineType) -> bool:
    """Tell whether qkvm has a template for a machine type."""
    return machine.name == "microvm" or machine.name.startswith(("pc-q35-", "pc-i440fx-"))


def domain_types(emulator: Emulator) -> list[str]:
    """Return libvirt's names of the accelerators; KVM counts only with hardware virtualization."""
    real = "kvm" in emulator.best and accel.has_hardware_virtualization()
    return ["qemu", "kvm"] if real else ["qemu"]


def _cpu(emulator: Emulator) -> dict[str, Any]:
    raw, own, shape = cpu.model(), cpus.of_host(emulator), node.info()
    vendor = cpus.vendor_name(own.vendor)
    named = None
    if own.features:
        named = cpus.name_of(
            emulator, own.features, vendor="" if vendor == "unknown" else vendor, signature=(own.family, own.model)
        )
    return {
        "arch": emulator.arch,
        "model": named.model if named else "",
        "vendor": "" if vendor == "unknown" else vendor,
        "microcode": raw.microcode,
        "signature": {"family": raw.family, "model": raw.model, "stepping": raw.stepping},
        "topology": {
            "sockets": shape.sockets, "dies": shape.dies, "cores": shape.cores, "threads": shape.threads,
        },
        "physical_bits": raw.physical_bits,
        "features": sorted(cpus.libvirt_name(feature) for feature in (named.required if named else ())),
        "page_sizes_kib": numa.page_sizes(),
    }  # fmt: skip


def _cell(cell: numa.Cell) -> dict[str, Any]:
    places = {entry.number: entry for entry in cpu.topology()}
    return {
        "id": cell.number,
        "memory_kib": cell.total,
        "pages": [{"size_kib": pool.size, "count": pool.total} for pool in numa.pools(cell.number)],
        "distances": [{"cell": other, "value": value} for other, value in cell.distances],
        "cpus": [
            {"id": number, "socket": places[number].socket, "die": places[number].die,
             "core": places[number].core, "siblings": list(places[number].siblings)}
            for number in cell.cpus if number in places
        ],
    }  # fmt: skip


def document(found: dict[str, Any]) -> str:
    """Write the facts as libvirt's document (virsh capabilities), which has empty lines between its parts."""
    guest = xml.element("guest")
    _write_guest(guest, found["guest"])
    host = xml.dump(_host(found["host"]), indent=1)
    return f"<capabilities>\n\n{host}\n{xml.dump(guest, indent=1)}\n</capabilities>\n"


def _host(found: dict[str, Any]) -> xml.Element:
    host = xml.element("host")
    if found["uuid"]:
        host.add("uuid", found["uuid"])
    _write_cpu(host.add("cpu"), found["cpu"])
    power = host.add("power_management")
    for target in found["suspend"]:
        power.add(f"suspend_{target}")
    host.add("iommu", support="yes" if found["iommu"] else "no")
    cells = host.add("topology").add("cells", num=len(found["cells"]))
    for cell in found["cells"]:
        _write_cell(cells.add("cell", id=cell["id"]), cell)
    if found["caches"]:
        caches = host.add("cache")
        for cache in found["caches"]:
            whole = cache["size_kib"] % 1024 == 0
            caches.add(
                "bank", id=cache["number"], level=cache["level"], type=cache["kind"],
                size=cache["size_kib"] >> 10 if whole else cache["size_kib"], unit="MiB" if whole else "KiB",
                cpus=format_cpu_list(set(cache["cpus"])),
            )  # fmt: skip
    security = host.add("secmodel")
    security.add("model", "none")
    security.add("doi", 0)
    return host


def _write_cpu(top: xml.Element, found: dict[str, Any]) -> None:
    top.add("arch", found["arch"])
    for name in ("model", "vendor"):
        if found[name]:
            top.add(name, found[name])
    if found["microcode"]:
        top.add("microcode", version=found["microcode"])
    top.add("signature", **found["signature"])
    top.add("topology", **found["topology"])
    if found["physical_bits"]:
        top.add("maxphysaddr", mode="emulate", bits=found["physical_bits"])
    for name in found["features"]:
        top.add("feature", name=name)
    for size in found["page_sizes_kib"]:
        top.add("pages", unit="KiB", size=size)


def _write_cell(top: xml.Element, found: dict[str, Any]) -> None:
    top.add("memory", found["memory_kib"], unit="KiB")
    for pool in found["pages"]:
        top.add("pages", pool["count"], unit="KiB", size=pool["size_kib"])
    if found["distances"]:
        distances = top.add("distances")
        for distance in found["distances"]:
            distances.add("sibling", id=distance["cell"], value=distance["value"])
    cpus_ = top.add("cpus", num=len(found["cpus"]))
    for one in found["cpus"]:
        cpus_.add(
            "cpu", id=one["id"], socket_id=one["socket"], die_id=one["die"], core_id=one["core"],
            siblings=format_cpu_list(set(one["siblings"])),
        )  # fmt: skip


def _write_guest(top: xml.Element, found: dict[str, Any]) -> None:
    top.add("os_type", "hvm")
    arch = top.add("arch", name=found["arch"])
    arch.add("wordsize", 64 if "64" in found["arch"] or found["arch"] == "s390x" else 32)
    arch.add("emulator", found["emulator"])
    for machine in found["machines"]:
        limits = {"maxCpus": machine["max_cpus"], "deprecated": "yes" if machine["deprecated"] else None}
        arch.add("machine", machine["name"], **limits)
        if machine["alias"]:
            arch.add("machine", machine["alias"], canonical=machine["name"], **limits)
    for kind in found["domains"]:
        arch.add("domain", type=kind)
    features = top.add("features")
    features.add("acpi", default="on", toggle="yes")
    features.add("apic", default="on", toggle="no")
    features.add("cpuselection")
    features.add("deviceboot")
    features.add("disksnapshot", default="on", toggle="no")
