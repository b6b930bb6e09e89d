"""Disks past the host's page cache, from the start, plugged, and through jobs that open their images anew."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from msgspec.structs import replace

from qkvm.api.domain import Domain
from qkvm.scope import Scope
from qkvm.spec import domain as spec
from tests.guest.conftest import Lab
from tests.guest.guest import Guest
from tests.guest.images import chain, digest, image, images, put, see

Register = Callable[[Domain], Domain]


def flags(domain: Domain) -> dict[str, bool]:
    """Names of the images that QEMU has open in the test -> whether all its fds go past the page cache."""
    found: dict[str, bool] = {}
    for fd in os.listdir(f"/proc/{domain.live.pid}/fd"):
        # QEMU opens and closes some at any time.
        with suppress(FileNotFoundError):
            path = os.readlink(f"/proc/{domain.live.pid}/fd/{fd}")
            if "/images/" in path:
                info = Path(f"/proc/{domain.live.pid}/fdinfo/{fd}").read_text(encoding="ascii").split()
                direct = bool(int(info[info.index("flags:") + 1], 8) & os.O_DIRECT)
                found[os.path.basename(path)] = found.get(os.path.basename(path), True) and direct
    return found


def test_past_the_page_cache(lab: Lab, domain_of: Register, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    disk = replace(chain(folder, "a", "b"), cache=spec.Cache.NONE, io=spec.Io.NATIVE)
    domain = domain_of(lab.define("direct"))
    domain.disks.attach(disk, scope=Scope.CONFIG)
    lab.boot(domain)
    assert flags(domain) == {"a": True, "b": True}
    with Guest(domain) as guest:
        see(guest, "vda")
        put(guest, 4, 2, "first")
        before = digest(guest)
    # Taken, and gone back into the base while it is written to.
    lab.ok(f"snapshot-create-as direct s1 --disk-only --diskspec vda,file={folder}/c")
    assert flags(domain) == {"a": True, "b": True, "c": True}
    with Guest(domain) as guest:
        put(guest, 8, 2, "second")
        second = digest(guest)
        assert second != before
    lab.ok("snapshot-delete direct s1 --metadata")
    lab.ok("blockcommit direct vda --shallow --active --pivot --wait")
    assert images(domain) == ["b", "a"]
    lab.ok(f"blockcopy direct vda {folder}/d --shallow --format qcow2 --pivot --wait --transient-job")
    with Guest(domain) as guest:
        assert digest(guest) == second
        put(guest, 10, 2, "third")
        third = digest(guest)
    lab.ok("blockpull direct vda --wait")
    assert images(domain) == ["d"] and flags(domain) == {"d": True}
    # Plugged, beside one that is cached.
    lab.ok(f"attach-disk direct {image(folder, 'e')} vdb --cache directsync")
    lab.ok(f"attach-disk direct {image(folder, 'f')} vdc --cache writeback")
    assert flags(domain) == {"d": True, "e": True, "f": False}
    with Guest(domain) as guest:
        see(guest, "vdb")
        put(guest, 1, 2, "plugged", "vdb")
        assert digest(guest) == third
    lab.ok(f"save direct {folder}/state")
    lab.ok(f"restore {folder}/state")
    with Guest(domain) as guest:
        assert digest(guest) == third
    assert flags(domain) == {"d": True, "e": True, "f": False}
