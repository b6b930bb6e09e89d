"""qkvm install on real media and real guests: each way to install, what stays, and that nothing is left behind."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shlex
import signal
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qkvm.api.domain import Domain
from qkvm.domain.manage import install as installing
from qkvm.storage.media import iso, seed
from tests.guest import images, media
from tests.guest.conftest import TOP, Lab
from tests.guest.guest import Guest, log_size, wait_ready
from tests.host import nslab
from tests.terminal import Terminal

NOTHING = "--network none --memory 64 --noautoconsole"


@pytest.fixture(scope="session", autouse=True)
def cds() -> dict[str, Path]:
    """CD images; fetched before the tests' namespace is entered, from which there is no way to the mirror."""
    return {"grub": media.fetch(*media.GRUB), "memtest": media.fetch(*media.MEMTEST)}


@pytest.fixture
def domain_named(lab: Lab) -> Iterator[Callable[[str], Domain]]:
    """Names domains that are to be gone after the test, with all that installing them has made."""
    made: list[Domain] = []

    def name(text: str) -> Domain:
        made.append(Domain(lab.host.tree, text))
        return made[-1]

    yield name
    for domain in made:
        if domain.is_running:
            domain.destroy()
        if domain.is_persistent:
            domain.undefine()
    for image in Path(lab.host.tree.images).glob("*"):
        image.unlink()
    lab.run("gc")
    assert files_of(lab) == []


def files_of(lab: Lab) -> list[str]:
    """All files of images, seeds, boot files and definitions."""
    tree = lab.host.tree
    folders = (tree.images, tree.seeds, tree.boot_files, tree.domain_definitions)
    return sorted(str(path) for folder in folders for path in Path(folder).glob("*"))


def shows(domain: Domain, text: str) -> None:
    nslab.until(lambda: text in media.screen_text(domain), f"'{text}' on the screen of {domain.name}", 90)


def says_its_words(domain: Domain) -> None:
    log = Path(domain.tree.serial_log(domain.name))
    nslab.until(lambda: log.exists() and images.WORDS in log.read_bytes(), "the boot sector's words", 60)


