"""Snapshots of domains that do not run, on real images: virsh's layouts, any order, nothing lost."""

from __future__ import annotations

import io
import json
import os
import re
import shlex
import shutil
import subprocess
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from qkvm import Host
from qkvm.api.domain import Domain
from qkvm.cli.main import main
from qkvm.domain.store import snapshots as store
from tests.host.lines import Lines

UUID = "05fbea17-f8f3-4cb6-acd1-0cc1128f9bb6"


class Disks(Lines):
    """A root with a domain, vm, and its images."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        Host(str(root)).prepare()
        self.domain = Domain(Host(str(root)).tree, "vm")
        for target in ("vda", "vdb"):
            subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", root / f"{target}.qcow2", "1M"], check=True)
        self.define()

    def run(self, line: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """In this process: there are many, and a start takes longer than most of them."""
        out, err = io.StringIO(), io.StringIO()
        given = self.root / "stdin"
        given.write_text(stdin)
        with redirect_stdout(out), redirect_stderr(err):
            code = main(["--root", str(self.root), *shlex.split(line.replace("/dev/stdin", str(given)))])
        given.unlink()
        return subprocess.CompletedProcess(line, code, out.getvalue(), err.getvalue())

    def define(self, *more: str) -> None:
        disks = "".join(
            f'[[disks]]\npath = "{self.root}/{name}.qcow2"\nformat = "qcow2"\ntarget = "{name}"\n'
            for name in ("vda", "vdb")
        )
        memory = 'memory = { current = "64MiB", maximum = "64MiB" }\n'
        self.ok("define /dev/stdin", f'name = "vm"\nuuid = "{UUID}"\n{memory}{"".join(more)}{disks}')

    def put(self, value: int, target: str = "vda", place: str = "0") -> None:
        """Write a byte all over a part of a disk, as its guest would."""
        subprocess.run(
            ["qemu-io", "-f", "qcow2", "-c", f"write -q -P {value} {place} 64k", self.path(target)], check=True
        )

    def holds(self, value: int, target: str = "vda", place: str = "0") -> bool:
        command = ["qemu-io", "-f", "qcow2", "-c", f"read -P {value} {place} 64k", self.path(target)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        return "verification failed" not in done.stdout

    def path(self, target: str) -> str:
        return next(disk.path for disk in self.domain.definition.disks if disk.target == target)

    def chain(self, target: str = "vda") -> list[str]:
        disk = next(disk for disk in self.domain.definition.disks if disk.target == target)
        told = [os.path.basename(path) for path in (disk.path, *(layer.path for layer in disk.backing))]
        # What the images say themselves is the same.
        info = subprocess.run(
            ["qemu-img", "info", "--backing-chain", "--output=json", disk.path], capture_output=True, check=True
        )
        assert [os.path.basename(one["filename"]) for one in json.loads(info.stdout)] == told
        return told


@pytest.fixture
def vm(tmp_path: Path) -> Disks:
    os.chmod(tmp_path, 0o700)
    return Disks(tmp_path)


def test_a_session_as_virsh_has_it(vm: Disks) -> None:
    assert vm.ok("snapshot-list vm") == " Name   Creation Time   State\n-------------------------------\n\n"
    assert vm.ok("snapshot-create-as vm s1 first") == "Domain snapshot s1 created\n"
    lines = vm.ok("snapshot-list vm").splitlines()
    assert lines[0] == " Name   Creation Time               State"
    assert lines[1] == "-" * 45
    assert re.fullmatch(r" s1     \d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d{4}   shutoff", lines[2])
    assert vm.ok("snapshot-info vm s1") == (
        "Name:           s1\nDomain:         vm\nCurrent:        yes\nState:          shutoff\n"
        "Location:       internal\nParent:         -\nChildren:       0\nDescendants:    0\n"
        "Metadata:       yes\n\n"
    )
    assert vm.ok("snapshot-current vm --name") == "s1\n"
    vm.fails("snapshot-parent vm s1", "snapshot 's1' has no parent")
    vm.ok("snapshot-create-as vm 1 --description 'no number of QEMU'")
    assert vm.ok("snapshot-parent vm --current") == "s1\n"
    vm.ok("snapshot-create-as vm a,b")
    assert vm.ok("snapshot-current vm s1") == "Snapshot s1 set as current\n"
    vm.ok("snapshot-create-as vm side")
    assert vm.ok("snapshot-list vm --tree") == (
        "s1\n  |\n  +- 1\n  |   |\n  |   +- a,b\n  |     \n  +- side\n    \n\n"
    )
    assert vm.ok("snapshot-list vm --name --leaves").split() == ["a,b", "side"]
    assert vm.ok("snapshot-list vm --name --no-leaves").split() == ["1", "s1"]
    assert vm.ok("snapshot-list vm --name --roots").split() == ["s1"]
    assert vm.ok("snapshot-list vm --name --from s1").split() == ["1", "side"]
    assert vm.ok("snapshot-list vm --name --from s1 --descendants --topological").split() == ["1", "a,b", "side"]
    assert vm.ok("snapshot-list vm --name --inactive --internal").split() == ["1", "a,b", "s1", "side"]
    for option in ("--active", "--disk-only", "--external", "--no-metadata", "--current"):
        assert vm.ok(f"snapshot-list vm --name {option}") == "\n"
    assert " 1      " in vm.ok("snapshot-list vm --parent --metadata") and "Parent" in vm.ok(
        "snapshot-list vm --parent"
    )
    vm.fails("snapshot-list vm --tree --name", "mutually exclusive")
    vm.fails("snapshot-list vm --descendants", "requires either")
    vm.fails("snapshot-info vm", "--snapshotname or --current is required")
    vm.fails("snapshot-info vm no", "Domain snapshot not found: no domain snapshot with matching name 'no'")
    vm.fails("snapshot-create-as vm s1", "domain snapshot s1 already exists")
    for name in ("a/b", ".a", "x" * 201, "a\tb"):
        vm.fails(f"snapshot-create-as vm '{name}'", "snapshot name")
    assert [row["name"] for row in json.loads(vm.ok("snapshot-list vm --json"))] == ["1", "a,b", "s1", "side"]
    assert vm.ok("list --all --with-snapshot --name") == "vm\n\n"
    assert vm.ok("list --all --without-snapshot --name") == "\n"
    vm.fails("undefine vm", "cannot delete inactive domain with 4 snapshots")
    assert vm.ok("snapshot-delete vm s1 --children-only") == "Domain snapshot s1 children deleted\n\n"
    assert vm.ok("snapshot-current vm --name") == "s1\n"
    vm.ok("undefine vm --snapshots-metadata")
    assert not os.path.exists(vm.domain.tree.snapshots("vm"))
    listed = subprocess.run(["qemu-img", "snapshot", "-l", vm.root / "vda.qcow2"], capture_output=True, text=True)
    assert "s1" in listed.stdout and "side" not in listed.stdout


def test_back_and_forth(vm: Disks) -> None:
    """Internal ones, deleted first, in the middle and last; a tag that looks like a number is none."""
    for value in (1, 2, 3):
        vm.put(value)
        vm.put(value + 10, "vdb")
        vm.ok(f"snapshot-create-as vm {value}")
    vm.put(4)
    for value in (2, 1, 3):
        vm.ok(f"snapshot-revert vm {value}")
        assert vm.holds(value) and vm.holds(value + 10, "vdb")
        assert vm.ok("snapshot-current vm --name") == f"{value}\n"
    vm.ok("snapshot-delete vm 2")
    assert vm.ok("snapshot-parent vm 3") == "1\n"
    vm.ok("snapshot-delete vm 1")
    vm.ok("snapshot-revert vm 3")
    assert vm.holds(3) and vm.holds(13, "vdb")
    # What was defined then is defined again, and what starts by itself is the host's affair.
    vm.define('title = "another"\nautostart = true\n')
    vm.ok("snapshot-revert vm --current")
    assert vm.domain.definition.title == "" and vm.domain.definition.autostart
    assert vm.ok("domrename vm other") == "Domain successfully renamed\n\n"
    vm.ok("snapshot-revert other 3")
    vm.ok("domrename other vm")
    vm.ok("snapshot-delete vm 3")
    assert vm.ok("list --all --without-snapshot --name") == "vm\n\n"


def test_layers(vm: Disks) -> None:
    """External ones: gone back to, deleted first, in the middle and last, with what is on either disk."""
    vm.put(1)
    vm.put(9, place="128k")
    vm.ok("snapshot-create-as vm s1 --disk-only --diskspec vdb,snapshot=no")
    vm.put(2)
    vm.put(12, "vdb")
    vm.ok("snapshot-create-as vm s2 --diskspec vda,snapshot=external --diskspec vdb,snapshot=no")
    vm.put(3)
    vm.ok(f"snapshot-create-as vm s3 --disk-only --diskspec vdb,file={vm.root}/other.qcow2")
    vm.put(4)
    assert vm.chain() == ["vda.s3", "vda.s2", "vda.s1", "vda.qcow2"]
    assert vm.chain("vdb") == ["other.qcow2", "vdb.qcow2"]
    vm.fails(f"snapshot-create-as vm x --disk-only --diskspec vda,file={vm.root}/vda.s1", "already exists")
    vm.fails("snapshot-create-as vm x --disk-only --diskspec vda,driver=raw", "is unsupported: raw")
    vm.fails("snapshot-create-as vm x --diskspec vda,snapshot=no --diskspec vdb,snapshot=no", "nothing selected")
    vm.fails("snapshot-create-as vm x --diskspec vdz,snapshot=no --diskspec vdy", "no disk named 'vdy'")
    vm.fails("snapshot-create-as vm x --memspec /tmp/x", "memory state cannot be saved with offline")
    vm.fails("snapshot-create-as vm x --diskspec vda,snapshot=external --diskspec vdb,snapshot=internal", "mixing")
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", "write -q -P 77 512k 64k", vm.root / "vda.s1"], check=True)
    vm.fails("snapshot-revert vm s2", "was written to since snapshot 's2' was taken")
    # In the middle: what was laid over it goes into its own image.
    vm.ok("snapshot-delete vm s2")
    assert vm.chain() == ["vda.s3", "vda.s1", "vda.qcow2"] and vm.holds(4) and vm.holds(9, place="128k")
    # Back, and forth: the one that is left has its own branch.
    vm.ok("snapshot-revert vm s1")
    assert vm.holds(1) and vm.holds(12, "vdb") and vm.path("vdb").endswith("/other.qcow2")
    assert not os.path.exists(vm.root / "vda.s3")
    vm.put(5)
    vm.ok("snapshot-revert vm s3")
    assert vm.holds(3) and vm.holds(9, place="128k")
    vm.put(6)
    # The last.
    vm.ok("snapshot-delete vm s3")
    assert vm.chain() == ["vda.s1", "vda.qcow2"] and vm.holds(6) and vm.chain("vdb") == ["vdb.qcow2"]
    # The first, and only one.
    vm.ok("snapshot-delete vm s1")
    assert vm.chain() == ["vda.qcow2"] and vm.holds(6) and vm.holds(9, place="128k") and vm.holds(12, "vdb")
    assert sorted(path.name for path in vm.root.iterdir() if path.is_file()) == ["vda.qcow2", "vdb.qcow2"]


def test_what_others_need_stays(vm: Disks) -> None:
    """Branches, states inside an upper image, clones of another domain: what is needed is not written to."""
    vm.put(1)
    vm.ok("snapshot-create-as vm inside")
    vm.put(2)
    vm.ok("snapshot-create-as vm s1 --disk-only")
    vm.put(3)
    vm.fails("snapshot-revert vm inside", "is based on")
    vm.ok("snapshot-create-as vm branch --disk-only")
    vm.put(4)
    vm.ok("snapshot-revert vm s1")
    vm.put(5)
    # Two branches are based on the image of s1, and it stays for both.
    vm.ok("snapshot-delete vm s1")
    assert vm.holds(5)
    vm.ok("snapshot-revert vm branch")
    assert vm.holds(3) and not (vm.root / "vda.s1.1").exists()
    vm.put(6)
    vm.ok("snapshot-create-as vm upper")
    # A state lies in the uppermost image: that is not brought together with anything.
    vm.ok("snapshot-delete vm branch")
    vm.put(7)
    vm.ok("snapshot-revert vm upper")
    assert vm.holds(6)
    vm.ok("snapshot-delete vm upper")
    vm.ok("snapshot-delete vm inside")
    assert vm.holds(6)
    vm.ok("snapshot-create-as vm last --disk-only")
    vm.put(8)
    clone = vm.root / "clone.qcow2"
    upper = vm.path("vda")
    below = [
        {"path": layer, "format": "qcow2"}
        for layer in (upper, *(str(layer.path) for layer in vm.domain.definition.disks[0].backing))
    ]
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", upper, "-F", "qcow2", clone], check=True)
    layers = "".join(f'[[disks.backing]]\npath = "{one["path"]}"\nformat = "qcow2"\n' for one in below)
    vm.ok(
        "define /dev/stdin",
        'name = "clone"\nmemory = { current = "64MiB", maximum = "64MiB" }\n'
        f'[[disks]]\npath = "{clone}"\nformat = "qcow2"\ntarget = "vda"\n{layers}',
    )
    vm.ok("snapshot-delete vm last")
    assert vm.path("vda") == upper and vm.holds(8)
    assert Domain(vm.domain.tree, "clone").definition.disks[0].backing[0].path == upper


def test_a_detached_disk_stays(vm: Disks) -> None:
    """The image of a disk that was detached is the user's, also where it was laid over another for a snapshot."""
    vm.put(1, "vdb")
    vm.ok("snapshot-create-as vm s1 --disk-only")
    vm.put(2, "vdb")
    vm.ok("snapshot-create-as vm s2 --disk-only")
    vm.put(3, "vdb")
    detached = vm.domain.definition.disks[1]
    vm.ok("detach-disk vm vdb --config")
    vm.ok("snapshot-delete vm s2")
    vm.ok("snapshot-delete vm s1")
    assert vm.chain() == ["vda.qcow2"]
    assert sorted(path.name for path in vm.root.glob("vdb.*")) == ["vdb.qcow2", "vdb.s1", "vdb.s2"]
    done = subprocess.run(["qemu-io", "-c", "read -P 3 0 64k", detached.path], capture_output=True, text=True)
    assert done.returncode == 0 and "verification failed" not in done.stdout


