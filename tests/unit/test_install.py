"""virt-install's lines become definitions."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from qkvm.cli.install.build import build
from qkvm.cli.install.reader import read
from qkvm.cli.install.table import OPTIONS
from qkvm.domain.manage.install import NewDisk, Plan
from qkvm.errors import InvalidValue, QkvmError
from qkvm.paths import Tree
from qkvm.spec import toml
from qkvm.spec.domain import (
    Accel,
    AccessMode,
    Balloon,
    BlkioDevice,
    BlkioTune,
    Boot,
    BootDevice,
    Cache,
    Channel,
    Clock,
    ClockOffset,
    Controller,
    ControllerType,
    CpuTune,
    Credential,
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
    MemoryBacking,
    MemorySource,
    MemTune,
    Nic,
    NicFilter,
    NicModel,
    NicType,
    NumaMode,
    NumaTune,
    OnCrash,
    OnPoweroff,
    OnReboot,
    PortKind,
    Rng,
    Serial,
    SerialModel,
    SourceMode,
    Throttle,
    Topology,
    Tpm,
    TpmModel,
    Vcpus,
    Vhost,
    Video,
    Vnc,
    Watchdog,
    WatchdogAction,
    WatchdogModel,
)
from qkvm.spec.size import Size

UUID = "5a1b4f5e-0f6b-4a59-9c5e-3c1d7f0b2a11"
KERNEL = "--boot kernel=/boot/vmlinuz"
INSTALLED = Features(suspend_to_mem=False, suspend_to_disk=False)
CLOCK = Clock(rtc_catchup=True, pit_delay=True, hpet=False)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(str(tmp_path))


def built(tree: Tree, line: str, warn: Callable[[str], object] = lambda text: None) -> Plan:
    return build(tree, read(shlex.split(line)), warn).plan


def domain(tree: Tree, line: str) -> Domain:
    return built(tree, f"--name vm {KERNEL} {line}").definition


def test_the_shortest_line(tree: Tree) -> None:
    plan = built(tree, f"--name vm {KERNEL}")
    made = plan.definition
    assert (made.name, made.machine, made.accel, made.vcpus) == ("vm", Machine.Q35, Accel.AUTO, Vcpus())
    assert made.memory.current == made.memory.maximum == 1024 * 1024
    (nic,) = made.nics
    assert (nic.type, nic.source, nic.model) == (NicType.NETWORK, "default", NicModel.VIRTIO)
    assert (made.vnc, made.video, made.disks, made.inputs) == (None, Video.NONE, (), ())
    assert (made.serials, made.channels) == ((Serial(),), (Channel(name="org.qemu.guest_agent.0"),))
    assert (made.features, made.clock) == (INSTALLED, CLOCK)
    assert plan == Plan(definition=made)


def test_a_line_as_people_write_it(tree: Tree) -> None:
    plan = built(
        tree,
        f"""--virt-type kvm -n vm01-centos7.4-64 --uuid {UUID.upper()} --memory 512,maxmemory=1024
        --vcpus vcpus=2,maxvcpus=4 --cpu host-passthrough --boot kernel=/k,initrd=/i,kernel_args=console=ttyS0
        -x 'quiet root=/dev/vda' --disk path=/srv/vm.qcow2,size=8,format=qcow2,bus=virtio,serial=abc
        --disk size=0.5,format=raw --network network=default,model=e1000,mac=52:54:00:AA:BB:CC
        -w bridge=br0,target=tap3,link.state=down --network user
        --graphics vnc,listen=0.0.0.0,port=5905,keymap=en_us --video virtio --memballoon none
        --metadata 'title=Mine,description=a,,b' --machine pc --autostart --noreboot --noautoconsole
        --osinfo detect=on,name=centos7 --import --hvm --connect qemu:///system""",
    )
    made = plan.definition
    images = tree.images
    macs = [nic.mac for nic in made.nics]
    assert made == Domain(
        name="vm01-centos7.4-64",
        uuid=UUID,
        title="Mine",
        description="a,b",
        machine=Machine.PC,
        accel=Accel.KVM,
        cpu="host",
        memory=replace(made.memory, current=Size(512 * 1024), maximum=Size(1024 * 1024)),
        vcpus=Vcpus(current=2, maximum=4),
        boot=Boot(kernel="/k", initrd="/i", cmdline="console=ttyS0 quiet root=/dev/vda"),
        features=INSTALLED,
        clock=CLOCK,
        disks=(
            Disk(path="/srv/vm.qcow2", format=DiskFormat.QCOW2, target="vda", serial="abc"),
            Disk(path=f"{images}/vm01-centos7.4-64-vdb.raw", format=DiskFormat.RAW, target="vdb"),
        ),
        nics=made.nics,
        inputs=(Input(type=InputType.TABLET),),
        vnc=Vnc(listen="0.0.0.0", port=5905, keymap="en-us"),
        video=Video.VIRTIO,
        balloon=None,
        autostart=True,
    )
    assert [(nic.type, nic.source, nic.model, nic.target, nic.link) for nic in made.nics] == [
        (NicType.NETWORK, "default", NicModel.E1000, "", True),
        (NicType.BRIDGE, "br0", NicModel.VIRTIO, "tap3", False),
        (NicType.USER, "", NicModel.VIRTIO, "", True),
    ]
    assert macs[0] == "52:54:00:aa:bb:cc"
    assert plan.disks == (
        NewDisk("/srv/vm.qcow2", DiskFormat.QCOW2, 8 << 20),
        NewDisk(f"{images}/vm01-centos7.4-64-vdb.raw", DiskFormat.RAW, 512 << 10),
    )
    # The guest's first reboot ends it; the definition does not say so.
    assert plan.first == replace(made, on_reboot=OnReboot.DESTROY)
    assert toml.loads(toml.dumps(made), Domain, "x") == made


