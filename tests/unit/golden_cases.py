"""The cases of the golden files, and how to write them anew: scripts/regen-golden runs this file.

A golden command line has one option a line, quoted as a shell would need it; a golden script or hot plug has
one QMP command a line.
"""

from __future__ import annotations

import itertools
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from qkvm.qemu import controllers, devices, disks, launch, ports, quirks, render, shares, slots
from qkvm.qemu.abilities import Abilities
from qkvm.qemu.firmware import Flash
from qkvm.qemu.launch import Kept, Resources, VsockFd
from qkvm.spec.domain import (
    AGENT_CHANNEL,
    AccessMode,
    Balloon,
    Boot,
    BootDevice,
    Cache,
    Channel,
    Clock,
    ClockOffset,
    Controller,
    ControllerType,
    DetectZeroes,
    Discard,
    Disk,
    DiskBus,
    DiskFormat,
    DiskKind,
    Domain,
    Features,
    Filesystem,
    FilesystemDriver,
    Firmware,
    Input,
    InputBus,
    InputType,
    Io,
    IoThread,
    Layer,
    Machine,
    Memory,
    MemoryBacking,
    MemorySource,
    Nic,
    NicModel,
    NicType,
    OnCrash,
    OnPoweroff,
    OnReboot,
    PortKind,
    Rng,
    Serial,
    SerialModel,
    Throttle,
    Topology,
    Tpm,
    TpmModel,
    UserBackend,
    Vcpus,
    Vhost,
    Video,
    Vnc,
    Vsock,
    Watchdog,
    WatchdogAction,
    validate,
)
from qkvm.spec.forward import PortForward, Protocol
from qkvm.spec.size import Size

FOLDER = Path(__file__).parent.parent / "golden"

UUID = "5a1b4f5e-0f6b-4a59-9c5e-3c1d7f0b2a11"
GENID = "0e2ad4c6-52b8-4f0a-b0c9-5f5ab9d0a3d7"
MACHINES = tuple(Machine)
GIB = Size(1024 * 1024)

NICS = (
    Nic(mac="52:54:00:00:00:01", source="default"),
    Nic(mac="52:54:00:00:00:02", type=NicType.BRIDGE, source="br0", model=NicModel.E1000E, target="tap7"),
)
QUICK_NIC = Nic(mac="52:54:00:00:00:04", source="default", queues=3, vhost=Vhost.ON)
USER_NIC = Nic(mac="52:54:00:00:00:03", type=NicType.USER, link=False)
PASST_NIC = Nic(
    mac="52:54:00:00:00:05", type=NicType.USER, backend=UserBackend.PASST, forwards=(PortForward(ports="8080"),)
)
SLIRP_NIC = Nic(
    mac="52:54:00:00:00:06",
    type=NicType.USER,
    backend=UserBackend.SLIRP,
    forwards=(
        PortForward(ports="8000-8001", to=80),
        PortForward(protocol=Protocol.UDP, listen="127.0.0.1", ports="5353", to=53),
    ),
)
DISKS = (
    Disk(path="/var/lib/qkvm/images/a, b.qcow2", format=DiskFormat.QCOW2, target="vda"),
    Disk(path="/srv/seed.iso", format=DiskFormat.RAW, target="vdb", readonly=True, serial="seed-1"),
)
KEPT = Kept(nics=("net4", "net1"), places={"net4": "rp7:0x0", "net1": "rp2:0x0"})
"""Ids and places of two NICs that were plugged while it ran."""

KERNEL = Boot(
    kernel="/boot/vmlinuz", initrd="/boot/initrd.img", cmdline="console=ttyS0,115200 root=/dev/vda quiet"
)


def minimal(machine: Machine) -> Domain:
    """What the machine needs and nothing else."""
    return validate(
        Domain(
            name="mini",
            uuid=UUID,
            machine=machine,
            memory=Memory(current=GIB, maximum=GIB),
            boot=Boot(kernel="/boot/vmlinuz") if machine is Machine.MICROVM else Boot(),
        )
    )


