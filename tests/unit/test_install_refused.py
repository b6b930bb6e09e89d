"""What an install line can't say: every refusal names its option and what would be right."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from qkvm.cli.install.build import build
from qkvm.cli.install.follow import wish
from qkvm.cli.install.reader import Options, questions, read, split
from qkvm.cli.install.suboptions import REFUSED as REFUSED_SUBOPTIONS
from qkvm.cli.install.suboptions import SUBOPTIONS
from qkvm.cli.install.table import ALIASES, OPTIONS, REFUSED
from qkvm.cli.main import main
from qkvm.cli.parse import UsageError
from qkvm.errors import InvalidValue, QkvmError
from qkvm.paths import Tree

KERNEL = "--boot kernel=/boot/vmlinuz"

LINES = {
    KERNEL: "--name is required",
    f"--name 1 {KERNEL}": "domain name '1' is not allowed",
    f"--name a/b {KERNEL}": "domain name 'a/b' is not allowed",
    "--name vm": "nothing to boot from: an install method must be specified",
    "--name vm --disk none": "nothing to boot from",
    "--name vm --disk size=1": "an empty disk is nothing to boot from",
    "--name vm --extra-args quiet --disk size=1": "--extra-args only works with --location",
    "--bogus": "unrecognized arguments: --bogus",
    "word": "unrecognized arguments: word",
    "-": "unrecognized arguments: -",
    "--": "unrecognized arguments: --",
    "-name vm": "unrecognized arguments: -name",
    "-z": "unrecognized arguments: -z",
    "--name": "argument --name: expected one argument",
    "--disk": "argument --disk: expected one argument",
    "--name a --name b": "--name was given twice",
    "--name a -n b": "--name was given twice",
    "--import=yes": "--import takes no value",
    "--noreboot --noreboot": "--noreboot was given twice",
    "--name vm --memory 512 --ram 512": "--memory was given twice",
    "--name vm --import --pxe": "--pxe and --import exclude each other",
    "--name vm --cdrom /x.iso --location /y": "--cdrom and --location exclude each other",
    "--name vm --cdrom /nonexistent.iso": "install medium /nonexistent.iso is not there",
    "--name vm --cdrom /tmp": "--cdrom /tmp is a folder",
    "--name vm --cdrom http://192.0.2.1/x.iso": "--cdrom http://192.0.2.1/x.iso is on the network",
    "--name vm -c qemu:///system": "is a libvirt URI; --connect takes one",
    "--name vm --location https://192.0.2.1/debian": "is on the network",
    "--name vm --location /nonexistent": "install medium /nonexistent is not there",
    "--name vm --location /dev/null": "install medium /dev/null is neither a folder nor a CD image",
    "--name vm --location /tmp,kernel=x": "must be be specified as a pair",
    "--name vm --location /tmp,kernel=../x,initrd=y": "'../x' is no path inside an install medium",
    "--name vm --location /tmp,kernel=nonexistent/k,initrd=y": "there is no nonexistent/k on install medium /tmp",
    "--name vm --pxe --network none": "--pxe needs a NIC",
    "--name vm --install os=fedora29": "no download places are known",
    "--name vm --install initrd=/i": "--install initrd= needs kernel=",
    "--name vm --install bootdev=usb": "--install bootdev 'usb' is not known",
    "--name vm --install kernel=/k --initrd-inject /etc/passwd": "--initrd-inject needs an initrd",
    "--name vm --import --initrd-inject /etc/passwd": "--initrd-inject only works with --location",
    "--name vm --unattended": "--unattended is not supported: qkvm brings no answer files",
    "--name vm --transient --autostart --boot kernel=/k": "--autostart needs a persistent domain",
}
"""Whole lines."""

BESIDE = {
    "--uuid 5": "malformed UUID",
    "--memory 0": "too little",
    "--memory 512,maxmemory=256": "higher than max memory",
    "--memory lots": "<memory>",
    "--cloud-init user-data=/dev/null,clouduser-ssh-key=/k": "clouduser-ssh-key= can't be given here: user-data=",
    "--cloud-init user-data=/dev/null,disable=on": "disable= can't be given here: user-data= is the whole text",
    "--memory 512,maxmemory=lots": "<maxmemory>",
    "--memory 512,1024": "Unknown --memory options: ['1024']",
    "--memory 512,foo": "Unknown --memory options: ['foo']",
    "--memory 512,hotplug=1": "Unknown --memory options: ['hotplug']",
    "--memory memory=1,memory=2": "memory was given twice",
    "--memory 512,currentMemory=256,maxmemory=1024": "maxmemory= can't be given here",
    "--memory 512,maxMemory=1024": "memory modules are not there yet",
    "--memorybacking source.type=nvdimm": "'nvdimm' is not known",
    "--memorybacking access.mode=none": "access.mode=none is not supported",
    "--memorybacking discard=on": "--memorybacking discard= is not supported",
    "--memorybacking hugepages.page0.size=2,hugepages.page1.size=4": "huge pages of one size",
    "--vcpus 0": "<vcpus>",
    "--vcpus 289": "<vcpus>",
    "--vcpus 2,maxvcpus=1": "2 vcpus are more than the maximum of 1",
    "--vcpus 5,sockets=2": "CPU topology doesn't match maximum vcpu count: 4 and 5",
    "--vcpus 2,cpuset=auto": "cpuset=auto is not supported",
    "--vcpus 2,cpuset=a": "is no list of CPUs",
    "--vcpus 2,vcpus.vcpu0.id=1": "vCPUs are plugged in their order",
    "--cpu 'host -S'": "is not a CPU model",
    "--cpu host,match=strict": "match=strict is not supported",
    "--cpu host,numa.cell0.memory=1": "NUMA nodes of the guest are not there yet",
    "--cpu host,cache.mode=other": "cache.mode=other is not supported",
    "--cpu mode=other": "mode=other is not supported",
    "--cputune vcpupin0.cpuset=1": "vcpu and cpuset go together",
    "--cputune cachetune0.vcpus=0": "resctrl is not there yet",
    "--cputune vcpusched0.vcpus=0": "real-time schedulers are not there yet",
    "--numatune mode=strict": "the nodes are missing",
    "--numatune 0,mode=other": "'other' is not known",
    "--memtune min_guarantee=5": "it is Xen's",
    "--blkiotune 0": "<weight>",
    "--iothreads iothreadids.iothread0.thread_pool_max=1": "an iothread needs its id",
    "--machine virt": "--machine 'virt' is not known",
    "--machine microvm --watchdog default": "no place for watchdog",
    "--virt-type xen": "--virt-type 'xen' is not known",
    "--arch aarch64": "x86_64 is the only architecture",
    "--osinfo require=on": "no system is named",
    "--disk /x,size=0": "--disk size '0' is no size",
    "--disk /x,size=-1": "is no size",
    "--disk /x,size=nan": "is no size",
    "--disk /x,size=inf": "is no size",
    "--disk /x,size=1e99": "is no size",
    "--disk /x,size=8X": "Scaled numeric value '8X' for <--disk size>",
    "--disk /x,size=": "is no size",
    "--disk /nonexistent/x": "is not there",
    "--disk /nonexistent/\udcff": "is not there",
    "--disk /x,size=1,format=vmdk": "--disk format 'vmdk' is not known",
    "--disk /x,size=1,bus=nvme": "--disk bus 'nvme' is not known",
    "--disk /x,size=1,bus=ide": "machine q35 has no IDE bus",
    "--disk /x,size=1,readonly=maybe": "yes or no was expected",
    "--disk /x,size=1,target.dev=xda": "disk target 'xda' is not allowed",
    "--disk /x,size=1,bus=virtio,target.dev=sda": "disk target 'sda' is not allowed on bus virtio",
    "--disk /x,size=1,serial=a.b": "disk serial 'a.b' is not allowed",
    "--disk /x,size=1,wwn=5": "wwn '5' is not one",
    "--disk /x,size=1 --disk /x,size=1": "disk /x is used twice",
    "--disk /x,size=1,target.dev=vdb --disk /y,size=1,target.dev=vdb": "disk target vdb is used twice",
    "--disk /x,size=1,io=native": "io native needs cache none or directsync",
    "--disk /x,size=1,device=lun": "SCSI pass-through is not there",
    "--disk /x,size=1,device=cdrom": "there is nothing to see on a new CD",
    "--disk /x,size=1,device=tape": "--disk device 'tape' is not known",
    "--disk pool=nowhere,size=1": "no storage pool with matching name 'nowhere'",
    "--disk vol=nowhere/x": "no storage pool with matching name 'nowhere'",
    "--disk vol=x": "a volume is named with its pool",
    "--disk vol=a/b/c": "a volume is named with its pool",
    "--disk /x,size=1,pool=default": "pool= can't be given here",
    "--disk vol=default/x,size=1": "size= can't be given here",
    "--disk /x,size=1,driver.iothread=1": "there is no iothread 1",
    "--disk /x,size=1,driver.error_policy=stop": "a failed write stops the guest",
    "--disk /x,size=1,error_policy=stop": "a failed write stops the guest",
    "--disk /x,size=1,geometry.cyls=1": "the geometry is the firmware's business",
    "--disk /x,size=1,snapshot=no": "--disk snapshot= is not supported",
    "--disk /x,size=1,source.host0.name=h": "disks on the network are not there yet",
    "--disk nbd://h/x": "give a file or block device",
    "--disk /x,size=1,boot.order=1 --disk /y,size=1,boot.order=1": "boot order 1 is used twice",
    "--disk /x,size=1,xpath1.set=./@a=b": "there is no XML inside qkvm",
    "--disk /x,size=1,iotune.total_bytes_sec=1,iotune.read_bytes_sec=1": "cannot be set at the same time",
    "--disk /x,size=1,address.type=ccw": "address.type=ccw is not supported",
    "--disk /x,size=1,address.slot=x": "address.slot=x is no number",
    "--disk /x,size=1,alias.name=root": "alias 'root' of vda is not allowed",
    "--disk /x,size=1 --nodisks": "Cannot specify storage and use --nodisks",
    "--network network=a,bridge=b": "exclude each other",
    "--network user,network=a": "exclude each other",
    "--network type=bridge,network=a": "exclude each other",
    "--network network=a,source=b": "source= can't be given here",
    "--network none --network default": "--network none excludes any other",
    "--nonetworks --network default": "Cannot use --nonetworks with --network",
    "--network default,mac=x": "malformed mac address",
    "--network default,model=ne2k": "--network model.type 'ne2k' is not known",
    "--network default,link.state=off": "link.state 'off' is not known",
    "--network a/b": "network name 'a/b' is not allowed",
    "--network bridge=": "interface name '' is not allowed",
    "--network passt,portForward=x": "portForward 'x' is not one",
    "--network passt,portForward=80:": "portForward '80:' is not one",
    "--network passt,portForward=0": "port 0 is out of range",
    "--network passt,portForward0.range0.to=80": "a range needs its start",
    "--network default,portForward=80": "are for type user",
    "--network user,backend.type=vde": "backend.type=vde is not supported",
    "--network user,target=tap0": "neither source nor target",
    "--network type=direct,source=eth0,source_mode=x": "source.mode 'x' is not known",
    "--network bridge=br0,source.mode=bridge": "is for type direct alone",
    "--network type=direct,source=eth0,port.isolated=yes": "type direct can't be isolated: it is on no bridge",
    "--network default,filterref=allow-arp": "--network filterref.filter 'allow-arp' is not known",
    "--network default,filterref.parameter0.name=IP": "DHCP tells the filter the guest's address",
    "--network user,filterref=clean-traffic": "a NIC of type user can't be filtered",
    "--network bridge=br0,virtualport.type=openvswitch": "Open vSwitch",
    "--network bridge=br0,driver.queues=0": "driver.queues",
    "--network bridge=br0,model=e1000,driver.queues=4": "model e1000 has no several queues",
    "--network bridge=br0,driver.name=vfio": "driver.name 'vfio' is not known",
    "--network bridge=br0,driver.txmode=iothread": "name and queues are what can be said",
    "--network default,mtu.size=1": "mtu of",
    "--graphics spice": "--graphics spice is not supported: qkvm's screens speak VNC",
    "--graphics sdl": "--graphics sdl is not supported",
    "--graphics vnc --graphics vnc": "a guest has one VNC server",
    "--graphics vnc,port=80": "<port>",
    "--graphics vnc,listen=any": "not an IP address",
    "--graphics vnc,listen=none": "listen=none is not supported",
    "--graphics vnc,password=123456789": "the vnc password has more than 8 characters",
    "--graphics vnc,password=": "the vnc password is empty",
    "--graphics vnc,gl.enable=yes": "it is SPICE's",
    "--graphics vnc,passwordValidTo=2030": "passwords do not expire",
    "--video tseng": "--video model 'tseng' is not known",
    "--video vga,model.heads=2": "model.heads=2 is not supported",
    "--video virtio,model.acceleration.accel3d=yes": "3D acceleration",
    "--machine microvm --video vga": "takes no video card",
    "--controller floppy": "--controller type 'floppy' is not known",
    "--controller scsi,model=buslogic": "model 'buslogic' is not known",
    "--controller usb,vectors=3": "QEMU chooses",
    "--controller scsi,driver.iothread=3": "there is no iothread 3",
    "--input evdev,source.dev=/x": "--input source.dev= is not supported",
    "--input passthrough": "--input passthrough is not supported",
    "--input joystick": "--input type 'joystick' is not known",
    "--input tablet,bus=ps2": "--input bus 'ps2' is not known",
    "--serial dev,path=/dev/ttyS0": "--serial type 'dev' is not known",
    "--serial udp,host=:514": "--serial type 'udp' is not known",
    "--serial tcp,host=:1234,mode=connect": "source.mode=connect is not supported",
    "--serial tcp,host=:1234,protocol.type=telnet": "protocol.type=telnet is not supported",
    "--serial tcp,host=h:1": "is not an IP address",
    "--serial tcp": "needs a port",
    "--serial tcp,host=:0": "<port>",
    "--serial file": "--serial file needs its path",
    "--serial pty,path=/x": "source.path= can't be given here",
    "--serial pty,host=:1": "source.host= can't be given here",
    "--serial pty,log.file=/x": "its log is var/log/qkvm/NAME.serial.log",
    "--serial pty,target.type=spapr": "target.type=spapr is not supported",
    "--serial pty,name=x": "a channel has a name",
    "--serial bogus=1": "Unknown --serial options: ['bogus']",
    "--console pty,target.type=xen": "target.type=xen is not supported",
    "--channel spicevmc": "--channel spicevmc is not supported",
    "--channel unix": "--channel needs its target.name",
    "--channel unix,target.type=guestfwd": "target.type=guestfwd is not supported",
    "--channel tcp,host=:1,name=a": "kind tcp is for serial ports",
    "--channel unix,name='a b'": "channel name 'a b' is not allowed",
    "--parallel pty": "guests have no parallel ports here",
    "--rng egd": "--rng egd is not supported",
    "--rng builtin": "--rng builtin is not supported",
    "--rng /dev/zero": "rng source '/dev/zero' is not known",
    "--rng none --rng none": "--rng: a guest has one",
    "--watchdog foo": "--watchdog 'foo' is not known",
    "--watchdog default,action=explode": "--watchdog action 'explode' is not known",
    "--memballoon xen": "--memballoon model 'xen' is not known",
    "--sound ich9": "--sound is not supported: guests have no sound devices",
    "--sound": "--sound is not supported",
    "--hostdev 001.003": "--hostdev is not supported: devices of the host are not handed out yet",
    "--host-device pci_0000_00_1b_0": "--hostdev is not supported",
    "--smartcard host": "--smartcard is not supported",
    "--redirdev usb,type=spicevmc": "--redirdev type= is not supported: USB redirection is SPICE's",
    "--security label=x": "each QEMU has a uid of its own",
    "--tpm /dev/tpm0": "the host's own TPM is not handed out",
    "--tpm default,version=3.0": "TPM version '3.0' is not known",
    "--tpm external": "--tpm external is not supported",
    "--tpm emulator,backend.encryption.secret=x": "what swtpm keeps is qkvm's business",
    "--filesystem /a": "--filesystem needs a folder and a tag",
    "--filesystem /a,b,type=template": "type=template is not supported",
    "--filesystem /a,b,fmode=rw": "mode 'rw' is not octal",
    "--filesystem /a,b,accessmode=squash,dmode=0700": "fmode and dmode are for accessmode mapped",
    "--filesystem /a,b,accessmode=squash,driver.type=virtiofs": "virtiofs only supports passthrough accessmode",
    "--filesystem /a,b,multidevs=warn": "--filesystem multidevs= is not supported: remap is what is done",
    "--filesystem //,b": "the whole of the host can't be shared",
    "--filesystem /a,b,driver.type=loop": "'loop' is not known",
    "--filesystem /a,'b c'": "tag 'b c'",
    "--panic hyperv": "--panic hyperv is not supported",
    "--features pae=off": "pae=off is not supported",
    "--features gic.version=2": "it is Arm's",
    "--features acpi": "Unknown --features options: ['acpi']",
    "--clock offset=timezone": "--clock offset 'timezone' is not known",
    "--clock tsc_present=no": "hpet, kvmclock and hypervclock are known",
    "--clock rtc_tickpolicy=merge": "tickpolicy 'merge' of rtc is not supported",
    "--clock timer0.name=tsc": "--clock timer 'tsc' is not known",
    "--clock timer0.name=rtc,timer0.present=no": "a machine always has its rtc",
    "--clock timer0.name=hpet,timer0.track=guest": "--clock timer0.track= is not supported",
    "--events on_crash=restart": "--events on_crash 'restart' is not known",
    "--events on_lockfailure=poweroff": "qkvm has no lock manager",
    "--sysinfo host": "type=host is not supported",
    "--sysinfo bios.vendor=x": "the SMBIOS system information (system.*) is what can be set",
    "--sysinfo system.uuid=x": "system.uuid is the domain's own",
    "--sysinfo oemStrings.entry0=secret": "oemStrings.entry: io.systemd.credential:NAME=VALUE was expected",
    "--sysinfo oemStrings.entry0=io.systemd.credential:a": "io.systemd.credential:NAME=VALUE was expected",
    "--credential secret": "--credential: NAME=VALUE or NAME,file=PATH was expected",
    "--credential a,file=": "--credential: NAME=VALUE or NAME,file=PATH was expected",
    "--credential a=": "credential 'a' has neither a value nor a file",
    "--credential a/b=secret": "credential name 'a/b' is not allowed",
    "--credential a=secret --credential a,file=/x": "credential a is used twice",
    "--credential a=secret --machine microvm": "microvm has no place for credentials",
    "--memballoon none,driver.iommu=on": "page_per_vq stay as QEMU has them",
    "--metadata title='a\nb'": "control character",
    "--metadata title=\udcff": "not UTF-8",
    "--metadata description=\udcff": "not UTF-8",
    "--extra-args '\udcff'": "not UTF-8",
    "--check bogus=off": "Unknown --check options: ['bogus']",
    "--cloud-init user-data=/nonexistent": "'/nonexistent': No such file",
    "--cloud-init root-password-file=/dev/null": "/dev/null is empty",
    "--cloud-init root-ssh-key=/etc/hostname": "holds no public SSH key",
    "--cloud-init root-password-generate=on,root-password-file=/x": "the password is made up",
    "--cloud-init bogus=1": "Unknown --cloud-init options: ['bogus']",
}
"""What can't stand beside a line that is good."""