def test_made_up_names_and_managed_saves(vm: Disks) -> None:
    names = []
    for _ in range(2):
        found = re.fullmatch(r"Domain snapshot (\d{10,}) created\n", vm.ok("snapshot-create vm"))
        assert found is not None
        names.append(int(found[1]))
    assert names[0] < names[1]
    os.makedirs(vm.domain.tree.saves, 0o700)
    Path(vm.domain.tree.managed_save("vm")).write_bytes(b"state")
    vm.fails("snapshot-create-as vm no", "the domain has a managed save")
    vm.fails(f"snapshot-revert vm {names[0]}", "--force throws it away")
    vm.ok(f"snapshot-revert vm {names[0]} --force")
    assert not vm.domain.has_managed_save
    vm.fails("snapshot-create vm --current", "--redefine is required by option --current")
    vm.fails("snapshot-create vm --redefine", "--redefine needs the description")
    vm.fails("snapshot-create-as vm no --quiesce", "--quiesce is for --disk-only snapshots of a running domain")
    vm.fails("snapshot-create-as vm no --reuse-external", "--reuse-external is for external")
    vm.fails("snapshot-create-as vm no --diskspec vda,x=y", "unable to parse diskspec: vda,x=y")
    vm.fails("snapshot-create-as vm no --memspec x,y", "unable to parse memspec: x,y")
    # One that somebody else has made, in a folder with a comma.
    folder = vm.root / "a,b"
    folder.mkdir()
    shell = folder / "shell.qcow2"
    base = vm.path("vda")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "qcow2", shell], check=True)
    spec = f"vda,file={shell}".replace("a,b", "a,,b")
    vm.ok(f"snapshot-create-as vm made --disk-only --reuse-external --diskspec {spec} --diskspec vdb,snapshot=no")
    assert vm.chain() == ["shell.qcow2", "vda.qcow2"]
    vm.ok("snapshot-delete vm made")
    assert vm.chain() == ["vda.qcow2"] and shell.exists(), "what qkvm did not make it does not remove"


