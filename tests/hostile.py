"""Images that are made to do harm, by name: the bytes, and words of the one reason for which each is refused.

Many of them name a file of the host, the bait, as a part of theirs.
"""

from __future__ import annotations

from tests import images
from tests.images import CLUSTER, extension, qcow2

FLAT = b'RW 131072 FLAT "own-flat.vmdk" 0\n'


def qcow2_images(bait: bytes = b"/etc/shadow") -> dict[str, tuple[bytes, str]]:
    """Those that are said to be qcow2."""
    shown = bait.decode()
    return {
        "backing": (qcow2(backing=bait), f"has a backing file, '{shown}', and the definition does not name it"),
        "backing-json": (qcow2(backing=b'json:{"driver":"file","filename":"%b"}' % bait), "file, 'json:{"),
        "backing-nbd": (qcow2(backing=b"nbd://127.0.0.1/x"), "has a backing file, 'nbd://127.0.0.1/x'"),
        "backing-http": (qcow2(backing=b"http://localhost/x"), "has a backing file, 'http://localhost/x'"),
        "backing-fd": (qcow2(backing=b"fd:3"), "has a backing file, 'fd:3'"),
        "backing-escape": (qcow2(backing=b"/x\n\x1b[2J"), r"has a backing file, '/x\\n\\x1b\[2J'"),
        "backing-two": (qcow2(version=2, backing=bait), f"has a backing file, '{shown}'"),
        "backing-long": (qcow2(backing=b"x" * 1024), "names a backing file in 1024 bytes at 1024"),
        "backing-far": (
            qcow2(backing=bait, place=CLUSTER - 4),
            f"names a backing file in {len(bait)} bytes at 65532",
        ),
        "backing-format": (
            qcow2(extensions=extension(0xE2792ACA, b"f" * 16)),
            "a format of its backing file in 16",
        ),
        "data-file": (qcow2(features=4), "keeps its data in another file"),
        "data-file-name": (qcow2(extensions=extension(0x44415441, bait)), f"names '{shown}' as the file of"),
        "corrupt": (qcow2(features=2), "is marked as corrupt"),
        "feature": (qcow2(features=1 << 5), "a feature that is not known: incompatible features 0x20"),
        "encrypted-aes": (qcow2(crypt=1), "is encrypted"),
        "encrypted-luks": (qcow2(crypt=2), "is encrypted"),
        "encrypted-header": (qcow2(extensions=extension(0x0537BE77, bytes(16))), "is encrypted"),
        "version": (qcow2(version=7), "is a qcow2 image of version 7"),
        "clusters-small": (qcow2(cluster_bits=8), r"clusters of 2\^8 bytes"),
        "clusters-large": (qcow2(cluster_bits=22), r"clusters of 2\^22 bytes"),
        "size": (qcow2(size=1 << 63), "claims a size of 9223372036854775808 bytes"),
        "size-of-l1": (qcow2(size=1 << 60), "claims a size of 1152921504606846976 bytes"),
        "l1-small": (qcow2(size=1 << 40), "L1 table of 1 entries, too small for its size"),
        "l1-large": (qcow2(l1=(32 << 20) // 8 + 1), "L1 table of 4194305 entries, which is too large"),
        "l1-far": (qcow2(l1_place=1 << 40), "has its L1 table at 1099511627776"),
        "l1-beyond": (qcow2(l1=8193), "has its L1 table at 196608"),
        "l1-odd": (qcow2(l1_place=3 * CLUSTER + 8), "has its L1 table at 196616"),
        "refcounts-large": (qcow2(refcount_clusters=1 << 31), "refcount table of 2147483648 clusters"),
        "refcounts-none": (qcow2(refcount_clusters=0), "refcount table of 0 clusters"),
        "refcounts-far": (qcow2(refcounts=1 << 50), "has its refcount table at 1125899906842624"),
        "refcount-order": (qcow2(order=7), r"refcounts of 2\^7 bits"),
        "header-short": (qcow2(length=100), "has a header of 100 bytes"),
        "header-long": (qcow2(length=CLUSTER + 8), "has a header of 65544 bytes"),
        "header-cut": (qcow2()[:90], "is cut within its header"),
        "file-cut": (qcow2()[:CLUSTER], "has its L1 table at 196608"),
        "extension-long": (qcow2(extensions=extension(5, b"", 1 << 31)), "header extension of 2147483648 bytes"),
        "extensions-many": (qcow2(extensions=extension(5, b"") * 1100, place=16384), "more than 1024 header ext"),
        "compression": (qcow2(features=8, kind=9), "compressed in a way that is not known: 9"),
        "compression-odd": (qcow2(kind=1), "compressed with zstd, and not in the other"),
        "extended": (qcow2(features=16, cluster_bits=12), "extended L2 entries with clusters below 16 KiB"),
        "bitmaps": (
            qcow2(autoclear=1, extensions=images.bitmaps(1 << 20, 24, CLUSTER)),
            "tells of 1048576 bitmaps",
        ),
        "bitmaps-size": (
            qcow2(autoclear=1, extensions=images.bitmaps(1, 1 << 40, CLUSTER)),
            "of 1099511627776 bytes",
        ),
        "bitmaps-far": (
            qcow2(autoclear=1, extensions=images.bitmaps(1, 24, 1 << 40)),
            "has its directory of bitmaps",
        ),
        "bitmaps-cut": (
            qcow2(autoclear=1, extensions=extension(0x23852875, bytes(8))),
            "of its bitmaps in 8 bytes",
        ),
        "states": (qcow2(states=(1 << 32) - 1, states_place=CLUSTER), "tells of 4294967295 states"),
        "states-far": (qcow2(states=1, states_place=1 << 40), "its table of states is cut"),
        "states-extra": (
            qcow2(states=1, states_place=4 * CLUSTER, tail=images.state(extra=(1 << 32) - 1)),
            "4294967295 bytes of extra data",
        ),
        "states-l1": (
            qcow2(states=1, states_place=4 * CLUSTER, tail=images.state(entries=1 << 31)),
            "2147483648 L1",
        ),
        "vmdk": (images.vmdk(), "is not a qcow2 image: it looks like vmdk"),
        "empty": (b"", "is not a qcow2 image"),
    }


def other_images(bait: bytes = b"/etc/shadow") -> dict[str, tuple[str, bytes, str]]:
    """Those of formats that can only be converted, with the format that each is said to be of."""
    shown = bait.decode()
    return {
        "vmdk-descriptor": (
            "vmdk",
            images.DESCRIPTOR + FLAT,
            "whose data are in other files: 'own.vmdk', 'own-flat",
        ),
        "vmdk-descriptor-shadow": (
            "vmdk",
            b'# Disk DescriptorFile\nRW 1 FLAT "%b" 0\n' % bait,
            f"other files: '{shown}'",
        ),
        "vmdk-no-capacity": ("vmdk", images.vmdk(capacity=0), "is a VMDK of no capacity"),
        "vmdk-two-extents": ("vmdk", images.vmdk(images.DESCRIPTOR + FLAT), "has 2 extents"),
        "vmdk-absolute": (
            "vmdk",
            images.vmdk(images.DESCRIPTOR.replace(b"own.vmdk", bait)),
            f"another place: SPARSE '{shown}'",
        ),
        "vmdk-upwards": (
            "vmdk",
            images.vmdk(images.DESCRIPTOR.replace(b"own", b"../x")),
            r"another place: SPARSE '\.\./x\.vmdk'",
        ),
        "vmdk-device": (
            "vmdk",
            images.vmdk(images.DESCRIPTOR.replace(b'SPARSE "own.vmdk"', b'FLAT "/dev/sda" 0')),
            "FLAT '/dev/sda'",
        ),
        "vmdk-parent": (
            "vmdk",
            images.vmdk(images.DESCRIPTOR + b'parentFileNameHint="%b"\n' % bait),
            "names a parent",
        ),
        "vmdk-parent-id": ("vmdk", images.vmdk(images.DESCRIPTOR.replace(b"ffffffff", b"1")), "names a parent"),
        "vmdk-far-text": ("vmdk", images.vmdk(at=4096), "has its descriptor at sector 4096"),
        "vmdk-version": ("vmdk", images.vmdk(version=9), "of version 9"),
        "vmdk-grains": ("vmdk", images.vmdk(entries=1 << 31), "tables of 2147483648 entries"),
        "vmdk-size": ("vmdk", images.vmdk(capacity=1 << 62), "claims a size of"),
        "vmdk-directory": ("vmdk", images.vmdk(directory=1 << 40), "has its grain directory at"),
        "vmdk-stream-cut": ("vmdk", images.vmdk(directory=(1 << 64) - 1), "it has no footer"),
        "vmdk-cut": ("vmdk", images.vmdk()[:30], "is cut within its vmdk header"),
        "vdi-differences": ("vdi", images.vdi(kind=4), "type 4, which needs another file"),
        "vdi-parent": ("vdi", images.vdi(parent=b"P" * 16), "names a parent"),
        "vdi-map": ("vdi", images.vdi(blocks=0x3FFFFFFF), "has its block map at 512 with 4294967292 bytes"),
        "vdi-size": ("vdi", images.vdi(size=1 << 60), "claims a size of 1152921504606846976 bytes in 64 blocks"),
        "vdi-block": ("vdi", images.vdi(block=1 << 31), "blocks of 2147483648"),
        "vdi-version": ("vdi", images.vdi(version=0x20002), "of version 2.2"),
        "vhdx-parent": ("vhdx", images.vhdx(bits=2), "names a parent"),
        "vhdx-size": ("vhdx", images.vhdx(size=1 << 62), "the format ends at 64 TiB"),
        "vhdx-block": ("vhdx", images.vhdx(block=7), "has blocks of 7 bytes"),
        "vhdx-regions": ("vhdx", images.vhdx(count=1 << 30), "has no table of regions"),
        "vhdx-cut": ("vhdx", images.vhdx()[: 1 << 20], "beyond the file's 1048576"),
        "vpc-differences": ("vpc", images.vpc(kind=4), "names a parent"),
        "vpc-parent": ("vpc", images.vpc(parent=b"P" * 16), "names a parent"),
        "vpc-size": ("vpc", images.vpc(size=1 << 50), "claims a size of"),
        "vpc-table": ("vpc", images.vpc(entries=(1 << 32) - 1), "has its table of blocks at 1536"),
        "vpc-fixed-cut": ("vpc", images.vpc(kind=2), "has its data at 0 with 67108864 bytes"),
        "qed-backing": ("qed", images.qed(features=1, backing=bait), "has a backing file"),
        "qed-feature": ("qed", images.qed(features=64), "features that are not known: 0x40"),
        "qed-cluster": ("qed", images.qed(cluster=3), "clusters of 3 bytes"),
        "qed-tables": ("qed", images.qed(table=1 << 30), "tables of 1073741824 clusters"),
        "qed-size": ("qed", images.qed(size=1 << 62), "more than its tables can tell of"),
        "qed-table-far": ("qed", images.qed(place=1 << 40), "has its L1 table at"),
        "qed-is-qcow2": ("qed", qcow2(), "is not a qed image"),
        "zeros": ("vdi", bytes(4096), "is not a vdi image"),
    }
