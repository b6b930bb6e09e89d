"""Images written byte by byte, so that any part of one can be wrong: those that QEMU itself would never make."""

from __future__ import annotations

import struct
import uuid

CLUSTER = 1 << 16


def qcow2(
    *,
    magic: bytes = b"QFI\xfb",
    version: int = 3,
    size: int = 64 << 20,
    backing: bytes = b"",
    place: int = 1024,
    features: int = 0,
    autoclear: int = 0,
    extensions: bytes = b"",
    crypt: int = 0,
    cluster_bits: int = 16,
    l1: int = 1,
    l1_place: int = 3 * CLUSTER,
    refcounts: int = CLUSTER,
    refcount_clusters: int = 1,
    order: int = 4,
    length: int = 112,
    kind: int = 0,
    states: int = 0,
    states_place: int = 0,
    tail: bytes = b"",
) -> bytes:
    """A whole qcow2 image in which nothing is allocated, where nothing else is said.

    :param backing: the name of a backing file. :param tail: what stands behind the four clusters that it has.
    """
    head = struct.pack(
        ">4sIQIIQIIQQIIQ",
        magic,
        version,
        place if backing else 0,
        len(backing),
        cluster_bits,
        size,
        crypt,
        l1,
        l1_place,
        refcounts,
        refcount_clusters,
        states,
        states_place,
    )
    if version == 3:
        head += struct.pack(">QQQIIB7x", features, 0, autoclear, order, length, kind)
    head = (head + extensions).ljust(place, b"\0") + backing
    table = struct.pack(">Q", 2 * CLUSTER).ljust(CLUSTER, b"\0")
    counts = (b"\0\1" * 4).ljust(CLUSTER, b"\0")
    return head.ljust(CLUSTER, b"\0") + table + counts + bytes(CLUSTER) + tail