def test_networks_of_users(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """passt by its short name, ports in virt-install's short and long forms; and what a user gets unasked."""
    made = built(
        tree,
        """-n vm --memory 512 --disk none --boot kernel=/k --network passt,portForward=8080:80
        --network user,portForward0=127.0.0.1:5353:53/udp,portForward1=[::1]:9000-9009:9100,portForward2=22
        --network type=user,backend.type=slirp,portForward0.proto=udp,portForward0.address=192.0.2.1,"""
        "portForward0.range0.start=70,portForward0.range0.end=71,"
        "portForward0.range1.start=100,portForward0.range1.to=90",
    ).definition
    assert [nic.backend for nic in made.nics] == ["passt", "auto", "slirp"]
    assert [(one.label, one.to) for nic in made.nics for one in nic.forwards] == [
        ("tcp 8080", 80),
        ("udp 127.0.0.1:5353", 53),
        ("tcp [::1]:9000-9009", 9100),
        ("tcp 22", 0),
        ("udp 192.0.2.1:70-71", 0),
        ("udp 192.0.2.1:100", 90),
    ]
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    (nic,) = built(tree, "-n vm --memory 512 --disk none --boot kernel=/k").definition.nics
    assert (nic.type, nic.backend, nic.forwards) == (NicType.USER, "auto", ())


def test_the_line_of_the_notes(tree: Tree, tmp_path: Path) -> None:
    """The command with which a person's day with libvirt began."""
    iso = tmp_path / "x.iso"
    iso.touch()
    warnings: list[str] = []
    plan = built(
        tree,
        f"""--name vm01-centos7.4-64 --graphics vnc,listen=0.0.0.0,port=5920,keymap=en_us
        --memory 512,maxmemory=1024 --vcpus 1,maxvcpus=2
        --disk path=/srv/vm01-centos7.4-64.img,size=8,format=qcow2 --network bridge=virbr0 --cdrom {iso}""",
        warnings.append,
    )
    made, first = plan.definition, plan.first
    assert warnings == [
        "the VNC server listens on 0.0.0.0 without a password: who reaches this host has the screen"
    ]
    assert first is not None
    cdrom = Disk(format=DiskFormat.RAW, target="sda", bus=DiskBus.SATA, device=DiskKind.CDROM)
    assert made.disks[1:] == (cdrom,) and made.boot == Boot() and made.on_reboot is OnReboot.RESTART
    assert first == replace(
        made,
        disks=(made.disks[0], replace(cdrom, path=str(iso))),
        boot=Boot(order=(BootDevice.CDROM, BootDevice.DISK)),
        on_reboot=OnReboot.DESTROY,
    )
    assert (made.vnc, made.video) == (Vnc(listen="0.0.0.0", port=5920, keymap="en-us"), Video.VGA)
    assert plan.disks == (NewDisk("/srv/vm01-centos7.4-64.img", DiskFormat.QCOW2, 8 << 20),)


def disk(target: str = "vda", **fields: Any) -> Disk:
    return Disk(**{"path": "/x", "format": DiskFormat.QCOW2, "target": target, **fields})


def cdrom(target: str = "sda", **fields: Any) -> Disk:
    return disk(target, path="", format=DiskFormat.RAW, bus=DiskBus.SATA, device=DiskKind.CDROM, **fields)


def serial(**fields: Any) -> tuple[Serial, ...]:
    return (Serial(**fields),)


def channel(name: str = "a", **fields: Any) -> tuple[Channel, ...]:
    return (Channel(name=name, **fields),)


USB2 = tuple(
    Controller(type=ControllerType.USB, model=f"ich9-{name}") for name in ("ehci1", "uhci1", "uhci2", "uhci3")
)
TABLET = (Input(type=InputType.TABLET),)
HYPERV = "hv-relaxed=on,hv-vapic=on,hv-spinlocks=0x1fff,hv-time=on"

LINES: dict[str, dict[str, object]] = {
    # Identity.
    f"--metadata uuid={UUID},title=T": {"uuid": UUID, "title": "T"},
    "--description 'a, b'": {"description": "a, b"},
    "--osinfo id=http://debian.org/debian/12": {
        "metadata": {
            "http://libosinfo.org/xmlns/libvirt/domain/1.0": "<libosinfo:libosinfo "
            'xmlns:libosinfo="http://libosinfo.org/xmlns/libvirt/domain/1.0">\n'
            '  <libosinfo:os id="http://debian.org/debian/12"/>\n</libosinfo:libosinfo>'
        }
    },
    "--machine pc-q35-7.2": {"machine": Machine.Q35, "machine_version": "7.2"},
    "--machine pc-i440fx-6.0": {"machine": Machine.PC, "machine_version": "6.0"},
    "--arch x86_64": {"machine": Machine.Q35},
    "--virt-type qemu": {"accel": Accel.TCG},
    # Memory.
    "--ram 2G": {"memory.current": 2 << 20},
    "-r 2048": {"memory.maximum": 2 << 20},
    "--memory=maxmemory=2048": {"memory.current": 1 << 20, "memory.maximum": 2 << 20},
    "--memory memory=2048,currentMemory=512": {"memory.current": 512 << 10, "memory.maximum": 2 << 20},
    "--memory 512,hugepages=yes": {"memory_backing": MemoryBacking(hugepages=True)},
    "--memorybacking hugepages=on,locked=yes,nosharepages=on,allocation.mode=immediate": {
        "memory_backing": MemoryBacking(hugepages=True, locked=True, mergeable=False, preallocated=True)
    },
    "--memorybacking source.type=memfd,access.mode=shared": {
        "memory_backing": MemoryBacking(source=MemorySource.MEMFD, shared=True)
    },
    "--memorybacking hugepages.page0.size=2,hugepages.page0.unit=M": {
        "memory_backing": MemoryBacking(hugepages=True, hugepage_size=Size(2048))
    },
    # vCPUs.
    "--vcpus 3": {"vcpus": Vcpus(current=3, maximum=3)},
    "--vcpus 2,maxvcpus=4,cpuset=0-1,^1,3": {"vcpus": Vcpus(current=2, maximum=4, cpuset="0-1,^1,3")},
    "--vcpus vcpu=4,vcpu.current=2": {"vcpus": Vcpus(current=2, maximum=4)},
    "--vcpus 4,sockets=2": {"topology": Topology(sockets=2, cores=2)},
    "--vcpus 6,threads=2": {"topology": Topology(cores=3, threads=2)},
    "--vcpus sockets=2,cores=2,threads=2": {
        "vcpus": Vcpus(current=8, maximum=8),
        "topology": Topology(sockets=2, cores=2, threads=2),
    },
    "--vcpus 1,maxvcpus=4,dies=2,cores=2": {"topology": Topology(dies=2, cores=2)},
    "--vcpus 2 --cpu host-model,topology.sockets=1": {"topology": Topology(cores=2), "cpu": ""},
    # CPU.
    "--cpu host-model": {"cpu": ""},
    "--cpu host": {"cpu": ""},
    "--cpu none": {"cpu": ""},
    "--cpu host-passthrough": {"cpu": "host"},
    "--cpu mode=host-passthrough,migratable=off": {"cpu": "host,migratable=off"},
    "--cpu maximum": {"cpu": "max"},
    "--cpu host-model,-la57": {"cpu": "max,la57=off"},
    "--cpu qemu64,+ssse3": {"cpu": "qemu64,ssse3=on"},
    "--cpu Penryn,match=exact,force=a,require=b,require=c,optional=d,disable=e,forbid=f": {
        "cpu": "Penryn,a=on,b=on,c=on,d=on,e=off,f=off"
    },
    "--cpu host-passthrough,cache.mode=passthrough": {"cpu": "host,host-cache-info=on,l3-cache=off"},
    "--cpu qemu64,model.vendor_id=AuthenticAMD": {"cpu": "qemu64,vendor=AuthenticAMD"},
    # Tuning.
    "--cputune vcpupin0.vcpu=0,vcpupin0.cpuset=0-3,5,emulatorpin.cpuset=1,shares=5,period=1000,quota=-1": {
        "cputune": CpuTune(vcpu_pins={"0": "0-3,5"}, emulator_pin="1", shares=5, period=1000, quota=-1)
    },
    "--cputune iothreadpin0.iothread=1,iothreadpin0.cpuset=2": {"cputune": CpuTune(iothread_pins={"1": "2"})},
    "--numatune 0,2-3,memory.mode=preferred": {"numatune": NumaTune(nodeset="0,2-3", mode=NumaMode.PREFERRED)},
    "--memtune 100000": {"memtune": MemTune(soft_limit=Size(100000))},
    "--memtune hard_limit=2G,swap_hard_limit=3G": {
        "memtune": MemTune(hard_limit=Size(2 << 20), swap_hard_limit=Size(3 << 20))
    },
    "--blkiotune 100,device0.path=/dev/sdc,device0.weight=200,device1.path=/dev/sdd,device1.read_iops_sec=9": {
        "blkiotune": BlkioTune(
            weight=100,
            devices=(BlkioDevice(path="/dev/sdc", weight=200), BlkioDevice(path="/dev/sdd", read_iops_sec=9)),
        )
    },
    "--iothreads 2": {"iothreads": (IoThread(id=1), IoThread(id=2))},
    "--iothreads 2,iothreadids.iothread0.id=4,iothreadids.iothread0.thread_pool_max=8": {
        "iothreads": (IoThread(id=1), IoThread(id=4, thread_pool_max=8))
    },
    # Boot.
    "--boot kernel=/k,cmdline='a b' -x c": {"boot": Boot(kernel="/k", cmdline="a b c")},
    "--boot cdrom,hd,network,fd,menu=on": {
        "boot": Boot(order=(BootDevice.CDROM, BootDevice.DISK, BootDevice.NETWORK, BootDevice.FLOPPY), menu=True)
    },
    "--boot boot0.dev=network,boot1.dev=hd": {"boot": Boot(order=(BootDevice.NETWORK, BootDevice.DISK))},
    "--boot hd,bootmenu.enable=on,bootmenu.timeout=3000": {
        "boot": Boot(order=(BootDevice.DISK,), menu=True, menu_timeout=3000)
    },
    "--boot uefi,hd": {"boot": Boot(firmware=Firmware.UEFI, order=(BootDevice.DISK,))},
    "--boot hd,firmware=efi,firmware.feature0.name=secure-boot,firmware.feature0.enabled=yes": {
        "boot": Boot(firmware=Firmware.UEFI, secure=True, order=(BootDevice.DISK,))
    },
    "--boot hd,firmware=bios": {"boot": Boot(order=(BootDevice.DISK,))},
    "--boot hd,loader=/c.fd,loader_ro=yes,loader.type=pflash,nvram.template=/v.fd,nvram=/n.fd,loader_secure=no": {
        "boot": Boot(
            firmware=Firmware.UEFI, loader="/c.fd", nvram_template="/v.fd", nvram="/n.fd", order=(BootDevice.DISK,)
        )
    },
    "--boot hd,machine=pc,emulator=/usr/bin/q,arch=x86_64,smbios.mode=sysinfo": {
        "machine": Machine.PC,
        "emulator": "/usr/bin/q",
    },
    # Disks.
    "--disk none": {"disks": ()},
    "--disk path=none": {"disks": ()},
    "--nodisks": {"disks": ()},
    "--disk /x,size=1": {"disks": (disk(),)},
    "--disk source.file=/x,size=1,driver.type=raw": {"disks": (disk(format=DiskFormat.RAW),)},
    "--disk /x,size=1,bus=scsi": {"disks": (disk("sda", bus=DiskBus.SCSI),)},
    "--disk /x,size=1,target.bus=usb,readonly": {"disks": (disk("sda", bus=DiskBus.USB, readonly=True),)},
    "--disk /x,size=1,target=sdc": {"disks": (disk("sdc", bus=DiskBus.SATA),)},
    "--disk /x,size=1,target.dev=vdc,format=raw,shareable=on": {
        "disks": (disk("vdc", format=DiskFormat.RAW, shareable=True),)
    },
    "--disk /x,size=1,cache=none,io=native,discard=ignore,detect_zeroes=unmap,driver.name=qemu": {
        "disks": (disk(cache=Cache.NONE, io=Io.NATIVE, discard=Discard.IGNORE, detect_zeroes=DetectZeroes.UNMAP),)
    },
    "--disk /x,size=1,driver.cache=unsafe,driver.io=io_uring,driver.discard=unmap,driver.detect_zeroes=on": {
        "disks": (disk(cache=Cache.UNSAFE, io=Io.IO_URING, detect_zeroes=DetectZeroes.ON),)
    },
    "--disk /x,size=1,sparse=no": {"disks": (disk(discard=Discard.IGNORE),)},
    "--disk /x,size=1,bus=scsi,wwn=0x5000C50015EA71AA,serial=s,boot.order=2": {
        "disks": (disk("sda", bus=DiskBus.SCSI, wwn="5000c50015ea71aa", serial="s", boot_order=2),)
    },
    "--iothreads 1 --disk /x,size=1,driver.iothread=1": {"disks": (disk(iothread=1),)},
    "--disk /x,size=1,iotune.total_bytes_sec=10,iotune.read_iops_sec=5": {
        "disks": (disk(throttle=Throttle(total_bytes_sec=10, read_iops_sec=5)),)
    },
    "--disk /x,size=1,address.type=pci,address.bus=0,address.slot=0x5,alias.name=ua-root": {
        "disks": (disk(address="0000:00:05.0", alias="ua-root"),)
    },
    "--disk /x,size=1,bus=scsi,address.type=drive,address.unit=3": {
        "disks": (disk("sda", bus=DiskBus.SCSI, address="drive:0:0:0:3"),)
    },
    "--disk device=cdrom": {"disks": (cdrom(),)},
    "--disk device=cdrom,bus=scsi": {"disks": (replace(cdrom(), bus=DiskBus.SCSI),)},
    "--disk device=cdrom --machine pc": {"disks": (replace(cdrom("hda"), bus=DiskBus.IDE),)},
    "--disk device=floppy": {"disks": (replace(cdrom("fda"), bus=DiskBus.FDC, device=DiskKind.FLOPPY),)},
    "--disk /x,size=1 --disk /y,size=1 --disk device=cdrom --disk device=cdrom": {
        "disks": (disk(), disk("vdb", path="/y"), cdrom(), cdrom("sdb"))
    },
    # NICs, by type, source, model, target, link, boot order and MTU.
    "--network none": {"nics": []},
    "--nonetworks": {"nics": []},
    "--network default --network default": {"nics": [("network", "default", "virtio", "", True, 0, 0)] * 2},
    "--network network=lab,model.type=rtl8139,mac.address=RANDOM": {
        "nics": [("network", "lab", "rtl8139", "", True, 0, 0)]
    },
    "--network type=user": {"nics": [("user", "", "virtio", "", True, 0, 0)]},
    "--network type=bridge,source=br0,model=e1000e": {"nics": [("bridge", "br0", "e1000e", "", True, 0, 0)]},
    "-w bridge=br0,target.dev=t1,link_state=down,boot.order=2,mtu.size=1400": {
        "nics": [("bridge", "br0", "virtio", "t1", False, 2, 1400)]
    },
    # Screen.
    "--graphics none": {"vnc": None, "video": Video.NONE, "inputs": ()},
    "--graphics vnc": {"vnc": Vnc(), "video": Video.VGA, "inputs": TABLET},
    "--graphics vnc --graphics none": {"vnc": Vnc()},
    "--graphics vnc,password=secret,websocket=-1,listen=localhost6": {
        "vnc": Vnc(password="secret", websocket=-1, listen="::1")
    },
    "--graphics vnc,listen=socket,keymap=local": {"vnc": Vnc(socket=True)},
    "--graphics vnc,port=-1,keymap=none,websocket=5700": {"vnc": Vnc(websocket=5700)},
    "--graphics vnc --video none": {"video": Video.NONE},
    "--graphics vnc --video qxl,vgamem=16384,model.heads=1": {"video": Video.QXL, "video_memory": 16384},
    "--graphics vnc --video model=virtio,address.type=pci,address.slot=1": {
        "video": Video.VIRTIO,
        "video_address": "0000:00:01.0",
    },
    "--graphics vnc --machine microvm --boot kernel=/k": {
        "video": Video.NONE,
        "inputs": (),
        "clock": Clock(),
        "features": Features(),
    },
    # Ports.
    "--serial pty": {"serials": serial(kind=PortKind.PTY)},
    "--serial none": {"serials": ()},
    "--serial null": {"serials": serial(kind=PortKind.NULL)},
    "--serial socket --serial unix": {"serials": (Serial(), Serial())},
    "--serial file,path=/log": {"serials": serial(kind=PortKind.FILE, path="/log")},
    "--serial unix,source.path=/s,mode=bind": {"serials": serial(kind=PortKind.UNIX, path="/s")},
    "--serial tcp,host=0.0.0.0:4567": {"serials": serial(kind=PortKind.TCP, host="0.0.0.0", port=4567)},
    "--serial tcp,host=:22,protocol.type=raw": {"serials": serial(kind=PortKind.TCP, host="127.0.0.1", port=22)},
    "--serial tcp,source.host=[::1],source.service=2222": {
        "serials": serial(kind=PortKind.TCP, host="::1", port=2222)
    },
    "--serial pty,target.type=pci-serial,address.type=pci,address.slot=9": {
        "serials": serial(kind=PortKind.PTY, model=SerialModel.PCI, address="0000:00:09.0")
    },
    "--serial pty,target.type=usb-serial,alias.name=ua-s": {
        "serials": serial(kind=PortKind.PTY, model=SerialModel.USB, alias="ua-s")
    },
    "--console none": {"serials": ()},
    "--console pty,target.type=serial": {"serials": serial(kind=PortKind.PTY)},
    "--console pty,target_type=virtio": {"serials": serial(kind=PortKind.PTY, model=SerialModel.VIRTIO)},
    "--serial file,path=/log --console pty": {"serials": serial(kind=PortKind.FILE, path="/log")},
    "--serial pty --console pty,target.type=virtio": {
        "serials": (Serial(kind=PortKind.PTY), Serial(kind=PortKind.PTY, model=SerialModel.VIRTIO))
    },
    "--channel none": {"channels": ()},
    "--channel unix,target.type=virtio,target.name=org.qemu.guest_agent.0": {
        "channels": channel("org.qemu.guest_agent.0")
    },
    "--channel unix,target_type=virtio,name=a,path=/x --channel pty,target.name=b": {
        "channels": (Channel(name="a", kind=PortKind.UNIX, path="/x"), Channel(name="b", kind=PortKind.PTY))
    },
    "--parallel none": {"serials": serial()},
    # Devices.
    "--rng none": {"rng": None},
    "--rng /dev/random": {"rng": Rng(source="/dev/random")},
    "--rng random,device=/dev/hwrng,rate_bytes=10,rate.period=5": {
        "rng": Rng(source="/dev/hwrng", rate_bytes=10, rate_period=5)
    },
    "--watchdog none": {"watchdog": None},
    "--watchdog default": {"watchdog": Watchdog()},
    "--watchdog ib700,action=poweroff": {
        "watchdog": Watchdog(model=WatchdogModel.IB700, action=WatchdogAction.POWEROFF)
    },
    "--memballoon none": {"balloon": None},
    "--memballoon virtio": {"balloon": Balloon()},
    "--memballoon virtio,autodeflate=on,freePageReporting=off,stats.period=10": {
        "balloon": Balloon(deflate_on_oom=True, free_page_reporting=False, stats_period=10)
    },
    "--controller usb2": {"controllers": USB2},
    "--controller usb3": {"controllers": (Controller(type=ControllerType.USB, model="qemu-xhci", ports=15),)},
    "--controller usb,model=none --graphics vnc": {
        "controllers": (Controller(type=ControllerType.USB, model="none"),),
        "inputs": (),
    },
    "--iothreads 1 --controller type=scsi,model=virtio-scsi,driver.iothread=1,driver.queues=3,index=2": {
        "controllers": (Controller(type=ControllerType.SCSI, model="virtio-scsi", iothread=1, queues=3, index=2),)
    },
    "--controller scsi --controller scsi --controller pci,model=pcie-root-port,target.chassis=3,target.port=4": {
        "controllers": (
            Controller(type=ControllerType.SCSI),
            Controller(type=ControllerType.SCSI, index=1),
            Controller(type=ControllerType.PCI, index=1, model="pcie-root-port", chassis=3, port=4),
        )
    },
    "--controller num_pcie_root_ports=3": {"root_ports": 3, "controllers": ()},
    "--input tablet": {"inputs": TABLET},
    "--input none --graphics vnc": {"inputs": ()},
    "--input mouse --input keyboard,bus=ps2": {"inputs": ()},
    "--input keyboard,bus=virtio": {"inputs": (Input(type=InputType.KEYBOARD, bus=InputBus.VIRTIO),)},
    "--sound none --smartcard none --redirdev none --hostdev none --audio none --security none": {"inputs": ()},
    "--tpm none": {"tpm": None},
    "--tpm default": {"tpm": Tpm()},
    "--tpm emulator,model=tpm-tis,version=1.2": {"tpm": Tpm(model=TpmModel.TIS, version="1.2")},
    "--tpm backend.type=emulator,backend.version=2.0": {"tpm": Tpm()},
    "--filesystem none": {"filesystems": ()},
    "--filesystem /a,tag": {"filesystems": (Filesystem(source="/a", target="tag"),)},
    "--filesystem source=/a,target=tag,accessmode=squash,readonly=yes,driver.type=path": {
        "filesystems": (
            Filesystem(
                source="/a", target="tag", access=AccessMode.SQUASH, readonly=True, driver=FilesystemDriver.NINEP
            ),
        )
    },
    "--filesystem source.dir=/a,target.dir=tag,fmode=0640,dmode=750": {
        "filesystems": (Filesystem(source="/a", target="tag", file_mode="0640", folder_mode="750"),),
    },
    "--filesystem /a,tag,driver.type=virtiofs,mode=passthrough": {
        "filesystems": (
            Filesystem(source="/a", target="tag", driver=FilesystemDriver.VIRTIOFS, access=AccessMode.PASSTHROUGH),
        )
    },
    "--panic default": {"panic": True},
    "--panic none": {"panic": False},
    # The board.
    "--features acpi=off,smm=on,vmport.state=on,pae=on,apic=on": {
        "features": replace(INSTALLED, acpi=False, smm=True, vmport=True)
    },
    "--features apic=off,pmu=off,kvm_hidden=on": {"cpu": "max,apic=off,pmu=off,kvm=off"},
    "--features hyperv_relaxed=on,hyperv.vapic.state=on,hyperv_spinlocks=on,hyperv.spinlocks.retries=8191": {
        "cpu": "max,hv-relaxed=on,hv-vapic=on,hv-spinlocks=0x1fff"
    },
    "--features hyperv.synic.state=on,hyperv.reset.state=on --cpu host-passthrough": {
        "cpu": "host,hv-synic=on,hv-reset=on"
    },
    "--clock offset=localtime": {"clock": replace(CLOCK, offset=ClockOffset.LOCALTIME)},
    "--clock offset=utc,hpet_present=no,rtc_tickpolicy=catchup": {"clock": Clock(rtc_catchup=True, hpet=False)},
    "--clock hpet_present=yes,pit_tickpolicy=delay,kvmclock_present=no,hypervclock_present=yes": {
        "clock": Clock(pit_delay=True),
        "cpu": "max,kvmclock=off,hv-time=on",
    },
    "--clock timer0.name=hpet,timer0.present=no,timer1.name=rtc,timer1.tickpolicy=delay": {
        "clock": Clock(hpet=False)
    },
    "--pm suspend_to_mem.enabled=on,suspend_to_disk=yes": {
        "features": Features(suspend_to_mem=True, suspend_to_disk=True)
    },
    "--events on_poweroff=preserve,on_reboot=destroy,on_crash=preserve": {
        "on_poweroff": OnPoweroff.PRESERVE,
        "on_reboot": OnReboot.DESTROY,
        "on_crash": OnCrash.PRESERVE,
    },
    "--sysinfo emulate": {"smbios": {}},
    "--sysinfo smbios,system.product=P,system_serial=S,system.sku=K": {
        "smbios": {"product": "P", "serial": "S", "sku": "K"}
    },
    "--sysinfo oemStrings.entry0=io.systemd.credential:a=b=c,oemStrings.entry1=io.systemd.credential:d=e,,f": {
        "credentials": (Credential(name="a", value="b=c"), Credential(name="d", value="e,f"))
    },
    "--credential a=b=c,file=/d --credential e,file=/f=g --credential a.b-c=d,e": {
        "credentials": (
            Credential(name="a", value="b=c,file=/d"),
            Credential(name="e", file="/f=g"),
            Credential(name="a.b-c", value="d,e"),
        )
    },
    # What is installed, where no kernel is given directly.
    "--osinfo win10": {
        "machine": Machine.Q35,
        "cpu": f"max,{HYPERV}",
        "clock": replace(CLOCK, offset=ClockOffset.LOCALTIME),
    },
    "--osinfo win10 --disk /x,size=1 --network user": {
        "disks": (disk("sda", bus=DiskBus.SATA),),
        "nics": [("user", "", "e1000e", "", True, 0, 0)],
    },
    "--osinfo win10 --features hyperv.vapic.state=off,hyperv.spinlocks.state=off --clock hypervclock_present=no": {
        "cpu": "max,hv-relaxed=on"
    },
    "--osinfo win11": {"boot": Boot(firmware=Firmware.UEFI, secure=True), "tpm": Tpm()},
    "--osinfo win11 --tpm none --boot hd,firmware=bios": {"boot": Boot(order=(BootDevice.DISK,)), "tpm": None},
    "--osinfo winxp --disk /x,size=1 --disk device=cdrom": {
        "machine": Machine.PC,
        "disks": (disk("hda", bus=DiskBus.IDE), replace(cdrom("hdb"), bus=DiskBus.IDE)),
    },
    "--osinfo generic --network user": {
        "machine": Machine.PC,
        "clock": CLOCK,
        "nics": [("user", "", "e1000", "", True, 0, 0)],
    },
    "--osinfo freebsd13.1 --disk /x,size=1": {"machine": Machine.PC, "disks": (disk(),)},
    "--osinfo short-id=debian12 --disk /x,size=1": {"machine": Machine.Q35, "disks": (disk(),)},
    "--os-variant detect=on,require=off": {"machine": Machine.Q35},
}


def test_sizes_have_suffixes_and_little_memory_is_doubted(tree: Tree) -> None:
    told: list[str] = []
    plan = built(tree, "--name vm --memory 1 --disk /x,size=10G --disk /y,size=1.5 --pxe", told.append)
    assert [disk.size_kib for disk in plan.disks] == [10 << 20, 3 << 19]
    assert any(text.startswith("1 MiB of memory: hardly any guest boots") for text in told)
    told.clear()
    built(tree, "--name vm --memory 64M --disk /x,size=512M --pxe", told.append)
    assert not [text for text in told if "memory" in text]


def test_single_options(tree: Tree) -> None:
    different = {}
    for line, wanted in LINES.items():
        method = "" if "--boot" in line else "--install no_install=yes"
        made = built(tree, f"--name vm {method} {line}").definition
        present = {name: part_of(made, name) for name in wanted}
        if present != wanted:
            different[line] = present
        assert toml.loads(toml.dumps(made), Domain, "x") == made, line
    assert not different


def part_of(made: Domain, name: str) -> Any:
    """What a definition has under a dotted name; of NICs what can be foretold."""
    present: Any = made
    for part in name.split("."):
        present = getattr(present, part)
    if name == "nics":
        return [
            (nic.type, nic.source, nic.model, nic.target, nic.link, nic.boot_order, nic.mtu) for nic in present
        ]
    return present


def test_what_keeps_a_nic_apart_and_who_serves_it(tree: Tree) -> None:
    line = "--network default,filterref=clean-traffic,port.isolated=yes,driver_queues=4,driver_name=vhost,mac="
    (nic,) = built(tree, f"--name vm --install no_install=yes {line}52:54:00:00:00:01").definition.nics
    assert nic == Nic(
        mac="52:54:00:00:00:01",
        source="default",
        filter=NicFilter.CLEAN_TRAFFIC,
        isolated=True,
        queues=4,
        vhost=Vhost.ON,
    )
    line = "--network type=direct,source=eth0,source_mode=private,mac=52:54:00:00:00:01"
    (nic,) = built(tree, f"--name vm --install no_install=yes {line}").definition.nics
    assert nic == Nic(mac="52:54:00:00:00:01", type=NicType.DIRECT, source="eth0", source_mode=SourceMode.PRIVATE)
    (nic,) = built(tree, "--name vm --install no_install=yes --network default,driver.name=qemu").definition.nics
    assert (nic.vhost, nic.isolated, nic.filter) == (Vhost.OFF, False, NicFilter.NONE)


def test_paths_are_made_absolute(tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = built(
        tree, "--name vm --boot kernel=k,initrd=../i --disk d.img,size=1 --filesystem s,t --serial file,path=l"
    ).definition
    assert made.boot.kernel == f"{tmp_path}/k"
    assert made.boot.initrd == f"{tmp_path.parent}/i"
    assert made.disks[0].path == f"{tmp_path}/d.img"
    assert made.filesystems[0].source == f"{tmp_path}/s"
    assert made.serials[0].path == f"{tmp_path}/l"


def test_the_name_may_be_metadata(tree: Tree) -> None:
    assert built(tree, f"--metadata name=vm {KERNEL}").definition.name == "vm"
    assert built(tree, f"--name vm --metadata name=vm {KERNEL}").definition.name == "vm"
    with pytest.raises(InvalidValue, match="exclude each other"):
        built(tree, f"--name vm --metadata name=other {KERNEL}")


def test_an_existing_disk(tree: Tree, tmp_path: Path) -> None:
    path = tmp_path / "disk, one"
    path.touch()
    with pytest.raises(InvalidValue, match="format of existing disk .* must be said"):
        built(tree, f"--name vm --import --disk 'path={tmp_path}/disk,, one'")
    plan = built(tree, f"--name vm --import --disk 'path={tmp_path}/disk,, one,format=raw,readonly'")
    assert plan.definition.disks == (Disk(path=str(path), format=DiskFormat.RAW, target="vda", readonly=True),)
    assert plan.disks == ()
    # Nothing else than raw is on a CD or floppy, nor meant by a device.
    for kind in ("cdrom", "floppy"):
        (made,) = built(
            tree, f"--name vm --import --disk 'path={tmp_path}/disk,, one,device={kind}'"
        ).definition.disks
        assert (made.format, made.device) == (DiskFormat.RAW, kind)
    with pytest.raises(InvalidValue, match="is a folder"):
        built(tree, f"--name vm --import --disk {tmp_path},format=raw")
    with pytest.raises(InvalidValue, match="there already"):
        built(tree, f"--name vm --import --disk 'path={tmp_path}/disk,, one,format=raw,backing_store=/x'")


def test_an_image_on_top_of_another(tree: Tree, tmp_path: Path) -> None:
    base = tmp_path / "base.img"
    base.touch()
    layer = Layer(path=str(base), format=DiskFormat.RAW)
    plan = built(tree, f"--name vm --import --disk /x,backing_store={base},backing_format=raw")
    assert plan.definition.disks == (disk(backing=(layer,)),)
    assert plan.disks == (NewDisk("/x", DiskFormat.QCOW2, 0, layer),)
    plan = built(tree, f"--name vm --import --disk size=2,backing_store={base},backing_format=raw")
    assert plan.disks == (NewDisk(f"{tree.images}/vm.qcow2", DiskFormat.QCOW2, 2 << 20, layer),)
    for line, text in {
        f"backing_store={base}": "format of backing image .* must be said",
        "backing_store=/nonexistent,backing_format=raw": "backing image /nonexistent is not there",
        f"backing_store={base},backing_format=vmdk": "'vmdk' is not known",
        "backing_format=raw": "there is no backing_store",
        f"backing_store={base},backing_format=raw,format=raw": "a raw image has no backing image",
        f"backing_store={base},backing_format=raw,sparse=no": "on top of another one grows",
    }.items():
        with pytest.raises(QkvmError, match=text):
            built(tree, f"--name vm --import --disk /x,size=1,{line}")


def test_disks_without_a_path(tree: Tree) -> None:
    """They are named after the domain, and behind the first after their target."""
    plan = built(
        tree, f"--name vm {KERNEL} --disk size=1 --disk size=1,format=raw --disk size=1,bus=sata,sparse=no"
    )
    assert plan.disks == (
        NewDisk(f"{tree.images}/vm.qcow2", DiskFormat.QCOW2, 1 << 20),
        NewDisk(f"{tree.images}/vm-vdb.raw", DiskFormat.RAW, 1 << 20),
        NewDisk(f"{tree.images}/vm-sda.qcow2", DiskFormat.QCOW2, 1 << 20, None, True),
    )


@pytest.mark.parametrize(
    ("line", "warning"),
    [
        ("--osinfo plan9", "--osinfo plan9 is not known: the hardware is that of a modern Linux"),
        ("--graphics vnc,listen=::", "the VNC server listens on :: without a password: who reaches this host has"),
        ("--graphics vnc,listen=::,password=x", ""),
        ("--graphics vnc,listen=192.0.2.1", ""),
        ("--graphics vnc,listen=socket", ""),
        ("--osinfo win10", ""),
    ],
)
def test_warnings(tree: Tree, line: str, warning: str) -> None:
    warnings: list[str] = []
    built(tree, f"--name vm {KERNEL} {line}", warnings.append)
    assert len(warnings) == bool(warning)
    assert not warning or warnings[0].startswith(warning)


WORDS = st.sampled_from(
    [
        "a",
        "=",
        ",",
        ",,",
        "none",
        "user",
        "vnc",
        "path",
        "size",
        "1",
        "kernel=/k",
        "/x",
        "\udcff",
        "é",
        " ",
        '"',
        "--",
        "type=",
        "model=",
        "address.slot=",
        "0x",
        "host=:",
        "cpuset=",
        "^",
        "name=",
    ]
)


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(OPTIONS)), st.lists(WORDS, max_size=6).map("".join)), max_size=4))
def test_no_line_breaks_it(given_options: list[tuple[str, str]]) -> None:
    line = ["--name=vm", "--boot=kernel=/k"] if not given_options or given_options[0][0] != "name" else []
    line += [f"--{name}={value}" if OPTIONS[name][0] else f"--{name}" for name, value in given_options]
    try:
        made = build(
            Tree("/nonexistent"), read(line), lambda text: None, own_key=lambda tree: ["k"]
        ).plan.definition
    except QkvmError as error:
        assert str(error).isprintable()
    else:
        # What was accepted can be stored.
        assert toml.loads(toml.dumps(made).encode(), Domain, "x") == replace(made)
