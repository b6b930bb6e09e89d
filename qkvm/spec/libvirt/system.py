"""The board of a domain: <os>, <sysinfo>, <features>, <clock>, <pm>.

Credentials are OEM strings of <sysinfo> if the definition has their value, and files of fw_cfg, of another
<sysinfo>, if it has a path; qkvm hands both over by SMBIOS.
"""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import NamedTuple

from qkvm.spec.boot import SMBIOS_SYSTEM, Boot, BootDevice, Clock, ClockOffset, Credential, Features, Firmware
from qkvm.spec.domain import Machine
from qkvm.spec.libvirt import cpu
from qkvm.spec.libvirt.node import Node
from qkvm.units import printable
from qkvm.xml import Element


class System(NamedTuple):
    """The content of <os>: the machine and its version, how it boots, whether the guest sees <sysinfo>."""

    machine: Machine
    version: str
    boot: Boot
    shows_sysinfo: bool


class Sysinfo(NamedTuple):
    """Fields of the SMBIOS system information, and credentials."""

    fields: dict[str, str]
    credentials: tuple[Credential, ...]


_TEXT, _BINARY = "io.systemd.credential:", "io.systemd.credential.binary:"
_FILE = "opt/io.systemd.credentials/"
"""How systemd's names for credentials begin, in OEM strings and in fw_cfg."""


# <os>


def read_os(node: Node) -> System:
    """Read <os>."""
    with node:
        machine, version = _read_type(node)
        firmware = node.take("firmware")
        if firmware not in ("", "efi", "bios"):
            raise node.malformed(f"firmware '{printable(firmware)}' is neither efi nor bios")
        enrolled = _read_firmware(node)
        loader, flash, secure = _read_loader(node)
        template, nvram = _read_nvram(node)
        uefi = firmware == "efi" or flash
        menu, timeout = _read_menu(node)
        boot = Boot(
            kernel=node.leaf("kernel") or "",
            initrd=node.leaf("initrd") or "",
            cmdline=node.leaf("cmdline") or "",
            order=_read_order(node),
            menu=menu,
            menu_timeout=timeout,
            firmware=Firmware.UEFI if uefi else Firmware.BIOS,
            secure=uefi and (enrolled or secure),
            loader=loader,
            nvram_template=template,
            nvram=nvram,
        )
        return System(machine, version, boot, _read_smbios(node))


def _read_type(node: Node) -> tuple[Machine, str]:
    found = node.child("type")
    if found is None:
        raise node.malformed("<type> is missing")
    with found:
        if found.text() != "hvm":
            raise found.refusal("qkvm runs fully virtualized guests alone", hint="hvm")
        if found.take("arch", "x86_64") != "x86_64":
            raise found.refusal("qkvm runs guests of x86_64 alone")
        name = found.take("machine", "pc")
        try:
            return Machine.parse(name)
        except ValueError:
            found.unsupported(f"machine '{printable(name)}' is not supported", hint="q35, pc, microvm")
            return (Machine.Q35 if "q35" in name else Machine.PC), ""


def _read_firmware(node: Node) -> bool:
    """Return whether the chosen firmware must support Secure Boot."""
    found = node.child("firmware")
    if found is None:
        return False
    wanted = {"secure-boot": False, "enrolled-keys": False}
    with found:
        for feature in found.children("feature"):
            with feature:
                name = feature.required("name")
                if name not in wanted:
                    feature.unsupported(f"feature '{printable(name)}' is not supported")
                wanted[name] = feature.switch("enabled")
        if wanted["secure-boot"] != wanted["enrolled-keys"] and "enrolled-keys" in _named(found):
            found.unsupported("Secure Boot comes with enrolled keys, or not at all")
    return wanted["secure-boot"]


def _named(node: Node) -> set[str | None]:
    return {child.get("name") for child in node.element}


