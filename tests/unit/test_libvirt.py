"""libvirt's descriptions of domains: read whole or refused by name, and written back the same in meaning."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from golden_cases import MACHINES, full, minimal
from msgspec.structs import replace

from qkvm import xml
from qkvm.errors import DefinitionError
from qkvm.spec import domain as spec
from qkvm.spec import toml
from qkvm.spec.libvirt import node, text
from qkvm.spec.libvirt.devices import Live
from qkvm.spec.size import Size

CORPUS = sorted((Path(__file__).parent / "libvirt").glob("*.xml"))
UUID = "5d1c8f0e-63a2-4a3f-9b41-0b1f2f6f7a01"

SAME = {
    # What tells of one run, or of libvirt's own doing.
    r"domain@id=.*": "the id of a run",
    r".*/alias(@name=(?!ua-).*)?": "aliases that are not the user's",
    r"domain/resource.*": "libvirt's own cgroup",
    r"domain/seclabel.*": "labels that libvirt makes up",
    r"domain/vcpus.*": "which vCPUs are plugged: the first ones",
    r".*(source@path|console@tty)=/dev/pts/.*": "the terminal of a run",
    r"domain/devices/disk/(source|backingStore)@index=.*": "numbers of nodes",
    r"domain/devices/disk/target@tray=.*": "the drive's door",
    r"domain/devices/interface/source@(portid|bridge)=.*": "the bridge of a run",
    r"domain/devices/interface/target(@dev=(vnet3|macvtap3))?": "a tap that libvirt named",
    r"domain/devices/channel/(source|source@mode=bind|source@path=/var/lib/libvirt/.*)": "a socket libvirt named",
    r"domain/devices/channel/target@state=.*": "whether the guest listens",
    r"domain/devices/graphics@port=.*": "the port that autoport found",
    r"domain/devices/graphics/listen@socket=.*": "a socket that libvirt named",
    # The same in other words.
    r"domain/((memory|currentMemory|memtune/soft_limit)(@unit)?=.*|currentMemory)": "another unit; all of it",
    r"domain/memtune/swap_hard_limit.*": "no limit",
    r"domain/vcpu(=1|@placement=static)?": "the default",
    r"domain/features/(apic|pae|vmport|vmport@state=off)": "what a pc always has; qkvm's default",
    r"domain/features/hyperv/reset.*": "off is the default",
    r"domain/features": "nothing in it",
    r"domain/cpu@(check|match|mode|migratable)=.*": "checks of the host; host-model is all there is",
    r"domain/cpu/((model@fallback|vendor|topology@clusters)=.*|vendor)": "checks of the host; the default",
    r"domain/cpu/feature@policy=(force|require|disable|forbid)": "force is on, forbid is off",
    r"domain/cpu/model(=qemu64)?": "QEMU's default",
    r"domain/cpu": "QEMU's default",
    r"domain/clock(@offset=utc)?": "the default",
    r"domain/clock/timer(@(name=rtc|tickpolicy=delay))?": "the default",
    r"domain/on_(poweroff|reboot|crash)(=(destroy|restart))?": "the default",
    r"domain/os/type(@arch|@machine)=.*": "the default",
    r"domain/uuid(=.*)?": "a uuid made up",
    r"domain/sysinfo/system/entry(@name=uuid|=0c5d.*)?": "the domain's own uuid",
    r"domain/devices/disk(@(type=file|device=disk))?": "the default",
    r"domain/devices/disk/(driver|target)@(name=qemu|type=raw|bus=scsi)": "the default",
    r"domain/devices/disk/driver": "the default",
    r"domain/devices/interface/filterref/parameter(@(name=CTRL_IP_LEARNING|value=dhcp))?": "it is always so",
    r"domain/devices/interface/source@mode=vepa": "the default",
    r"domain/devices/interface/port(@isolated=no)?": "the default",
    r"domain/devices/interface/(mac@address=52:54:00:.*|mac)": "a MAC address made up",
    r"domain/devices/interface/(model@type=rtl8139|model)": "libvirt's default",
    r"domain/devices/controller(@(type|index|model)=.*)?": "the machine's own, and libvirt's defaults",
    r"domain/devices/controller/model(@name=.*)?": "the default",
    r"domain/devices/controller/(address|address@.*)": "the machine's own",
    r"domain/devices/(input|input@(type=mouse|type=keyboard|bus=ps2))": "the board's own",
    r"domain/devices/(audio|audio@.*)": "there is none",
    r"domain/devices/graphics@(port=-1|autoport=yes|listen=127.0.0.1)": "the default",
    r"domain/devices/graphics/(listen|listen@(type=address|address=127.0.0.1))": "the default",
    r"domain/devices/video(/model(@(type=cirrus|vram=16384|heads=1|primary=yes))?)?": "libvirt's default",
    r"domain/devices/(memballoon|memballoon@model=virtio)": "libvirt's default",
    r"domain/devices/panic/address(@.*)?": "where it always is",
    r"domain/devices/tpm/backend@version=2.0": "the default",
    r"domain/devices/filesystem@accessmode=passthrough": "the default",
    r"domain/devices/filesystem/driver(@(type=path|wrpolicy=writeback))?": "the default",
    r"domain/devices/(serial|console)(@type=pty)?": "a console is the first serial port",
    r"domain/devices/(serial|console)/source(@(append|tls|mode|path)=.*)?": "the default",
    r"domain/devices/(serial|console)/target(@(type|port)=(isa-serial|serial|virtio|0|1))?": "the default",
    r"domain/devices/serial/target/model(@name=isa-serial)?": "the default",
    r"domain/devices/console/alias(@name=ua-first)?": "the first serial port's",
    r"domain/devices/channel/(address|address@.*)": "ports are found by name",
    r"domain/metadata@xmlns:.*": "declared where it is used",
    r"domain@xmlns:.*": "declared where it is used",
    r"domain/metadata/(note:note|shop:order)@xmlns:.*": "declared where it is used",
}
"""What may be lost or come in addition: a pattern of flattened lines, and why it means the same."""


def flat(element: xml.Element, path: str = "") -> list[str]:
    """One line for each element, attribute and text."""
    here = f"{path}/{element.tag}" if path else element.tag
    lines = [here, *(f"{here}@{name}={value}" for name, value in element.attributes.items())]
    if element.text.strip():
        lines.append(f"{here}={element.text.strip()}")
    return [*lines, *(line for child in element for line in flat(child, here))]


def missing(lines: list[str], others: list[str]) -> list[str]:
    rest = list(others)
    lost = []
    for line in lines:
        if line in rest:
            rest.remove(line)
        else:
            lost.append(line)
    return lost


def there_and_back(path: Path) -> tuple[spec.Domain, str]:
    domain = text.loads(path.read_bytes(), path.name).domain
    return domain, text.dumps(domain, accel=domain.accel)


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_what_is_written_means_what_was_read(path: Path) -> None:
    domain, written = there_and_back(path)
    assert text.loads(written, "written").domain == domain
    assert text.dumps(domain, accel=domain.accel) == written
    before, after = flat(xml.parse(path.read_bytes(), "")), flat(xml.parse(written, ""))
    changed = missing(before, after) + missing(after, before)
    assert [line for line in changed if not any(re.fullmatch(known, line) for known in SAME)] == []


@pytest.mark.parametrize("path", CORPUS, ids=lambda path: path.stem)
def test_a_definition_keeps_it_all(path: Path) -> None:
    domain, written = there_and_back(path)
    stored = toml.loads(toml.dumps(domain), spec.Domain, "")
    assert spec.validate(stored) == domain
    assert text.dumps(stored, accel=stored.accel) == written


def test_every_equivalence_is_needed() -> None:
    lines = []
    for path in CORPUS:
        before, after = flat(xml.parse(path.read_bytes(), "")), flat(xml.parse(there_and_back(path)[1], ""))
        lines += missing(before, after) + missing(after, before)
    unused = [known for known in SAME if not any(re.fullmatch(known, line) for line in lines)]
    assert unused == []


# What a definition says of it.


def test_a_live_guest_of_virt_install() -> None:
    domain, _ = there_and_back(Path(__file__).parent / "libvirt/q35-live.xml")
    assert (domain.machine, domain.machine_version, domain.accel, domain.cpu) == ("q35", "7.2", "kvm", "host")
    assert domain.vcpus == spec.Vcpus(current=2, maximum=3)
    assert [disk.target for disk in domain.disks] == ["vda", "sda"] and domain.disks[1].path == ""
    backing = (spec.Layer(path="/var/lib/libvirt/images/debian-12.qcow2", format=spec.DiskFormat.QCOW2),)
    assert domain.disks[0].backing == backing
    assert domain.nics[0].target == "" and domain.nics[0].address == "0000:01:00.0"
    assert [one.index for one in domain.controllers if one.model == "pcie-root-port"] == list(range(1, 8))
    assert domain.channels == (spec.Channel(name=spec.AGENT_CHANNEL),) and domain.serials == (spec.Serial(),)
    assert domain.inputs == (spec.Input(type=spec.InputType.TABLET, address="usb:0:1"),)
    assert domain.vnc == spec.Vnc() and domain.watchdog is not None and domain.rng is not None
    assert (
        domain.balloon is not None and not domain.balloon.free_page_reporting and not domain.balloon.stats_period
    )
    assert list(domain.metadata) == ["http://libosinfo.org/xmlns/libvirt/domain/1.0"]


def test_flags_of_a_windows_guest() -> None:
    domain, _ = there_and_back(Path(__file__).parent / "libvirt/windows.xml")
    assert domain.cpu == (
        "host,migratable=off,monitor=off,kvm=off,hv-relaxed=on,hv-vapic=on,hv-spinlocks=0x1fff,hv-vpindex=on,"
        "hv-synic=on,hv-stimer=on,hv-vendor-id=OfficeVM,hv-tlbflush=on,hv-ipi=on,hv-stimer-direct=on,hv-time=on"
    )
    assert domain.topology == spec.Topology(cores=2, threads=2)
    boot = domain.boot
    assert boot.firmware is spec.Firmware.UEFI and boot.secure and boot.menu_timeout == 3000
    assert boot.nvram == "/var/lib/libvirt/qemu/nvram/office_VARS.fd" and boot.loader.endswith("ms.fd")
    assert domain.video is spec.Video.QXL and domain.video_memory == 32768 and domain.panic


def test_what_libvirt_adds_to_a_description_by_hand() -> None:
    domain, _ = there_and_back(Path(__file__).parent / "libvirt/minimal.xml")
    assert domain.memory.maximum == Size(125000), "128 MB are 125000 KiB"
    assert (domain.machine, domain.cpu, domain.video) == ("pc", "qemu64", "cirrus")
    assert {(one.type, one.model) for one in domain.controllers} == {("usb", "piix3-uhci"), ("scsi", "lsilogic")}
    assert domain.disks[0].format is spec.DiskFormat.RAW and domain.disks[0].discard is spec.Discard.IGNORE
    assert domain.balloon is not None and domain.rng is None and domain.channels == ()
    assert domain.nics[0].mac.startswith("52:54:00:") and domain.nics[0].model is spec.NicModel.RTL8139


def test_a_uuid_is_the_one_that_is_known() -> None:
    raw = (Path(__file__).parent / "libvirt/minimal.xml").read_bytes()
    assert text.loads(raw, "", known_uuid=UUID).domain.uuid == UUID
    assert text.loads(raw, "").domain.uuid != text.loads(raw, "").domain.uuid
    assert node.name_of(raw, "") == "tiny"


def test_the_live_form() -> None:
    domain, _ = there_and_back(Path(__file__).parent / "libvirt/q35-live.xml")
    mac = domain.nics[0].mac
    live = Live(
        id=7, taps={mac: "vnet9"}, bridges={mac: "virbr0"}, aliases={mac: "net0", "vda": "disk-vda"}, vnc_port=5907
    )
    root = xml.parse(text.dumps(domain, accel="kvm", live=live), "")
    assert root.get("id") == "7"
    nic, disk, screen = (root.find(f"devices/{tag}") for tag in ("interface", "disk", "graphics"))
    assert nic is not None and disk is not None and screen is not None
    lines = flat(nic)
    assert "interface/source@bridge=virbr0" in lines and "interface/target@dev=vnet9" in lines
    assert "interface/alias@name=net0" in lines and "disk/alias@name=disk-vda" in flat(disk)
    assert screen.get("port") == "5907" and screen.get("autoport") == "yes"
    assert text.loads(text.dumps(domain, accel="kvm", live=live), "").domain == domain


def test_passwords_are_shown_on_demand_alone() -> None:
    domain = replace(minimal(spec.Machine.Q35), vnc=spec.Vnc(password="geheim"))
    assert "geheim" not in text.dumps(domain, accel="tcg")
    shown = text.dumps(domain, accel="tcg", secret=True)
    assert text.loads(shown, "").domain.vnc == domain.vnc


def test_credentials_in_libvirts_words() -> None:
    """As virt-install writes them; several <sysinfo>, and values that XML would not keep, in base64."""
    inner = """<sysinfo type='smbios'><oemStrings>
    <entry>io.systemd.credential:a= b=c </entry><entry>io.systemd.credential.binary:b=eAp5</entry>
    </oemStrings></sysinfo><sysinfo type='fwcfg'><entry name='opt/io.systemd.credentials/c' file='/srv/c'/>
    <entry name='opt/io.systemd.credentials/d'>geheim</entry></sysinfo>"""
    plain = text.dumps(minimal(spec.Machine.Q35), accel="tcg")
    given = plain.replace("</os>", "<smbios mode='sysinfo'/></os>").replace("<features>", f"{inner}<features>")
    domain = text.loads(given, "").domain
    assert domain.credentials == (
        spec.Credential(name="a", value=" b=c "),
        spec.Credential(name="b", value="x\ny"),
        spec.Credential(name="c", file="/srv/c"),
        spec.Credential(name="d", value="geheim"),
    )
    shown = text.dumps(domain, accel="tcg")
    assert "<entry>io.systemd.credential:d</entry>" in shown and "geheim" not in shown and "eAp5" not in shown
    assert "<entry name='opt/io.systemd.credentials/c' file='/srv/c'/>" in shown
    whole = text.dumps(domain, accel="tcg", secret=True)
    assert "<entry>io.systemd.credential:d=geheim</entry>" in whole and "credential.binary:b=eAp5<" in whole
    with pytest.raises(DefinitionError, match="'a' has no value here") as refused:
        text.loads(shown, "")
    assert "dumpxml --security-info" in refused.value.hint
    assert text.loads(shown, "", ignore=True).domain.credentials == domain.credentials[2:3]


@pytest.mark.parametrize("machine", MACHINES)
def test_definitions_of_qkvms_own(machine: spec.Machine) -> None:
    for domain in (minimal(machine), full(machine)):
        domain = spec.validate(domain)
        written = text.dumps(domain, accel="tcg")
        back = text.loads(written, "").domain
        assert text.dumps(back, accel="tcg") == written
        assert (back.memory, back.vcpus, back.nics, back.disks) == (
            domain.memory,
            domain.vcpus,
            domain.nics,
            domain.disks,
        )


def test_what_libvirt_has_no_words_for() -> None:
    domain = replace(
        minimal(spec.Machine.Q35),
        accel=spec.Accel.KVM,
        cpu="host,vmx=off,check=on,x-odd=7",
        root_ports=3,
        on_crash=spec.OnCrash.IGNORE,
        serials=(spec.Serial(), spec.Serial(kind=spec.PortKind.PTY)),
        filesystems=(spec.Filesystem(source="/srv/a", target="a", access=spec.AccessMode.PASSTHROUGH),),
    )
    written = text.dumps(spec.validate(domain), accel="kvm")
    assert (
        "<qkvm:domain xmlns:qkvm='https://qkvm.org/xmlns/domain/1' pty='1' auto='a' cpu='check=on,x-odd=7' "
        in written
    )
    back = text.loads(written, "").domain
    assert (back.cpu, back.root_ports, back.on_crash, back.serials, back.filesystems) == (
        domain.cpu,
        3,
        spec.OnCrash.IGNORE,
        domain.serials,
        domain.filesystems,
    )
    assert "qkvm:domain" not in text.dumps(minimal(spec.Machine.Q35), accel="tcg")
    with pytest.raises(DefinitionError, match="element <qkvm:domain>: attribute newer is not supported"):
        text.loads(written.replace("pty='1'", "newer='1'"), "")


@pytest.mark.parametrize(
    ("start", "answer"),
    [
        (b"<domain", True),
        (b"\xef\xbb\xbf\n <?xml", True),
        (b"name = '<x>'", False),
        (b"", False),
        (" \n<a/>", True),
    ],
)
def test_xml_is_told_by_its_first_character(start: bytes | str, answer: bool) -> None:
    assert node.looks_like_xml(start) is answer
