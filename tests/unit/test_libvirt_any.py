"""Any definition, written as libvirt's XML and read again, is what it was."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from qkvm.spec import domain as spec
from qkvm.spec import network
from qkvm.spec.dns import DnsForwarder, DnsHost, DnsSrv, DnsTxt
from qkvm.spec.forward import PortForward, Protocol
from qkvm.spec.libvirt import cpu, text
from qkvm.spec.libvirt.network import network as networks
from qkvm.spec.size import Size

UUIDS = st.uuids().map(str)
WORDS = st.from_regex(r"[a-z][a-z0-9]{0,8}", fullmatch=True)
LINES = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cn")), min_size=1, max_size=20)
PATHS = WORDS.map(lambda word: f"/srv/{word} 'x'&.img")
SIZES = st.integers(1024, 1 << 40).map(Size)
CPUS = st.sampled_from(["0", "0-3", "0-7,^2", "1,3"])
SLOTS = st.builds("0000:{:02x}:{:02x}.{}".format, st.integers(0, 9), st.integers(0, 31), st.integers(0, 7))
ALIASES = st.sampled_from(["", "ua-one"])

FLAGS = st.fixed_dictionaries(
    {},
    optional={
        "migratable": st.just("off"),
        "vendor": st.just("AuthenticAMD"),
        "phys-bits": st.just("40"),
        "vmx": st.sampled_from(["on", "off"]),
        "lahf-lm": st.just("on"),
        "pclmulqdq": st.just("off"),
        "kvm": st.just("off"),
        "kvm-hint-dedicated": st.just("on"),
        "hv-passthrough": st.just("on"),
        "hv-relaxed": st.just("on"),
        "hv-spinlocks": st.just("0x1fff"),
        "hv-vendor-id": st.just("Me"),
        "hv-stimer": st.just("on"),
        "hv-reset": st.just("on"),
        "pmu": st.sampled_from(["on", "off"]),
        "kvmclock": st.sampled_from(["on", "off"]),
        "hv-time": st.just("on"),
        "tsc-frequency": st.just("1000"),
        "enforce": st.just("on"),
        "x-odd": st.just("7"),
    },
)


def some(kind: Any, **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """A struct with any of these fields, the others being at their defaults."""
    return st.fixed_dictionaries({}, optional=fields).map(lambda given: kind(**given))


def distinct(values: st.SearchStrategy[Any], *names: str, most: int = 3) -> st.SearchStrategy[Any]:
    """A tuple of structs no two of which have one of these fields in common."""
    keys = tuple(lambda value, name=name: getattr(value, name) for name in names)
    return st.lists(values, max_size=most, unique_by=keys or None).map(tuple)


def cpu_text(model: str, flags: dict[str, str]) -> str:
    if model in ("", "max", "host"):
        flags = {name: value for name, value in flags.items() if name != "vendor"}
    else:
        flags = {name: value for name, value in flags.items() if name != "migratable"}
    return cpu.join("max" if flags and not model else model, flags)


THROTTLES = st.one_of(
    st.none(),
    st.builds(
        spec.Throttle,
        read_bytes_sec=st.integers(1, 1000),
        read_bytes_sec_max=st.integers(1000, 2000),
        total_iops_sec=st.integers(1, 1000),
        size_iops_sec=st.integers(0, 9),
        group_name=st.sampled_from(["", "one"]),
    ),
)


@st.composite
def disks(draw: st.DrawFn, number: int) -> spec.Disk:
    buses = set(spec.DiskBus) - {spec.DiskBus.IDE} - ({spec.DiskBus.FDC} if number > 1 else set())
    bus = draw(st.sampled_from(sorted(buses)))
    kind = spec.DiskKind.FLOPPY if bus is spec.DiskBus.FDC else spec.DiskKind.DISK
    if bus in (spec.DiskBus.SATA, spec.DiskBus.SCSI):
        kind = draw(st.sampled_from([spec.DiskKind.DISK, spec.DiskKind.CDROM]))
    address = {"virtio": f"0000:07:{number:02x}.0", "usb": f"usb:0:{number + 1}"}.get(bus, f"drive:0:0:0:{number}")
    form = draw(st.sampled_from(spec.DiskFormat))
    layers = (spec.Layer(path=f"/srv/base{number}", format=draw(st.sampled_from(spec.DiskFormat))),)
    grouped = not kind.removable and draw(st.booleans())
    return spec.Disk(
        path=draw(st.sampled_from([f"/srv/d{number}.img", f"/dev/vg/d{number}"])),
        format=form,
        bus=bus,
        device=kind,
        target=spec.target_name(bus, number),
        readonly=kind is not spec.DiskKind.CDROM and draw(st.booleans()),
        shareable=form is spec.DiskFormat.RAW and draw(st.booleans()),
        serial="" if bus is spec.DiskBus.FDC else draw(st.sampled_from(["", "S-1_x"])),
        wwn=draw(st.sampled_from(["", "5000c50015ea71ad"]))
        if bus in (spec.DiskBus.SCSI, spec.DiskBus.SATA)
        else "",
        cache=draw(st.sampled_from(spec.Cache)),
        io=draw(st.sampled_from([spec.Io.DEFAULT, spec.Io.THREADS, spec.Io.IO_URING])),
        discard=draw(st.sampled_from(spec.Discard)),
        detect_zeroes=draw(st.sampled_from(spec.DetectZeroes)),
        iothread=1 if bus is spec.DiskBus.VIRTIO and draw(st.booleans()) else 0,
        backing=layers if form is spec.DiskFormat.QCOW2 and draw(st.booleans()) else (),
        throttle=None if grouped else draw(THROTTLES),
        throttle_groups=("one", "two") if grouped else (),
        alias=draw(st.sampled_from(["", f"ua-disk{number}"])),
        address=draw(st.sampled_from(["", address])),
    )


BANDS = st.one_of(st.none(), st.builds(spec.Bandwidth, average=st.integers(1, 9), peak=st.sampled_from([0, 10])))


VLANS = st.sampled_from(
    [
        None,
        spec.Vlan(tags=(7,)),
        spec.Vlan(tags=(7,), trunk=True),
        spec.Vlan(tags=(4094, 1), trunk=True, native=1),
    ]
)


@st.composite
def nics(draw: st.DrawFn, number: int) -> spec.Nic:
    kind = draw(st.sampled_from(spec.NicType))
    user, direct = kind is spec.NicType.USER, kind is spec.NicType.DIRECT
    filtered = spec.NicFilter.NONE if user or direct else draw(st.sampled_from(spec.NicFilter))
    card = draw(st.sampled_from(spec.NicModel))
    quick = not user and card is spec.NicModel.VIRTIO
    queues = draw(st.integers(1, 4)) if quick else 1
    vhost = draw(st.sampled_from(spec.Vhost if quick else (spec.Vhost.AUTO, spec.Vhost.OFF)))
    backend = draw(st.sampled_from(spec.UserBackend)) if user else spec.UserBackend.AUTO
    ports = number * 1000
    led = (
        PortForward(ports=f"{8000 + ports}"),
        PortForward(ports=f"{8010 + ports}-{8019 + ports}", to=80, protocol=Protocol.UDP),
        PortForward(ports=f"{8010 + ports}", to=22, listen="192.0.2.7"),
    )
    addresses = st.lists(st.sampled_from(["192.0.2.1", "192.0.2.9", "fd00::1"]), min_size=1, unique=True)
    return spec.Nic(
        mac=f"52:54:00:00:00:{number:02x}",
        type=kind,
        source="" if user else draw(WORDS),
        source_mode=draw(st.sampled_from(spec.SourceMode)) if direct else spec.SourceMode.VEPA,
        model=card,
        target="" if user else draw(st.sampled_from(["", f"tap{number}"])),
        link=draw(st.booleans()),
        queues=queues,
        vhost=vhost,
        mtu=draw(st.sampled_from([0, 9000])),
        inbound=None if user else draw(BANDS),
        outbound=None if user else draw(BANDS),
        isolated=not user and not direct and draw(st.booleans()),
        vlan=draw(VLANS) if not user and not direct and not filtered else None,
        filter=filtered,
        ip=tuple(draw(addresses)) if filtered else (),
        backend=backend,
        forwards=led[: draw(st.integers(0, 3))] if user else (),
        alias=draw(st.sampled_from(["", f"ua-nic{number}"])),
        address=draw(st.sampled_from(["", f"0000:08:{number:02x}.0"])),
    )


@st.composite
def serials(draw: st.DrawFn) -> tuple[spec.Serial, ...]:
    models = sorted(draw(st.lists(st.sampled_from(spec.SerialModel), max_size=4)), key=lambda one: one == "virtio")
    found = []
    for number, model in enumerate(models):
        kind = draw(st.sampled_from(spec.PortKind))
        path = f"/srv/port{number}" if kind in (spec.PortKind.FILE, spec.PortKind.UNIX) else ""
        tcp: dict[str, Any] = {"host": "127.0.0.1", "port": 4000 + number} if kind is spec.PortKind.TCP else {}
        found.append(spec.Serial(kind=kind, model=model, path=path, **tcp))
    return tuple(found)


CHANNELS = distinct(
    st.builds(
        spec.Channel,
        name=WORDS,
        kind=st.sampled_from([spec.PortKind.SOCKET, spec.PortKind.PTY, spec.PortKind.NULL]),
    ),
    "name",
)

CONTROLLERS = st.tuples(
    st.just(spec.Controller(type=spec.ControllerType.USB, model="qemu-xhci", ports=15)),
    st.just(spec.Controller(type=spec.ControllerType.SCSI, model="virtio-scsi", queues=2, iothread=1)),
    st.builds(
        spec.Controller,
        type=st.just(spec.ControllerType.PCI),
        index=st.just(1),
        model=st.just("pcie-root-port"),
        chassis=st.integers(0, 9),
        port=st.integers(0, 99),
        address=st.sampled_from(["", "0000:00:02.0"]),
    ),
)

BOOTS = st.one_of(
    st.builds(spec.Boot, order=st.lists(st.sampled_from(spec.BootDevice), unique=True).map(tuple)),
    st.builds(
        spec.Boot, kernel=PATHS, initrd=PATHS, cmdline=LINES, menu=st.just(True), menu_timeout=st.integers(0, 9)
    ),
    st.builds(
        spec.Boot,
        firmware=st.just(spec.Firmware.UEFI),
        secure=st.booleans(),
        loader=st.sampled_from(["", "/x.fd"]),
        nvram=st.sampled_from(["", "/y.qcow2"]),
        nvram_template=st.sampled_from(["", "/z.fd"]),
    ),
    st.builds(spec.Boot, loader=st.just("/bios.bin")),
)

BACKINGS = some(
    spec.MemoryBacking,
    source=st.sampled_from(spec.MemorySource),
    shared=st.booleans(),
    hugepages=st.booleans(),
    locked=st.booleans(),
    mergeable=st.booleans(),
    preallocated=st.booleans(),
)

CPUTUNES = some(
    spec.CpuTune,
    shares=st.integers(1, 10000),
    period=st.integers(1000, 100000),
    quota=st.sampled_from([-1, 5000]),
    emulator_quota=st.just(2000),
    vcpu_pins=st.dictionaries(st.sampled_from(["0", "1"]), CPUS),
    emulator_pin=CPUS,
    iothread_pins=st.dictionaries(st.just("1"), CPUS),
)

CREDENTIALS = st.tuples(
    distinct(
        st.builds(spec.Credential, name=WORDS, value=st.text(st.characters(codec="utf-8"), min_size=1)), "name"
    ),
    distinct(st.builds(spec.Credential, name=WORDS.map("f.{}".format), file=PATHS), "name"),
).map(lambda found: found[0] + found[1])

SMBIOS = st.dictionaries(st.sampled_from(spec.SMBIOS_SYSTEM), LINES.map(str.strip).filter(bool), max_size=2)


@st.composite
def domains(draw: st.DrawFn) -> spec.Domain:
    maximum = draw(SIZES)
    flags, model = draw(FLAGS), draw(st.sampled_from(["", "host", "qemu64", "EPYC"]))
    vcpus = draw(st.integers(1, 4))
    whole = spec.Domain(
        name=draw(WORDS),
        uuid=draw(UUIDS),
        genid=draw(st.one_of(st.sampled_from(["", spec.NO_GENID]), UUIDS)),
        title=draw(st.one_of(st.just(""), LINES)),
        description=draw(LINES),
        metadata=draw(st.dictionaries(st.just("urn:x"), st.just("<x:a xmlns:x='urn:x'/>"))),
        machine=draw(st.sampled_from([spec.Machine.Q35, spec.Machine.PC])),
        machine_version=draw(st.sampled_from(["", "7.2"])),
        accel=draw(st.sampled_from([spec.Accel.KVM, spec.Accel.TCG])),
        emulator=draw(st.sampled_from(["", "/usr/bin/kvm"])),
        cpu=cpu_text(model, flags),
        memory=spec.Memory(current=Size(draw(st.integers(1024, maximum))), maximum=maximum),
        memory_backing=draw(BACKINGS),
        vcpus=spec.Vcpus(current=draw(st.integers(1, vcpus)), maximum=vcpus),
        topology=draw(st.sampled_from([None, spec.Topology(cores=vcpus)])),
        iothreads=(spec.IoThread(id=1), *draw(st.sampled_from([(), (spec.IoThread(id=9, poll_grow=2),)]))),
        throttle_groups=(
            spec.Throttle(group_name="one", total_iops_sec=draw(st.integers(1, 9))),
            spec.Throttle(group_name="two", read_bytes_sec=7, read_bytes_sec_max=9, read_bytes_sec_max_length=2),
        ),
        cputune=draw(CPUTUNES),
        memtune=draw(some(spec.MemTune, hard_limit=SIZES, soft_limit=SIZES)),
        blkiotune=draw(some(spec.BlkioTune, weight=st.integers(1, 10000))),
        numatune=draw(
            st.one_of(st.none(), st.builds(spec.NumaTune, nodeset=CPUS, mode=st.sampled_from(spec.NumaMode)))
        ),
        boot=draw(BOOTS),
        smbios=draw(SMBIOS),
        credentials=draw(CREDENTIALS),
        clock=draw(
            some(
                spec.Clock,
                offset=st.sampled_from(spec.ClockOffset),
                rtc_catchup=st.booleans(),
                pit_delay=st.booleans(),
                hpet=st.booleans(),
            )
        ),
        features=draw(
            some(
                spec.Features,
                acpi=st.booleans(),
                vmport=st.booleans(),
                smm=st.booleans(),
                suspend_to_mem=st.booleans(),
                suspend_to_disk=st.booleans(),
            )
        ),
        on_poweroff=draw(st.sampled_from(spec.OnPoweroff)),
        on_reboot=draw(st.sampled_from(spec.OnReboot)),
        on_crash=draw(st.sampled_from(spec.OnCrash)),
        disks=tuple(draw(disks(number)) for number in range(3)),
        controllers=draw(CONTROLLERS),
        nics=tuple(draw(nics(number)) for number in range(2)),
        serials=draw(serials()),
        channels=draw(CHANNELS),
        inputs=(spec.Input(type=spec.InputType.TABLET, alias=draw(ALIASES)),),
        vnc=draw(
            st.one_of(
                st.none(),
                some(
                    spec.Vnc,
                    listen=st.sampled_from(["::1", "0.0.0.0"]),
                    port=st.integers(5900, 6000),
                    keymap=WORDS,
                    websocket=st.sampled_from([-1, 5700]),
                    password=st.just("pass<'"),
                    share=st.just("ignore"),
                ),
            )
        ),
        vsock=draw(st.one_of(st.none(), some(spec.Vsock, cid=st.integers(3, 9)))),
        video=draw(st.sampled_from(spec.Video)),
        watchdog=draw(
            st.one_of(
                st.none(),
                some(
                    spec.Watchdog,
                    model=st.sampled_from(spec.WatchdogModel),
                    action=st.sampled_from(spec.WatchdogAction),
                ),
            )
        ),
        panic=draw(st.booleans()),
        tpm=draw(
            st.one_of(
                st.none(),
                st.builds(spec.Tpm, model=st.sampled_from(spec.TpmModel)),
                st.just(spec.Tpm(model=spec.TpmModel.TIS, version="1.2")),
            )
        ),
        filesystems=draw(
            distinct(
                st.builds(
                    spec.Filesystem,
                    source=PATHS,
                    target=WORDS,
                    readonly=st.booleans(),
                    driver=st.sampled_from(spec.FilesystemDriver),
                    access=st.just(spec.AccessMode.PASSTHROUGH),
                ),
                "target",
            )
        ),
        rng=draw(
            st.one_of(st.none(), some(spec.Rng, source=st.just("/dev/random"), rate_bytes=st.integers(1, 9)))
        ),
        balloon=draw(
            st.one_of(
                st.none(),
                some(
                    spec.Balloon,
                    free_page_reporting=st.booleans(),
                    deflate_on_oom=st.booleans(),
                    stats_period=st.integers(0, 9),
                ),
            )
        ),
        root_ports=draw(st.integers(0, spec.ROOT_PORTS_LIMIT)),
    )
    if whole.machine is not spec.Machine.Q35 or whole.features.smm is False:
        whole = replace(whole, boot=replace(whole.boot, secure=False))
    if whole.video is not spec.Video.NONE:
        whole = replace(whole, video_address="0000:00:1e.0", video_memory=Size(draw(st.sampled_from([0, 32768]))))
    if whole.video in (spec.Video.VIRTIO, spec.Video.NONE):
        whole = replace(whole, video_memory=Size(0))
    return spec.validate(whole)


@settings(max_examples=12, deadline=None)
@given(domains())
def test_what_is_written_is_read(domain: spec.Domain) -> None:
    written = text.dumps(domain, accel=domain.accel, secret=True)
    assert text.loads(written, "written").domain == domain


SUBNETS = st.builds("10.{}.{}.1/24".format, st.integers(0, 255), st.integers(0, 255))


@given(
    WORDS,
    UUIDS,
    st.sampled_from(network.Mode),
    SUBNETS,
    st.sampled_from(["", "lab.example"]),
    st.one_of(st.none(), st.integers(120, 1 << 20)),
    st.fixed_dictionaries(
        {},
        optional={
            "mac": st.just("52:54:00:0a:0b:0c"),
            "mtu": st.just(1400),
            "title": LINES,
            "description": st.just("two\nlines"),
            "metadata": st.just({"urn:x": "<x:a xmlns:x='urn:x'/>"}),
            "ipv6": st.sampled_from(
                [
                    network.Ipv6(address="fd00:1::1/64"),
                    network.Ipv6(
                        address="fd00:1::1/64", dhcp=network.DhcpRange(start="fd00:1::10", end="fd00:1::ff")
                    ),
                ]
            ),
            "boot": st.sampled_from(
                [
                    network.Boot(file="pxelinux.0"),
                    network.Boot(file="a/b.efi", server="10.0.0.9"),
                    network.Boot(tftp="/srv/tftp"),
                    network.Boot(file="x", tftp="/srv/tftp"),
                ]
            ),
            "dns": st.sampled_from(
                [
                    network.Dns(enable=False),
                    network.Dns(
                        forward_plain=False,
                        forwarders=(
                            DnsForwarder(address="192.0.2.1"),
                            DnsForwarder(address="::1", domain="a.example"),
                        ),
                        hosts=(DnsHost(ip="10.1.2.3", names=("a", "b.example")),),
                        txt=(DnsTxt(name="_x.example", value="some words"),),
                        srv=(
                            DnsSrv(
                                service="ldap", protocol="tcp", target="a.example", port=389, priority=1, weight=2
                            ),
                            DnsSrv(service="http", protocol="tcp", domain="example"),
                        ),
                    ),
                ]
            ),
        },
    ),
)
def test_a_network_too(
    name: str, uuid: str, mode: network.Mode, address: str, domain: str, lease: int | None, more: dict[str, Any]
) -> None:
    prefix = address.removesuffix("1/24")
    dhcp = None
    if lease is not None:
        dhcp = network.DhcpRange(start=f"{prefix}2", end=f"{prefix}99", lease_seconds=lease)
    if mode is network.Mode.BRIDGE:
        written = network.Network(name=name, uuid=uuid, mode=mode, bridge="br0")
    else:
        written = network.Network(
            name=name, uuid=uuid, mode=mode, bridge="virbr7", address=address, domain=domain, dhcp=dhcp, **more
        )
    assert networks.loads(networks.dumps(written), "") == written
