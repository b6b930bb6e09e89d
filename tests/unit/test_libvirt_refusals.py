"""What a description may not be: asking for what qkvm can't do, malformed, or made to harm."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from qkvm.errors import DefinitionError, InvalidValue
from qkvm.spec import domain as spec
from qkvm.spec.libvirt import text

UUID = "5d1c8f0e-63a2-4a3f-9b41-0b1f2f6f7a01"

STRINGS = "<sysinfo type='smbios'><oemStrings><entry>{}</entry></oemStrings></sysinfo>"
BINARY = "io.systemd.credential.binary"

BASE = f"""<domain type='kvm'>
  <name>base</name>
  <uuid>{UUID}</uuid>
  <memory>65536</memory>
  <vcpu>1</vcpu>
  <os><type machine='q35'>hvm</type></os>
  <features><acpi/></features>
  <cpu mode='maximum'/>
  <clock/>
  <devices>
    <disk type='file'><driver name='qemu' type='raw'/><source file='/srv/a'/><target dev='vda'/></disk>
    <interface type='network'><mac address='52:54:00:00:00:01'/><source network='default'/></interface>
    <serial type='pty'/>
    <channel type='unix'><target type='virtio' name='a.b'/></channel>
    <graphics type='vnc'/>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
  </devices>
</domain>
"""

UNSUPPORTED = [
    ("<devices>", "<devices><hostdev mode='subsystem'/>", 10, "<hostdev>: host devices can't be passed through"),
    ("<devices>", "<devices>\n<sound model='ich9'/>", 11, "<sound>: qkvm's guests have no sound"),
    ("<devices>", "<devices><frobnicator/>", 10, "<frobnicator>: there is no such device"),
    ("<devices>", "<devices><redirdev bus='usb' type='spicevmc'/>", 10, "<redirdev>: USB redirection needs SPICE"),
    ("<clock/>", "<clock/><frob/>", 9, "<frob>: not supported in <domain>"),
    ("<clock/>", "<clock frob='1'/>", 9, "<clock>: attribute frob is not supported"),
    ("<clock/>", "<clock>words</clock>", 9, "<clock>: text 'words' has no meaning here"),
    ("<clock/>", "<clock offset='variable'/>", 9, "<clock>: offset 'variable' is not supported (known: utc"),
    ("<clock/>", "<clock/><qemu:commandline/>", 9, "<qemu:commandline>: options of one's own belong"),
    ("<clock/>", "<clock/><on_crash>restart</on_crash>", 9, "on_crash 'restart' is not supported"),
    ("<clock/>", "<clock/><on_crash>coredump-destroy</on_crash>", 9, "(known: destroy, preserve, ignore)"),
    ("<clock/>", "<clock/><seclabel type='static'/>", 9, "<seclabel>: labels of type 'static' are not supported"),
    ("<clock/>", "<clock/><resource><partition>/x</partition></resource>", 9, "<resource>: qkvm puts no"),
    ("<clock/>", "<clock/><sysinfo type='smbios'><bios/></sysinfo>", 9, "<bios>: of the SMBIOS only <system>"),
    (
        "<clock/>",
        f"<clock/>{STRINGS.format('hello')}",
        9,
        "<entry>: of the OEM strings only io.systemd.credential:",
    ),
    (
        "<clock/>",
        f"<clock/>{STRINGS.format('io.systemd.credential:a')}",
        9,
        "<entry>: credential 'a' has no value",
    ),
    ("<clock/>", f"<clock/>{STRINGS.format(f'{BINARY}:a=x')}", 9, "<entry>: credential 'a' is not UTF-8 text in"),
    ("<clock/>", f"<clock/>{STRINGS.format(f'{BINARY}:a=/w==')}", 9, "<entry>: credential 'a' is not UTF-8 text"),
    (
        "<clock/>",
        f"<clock/>{STRINGS.format(f'{BINARY}:a=eA==')}",
        9,
        "<sysinfo>: without <smbios mode='sysinfo'/>",
    ),
    (
        "<clock/>",
        "<clock/><sysinfo type='fwcfg'><entry name='opt/x'>y</entry></sysinfo>",
        9,
        "<entry>: 'opt/x' is",
    ),
    ("<clock/>", "<clock><timer name='pit' tickpolicy='discard'/></clock>", 9, "<timer>: tickpolicy 'discard'"),
    ("<cpu mode='maximum'/>", "<cpu><numa/></cpu>", 8, "<numa>: NUMA nodes of the guest"),
    ("<cpu mode='maximum'/>", "<cpu mode='maximum'><feature policy='optional' name='x'/></cpu>", 8, "'optional'"),
    ("<vcpu>1", "<vcpu placement='auto'>1", 5, "<vcpu>: placement 'auto' is not supported"),
    ("<acpi/>", "<acpi/><gic version='3'/>", 7, "<gic>: not supported in <features>"),
    ("machine='q35'", "machine='isapc'", 6, "<type>: machine 'isapc' is not"),
    ("type='raw'", "type='vmdk'", 11, "format 'vmdk' is not supported (qcow2, raw; qkvm vol-import converts)"),
    ("type='raw'", "type='raw' copy_on_read='on'", 11, "<driver>: copy_on_read 'on' is not supported"),
    ("type='raw'", "type='raw' cache='odd'", 11, "<driver>: cache 'odd' is not supported (known: none,"),
    ("<disk type='file'", "<disk type='network'", 11, "<disk>: type 'network' is not supported: qkvm opens files"),
    ("<disk type='file'", "<disk type='file' device='lun'", 11, "<disk>: device 'lun' is not supported"),
    ("<target dev='vda'/>", "<target dev='vda'/><encryption />", 11, "<encryption>: not supported in"),
    ("<target dev='vda'/>", "<target dev='vda' bus='xen'/>", 11, "<disk>: bus 'xen' of vda is not supported"),
    ("<interface type='network'>", "<interface type='vdpa'>", 12, "<interface>: type 'vdpa' is not"),
    (
        "<interface type='network'><mac address='52:54:00:00:00:01'/><source network='default'/>",
        "<interface type='direct'><source dev='eth0' mode='macvlan'/>",
        12,
        "<source>: mode 'macvlan' is not supported",
    ),
    (
        "<source network='default'/>",
        "<source network='default'/><vlan><tag id='4' nativeMode='tagged'/></vlan>",
        12,
        "<tag>: nativeMode 'tagged' is not supported (untagged)",
    ),
    ("<source network='default'/>", "<source network='default'/><filterref filter='allow-dhcp'/>", 12, "'allow-d"),
    (
        "<source network='default'/>",
        "<source network='default'/><filterref filter='clean-traffic'><parameter name='X' value='1'/></filterref>",
        12,
        "<parameter>: parameter 'X' is not supported (IP, IPV6)",
    ),
    ("<source network='default'/>", "<source network='default' portgroup='x'/>", 12, "<source>: attribute port"),
    ("<serial type='pty'/>", "<serial type='pty'><log file='/x'/></serial>", 13, "<log>: qkvm keeps what"),
    ("<channel type='unix'>", "<channel type='spicevmc'>", 14, "<channel>: type 'spicevmc' is not"),
    ("<graphics type='vnc'/>", "<graphics type='spice'/>", 15, "<graphics>: type 'spice' is not"),
    ("<graphics type='vnc'/>", "<graphics type='vnc'/><graphics type='vnc'/>", 15, "a domain has one at most"),
    ("model='random'", "model='egd'", 16, "<rng>: a backend of model 'egd' is not supported (random)"),
]


@pytest.mark.parametrize(("old", "new", "line", "words"), UNSUPPORTED, ids=[entry[1] for entry in UNSUPPORTED])
def test_what_is_not_supported_is_refused_by_name(old: str, new: str, line: int, words: str) -> None:
    document = BASE.replace(old, new)
    assert document != BASE
    with pytest.raises(DefinitionError) as caught:
        text.loads(document, "b.xml")
    whole = f"{caught.value} ({caught.value.hint})"
    assert whole.startswith(f"b.xml:{line}: element <") and words in whole
    assert caught.value.line == line
    # And left out, with the same words, where that is asked for.
    read = text.loads(document, "b.xml", ignore=True)
    assert str(caught.value) in read.left_out


def test_all_that_is_left_out_is_listed() -> None:
    document = BASE.replace("<devices>", "<devices><sound model='ac97'/><iommu/>").replace(
        "type='vnc'", "type='spice'"
    )
    read = text.loads(document, "b.xml", ignore=True)
    assert [words.partition(": ")[2] for words in read.left_out] == [
        "element <sound>: qkvm's guests have no sound",
        "element <iommu>: an IOMMU is not supported",
        "element <graphics>: type 'spice' is not supported",
    ]
    assert read.domain.vnc is None and read.domain.video is spec.Video.NONE
    assert text.loads(BASE, "b.xml").left_out == ()


MALFORMED = [
    ("<name>base</name>", "", 1, "element <domain>: <name> is missing"),
    ("<name>base</name>", "<name>a</name><name>b</name>", 2, "element <name>: <domain> has more than one of it"),
    ("<memory>65536</memory>", "", 1, "element <domain>: <memory> is missing"),
    ("65536", "-1", 4, "element <memory>: Scaled numeric value '-1KiB'"),
    ("65536", "many", 4, "element <memory>: size 'many' is not a whole number"),
    ("<vcpu>1", "<vcpu>one", 5, "element <vcpu>: vcpu 'one' is not a whole number"),
    ("<vcpu>1", "<vcpu>1_0", 5, "element <vcpu>: vcpu '1_0' is not a whole number"),
    ("<memory>", "<memory unit='furlong'>", 4, "element <memory>: Scaled numeric value"),
    ("<domain type='kvm'>", "<domain>", 1, "element <domain>: attribute type is missing"),
    ("<domain type='kvm'>", "<domain type='xen'>", 1, "element <domain>: type 'xen' is not supported"),
    (">hvm<", ">linux<", 6, "element <type>: qkvm runs fully virtualized guests alone"),
    ("<target dev='vda'/>", "", 11, "element <disk>: <target> is missing"),
    ("52:54:00:00:00:01", "01:54:00:00:00:01", 12, "element <mac>: expected unicast mac address"),
    ("<target dev='vda'/>", "<target dev='vda'/><address type='pci' slot='0x99'/>", 11, "no such place as 0"),
    ("<target dev='vda'/>", "<target dev='vda'/><boot order='0'/>", 11, "element <boot>: order counts from 1"),
    ("<uuid>5d", "<uuid>xx", 0, "malformed UUID"),
    ("<name>base", "<name>../base", 0, "domain name '../base' is not allowed"),
    ("dev='vda'", "dev='../vda'", 11, "element <disk>: bus '' of ../vda is not supported"),
    ("file='/srv/a'", "file='srv/a'", 0, "disk 'srv/a' is not an absolute path"),
    ("<serial type='pty'/>", "<serial type='pty'/><console type='null'/>", 13, "the first console is not what"),
    ("<serial type='pty'/>", "<serial type='pty'/><serial type='file'/>", 0, "kinds file and unix have a"),
]


@pytest.mark.parametrize(
    ("old", "new", "line", "words"), MALFORMED, ids=[entry[1] or "nothing" for entry in MALFORMED]
)
def test_what_can_never_be_right(old: str, new: str, line: int, words: str) -> None:
    document = BASE.replace(old, new)
    assert document != BASE
    with pytest.raises(DefinitionError) as caught:
        text.loads(document, "b.xml", ignore="is not supported" not in words and "alone" not in words)
    assert words in str(caught.value)
    assert caught.value.line == line


BOMB = "<!DOCTYPE d [<!ENTITY a 'aaaaaaaaaa'>" + "".join(
    f"<!ENTITY {name} '{f'&{below};' * 10}'>" for below, name in zip("abcdefgh", "bcdefghi", strict=True)
)

HOSTILE: dict[str, str | bytes] = {
    "billion laughs": BOMB + "]><domain>&i;</domain>",
    "quadratic": "<!DOCTYPE d [<!ENTITY a '" + "a" * 50000 + "'>]><domain>" + "&a;" * 50000 + "</domain>",
    "external entity": "<!DOCTYPE d [<!ENTITY x SYSTEM 'file:///etc/passwd'>]><domain>&x;</domain>",
    "external DTD": "<!DOCTYPE domain SYSTEM 'http://127.0.0.1:1/x.dtd'><domain/>",
    "parameter entity": "<!DOCTYPE d [<!ENTITY % x SYSTEM 'file:///etc/passwd'> %x;]><domain/>",
    "undeclared entity": "<domain>&nosuch;</domain>",
    "deep": "<domain>" * 100_000,
    "NUL": BASE.replace("base", "ba\0se"),
    "bad UTF-8": BASE.encode().replace(b"base", b"ba\xffse"),
    "overlong UTF-8": BASE.encode().replace(b"base", b"ba\xc0\xafse"),
    "surrogate": BASE.replace("base", "ba&#xD800;se"),
    "not XML": "name = 'x'",
    "empty": "",
    "wrong root": "<network><name>x</name></network>",
    "half": BASE[:200],
    "two roots": BASE + BASE,
    "twice": BASE.replace("<vcpu>1</vcpu>", "<vcpu>1</vcpu><vcpu>2</vcpu>"),
    "attribute twice": BASE.replace("type='kvm'", "type='kvm' type='qemu'"),
    "large": b"<domain>" + b" " * (10 << 20) + b"</domain>",
    "many attributes": "<domain " + " ".join(f"a{number}='x'" for number in range(20000)) + "/>",
    "many children": "<domain type='kvm'>" + "<x/>" * 30_000 + "</domain>",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_documents(name: str) -> None:
    with pytest.raises(DefinitionError) as caught:
        text.loads(HOSTILE[name], "bad.xml")
    assert str(caught.value).startswith("bad.xml") and len(str(caught.value)) < 400
    assert "\x00" not in str(caught.value) and "root:" not in str(caught.value)


def test_a_document_in_another_encoding() -> None:
    document = "<?xml version='1.0' encoding='ISO-8859-1'?>" + BASE.replace(
        "<vcpu>", "<title>caf\xe9</title><vcpu>"
    )
    assert text.loads(document.encode("latin-1"), "").domain.title == "caf\xe9"


def test_descriptions_of_devices() -> None:
    nic = text.load_device("<interface type='user'><mac address='52:54:00:00:00:01'/></interface>", "d.xml")
    assert isinstance(nic.device, spec.Nic) and nic.has_mac
    assert not text.load_device("<interface type='user'/>", "d.xml").has_mac
    disk = text.load_device("<disk><source file='/a'/><target dev='vda'/></disk>", "d.xml").device
    assert isinstance(disk, spec.Disk) and disk.bus is spec.DiskBus.VIRTIO
    share = text.load_device(
        "<filesystem multidevs='remap'><driver type='virtiofs' queue='1024'/><source dir='/a'/><target dir='t'/>"
        "</filesystem>",
        "d.xml",
    ).device
    assert isinstance(share, spec.Filesystem) and share.driver is spec.FilesystemDriver.VIRTIOFS
    for document, words in (
        (
            "<filesystem><driver type='mtp'/><source dir='/a'/><target dir='t'/></filesystem>",
            "d.xml:1: element <driver>: 'mtp' is not supported",
        ),
        ("<filesystem type='ram'/>", "d.xml:1: element <filesystem>: only folders of the host can be shared"),
        ("<hostdev/>", "d.xml:1: element <hostdev>: such a device can't be plugged"),
        ("<disk>\n<odd/><target dev='vda'/></disk>", "d.xml:2: element <odd>: not supported in <disk>"),
        ("<interface type='hostdev'/>", "d.xml:1: element <interface>: type 'hostdev' is not supported"),
        ("<!DOCTYPE disk><disk/>", "d.xml:1: a document type declaration"),
    ):
        with pytest.raises(DefinitionError) as caught:
            text.load_device(document, "d.xml")
        assert str(caught.value).startswith(words)


@pytest.mark.parametrize(
    "metadata", ["", "text", "<a/>", "<x:a xmlns:x='urn:y'/>", "<!DOCTYPE a><a xmlns='urn:x'/>"]
)
def test_metadata_of_a_definition_is_xml_of_its_namespace(metadata: str) -> None:
    domain = text.loads(BASE, "b.xml").domain
    with pytest.raises(InvalidValue, match="metadata of urn:x"):
        spec.validate(replace(domain, metadata={"urn:x": metadata}))
    assert spec.validate(replace(domain, metadata={"urn:x": "<a xmlns='urn:x'/>"}))
