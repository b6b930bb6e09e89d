"""What a definition may say, and every refusal."""

from __future__ import annotations

from typing import Any

import pytest
from golden_cases import DISKS, MACHINES, NICS, full, minimal
from msgspec.structs import replace

from qkvm.errors import InvalidValue
from qkvm.spec.domain import (
    Balloon,
    Boot,
    Credential,
    Disk,
    DiskBus,
    DiskFormat,
    DiskKind,
    Machine,
    Memory,
    Nic,
    NicFilter,
    NicModel,
    NicType,
    SourceMode,
    Throttle,
    UserBackend,
    Vcpus,
    Vhost,
    Video,
    Vlan,
    Vnc,
    index_of,
    next_target,
    target_name,
    validate,
)
from qkvm.spec.forward import PortForward
from qkvm.spec.size import Size

DISK = DISKS[0]
NIC = NICS[0]
SLOW = Throttle(group_name="slow", total_iops_sec=10)
USER_NIC = replace(NIC, type=NicType.USER, source="")
CLEAN = replace(NIC, filter=NicFilter.CLEAN_TRAFFIC)


def memory(current: int, maximum: int) -> Memory:
    return Memory(current=Size(current), maximum=Size(maximum))


@pytest.mark.parametrize("machine", MACHINES)
def test_what_is_right_comes_back(machine: Machine) -> None:
    for domain in (minimal(machine), full(machine)):
        assert validate(domain) == domain


