"""What a domain can be made of, as data and as libvirt's domainCapabilities document.

A device is offered if the emulator has it and definitions (:mod:`qkvm.spec.domain`) have a word for it.
"""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING

from qkvm import units, xml
from qkvm.emulator import cpu as cpus
from qkvm.errors import HostError, InvalidValue
from qkvm.host import programs
from qkvm.host.node import accel
from qkvm.spec import domain as spec

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

    from qkvm.emulator.survey import Emulator
    from qkvm.host.node.firmware import Image
    from qkvm.qemu.abilities import MachineType

ACCELS = {"kvm": "kvm", "qemu": "tcg"}
"""libvirt's word for a type of domain -> the accelerator."""


def choose_type(emulator: Emulator, wanted: str = "") -> str:
    """Return the type of domain, kvm or qemu; by default the one that accel = "auto" gives.

    :raises InvalidValue: another word. :raises HostError: the emulator can't use KVM here.
    """
    if not wanted:
        return "kvm" if "kvm" in emulator.best and accel.choose("auto")[0] == "kvm" else "qemu"
    if wanted not in ACCELS:
        raise InvalidValue(f"invalid argument: unknown virttype: {units.printable(wanted)}", hint="kvm or qemu")
    if ACCELS[wanted] not in emulator.best:
        raise HostError(
            f"invalid argument: the accel '{wanted}' is not supported by '{emulator.path}' on this host",
            hint="see: qkvm host-validate",
        )
    return wanted


def accelerator(kind: str) -> str:
    """Return QEMU's name for a type of :func:`choose_type`: kvm or tcg."""
    return ACCELS[kind]


def choose_machine(emulator: Emulator, wanted: str = "") -> MachineType:
    """Return the machine type with that name or alias; by default the default of definitions.

    :raises InvalidValue: the emulator has none of that name.
    """
    found = emulator.machine(wanted) if wanted else emulator.machine("q35")
    if found is None and not wanted:
        found = next((entry for entry in emulator.machines if entry.default), None)
    if found is None:
        raise InvalidValue(
            f"invalid argument: the machine '{units.printable(wanted)}' is not supported by emulator "
            f"'{emulator.path}'",
            hint=f"{emulator.path} -machine help",
        )
    return found


_KVM_CHECK_EXTENSION = 0xAE03
_KVM_CAP_MAX_VCPUS = 66
"""Of linux/kvm.h."""


def vcpu_limit(machine: MachineType, kind: str) -> int:
    """Return the most vCPUs that a domain of this machine and type can have."""
    found = min(machine.cpu_max, spec.VCPU_LIMIT)
    if kind == "kvm":
        try:
            fd = os.open("/dev/kvm", os.O_RDWR | os.O_CLOEXEC)
            try:
                found = min(found, fcntl.ioctl(fd, _KVM_CHECK_EXTENSION, _KVM_CAP_MAX_VCPUS) or found)
            finally:
                os.close(fd)
        except OSError:
            # A kernel that does not answer has no limit of its own.
            pass
    return found


def facts(emulator: Emulator, machine: MachineType, kind: str, *, deprecated: bool = True) -> dict[str, Any]:
    """Describe what a domain can be made of; a part with an empty list of values does not exist.

    :param deprecated: keep features of the host's model that QEMU calls deprecated.
    """
    builds = _firmware(emulator, machine)
    return {
        "path": emulator.path,
        "domain": kind,
        "machine": machine.name,
        "arch": emulator.arch,
        "max_vcpus": vcpu_limit(machine, kind),
        "iothreads": "iothread" in emulator.devices,
        "firmware": sorted({image.code for image in builds}),
        "secure_boot": any("secure-boot" in image.features for image in builds),
        "cpu": _cpu(emulator, kind, deprecated),
        "memory_backing": _offered(spec.MemorySource, _MEMORY, emulator.devices),
        "devices": _devices(emulator, machine),
        "genid": "vmgenid" in emulator.devices and machine.name != "microvm",
    }


def _firmware(emulator: Emulator, machine: MachineType) -> list[Image]:
    from qkvm.host.node import firmware

    return [] if machine.name == "microvm" else firmware.images(emulator.arch, machine.name)