def full(machine: Machine) -> Domain:
    """Two NICs, two disks, VNC with a keymap, a video card where there is PCI, spare vCPUs where they plug."""
    micro = machine is Machine.MICROVM
    nics = tuple(replace(nic, model=NicModel.VIRTIO) for nic in NICS) if micro else NICS
    return validate(
        Domain(
            name="full.vm-1",
            uuid=UUID,
            title="Everything, at once",
            machine=machine,
            genid="" if micro else GENID,
            cpu="qemu64,+ssse3,pdpe1gb=on",
            memory=Memory(current=GIB, maximum=Size(2 * GIB)),
            vcpus=Vcpus(current=3, maximum=3 if micro else 5),
            boot=KERNEL,
            disks=DISKS,
            nics=nics,
            vnc=Vnc(port=5907, keymap="en-us"),
            video=Video.NONE if micro else Video.VGA,
            balloon=Balloon(free_page_reporting=False, deflate_on_oom=True, stats_period=0),
            root_ports=10,
        )
    )


def queues(machine: Machine) -> Domain:
    """NICs of several queues, and such that the host's kernel serves."""
    return validate(replace(minimal(machine), nics=(QUICK_NIC, replace(NICS[0], vhost=Vhost.ON))))


def user_nic(machine: Machine) -> Domain:
    """QEMU's own network stack, its link down."""
    return validate(replace(minimal(machine), nics=(USER_NIC, NICS[0])))


def stacks(machine: Machine) -> Domain:
    """NICs of type user with forwards, one of passt and one of QEMU's own stack."""
    return validate(replace(minimal(machine), nics=(PASST_NIC, SLIRP_NIC)))


def vsock(machine: Machine) -> Domain:
    """A socket between host and guest."""
    return validate(replace(minimal(machine), vsock=Vsock(cid=7)))


def no_extras(machine: Machine) -> Domain:
    """Neither balloon nor random numbers nor spare ports, and a reboot ends it."""
    bare = replace(minimal(machine), balloon=None, rng=None, root_ports=0, on_reboot=OnReboot.DESTROY)
    return validate(bare)


def screen(machine: Machine) -> Domain:
    """VNC on an IPv6 address, virtio graphics where there is PCI."""
    video = Video.NONE if machine is Machine.MICROVM else Video.VIRTIO
    return validate(replace(minimal(machine), vnc=Vnc(listen="::1"), video=video))