@contextmanager
def begin(lab: Lab, line: str) -> Iterator[subprocess.Popen[str]]:
    """Run qkvm install beside the test; what still runs then ends with the test, however that ends."""
    with subprocess.Popen(
        [sys.executable, "-m", "qkvm", "--root", lab.root, "install", *shlex.split(line)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        text=True,
        cwd=TOP,
    ) as child:
        try:
            yield child
        finally:
            child.kill()


def test_the_line_of_the_notes(lab: Lab, domain_named: Callable[[str], Domain], cds: dict[str, Path]) -> None:
    """A day with libvirt begins with it: a CD that somebody else made boots, then the disk."""
    name = "vm01-centos7.4-64"
    domain = domain_named(name)
    cd = cds["grub"]
    line = (
        f"install --name {name} --graphics vnc,listen=0.0.0.0,port=5920,keymap=en_us --memory 512,maxmemory=1024 "
        f"--vcpus 1,maxvcpus=2 --disk path={lab.host.tree.images}/{name}.img,size=8,format=qcow2 "
        f"--network bridge=virbr0 --cdrom {cd}"
    )
    done = lab.run(line)
    assert done.returncode == 0, done.stderr
    assert "Allocating 'vm01-centos7.4-64.img' (8GiB)\nCreating domain...\n" in done.stdout
    assert "The screen is at vnc://localhost:20\n" in done.stdout
    assert "Domain is still running. Installation may be in progress." in done.stdout
    assert "warning: the VNC server listens on 0.0.0.0 without a password" in done.stderr
    shows(domain, "GNU GRUB")
    assert str(cd) in lab.ok(f"domblklist {name}") and str(cd) not in lab.ok(f"domblklist {name} --inactive")
    assert " sda      -\n" in lab.ok(f"domblklist {name} --inactive")
    # The guest's reboot ends the first boot; the next one is of the disk, and the drive is empty.
    lab.ok(f"reset {name}")
    assert installing.await_end(domain, 60)
    lab.ok(f"start {name}")
    shows(domain, "No bootable device")
    blocks = {block["qdev"]: block for block in domain.qemu.command("query-block")}
    assert "inserted" not in next(block for ident, block in blocks.items() if "sda" in ident)


@pytest.mark.parametrize("line", ["", "--noreboot"])
def test_waiting_for_the_end_of_an_installation(
    lab: Lab, domain_named: Callable[[str], Domain], cds: dict[str, Path], line: str
) -> None:
    domain = domain_named("waits")
    cd = cds["memtest"]
    with begin(lab, f"--name waits {NOTHING} --graphics vnc --disk none --cdrom {cd} --wait {line}") as child:
        nslab.until(lambda: domain.is_running, "the domain", 60)
        shows(domain, "Memtest86+")
        first = domain.live.id
        assert child.poll() is None
        assert not installing.await_end(domain, 0.1)
        lab.ok("reset waits")
        out, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    assert "\nWaiting for the installation to complete.\nDomain has shutdown. Continuing.\n" in out
    if line:
        assert out.endswith("You can restart your domain by running:\n  qkvm start waits\n")
        assert not domain.is_running and domain.is_persistent
        return
    assert out.endswith("Domain creation completed.\nRestarting guest.\n")
    assert domain.live.id > first
    assert [disk["path"] for disk in domain.live.record["disks"]] == [""]


def test_waiting_for_what_the_user_ends(
    lab: Lab, domain_named: Callable[[str], Domain], cds: dict[str, Path]
) -> None:
    domain = domain_named("ended")
    cd = cds["memtest"]
    with begin(lab, f"--name ended {NOTHING} --disk none --cdrom {cd} --wait -1") as child:
        nslab.until(lambda: domain.is_running, "the domain", 60)
        domain.destroy()
        out, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    assert out.endswith("User stopped the VM. Not rebooting.\n") and not domain.is_running


def test_a_guest_that_powers_off(lab: Lab, domain_named: Callable[[str], Domain]) -> None:
    """There is no installation to wait for, only an end; an interrupt ends the wait and not the guest."""
    domain = domain_named("off")
    line = f"--name off --network none --memory 256 --noautoconsole --wait --boot kernel={lab.kernel},"
    line += f"initrd={lab.initrd},kernel_args=console=ttyS0"
    with begin(lab, line) as child:
        nslab.until(lambda: domain.is_running, "the domain", 60)
        wait_ready(domain)
        domain.shutdown()
        out, err = child.communicate(timeout=60)
    assert child.returncode == 0, err
    assert out.endswith("Domain creation completed.\nYou can restart your domain by running:\n  qkvm start off\n")
    assert domain.state == ("shut off", "shutdown")
    domain.undefine()
    with begin(lab, line) as child:
        nslab.until(lambda: domain.is_running and domain.state[0] == "running", "the domain", 60)
        assert child.stdout is not None
        assert any("Waiting for the installation" in said for said in child.stdout)
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=60)
    assert child.returncode == 130 and domain.is_running