def test_uuid_and_mac_get_their_usual_form() -> None:
    plain = replace(minimal(Machine.Q35), nics=(NIC,))
    loud = replace(plain, uuid=plain.uuid.upper().replace("-", ""), nics=(replace(NIC, mac="52-54-00-00-00-01"),))
    assert validate(loud) == plain


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"name": ""}, "must not be empty"),
    ({"name": "a b"}, "domain name 'a b' is not allowed"),
    ({"name": "../x"}, "is not allowed"),
    ({"name": "12"}, "domain name '12' is not allowed"),
    ({"uuid": "x"}, "malformed UUID"),
    ({"title": "a\nb"}, "control character"),
    ({"title": "\udcff"}, "not UTF-8"),
    ({"description": "\udcff"}, "not UTF-8"),
    ({"cpu": "max -S"}, "is not a CPU model"),
    ({"cpu": "max\n"}, "is not a CPU model"),
    ({"memory": memory(0, 1024)}, "too little"),
    ({"memory": memory(-5, 1024)}, "too little"),
    ({"memory": memory(2048, 1024)}, "cannot set memory higher than max memory: 2MiB > 1MiB"),
    ({"memory": memory(2048, (1 << 42) + 1)}, "too much"),
    ({"vcpus": Vcpus(current=0)}, "too few"),
    ({"vcpus": Vcpus(current=1, maximum=0)}, "too few"),
    ({"vcpus": Vcpus(current=-1, maximum=-1)}, "too few"),
    ({"vcpus": Vcpus(current=3, maximum=2)}, "3 vcpus are more than the maximum of 2"),
    ({"vcpus": Vcpus(current=1, maximum=289)}, "too many"),
    ({"boot": Boot(kernel="vmlinuz")}, "kernel 'vmlinuz' is not an absolute path"),
    ({"boot": Boot(kernel="/k", initrd="i")}, "initrd 'i' is not an absolute path"),
    ({"boot": Boot(kernel="/k\udcff")}, "not UTF-8"),
    ({"boot": Boot(kernel="/k", cmdline="a\nb")}, "control character"),
    ({"boot": Boot(initrd="/i")}, "need a kernel"),
    ({"boot": Boot(cmdline="quiet")}, "need a kernel"),
    ({"disks": (replace(DISK, path="disk.img"),)}, "not an absolute path"),
    ({"disks": (replace(DISK, path="/a\nb"),)}, "control character"),
    *[
        ({"disks": (replace(DISK, target=target),)}, "is not allowed")
        for target in ("", "vd", "vd1", "vdA", "vdaaaa", "sda", "vd\n")
    ],
    *[
        ({"disks": (replace(DISK, serial=serial),)}, "disk serial")
        for serial in ("a b", "a,b", "é", "x" * 21, "a.b")
    ],
    ({"disks": (DISK, replace(DISK, path="/other"))}, "disk target vda is used twice"),
    ({"disks": (DISK, replace(DISK, target="vdb"))}, "disk /var/lib/qkvm/images/a, b.qcow2 is used twice"),
    ({"nics": (replace(NIC, mac="52:54:00"),)}, "malformed mac address"),
    ({"nics": (replace(NIC, mac="01:00:5e:00:00:01"),)}, "unicast"),
    ({"nics": (NIC, replace(NIC, source="other"))}, "mac address 52:54:00:00:00:01 is used twice"),
    ({"nics": (NIC, replace(NIC, mac=NIC.mac.replace(":", "-")))}, "is used twice"),
    ({"nics": (replace(NIC, source=""),)}, "network name must not be empty"),
    ({"nics": (replace(NIC, source="a/b"),)}, "network name 'a/b' is not allowed"),
    ({"nics": (replace(NIC, type=NicType.BRIDGE, source="a:b"),)}, "interface name 'a:b' is not allowed"),
    ({"nics": (replace(NIC, type=NicType.BRIDGE, source=""),)}, "interface name '' is not allowed"),
    ({"nics": (replace(NIC, type=NicType.USER),)}, "neither source nor target"),
    ({"nics": (replace(NIC, type=NicType.USER, source="", target="tap0"),)}, "neither source nor target"),
    ({"nics": (replace(NIC, target="x" * 16),)}, "too long"),
    ({"nics": (replace(NIC, backend=UserBackend.PASST),)}, "is for type user alone"),
    ({"nics": (replace(NIC, forwards=(PortForward(ports="80"),)),)}, "are for type user"),
    ({"nics": (replace(USER_NIC, forwards=(PortForward(ports="0"),)),)}, "port 0 is out of range"),
    ({"nics": (replace(USER_NIC, forwards=(PortForward(ports="80"),) * 2),)}, "forward tcp 80 is in the way of"),
    (
        {
            "nics": (
                replace(USER_NIC, forwards=(PortForward(ports="80"),)),
                replace(
                    USER_NIC, mac="52:54:00:00:00:09", forwards=(PortForward(ports="70-90", listen="192.0.2.1"),)
                ),
            )
        },
        "forward tcp 192.0.2.1:70-90 is in the way of forward tcp 80",
    ),
    (
        {
            "nics": (
                replace(USER_NIC, backend=UserBackend.SLIRP, forwards=(PortForward(ports="8080", listen="::1"),)),
            )
        },
        "slirp forwards IPv4 alone",
    ),
    ({"nics": (replace(NIC, type=NicType.USER, source="", isolated=True),)}, "type user can't be isolated"),
    ({"nics": (replace(NIC, type=NicType.DIRECT, source=""),)}, "interface name '' is not allowed"),
    (
        {"nics": (replace(NIC, type=NicType.DIRECT, source="eth0", isolated=True),)},
        "type direct can't be isolated",
    ),
    ({"nics": (replace(CLEAN, type=NicType.DIRECT, source="eth0"),)}, "type direct can't be filtered"),
    ({"nics": (replace(NIC, source_mode=SourceMode.BRIDGE),)}, "source_mode of 52:54:00:00:00:01 is for type dir"),
    ({"nics": (replace(NIC, vlan=Vlan(tags=(0,))),)}, "VLAN tag of 52:54:00:00:00:01 0 is out of range"),
    ({"nics": (replace(NIC, vlan=Vlan(tags=(4095,))),)}, "VLAN tag of 52:54:00:00:00:01 4095 is out of range"),
    ({"nics": (replace(NIC, vlan=Vlan(tags=(5, 5), trunk=True)),)}, "VLAN tag of 52:54:00:00:00:01 5 is used tw"),
    ({"nics": (replace(NIC, vlan=Vlan(tags=())),)}, "has no tags"),
    ({"nics": (replace(NIC, vlan=Vlan(tags=(1, 2))),)}, "several VLAN tags of 52:54:00:00:00:01 are a trunk"),
    ({"nics": (replace(NIC, vlan=Vlan(tags=(1,), trunk=True, native=2)),)}, "native VLAN 2 of 52:54:00:00:00:01"),
    ({"nics": (replace(CLEAN, vlan=Vlan(tags=(1,), trunk=True)),)}, "can't look behind the tags of a trunk"),
    ({"nics": (replace(NIC, queues=0),)}, "queues of 52:54:00:00:00:01 0 is out of range"),
    ({"nics": (replace(NIC, queues=257),)}, "queues of 52:54:00:00:00:01 257 is out of range"),
    ({"nics": (replace(NIC, queues=2, model=NicModel.E1000),)}, "model e1000 has no several queues"),
    ({"nics": (replace(NIC, vhost=Vhost.ON, model=NicModel.E1000),)}, "model e1000 has no vhost"),
    ({"nics": (replace(NIC, queues=2, type=NicType.USER, source=""),)}, "type user and model virtio has no sev"),
    ({"nics": (replace(NIC, ip=("10.0.0.1",)),)}, "ip of 52:54:00:00:00:01 says what a filter lets through"),
    ({"nics": (replace(CLEAN, type=NicType.BRIDGE, source="br0"),)}, "nobody tells the guest's addresses"),
    ({"nics": (replace(CLEAN, ip=("10.0.0.1/24",)),)}, "is no address"),
    ({"nics": (replace(CLEAN, ip=("fe80::1%eth0",)),)}, "is no address"),
    ({"nics": (replace(CLEAN, ip=("FD00::1",)),)}, "is not in its usual form"),
    ({"nics": (replace(CLEAN, ip=("0.0.0.0",)),)}, "can be no guest's"),
    ({"nics": (replace(CLEAN, ip=("224.0.0.1",)),)}, "can be no guest's"),
    ({"nics": (replace(CLEAN, ip=("10.0.0.1", "10.0.0.1")),)}, "ip of 52:54:00:00:00:01 10.0.0.1 is used twice"),
    ({"nics": (replace(NIC, target="a b"),)}, "is not allowed"),
    (
        {"nics": (replace(NIC, target="tap0"), replace(NIC, mac="52:54:00:00:00:09", target="tap0"))},
        "target tap0 is used twice",
    ),
    ({"credentials": (Credential(name="a"),)}, "credential 'a' has neither a value nor a file"),
    ({"credentials": (Credential(name="a", value="b", file="/c"),)}, "credential 'a' has both a value and a file"),
    ({"credentials": (Credential(name="a", file="c"),)}, "file of credential a 'c' is not an absolute path"),
    ({"credentials": (Credential(name="a", value="\udcff"),)}, "value of credential 'a' is not UTF-8 text"),
    ({"credentials": (Credential(name="a", value="x" * 36900),)}, "in base64, 49152 at most"),
    ({"credentials": 2 * (Credential(name="a", value="b"),)}, "credential a is used twice"),
    ({"credentials": tuple(Credential(name=f"{n}", value="b") for n in range(65))}, "65 credentials are too many"),
    *(
        ({"credentials": (Credential(name=name, value="b"),)}, f"credential name '{shown}' is not allowed")
        for name, shown in (("", ""), (".", "."), ("..", ".."), ("a/b", "a/b"), ("a:b", "a:b"), ("a=b", "a=b"))
    ),
    ({"credentials": (Credential(name="ü", value="b"),)}, "credential name 'ü' is not allowed"),
    ({"credentials": (Credential(name="a\n", value="b"),)}, "credential name 'a\\n' is not allowed"),
    ({"credentials": (Credential(name="a" * 256, value="b"),)}, "is not allowed"),
    ({"vnc": Vnc(listen="")}, "not an IP address"),
    ({"vnc": Vnc(listen="localhost")}, "not an IP address"),
    ({"vnc": Vnc(listen="127.0.0.1,password=on")}, "not an IP address"),
    ({"vnc": Vnc(port=0)}, "vnc port 0 is out of range"),
    ({"vnc": Vnc(port=5899)}, "out of range"),
    ({"vnc": Vnc(port=65536)}, "out of range"),
    ({"vnc": Vnc(keymap="../x")}, "keymap"),
    ({"vnc": Vnc(keymap="de de")}, "keymap"),
    ({"balloon": Balloon(stats_period=-1)}, "stats_period -1 is out of range"),
    ({"balloon": Balloon(stats_period=86401)}, "out of range"),
    ({"disks": (replace(DISK, throttle_groups=("slow",)),)}, "disk vda: throttle group 'slow' not found"),
    ({"disks": (replace(DISK, throttle_groups=("slow", "slow")),), "throttle_groups": (SLOW,)}, "is used twice"),
    (
        {"disks": (replace(DISK, throttle_groups=("slow",), throttle=Throttle()),), "throttle_groups": (SLOW,)},
        "can't be used together with limits of its own",
    ),
    (
        {
            "disks": (
                Disk(
                    format=DiskFormat.RAW,
                    target="sda",
                    bus=DiskBus.SATA,
                    device=DiskKind.CDROM,
                    throttle_groups=("slow",),
                ),
            ),
            "throttle_groups": (SLOW,),
        },
        "a cdrom with throttle groups isn't supported",
    ),
    ({"throttle_groups": (SLOW, SLOW)}, "throttle group slow is used twice"),
    ({"throttle_groups": (Throttle(total_iops_sec=1),)}, "a throttle group has no name"),
    ({"throttle_groups": (replace(SLOW, read_iops_sec=1),)}, "at the same time for throttle group 'slow'"),
    ({"throttle_groups": (replace(SLOW, group_name="a b"),)}, "'a b' is not allowed"),
    ({"root_ports": -1}, "root_ports -1 is out of range"),
    ({"root_ports": 25}, "out of range"),
]


