"""virt-install's lines become definitions, or one error each."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from qkvm.cli import install
from qkvm.cli.main import main
from qkvm.cli.suboptions import OPTIONS, Options, describe, read, split
from qkvm.errors import HostError, InvalidValue, QkvmError
from qkvm.paths import Tree
from qkvm.spec import toml
from qkvm.spec.domain import (
    Accel,
    Boot,
    Disk,
    DiskFormat,
    Domain,
    Machine,
    NicModel,
    NicType,
    OnReboot,
    Vcpus,
    Video,
    Vnc,
)

UUID = "5a1b4f5e-0f6b-4a59-9c5e-3c1d7f0b2a11"
KERNEL = "--boot kernel=/boot/vmlinuz"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(str(tmp_path))


def built(tree: Tree, line: str) -> tuple[Domain, dict[str, tuple[str, int]]]:
    return install.build(tree, read(shlex.split(line)))


def domain(tree: Tree, line: str) -> Domain:
    return built(tree, f"--name vm {KERNEL} {line}")[0]


def test_the_shortest_line(tree: Tree) -> None:
    made, disks = built(tree, f"--name vm {KERNEL}")
    assert (made.name, made.machine, made.accel, made.vcpus) == ("vm", Machine.Q35, Accel.AUTO, Vcpus())
    assert made.memory.current == made.memory.maximum == 1024 * 1024
    (nic,) = made.nics
    assert (nic.type, nic.source, nic.model) == (NicType.NETWORK, "default", NicModel.VIRTIO)
    assert (made.vnc, made.video, made.disks, disks) == (None, Video.NONE, (), {})


def test_a_line_as_people_write_it(tree: Tree) -> None:
    made, disks = built(
        tree,
        f"""--virt-type kvm -n vm01-centos7.4-64 --uuid {UUID.upper()} --memory 512,maxmemory=1024
        --vcpus vcpus=2,maxvcpus=4 --cpu host-passthrough --boot kernel=/k,initrd=/i,kernel_args=console=ttyS0
        -x 'quiet root=/dev/vda' --disk path=/srv/vm.qcow2,size=8,format=qcow2,bus=virtio,serial=abc
        --disk size=0.5,format=raw --network network=default,model=e1000,mac=52:54:00:AA:BB:CC
        -w bridge=br0,target=tap3,link.state=down --network user
        --graphics vnc,listen=0.0.0.0,port=5905,keymap=en_us --video virtio --memballoon none
        --metadata 'title=Mine,description=a,,b' --machine pc --autostart --noreboot --noautoconsole
        --os-variant centos7 --osinfo detect=on --import""",
    )
    images = tree.images
    macs = [nic.mac for nic in made.nics]
    assert made.memory.current == 512 * 1024
    assert made.memory.maximum == 1024 * 1024
    assert made == Domain(
        name="vm01-centos7.4-64",
        uuid=UUID,
        title="Mine",
        description="a,b",
        machine=Machine.PC,
        accel=Accel.KVM,
        cpu="host",
        memory=made.memory,
        vcpus=Vcpus(current=2, maximum=4),
        boot=Boot(kernel="/k", initrd="/i", cmdline="console=ttyS0 quiet root=/dev/vda"),
        disks=(
            Disk(path="/srv/vm.qcow2", format=DiskFormat.QCOW2, target="vda", serial="abc"),
            Disk(path=f"{images}/vm01-centos7.4-64-vdb.raw", format=DiskFormat.RAW, target="vdb"),
        ),
        nics=made.nics,
        vnc=Vnc(listen="0.0.0.0", port=5905, keymap="en-us"),
        video=Video.VIRTIO,
        balloon=None,
        on_reboot=OnReboot.DESTROY,
        autostart=True,
    )
    assert [(nic.type, nic.source, nic.model, nic.target, nic.link) for nic in made.nics] == [
        (NicType.NETWORK, "default", NicModel.E1000, "", True),
        (NicType.BRIDGE, "br0", NicModel.VIRTIO, "tap3", False),
        (NicType.USER, "", NicModel.VIRTIO, "", True),
    ]
    assert macs[0] == "52:54:00:aa:bb:cc"
    assert disks == {
        "/srv/vm.qcow2": ("qcow2", 8 << 20),
        f"{images}/vm01-centos7.4-64-vdb.raw": ("raw", 512 << 10),
    }
    assert toml.loads(toml.dumps(made), Domain, "x") == made


@pytest.mark.parametrize(
    ("line", "fields"),
    [
        ("--ram 2G", {"memory": 2 << 20}),
        ("--memory=maxmemory=2048", {"memory": 1 << 20}),
        ("--virt-type qemu", {"accel": Accel.TCG}),
        ("--cpu host-model", {"cpu": ""}),
        ("--cpu maximum", {"cpu": "max"}),
        ("--cpu qemu64,+ssse3", {"cpu": "qemu64,+ssse3"}),
        ("--vcpus 3", {"vcpus": Vcpus(current=3, maximum=3)}),
        ("--network none", {"nics": 0}),
        ("--network default --network default", {"nics": 2}),
        ("--network type=user", {"nics": 1}),
        ("--graphics none", {"vnc": None, "video": Video.NONE}),
        ("--graphics vnc", {"vnc": Vnc(), "video": Video.VGA}),
        ("--graphics vnc --machine microvm", {"video": Video.NONE}),
        ("--graphics vnc --video none", {"video": Video.NONE}),
        ("--disk none", {"disks": ()}),
        ("--disk path=none", {"disks": ()}),
        ("--memballoon virtio", {}),
        ("--autoconsole=text", {}),
    ],
)
def test_single_options(tree: Tree, line: str, fields: dict[str, object]) -> None:
    made = domain(tree, line)
    for name, value in fields.items():
        present: object = getattr(made, name)
        if name == "memory":
            present = made.memory.current
        elif name == "nics":
            present = len(made.nics)
        assert present == value


def test_paths_are_made_absolute(tree: Tree, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made, _ = built(tree, "--name vm --boot kernel=k,initrd=../i --disk d.img,size=1")
    assert made.boot.kernel == f"{tmp_path}/k"
    assert made.boot.initrd == f"{tmp_path.parent}/i"
    assert made.disks[0].path == f"{tmp_path}/d.img"


def test_an_existing_disk(tree: Tree, tmp_path: Path) -> None:
    disk = tmp_path / "disk, one"
    disk.touch()
    with pytest.raises(InvalidValue, match="format of existing disk .* must be said"):
        built(tree, f"--name vm --import --disk 'path={tmp_path}/disk,, one'")
    made, new = built(tree, f"--name vm --import --disk 'path={tmp_path}/disk,, one,format=raw,readonly'")
    assert made.disks == (Disk(path=str(disk), format=DiskFormat.RAW, target="vda", readonly=True),)
    assert new == {}


REFUSED = {
    KERNEL: "--name is required",
    f"--name 1 {KERNEL}": "domain name '1' is not allowed",
    f"--name a/b {KERNEL}": "domain name 'a/b' is not allowed",
    "--name vm": "nothing to boot from",
    "--name vm --disk none": "nothing to boot from",
    "--name vm --disk size=1": "an empty disk is nothing to boot from",
    "--name vm --extra-args quiet --disk size=1": "an empty disk",
    "--bogus": "unrecognized arguments: --bogus",
    "word": "unrecognized arguments: word",
    "-": "unrecognized arguments: -",
    "--": "unrecognized arguments: --",
    "-name vm": "unrecognized arguments: -name",
    "--name": "argument --name: expected one argument",
    "--name a --name b": "--name was given twice",
    "--name a -n b": "--name was given twice",
    "--import=yes": "--import takes no value",
    "--autoconsole=graphical": "--autoconsole takes no value",
    "--noreboot --noreboot": "--noreboot was given twice",
}
REFUSED_BESIDE = {
    "--uuid 5": "malformed UUID",
    "--memory 0": "too little",
    "--memory 512,maxmemory=256": "higher than max memory",
    "--memory lots": "<memory>",
    "--memory 512,maxmemory=lots": "<maxmemory>",
    "--memory 512,1024": "'1024' is no suboption",
    "--memory 512,hotplug=1": "Unknown --memory options: ['hotplug']",
    "--memory memory=1,memory=2": "memory was given twice",
    "--vcpus 0": "<vcpus>",
    "--vcpus 289": "<vcpus>",
    "--vcpus 2,maxvcpus=1": "2 vcpus are more than the maximum of 1",
    "--vcpus 2,sockets=2": "Unknown --vcpus options: ['sockets']",
    "--cpu 'host -S'": "is not a CPU model",
    "--machine virt": "--machine 'virt' is not known",
    "--virt-type xen": "--virt-type 'xen' is not known",
    "--disk /x,size=0": "--disk size '0' is no size",
    "--disk /x,size=-1": "is no size",
    "--disk /x,size=nan": "is no size",
    "--disk /x,size=inf": "is no size",
    "--disk /x,size=1e99": "is no size",
    "--disk /x,size=8G": "is no size",
    "--disk /x,size=": "is no size",
    "--disk /nonexistent/x": "is not there",
    "--disk /nonexistent/\udcff": "is not there",
    "--disk /x,size=1,format=vmdk": "--disk format 'vmdk' is not known",
    "--disk /x,size=1,bus=nvme": "--disk bus 'nvme' is not known",
    "--disk /x,size=1,readonly=maybe": "yes or no was expected",
    "--disk /x,size=1,target.dev=sda": "disk target 'sda' is not allowed",
    "--disk /x,size=1,serial=a.b": "disk serial 'a.b' is not allowed",
    "--disk /x,size=1 --disk /x,size=1": "disk /x is used twice",
    "--disk /x,size=1,target.dev=vdb --disk /y,size=1,target.dev=vdb": "disk target vdb is used twice",
    "--disk /x,boot_order=1": "Unknown --disk options: ['boot_order']",
    "--network network=a,bridge=b": "exclude each other",
    "--network user,network=a": "exclude each other",
    "--network type=bridge,network=a": "exclude each other",
    "--network none --network default": "--network none excludes any other",
    "--network default,mac=x": "malformed mac address",
    "--network default,model=ne2k": "--network model 'ne2k' is not known",
    "--network default,link.state=off": "link.state 'off' is not known",
    "--network a/b": "network name 'a/b' is not allowed",
    "--network bridge=": "interface name '' is not allowed",
    "--network user,target=tap0": "neither source nor target",
    "--graphics spice": "--graphics spice is not supported",
    "--graphics vnc,port=80": "<port>",
    "--graphics vnc,listen=any": "not an IP address",
    "--graphics vnc,password=x": "Unknown --graphics options: ['password']",
    "--video tseng": "--video model 'tseng' is not known",
    "--machine microvm --video vga": "takes no video card",
    "--memballoon xen": "--memballoon model 'xen' is not known",
    "--metadata title='a\nb'": "control character",
    "--metadata title=\udcff": "not UTF-8",
    "--metadata description=\udcff": "not UTF-8",
    "--extra-args '\udcff'": "not UTF-8",
}


@pytest.mark.parametrize("line", [*REFUSED, *REFUSED_BESIDE])
def test_refused(tree: Tree, line: str) -> None:
    with pytest.raises((InvalidValue, HostError)) as caught:
        built(tree, line if line in REFUSED else f"--name vm {KERNEL} {line}")
    assert (REFUSED | REFUSED_BESIDE)[line] in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("boot", ["cdrom", "hd,network", "loader=/x"])
def test_other_ways_to_boot_are_refused(tree: Tree, boot: str) -> None:
    with pytest.raises(InvalidValue):
        built(tree, f"--name vm --disk /x,size=1 --boot {boot}")


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
    ]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(OPTIONS)), st.lists(WORDS, max_size=6).map("".join)), max_size=4))
def test_no_line_breaks_it(given_options: list[tuple[str, str]]) -> None:
    line = ["--name=vm", "--boot=kernel=/k"] if not given_options or given_options[0][0] != "name" else []
    line += [f"--{name}={value}" if OPTIONS[name] is not None else f"--{name}" for name, value in given_options]
    try:
        made, _ = install.build(Tree("/nonexistent"), read(line))
    except QkvmError as error:
        assert str(error).isprintable()
    else:
        # What was accepted can be stored.
        assert toml.loads(toml.dumps(made).encode(), Domain, "x") == replace(made)


# The parts.


def test_suboptions() -> None:
    assert split("network", "default,model=e1000").values == {"": "default", "model": "e1000"}
    assert split("disk", "/a,,b,readonly").values == {"path": "/a,b", "readonly": "yes"}
    assert split("disk", "path=/a=b").values == {"path": "/a=b"}
    assert split("boot", "kernel=/k,kernel_args=a=b c").values == {"kernel": "/k", "kernel_args": "a=b c"}
    for text in ("", ",", "a,", "=x,"):
        with pytest.raises(InvalidValue):
            split("disk", text)


@pytest.mark.parametrize(
    ("text", "value"), [("on", True), ("YES", True), ("1", True), ("off", False), ("No", False)]
)
def test_yes_or_no(text: str, value: bool) -> None:
    assert split("disk", f"/x,readonly={text}").flag("readonly") is value


def test_what_was_not_given() -> None:
    options = Options({})
    assert not options.has("name")
    assert options.single("machine", "q35") == "q35"
    assert options.first("disk").values == {}
    assert options.each("disk") == []


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--disk=?"], "--disk options:\n  bus\n"),
        (["--name", "vm", "--network=?", "--boot=?"], "--network options:\n  bridge\n"),
        (["--help"], "NAME\n    install - "),
        ([], "NAME\n    install - "),
    ],
)
def test_questions_make_nothing(
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


def test_describe() -> None:
    assert describe("--disk") == (
        "--disk options:\n  bus\n  format\n  path\n  readonly\n  serial\n  size\n  target.dev\n"
    )
    assert describe("-w").startswith("--network options:\n  bridge\n")
    assert describe("--name") == "--name NAME\n"
    assert describe("--import") == "--import\n"
    with pytest.raises(InvalidValue, match="unrecognized arguments: --bogus"):
        describe("--bogus")
