"""<domain>: a whole description, read into a definition and written from one.

The reader drops values of a single run: the id, aliases without the user's prefix (ua-), libvirt's own
<resource>, security labels that libvirt generates, terminals, ports and bridges of a running guest, and libvirt's
tap names. The writer may express some things differently, with the same meaning: units of sizes; built-in
controllers and input devices; autoport; feature policies; features and timers at their default; a host-model CPU,
which is all that the accelerator offers; and what libvirt adds (a balloon, a USB controller, a video card for a
screen, the CPU qemu64).
"""

from __future__ import annotations

from typing import Any

from qkvm import units
from qkvm.spec import domain as spec
from qkvm.spec import stability
from qkvm.spec.libvirt import cpu, devices, metadata, system, tuning
from qkvm.spec.libvirt.node import Node
from qkvm.spec.libvirt.place import Places, pci_slots
from qkvm.units import printable
from qkvm.xml import Element

_TYPES = {"kvm": spec.Accel.KVM, "qemu": spec.Accel.TCG}

_NOT_HERE = {
    "maxMemory": "memory is not plugged while the guest runs; the balloon moves it",
    "launchSecurity": "encrypted guests are not supported",
    "on_lockfailure": "qkvm has no lock manager",
    "perf": "performance events are not supported",
    "keywrap": "this is for s390x",
    "idmap": "this is for containers",
    "bootloader": "this is for Xen",
    "defaultiothread": "the default iothread is not supported",
    "qemu:commandline": "options of one's own belong in a template: /etc/qkvm/templates",
    "qemu:capabilities": "QEMU's capabilities are what they are",
    "qemu:override": "properties of one's own belong in a template: /etc/qkvm/templates",
}
"""Elements of a domain that qkvm does not support, with the reasons."""

_ROOT_PORTS = 8
"""The default number of root ports of a definition."""

# Reading.


def read_domain(root: Node) -> spec.Domain:
    """Return the definition of a <domain>; it is not validated yet, and may lack a uuid."""
    with root:
        # An element with a prefix is refused, or kept if it is metadata.
        root.drop("id", *(name for name in root.element.attributes if name.startswith("xmlns:")))
        accel = _read_type(root)
        flags: cpu.Flags = {}
        name = root.leaf("name")
        if name is None:
            raise root.malformed("<name> is missing")
        uuid = (root.leaf("uuid") or "").strip()
        texts, extras = metadata.read_metadata(root.child("metadata"), root.element)
        extras = metadata.read_extras(extras, root.source, root.element.line)
        os_node = root.child("os")
        if os_node is None:
            raise root.malformed("<os> is missing")
        board = system.read_os(os_node)
        model, cpu_flags, topology = cpu.read_cpu(root.child("cpu"))
        features = system.read_features(root.child("features"), root.child("pm"), flags)
        clock = system.read_clock(root.child("clock"), flags)
        told = system.read_sysinfo(root.children("sysinfo"), uuid, shown=board.shows_sysinfo)
        definition = spec.Domain(
            name=name,
            uuid=uuid,
            genid=_read_genid(root, extras),
            title=root.leaf("title") or "",
            description=root.leaf("description") or "",
            metadata=texts,
            machine=board.machine,
            machine_version=board.version,
            accel=accel,
            cpu=cpu.join(model, {**cpu_flags, **flags, **_flags(extras)}),
            memory=_read_memory(root),
            vcpus=_read_vcpus(root),
            topology=topology,
            boot=board.boot,
            smbios=told.fields,
            credentials=told.credentials,
            features=features,
            clock=clock,
            root_ports=_read_root_ports(root, extras),
            **_read_tuning(root),
            **_read_lifecycle(root, extras),
        )
        _drop_runtime(root)
        for tag, why in _NOT_HERE.items():
            root.spoil(tag, why)
        return devices.read_devices(root.child("devices"), definition, extras)


def _read_type(root: Node) -> spec.Accel:
    kind = root.required("type")
    if kind not in _TYPES:
        raise root.refusal(f"type '{printable(kind)}' is not supported", hint="kvm, qemu")
    return _TYPES[kind]