@pytest.mark.parametrize(("changes", "words"), REFUSED, ids=range(len(REFUSED)))
def test_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        validate(replace(minimal(Machine.Q35), **changes))
    assert words in str(caught.value)
    assert str(caught.value).isprintable()


MICROVM_REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"boot": Boot()}, "boots a kernel given directly"),
    ({"video": Video.VGA}, "takes no video card"),
    ({"vcpus": Vcpus(current=1, maximum=2)}, "maximum 2 must be 1"),
    ({"nics": (replace(NIC, model=NicModel.E1000),)}, "no PCI bus for a NIC of model e1000"),
]


@pytest.mark.parametrize(("changes", "words"), MICROVM_REFUSED)
def test_microvm_refuses(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidValue, match=words):
        validate(replace(minimal(Machine.MICROVM), **changes))


def test_what_machines_can_do() -> None:
    assert {machine for machine in Machine if machine.hotplugs_vcpus} == {Machine.Q35, Machine.PC}
    assert {machine for machine in Machine if machine.hotplugs_pci} == {Machine.Q35, Machine.PC}


def test_disk_names_are_given_in_order() -> None:
    assert next_target(set()) == "vda"
    assert next_target({"vda", "vdc"}) == "vdb"
    assert next_target({f"vd{letter}" for letter in "abcdefghijklmnopqrstuvwxyz"}) == "vdaa"
    assert [index_of(name) for name in ("vda", "vdz", "vdaa", "sdzz")] == [0, 25, 26, 701]
    assert [target_name(DiskBus.SATA, index) for index in (0, 25, 26, 701)] == ["sda", "sdz", "sdaa", "sdzz"]