def hardware(machine: Machine) -> Domain:
    """A drive of every bus, each kind of port, input and controller, and limits; of a microvm nothing of that."""
    if machine is Machine.MICROVM:
        return minimal(machine)
    ide = DiskBus.IDE if machine is Machine.PC else DiskBus.SATA
    drives = (
        Disk(
            path="/srv/top.qcow2",
            format=DiskFormat.QCOW2,
            target="vda",
            iothread=1,
            cache=Cache.NONE,
            io=Io.NATIVE,
            backing=(
                Layer(path="/srv/middle.qcow2", format=DiskFormat.QCOW2),
                Layer(path="/srv/base.img", format=DiskFormat.RAW),
            ),
            throttle=Throttle(total_iops_sec=100, read_bytes_sec=1 << 20, read_bytes_sec_max=1 << 21),
        ),
        Disk(
            path="/dev/vg/data",
            format=DiskFormat.RAW,
            target="sda",
            bus=DiskBus.SCSI,
            shareable=True,
            throttle_groups=("slow", "each"),
            cache=Cache.WRITETHROUGH,
            wwn="5000c50015ea71ad",
            detect_zeroes=DetectZeroes.UNMAP,
        ),
        Disk(path="/srv/cd.iso", format=DiskFormat.RAW, target="sdb", bus=DiskBus.SCSI, device=DiskKind.CDROM),
        Disk(format=DiskFormat.RAW, target=f"{ide.prefix}c", bus=ide, device=DiskKind.CDROM),
        Disk(path="/srv/stick.img", format=DiskFormat.RAW, target="sdd", bus=DiskBus.USB, discard=Discard.IGNORE),
        Disk(path="/srv/fd.img", format=DiskFormat.RAW, target="fda", bus=DiskBus.FDC, device=DiskKind.FLOPPY),
    )
    return validate(
        replace(
            minimal(machine),
            machine_version="7.2",
            memory_backing=MemoryBacking(source=MemorySource.MEMFD, shared=True, mergeable=False),
            vcpus=Vcpus(current=3, maximum=8),
            topology=Topology(sockets=2, cores=2, threads=2),
            iothreads=(IoThread(id=1, poll_max_ns=0),),
            throttle_groups=(
                Throttle(group_name="slow", total_bytes_sec=1 << 20, total_bytes_sec_max=1 << 21),
                Throttle(group_name="each", read_iops_sec=50, size_iops_sec=4096),
            ),
            boot=Boot(order=(BootDevice.NETWORK, BootDevice.CDROM, BootDevice.DISK), menu=True, menu_timeout=3000),
            smbios={"manufacturer": "A, B", "serial": "ds=nocloud"},
            features=Features(suspend_to_mem=False, suspend_to_disk=True),
            clock=Clock(offset=ClockOffset.LOCALTIME, rtc_catchup=True, pit_delay=True, hpet=False),
            on_poweroff=OnPoweroff.PRESERVE,
            on_crash=OnCrash.PRESERVE,
            disks=drives,
            controllers=(Controller(type=ControllerType.SCSI, queues=2, iothread=1),),
            nics=(replace(NICS[0], mtu=9000),),
            serials=(
                Serial(),
                Serial(kind=PortKind.PTY),
                Serial(kind=PortKind.FILE, model=SerialModel.PCI, path="/srv/s,1"),
                Serial(kind=PortKind.TCP, model=SerialModel.USB, host="::1", port=4000),
                Serial(model=SerialModel.VIRTIO),
            ),
            channels=(
                Channel(name=AGENT_CHANNEL),
                Channel(name="org.example.0", kind=PortKind.UNIX, path="/srv/c.sock"),
            ),
            inputs=(Input(type=InputType.TABLET), Input(type=InputType.KEYBOARD, bus=InputBus.VIRTIO)),
            vnc=Vnc(port=5900, password="secret", websocket=5700, share="force-shared"),
            video=Video.QXL,
            video_memory=Size(32 * 1024),
            watchdog=Watchdog(action=WatchdogAction.POWEROFF),
            panic=True,
            rng=Rng(rate_bytes=1024),
        )
    )


def shared(machine: Machine) -> Domain:
    """Folders of the host by virtiofs, and by 9p in each of its ways."""
    folders = (
        Filesystem(source="/srv/a, b", target="data"),
        Filesystem(
            source="/srv/c", target="c/d", driver=FilesystemDriver.NINEP, file_mode="640", folder_mode="0750"
        ),
        Filesystem(source="/srv/e", target="e", access=AccessMode.SQUASH, readonly=True),
    )
    return shares.chosen(validate(replace(minimal(machine), filesystems=folders)), virtiofs=True)


def uefi(machine: Machine) -> Domain:
    """UEFI and a TPM: with Secure Boot on a q35, without on a pc; a microvm has a BIOS of one's own."""
    boot = Boot(firmware=Firmware.UEFI, secure=machine is Machine.Q35)
    if machine is Machine.MICROVM:
        boot = Boot(kernel="/boot/vmlinuz", loader="/srv/qboot, own.rom")
        return validate(replace(minimal(machine), boot=boot))
    tpm = Tpm() if machine is Machine.Q35 else Tpm(model=TpmModel.TIS, version="1.2")
    return validate(replace(minimal(machine), boot=boot, tpm=tpm))


FEATURES: dict[str, Callable[[Machine], Domain]] = {
    "minimal": minimal,
    "full": full,
    "hardware": hardware,
    "vsock": vsock,
    "user-nic": user_nic,
    "stacks": stacks,
    "queues": queues,
    "no-extras": no_extras,
    "ipv6-vnc": screen,
    "shared": shared,
    "uefi": uefi,
    "kvm-as-root": minimal,
}


