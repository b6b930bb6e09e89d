"""UEFI for real: OVMF boots the guest, its variables last, Secure Boot lets in what is signed and nothing else."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from qkvm.api.domain import Domain
from tests.guest.conftest import TOP, Lab
from tests.guest.guest import Guest, wait_ready
from tests.host import nslab

Register = Callable[[Domain], Domain]

# Made before this process enters a namespace, from which nothing can be downloaded.
pytestmark = pytest.mark.usefixtures("signed_disks")

OVMF = Path("/usr/share/OVMF")
VARIABLE = "/sys/firmware/efi/efivars/qkvmTest-12345678-1234-1234-1234-123456789abc"
SECURE_BOOT = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
MOUNT = "mount -t efivarfs efivarfs /sys/firmware/efi/efivars"


def _distribution() -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in OVMF.glob("*.fd")}


def _same(store: Path, template: Path) -> bool:
    """Whether a store of variables holds what its template does."""
    return (
        subprocess.run(["qemu-img", "compare", "-F", "raw", store, template], stdout=subprocess.DEVNULL).returncode
        == 0
    )


def _names(store: Path, name: str) -> bool:
    """Whether a store of variables names one."""
    raw = store.parent / "raw"
    subprocess.run(["qemu-img", "convert", "-U", "-f", "qcow2", "-O", "raw", store, raw], check=True)
    found = name.encode("utf-16-le") in raw.read_bytes()
    raw.unlink()
    return found


def test_variables_last(lab: Lab, domain_of: Register, tmp_path: Path) -> None:
    """The store is the domain's own: made at the first start, kept by restarts, held by snapshots, made anew."""
    before = _distribution()
    image = tmp_path / "disk.qcow2"
    nslab.sh("qemu-img", "create", "-q", "-f", "qcow2", str(image), "16M")
    boot = f"{{ kernel = '{lab.kernel}', initrd = '{lab.initrd}', cmdline = 'console=ttyS0', firmware = 'uefi' }}"
    body = f"[[disks]]\npath = '{image}'\nformat = 'qcow2'\ntarget = 'vda'\n"
    domain = domain_of(lab.define("uefi", boot=boot, body=body))
    store, template = Path(domain.tree.nvram("uefi")), OVMF / "OVMF_VARS_4M.fd"
    assert "pflash1=qcow2-pflash1" in lab.ok("domargv uefi") and not store.exists()
    lab.ok("undefine uefi")
    domain = domain_of(lab.define("uefi", boot=boot, body=body))
    lab.boot(domain)
    assert store.stat().st_mode & 0o777 == 0o600 and store.parent.stat().st_mode & 0o777 == 0o700
    with Guest(domain) as guest:
        guest.ask(MOUNT)
        guest.ask(rf"printf '\007\000\000\000lasting' >{VARIABLE}")
    lab.ok("snapshot-create-as uefi one")
    lab.ok("snapshot-create-as uefi two --disk-only")
    later = VARIABLE.replace("qkvmTest", "qkvmLater")
    add = rf"printf '\007\000\000\000late' >{later}; sync"
    with Guest(domain) as guest:
        guest.ask(add)
        assert guest.ask(f"tail -c 4 {later}") == "late"
    # Both hold the variables of then: without the memory, and with it.
    lab.ok("snapshot-revert uefi two")
    assert domain.state == ("shut off", "from snapshot")
    assert _names(store, "qkvmTest") and not _names(store, "qkvmLater")
    lab.ok("snapshot-delete uefi two")
    for _ in ("in a new QEMU", "in place"):
        lab.ok("snapshot-revert uefi one")
        with Guest(domain) as guest:
            guest.ask(f"umount /sys/firmware/efi/efivars; {MOUNT}")
            assert guest.ask(f"tail -c 7 {VARIABLE}; ls {later} 2>/dev/null; true") == "lasting"
            guest.ask(add)
    domain.shutdown(wait=True)
    listed = subprocess.run(["qemu-img", "snapshot", "-l", store], capture_output=True, check=True).stdout
    assert b"one" in listed and b"two" not in listed
    lab.boot(domain)
    with Guest(domain) as guest:
        guest.ask(MOUNT)
        assert guest.ask(f"tail -c 7 {VARIABLE}") == "lasting"
        assert guest.ask("cat /sys/firmware/efi/fw_platform_size") == "64"
    lab.ok("snapshot-delete uefi one")
    assert "cannot undefine domain with nvram" in lab.fails("undefine uefi")
    domain.destroy()
    assert not _same(store, template)
    lab.ok("start uefi --paused --reset-nvram")
    lab.ok("destroy uefi")
    assert _same(store, template) and _distribution() == before
    # Kept, and taken up by the next one of that name; removed when a running one ends.
    lab.ok("undefine uefi --keep-nvram")
    assert store.exists()
    domain = domain_of(lab.define("uefi", boot=boot, body=body, machine="pc"))
    domain.start(paused=True)
    lab.ok("undefine uefi --nvram")
    assert store.exists() and domain.is_running
    lab.ok("destroy uefi")
    assert not store.exists() and _distribution() == before