BOOT = {
    "loader.type=other": "loader.type=other is not supported",
    "firmware=coreboot": "firmware=coreboot is not known",
    "uefi,firmware=bios,loader.secure=yes": "firmware=bios excludes",
    "boot0.dev=usb": "--boot dev 'usb' is not known",
    "firmware.feature0.name=tpm": "firmware feature 'tpm' is not known",
    "hd,nvram=/x": "secure boot and nvram need UEFI",
    "hd,initrd=/x": "need a kernel",
    "hd,smbios.mode=host": "smbios.mode=host is not supported",
    "hd,bios.useserial=on": "SeaBIOS speaks on the screen alone",
    "hd,useserial=on": "SeaBIOS speaks on the screen alone",
    "hd,dtb=/x": "x86 has no device trees",
    "init=/sbin/init": "it is for containers",
    "usb": "Unknown --boot options: ['usb']",
    "hd,machine=virt": "--machine 'virt' is not known",
}


@pytest.fixture
def tree() -> Tree:
    return Tree("/nonexistent")


def refusal(tree: Tree, line: str) -> str:
    with pytest.raises(QkvmError) as caught:
        options = read(shlex.split(line))
        build(tree, options, lambda text: None)
        if options.has("check"):
            split("check", options.single("check"))
    assert str(caught.value).isprintable()
    return str(caught.value)