def test_the_most_disks_that_have_names_are_valid() -> None:
    disks = tuple(
        Disk(path=f"/{letter}", format=DiskFormat.RAW, target=f"vd{letter}")
        for letter in "abcdefghijklmnopqrstuvwxyz"
    )
    assert validate(replace(minimal(Machine.Q35), disks=disks)).disks == disks


def test_a_nic_needs_no_more_than_its_mac_and_source() -> None:
    nic = Nic(mac="52:54:00:00:00:01", source="default")
    assert (nic.type, nic.model, nic.target, nic.link) == (NicType.NETWORK, NicModel.VIRTIO, "", True)


def test_machine_types_by_qemus_names() -> None:
    assert Machine.parse("pc-q35-7.2") == (Machine.Q35, "7.2")
    assert Machine.parse("pc-i440fx-rhel7.6.0") == (Machine.PC, "rhel7.6.0")
    assert [Machine.parse(str(machine)) for machine in Machine] == [(machine, "") for machine in Machine]
    for name in ("isapc", "pc-7.2", "microvm-7.2", "-7.2"):
        with pytest.raises(ValueError):
            Machine.parse(name)
    assert [machine.versioned("9.1") for machine in Machine] == ["pc-q35-9.1", "pc-i440fx-9.1", "microvm"]
    for version in ("7.2", "4.0.1", "rhel9.6.0", "noble-hpb", ""):
        assert validate(replace(minimal(Machine.PC), machine_version=version))
    for version in ("7.2,accel=kvm", ".2", "7 2", "٧.2", "-7"):
        with pytest.raises(InvalidValue, match="is not one"):
            validate(replace(minimal(Machine.PC), machine_version=version))
