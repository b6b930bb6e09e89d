"""Pools of type logical, in a guest: the host's kernel may have no device mapper, and its LVM is left alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from qkvm.api.domain import Domain
from tests.guest import systemroot
from tests.guest.conftest import Lab
from tests.guest.guest import Guest

PROGRAMS = ("lvm", "qemu-img", "wipefs", "mke2fs", "mount", "umount", "setpriv", "unshare", "prlimit", "env")
TWO = "{ current = 2, maximum = 2 }"
NO_UDEV = "activation {\n udev_sync = 0\n udev_rules = 0\n monitoring = 0\n}\n"


def test_pools_of_logical_volumes(lab: Lab, domain_of: Callable[[Domain], Domain], tmp_path: Path) -> None:
    checks = Path(__file__).with_name("lvmchecks.py").read_text(encoding="utf-8")
    files = {"etc/lvm/lvm.conf": NO_UDEV, "opt/checks.py": checks}
    systemroot.build(tmp_path / "vda.img", tmp_path / "root", PROGRAMS, files)
    for target in ("vdb", "vdc", "vdd"):
        with open(tmp_path / f"{target}.img", "wb") as stream:
            stream.truncate(256 << 20)
    body = "".join(
        f'[[disks]]\npath = "{tmp_path}/{target}.img"\nformat = "raw"\ntarget = "{target}"\n'
        for target in ("vda", "vdb", "vdc", "vdd")
    )
    memory = '{ current = "512MiB", maximum = "512MiB" }'
    domain = lab.boot(domain_of(lab.define("lvm", body=body, memory=memory, vcpus=TWO)))
    with Guest(domain) as guest:
        guest.ask("modprobe -a dm_mod dm_snapshot dm_zero && mount -t ext4 /dev/vda /mnt")
        guest.ask("for name in dev proc sys; do mount --bind /$name /mnt/$name; done; mount -t tmpfs run /mnt/run")
        path = "PATH=/usr/sbin:/usr/bin:/sbin:/bin PYTHONPATH=/opt/site"
        said = guest.ask(f"{path} /bin/busybox chroot /mnt python3 /opt/checks.py", timeout=600)
    print(said)
    assert said.endswith("all is well"), said
    domain.destroy()