def abilities(release: str) -> Abilities:
    """What the QEMU of a Debian release said of itself: of 7.2 (12) or 10.0 (13)."""
    recorded = FOLDER.parent / f"reference/qemu-{release}.json"
    return msgspec.json.decode(recorded.read_bytes(), type=Abilities)


def resources(domain: Domain, *, root: bool = False, release: str = "7.2") -> Resources:
    """What the host would give, always the same; ``root`` is KVM with a QEMU that stays root."""
    numbers = (str(number) for number in itertools.count(100 + len(ports.sockets(domain))))
    fds = tuple(
        devices.NicFds(
            tuple(itertools.islice(numbers, nic.fd_count)),
            tuple(itertools.islice(numbers, nic.queues if nic.vhost is Vhost.ON else 0)),
        )
        for nic in domain.nics
    )
    nodes = [layer.file_node for disk in domain.disks for layer in disks.layers(disk)]
    return Resources(
        accel="kvm" if root else "tcg",
        user="" if root else "1879048193:1879048193",
        quirks=quirks.needed(abilities(release)),
        sockets={ident: 100 + number for number, ident in enumerate(ports.sockets(domain))},
        nic_fds=fds,
        images={node: 150 + number for number, node in enumerate(nodes)},
        pidfile=f"/run/qkvm/domains/{domain.name}/qemu.pid",
        serial_log=f"/var/log/qkvm/{domain.name}.serial.log",
        folder=f"/run/qkvm/domains/{domain.name}",
        vnc_port=5900 if domain.vnc is None or domain.vnc.port == -1 else domain.vnc.port,
        vnc_websocket=domain.vnc.websocket if domain.vnc else 0,
        vnc_secret=f"/run/qkvm/domains/{domain.name}/vnc.secret" if domain.vnc and domain.vnc.password else "",
        flash=_flash(domain),
        tpm_fd=109 if domain.tpm else 0,
        shares=tuple(range(120, 120 + len(domain.filesystems))),
        vsock=VsockFd(domain.vsock.cid or 3, 119) if domain.vsock else None,
        credentials=(117, 118) if domain.vsock and domain.machine is not Machine.MICROVM else (),
    )


def _flash(domain: Domain) -> Flash | None:
    if domain.boot.firmware is not Firmware.UEFI:
        return None
    return Flash(
        code="/fw/CODE, secure.fd",
        code_format="raw",
        variables=f"/var/lib/qkvm/nvram/{domain.name}_VARS.qcow2",
        variables_format="qcow2",
        template="/fw/VARS.fd",
        template_format="raw",
        secure=domain.boot.secure,
    )


def options(
    domain: Domain, *, root: bool = False, kept: Kept | None = None, release: str = "7.2"
) -> list[render.Option]:
    """The command line of a domain from the packaged templates."""
    plan = launch.plan(domain, resources(domain, root=root, release=release), kept)
    return launch.command_line(domain, plan, own_templates="")


def named_fds(nic: Nic) -> devices.NicFds:
    """The names under which a NIC's fds are given to a running QEMU."""
    return devices.NicFds.named("fd-net0", nic.fd_count, nic.queues if nic.vhost is Vhost.ON else 0)


def hot_nic(machine: Machine, nic: Nic) -> list[tuple[str, dict[str, Any]]]:
    """What is sent to plug a NIC: place and id as the first free ones of the minimal domain."""
    place = slots.Board(minimal(machine)).pluggable()
    device = devices.nic_device(machine, nic, "net0", place, named_fds(nic))
    return render.hotplug_commands(render.render("parts/nic.j2", {"nic": device}))