@pytest.mark.parametrize(
    ("table", "before"),
    [(LINES, ""), (BESIDE, f"--name vm {KERNEL} "), (BOOT, "--name vm --disk /x,size=1 --boot ")],
    ids=["lines", "options", "boot"],
)
def test_refused(tree: Tree, table: dict[str, str], before: str) -> None:
    said = {line: refusal(tree, before + line) for line in table}
    assert not {line: text for line, text in said.items() if table[line] not in text}


def test_options_of_virt_install_that_are_not_there() -> None:
    for name in REFUSED:
        with pytest.raises(UsageError, match=f"--{name} is not supported: ") as caught:
            read([f"--{name}=x"])
        assert caught.value.hint


def test_suboptions_of_virt_install_that_are_not_there() -> None:
    """Each pattern is reached, by a name as virt-install has it."""
    for option in filter(None, REFUSED_SUBOPTIONS):
        for pattern, reason in REFUSED_SUBOPTIONS[option].items():
            key = pattern.replace("*", "0")
            with pytest.raises(UsageError) as caught:
                split(option, f"{key}=x")
            assert str(caught.value) == f"--{option} {key}= is not supported: {reason}"


def test_the_tables_agree() -> None:
    assert {name for name, (how, _) in OPTIONS.items() if ":" in how} == set(SUBOPTIONS)
    assert set(ALIASES.values()) <= set(OPTIONS)
    assert not set(REFUSED) & set(OPTIONS)
    assert set(REFUSED_SUBOPTIONS) - {""} <= set(SUBOPTIONS)
    for option, words in SUBOPTIONS.items():
        names = [name.removeprefix("~") for entry in words.split() for name in entry.split("|")]
        assert len(names) == len(set(names)), option


