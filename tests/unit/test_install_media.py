"""Install methods: what the first boot is of; CD images and folders as media; seeds of cloud images."""

from __future__ import annotations

import ctypes
import io
import json
import os
import shlex
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qkvm.cli.install import cloudinit
from qkvm.cli.install.build import Built, build
from qkvm.cli.install.reader import read
from qkvm.cli.parse import UsageError
from qkvm.domain.manage.install import Media
from qkvm.errors import HostError, QkvmError
from qkvm.paths import Tree
from qkvm.spec.domain import Boot, BootDevice, Disk, DiskBus, DiskFormat, DiskKind, OnReboot
from qkvm.storage.media import installtree, iso, seed
from qkvm.storage.media.seed import Seed

TREEINFO = "[general]\nfamily = X\n[images-x86_64]\nkernel = {kernel}\ninitrd = {initrd}\n"


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(str(tmp_path))


@pytest.fixture
def medium(tmp_path: Path) -> Path:
    """A folder with an installer's kernel where Debian has it."""
    folder = tmp_path / "medium"
    (folder / "install.amd").mkdir(parents=True)
    (folder / "install.amd/vmlinuz").write_bytes(b"the kernel")
    (folder / "install.amd/initrd.gz").write_bytes(b"the initrd")
    return folder


def image(folder: Path, path: Path) -> Path:
    """A CD image of a folder, with Rock Ridge names and links."""
    from pycdlib import PyCdlib

    made = PyCdlib()
    made.new(interchange_level=3, rock_ridge="1.09", vol_ident="TEST")
    for number, entry in enumerate(sorted(folder.rglob("*"))):
        name = entry.relative_to(folder).as_posix()
        flat = "/".join("".join(filter(str.isalnum, part)).upper()[:8] for part in name.split("/"))
        if entry.is_symlink():
            made.add_symlink(f"/{flat}.;1", rr_symlink_name=entry.name, rr_path=os.readlink(entry))
        elif entry.is_dir():
            made.add_directory(f"/{flat}", rr_name=entry.name)
        else:
            parent = flat.rpartition("/")[0]
            made.add_file(str(entry), f"{'/' if parent else ''}{parent}/F{number}.;1", rr_name=entry.name)
    made.write(str(path))
    made.close()
    return path


def built(tree: Tree, line: str) -> Built:
    return build(tree, read(shlex.split(f"--name vm --network none {line}")), lambda text: None)


# What the first boot is of.


def test_from_a_cd(tree: Tree, tmp_path: Path) -> None:
    path = tmp_path / "x.iso"
    path.touch()
    plan = built(tree, f"--disk /x,size=1 --cdrom {path}").plan
    assert plan.first is not None and plan.media is None
    assert [disk.path for disk in plan.definition.disks] == ["/x", ""]
    assert [disk.path for disk in plan.first.disks] == ["/x", str(path)]
    assert plan.first.boot.order == (BootDevice.CDROM, BootDevice.DISK)
    assert (plan.definition.boot, plan.definition.on_reboot) == (Boot(), OnReboot.RESTART)
    assert plan.first.on_reboot is OnReboot.DESTROY
    # An empty drive that was asked for is the one that the medium goes into.
    plan = built(tree, f"--disk device=cdrom,bus=scsi --disk device=cdrom --cdrom {path}").plan
    assert plan.first is not None
    assert [(disk.bus, disk.path) for disk in plan.first.disks] == [("scsi", str(path)), ("sata", "")]
    # What is said of the boot is what stays.
    plan = built(tree, f"--disk /x,size=1 --boot network,hd,menu=on --cdrom {path}").plan
    assert plan.first is not None and plan.first.boot.menu
    assert plan.definition.boot.order == (BootDevice.NETWORK, BootDevice.DISK)
    assert plan.first.boot.order == (BootDevice.CDROM, BootDevice.NETWORK, BootDevice.DISK)
    plan = built(tree, f"--boot kernel=/k,initrd=/i,cmdline=c --cdrom {path}").plan
    assert plan.first is not None
    assert (plan.first.boot.kernel, plan.first.boot.initrd, plan.first.boot.cmdline) == ("", "", "")
    assert plan.definition.boot == Boot(kernel="/k", initrd="/i", cmdline="c")


