"""What a guest writes into its disk leads QEMU to no file; and hostile images are refused to one that runs."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from qkvm.api.domain import Domain
from tests import hostile, images
from tests.bait import bait
from tests.guest.conftest import Lab
from tests.guest.guest import Guest
from tests.host import nslab

MIB = 1 << 20


def octal(raw: bytes) -> str:
    """Bytes as the shell's printf takes them."""
    return "".join(f"\\{byte:03o}" for byte in raw)


def test_a_raw_disk_stays_raw_for_ever(lab: Lab, domain_of: Callable[[Domain], Domain], tmp_path: Path) -> None:
    """The guest writes the header of a qcow2 image based on a file of the host, and reads just that back."""
    lab.ok("vol-create-as default raw.img 8M")
    disk, to, medium = Path(lab.host.pools["default"].path, "raw.img"), tmp_path / "to", tmp_path / "empty.qcow2"
    nslab.sh("qemu-img", "create", "-q", "-f", "qcow2", str(medium), "1M")
    body = (
        f'[[disks]]\npath = "{disk}"\nformat = "raw"\ntarget = "vda"\n'
        f'[[disks]]\npath = "{medium}"\nformat = "qcow2"\ntarget = "sda"\ndevice = "cdrom"\nbus = "sata"\n'
    )
    domain = domain_of(lab.define("honest", body=body))
    secret = tmp_path / "bait"
    written = images.qcow2(backing=str(secret).encode(), size=8 * MIB)[:2048]
    # The image is sound as far as it goes: QEMU would take it, and show the bait's bytes.
    whole = hashlib.md5(written + bytes(8 * MIB - len(written))).hexdigest()

    def same(one: Domain) -> None:
        with Guest(one) as guest:
            guest.until("cat /sys/block/vda/size", str(8 * MIB // 512))
            assert guest.ask("echo 3 >/proc/sys/vm/drop_caches; md5sum </dev/vda").split()[0] == whole

    with bait(secret) as opened:
        lab.boot(domain)
        with Guest(domain) as guest:
            for place, part in ((0, written[:112]), (1024, written[1024:].rstrip(b"\0"))):
                guest.ask(
                    f"printf '{octal(part)}' | dd of=/dev/vda bs=1 seek={place} conv=notrunc,fsync 2>/dev/null"
                )
        same(domain)
        assert disk.read_bytes()[:2048] == written
        lab.ok("snapshot-create-as honest one --disk-only --diskspec sda,snapshot=no")
        same(domain)
        lab.ok(f"backup honest {to} --full")
        refused_to_a_running_guest(lab, domain, tmp_path, opened)
        domain.destroy()
        lab.ok("snapshot-revert honest one")
        lab.ok("snapshot-delete honest one")
        same(lab.boot(domain))
        domain.destroy()
        lab.ok("vol-clone raw.img copy.img default")
        assert Path(lab.host.pools["default"].path, "copy.img").read_bytes()[:2048] == written
        lab.ok("vol-resize copy.img 16M default")
        assert "<format type='raw'/>" in lab.ok("vol-dumpxml copy.img default")
        lab.ok(f"vol-import default {disk} --input-format raw --name made.qcow2")
        nslab.sh("qemu-img", "compare", "-f", "raw", "-F", "qcow2", str(disk), str(disk.parent / "made.qcow2"))
        lab.ok(f"restore-backup {to} --name twin")
        twin = domain_of(lab.host.domain("twin"))
        assert [str(one.format) for one in twin.definition.disks][:1] in (["raw"], ["qcow2"])
        same(lab.boot(twin))
        twin.destroy()
        assert not opened, "somebody opened the bait"
    for name in ("copy.img", "made.qcow2"):
        lab.ok(f"vol-delete {name} default")


def refused_to_a_running_guest(lab: Lab, domain: Domain, folder: Path, opened: list[str]) -> None:
    """Each verb that has a running QEMU open an image refuses a hostile one, and nothing of the run changes."""
    path = folder / "evil"
    before = (domain.live.record["disks"], domain.qemu.command("query-named-block-nodes"))
    fdsets = domain.qemu.command("query-fdsets")
    listed = hostile.qcow2_images(str(folder / "bait").encode())
    for number, name in enumerate(("data-file", "backing-json", "size", "encrypted-luks", "states-extra")):
        data, words = listed[name]
        path.write_bytes(data)
        lines = [
            f"attach-disk honest {path} vdb --subdriver qcow2",
            f"change-media honest sda {path} --update --live",
            f"blockcopy honest vda {path} --reuse-external --format qcow2",
            f"snapshot-create-as honest two --disk-only --reuse-external --diskspec vda,file={path}"
            " --diskspec sda,snapshot=no",
        ]
        # The first by all, the others by one each. A snapshot's overlay is to have a backing file.
        for line in lines if number == 0 else lines[(number - 1) % 3 :][:1]:
            told = lab.fails(line)
            assert re.search(words, told), f"{name}: {line}: {told}"
            assert path.read_bytes() == data
        assert (domain.live.record["disks"], domain.qemu.command("query-named-block-nodes")) == before
        assert domain.qemu.command("query-fdsets") == fdsets and not opened
