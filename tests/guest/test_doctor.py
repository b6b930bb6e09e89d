"""What keeps a guest from working is told: by doctor, by install that waits, by net-check; and UEFI is chosen."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from qkvm.api.domain import Domain
from qkvm.errors import HostError, InvalidValue
from qkvm.storage.image import partitions
from qkvm.storage.image.partitions import Partitions
from tests.guest.conftest import TOP, Lab, network_nic
from tests.guest.guest import ANSWER_TIMEOUT, Guest
from tests.guest.images import small_filesystem
from tests.host import nslab

Register = Callable[[Domain], Domain]

EFI = "label: gpt\nsize=4MiB, type=uefi\ntype=linux\n"
BOTH = "label: gpt\nsize=1MiB, type=21686148-6449-6E6F-744E-656564454649\nsize=4MiB, type=uefi\n"


def disk(folder: Path, name: str, table: str) -> Path:
    """A raw disk of 16 MiB with a partition table and nothing in it."""
    path = folder / name
    path.touch(0o600)
    os.truncate(path, 16 << 20)
    if table:
        subprocess.run(["sfdisk", "--quiet", str(path)], input=table, text=True, check=True)
    return path


def test_the_firmware_that_a_disk_needs(lab: Lab, tmp_path: Path) -> None:
    efi = disk(tmp_path, "efi", EFI)
    nslab.sh("qemu-img", "convert", "-c", "-O", "qcow2", str(efi), str(tmp_path / "efi.qcow2"))
    nslab.sh("qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", str(efi), str(tmp_path / "top"))
    coded = disk(tmp_path, "coded", EFI)
    with open(coded, "r+b") as stream:
        stream.write(b"\xeb\x63")
    wanted = {
        (("efi", "raw"),): Partitions("gpt", efi=True),
        (("efi.qcow2", "qcow2"),): Partitions("gpt", efi=True),
        (("top", "qcow2"), ("efi", "raw")): Partitions("gpt", efi=True),
        (("coded", "raw"),): Partitions("gpt", efi=True, bios=True),
        ((disk(tmp_path, "both", BOTH).name, "raw"),): Partitions("gpt", efi=True, bios=True),
        ((disk(tmp_path, "mbr", "label: dos\ntype=83\n").name, "raw"),): Partitions("mbr"),
        ((disk(tmp_path, "none", "").name, "raw"),): Partitions(""),
    }
    for images, found in wanted.items():
        assert partitions.look([(str(tmp_path / name), fmt) for name, fmt in images]) == found, images
    with pytest.raises(InvalidValue):
        partitions.look([(str(tmp_path / "top"), "qcow2")])
    with pytest.raises(HostError):
        partitions.look([(str(tmp_path / "nosuch"), "raw")])
    line = "install --name chosen --memory 256 --import --graphics none --dry-run --debug --disk"
    for options, is_uefi in (
        (f"path={efi},format=raw", True),
        (f"path={tmp_path}/efi.qcow2,format=qcow2", True),
        (f"size=1,backing_store={efi},backing_format=raw", True),
        (f"path={efi},format=raw --boot firmware=bios", False),
        (f"path={coded},format=raw", False),
    ):
        done = lab.run(f"{line} {options}")
        assert done.returncode == 0, done.stderr
        assert ('firmware = "uefi"' in done.stdout) == is_uefi, done.stdout
        assert ("nothing for a BIOS: the guest gets UEFI" in done.stderr) == is_uefi


def test_a_guest_that_finds_nothing_to_boot(lab: Lab, domain_of: Register, tmp_path: Path) -> None:
    """install --wait tells what it sees of one that is silent, and so does doctor."""
    efi = disk(tmp_path, "efi", EFI)
    line = (
        f"install --name lost --memory 128 --import --boot firmware=bios --disk path={efi},format=raw "
        "--network network=default --graphics none --wait 9"
    )
    command = [sys.executable, "-m", "qkvm", "--root", lab.root, *shlex.split(line)]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=TOP
    ) as waiting:
        end = threading.Timer(300, waiting.kill)
        end.start()
        assert waiting.stderr is not None
        said = next((text for text in waiting.stderr if "EFI system partition" in text), "")
        lost = domain_of(lab.host.domain("lost"))
        assert "nothing for a BIOS, and the firmware is a BIOS (boot.firmware" in said
        done = lab.run("doctor lost --json")
        lost.destroy()
        waiting.stderr.read()
        end.cancel()
    assert done.returncode == 1
    told = [one["kind"] for one in json.loads(done.stdout)]
    assert told == ["firmware", "console-silent", "vcpus-idle", "no-address", "no-agent"]


def test_guests_that_work_and_guests_that_do_not(lab: Lab, domain_of: Register) -> None:
    domain = domain_of(lab.define("patient", body=network_nic()))
    assert lab.ok("doctor patient").strip() == "patient: nothing is wrong"
    lab.boot(domain)
    domain.wait("address")
    assert lab.ok("doctor patient --json").strip() == "[]"
    nic = domain.nics.all()[0].mac
    lab.ok(f"domif-setlink patient {nic} down")
    done = lab.run("doctor patient")
    assert done.returncode == 1 and f"the cable of NIC {nic} is pulled [link-down]" in done.stdout
    lab.ok("suspend patient")
    done = lab.run("doctor patient")
    assert (
        done.returncode == 1
        and "the guest does not run: paused (user) [paused]\n    qkvm resume patient" in done.stdout
    )
    assert "failed to get domain 'nobody'" in lab.fails("doctor nobody")


def kinds(lab: Lab, name: str) -> list[str]:
    """The findings of doctor, of which there are some."""
    done = lab.run(f"doctor {name} --json")
    assert done.returncode == 1, done.stderr
    return [one["kind"] for one in json.loads(done.stdout)]


def test_storage_that_fails_and_a_qemu_that_is_silent(lab: Lab, domain_of: Register, tmp_path: Path) -> None:
    with small_filesystem(tmp_path, "8m") as small:
        image = f"{small}/disk.qcow2"
        nslab.sh("qemu-img", "create", "-q", "-f", "qcow2", image, "64M")
        body = f"[[disks]]\npath = '{image}'\nformat = 'qcow2'\ntarget = 'vda'\n"
        domain = lab.boot(domain_of(lab.define("full", body=body)))
        try:
            with Guest(domain) as guest:
                # Only once it has answered.
                guest.ask("(sleep 3; dd if=/dev/zero of=/dev/vda bs=1M count=16 oflag=direct) >/dev/null 2>&1 &")
            deadline = time.monotonic() + ANSWER_TIMEOUT
            while domain.state[0] != "paused":
                assert time.monotonic() < deadline, "the guest does not run into the end of its storage"
                time.sleep(0.05)
            assert kinds(lab, "full") == ["io-error", "storage-full"]
            assert "disk vda has had an I/O error: no space" in lab.run("doctor full").stdout
            pid = domain.live.pid
            assert pid is not None
            os.kill(pid, signal.SIGSTOP)
            try:
                assert kinds(lab, "full") == ["no-answer", "storage-full"]
            finally:
                os.kill(pid, signal.SIGCONT)
        finally:
            domain.destroy()
        os.remove(image)
        assert kinds(lab, "full") == ["disk-missing"]


def test_two_guests_with_one_address(lab: Lab, domain_of: Register) -> None:
    """A copy has its original's client id and gets an address of its own; who takes the other's is told."""
    names = ("first", "second")
    domains = [domain_of(lab.define(name, body=network_nic(f"52:54:00:00:bb:0{number}")))
               for number, name in enumerate(names)]  # fmt: skip
    seen = []
    for domain in domains:
        lab.boot(domain)
        domain.wait("address")
        with Guest(domain) as guest:
            guest.ask("kill $(cat /run/udhcpc.*.pid); ip address flush dev eth0")
            guest.ask("udhcpc -n -q -f -i eth0 -x 0x3d:ff0011223344 -s /etc/udhcpc")
            seen.append(guest.ask("ip -4 -o address show dev eth0").split()[3].partition("/")[0])
    assert seen[0] != seen[1]
    base = json.loads(lab.run("net-check default --json").stdout)
    lab.ok(f"net-forward default add 2222 {seen[0]} 22")
    lab.ok("net-forward default add 2223 192.168.122.254 22")
    with Guest(domains[1]) as guest:
        guest.ask(f"ip address add {seen[0]}/24 dev eth0")
    found = [one for one in json.loads(lab.run("net-check default --json").stdout) if one not in base]
    assert [one["kind"] for one in found] == ["forward-lost", "address-doubled"], found
    assert "no guest has 192.168.122.254" in found[0]["words"]
    assert seen[0] in found[1]["words"] and all(f"{name} (" in found[1]["words"] for name in names)
    domain_of(lab.define("third", body=network_nic("52:54:00:00:bb:00"))).start()
    words = [one["words"] for one in json.loads(lab.run("net-check default --json").stdout)]
    assert "MAC address 52:54:00:00:bb:00 is that of first and of third: both get one address" in words
    for port in (2222, 2223):
        lab.ok(f"net-forward default delete {port}")