def test_devices_with_numbers_of_their_own(tree: Tree, tmp_path: Path) -> None:
    path = tmp_path / "x.iso"
    path.touch()
    plan = built(tree, f"--disk /x,size=1,boot.order=1 --disk /y,size=1,boot.order=2 --cdrom {path}").plan
    assert plan.first is not None
    assert [disk.boot_order for disk in plan.definition.disks] == [1, 2, 0]
    assert [disk.boot_order for disk in plan.first.disks] == [2, 3, 1]
    assert plan.first.boot.order == ()
    line = "--name vm --disk /x,size=1,boot.order=1 --network user --pxe"
    plan = build(tree, read(shlex.split(line)), lambda text: None).plan
    assert plan.first is not None
    assert ([disk.boot_order for disk in plan.first.disks], plan.first.nics[0].boot_order) == ([2], 1)


def test_a_live_cd(tree: Tree, tmp_path: Path) -> None:
    path = tmp_path / "x.iso"
    path.touch()
    plan = built(tree, f"--cdrom {path} --install no_install=yes").plan
    assert plan.first is None and plan.definition.disks[0].path == str(path)


def test_from_the_network(tree: Tree) -> None:
    line = "--name vm --disk /x,size=1 --network user --pxe"
    plan = build(tree, read(shlex.split(line)), lambda text: None).plan
    assert plan.first is not None
    assert plan.first.boot.order == (BootDevice.NETWORK, BootDevice.DISK)
    assert plan.definition.boot.order == ()
    plan = built(tree, "--disk /x,size=1 --install bootdev=floppy").plan
    assert plan.first is not None
    assert plan.first.boot.order == (BootDevice.FLOPPY, BootDevice.DISK)


@pytest.mark.parametrize("kind", ["folder", "image"])
def test_from_a_location(tree: Tree, tmp_path: Path, medium: Path, kind: str) -> None:
    path = medium if kind == "folder" else image(medium, tmp_path / "m.iso")
    inject = tmp_path / "preseed.cfg"
    inject.touch()
    plan = built(tree, f"--disk /x,size=1 -l {path} -x 'a b' -x c --initrd-inject {inject}").plan
    assert plan.media == Media(str(path), "install.amd/vmlinuz", "install.amd/initrd.gz", (str(inject),))
    assert plan.first is not None
    assert plan.first.boot == Boot(
        kernel=tree.boot_file("vm", "kernel"), initrd=tree.boot_file("vm", "initrd"), cmdline="a b c"
    )
    assert plan.definition.boot == Boot()
    # The guest sees the image; a folder it does not.
    assert [disk.path for disk in plan.first.disks[1:]] == ([str(path)] if kind == "image" else [])
    assert [disk.path for disk in plan.definition.disks[1:]] == ([""] if kind == "image" else [])


def test_from_a_kernel_of_ones_own(tree: Tree, tmp_path: Path) -> None:
    plan = built(tree, f"--install kernel={tmp_path}/k,initrd={tmp_path}/i,kernel_args=a -x b").plan
    assert plan.media == Media("/", f"{tmp_path}/k"[1:], f"{tmp_path}/i"[1:])
    assert plan.first is not None and plan.first.boot.cmdline == "a b"
    plan = built(tree, f"--install kernel={tmp_path}/k").plan
    assert plan.first is not None and plan.first.boot.initrd == ""


# Media.