def test_edit_rename_redefine(vm: Disks, monkeypatch: pytest.MonkeyPatch) -> None:
    vm.put(1)
    vm.ok("snapshot-create-as vm s1 one")
    vm.put(2)
    vm.ok("snapshot-create-as vm s2")
    xml = vm.ok("snapshot-dumpxml vm s1")
    assert xml.startswith(
        "<domainsnapshot>\n  <name>s1</name>\n  <description>one</description>\n  <state>shutoff</state>\n"
        "  <creationTime>"
    )
    assert "  <memory snapshot='no'/>\n  <disks>\n    <disk name='vda' snapshot='internal'/>\n" in xml
    assert "  <domain type='" in xml and f"    <uuid>{UUID}</uuid>\n" in xml
    assert vm.ok("snapshot-dumpxml vm s2 --xpath //parent/name/text()") == "s1\n\n"
    assert vm.ok("snapshot-create-as vm x --print-xml --disk-only").startswith(
        "<domainsnapshot>\n  <name>x</name>"
    )
    assert not store.exists(vm.domain, "x")
    edits = {
        "s,>one<,>uno<,": "Snapshot s1 edited.\n\n",
        "s,^nothing,,": "Snapshot s1 XML configuration not changed.\n\n",
    }
    for script, words in edits.items():
        monkeypatch.setenv("VISUAL", f"sed -i {script}")
        assert vm.ok("snapshot-edit vm s1") == words
    monkeypatch.setenv("VISUAL", "sed -i s,>s1<,>first<,")
    vm.fails("snapshot-edit vm s1", "must specify either --rename or --clone to change s1 to first")
    assert vm.ok("snapshot-edit vm s1 --rename") == "Snapshot s1 renamed to first.\n\n"
    assert vm.ok("snapshot-parent vm s2") == "first\n"
    monkeypatch.setenv("VISUAL", "sed -i s,>first<,>copy<,")
    assert vm.ok("snapshot-edit vm first --clone") == "Snapshot first cloned to copy.\n\n"
    # The clone needs the same states.
    vm.ok("snapshot-delete vm first")
    vm.ok("snapshot-revert vm copy")
    assert vm.holds(1)
    vm.ok("snapshot-revert vm s2")
    # All is forgotten, and told anew.
    told = {name: vm.ok(f"snapshot-dumpxml vm {name} --security-info") for name in ("copy", "s2")}
    vm.ok("undefine vm --snapshots-metadata")
    vm.define()
    vm.fails(
        "snapshot-create vm /dev/stdin --redefine",
        "parent",
        told["s2"].replace("  <state>", "  <parent><name>no</name></parent>\n  <state>"),
    )
    vm.fails("snapshot-create vm /dev/stdin --redefine", "must use uuid", told["copy"].replace(UUID, "1" * 32))
    vm.fails("snapshot-create vm /dev/stdin --redefine", "stdin:1: not XML", "s2")
    words = f"Domain snapshot s2 created from '{vm.root}/stdin'\n"
    vm.ok("snapshot-create vm /dev/stdin --redefine", told["copy"])
    assert vm.ok("snapshot-create vm /dev/stdin --redefine --current", told["s2"]) == words
    vm.fails(
        "snapshot-create vm /dev/stdin --redefine",
        "own parent",
        told["s2"].replace("  <state>", "  <parent><name>s2</name></parent>\n  <state>"),
    )
    vm.put(5)
    vm.ok("snapshot-revert vm copy")
    assert vm.holds(1)
    vm.ok("snapshot-revert vm s2")
    assert vm.holds(2)


