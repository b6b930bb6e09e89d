"""What the firmware tells of this machine: SMBIOS (DMTF DSP0134), as in virsh sysinfo.

Root can read the tables; other users get the few strings that the kernel shows. Values are worded as by dmidecode
and libvirt; what the firmware leaves out is left out.
"""

from __future__ import annotations

import os
import struct
from typing import NamedTuple

from qkvm import xml
from qkvm.errors import HostError
from qkvm.files import entries
from qkvm.host.node import sysfs
from qkvm.units import format_uuid

_TABLES = "/sys/firmware/dmi/tables"
_STRINGS = "/sys/class/dmi/id"


class Part(NamedTuple):
    """One part of the machine: libvirt's element for it, and its entries (name, value)."""

    kind: str
    entries: list[tuple[str, str]]


class _Structure(NamedTuple):
    """One structure of the tables: its type, its formatted area, its strings (numbered from 1)."""

    kind: int
    data: bytes
    strings: list[str]

    def string(self, offset: int) -> str:
        """Return the string whose number is at an offset."""
        number = self.byte(offset)
        return self.strings[number - 1] if 0 < number <= len(self.strings) else ""

    def byte(self, offset: int) -> int:
        return self.data[offset] if offset < len(self.data) else 0

    def integer(self, offset: int, size: int) -> int:
        """Return a little-endian number; 0 where the structure is of an older version without it."""
        raw = self.data[offset : offset + size]
        return int.from_bytes(raw, "little") if len(raw) == size else 0


def parts(root: str = "") -> list[Part]:
    """Return all parts, in libvirt's order. :raises HostError: the kernel has no SMBIOS of this machine."""
    found = read_tables(_bytes(f"{root}{_TABLES}/DMI"), _version(_bytes(f"{root}{_TABLES}/smbios_entry_point")))
    found = found or _from_strings(root)
    if not found:
        words = "unsupported configuration: Host SMBIOS information is not available"
        raise HostError(words, hint=f"the kernel shows none in {_STRINGS}")
    return found


def uuid(root: str = "") -> str:
    """Return the machine's UUID, empty where the firmware has no valid one."""
    found = [dict(part.entries).get("uuid", "") for part in parts_or_none(root) if part.kind == "system"]
    return found[0] if found and len(set(found[0]) - {"-"}) > 1 else ""


def parts_or_none(root: str = "") -> list[Part]:
    """Return :func:`parts`, or nothing where there is no SMBIOS."""
    try:
        return parts(root)
    except HostError:
        return []


def document(found: list[Part]) -> str:
    """Return the parts as libvirt's XML document."""
    top = xml.element("sysinfo", type="smbios")
    for part in found:
        node = top.add(part.kind)
        for name, value in part.entries:
            # Strings of the vendor have no name.
            node.add("entry", value, name=name or None)
    return xml.dump(top)