def test_a_treeinfo_says_where(medium: Path) -> None:
    (medium / "a").mkdir()
    for name in ("k", "i"):
        (medium / "a" / name).touch()
    for text, wanted in {
        TREEINFO.format(kernel="a/k", initrd="./a//i"): ("a/k", "a/i"),
        TREEINFO.format(kernel="a/k", initrd="a/missing"): installtree.KNOWN[0],
        TREEINFO.format(kernel="../../etc/passwd", initrd="a/i"): installtree.KNOWN[0],
        "[images-x86_64]\nkernel = a/k\n": installtree.KNOWN[0],
        "no ini at all\0": installtree.KNOWN[0],
    }.items():
        (medium / ".treeinfo").write_text(text)
        with installtree.medium(str(medium)) as source:
            assert installtree.find(source, "x") == wanted


def test_no_installer_is_there(tmp_path: Path) -> None:
    with (
        installtree.medium(str(tmp_path)) as source,
        pytest.raises(HostError, match="no installer's kernel was found"),
    ):
        installtree.find(source, str(tmp_path))


def extracted(path: Path, kernel: str, initrd: str, *inject: Path) -> tuple[bytes, bytes]:
    targets = (str(path.parent / "out/vm.kernel"), str(path.parent / "out/vm.initrd"))
    told: list[str] = []
    with installtree.medium(str(path)) as source:
        installtree.extract(source, kernel, initrd, targets, [str(one) for one in inject], told.append)
    assert told == [os.path.basename(kernel), os.path.basename(initrd)]
    for target in targets:
        assert os.stat(target).st_mode & 0o777 == 0o600
    return Path(targets[0]).read_bytes(), Path(targets[1]).read_bytes()


def test_copies(tmp_path: Path, medium: Path) -> None:
    whole = image(medium, tmp_path / "m.iso")
    for path in (medium, whole):
        assert extracted(path, "install.amd/vmlinuz", "install.amd/initrd.gz") == (b"the kernel", b"the initrd")
        with pytest.raises(HostError, match="there is no nowhere on the install medium"):
            extracted(path, "nowhere", "install.amd/initrd.gz")


def test_added_files(tmp_path: Path, medium: Path) -> None:
    """The archive behind the initrd is one that the kernel's cpio reader takes: newc, aligned to four bytes."""
    first, second = tmp_path / "preseed.cfg", tmp_path / "k"
    first.write_bytes(b"d-i x\n")
    second.write_bytes(b"")
    _, raw = extracted(medium, "install.amd/vmlinuz", "install.amd/initrd.gz", first, second)
    assert raw.startswith(b"the initrd\0\0" + b"070701")
    found, offset = {}, 12
    while True:
        fields = [int(raw[at : at + 8], 16) for at in range(offset + 6, offset + 110, 8)]
        size, length = fields[6], fields[11]
        name = raw[offset + 110 : offset + 110 + length - 1].decode()
        begin = (offset + 110 + length + 3) // 4 * 4
        if name == "TRAILER!!!":
            break
        assert fields[1] == 0o100644
        found[name] = raw[begin : begin + size]
        offset = (begin + size + 3) // 4 * 4
    assert found == {"preseed.cfg": b"d-i x\n", "k": b""}
    with pytest.raises(HostError, match="cannot read .*missing"):
        extracted(medium, "install.amd/vmlinuz", "install.amd/initrd.gz", tmp_path / "missing")


@pytest.mark.parametrize("kind", ["folder", "image"])
def test_a_link_leads_to_no_file_of_the_host(tmp_path: Path, medium: Path, kind: str) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"not for guests")
    (medium / "evil").symlink_to(secret)
    path = medium if kind == "folder" else image(medium, tmp_path / "m.iso")
    with pytest.raises(HostError, match="evil"):
        extracted(path, "evil", "install.amd/initrd.gz")
    # A folder's links to its own files are followed: Debian's netboot archive has some.
    if kind == "folder":
        (medium / "linux").symlink_to("install.amd/vmlinuz")
        assert extracted(path, "linux", "install.amd/initrd.gz")[0] == b"the kernel"


def test_odd_files_of_a_folder(tmp_path: Path, medium: Path) -> None:
    os.mkfifo(medium / "fifo")
    with pytest.raises(HostError, match="is no regular file"):
        extracted(medium, "fifo", "install.amd/initrd.gz")


