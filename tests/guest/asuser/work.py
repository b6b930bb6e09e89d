"""What a user's guests can do, feature by feature, and what needs root and says so."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from qkvm.api.domain import Domain
from qkvm.errors import HostError, ProgramFailed
from qkvm.host import process
from qkvm.host.confine import Limits
from qkvm.host.node import accel
from tests.guest import guest as guests
from tests.guest.asuser.conftest import HOME, Register, UserLab
from tests.guest.conftest import TOP
from tests.guest.guest import Guest
from tests.terminal import Terminal

UID = os.geteuid()


@pytest.fixture(scope="module")
def mine(lab: UserLab) -> Iterator[Domain]:
    """A guest with a bit of everything."""
    lab.ok("vol-create-as default mine.qcow2 64M --format qcow2")
    disk = f'[[disks]]\npath = "{lab.host.tree.images}/mine.qcow2"\nformat = "qcow2"\ntarget = "vda"\n'
    domain = lab.define(
        "mine",
        vcpus="{ current = 1, maximum = 2 }",
        vnc='{ listen = "127.0.0.1" }',
        tpm="{}",
        video='"vga"',
        body=f'{disk}[[nics]]\nmac = "52:54:00:00:00:01"\ntype = "user"\nbackend = "slirp"\n',
    )
    yield lab.boot(domain)
    if domain.is_running:
        domain.destroy()
    domain.undefine(snapshots_metadata=True, checkpoints_metadata=True)


def test_the_tree_is_the_users_alone(lab: UserLab, mine: Domain) -> None:
    tree = lab.host.tree
    assert tree.root == f"{HOME}/.local/share/qkvm" and tree.is_session
    assert os.path.dirname(tree.run) == os.environ["XDG_RUNTIME_DIR"]
    assert lab.ok("uri").strip() == lab.ok("-c qemu:///session uri").strip() == "qemu:///session"
    assert mine.live.folder.startswith(tree.run) and "mine" in lab.ok("list")
    for top in (tree.root, tree.run):
        for folder, _, files in os.walk(top):
            info = os.lstat(folder)
            assert info.st_uid == UID and not info.st_mode & 0o022, folder
            assert {os.lstat(os.path.join(folder, name)).st_uid for name in files} <= {UID}
        assert stat.S_IMODE(os.stat(top).st_mode) == 0o700
    assert "belongs to another user: this needs root" in lab.fails("-c qemu:///system list")


def test_another_environment_sees_the_same_guests(lab: UserLab, mine: Domain) -> None:
    """As cron's does, which knows of no login; and a user who has nothing yet."""
    plain = {name: value for name, value in os.environ.items() if name != "XDG_RUNTIME_DIR"}
    for env, shown in ((plain, True), ({**plain, "HOME": f"{HOME}/nobody"}, False)):
        for verb in ("list --all", "net-list --all", "pool-list --all"):
            done = subprocess.run(
                [sys.executable, "-m", "qkvm", *verb.split()],
                capture_output=True,
                text=True,
                check=True,
                env=env,
                cwd=TOP,
            )
            assert ("mine" in done.stdout and "running" in done.stdout) is (shown and verb == "list --all")


def test_all_that_runs_is_the_users(mine: Domain) -> None:
    run = mine.live
    for pid in (run.pid, *(entry["pid"] for entry in run.record["sidecars"])):
        assert os.stat(f"/proc/{pid}").st_uid == UID
    assert not {"-runas", "-run-with"} & set(run.record["argv"])
    with Guest(mine) as guest:
        assert guest.ask("cat /sys/class/tpm/tpm0/tpm_version_major") == "2"


def test_vcpus_and_memory(lab: UserLab, mine: Domain) -> None:
    lab.ok("setvcpus mine 2 --live")
    lab.ok("setmem mine 200M --live")
    with Guest(mine) as guest:
        guest.until("cpus", "2")
    assert "balloon.current=204800" in lab.ok("domstats --balloon mine")


