"""What an agent says of its guest, a hostile one included, as qkvm understands and shows it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from qkvm.cli.domain.guest import _calendar, _parameters
from qkvm.cli.domain.monitor import _ascii
from qkvm.domain.guest import filesystems as guestfs
from qkvm.domain.guest import info as guestinfo
from qkvm.domain.guest import users as guestuser
from qkvm.domain.guest.info import DiskAddress, Interface, IpAddress, PciAddress
from qkvm.domain.watch.address import _leads_there
from qkvm.errors import InvalidValue
from qkvm.net.dhcp.address import Address
from qkvm.spec import domain as spec

MAC = "52:54:00:12:34:56"


def interface(*addresses: tuple[str, int]) -> Interface:
    told = tuple(IpAddress(ip_address_type="ipv4", ip_address=ip, prefix=prefix) for ip, prefix in addresses)
    return Interface(name="eth0", hardware_address=MAC.upper(), ip_addresses=told)


def test_addresses_are_addresses() -> None:
    listed = [
        interface(("10.0.0.2", 24), ("10.0.0.3\x1b[2J", 24), ("fe80::1", 999), ("10.0.0.4", -1), ("", 0)),
        interface(("nonsense", 8)),
        Interface(name="lo"),
    ]
    assert guestinfo.addresses(listed) == [
        Address(MAC, "10.0.0.2", 24, "agent", "eth0"),
        Address(MAC, "fe80::1", 128, "agent", "eth0"),
        Address(MAC, "10.0.0.4", 0, "agent", "eth0"),
        Address(MAC, "", 0, "agent", "eth0"),
        Address("", "", 0, "agent", "lo"),
    ]


@pytest.mark.parametrize(
    ("ip", "leads"),
    [
        ("10.0.0.2", True),
        ("2001:db8::1", True),
        ("", False),
        ("127.0.0.1", False),
        ("::1", False),
        ("fe80::1", False),
        ("169.254.3.4", False),
    ],
)
def test_which_addresses_lead_to_a_guest(ip: str, leads: bool) -> None:
    assert _leads_there(ip) is leads


def parameters(**told: Any) -> dict[str, object]:
    """Parameters of what an agent tells, given as it does: JSON."""
    found = {}
    for group, value in told.items():
        kind = guestinfo.COMMANDS[group][1]
        found[group] = msgspec.json.decode(msgspec.json.encode(value), type=kind)
    return dict(_parameters(found, {}))


def test_parameters_of_a_guest_that_says_little() -> None:
    assert parameters(user=[], os={}, timezone={"offset": -3600}, filesystem=[], disk=[], interface=[]) == {
        "user.count": 0,
        "timezone.offset": -3600,
        "fs.count": 0,
        "disk.count": 0,
        "if.count": 0,
    }


def test_load_averages() -> None:
    assert parameters(load={"load1m": 0.25, "load5m": 1, "load15m": 12.5}) == {
        "load.1m": "0.250000",
        "load.5m": "1.000000",
        "load.15m": "12.500000",
    }


def test_parameters_of_a_guest_that_says_strange_things() -> None:
    users = [{"user": "a", "login-time": 1.5}, {"user": "b", "login-time": 1e300}, {"user": "c", "login-time": -9}]
    shown = parameters(user=users, os={"id": "x", "future": [1]})
    assert [shown[f"user.{number}.login-time"] for number in range(3)] == [1500, 10**18, 0]
    assert shown["os.id"] == "x" and not any("future" in name for name in shown)


def test_parameters_of_disks() -> None:
    address = {
        "bus-type": "virtio",
        "bus": 0,
        "target": 0,
        "unit": 0,
        "serial": "s",
        "dev": "/dev/vda",
        "pci-controller": {"domain": 0, "bus": 1, "slot": 2, "function": 0},
    }
    shown = parameters(
        disk=[
            {
                "name": "/dev/vda1",
                "partition": True,
                "dependencies": ["/dev/vda"],
                "address": address,
                "alias": "x",
            }
        ],
        filesystem=[{"name": "vda1", "mountpoint": "/", "type": "ext4", "disk": [address], "used-bytes": 5}],
    )
    assert shown == {
        "fs.count": 1,
        "fs.0.name": "vda1",
        "fs.0.mountpoint": "/",
        "fs.0.fstype": "ext4",
        "fs.0.used-bytes": 5,
        "fs.0.disk.count": 1,
        "fs.0.disk.0.serial": "s",
        "fs.0.disk.0.device": "/dev/vda",
        "disk.count": 1,
        "disk.0.name": "/dev/vda1",
        "disk.0.partition": True,
        "disk.0.dependency.count": 1,
        "disk.0.dependency.0.name": "/dev/vda",
        "disk.0.serial": "s",
        "disk.0.guest_alias": "x",
    }


def test_a_time_that_no_calendar_has() -> None:
    assert _calendar(0) == "1970-01-01 00:00:00"
    assert _calendar(1 << 62) == str(1 << 62)


def test_json_text_for_a_terminal() -> None:
    assert _ascii('{"a": "b"}') == '{"a": "b"}'
    assert _ascii('"\x7f"') == '"\\u007f"'
    assert _ascii('"é\x9b\x7f\u202e😀"') == '"\\u00e9\\u009b\\u007f\\u202e\\ud83d\\ude00"'
    assert msgspec.json.decode(_ascii('"é😀"')) == "é😀"


def disk(target: str, bus: spec.DiskBus, **more: Any) -> spec.Disk:
    return spec.Disk(path="/x", format=spec.DiskFormat.RAW, target=target, bus=bus, **more)


def at(kind: str, target: int = 0, unit: int = 0, serial: str = "") -> DiskAddress:
    pci = PciAddress(domain=0, bus=1, slot=0, function=0)
    return DiskAddress(bus_type=kind, bus=0, target=target, unit=unit, pci_controller=pci, serial=serial)


@pytest.mark.parametrize(
    ("address", "device", "found", "same"),
    [
        (at("virtio"), "disk-vda", disk("vda", spec.DiskBus.VIRTIO), True),
        (at("virtio"), "net0", disk("vda", spec.DiskBus.VIRTIO), False),
        (at("scsi", unit=1), "scsi0", disk("sdb", spec.DiskBus.SCSI), True),
        (at("scsi", unit=2), "scsi0", disk("sdb", spec.DiskBus.SCSI), False),
        (at("scsi", unit=1), "scsi1", disk("sdb", spec.DiskBus.SCSI), False),
        (at("sata", serial="abc"), "", disk("sda", spec.DiskBus.SATA, serial="abc"), True),
        (at("sata"), "", disk("sda", spec.DiskBus.SATA), False),
    ],
)
def test_which_disk_an_address_is(address: DiskAddress, device: str, found: spec.Disk, same: bool) -> None:
    assert guestfs._is_at(address, device, "disk-vda", found) is same


def test_pci_devices_behind_bridges() -> None:
    inner = {"bus": 1, "slot": 0, "function": 0, "qdev_id": "disk-vda"}
    bridge = {"bus": 0, "slot": 5, "function": 1, "qdev_id": "rp0", "pci_bridge": {"bus": {}, "devices": [inner]}}
    host = {"bus": 0, "slot": 0, "function": 0, "qdev_id": ""}
    assert dict(guestfs._walk([{"bus": 0, "devices": [host, bridge]}])) == {
        (0, 5, 1): "rp0",
        (1, 0, 0): "disk-vda",
    }


def test_keys_are_lines() -> None:
    assert guestuser._lines([" ssh-rsa AAAA me \n", "", "# no", "  "]) == ["ssh-rsa AAAA me"]
    with pytest.raises(InvalidValue):
        guestuser._lines(["ssh-rsa AAAA\nssh-rsa BBBB"])