def _read_loader(node: Node) -> tuple[str, bool, bool]:
    """Return the firmware's file, whether it is flash (UEFI), and whether it enforces Secure Boot."""
    found = node.child("loader")
    if found is None:
        return "", False, False
    with found:
        kind, secure = found.take("type", "rom"), found.switch("secure")
        found.only("readonly", "yes")
        found.only("stateless", "no")
        path = found.text()
        found.only("format", _format(path))
        if kind not in ("rom", "pflash"):
            raise found.malformed(f"type '{printable(kind)}' is neither rom nor pflash")
        return path, kind == "pflash", secure


def _read_nvram(node: Node) -> tuple[str, str]:
    """Return the template of the variable store, and the store."""
    found = node.child("nvram")
    if found is None:
        return "", ""
    with found:
        found.only("type", "file")
        template, path = found.take("template"), found.text()
        found.only("format", _format(path))
        found.only("templateFormat", _format(template))
        return template, path


def _format(path: str) -> str:
    """Return the format of a firmware file, which a definition tells by the file's name."""
    return "qcow2" if path.endswith(".qcow2") else "raw"


def _read_menu(node: Node) -> tuple[bool, int]:
    found = node.child("bootmenu")
    if found is None:
        return False, 0
    with found:
        on, timeout = found.switch("enable"), found.number("timeout")
        return on, timeout if on else 0


def _read_order(node: Node) -> tuple[BootDevice, ...]:
    order = []
    for found in node.children("boot"):
        with found:
            device = found.required("dev")
            known = found.one_of(device, "dev", BootDevice, BootDevice.DISK)
            if known == device:
                order.append(known)
    return tuple(dict.fromkeys(order))


def _read_smbios(node: Node) -> bool:
    found = node.child("smbios")
    if found is None:
        return False
    with found:
        mode = found.take("mode", "emulate")
        if mode not in ("sysinfo", "emulate"):
            found.unsupported(f"mode '{printable(mode)}' is not supported")
        return mode == "sysinfo"


def write_os(parent: Element, system: System) -> None:
    """Write <os>."""
    boot = system.boot
    uefi = boot.firmware is Firmware.UEFI
    element = parent.add("os", firmware="efi" if uefi and not boot.loader else None)
    element.add("type", "hvm", arch="x86_64", machine=system.machine.versioned(system.version))
    if boot.secure and not boot.loader:
        features = element.add("firmware")
        for name in ("enrolled-keys", "secure-boot"):
            features.add("feature", enabled="yes", name=name)
    if boot.loader:
        secure = "yes" if boot.secure else None
        kind = "pflash" if uefi else "rom"
        element.add(
            "loader", boot.loader, readonly="yes" if uefi else None, secure=secure, type=kind,
            format=_written_format(boot.loader),
        )  # fmt: skip
    if boot.nvram or boot.nvram_template:
        element.add(
            "nvram", boot.nvram, template=boot.nvram_template or None,
            templateFormat=_written_format(boot.nvram_template), format=_written_format(boot.nvram),
        )  # fmt: skip
    for name in ("kernel", "initrd", "cmdline"):
        if getattr(boot, name):
            element.add(name, getattr(boot, name))
    for device in boot.order:
        element.add("boot", dev=device)
    if boot.menu:
        element.add("bootmenu", enable="yes", timeout=boot.menu_timeout or None)
    if system.shows_sysinfo:
        element.add("smbios", mode="sysinfo")


def _written_format(path: str) -> str | None:
    """Return libvirt's attribute for the format; None for raw, since libvirt before 10.9 does not know it."""
    return "qcow2" if _format(path) == "qcow2" else None


# <sysinfo>


def read_sysinfo(nodes: list[Node], uuid: str, *, shown: bool) -> Sysinfo:
    """Read all <sysinfo>; the uuid in them must be the domain's.

    :param shown: <os> has <smbios mode='sysinfo'/>, without which libvirt hides those of type smbios.
    """
    fields: dict[str, str] = {}
    credentials: list[Credential] = []
    for node in nodes:
        with node:
            kind = node.take("type", "smbios")
            if kind == "fwcfg":
                for entry in node.children("entry"):
                    with entry:
                        _read_file(entry, credentials)
                continue
            if kind != "smbios":
                node.unsupported(f"type '{printable(kind)}' is not supported")
            told = _read_tables(node, uuid)
            if not shown and any(told):
                node.unsupported("without <smbios mode='sysinfo'/> in <os> it would not reach the guest")
                continue
            fields |= told.fields
            credentials += told.credentials
    return Sysinfo(fields, tuple(credentials))


