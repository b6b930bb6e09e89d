"""undefine with the disks: the guest's own alone go, all is decided before, and done again it goes on."""

from __future__ import annotations

import io
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from qkvm import Host
from qkvm.api.domain import Domain
from qkvm.cli.main import main
from qkvm.domain.store import snapshots as store
from qkvm.host.node import accel
from qkvm.spec import toml
from qkvm.storage import savefile
from tests.host.lines import Lines

TOP = Path(__file__).parent.parent.parent

MEMORY = 'memory = { current = "64MiB", maximum = "64MiB" }\n'


def disk(path: str | Path, target: str = "vda", fmt: str = "qcow2", more: str = "", backing: str = "") -> str:
    """A disk in a definition; ``backing`` is a qcow2 image that it is based on."""
    text = f'[[disks]]\npath = "{path}"\nformat = "{fmt}"\ntarget = "{target}"\n{more}\n'
    return text + (f'[[disks.backing]]\npath = "{backing}"\nformat = "qcow2"\n' if backing else "")


class Room(Lines):
    """A root with its folder of images, on which commands run in this process."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        Host(str(root)).prepare()
        self.ok("pool-list")

    def run(self, line: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        out, err = io.StringIO(), io.StringIO()
        given = self.root / "stdin"
        given.write_text(stdin)
        with redirect_stdout(out), redirect_stderr(err):
            code = main(["--root", str(self.root), *shlex.split(line.replace("/dev/stdin", str(given)))])
        given.unlink()
        return subprocess.CompletedProcess(line, code, out.getvalue(), err.getvalue())

    def image(self, name: str, base: str = "", folder: Path | None = None) -> Path:
        path = (folder or self.images) / name
        path.parent.mkdir(exist_ok=True)
        below = ["-b", base, "-F", "qcow2"] if base else []
        command = ["qemu-img", "create", "-q", "-u", "-f", "qcow2", *below, str(path), "1M"]
        subprocess.run(command, check=True)
        return path

    def define(self, name: str, *disks: str, more: str = "") -> Domain:
        self.ok("define /dev/stdin", f'name = "{name}"\n{MEMORY}{more}{"".join(disks)}')
        return Domain(Host(str(self.root)).tree, name)

    def files(self) -> list[str]:
        return sorted(path.name for path in self.images.iterdir())

    def names(self) -> list[str]:
        return self.ok("list --all --name").split()

    def stays(self, line: str, words: str) -> None:
        """It is refused before anything is touched."""
        before = self.files(), self.names()
        self.fails(line, words)
        assert (self.files(), self.names()) == before


def save_with(domain: Domain, path: Path) -> None:
    """A managed save of a domain that had one more disk when it was saved, plugged while it ran."""
    plain = toml.to_plain(domain.definition)
    plain["disks"] = [{"path": str(path), "format": "qcow2", "target": "vdo"}]
    os.makedirs(domain.tree.saves, 0o700, exist_ok=True)
    stream = savefile.writer(domain.tree.managed_save(domain.name))
    savefile.finish(stream, {"definition": plain})
    stream.commit()


@pytest.fixture
def room(tmp_path: Path) -> Room:
    os.chmod(tmp_path, 0o700)
    return Room(tmp_path)


def test_as_virsh_has_it(room: Room) -> None:
    one, two = room.image("a.qcow2"), room.image("b,c.qcow2")
    room.define("vm", disk(one), disk(two, "vdb"))
    room.stays("undefine vm --wipe-storage", "'--wipe-storage' requires '--storage <string>' or '--remove-all-st")
    room.stays("undefine vm --delete-storage-volume-snapshots", "requires '--storage <string>'")
    room.stays(
        "undefine vm --storage vda --remove-all-storage", "Specified both --storage and --remove-all-storage"
    )
    room.stays(
        "undefine vm --storage vda,vdz,/x", "Volume 'vdz', '/x' was not found in domain's definition (vda, vdb)"
    )
    room.stays("undefine vm --storage vda,,vdb", "Volume 'vda,vdb' was not found")
    room.stays("undefine vm --storage ''", "--storage needs targets or paths")
    escaped = str(two).replace(",", ",,")
    assert room.ok(f"undefine vm --storage '{escaped}' --delete-storage-volume-snapshots") == (
        f"Domain 'vm' has been undefined\nVolume 'vdb'({two}) removed.\n\n"
    )
    assert room.files() == ["a.qcow2"]
    room.define("vm", disk(one))
    assert room.ok("undefine vm --remove-all-storage --wipe-storage") == (
        f"Wiping volume 'vda'({one}) ... Done.\nDomain 'vm' has been undefined\nVolume 'vda'({one}) removed.\n\n"
    )
    assert not room.files() and not room.names()


def test_only_its_own_goes(room: Room) -> None:
    """Media, read-only, shareable and shared disks, backing files, what lies elsewhere, what leads elsewhere."""
    outside = room.root / "outside"
    base = room.image("base.qcow2")
    paths = {
        "vda": room.image("vda.qcow2", str(base)),
        "vdb": room.image("ro.qcow2"),
        "vdc": room.image("shared.img"),
        "vdd": room.image("shared.qcow2"),
        "vde": room.image("elsewhere.qcow2", folder=outside),
        "sda": room.image("cd.iso"),
        "vdf": room.image("below.qcow2", folder=room.images / "folder"),
        "vdg": room.image("clone-base.qcow2"),
        "vdh": room.images / "link.qcow2",
        "vdi": room.image("orphans"),
        "vdj": room.image("state.qcow2"),
        "vdk": room.image("hard.qcow2"),
        "vdl": room.images / "gone.qcow2",
        "vdm": room.image("mentioned.qcow2"),
        "vdn": room.image("busy.qcow2"),
        "vdo": room.image("plugged.qcow2"),
    }
    room.image("victim.qcow2", folder=outside)
    paths["vdh"].symlink_to(outside / "victim.qcow2")
    os.link(paths["vdk"], outside / "hard.qcow2")
    # Who else needs them.
    other = room.define("other", disk(outside / "hard.qcow2", "vdk"), disk(paths["vdd"], "vdb"))
    room.define("clone", disk(room.image("clone.qcow2", "clone-base.qcow2"), backing=str(paths["vdg"])))
    room.image("orphan.qcow2", "orphans")
    room.define("snap", disk(paths["vdj"]))
    room.ok("snapshot-create-as snap s1")
    room.define("snap", disk(room.image("snap.qcow2")), more=f'uuid = "{Domain(other.tree, "snap").uuid}"\n')
    save_with(other, paths["vdo"])
    Path(other.tree.domain_definition("broken")).write_text(f'name = "broken"\n# {paths["vdm"].name}\n[[[\n')
    kinds = {"vdb": "readonly = true", "vdc": "shareable = true", "sda": 'bus = "sata"\ndevice = "cdrom"'}
    layers = {"vda": str(base)}
    room.define(
        "vm",
        *(
            disk(
                path,
                target,
                "raw" if target in ("vdc", "sda") else "qcow2",
                kinds.get(target, ""),
                layers.get(target, ""),
            )
            for target, path in paths.items()
        ),
    )
    before = room.files()
    reasons = {
        "vdb": "only read",
        "vdc": "shareable",
        "vdd": "disk vdb of domain 'other'",
        "vde": "Remove it manually.",
        "sda": "is a medium",
        "vdf": "Remove it manually.",
        "vdg": "disk vda of domain 'clone'",
        "vdh": "Remove it manually.",
        "vdi": "orphan.qcow2 is based on",
        "vdj": "snapshot 's1' of domain 'snap'",
        "vdk": "disk vdk of domain 'other'",
        "vdo": "disk vdo of saved domain 'other'",
        "vdm": "domain 'broken', whose definition is damaged,",
    }
    for target, words in reasons.items():
        room.stays(f"undefine vm --storage vda,{target}", words)
    # One that another process has open as QEMU does.
    with subprocess.Popen(
        ["qemu-io", "-f", "qcow2", str(paths["vdn"])], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdin is not None and holder.stdout is not None
        holder.stdin.write(b"length\n")
        holder.stdin.flush()
        holder.stdout.readline()
        done = room.run("undefine vm --remove-all-storage")
        assert done.returncode == 1 and "in use by another process" in done.stderr and room.files() == before
        holder.stdin.close()
    done = room.run("undefine vm --remove-all-storage")
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        f"Domain 'vm' has been undefined\nVolume 'vda'({paths['vda']}) removed.\n"
        f"Volume 'vdn'({paths['vdn']}) removed.\n\n"
    )
    for target, words in reasons.items():
        line = next(line for line in done.stderr.splitlines() if f"'{target}'" in line)
        assert line.startswith(f"warning: Storage volume '{target}'({paths[target]}) ") and words in line
    assert done.stderr.count("\n") == len(reasons)
    assert room.files() == [name for name in before if name not in ("busy.qcow2", "vda.qcow2")]
    assert (outside / "victim.qcow2").exists() and (outside / "hard.qcow2").exists()


def test_hard_links_and_twins(room: Room) -> None:
    """A name goes, what has another one is not wiped; one file twice in a domain is what its strictest disk is."""
    path = room.image("one.qcow2")
    os.link(path, room.root / "keep.qcow2")
    room.define("vm", disk(path))
    room.stays("undefine vm --storage vda --wipe-storage", "has other names (hard links)")
    room.ok("undefine vm --remove-all-storage")
    assert not room.files() and (room.root / "keep.qcow2").stat().st_size
    path = room.image("two.qcow2")
    os.link(path, room.images / "three.qcow2")
    room.define(
        "vm", disk(path), disk(room.images / "three.qcow2", "sda", "raw", 'bus = "sata"\ndevice = "cdrom"')
    )
    room.stays("undefine vm --storage vda", "is disk sda of domain 'vm' and stays")
    # A pool that is not active has no volumes, and a damaged definition names no disks.
    room.define("vm", disk(path))
    room.ok("pool-destroy default")
    room.stays("undefine vm --storage vda", "Remove it manually. (inactive pools: default)")
    room.ok("pool-start default")
    (room.root / "etc/qkvm/domains/vm.toml").write_text("[[[")
    room.stays("undefine vm --remove-all-storage", "vm.toml")
    room.ok("undefine vm")
    assert room.files() == ["three.qcow2", "two.qcow2"]


def test_snapshots_layers_are_its_own(room: Room) -> None:
    """With its snapshots go the layers of all branches and the disk below them, never what that is based on."""
    base = room.image("base.qcow2")
    top = room.image("vm.qcow2", str(base))
    stays = room.image("data.qcow2")
    domain = room.define("vm", disk(top, backing=str(base)), disk(stays, "vdb"))
    room.ok("snapshot-create-as vm s1 --disk-only --diskspec vdb,snapshot=no")
    room.ok("snapshot-create-as vm s2 --disk-only --diskspec vdb,snapshot=no")
    room.ok("snapshot-revert vm s1")
    room.ok("snapshot-create-as vm s3 --disk-only --diskspec vdb,snapshot=no")
    layers = {os.path.basename(path) for path in store.layers(domain)}
    assert len(layers) == 3 and layers < set(room.files())
    room.stays("undefine vm --remove-all-storage", "cannot delete inactive domain with 3 snapshots")
    # vol-delete knows who needs what.
    room.stays("vol-delete base.qcow2 default", "of domain 'vm' needs volume 'base.qcow2'")
    room.stays("vol-delete vm.s1 default --delete-snapshots", "of domain 'vm' needs volume 'vm.s1'")
    # Somebody has made a clone of a layer: it stays, and so does all that it needs.
    room.define("clone", disk(room.image("clone.qcow2", f"{room.images}/vm.s1"), backing=f"{room.images}/vm.s1"))
    done = room.run("undefine vm --storage vda --snapshots-metadata")
    assert done.returncode == 1 and "disk vda of domain 'clone'" in done.stderr, done.stderr
    room.ok("undefine clone --remove-all-storage")
    room.ok("undefine vm --storage vda --snapshots-metadata")
    assert room.files() == ["base.qcow2", "data.qcow2"]
    # Without a snapshot that is known, and with a layer outside pools, which needs what it lies over.
    domain = room.define("vm", disk(top := room.image("vm.qcow2")))
    room.ok(f"snapshot-create-as vm s1 --disk-only --diskspec vda,file={room.root}/away.qcow2")
    done = room.run("undefine vm --remove-all-storage --snapshots-metadata")
    assert done.returncode == 0 and "away.qcow2 is based on, and stays" in done.stderr, done.stderr
    assert "Remove it manually." in done.stderr and top.exists() and (room.root / "away.qcow2").exists()


@pytest.mark.parametrize("options", ["", "--wipe-storage"])
def test_killed_anywhere_it_is_done_again(room: Room, options: str) -> None:
    """kill -9 before each removal of a file: the domain is there until its disks are gone, and it goes on."""
    line = f"undefine vm --remove-all-storage --snapshots-metadata {options}"
    for number in range(1, 99):
        foreign = room.image("foreign.qcow2") if number == 1 else room.images / "foreign.qcow2"
        base = room.images / "base.qcow2" if number > 1 else room.image("base.qcow2")
        room.define("vm", disk(room.image("vm.qcow2", str(base)), backing=str(base)), disk(room.image("b"), "vdb"))
        room.ok("snapshot-create-as vm s1 --disk-only")
        child = os.fork()
        if not child:
            _killed_at(room, line, number)
        code = os.waitpid(child, 0)[1]
        if os.WIFEXITED(code):
            assert os.WEXITSTATUS(code) == 0
            break
        room.ok("gc")
        left = set(room.files()) - {"foreign.qcow2", "base.qcow2"}
        if left:
            assert "vm" in room.names(), "disks without the domain that names them"
        if "vm" in room.names():
            room.ok(f"undefine vm --remove-all-storage --snapshots-metadata {options}")
        assert room.files() == ["base.qcow2", "foreign.qcow2"] and foreign.exists()
    assert number > 4 and room.files() == ["base.qcow2", "foreign.qcow2"] and not room.names()


def _killed_at(room: Room, line: str, number: int) -> None:
    """Run it in a child that kills itself when it comes to remove a file for the ``number``th time."""
    unlink, left = os.unlink, [number]

    def dying(*args: object, **options: object) -> None:
        left[0] -= 1
        if not left[0]:
            os.kill(os.getpid(), signal.SIGKILL)
        unlink(*args, **options)  # type: ignore[arg-type]

    os.unlink = dying
    os._exit(main(["--root", str(room.root), *shlex.split(line)]))


def test_a_removal_that_fails_says_what_is_gone(room: Room) -> None:
    one, two = room.image("one"), room.image("two")
    room.define("vm", disk(one), disk(two, "vdb"))
    # A file on which something is mounted can't be removed.
    subprocess.run(["mount", "--bind", str(two), str(two)], check=True)
    try:
        done = room.run("undefine vm --remove-all-storage")
        assert done.returncode == 1 and f"; volume 'vda'({one}) is gone" in done.stderr, done.stderr
    finally:
        subprocess.run(["umount", str(two)], check=True)
    assert room.names() == ["vm"] and room.files() == ["two"]
    assert f"Volume 'vdb'({two}) removed." in room.ok("undefine vm --remove-all-storage") and not room.files()


def test_volumes_that_others_need(room: Room) -> None:
    """vol-delete and what else destroys: snapshots, definitions, saved states and other volumes are asked."""
    disks = room.image("vm.qcow2")
    domain = room.define("vm", disk(disks))
    room.ok("snapshot-create-as vm s1")
    room.stays("vol-delete vm.qcow2 default", "snapshot 's1' of domain 'vm' has a state in volume 'vm.qcow2'")
    room.stays("vol-wipe vm.qcow2 default", "has a state in volume 'vm.qcow2'")
    assert room.ok("vol-delete vm.qcow2 default --delete-snapshots") == "Vol vm.qcow2 deleted\n\n"
    room.ok("undefine vm --snapshots-metadata")
    room.image("base.qcow2")
    room.image("top.qcow2", "base.qcow2")
    for verb in ("vol-delete", "vol-wipe", "vol-upload", "vol-resize"):
        more = {"vol-upload": f"{room.root}/stdin", "vol-resize": "2M"}.get(verb, "")
        room.stays(f"{verb} base.qcow2 {more} --pool default", "volume 'top.qcow2' of pool 'default' needs volume")
    # What a guest wrote into its raw disk tells nothing: neither one made here nor one that a definition has.
    raw = room.images / "raw.img"
    raw.write_bytes((room.images / "top.qcow2").read_bytes())
    room.define("vm", disk(raw, fmt="raw"))
    room.ok("vol-delete top.qcow2 default")
    room.ok("vol-delete base.qcow2 default")
    room.ok("undefine vm --storage vda")
    # The disk of a domain that is shut off may go, as in virsh, and the damaged ask for care.
    room.define("vm", disk(room.image("vm.qcow2")))
    path = Path(domain.tree.domain_definition("broken"))
    path.write_text('disks = "vm.qcow2" [')
    room.stays("vol-delete vm.qcow2 default", "domain 'broken', whose definition is damaged, needs volume")
    path.unlink()
    at = Path(domain.tree.snapshots("vm"))
    at.mkdir(mode=0o700, parents=True)
    (at / "s.json").write_text(json.dumps({"definition": str(room.images / "vm.qcow2")}))
    room.stays("vol-delete vm.qcow2 default", "snapshot 's' of domain 'vm', which is damaged, needs")
    (at / "s.json").unlink()
    room.ok("vol-delete vm.qcow2 default")


def test_variables_of_another_domain_stay(room: Room) -> None:
    nvrams = room.root / "var/lib/qkvm/nvram"
    nvrams.mkdir(mode=0o700, exist_ok=True)
    store_of_b = nvrams / "b_VARS.qcow2"
    store_of_b.write_bytes(b"variables")
    boot = 'boot = { firmware = "uefi" }\n'
    room.define("b", more=boot)
    room.define("a", more=boot.replace(" }", f', nvram = "{store_of_b}" }}'))
    done = room.run("undefine a --nvram")
    assert done.returncode == 0 and "is nvram of domain 'b' too, and stays" in done.stderr, done.stderr
    room.ok("undefine b --nvram")
    assert not store_of_b.exists()


def test_all_that_stands_in_the_way_is_named_at_once(room: Room) -> None:
    domain = room.define("vm", disk(room.image("a.qcow2")))
    room.ok("snapshot-create-as vm s1")
    save_with(domain, room.images / "a.qcow2")
    room.stays(
        "undefine vm",
        "cannot undefine domain with a managed save image, 1 snapshot (--managed-save removes it; "
        "--snapshots-metadata forgets them, snapshot-delete takes them out of the images; "
        "qkvm delete removes everything)",
    )
    room.stays("undefine vm --managed-save", "cannot delete inactive domain with 1 snapshots")


def test_delete_removes_what_is_the_guests_own(room: Room) -> None:
    base, other = room.image("base.qcow2"), room.image("c.qcow2", folder=room.root / "else")
    own = room.image("vm.qcow2", base=str(base))
    domain = room.define("vm", disk(own, backing=str(base)), disk(other, "vdb"), more="tpm = {}\n")
    room.ok("snapshot-create-as vm s1")
    save_with(domain, own)
    tree = domain.tree
    for path in (tree.seed("vm"), tree.serial_log("vm"), f"{tree.tpm('vm')}/tpm2-00.permall"):
        os.makedirs(os.path.dirname(path), 0o700, exist_ok=True)
        Path(path).write_text("x")
    found = domain.belongings()
    kinds = ["disk vda", "TPM state", "cloud-init seed", "saved state", "log", "definition", "snapshot"]
    assert [thing.kind for thing in found.goes] == kinds
    assert [(thing.kind, thing.name) for thing in found.stays] == [("disk vdb", str(other))]
    shown = room.ok("delete vm --yes")
    assert f"removed with it: disk vda {own}\n" in shown and "Domain 'vm' has been deleted\n" in shown
    assert f"stays: disk vdb {other} (is not managed by qkvm" in shown
    assert room.files() == ["base.qcow2"] and other.exists() and room.names() == []
    assert not any(os.path.lexists(thing.name) for thing in found.goes if thing.name.startswith("/"))
    assert not store.names(tree, "vm")


def test_delete_asks_on_a_terminal_alone(room: Room) -> None:
    room.define("vm", disk(room.image("a.qcow2")))
    command = [sys.executable, "-m", "qkvm", "--root", str(room.root), "delete", "vm"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=TOP, check=False)
    words = "nobody can be asked: stdin is no terminal (--yes does it without a question)"
    assert done.returncode == 1 and words in done.stderr and room.files() == ["a.qcow2"]
    for answer, code, files in (("n\n", 1, ["a.qcow2"]), ("y\n", 0, [])):
        host, guest = os.openpty()
        asked = subprocess.Popen(command, stdin=guest, stdout=subprocess.PIPE, text=True, cwd=TOP)
        os.write(host, answer.encode())
        out, _ = asked.communicate(timeout=60)
        os.close(host)
        os.close(guest)
        assert (asked.returncode, room.files()) == (code, files)
        assert "Remove domain 'vm' with all of it? [y/N]: " in out
    assert room.names() == []


def test_a_console_needs_a_terminal_before_the_start(room: Room) -> None:
    domain = room.define("vm", disk(room.image("a.qcow2")))
    command = [sys.executable, "-m", "qkvm", "--root", str(room.root), "start", "vm", "--console"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=TOP, check=False)
    words = "Cannot run interactive console without a controlling TTY (without --console, or in a terminal)"
    assert done.returncode == 1 and words in done.stderr
    assert domain.run is None


def test_a_dry_run_of_install_checks_what_a_start_does(room: Room) -> None:
    image = room.image("a.qcow2")
    line = f"install --dry-run --name vm --memory 64 --import --disk {image},format=raw"
    room.fails(f"{line} --network network=default", "network 'default' is not active")
    room.fails(f"{line} --network none --boot kernel=/nonexistent/k", "/nonexistent/k")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        room.fails(f"{line} --network none --graphics vnc,port={port}", f"{port}")
        room.fails(f"{line} --network user,portForward={port}:22", f"has tcp port {port}: python")
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as beside:
        port = beside.getsockname()[1]
        assert room.run(f"{line} --network user,portForward={port}:22").returncode == 0
    done = room.run(f"{line} --network none")
    assert done.returncode == 0 and "begins as a qcow2 image does, but is used as raw" in done.stderr
    assert room.names() == [] and room.files() == ["a.qcow2"]
    room.define("vm", disk(room.image("b.qcow2")))
    room.fails(f"{line} --network none", "domain 'vm' already exists")


def test_that_kvm_is_missing_is_told_once_and_never_with_quiet(room: Room) -> None:
    told = "" if accel.choose("auto")[0] == "kvm" else "KVM is not available"
    for name in ("vm", "other"):
        room.define(name)
    try:
        first = room.run("start vm --paused")
        assert first.returncode == 0 and told in first.stderr
        room.ok("destroy vm")
        again, quiet = room.run("start vm --paused"), room.run("-q start other --paused")
        assert (again.returncode, again.stderr, quiet.returncode, quiet.stderr) == (0, "", 0, "")
    finally:
        for name in ("vm", "other"):
            room.run(f"destroy {name}")


def test_gc_says_what_it_did_and_stops_all(room: Room) -> None:
    assert room.ok("gc") == "Nothing to do\n\n"
    room.define("vm")
    room.ok("start vm --paused")
    try:
        shown = room.run("gc --all --yes --timeout 1")
        assert shown.returncode == 1 and "domain 'vm': " in shown.stderr, "a paused guest does not shut down"
        assert "runs: domain 'vm'\nruns: pool 'default'\n" in shown.stdout
        assert "Domain 'vm' destroyed\nPool 'default' stopped\n" in shown.stdout
    finally:
        room.run("destroy vm")
    assert not any(Host(str(room.root)).running().values())
    assert room.ok("gc --all").startswith("Nothing to do")
    assert room.names() == ["vm"]