def test_what_is_no_store_of_its_own(lab: Lab, domain_of: Register, tmp_path: Path) -> None:
    """A file outside qkvm's folder stays; one of the distribution's is refused before anything is made."""
    own = tmp_path / "own.fd"
    boot = f"{{ firmware = 'uefi', nvram = '{own}' }}"
    domain = domain_of(lab.define("outside", boot=boot))
    domain.start(paused=True)
    domain.destroy()
    assert own.stat().st_mode & 0o777 == 0o600 and own.read_bytes() == (OVMF / "OVMF_VARS_4M.fd").read_bytes()
    own.write_bytes(b"short")
    assert "start --reset-nvram" in lab.fails("start outside")
    done = lab.run("undefine outside --nvram")
    assert done.returncode == 0 and "stays" in done.stderr and own.exists()
    boot = f"{{ firmware = 'uefi', nvram = '{OVMF}/OVMF_VARS_4M.fd' }}"
    domain_of(lab.define("theirs", boot=boot))
    assert "is a file of the firmware's own" in lab.fails("start theirs --reset-nvram")
    lab.ok("undefine theirs --nvram")
    assert (OVMF / "OVMF_VARS_4M.fd").stat().st_size == 540672


@pytest.fixture(scope="session")
def signed_disks(guest_files: tuple[str, str]) -> dict[str, str]:
    """The disks of scripts/make-esp."""
    made = subprocess.run([TOP / "scripts/make-esp", *guest_files], stdout=subprocess.PIPE, text=True, check=True)
    return dict(line.split("=", 1) for line in made.stdout.splitlines())


def test_secure_boot(signed_disks: dict[str, str], lab: Lab, domain_of: Register, tmp_path: Path) -> None:
    """Shim, GRUB and the kernel are let in by their signatures; a boot loader that nobody has signed is not."""
    disk = tmp_path / "esp.img"
    shutil.copy(signed_disks["ESP"], disk)
    body = f"[[disks]]\npath = '{disk}'\nformat = 'raw'\ntarget = 'vda'\n"
    boot = "{ firmware = 'uefi', secure = true }"
    # With less memory the kernel's own loader resets the machine.
    memory = "{ current = '512MiB', maximum = '512MiB' }"
    domain = domain_of(lab.define("secure", boot=boot, memory=memory, body=body))
    domain.start()
    wait_ready(domain)
    with Guest(domain) as guest:
        guest.ask(MOUNT)
        assert guest.ask(f"tail -c 1 {SECURE_BOOT} | hexdump -e '\"%d\"'") == "1"
        assert guest.ask("dmesg | grep -c 'Secure boot enabled'") == "1"
    domain.destroy()
    shutil.copy(signed_disks["BAD_ESP"], disk)
    log = Path(domain.tree.serial_log("secure"))
    mark = log.stat().st_size
    domain.start()
    nslab.until(lambda: b"Access Denied" in log.read_bytes()[mark:], "the firmware's refusal", 90)
    assert b"EFI stub" not in log.read_bytes()[mark:]
