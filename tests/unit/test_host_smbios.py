"""SMBIOS tables of firmware that is right, old, terse or damaged."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from machines import build

from qkvm.errors import HostError
from qkvm.host.node import smbios

TABLES = "sys/firmware/dmi/tables"
UUID = bytes.fromhex("00112233445566778899aabbccddeeff")


def structure(kind: int, body: bytes, *strings: bytes) -> bytes:
    head = struct.pack("<BBH", kind, len(body) + 4, kind)
    return head + body + (b"\0".join(strings) + b"\0\0" if strings else b"\0\0")


BIOS = structure(0, bytes([1, 2, 0, 0, 3]) + bytes(11) + bytes([4, 7]), b"ACME", b"1.2", b"01/02/2024")
SYSTEM = structure(1, bytes([1, 2, 0, 3]) + UUID + bytes([6, 0, 4]), b"ACME", b"Box", b"S\x1bN\xff1", b"Family")
BOARD = structure(2, bytes([1, 2, 3, 4, 5, 0, 6]), b"ACME", b"B1", b"r1", b"sn", b"tag", b"slot")
CHASSIS = structure(
    3, bytes([1, 17, 2, 3, 4]) + bytes(10) + bytes([2, 3]) + bytes(6) + bytes([5]), b"A", b"v", b"s", b"t", b"sku"
)
CPU = structure(
    4,
    bytes([1, 3, 0xB3, 2])
    + struct.pack("<II", 0x50657, 0)
    + bytes([3, 0])
    + struct.pack("<HHH", 100, 4000, 2100)
    + bytes([0x41, 0, 0, 0, 0, 0, 0, 0, 4, 0, 5]),
    b"CPU0",
    b"Intel",
    b"Example CPU",
    b"sn",
    b"pn",
)
OEM = structure(11, bytes([2]), b"one", b"two", b"not counted")
END = structure(127, b"")


def memory(size: int, extended: int = 0) -> bytes:
    body = struct.pack("<HHHHH", 0, 0, 64, 64, size) + bytes([9, 0, 1, 2, 0x1A]) + struct.pack("<HH", 0x2080, 3200)
    return structure(
        17, body + bytes([3, 4, 0, 5, 0]) + struct.pack("<I", extended), b"D0", b"B0", b"M", b"S", b"P"
    )


def read(*structures: bytes, version: tuple[int, int] = (3, 0)) -> dict[str, dict[str, str]]:
    return {part.kind: dict(part.entries) for part in smbios.read_tables(b"".join(structures), version)}


def test_a_whole_machine() -> None:
    found = smbios.read_tables(b"".join((OEM, memory(0x4000), memory(0), CPU, CHASSIS, BOARD, SYSTEM, BIOS, END)))
    # libvirt's order, not the firmware's; an empty slot is no memory.
    assert [part.kind for part in found] == [
        "bios",
        "system",
        "baseBoard",
        "chassis",
        "processor",
        "memory_device",
        "oemStrings",
    ]
    parts = {part.kind: dict(part.entries) for part in found}
    assert parts["bios"] == {"vendor": "ACME", "version": "1.2", "date": "01/02/2024", "release": "4.7"}
    assert parts["system"] == {
        "manufacturer": "ACME",
        "product": "Box",
        "serial": "S.N.1",
        "family": "Family",
        "uuid": "33221100-5544-7766-8899-aabbccddeeff",
    }
    assert parts["baseBoard"]["location"] == "slot" and parts["chassis"]["sku"] == "sku"
    assert parts["processor"] == {
        "socket_destination": "CPU0",
        "type": "Central Processor",
        "family": "Xeon",
        "manufacturer": "Intel",
        "signature": "Type 0, Family 6, Model 85, Stepping 7",
        "version": "Example CPU",
        "external_clock": "100 MHz",
        "max_speed": "4000 MHz",
        "status": "Populated, Enabled",
        "serial_number": "sn",
        "part_number": "pn",
    }
    assert parts["memory_device"] == {
        "size": "16 GB",
        "form_factor": "DIMM",
        "locator": "D0",
        "bank_locator": "B0",
        "type": "DDR4",
        "type_detail": "Synchronous Registered (Buffered)",
        "speed": "3200 MT/s",
        "manufacturer": "M",
        "serial_number": "S",
        "part_number": "P",
    }
    assert found[-1].entries == [("", "one"), ("", "two")]


def test_an_old_uuid_is_big_endian() -> None:
    assert read(SYSTEM, version=(2, 4))["system"]["uuid"] == "00112233-4455-6677-8899-aabbccddeeff"
    for filler in (b"\0", b"\xff"):
        assert "uuid" not in read(structure(1, bytes([1, 0, 0, 0]) + filler * 16, b"A"))["system"]


@pytest.mark.parametrize(
    ("size", "extended", "shown"),
    [
        (512, 0, "512 MB"),
        (0x8000 | 640, 0, "640 kB"),
        (0x7FFF, 1 << 20, "1 TB"),
        (0x7FFF, 49152, "48 GB"),
        (1536, 0, "1536 MB"),
        (0xFFFF, 0, None),
    ],
)
def test_sizes_of_memory(size: int, extended: int, shown: str | None) -> None:
    assert read(memory(size, extended))["memory_device"].get("size") == shown


def test_a_terse_old_table() -> None:
    """SMBIOS 2.0 has shorter structures."""
    assert read(structure(0, bytes([1, 2, 0, 0, 3]), b"V", b"1", b"D"))["bios"] == {
        "vendor": "V",
        "version": "1",
        "date": "D",
    }
    assert read(structure(1, bytes([1, 0, 0, 0]), b"V"))["system"] == {"manufacturer": "V"}
    empty = read(structure(4, bytes([0, 3, 2, 0]) + bytes(16) + bytes([0])))["processor"]
    assert empty == {
        "type": "Central Processor",
        "family": "Unknown",
        "external_clock": "Unknown",
        "max_speed": "Unknown",
        "status": "Unpopulated",
    }
    assert read(structure(11, bytes([0]))) == {}


@given(st.binary(max_size=300))
def test_any_bytes_are_survived(raw: bytes) -> None:
    smbios.read_tables(raw)
    smbios.document(smbios.read_tables(raw + SYSTEM + raw))


def test_from_files(tmp_path: Path) -> None:
    with pytest.raises(HostError, match="Host SMBIOS information is not available"):
        smbios.parts(str(tmp_path))
    assert smbios.uuid(str(tmp_path)) == "" and smbios.parts_or_none(str(tmp_path)) == []
    # An ordinary user sees the kernel's copies alone, and not the serial numbers.
    root = build(
        tmp_path,
        {
            "sys/class/dmi/id/bios_vendor": "ACME",
            "sys/class/dmi/id/sys_vendor": "A\x07B",
            "sys/class/dmi/id/board_name": "B1",
            "sys/class/dmi/id/chassis_asset_tag": "",
        },
    )
    kernel = [
        ("bios", [("vendor", "ACME")]),
        ("system", [("manufacturer", "A.B")]),
        ("baseBoard", [("product", "B1")]),
    ]
    assert smbios.parts(root) == kernel
    build(tmp_path, {f"{TABLES}/DMI": SYSTEM + END, f"{TABLES}/smbios_entry_point": b"_SM_\0\0\x02\x04"})
    assert smbios.uuid(root) == "00112233-4455-6677-8899-aabbccddeeff"
    build(tmp_path, {f"{TABLES}/smbios_entry_point": b"_SM3_\0\0\x03\x02\x00"})
    assert smbios.uuid(root) == "33221100-5544-7766-8899-aabbccddeeff"


def test_libvirts_document() -> None:
    assert (
        smbios.document(smbios.read_tables(SYSTEM + OEM))
        == """\
<sysinfo type='smbios'>
  <system>
    <entry name='manufacturer'>ACME</entry>
    <entry name='product'>Box</entry>
    <entry name='serial'>S.N.1</entry>
    <entry name='uuid'>33221100-5544-7766-8899-aabbccddeeff</entry>
    <entry name='family'>Family</entry>
  </system>
  <oemStrings>
    <entry>one</entry>
    <entry>two</entry>
  </oemStrings>
</sysinfo>
"""
    )