@pytest.fixture(scope="module")
def distribution(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a distribution has it, with the test guest's kernel and initrd."""
    folder = tmp_path_factory.mktemp("tree")
    (folder / "images/pxeboot").mkdir(parents=True)
    (folder / "images/pxeboot/vmlinuz").write_bytes(Path(lab.kernel).read_bytes())
    (folder / "images/pxeboot/initrd.img").write_bytes(Path(lab.initrd).read_bytes())
    return folder


def test_from_a_folder(
    lab: Lab, domain_named: Callable[[str], Domain], distribution: Path, tmp_path: Path
) -> None:
    domain = domain_named("tree")
    (tmp_path / "answers.cfg").write_text("injected into the initrd\n")
    lab.ok(
        "install --name tree --network none --memory 256 --noautoconsole --disk size=0.01 "
        f"--location {distribution} -x console=ttyS0 -x guestname=installer --initrd-inject {tmp_path}/answers.cfg"
    )
    wait_ready(domain)
    with Guest(domain) as guest:
        assert guest.ask("cat /answers.cfg") == "injected into the initrd"
        assert guest.ask("hostname") == "installer"
    boot_files = [Path(lab.host.tree.boot_file("tree", kind)) for kind in ("kernel", "initrd")]
    assert [stat.S_IMODE(path.stat().st_mode) for path in boot_files] == [0o600, 0o600]
    # They stay as long as the run does that names them: it could be saved and restored.
    lab.ok("gc")
    assert all(path.exists() for path in boot_files)
    assert domain.definition.boot.kernel == ""
    domain.destroy()
    assert "Domain 'tree' collected" in lab.ok("gc")
    assert not any(path.exists() for path in boot_files)
    # The same once more, in place of what is there: the domain stays as it is.
    before = Path(lab.host.tree.domain_definition("tree")).read_text()
    mark = log_size(domain)
    lab.ok(f"install --reinstall tree --noautoconsole --location {distribution} -x console=ttyS0")
    wait_ready(domain, mark)
    assert Path(lab.host.tree.domain_definition("tree")).read_text() == before
    assert "already active" in lab.fails("install --reinstall tree --pxe")
    assert "can't be given with --reinstall" in lab.fails("install --reinstall tree --memory 512 --pxe")


def test_from_a_cd_image_with_a_kernel(lab: Lab, domain_named: Callable[[str], Domain], tmp_path: Path) -> None:
    """The kernel is taken out of the image, and the guest has the image in its drive until it reboots."""
    domain = domain_named("image")
    cd = tmp_path / "x, y.iso"
    contents = {
        "linux": Path(lab.kernel).read_bytes(),
        "initrd.gz": Path(lab.initrd).read_bytes(),
        "note": b"on CD",
    }
    cd.write_bytes(iso.make("INSTALL", contents))
    done = lab.ok(
        f"install --name image --network none --memory 256 --noautoconsole --machine pc --disk none "
        f"-x console=ttyS0 --location '{tmp_path}/x,, y.iso,kernel=linux,initrd=/initrd.gz'"
    )
    assert "Retrieving 'linux'\nRetrieving 'initrd.gz'\nCreating domain...\n" in done
    wait_ready(domain)
    with Guest(domain) as guest:
        guest.ask("mkdir /cd; mount -t iso9660 -o ro /dev/sr0 /cd")
        assert guest.ask("cat /cd/note") == "on CD"
        guest.send("reboot -f")
        assert installing.await_end(domain, 60)
    assert [disk.path for disk in domain.definition.disks] == [""]


def test_a_seed(lab: Lab, domain_named: Callable[[str], Domain], tmp_path: Path) -> None:
    """The guest finds it by its label and the SMBIOS; it stays with the guest, under any name, until the end."""
    domain = domain_named("cloud")
    renamed = domain_named("cloud2")
    (tmp_path / "net").write_text("version: 2\n")
    boot = f"--network none --memory 256 --noautoconsole --boot kernel={lab.kernel},initrd={lab.initrd},"
    boot += "kernel_args=console=ttyS0"
    out = lab.ok(
        f"install --name cloud {boot} --cloud-init root-password-generate=on,network-config={tmp_path}/net"
    )
    (password,) = re.findall(r"^Password for first root login is: (\S+)$", out, re.MULTILINE)
    wait_ready(domain)
    with Guest(domain) as guest:
        # The label, where ECMA-119, 8.4.7 has it.
        assert guest.ask("dd if=/dev/sr0 bs=1 skip=32808 count=6 2>/dev/null") == "cidata"
        assert "ds=nocloud" in guest.ask("cat /sys/class/dmi/id/product_serial")
        guest.ask("mkdir /cd; mount -t iso9660 -o ro /dev/sr0 /cd")
        assert guest.ask("ls /cd").split() == ["meta-data", "network-config", "user-data"]
        said = json.loads(guest.ask("cat /cd/user-data").replace("#cloud-config", ""))
        assert json.loads(guest.ask("cat /cd/meta-data"))["instance-id"] == domain.uuid
        assert guest.ask("cat /cd/network-config") == "version: 2"
    user, _, hashed = said["chpasswd"]["list"].strip().partition(":")
    crypt = ctypes.CDLL("libcrypt.so.1").crypt
    crypt.restype = ctypes.c_char_p
    assert (user, crypt(password.encode(), hashed.encode())) == ("root", hashed.encode())
    logs = Path(lab.host.tree.log)
    assert not [
        path for path in (*logs.glob("*"), Path(domain.live.folder, "record.json")) if password in path.read_text()
    ]
    assert "already active" in lab.fails("install --reinstall cloud --cloud-init disable=on")
    domain.shutdown(wait=True)
    lab.ok("domrename cloud cloud2")
    # Made anew with other texts; the drive is the same.
    mark = log_size(renamed)
    lab.ok(f"install --reinstall cloud2 --noautoconsole --cloud-init meta-data={tmp_path}/net")
    wait_ready(renamed, mark)
    path = lab.host.tree.seed("cloud2")
    assert seed.read(path).meta_data == "version: 2\n" and seed.read(path).network_config == ""
    assert not os.path.exists(lab.host.tree.seed("cloud"))
    renamed.destroy()
    renamed.undefine()
    assert not os.path.exists(path)


def test_an_existing_disk_and_one_on_top_of_it(
    lab: Lab, domain_named: Callable[[str], Domain], tmp_path: Path
) -> None:
    """--import boots both; what is written to the upper one leaves the lower one alone."""
    base = tmp_path / "base.img"
    base.write_bytes(images.talking())
    before = base.read_bytes()
    for name, disk in {
        "imported": f"path={base},format=raw,cache=none,io=native,bus=scsi,readonly=on",
        "overlaid": f"size=0.5,backing_store={base},backing_format=raw",
        "grown": f"backing_store={base},backing_format=raw,bus=sata",
    }.items():
        domain = domain_named(name)
        lab.ok(f"install --name {name} {NOTHING} --import --disk {disk}")
        says_its_words(domain)
        domain.destroy()
    assert base.read_bytes() == before
    sizes = {
        name: int(re.findall(r"virtual size: .*\((\d+) bytes\)", nslab.sh("qemu-img", "info", str(path)))[0])
        for name in ("overlaid", "grown")
        for path in Path(lab.host.tree.images).glob(f"{name}*")
    }
    assert sizes == {"overlaid": 512 << 20, "grown": 1 << 20}


def test_on_a_base_image(lab: Lab, domain_named: Callable[[str], Domain], tmp_path: Path) -> None:
    """Overlays and copies of an image by its name boot at the same time; it stays as it is, and needed."""
    source = tmp_path / "base.img"
    source.write_bytes(images.talking())
    lab.ok(f"image-import {source} --name talking")
    base = lab.host.images["talking"]
    made = [domain_named(name) for name in ("above", "grown", "copied")]
    for domain, more in zip(made, ("", ",size=0.5", ",full=yes,size=0.5"), strict=True):
        lab.ok(f"install --name {domain.name} {NOTHING} --image talking{more}")
        says_its_words(domain)
    assert "copied" not in (told := lab.ok("image-info talking")) and "'above'" in told and "'grown'" in told
    assert "is used by disk vda of domain 'above'" in lab.fails("image-remove talking")
    for name, size in (("above", 1 << 20), ("grown", 512 << 20), ("copied", 512 << 20)):
        lab.ok(f"destroy {name}")
        shown = json.loads(nslab.sh("qemu-img", "info", "--output=json", f"{lab.host.tree.images}/{name}.qcow2"))
        assert (shown["virtual-size"], shown.get("backing-filename")) == (
            size, None if name == "copied" else base.path,
        )  # fmt: skip
        lab.ok(f"undefine {name} --remove-all-storage")
    before = files_of(lab)
    for line, words in (
        ("talking,size=0.0005", "too small"), ("nobody", "no image with name 'nobody'"),
        ("/dev/null", "neither a"),
        ("talking --cdrom x", "exclude each other"), (str(TOP / "README.md"), "is no disk image"),
    ):  # fmt: skip
        assert words in lab.fails(f"install --name wrong {NOTHING} --image {line}")
    assert files_of(lab) == before and Path(base.path).read_bytes() == images.talking()
    assert "Intact:         yes" in lab.ok("image-info talking --check")
    lab.ok("image-remove talking")


def test_from_the_network(lab: Lab, domain_named: Callable[[str], Domain]) -> None:
    """The NIC's boot ROM runs and asks for an address; there is nothing that it could load."""
    domain = domain_named("pxe")
    lab.ok(
        "install --name pxe --memory 64 --noautoconsole --graphics vnc --disk none --pxe "
        "--network network=default,model=e1000,boot.order=3"
    )
    shows(domain, "iPXE")
    assert domain.live.record["definition"]["on_reboot"] == "destroy"
    assert domain.definition.nics[0].boot_order == 3


def test_a_transient_guest(lab: Lab, domain_named: Callable[[str], Domain], tmp_path: Path) -> None:
    domain = domain_named("short")
    before = files_of(lab)
    lab.ok(f"install --name short {NOTHING} --disk none --boot hd --transient")
    assert domain.is_running and not domain.is_persistent
    assert "transient domain" in lab.fails("undefine short")
    assert "domain 'short' already exists" in lab.fails(f"install --name short {NOTHING} --disk none --boot hd")
    lab.ok("destroy short")
    assert files_of(lab) == before and "short" not in lab.ok("list --all")


def test_disks_and_addresses_of_others(lab: Lab, domain_named: Callable[[str], Domain], tmp_path: Path) -> None:
    domain_named("owner")
    domain_named("taker")
    mac = "52:54:00:00:bb:01"
    disk = f"{lab.host.tree.images}/owner.qcow2"
    lab.ok(f"install --name owner --memory 64 --noautoconsole --boot hd --disk size=0.01 --network user,mac={mac}")
    lab.ok("destroy owner")
    taken = f"install --name taker --memory 64 --noautoconsole --boot hd --disk {disk},format=qcow2"
    assert f"Disk {disk} is already in use by other guests ['owner']" in lab.fails(f"{taken} --network none")
    assert "in use by other guests ['owner']" in lab.fails(
        f"{taken} --network user,mac={mac} --check path_in_use=off"
    )
    lab.ok(f"{taken} --network user,mac={mac} --check all=off")


def test_a_disk_in_a_pool(lab: Lab, domain_named: Callable[[str], Domain], tmp_path: Path) -> None:
    """It is made in the pool's folder, and taken from there by its name."""
    domain = domain_named("pooled")
    lab.ok(f"pool-create-as scratch dir --target {tmp_path}")
    lab.ok(f"install --name pooled {NOTHING} --boot hd --disk pool=scratch,size=0.01")
    assert [disk.path for disk in domain.definition.disks] == [f"{tmp_path}/pooled.qcow2"]
    domain.destroy()
    domain.undefine()
    lab.ok("vol-create-as scratch given 10M --format qcow2")
    lab.ok(f"install --name pooled {NOTHING} --boot hd --disk vol=scratch/given")
    (disk,) = domain.definition.disks
    assert (disk.path, disk.format) == (f"{tmp_path}/given", "qcow2")
    assert "failed to get vol 'missing'" in lab.fails(
        f"install --name other {NOTHING} --boot hd --disk pool=scratch,source.volume=missing"
    )
    domain.destroy()
    lab.ok("pool-destroy scratch")


def test_what_fails_leaves_nothing(lab: Lab, domain_named: Callable[[str], Domain], distribution: Path) -> None:
    """Disks, seed, boot files and definition are made, and QEMU refuses its CPU."""
    domain = domain_named("fails")
    for line in (
        f"--location {distribution} --disk size=0.01 --disk size=0.01,format=raw,sparse=no",
        "--import --disk size=0.01 --cloud-init disable=on",
        "--boot hd --disk size=0.01 --transient",
    ):
        done = lab.run(f"install --name fails {NOTHING} --cpu no-such-model {line}")
        assert done.returncode == 1 and "unable to find CPU model 'no-such-model'" in done.stderr
        assert "Creating domain...\n" in done.stdout and "Removing disk 'fails.qcow2'\n" in done.stdout
        assert (
            files_of(lab) == []
            and not domain.is_persistent
            and not os.path.exists(lab.host.tree.domain_run("fails"))
        )
    Path(lab.host.tree.qemu_log("fails")).unlink()
    # A dry run makes nothing at all; nor does what is refused after the disks were looked at.
    out = lab.ok(f"install --name fails {NOTHING} --import --disk size=0.01 --cloud-init --dry-run")
    assert out == "Dry run completed successfully\n"
    assert "take 1048576000 MiB" in lab.fails(
        f"install --name fails {NOTHING} --boot hd --disk size=1024000,sparse=no"
    )
    assert files_of(lab) == []


SLOW = """#!/bin/sh
# In the place of a qemu-img on a slow disk: the image grows by a MiB at a time, STEPS times.
for word; do path=$size; size=$word; done
: >"$path"
i=0
while [ $i -lt STEPS ]; do
    dd if=/dev/zero bs=1M count=1 status=none >>"$path"
    i=$((i + 1))
    sleep 0.1
done
"""


def test_progress_and_an_interrupt(
    lab: Lab, domain_named: Callable[[str], Domain], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    domain = domain_named("slow")
    program = tmp_path / "qemu-img"
    program.touch(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    line = f"--name slow {NOTHING} --boot hd --disk size=0.01,format=raw,sparse=no"
    program.write_text(SLOW.replace("STEPS", "600"))
    with begin(lab, line) as child:
        nslab.until(lambda: files_of(lab), "the disk", 60)
        child.send_signal(signal.SIGINT)
        _, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (130, "")
    assert files_of(lab) == [] and not domain.is_persistent
    program.write_text(SLOW.replace("STEPS", "10"))
    command = [sys.executable, "-m", "qkvm", "--root", lab.root, "install", *shlex.split(line)]
    terminal = Terminal(command, cwd=TOP)
    try:
        shown = terminal.expect("Creating domain...", 60)
        terminal.expect("Domain creation completed.", 60)
        assert terminal.child.wait(60) == 0
    finally:
        terminal.close()
    # Each one is written over the one before; a pipe gets the first alone.
    parts = [int(part) for part in re.findall(r"Allocating 'slow.raw' \(10486KiB\) +(\d+)%", shown)]
    assert len(parts) > 2 and parts == sorted(parts) and 10 < parts[-1] <= 100
    assert domain.is_running


def test_an_installation_at_the_console(
    lab: Lab, domain_named: Callable[[str], Domain], distribution: Path
) -> None:
    """Its text is shown; when the guest has rebooted, the next start is shown too, until the user leaves."""
    domain = domain_named("seen")
    line = f"--name seen --network none --memory 256 --disk size=0.01 --location {distribution} -x console=ttyS0"
    terminal = Terminal([sys.executable, "-m", "qkvm", "--root", lab.root, "install", *shlex.split(line)], cwd=TOP)
    try:
        terminal.expect("Connected to domain 'seen'\nEscape character is ^] (Ctrl + ])\n", 60)
        terminal.expect("guest: ready", 120)
        first = domain.live.id
        terminal.type("reboot -f\n")
        terminal.expect("Domain has shutdown. Continuing.\nDomain creation completed.\nRestarting guest.\n", 60)
        terminal.expect("Connected to domain 'seen'\n", 60)
        assert domain.live.id > first and domain.live.record["definition"].get("boot", {}) == {}
        terminal.type("\x1d")
        assert terminal.child.wait(60) == 0
        assert terminal.is_restored() and domain.is_running
    finally:
        terminal.close()
    assert not os.path.exists(lab.host.tree.boot_file("seen", "kernel"))


def test_a_console_that_is_left(lab: Lab, domain_named: Callable[[str], Domain]) -> None:
    """Without an installation there is nothing to wait for; --destroy-on-exit ends the guest."""
    domain = domain_named("left")
    line = "install --name left --network none --memory 64 --disk none --boot hd --transient"
    for option, running in (("", True), ("--destroy-on-exit", False)):
        command = [sys.executable, "-m", "qkvm", "--root", lab.root, *shlex.split(f"{line} {option}")]
        terminal = Terminal(command, cwd=TOP)
        try:
            terminal.expect("Escape character is ^] (Ctrl + ])\n", 60)
            terminal.type("\x1d")
            terminal.expect("Domain creation completed.\n", 60)
            assert terminal.child.wait(60) == 0
        finally:
            terminal.close()
        assert domain.is_running is running
        lab.run("destroy left")