# The parts.


def test_suboptions() -> None:
    assert split("network", "default,model=e1000").values == {"type": "default", "model.type": "e1000"}
    assert split("disk", "/a,,b,readonly").values == {"path": "/a,b", "readonly": "yes"}
    assert split("disk", "path=/a=b").values == {"path": "/a=b"}
    assert split("boot", "kernel=/k,kernel_args=a=b c").values == {"kernel": "/k", "cmdline": "a=b c"}
    assert split("boot", "hd,uefi").values == {"hd": "yes", "uefi": "yes"}
    assert split("vcpus", "2,cpuset=1-4,^3,8,maxvcpus=4").values == {
        "vcpus": "2",
        "cpuset": "1-4,^3,8",
        "maxvcpus": "4",
    }
    assert split("cpu", "host,+a,-b,disable=c").values == {"model": "host", "force": "a", "disable": "b\nc"}
    assert split("filesystem", "/a,t,mode=squash").values == {
        "source": "/a",
        "target": "t",
        "accessmode": "squash",
    }
    assert split("clock", "timer2.name=a,timer0.name=b").numbered("timer")[1].values == {"name": "a"}
    for text in ("", ",", "a,", "=x,"):
        with pytest.raises(InvalidValue):
            split("disk", text)


@pytest.mark.parametrize(
    ("text", "value"), [("on", True), ("YES", True), ("1", True), ("off", False), ("No", False)]
)
def test_yes_or_no(text: str, value: bool) -> None:
    assert split("disk", f"/x,readonly={text}").flag("readonly") is value
    assert split("disk", f"/x,readonly={text}").switch("readonly") is value