def test_broken_off(vm: Disks) -> None:
    """What was begun and killed is completed or taken back by the next verb; a disk that is gone is named."""
    vm.put(1)
    vm.ok("snapshot-create-as vm s1")
    vm.put(2)
    pending = Path(store.pending_file(vm.domain))
    snapshot = store.find(vm.domain, "s1")
    images = [
        {"path": vm.path(target), "backing": False, "node": "", "target": target} for target in ("vda", "vdb")
    ]
    told = {"snapshot": snapshot.to_plain(), "images": images}
    # A return of which one disk is done.
    pending.write_text(json.dumps({"do": "revert", "way": "cold", "phase": "loading", **told}))
    vm.ok("autostart vm")
    assert vm.holds(1) and not pending.exists()
    # A snapshot of which one disk is done.
    fresh = snapshot.to_plain() | {"name": "s2", "tag": "s2"}
    subprocess.run(["qemu-img", "snapshot", "-c", "s2", vm.path("vda")], check=True)
    pending.write_text(json.dumps({"do": "create", "metadata": True, **told, "snapshot": fresh}))
    vm.ok("gc")
    vm.ok("snapshot-create-as vm s2")
    # Layers that were made and not used, and such as were.
    external = fresh | {
        "name": "s3",
        "disks": [{"target": "vda", "place": "external", "path": "", "format": "qcow2"}],
    }
    layer: dict[str, Any] = {"target": "vda", "base": vm.path("vda"), "path": f"{vm.root}/vda.s3", "made": True}
    for phase, name in (("making", "vda.qcow2"), ("made", "vda.s3")):
        command = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", layer["base"], "-F", "qcow2", layer["path"]]
        subprocess.run(command, check=True)
        facts = {"layers": [layer], "phase": phase, "goes_on": False, "images": [], "metadata": True}
        pending.write_text(json.dumps({"do": "create", "snapshot": external, **facts}))
        vm.ok("gc")
        assert os.path.basename(vm.path("vda")) == name and os.path.exists(layer["path"]) == (phase == "made")
        assert store.exists(vm.domain, "s3") == (phase == "made") and vm.holds(1)
    vm.ok("snapshot-delete vm s3")
    assert vm.holds(1) and vm.path("vda").endswith("vda.qcow2")
    # A deletion of which nothing is done yet.
    pending.write_text(
        json.dumps({"do": "delete", "merges": [], "metadata": False, "snapshot": snapshot.to_plain()})
    )
    vm.ok("gc")
    assert [one.name for one in store.load(vm.domain).values()] == ["s2"]
    shutil.move(vm.path("vdb"), vm.root / "away.qcow2")
    vm.fails("snapshot-revert vm s2", "vdb.qcow2': No such file")
    assert vm.holds(1)
    (Path(vm.domain.tree.snapshots("vm")) / "s2.json").write_text("{")
    vm.fails("snapshot-list vm", "s2.json: damaged")


def test_raw_disks(vm: Disks) -> None:
    raw = vm.root / "raw.img"
    raw.write_bytes(b"\1" * (1 << 20))
    vm.define('boot = { firmware = "bios" }\n')
    vm.ok(f"attach-disk vm {raw} vdc --subdriver raw --config")
    vm.fails("snapshot-create-as vm s1", "disk vdc is raw, and only a qcow2 image can hold a snapshot")
    vm.ok("snapshot-create-as vm s1 --disk-only")
    vm.put(7, "vdc")
    assert vm.holds(1, "vdc", place="128k") and raw.read_bytes() == b"\1" * (1 << 20)
    vm.ok("snapshot-delete vm s1")
    assert vm.path("vdc") == str(raw) and raw.read_bytes()[:2] == b"\7\7" and raw.read_bytes()[-1:] == b"\1"