def _cpu(emulator: Emulator, kind: str, deprecated: bool) -> dict[str, Any]:
    best = emulator.best[ACCELS[kind]]
    vendor = cpus.vendor_name(best.vendor)
    named = None
    if best.features:
        named = cpus.name_of(emulator, best.features, vendor="" if vendor == "unknown" else vendor, reduce=True)
    return {
        "host_passthrough": kind == "kvm",
        "host_model": {
            "model": named.model,
            "vendor": "" if vendor == "unknown" else vendor,
            "require": sorted(cpus.libvirt_name(name) for name in named.required),
            "disable": sorted({
                cpus.libvirt_name(name) for name in (*named.disabled, *(() if deprecated else best.old_features))
            }),
        } if named else None,
        "models": [
            {"name": model.name, "vendor": cpus.model_vendor(model), "deprecated": model.deprecated,
             "lacks": sorted(cpus.libvirt_name(name) for name in model.lacks.get(ACCELS[kind], ()))}
            for model in emulator.models
        ],
    }  # fmt: skip


_MEMORY = {"file": "memory-backend-file", "anonymous": "", "memfd": "memory-backend-memfd"}
_DISK_BUSES = {
    "ide": "ide-hd", "fdc": "floppy", "scsi": "virtio-scsi-pci", "virtio": "virtio-blk-pci", "usb": "usb-storage",
    "sata": "ich9-ahci",
}  # fmt: skip
_DISK_KINDS = {"disk": "", "cdrom": "ide-cd", "floppy": "floppy"}
_VIDEOS = {
    "vga": "VGA", "cirrus": "cirrus-vga", "vmvga": "vmware-svga", "qxl": "qxl-vga", "virtio": "virtio-vga",
    "none": "", "bochs": "bochs-display",
}  # fmt: skip
_NICS = {"virtio": "virtio-net-pci", "e1000e": "e1000e", "e1000": "e1000", "rtl8139": "rtl8139"}
_CHANNELS = ("pty", "unix", "tcp", "file", "null")
_FILESYSTEMS = {"path": "virtio-9p", "virtiofs": "vhost-user-fs"}


def _devices(emulator: Emulator, machine: MachineType) -> dict[str, dict[str, list[str]]]:
    """Return each kind of device with its properties and their values, in libvirt's words."""
    has = emulator.devices
    if machine.name == "microvm":
        return _microvm(emulator)
    buses = _offered(spec.DiskBus, _DISK_BUSES, has)
    if machine.name.startswith("pc-q35"):
        buses = [bus for bus in buses if bus != "ide"]
    tpms = [str(model) for model in spec.TpmModel if model in has]
    swtpm = programs.is_installed("swtpm") and "emulator" in emulator.tpms
    return {
        "disk": {
            "disk_device": _offered(spec.DiskKind, _DISK_KINDS, has),
            "bus": buses,
            "model": ["virtio"] if "virtio" in buses else [],
        },
        "graphics": {"type": ["vnc"] if "query-vnc" in emulator.commands else []},
        "video": {"model_type": _offered(spec.Video, _VIDEOS, has)},
        "interface": {"model_type": _offered(spec.NicModel, _NICS, has)},
        "hostdev": {},
        "rng": {
            "model": ["virtio"] if "virtio-rng-pci" in has else [],
            "backend_model": ["random"] if "rng-random" in has else [],
        },
        "filesystem": {"driver_type": _shares(has, "pci")},
        "tpm": {"model": tpms if swtpm else [], "backend_model": ["emulator"] if tpms and swtpm else []},
        "redirdev": {},
        "channel": {"type": [word for word in _CHANNELS if word in set(spec.PortKind)]},
    }


def _microvm(emulator: Emulator) -> dict[str, dict[str, list[str]]]:
    """A microvm has virtio-mmio and one serial port, and no PCI."""
    has = emulator.devices
    return {
        "disk": {"disk_device": ["disk"], "bus": ["virtio"] if "virtio-blk-device" in has else []},
        "graphics": {},
        "video": {"model_type": ["none"]},
        "interface": {"model_type": ["virtio"] if "virtio-net-device" in has else []},
        "hostdev": {},
        "rng": {
            "model": ["virtio"] if "virtio-rng-device" in has else [],
            "backend_model": ["random"] if "rng-random" in has else [],
        },
        "filesystem": {"driver_type": _shares(has, "device")},
        "tpm": {},
        "redirdev": {},
        "channel": {"type": [word for word in _CHANNELS if word in set(spec.PortKind)]},
    }