def _bytes(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:
            return stream.read()
    except OSError:
        return b""


def _version(entry_point: bytes) -> tuple[int, int]:
    """Return the version in the 32-bit (_SM_) or 64-bit (_SM3_) entry point; the newest where there is none."""
    if entry_point.startswith(b"_SM3_") and len(entry_point) > 8:
        return entry_point[7], entry_point[8]
    if entry_point.startswith(b"_SM_") and len(entry_point) > 7:
        return entry_point[6], entry_point[7]
    return 3, 0


def read_tables(raw: bytes, version: tuple[int, int] = (3, 0)) -> list[Part]:
    """Return the parts in the raw tables; cut or unknown structures are skipped."""
    found: list[Part] = []
    structures = _structures(raw)
    for kind, (name, reader) in _READERS.items():
        for structure in structures:
            if structure.kind == kind:
                values = reader(structure, version)
                if values:
                    found.append(Part(name, values))
    return found


def _structures(raw: bytes) -> list[_Structure]:
    found = []
    place = 0
    while place + 4 <= len(raw):
        kind, length = raw[place], raw[place + 1]
        end = raw.find(b"\0\0", place + length)
        if length < 4 or end < 0:
            break
        strings = raw[place + length : end].split(b"\0") if end > place + length else []
        found.append(_Structure(kind, raw[place : place + length], [_clean(one) for one in strings]))
        if kind == 127:
            break
        place = end + 2
    return found


def _clean(raw: bytes) -> str:
    """Return a string of the firmware, which can be anything, as printable ASCII."""
    return "".join(chr(byte) if 32 <= byte < 127 else "." for byte in raw).strip()


def _given(*values: tuple[str, str]) -> list[tuple[str, str]]:
    return [(name, value) for name, value in values if value]


def _strings(of: _Structure, fields: str) -> list[tuple[str, str]]:
    """Return the strings that a structure has of fields such as 'vendor:04', named with their offsets in hex."""
    pairs = (field.split(":") for field in fields.split())
    return _given(*((name, of.string(int(offset, 16))) for name, offset in pairs))


def _bios(of: _Structure, version: tuple[int, int]) -> list[tuple[str, str]]:
    major, minor = of.byte(0x14), of.byte(0x15)
    known = len(of.data) > 0x15 and (major, minor) != (255, 255)
    release = ("release", f"{major}.{minor}" if known else "")
    return [*_strings(of, "vendor:04 version:05 date:08"), *_given(release)]


def _system(of: _Structure, version: tuple[int, int]) -> list[tuple[str, str]]:
    raw = of.data[0x08:0x18]
    identity = ""
    if len(raw) == 16 and raw.strip(b"\0") and raw.strip(b"\xff"):
        # From 2.6 on the first three fields are little-endian.
        swapped = struct.pack(">IHH", *struct.unpack("<IHH", raw[:8])) + raw[8:] if version >= (2, 6) else raw
        identity = format_uuid(swapped.hex())
    named = _strings(of, "manufacturer:04 product:05 version:06 serial:07")
    return [*named, *_given(("uuid", identity)), *_strings(of, "sku:19 family:1A")]


def _board(of: _Structure, version: tuple[int, int]) -> list[tuple[str, str]]:
    return _strings(of, "manufacturer:04 product:05 version:06 serial:07 asset:08 location:0A")


def _chassis(of: _Structure, version: tuple[int, int]) -> list[tuple[str, str]]:
    # The SKU follows a list whose length and record size are given before the list.
    sku = 0x15 + of.byte(0x13) * of.byte(0x14)
    named = _strings(of, "manufacturer:04 version:06 serial:07 asset:08")
    return [*named, *_given(("sku", of.string(sku) if len(of.data) > 0x15 else ""))]


_CPU_TYPES = ("Other", "Unknown", "Central Processor", "Math Processor", "DSP Processor", "Video Processor")
_CPU_STATUS = {1: "Enabled", 2: "Disabled By User", 3: "Disabled By BIOS", 4: "Idle", 7: "Other"}
_CPU_FAMILIES = {
    0x01: "Other", 0x02: "Unknown", 0x28: "Core Duo", 0x6B: "Zen", 0x83: "Athlon 64", 0x84: "Opteron",
    0xB3: "Xeon", 0xBF: "Core 2 Duo", 0xC6: "Core i7", 0xCD: "Core i5", 0xCE: "Core i3", 0xCF: "Core i9",
}  # fmt: skip
"""Those of some 200 families that today's hosts have."""


def _processor(of: _Structure, version: tuple[int, int]) -> list[tuple[str, str]]:
    eax, family, state = of.integer(0x08, 4), of.byte(0x06), of.byte(0x18)
    low = eax >> 8 & 15
    signature = (
        f"Type {eax >> 12 & 3}, Family {low + (eax >> 20 & 255 if low == 15 else 0)}, "
        f"Model {(eax >> 4 & 15) + ((eax >> 16 & 15) << 4 if low in (6, 15) else 0)}, Stepping {eax & 15}"
    )
    status = f"Populated, {_CPU_STATUS.get(state & 7, 'Unknown')}" if state & 0x40 else "Unpopulated"
    return _given(
        ("socket_destination", of.string(0x04)),
        ("type", _word(_CPU_TYPES, of.byte(0x05))),
        ("family", _CPU_FAMILIES.get(of.integer(0x28, 2) if family == 0xFE else family, "")),
        ("manufacturer", of.string(0x07)),
        ("signature", signature if eax else ""),
        ("version", of.string(0x10)),
        ("external_clock", _amount(of.integer(0x12, 2), "MHz")),
        ("max_speed", _amount(of.integer(0x14, 2), "MHz")),
        ("status", status),
        ("serial_number", of.string(0x20)),
        ("part_number", of.string(0x22)),
    )


_FORM_FACTORS = (
    "Other", "Unknown", "SIMM", "SIP", "Chip", "DIP", "ZIP", "Proprietary Card", "DIMM", "TSOP", "Row Of Chips",
    "RIMM", "SODIMM", "SRIMM", "FB-DIMM", "Die",
)  # fmt: skip
_MEMORY_TYPES = {
    0x01: "Other", 0x02: "Unknown", 0x03: "DRAM", 0x07: "RAM", 0x09: "Flash", 0x0F: "SDRAM", 0x12: "DDR",
    0x13: "DDR2", 0x14: "DDR2 FB-DIMM", 0x18: "DDR3", 0x1A: "DDR4", 0x1B: "LPDDR", 0x1C: "LPDDR2", 0x1D: "LPDDR3",
    0x1E: "LPDDR4", 0x1F: "Logical non-volatile device", 0x20: "HBM", 0x21: "HBM2", 0x22: "DDR5", 0x23: "LPDDR5",
}  # fmt: skip
_MEMORY_DETAILS = (
    "", "Other", "Unknown", "Fast-paged", "Static Column", "Pseudo-static", "RAMBus", "Synchronous", "CMOS", "EDO",
    "Window DRAM", "Cache DRAM", "Non-Volatile", "Registered (Buffered)", "Unbuffered (Unregistered)", "LRDIMM",
)  # fmt: skip
"""Words for the bits of the type's details."""


def _memory(of: _Structure, version: tuple[int, int]) -> list[tuple[str, str]]:
    size = of.integer(0x0C, 2)
    if not size:
        # An empty slot.
        return []
    details = " ".join(word for bit, word in enumerate(_MEMORY_DETAILS) if word and of.integer(0x13, 2) & 1 << bit)
    return _given(
        ("size", _memory_size(size, of.integer(0x1C, 4) & 0x7FFFFFFF)),
        ("form_factor", _word(_FORM_FACTORS, of.byte(0x0E))),
        *_strings(of, "locator:10 bank_locator:11"),
        ("type", _MEMORY_TYPES.get(of.byte(0x12), "")),
        ("type_detail", details or "None"),
        ("speed", _amount(of.integer(0x15, 2), "MT/s")),
        *_strings(of, "manufacturer:17 serial_number:18 part_number:1A"),
    )


def _memory_size(size: int, extended_mib: int) -> str:
    if size == 0xFFFF:
        return ""
    kib = extended_mib << 10 if size == 0x7FFF else size & 0x7FFF if size & 0x8000 else size << 10
    for unit, shift in (("TB", 30), ("GB", 20), ("MB", 10)):
        if kib and kib % (1 << shift) == 0:
            return f"{kib >> shift} {unit}"
    return f"{kib} kB"


def _oem(of: _Structure, version: tuple[int, int]) -> list[tuple[str, str]]:
    return [("", one) for one in of.strings[: of.byte(0x04)]]


def _word(words: tuple[str, ...], number: int) -> str:
    return words[number - 1] if 0 < number <= len(words) else ""


def _amount(number: int, unit: str) -> str:
    return f"{number} {unit}" if number and number != 0xFFFF else "Unknown"


_READERS = {
    0: ("bios", _bios),
    1: ("system", _system),
    2: ("baseBoard", _board),
    3: ("chassis", _chassis),
    4: ("processor", _processor),
    17: ("memory_device", _memory),
    11: ("oemStrings", _oem),
}
"""Type of a structure -> libvirt's element and its reader, in libvirt's order."""

_KERNEL_NAMES = {
    "bios": "vendor:bios_vendor version:bios_version date:bios_date release:bios_release",
    "system": "manufacturer:sys_vendor product:product_name version:product_version serial:product_serial "
    "uuid:product_uuid sku:product_sku family:product_family",
    "baseBoard": "manufacturer:board_vendor product:board_name version:board_version serial:board_serial "
    "asset:board_asset_tag",
    "chassis": "manufacturer:chassis_vendor version:chassis_version serial:chassis_serial asset:chassis_asset_tag",
}
"""libvirt's names and the kernel's files."""


def _from_strings(root: str) -> list[Part]:
    folder = root + _STRINGS
    if not os.path.isdir(folder):
        return []
    there = set(entries(folder))
    found = []
    for kind, names in _KERNEL_NAMES.items():
        pairs = (pair.split(":") for pair in names.split())
        texts = ((name, sysfs.text(f"{folder}/{file}") or "") for name, file in pairs if file in there)
        if given := _given(*((name, _clean(text.encode())) for name, text in texts)):
            found.append(Part(kind, given))
    return found