@settings(max_examples=30, deadline=None)
@given(st.binary(max_size=4096), st.integers(0, 40000))
def test_no_bytes_break_the_reader(tmp_path_factory: pytest.TempPathFactory, raw: bytes, offset: int) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.iso"
    whole = bytearray(iso.make("X", {"a": b"text"}))
    whole[offset : offset + len(raw)] = raw
    path.write_bytes(whole)
    try:
        with iso.Iso(str(path)) as source:
            source.read("a")
            source.read("b/c")
    except HostError as error:
        assert "\n" not in str(error)


def test_what_is_no_image(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"\0" * 100000)
    assert not iso.is_image(str(path)) and not iso.is_image(str(tmp_path / "missing"))
    with pytest.raises(HostError, match="is no CD image"), iso.Iso(str(path)):
        pass
    with pytest.raises(HostError, match="cannot read"), iso.Iso(str(tmp_path / "missing")):
        pass


# Seeds.


def test_a_seed(tmp_path: Path) -> None:
    path = tmp_path / "seeds/vm.iso"
    made = Seed("#cloud-config\n{}\n", "instance-id: x\n", "version: 2\n")
    seed.write(str(path), made)
    assert seed.read(str(path)) == made
    assert path.stat().st_mode & 0o777 == 0o600 and path.parent.stat().st_mode & 0o777 == 0o700
    raw = path.read_bytes()
    assert raw[0x8028:0x8048].rstrip() == b"cidata"
    seed.write(str(path), Seed("a", "b"))
    assert seed.read(str(path)) == Seed("a", "b")
    path.write_bytes(iso.make("cidata", {"user-data": b"x"}))
    with pytest.raises(HostError, match="lacks user-data or meta-data"):
        seed.read(str(path))


def asked(tree: Tree, text: str) -> tuple[Built, Seed]:
    found = built(tree, f"--import --disk device=cdrom --boot hd --cloud-init {text}")
    assert found.plan.seed is not None
    return found, found.plan.seed


def config(texts: Seed) -> dict[str, object]:
    head, body = texts.user_data.split("\n", 1)
    assert head == "#cloud-config"
    found: dict[str, object] = json.loads(body)
    return found


def verifies(password: str, hashed: str) -> bool:
    crypt = ctypes.CDLL("libcrypt.so.1").crypt
    crypt.restype = ctypes.c_char_p
    return bool(crypt(password.encode(), hashed.encode()) == hashed.encode())


def test_cloud_init_alone(tree: Tree) -> None:
    """As virt-install has it: a root password made up, and cloud-init only once. qkvm's own key opens it."""
    os.makedirs(tree.ssh, 0o700)
    for name, text in ("id_ed25519", "private"), ("id_ed25519.pub", "ssh-ed25519 AAAA qkvm@host\n"):
        Path(tree.ssh, name).write_text(text)
    found, texts = asked(tree, "")
    said = config(texts)
    password = said["chpasswd"]
    assert isinstance(password, dict) and password["expire"] is True
    user, _, hashed = password["list"].strip().partition(":")
    assert user == "root" and verifies(found.password, hashed) and len(found.password) == 16
    assert found.password not in texts.user_data
    key = "ssh-ed25519 AAAA qkvm@host"
    assert said["ssh_authorized_keys"] == [key] and said["disable_root"] is False
    assert said["users"] == ["default", {"name": "root", "ssh_authorized_keys": [key]}]
    assert said["runcmd"] == ["echo 'disabled by qkvm install --cloud-init' >/etc/cloud/cloud-init.disabled"]
    assert json.loads(texts.meta_data) == {"instance-id": found.plan.definition.uuid, "local-hostname": "vm"}
    assert texts.network_config == ""
    # It stays with the guest, which boots with it each time.
    assert found.plan.first is None
    assert found.plan.definition.disks[-1] == Disk(
        path=tree.seed("vm"), format=DiskFormat.RAW, target="sdb", bus=DiskBus.SCSI, device=DiskKind.CDROM
    )
    assert found.plan.definition.smbios == {"serial": "ds=nocloud"}
    assert asked(tree, "")[0].password != found.password