def test_what_was_not_given() -> None:
    options = Options({})
    assert not options.has("name")
    assert options.single("machine", "q35") == "q35"
    assert options.first("disk").values == {}
    assert options.each("disk") == []
    assert options.first("disk").switch("readonly") is None


def test_values_that_may_be_left_out() -> None:
    assert read(["--wait"]).single("wait") == ""
    assert read(["--wait", "5"]).single("wait") == "5"
    assert read(["--wait", "-1"]).single("wait") == "-1"
    assert read(["--wait", "--import"]).flag("import")
    assert read(["--cloud-init", "--import"]).first("cloud-init").values == {}
    assert read(["--cloud-init", "disable=on"]).first("cloud-init").flag("disable")
    assert read(["--print-xml=2"]).single("print-xml") == "2"


def test_questions() -> None:
    assert questions(["--disk=?"]) == ["--disk"]
    assert questions(["--disk", "?", "-w", "help"]) == ["--disk", "-w"]
    assert questions(["--name", "help", "--disk", "none"]) == []


WISHES = {
    "": ("", None),
    "--noautoconsole": ("none", None),
    "--autoconsole none": ("none", None),
    "--autoconsole": ("text", None),
    "--autoconsole=graphical": ("graphical", None),
    "--wait": ("", -1),
    "--wait -1": ("", -1),
    "--wait 5": ("", 5),
    "--wait 0": ("none", None),
}


