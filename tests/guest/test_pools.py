"""A guest on a volume of a pool, and the volume protected while it runs."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from qkvm.api.domain import Domain
from tests.guest.conftest import Lab
from tests.guest.guest import Guest


def test_a_running_guests_volume_is_protected(
    lab: Lab, domain_of: Callable[[Domain], Domain], tmp_path: Path
) -> None:
    lab.ok("vol-create-as default base.qcow2 32M --format qcow2")
    lab.ok("vol-create-as default vm.qcow2 64M --format qcow2 --backing-vol base.qcow2 --backing-vol-format qcow2")
    folder = lab.host.pools["default"].path
    body = (
        f'[[disks]]\npath = "{folder}/vm.qcow2"\nformat = "qcow2"\ntarget = "vda"\n'
        f'[[disks.backing]]\npath = "{folder}/base.qcow2"\nformat = "qcow2"\n'
    )
    domain = lab.boot(domain_of(lab.define("pooled", body=body)))
    with Guest(domain) as guest:
        assert guest.ask("cat /sys/block/vda/size").strip() == str(64 << 11)
    (tmp_path / "file").write_bytes(b"x")
    for name in ("vm.qcow2", "base.qcow2"):
        before = Path(folder, name).stat()
        for line in (
            f"vol-delete {name} default",
            f"vol-resize {name} 1G default",
            f"vol-wipe {name} default",
            f"vol-upload {name} {tmp_path}/file default",
            f"vol-clone {name} other default",
        ):
            assert f"volume '{name}' is in use by domain 'pooled'" in lab.fails(line)
        assert Path(folder, name).stat().st_size == before.st_size
    domain.destroy()
    # What the definition says is known of the format, whatever the file remembers.
    lab.ok("vol-resize vm.qcow2 128M default")
    lab.boot(domain)
    with Guest(domain) as guest:
        assert guest.ask("cat /sys/block/vda/size").strip() == str(128 << 11)
    domain.destroy()
    for name in ("vm.qcow2", "base.qcow2"):
        lab.ok(f"vol-delete {name} default")