def test_cloud_init_with_passwords_and_keys(tree: Tree, tmp_path: Path) -> None:
    (tmp_path / "pw").write_text("  secret \nsecond line\n")
    (tmp_path / "a.pub").write_text("ssh-ed25519 AAAA me\n")
    (tmp_path / "b.pub").write_text("ssh-rsa BBBB\n")
    found, texts = asked(
        tree,
        f"root-password-file={tmp_path}/pw,root-ssh-key={tmp_path}/a.pub,clouduser-ssh-key={tmp_path}/b.pub,"
        f"clouduser-ssh-key={tmp_path}/a.pub",
    )
    said = config(texts)
    password = said.pop("chpasswd")
    assert isinstance(password, dict) and password["expire"] is False
    assert verifies("  secret ", password["list"].strip().partition(":")[2]) and found.password == ""
    assert said == {
        "users": ["default", {"name": "root", "ssh_authorized_keys": ["ssh-ed25519 AAAA me"]}],
        "disable_root": False,
        "ssh_authorized_keys": ["ssh-rsa BBBB", "ssh-ed25519 AAAA me"],
    }
    (tmp_path / "key").write_text("-----BEGIN OPENSSH PRIVATE KEY-----\nx y\n")
    with pytest.raises(UsageError, match="holds no public SSH key"):
        asked(tree, f"root-ssh-key={tmp_path}/key")


def test_cloud_init_with_files_of_ones_own(tree: Tree, tmp_path: Path) -> None:
    for name in ("user", "meta", "net"):
        (tmp_path / name).write_text(f"{name}: é\n")
    texts = asked(tree, f"user-data={tmp_path}/user,meta-data={tmp_path}/meta,network-config={tmp_path}/net")[1]
    assert texts == Seed("user: é\n", "meta: é\n", "net: é\n")
    assert config(asked(tree, "disable=on")[1])["runcmd"]


def test_where_a_seed_is_seen(tree: Tree) -> None:
    """By SCSI, but for guests without virtio and for a microvm, which has virtio disks alone."""
    for line, bus, target in (
        ("--boot hd", DiskBus.SCSI, "sda"),
        ("--boot hd --osinfo generic", DiskBus.IDE, "hda"),
        ("--boot kernel=/k --machine microvm", DiskBus.VIRTIO, "vda"),
    ):
        (drive,) = built(tree, f"{line} --cloud-init disable=on").plan.definition.disks
        assert (drive.bus, drive.target, drive.is_readonly) == (bus, target, True)


def test_a_serial_number_of_ones_own_is_kept(tree: Tree) -> None:
    made = built(tree, "--import --disk device=cdrom --sysinfo system.serial=S --cloud-init disable=on")
    assert made.plan.definition.smbios == {"serial": "S"}


def test_names_that_are_no_host_names(tree: Tree) -> None:
    line = "--name _a+b@c: --network none --boot kernel=/k --cloud-init disable=on"
    made = build(tree, read(shlex.split(line)), lambda text: None).plan
    assert made.seed is not None and json.loads(made.seed.meta_data)["local-hostname"] == "a-b-c"


def test_hashing_needs_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_: object, **__: object) -> None:
        raise OSError("no such library")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(QkvmError, match="libcrypt.so.1 is not there"):
        cloudinit.hash_password("x")


def test_copying_tells_what_the_disk_says(medium: Path, tmp_path: Path) -> None:
    """A full disk is told as that, not as a damaged image."""

    class Full(io.BytesIO):
        def write(self, raw: object) -> int:
            raise OSError(28, "No space left on device")

    with (
        iso.Iso(str(image(medium, tmp_path / "m.iso"))) as source,
        pytest.raises(HostError, match="cannot copy install.amd/vmlinuz: No space left"),
    ):
        source.copy("install.amd/vmlinuz", Full())