def test_disks_come_and_go(lab: UserLab, mine: Domain) -> None:
    image = HOME / "more.img"
    image.write_bytes(bytes(8 << 20))
    lab.ok(f"attach-disk mine {image} vdb")
    with Guest(mine) as guest:
        guest.until("cat /sys/block/vdb/size 2>/dev/null || true", str((8 << 20) // 512))
    lab.ok("detach-disk mine vdb")
    assert "vdb" not in lab.ok("domblklist mine")


def test_snapshots(lab: UserLab, mine: Domain) -> None:
    with Guest(mine) as guest:
        guest.ask("echo then > /run/mark")
    lab.ok("snapshot-create-as mine one")
    with Guest(mine) as guest:
        guest.ask("echo now > /run/mark")
    lab.ok("snapshot-revert mine one")
    with Guest(mine) as guest:
        assert guest.ask("cat /run/mark") == "then"
    lab.ok("snapshot-delete mine one")
    lab.ok("snapshot-create-as mine two --disk-only")
    assert "mine.two" in lab.ok("domblklist mine")
    lab.ok("snapshot-delete mine two")
    assert "mine.two" not in lab.ok("domblklist mine")


def test_backups(lab: UserLab, mine: Domain) -> None:
    folder = HOME / "backups"
    assert "full" in lab.ok(f"backup mine {folder}")
    with Guest(mine) as guest:
        guest.ask("echo written > /dev/vda; sync")
    assert "incremental" in lab.ok(f"backup mine {folder}")
    lab.ok(f"restore-backup {folder} --name again")
    (disk,) = lab.host.domain("again").definition.disks
    assert b"written\n" in Path(disk.path).read_bytes()
    lab.ok("undefine again --remove-all-storage --nvram --tpm")
    assert not os.path.exists(disk.path)


def test_agent(lab: UserLab, mine: Domain) -> None:
    guests.wait_agent(mine)
    assert '{"return":{}}' in lab.ok('qemu-agent-command mine \'{"execute":"guest-ping"}\'')
    assert "os.id" in lab.ok("guestinfo mine --os")
    assert "10.0.2.15/24" in lab.ok("domifaddr mine --source agent")
    assert "10.0.2.15/24" in lab.ok("domifaddr mine")


def test_console_and_screen(lab: UserLab, mine: Domain) -> None:
    with closing(Terminal([sys.executable, "-m", "qkvm", "console", "mine"], cwd=str(TOP))) as terminal:
        terminal.expect("Escape character is ^]")
        terminal.type("\n")
        terminal.expect("guest# ")
        terminal.type("\x1d")
        assert terminal.child.wait(60) == 0
    lab.ok(f"screenshot mine {HOME}/screen.png")
    assert (HOME / "screen.png").read_bytes().startswith(b"\x89PNG")
    assert lab.ok("vncdisplay mine").startswith("127.0.0.1:")


def test_events(lab: UserLab, mine: Domain) -> None:
    watching = subprocess.Popen(
        [sys.executable, "-m", "qkvm", "event", "mine", "--event", "lifecycle", "--loop"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=TOP,
    )
    try:
        assert watching.stdout is not None
        deadline, told = time.monotonic() + 60, ""
        # The first of these may be before it listens.
        while "Suspended" not in told:
            assert time.monotonic() < deadline
            lab.ok("suspend mine")
            lab.ok("resume mine")
            os.set_blocking(watching.stdout.fileno(), False)
            told += watching.stdout.read() or ""
    finally:
        watching.send_signal(signal.SIGINT)
        watching.communicate(timeout=60)


def test_save_and_restore(lab: UserLab, mine: Domain) -> None:
    with Guest(mine) as guest:
        guest.ask("echo kept > /run/mark")
    lab.ok(f"save mine {HOME}/mine.save")
    assert not mine.is_running
    lab.ok(f"restore {HOME}/mine.save")
    lab.ok("managedsave mine")
    lab.ok("start mine")
    with Guest(mine) as guest:
        assert guest.ask("cat /run/mark") == "kept"
    lab.ok(f"dump mine {HOME}/mine.core --memory-only")
    assert (HOME / "mine.core").read_bytes()[:4] == b"\x7fELF"


def test_uefi(lab: UserLab, domain_of: Register) -> None:
    kernel = f"kernel = '{lab.kernel}', initrd = '{lab.initrd}', cmdline = 'console=ttyS0'"
    domain = lab.boot(domain_of(lab.define("firm", boot=f"{{ firmware = 'uefi', {kernel} }}")))
    store = lab.host.tree.nvram("firm")
    assert os.stat(store).st_uid == UID
    with Guest(domain) as guest:
        guest.ask("[ -d /sys/firmware/efi ]")


def test_a_shared_folder(lab: UserLab, domain_of: Register) -> None:
    """By 9p, as the user: what the guest makes is theirs, and what is root's stays shut."""
    folder = HOME / "shared"
    folder.mkdir(mode=0o700)
    (folder / "there").write_text("from the host\n")
    boot = f"{{ kernel = '{HOME}/vmlinuz-full', initrd = '{HOME}/initrd-full', cmdline = 'console=ttyS0' }}"
    shared = f'[[filesystems]]\nsource = "{folder}"\ntarget = "tag"\naccess = "squash"\n'
    domain = lab.boot(domain_of(lab.define("sharing", boot=boot, body=shared)))
    with Guest(domain) as guest:
        guest.ask("mkdir /sh; mount -t 9p -o trans=virtio,version=9p2000.L tag /sh")
        assert guest.ask("cat /sh/there") == "from the host"
        guest.ask("echo from the guest > /sh/back; umount /sh")
    assert (folder / "back").read_text() == "from the guest\n" and (folder / "back").stat().st_uid == UID
    tagged = shared.replace('access = "squash"', 'driver = "virtiofs"')
    lab.define("virtio", boot=boot, body=tagged)
    assert "needs root (driver 9p)" in lab.fails("start virtio")
    lab.ok("undefine virtio")


def test_a_seed(lab: UserLab) -> None:
    boot = f"kernel={lab.kernel},initrd={lab.initrd},kernel_args=console=ttyS0"
    lab.ok(
        f"install --name cloud --memory 256 --disk none --network none --boot {boot} --noautoconsole "
        "--cloud-init root-password-generate=on"
    )
    domain = lab.host.domain("cloud")
    guests.wait_ready(domain)
    with Guest(domain) as guest:
        assert guest.ask("dd if=/dev/sr0 bs=1 skip=32808 count=6 2>/dev/null") == "cidata"
    domain.destroy()
    domain.undefine()
    assert not os.path.exists(lab.host.tree.seed("cloud"))


def test_what_a_killed_qemu_leaves(lab: UserLab, domain_of: Register) -> None:
    domain = lab.boot(domain_of(lab.define("killed")))
    guests.end_qemu(domain)
    assert "crashed" in lab.ok("domstate killed --reason")
    lab.ok("gc")
    lab.boot(domain)


def test_kvm_is_its_groups() -> None:
    """The remedy is named where /dev/kvm lets the user not in."""
    if os.access("/dev/kvm", os.R_OK | os.W_OK):
        assert accel.choose("kvm") == ("kvm", "")
        return
    with pytest.raises(HostError) as caught:
        accel.choose("kvm")
    if os.path.exists("/dev/kvm"):
        assert "root" in caught.value.hint and (
            "usermod -aG" in caught.value.hint or "chgrp kvm" in caught.value.hint
        )


def test_qemu_img_makes_no_socket() -> None:
    limits = Limits(60, 1 << 30)
    with pytest.raises(ProgramFailed) as caught:
        process.run([sys.executable, "-c", "import socket; socket.socket()"], limits=limits)
    assert "Operation not permitted" in caught.value.stderr
    assert process.run([sys.executable, "-c", "print(1 + 1)"], limits=limits) == b"2\n"


NETWORK = 'name = "own"\nbridge = "own0"\naddress = "10.77.0.1/24"\n'


def test_what_needs_root_says_so(lab: UserLab, mine: Domain) -> None:
    (HOME / "own.toml").write_text(NETWORK)
    lab.ok(f"net-define {HOME}/own.toml")
    lab.ok("pool-define-as vms logical --source-name vg0")
    for line, words in {
        "net-start own": "network 'own': it consists of things of the host's needs root",
        "attach-interface mine bridge up0": "a NIC on a bridge of the host's needs root",
        "attach-interface mine direct up0": "a macvtap on up0 needs root",
        "iface-bridge up0 br0 --no-stp": "a bridge over up0 needs root",
        "pool-start vms": "a pool of type logical needs root (a pool of type dir)",
        "memtune mine --hard-limit 500000": "without root it takes one that is delegated to you",
        "schedinfo mine --set cpu_shares=200": "without root it takes one that is delegated to you",
    }.items():
        assert words in lab.fails(line), line
    lab.ok("net-undefine own")
    lab.ok("pool-undefine vms")


def test_boot_and_halt(lab: UserLab, domain_of: Register) -> None:
    """The unit of the user's systemd, and what it says run as it would."""
    domain = domain_of(lab.define("early"))
    lab.ok("autostart early")
    unit = HOME / ".config/systemd/user/qkvm.service"
    done = lab.run("setup-boot --timeout 30")
    assert done.returncode == 0 and f"{unit} written\n" in done.stdout, done.stderr
    assert "warning: it is not switched on: systemctl --user enable qkvm.service" in done.stderr
    assert "loginctl enable-linger" in done.stderr
    lines = dict(line.split("=", 1) for line in unit.read_text().splitlines() if line.startswith("Exec"))

    def does(what: str) -> str:
        return subprocess.run(lines[what].split(), capture_output=True, text=True, check=True, cwd=TOP).stdout

    assert "Domain 'early' started" in does("ExecStart")
    guests.wait_ready(domain)
    assert "Domain 'early' has shut down" in does("ExecStop")
    assert "for users" in lab.fails("setup-boot --init sysv")
    assert f"{unit} removed" in lab.ok("setup-boot --remove") and not unit.exists()