def hot_disk(machine: Machine, disk: Disk) -> list[tuple[str, dict[str, Any]]]:
    """What is sent to plug a disk, its controller first, as the second one of its run."""
    board = slots.Board(minimal(machine))
    commands: list[tuple[str, dict[str, Any]]] = []
    controller = controllers.needed_for(disk)
    if controller is not None:
        device = controllers.controller_device(controller, board.pluggable())
        commands += render.hotplug_commands(render.render("parts/controller.j2", {"controller": device}))
    place = board.pluggable() if disk.bus is DiskBus.VIRTIO else slots.Place("", "")
    attach = disks.attachment(disk, place, machine=machine)
    drive = disks.disk_device(machine, disk, place, attach, disk.boot_order, tag=".2")
    drive = disks.with_fdsets(drive, 4)
    return commands + render.hotplug_commands(render.render("parts/disk.j2", {"disk": drive}))


def hot_vcpu(domain: Domain, accel: str) -> list[tuple[str, dict[str, Any]]]:
    """What is sent to plug the vCPU number 3."""
    device = devices.vcpu_device(domain, accel, 3)
    return render.hotplug_commands(render.render("parts/vcpu.j2", {"vcpu": device}))


def _command_line(feature: str, machine: Machine) -> str:
    return _lines(options(FEATURES[feature](machine), root=feature == "kvm-as-root"))


def _lines(listed: list[render.Option]) -> str:
    return "".join(" ".join(shlex.quote(word) for word in option.argv()) + "\n" for option in listed)


def _commands(listed: list[tuple[str, dict[str, Any]]]) -> str:
    return "".join(json.dumps({"execute": name, "arguments": given}) + "\n" for name, given in listed)


def cases() -> dict[str, str]:
    """File in tests/golden -> what it must hold."""
    made = {
        f"{machine}-{feature}.args": _command_line(feature, machine)
        for machine in MACHINES
        for feature in FEATURES
    }
    for machine in MACHINES:
        made[f"{machine}-full-qemu-10.0.args"] = _lines(options(full(machine), release="10.0"))
        made[f"{machine}-hardware-qemu-10.0.args"] = _lines(options(hardware(machine), release="10.0"))
    made["q35-restored.args"] = _lines(options(user_nic(Machine.Q35), kept=KEPT))
    starts = ("full", False), ("full", True), ("hardware", False), ("user-nic", False), ("no-extras", False)
    for feature, paused in starts:
        domain = FEATURES[feature](Machine.Q35)
        script = launch.start_script(domain, launch.plan(domain, resources(domain)), paused=paused)
        made[f"start-{feature}{'-paused' if paused else ''}.jsonl"] = _commands(script)
    for machine in (Machine.Q35, Machine.PC):
        made[f"{machine}-hot-nic.jsonl"] = _commands(hot_nic(machine, NICS[0]))
        made[f"{machine}-hot-queues.jsonl"] = _commands(hot_nic(machine, QUICK_NIC))
        made[f"{machine}-hot-user-nic.jsonl"] = _commands(hot_nic(machine, USER_NIC))
        made[f"{machine}-hot-passt.jsonl"] = _commands(hot_nic(machine, PASST_NIC))
        made[f"{machine}-hot-slirp.jsonl"] = _commands(hot_nic(machine, SLIRP_NIC))
        for disk in hardware(machine).disks:
            if disk.bus.hotplugs:
                made[f"{machine}-hot-{disk.bus}-{disk.device}.jsonl"] = _commands(hot_disk(machine, disk))
    made["hot-vcpu.jsonl"] = _commands(hot_vcpu(minimal(Machine.Q35), "tcg"))
    made["hot-vcpu-kvm.jsonl"] = _commands(hot_vcpu(minimal(Machine.Q35), "kvm"))
    made["hot-vcpu-model.jsonl"] = _commands(hot_vcpu(full(Machine.Q35), "tcg"))
    return made


def main() -> None:
    """Write all golden files anew, those of networks too."""
    from test_net_plan import GOLDENS

    written = cases() | {name: make() for name, make in GOLDENS.items()}
    for path in FOLDER.iterdir():
        if path.name not in written:
            path.unlink()
    for name, text in written.items():
        (FOLDER / name).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