def extension(kind: int, body: bytes, length: int | None = None) -> bytes:
    """A header extension; ``length`` is what it claims, where that is not the truth."""
    claimed = len(body) if length is None else length
    return struct.pack(">II", kind, claimed) + body.ljust(-(-len(body) // 8) * 8, b"\0")


def bitmaps(count: int, size: int, place: int) -> bytes:
    """The header extension that tells of dirty bitmaps."""
    return extension(0x23852875, struct.pack(">IIQQ", count, 0, size, place))


def state(*, extra: int = 16, entries: int = 1, name: bytes = b"s") -> bytes:
    """An entry of the table of states; its extra data are 16 bytes, whatever it claims."""
    return struct.pack(">QIHHIIQII", 0, entries, 1, len(name), 0, 0, 0, 0, extra) + bytes(16) + b"1" + name


DESCRIPTOR = b"""# Disk DescriptorFile
version=1
CID=5aee2b91
parentCID=ffffffff
createType="monolithicSparse"

# Extent description
RW 131072 SPARSE "own.vmdk"
"""


def vmdk(
    text: bytes = DESCRIPTOR,
    *,
    capacity: int = 131072,
    version: int = 1,
    at: int = 1,
    directory: int = 21,
    entries: int = 512,
    grain: int = 128,
) -> bytes:
    """A VMDK that is one file, with a descriptor inside, of 64 MiB in which nothing is allocated."""
    head = struct.pack(
        "<4sIIQQQQIQQQB4s",
        b"KDMV",
        version,
        3,
        capacity,
        grain,
        at,
        20,
        entries,
        directory,
        directory,
        128,
        0,
        b"\n \r\n",
    )
    return head.ljust(512, b"\0") + text.ljust(20 * 512, b"\0") + bytes(128 * 512 - 21 * 512)


def vdi(
    *,
    kind: int = 1,
    parent: bytes = b"",
    blocks: int = 64,
    size: int = 64 << 20,
    place: int = 512,
    version: int = 0x10001,
    block: int = 1 << 20,
) -> bytes:
    """A VDI of 64 MiB in which nothing is allocated."""
    head = bytearray(512)
    struct.pack_into("<IIII", head, 0x40, 0xBEDA107F, version, 0x180, kind)
    struct.pack_into("<IIIIIIIQIIII", head, 0x154, place, 1024, 0, 0, 0, 512, 0, size, block, 0, blocks, 0)
    head[0x188:0x198] = b"U" * 16
    head[0x1B8 : 0x1B8 + len(parent)] = parent
    return bytes(head) + b"\xff" * 512


def vhdx(
    *, bits: int = 0, block: int = 1 << 25, size: int = 64 << 20, count: int = 2, sign: bytes = b"regi"
) -> bytes:
    """A VHDX as far as its size is told by it: its blocks have no table."""
    whole = bytearray(4 << 20)
    whole[:8] = b"vhdxfile"
    regions = [
        ("2dc27766-f623-4200-9d64-115e9bfd4a08", 3 << 20),
        ("8b7ca206-4790-4b9a-b8fe-575f050f886e", 2 << 20),
    ]
    struct.pack_into("<4sIII", whole, 192 << 10, sign, 0, count, 0)
    for number, (name, place) in enumerate(regions):
        struct.pack_into("<16sQII", whole, (192 << 10) + 16 + 32 * number, _guid(name), place, 1 << 20, 1)
    items = [
        ("caa16737-fa36-4d43-b3b6-33f0aa44e76b", struct.pack("<II", block, bits)),
        ("2fa54224-cd1b-4876-b211-5dbed83bf4b8", struct.pack("<Q", size)),
    ]
    struct.pack_into("<8sHH", whole, 2 << 20, b"metadata", 0, len(items))
    for number, (name, body) in enumerate(items):
        place = (64 << 10) + 64 * number
        struct.pack_into("<16sII", whole, (2 << 20) + 32 + 32 * number, _guid(name), place, len(body))
        whole[(2 << 20) + place : (2 << 20) + place + len(body)] = body
    return bytes(whole)


def _guid(text: str) -> bytes:
    return uuid.UUID(text).bytes_le


def vpc(
    *, kind: int = 3, parent: bytes = b"", entries: int = 32, block: int = 2 << 20, size: int = 64 << 20
) -> bytes:
    """A VHD of 64 MiB in which nothing is allocated."""
    foot = struct.pack(
        ">8sIIQI4sI4sQQII", b"conectix", 2, 0x10000, 512, 0, b"qem2", 0, b"Wi2k", size, size, 0, kind
    )
    head = struct.pack(">8sQQIIII16s", b"cxsparse", (1 << 64) - 1, 1536, 0x10000, entries, block, 0, parent)
    foot, head = _summed(foot.ljust(512, b"\0"), 64), _summed(head.ljust(1024, b"\0"), 36)
    return foot + head + b"\xff" * 512 + foot


def _summed(block: bytes, place: int) -> bytes:
    """A block with the complement of the sum of its bytes in it."""
    return block[:place] + struct.pack(">I", ~sum(block) & 0xFFFFFFFF) + block[place + 4 :]


def qed(
    *,
    features: int = 0,
    cluster: int = 1 << 16,
    table: int = 4,
    header: int = 1,
    place: int = 1 << 16,
    size: int = 64 << 20,
    backing: bytes = b"",
) -> bytes:
    """A QED image of 64 MiB in which nothing is allocated."""
    head = struct.pack(
        "<4sIIIQQQQQII",
        b"QED\0",
        cluster,
        table,
        header,
        features,
        0,
        0,
        place,
        size,
        72 if backing else 0,
        len(backing),
    )
    return (head.ljust(72, b"\0") + backing).ljust(1 << 16, b"\0") + bytes(4 << 16)


def good() -> dict[str, bytes]:
    """Images of 64 MiB that are what they should be, by format; only a VHDX is too large a thing to write here."""
    return {"qcow2": qcow2(features=1), "vmdk": vmdk(), "vdi": vdi(), "vpc": vpc(), "qed": qed()}