def _read_genid(root: Node, extras: metadata.Extras) -> str:
    """Return the generation id; an empty element asks for a new one."""
    text = root.leaf("genid")
    return extras.get("genid", "") if text is None else text.strip() or units.random_uuid()


def _flags(extras: metadata.Extras) -> cpu.Flags:
    return cpu.split(f",{extras['cpu']}")[1] if "cpu" in extras else {}


def _read_root_ports(root: Node, extras: metadata.Extras) -> int:
    return root.number_of(extras["root_ports"], "root_ports") if "root_ports" in extras else _ROOT_PORTS


def _read_memory(root: Node) -> spec.Memory:
    found, current = root.child("memory"), root.child("currentMemory")
    if found is None:
        raise root.malformed("<memory> is missing")
    with found:
        maximum = found.size()
        found.only("dumpCore", "on")
    size = maximum
    if current is not None:
        with current:
            size = current.size()
    return spec.Memory(current=size if 0 < size < maximum else maximum, maximum=maximum)


def _read_vcpus(root: Node) -> spec.Vcpus:
    found, listed = root.child("vcpu"), root.child("vcpus")
    if found is None:
        return spec.Vcpus()
    with found:
        found.only("placement", "static")
        maximum = found.number_of(found.text(), "vcpu")
        current, cpuset = found.number("current", maximum), found.take("cpuset")
    if listed is not None:
        with listed:
            for number, one in enumerate(listed.children("vcpu")):
                with one:
                    one.drop("order")
                    ident, on, hot = one.number("id"), one.switch("enabled"), one.switch("hotpluggable")
                    if ident != number or on != (number < current):
                        one.unsupported("vCPUs are plugged by number, the first ones first")
                    if hot == (number == 0):
                        one.unsupported("all vCPUs but the first can be unplugged")
    return spec.Vcpus(current=current, maximum=maximum, cpuset=cpuset)


def _read_tuning(root: Node) -> dict[str, Any]:
    return {
        "memory_backing": tuning.read_backing(root.child("memoryBacking")),
        "iothreads": tuning.read_iothreads(root.child("iothreads"), root.child("iothreadids")),
        "throttle_groups": tuning.read_throttle_groups(root.child("throttlegroups")),
        "cputune": tuning.read_cputune(root.child("cputune")),
        "memtune": tuning.read_memtune(root.child("memtune")),
        "blkiotune": tuning.read_blkiotune(root.child("blkiotune")),
        "numatune": tuning.read_numatune(root.child("numatune")),
    }


def _read_lifecycle(root: Node, extras: metadata.Extras) -> dict[str, Any]:
    kinds = {
        "on_poweroff": (spec.OnPoweroff, spec.OnPoweroff.DESTROY),
        "on_reboot": (spec.OnReboot, spec.OnReboot.RESTART),
        "on_crash": (spec.OnCrash, spec.OnCrash.DESTROY),
    }
    found: dict[str, Any] = {}
    for name, (kind, default) in kinds.items():
        node = root.child(name)
        if node is not None:
            with node:
                default = node.one_of(node.text(), name, kind, default)
        found[name] = default
    if extras.get("on_crash") == spec.OnCrash.IGNORE and found["on_crash"] is spec.OnCrash.DESTROY:
        found["on_crash"] = spec.OnCrash.IGNORE
    return found


def _drop_runtime(root: Node) -> None:
    """Drop what libvirt writes into the description of a running domain."""
    resource = root.child("resource")
    if resource is not None:
        with resource:
            if (resource.leaf("partition") or "/machine").strip() != "/machine":
                resource.unsupported("qkvm puts no domain into a cgroup partition of its own")
    for label in root.children("seclabel"):
        with label:
            kind = label.take("type", "dynamic")
            if kind not in ("dynamic", "none"):
                label.unsupported(f"labels of type '{printable(kind)}' are not supported")
            label.drop("model", "relabel")
            label.drop_children("label", "imagelabel")