def _read_tables(node: Node, uuid: str) -> Sysinfo:
    fields: dict[str, str] = {}
    credentials: list[Credential] = []
    for system in node.children("system"):
        with system:
            for entry in system.children("entry"):
                with entry:
                    _read_field(entry, uuid, fields)
    for strings in node.children("oemStrings"):
        with strings:
            for entry in strings.children("entry"):
                with entry:
                    _read_string(entry, credentials)
    for child in node.every():
        child.unsupported("of the SMBIOS only <system>, and credentials in <oemStrings>, can be set")
    return Sysinfo(fields, tuple(credentials))


def _read_field(entry: Node, uuid: str, found: dict[str, str]) -> None:
    name, text = entry.required("name"), entry.text()
    if name == "uuid":
        if text.lower().replace("-", "") != uuid.replace("-", ""):
            raise entry.malformed("uuid must be the domain's own")
    elif name not in SMBIOS_SYSTEM:
        entry.unsupported(f"'{printable(name)}' is not supported", hint=", ".join(SMBIOS_SYSTEM))
    else:
        found[name] = text


def _read_string(entry: Node, found: list[Credential]) -> None:
    entry.text()
    # Space around a value is part of it.
    kind, colon, rest = entry.element.text.partition(":")
    name, equals, value = rest.partition("=")
    if kind + colon not in (_TEXT, _BINARY):
        entry.unsupported("of the OEM strings only io.systemd.credential:NAME=VALUE is supported")
    elif not equals:
        entry.unsupported(
            f"credential '{printable(name)}' has no value here", hint="dumpxml --security-info shows values"
        )
    else:
        try:
            text = value if kind + colon == _TEXT else b64decode(value, validate=True).decode()
            found.append(Credential(name=name, value=text))
        except ValueError:
            entry.unsupported(
                f"credential '{printable(name)}' is not UTF-8 text in base64",
                hint="<sysinfo type='fwcfg'> with a file",
            )


def _read_file(entry: Node, found: list[Credential]) -> None:
    name, path, text = entry.required("name"), entry.take("file"), entry.text()
    if not name.startswith(_FILE):
        entry.unsupported(f"'{printable(name)}' is not supported", hint=f"{_FILE}NAME")
    else:
        value = text if path else entry.element.text
        found.append(Credential(name=name.removeprefix(_FILE), value=value, file=path))


def write_sysinfo(parent: Element, known: Sysinfo, *, secret: bool) -> None:
    """Write what there is. :param secret: write the values of credentials, not only their names."""
    strings = [one for one in known.credentials if not one.file]
    if known.fields or strings:
        element = parent.add("sysinfo", type="smbios")
        if known.fields:
            system = element.add("system")
            for name, text in known.fields.items():
                system.add("entry", text, name=name)
        if strings:
            listed = element.add("oemStrings")
            for one in strings:
                listed.add("entry", _string(one) if secret else f"{_TEXT}{one.name}")
    paths = [one for one in known.credentials if one.file]
    if paths:
        element = parent.add("sysinfo", type="fwcfg")
        for one in paths:
            element.add("entry", name=f"{_FILE}{one.name}", file=one.file)


def _string(one: Credential) -> str:
    """Return libvirt's OEM string; in base64 if XML, or a pretty printer of it, would change the value."""
    if one.value.isprintable() and one.value == one.value.strip():
        return f"{_TEXT}{one.name}={one.value}"
    return f"{_BINARY}{one.name}={b64encode(one.value.encode()).decode()}"


def shows(known: Sysinfo) -> bool:
    """Return whether <os> must say that the guest sees what type smbios has."""
    return bool(known.fields) or any(not one.file for one in known.credentials)


# <features>, <pm>