def _shares(has: frozenset[str], bus: str) -> list[str]:
    """Return the ways to share a folder, in libvirt's words."""
    there = programs.is_installed("virtiofsd")
    return [
        word for word, device in _FILESYSTEMS.items() if f"{device}-{bus}" in has and (there or word != "virtiofs")
    ]


def _offered(words: Iterable[str], devices: dict[str, str], has: frozenset[str]) -> list[str]:
    """Return the words whose device the emulator has, in the table's order; '' needs no device."""
    known = set(words)
    return [word for word, device in devices.items() if word in known and (not device or device in has)]


def document(found: dict[str, Any]) -> xml.Element:
    """Write the facts as libvirt's document (virsh domcapabilities)."""
    top = xml.element("domainCapabilities")
    top.add("path", found["path"])
    top.add("domain", found["domain"])
    top.add("machine", found["machine"])
    top.add("arch", found["arch"])
    top.add("vcpu", max=found["max_vcpus"])
    top.add("iothreads", supported=_yes(found["iothreads"]))
    system = top.add("os", supported="yes")
    _enum(system, "firmware", ["efi"] if found["firmware"] else [])
    loader = system.add("loader", supported=_yes(found["firmware"]))
    for path in found["firmware"]:
        loader.add("value", path)
    if found["firmware"]:
        _enum(loader, "type", ["pflash"])
        _enum(loader, "readonly", ["yes"])
        _enum(loader, "secure", ["yes", "no"] if found["secure_boot"] else ["no"])
    _write_cpu(top.add("cpu"), found["cpu"])
    memory = top.add("memoryBacking", supported=_yes(found["memory_backing"]))
    _enum(memory, "sourceType", found["memory_backing"])
    devices = top.add("devices")
    for kind, properties in found["devices"].items():
        if kind == "interface":
            # libvirt 9.0 has no element for the models: only --json shows them.
            continue
        entry = devices.add(kind, supported=_yes(any(properties.values())))
        for name, values in properties.items():
            if any(properties.values()):
                _enum(entry, _camel(name), values)
    features = top.add("features")
    for name in ("gic", "vmcoreinfo"):
        features.add(name, supported="no")
    features.add("genid", supported=_yes(found["genid"]))
    features.add("backingStoreInput", supported="yes")
    for name in ("backup", "sev", "sgx", "hyperv"):
        features.add(name, supported="no")
    return top


def _write_cpu(top: xml.Element, found: dict[str, Any]) -> None:
    mode = top.add("mode", name="host-passthrough", supported=_yes(found["host_passthrough"]))
    if found["host_passthrough"]:
        _enum(mode, "hostPassthroughMigratable", ["on", "off"])
    _enum(top.add("mode", name="maximum", supported="yes"), "maximumMigratable", ["on", "off"])
    host = found["host_model"]
    mode = top.add("mode", name="host-model", supported=_yes(host))
    if host:
        mode.add("model", host["model"], fallback="forbid")
        if host["vendor"]:
            mode.add("vendor", host["vendor"])
        for policy in ("require", "disable"):
            for name in host[policy]:
                mode.add("feature", policy=policy, name=name)
    mode = top.add("mode", name="custom", supported=_yes(found["models"]))
    for model in found["models"]:
        old = "yes" if model["deprecated"] else None
        mode.add("model", model["name"], usable=_yes(not model["lacks"]), deprecated=old, vendor=model["vendor"])


def _enum(parent: xml.Element, name: str, values: list[str]) -> None:
    top = parent.add("enum", name=name)
    for value in values:
        top.add("value", value)


def _camel(name: str) -> str:
    """Return libvirt's form of a name: diskDevice for disk_device."""
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


def _yes(value: object) -> str:
    return "yes" if value else "no"