# Writing.


def write_domain(
    domain: spec.Domain, *, accel: str, live: devices.Live | None = None, secret: bool = False
) -> Element:
    """Write <domain>. :param accel: kvm or tcg, written for 'auto'.

    :param live: values of a running domain. :param secret: write passwords too.
    """
    model, flags = cpu.split(domain.cpu)
    # This first run takes the flags that libvirt has elements for; the rest must be known before writing.
    rest = dict(flags)
    _write_board(Element("rest"), domain, model, rest)
    extras = devices.extras_of(domain)
    if rest:
        extras["cpu"] = ",".join(f"{name}={value}" for name, value in rest.items())
    if domain.root_ports != _ROOT_PORTS:
        extras["root_ports"] = str(domain.root_ports)
    if domain.on_crash is spec.OnCrash.IGNORE:
        extras["on_crash"] = str(domain.on_crash)
    if domain.genid == spec.NO_GENID:
        extras["genid"] = domain.genid
    root = Element("domain", {"type": "kvm" if accel == "kvm" else "qemu"})
    if live is not None:
        root.attributes["id"] = str(live.id)
    metadata.write_identity(root, domain, extras, genid=domain.genid if stability.has_genid(domain) else "")
    _write_tuning(root, domain)
    system.write_sysinfo(root, _sysinfo(domain), secret=secret)
    _write_board(root, domain, model, flags)
    _write_lifecycle(root, domain)
    system.write_pm(root, domain.features)
    places = Places(pci_slots(_addresses(domain)), live.aliases if live is not None else {})
    devices.write_devices(root, domain, places, live, secret=secret)
    return root


def _write_tuning(root: Element, domain: spec.Domain) -> None:
    root.add("memory", int(domain.memory.maximum), unit="KiB")
    root.add("currentMemory", int(domain.memory.current), unit="KiB")
    tuning.write_blkiotune(root, domain.blkiotune)
    tuning.write_memtune(root, domain.memtune)
    tuning.write_backing(root, domain.memory_backing)
    current = domain.vcpus.current if domain.vcpus.current != domain.vcpus.maximum else None
    root.add("vcpu", domain.vcpus.maximum, placement="static", cpuset=domain.vcpus.cpuset or None, current=current)
    tuning.write_iothreads(root, domain.iothreads)
    tuning.write_throttle_groups(root, domain.throttle_groups)
    tuning.write_cputune(root, domain.cputune)
    tuning.write_numatune(root, domain.numatune)


def _write_board(root: Element, domain: spec.Domain, model: str, flags: cpu.Flags) -> None:
    """Write <os>, <features>, <cpu> and <clock>; remove the flags written there from ``flags``."""
    board = system.System(domain.machine, domain.machine_version, domain.boot, system.shows(_sysinfo(domain)))
    system.write_os(root, board)
    system.write_features(root, domain.features, flags)
    rest = Element("rest")
    system.write_clock(rest, domain.clock, flags)
    root.children += [cpu.write_cpu(model, flags, domain.topology), *rest.children]


def _sysinfo(domain: spec.Domain) -> system.Sysinfo:
    return system.Sysinfo(domain.smbios, domain.credentials)


def _write_lifecycle(root: Element, domain: spec.Domain) -> None:
    root.add("on_poweroff", domain.on_poweroff)
    root.add("on_reboot", domain.on_reboot)
    crash = spec.OnCrash.DESTROY if domain.on_crash is spec.OnCrash.IGNORE else domain.on_crash
    root.add("on_crash", crash)


def _addresses(domain: spec.Domain) -> list[str]:
    """Return the addresses of all devices."""
    lists = ("controllers", "disks", "nics", "serials", "inputs", "filesystems")
    singles = (domain.balloon, domain.rng, domain.watchdog, domain.vsock)
    return [
        *(device.address for name in lists for device in getattr(domain, name)),
        *(device.address for device in singles if device is not None),
        domain.video_address,
    ]