@pytest.mark.parametrize("line", WISHES)
def test_what_follows(line: str) -> None:
    warnings: list[str] = []
    found = wish(read(shlex.split(line)), warnings.append)
    assert (found.console, found.minutes, found.reboot, found.destroy) == (*WISHES[line], True, False)
    assert warnings == (["Treating --wait 0 as --noautoconsole"] if line == "--wait 0" else [])


def test_what_follows_is_refused() -> None:
    for line, text in {
        "--wait foo": "invalid int value: 'foo'",
        "--autoconsole foo": "Unknown autoconsole",
    }.items():
        with pytest.raises(UsageError, match=text):
            wish(read(shlex.split(line)), lambda text: None)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--disk=?"], "--disk options:\n  address.bus\n"),
        (["--name", "vm", "--network=?", "--boot", "?"], "--network options:\n  address.bus\n"),
        (["--memory", "help"], "--memory options:\n  currentMemory\n  hugepages\n  maxmemory\n  memory\n"),
        (["-w=?"], "--network options:\n"),
        (["--name=?"], "--name NAME\n"),
        (["--import=?"], "--import\n"),
        (["--osinfo", "list"], "Names are those of libosinfo"),
        (["--help"], "NAME\n    install - "),
        ([], "NAME\n    install - "),
        (["--name", "vm", "--boot", "kernel=/k", "--print-xml"], "  <name>vm</name>\n"),
    ],
)
def test_what_makes_nothing(
    words: list[str],
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("QKVM_ROOT", str(tmp_path))
    assert main(["install", *words]) == 0
    assert text in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--bogus=?"], "unrecognized arguments: --bogus"),
        (["--name", "vm", "--boot", "kernel=/k", "--print-xml", "2"], "does not have XML step 2"),
        (["--name", "vm", "--noautoconsole", "--autoconsole", "text"], "mutually exclusive"),
        (["--name", "vm", "--connect", "xen:///"], "failed to connect to the hypervisor"),
        (["--reinstall", "vm", "--pxe"], "failed to get domain 'vm'"),
    ],
)
def test_errors_are_one_line(
    words: list[str],
    text: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("QKVM_ROOT", str(tmp_path))
    assert main(["install", *words]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: ") and text in error and error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