def read_features(node: Node | None, pm: Node | None, flags: cpu.Flags) -> Features:
    """Read <features> and <pm>; add features of the CPU to ``flags``."""
    acpi = vmport = False
    smm: bool | None = None
    if node is not None:
        with node:
            acpi = node.present("acpi")
            # pc and q35 always have both.
            for tag in ("apic", "pae"):
                node.present(tag)
            vmport = bool(_read_state(node, "vmport"))
            smm = _read_state(node, "smm")
            cpu.read_kvm(node.child("kvm"), flags)
            cpu.read_hyperv(node.child("hyperv"), flags)
            pmu = _read_state(node, "pmu")
            if pmu is not None:
                flags["pmu"] = "on" if pmu else "off"
    sleep: dict[str, bool | None] = {"suspend-to-mem": None, "suspend-to-disk": None}
    if pm is not None:
        with pm:
            for name in sleep:
                found = pm.child(name)
                if found is not None:
                    with found:
                        sleep[name] = found.switch("enabled", True)
    return Features(
        acpi=acpi, vmport=vmport, smm=smm, suspend_to_mem=sleep["suspend-to-mem"],
        suspend_to_disk=sleep["suspend-to-disk"],
    )  # fmt: skip


def _read_state(node: Node, tag: str) -> bool | None:
    found = node.child(tag)
    if found is None:
        return None
    with found:
        return found.switch("state", True)


def write_features(parent: Element, features: Features, flags: cpu.Flags) -> None:
    """Write <features>; remove the flags written there from ``flags``."""
    element = parent.add("features")
    if features.acpi:
        element.add("acpi")
    element.add("apic")
    cpu.write_hyperv(element, flags)
    cpu.write_kvm(element, flags)
    if flags.get("pmu") in ("on", "off"):
        element.add("pmu", state=flags.pop("pmu"))
    if features.vmport:
        # qkvm's machines have none by default.
        element.add("vmport", state="on")
    if features.smm is not None:
        element.add("smm", state="on" if features.smm else "off")


def write_pm(parent: Element, features: Features) -> None:
    """Write <pm> if the definition sets it."""
    states = (("suspend-to-mem", features.suspend_to_mem), ("suspend-to-disk", features.suspend_to_disk))
    if any(state is not None for _, state in states):
        element = parent.add("pm")
        for name, state in states:
            if state is not None:
                element.add(name, enabled="yes" if state else "no")


# <clock>


def read_clock(node: Node | None, flags: cpu.Flags) -> Clock:
    """Read <clock>; add the CPU's timers to ``flags``."""
    if node is None:
        return Clock()
    catchup = delay = False
    hpet = True
    with node:
        offset = node.choice("offset", ClockOffset, ClockOffset.UTC)
        node.only("adjustment", "reset")
        for timer in node.children("timer"):
            with timer:
                if cpu.read_timer(timer, flags):
                    timer.drop("name")
                    continue
                name = timer.required("name")
                if name == "hpet":
                    hpet = timer.switch("present", True)
                elif name == "rtc":
                    timer.only("present", "yes")
                    timer.only("track", "guest")
                    catchup = _read_policy(timer, "catchup")
                elif name == "pit":
                    timer.only("present", "yes")
                    delay = _read_policy(timer, "delay")
                else:
                    timer.unsupported(f"timer '{printable(name)}' is not supported")
    return Clock(offset=offset, rtc_catchup=catchup, pit_delay=delay, hpet=hpet)


def _read_policy(timer: Node, known: str) -> bool:
    """Return whether a timer's policy for lost ticks is ``known``, and not the default."""
    policy = timer.take("tickpolicy")
    if policy not in ("", known) and (policy, known) != ("delay", "catchup"):
        timer.unsupported(f"tickpolicy '{printable(policy)}' is not supported")
    return policy == known


def write_clock(parent: Element, clock: Clock, flags: cpu.Flags) -> None:
    """Write <clock>; remove the flags of the CPU's timers from ``flags``."""
    element = parent.add("clock", offset=clock.offset)
    if clock.rtc_catchup:
        element.add("timer", name="rtc", tickpolicy="catchup")
    if clock.pit_delay:
        element.add("timer", name="pit", tickpolicy="delay")
    if not clock.hpet:
        element.add("timer", name="hpet", present="no")
    cpu.write_timers(element, flags)
