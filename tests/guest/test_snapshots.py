"""Snapshots of real guests: what was written before one is there after it, what was written since is not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from qkvm.api.domain import Domain
from qkvm.domain.block.chain import links
from qkvm.domain.store import snapshots as store
from tests.guest.conftest import TOP, Lab, network_nic
from tests.guest.guest import Guest, log_size, wait_agent, wait_ready
from tests.guest.images import small_filesystem

Register = Callable[[Domain], Domain]

FIRST, SECOND = "52:54:00:00:aa:51", "52:54:00:00:aa:52"


def disk(folder: Path, name: str = "disk.qcow2", target: str = "vda", size: str = "64M") -> str:
    """A disk as TOML, and its image."""
    path, fmt = folder / name, name.rpartition(".")[2]
    subprocess.run(["qemu-img", "create", "-q", "-f", fmt, path, size], check=True)
    return f'[[disks]]\npath = "{path}"\nformat = "{fmt}"\ntarget = "{target}"\n'


def put(guest: Guest, word: str, target: str = "vda") -> None:
    """Write a word to a disk, and see it on its way to the image."""
    guest.ask(f"printf %-512s {word} | dd of=/dev/{target} bs=512 seek=9 conv=fsync 2>/dev/null")


def get(guest: Guest, target: str = "vda") -> str:
    """The word on a disk, read from the disk itself."""
    guest.ask("echo 3 >/proc/sys/vm/drop_caches")
    return guest.ask(f"dd if=/dev/{target} bs=512 skip=9 count=1 2>/dev/null | tr -d '\\0'").strip()


def chain(domain: Domain, target: str) -> list[str]:
    """Names of the images of a disk, in the definition and in the run alike."""
    stored = next(disk for disk in domain.definition.disks if disk.target == target)
    entry = next(entry for entry in domain.live.record["disks"] if entry["target"] == target)
    told = [stored.path, *(layer.path for layer in stored.backing)]
    assert [link.path for link in links(entry)] == told
    return [os.path.basename(path) for path in told]


def states(path: Path | str) -> list[str]:
    """The tags in an image, as qemu-img has them."""
    done = subprocess.run(["qemu-img", "snapshot", "-U", "-l", path], capture_output=True, text=True, check=True)
    return [line.split()[1] for line in done.stdout.splitlines()[2:]]


@pytest.mark.parametrize("machine", ["q35", "pc"])
def test_a_guest_goes_back_with_its_hardware(machine: str, lab: Lab, domain_of: Register, tmp_path: Path) -> None:
    body = network_nic(FIRST) + disk(tmp_path)
    domain = lab.boot(
        domain_of(lab.define("snap", machine=machine, body=body, vcpus="{ current = 1, maximum = 2 }"))
    )
    run = domain.live.id
    with Guest(domain) as guest:
        put(guest, "one")
        guest.ask("mkdir -p /tmp; echo one >/tmp/word")
    assert lab.ok("snapshot-create-as snap s1 first") == "Domain snapshot s1 created\n"
    assert domain.state == ("running", "unpaused") and states(tmp_path / "disk.qcow2") == ["s1"]
    with Guest(domain) as guest:
        put(guest, "two")
        guest.ask("echo two >/tmp/word")
    # The machine is the same: the same QEMU takes it up.
    assert lab.ok("snapshot-revert snap s1") == "\n"
    assert domain.live.id == run and domain.state == ("running", "from snapshot")
    with Guest(domain) as guest:
        assert get(guest) == "one" and guest.ask("cat /tmp/word") == "one"
    # With a vCPU, a NIC and a disk more it is another machine.
    extra = disk(tmp_path, "extra.qcow2", "vdb").split('"')[1]
    domain.vcpus.set_count(2)
    domain.nics.attach(type="network", source="default", mac=SECOND)
    lab.ok(f"attach-disk snap {extra} vdb --subdriver qcow2")
    with Guest(domain) as guest:
        guest.until("cat /sys/devices/system/cpu/online", "0-1")
        guest.until("ls /sys/block | grep -c '^vd'", "2")
        put(guest, "two")
        put(guest, "extra", "vdb")
        guest.ask("echo two >/tmp/word")
    lab.ok("snapshot-create-as snap s2")
    assert states(extra) == ["s2"]
    # What is told of it in XML is all that is known of it.
    told = tmp_path / "s2.xml"
    told.write_text(lab.ok("snapshot-dumpxml snap s2 --security-info"))
    assert "<inactiveDomain type=" in told.read_text()
    lab.ok(f"snapshot-create snap {told} --redefine")
    with Guest(domain) as guest:
        put(guest, "lost", "vdb")
    lab.ok("snapshot-revert snap s1 --paused")
    assert domain.live.id == run + 1 and domain.state == ("paused", "from snapshot")
    assert domain.live.vcpu_count() == 1 and [nic.mac for nic in domain.nics.all()] == [FIRST]
    domain.resume()
    with Guest(domain) as guest:
        assert get(guest) == "one" and guest.ask("cat /tmp/word") == "one"
        assert guest.ask("ls /sys/block | grep -c '^vd'") == "1"
    lab.ok("snapshot-revert snap s2")
    assert domain.live.vcpu_count() == 2 and [nic.mac for nic in domain.nics.all()] == [FIRST, SECOND]
    with Guest(domain) as guest:
        assert get(guest) == "two" and guest.ask("cat /tmp/word") == "two" and get(guest, "vdb") == "extra"
        assert guest.ask("cat /sys/devices/system/cpu/online") == "0-1"
    domain.nics.detach(type="network", mac=SECOND)
    assert lab.ok("snapshot-delete snap s2") == "Domain snapshot s2 deleted\n\n"
    assert states(extra) == [] and states(tmp_path / "disk.qcow2") == ["s1"]
    domain.destroy()
    lab.ok("snapshot-revert snap s1")
    with Guest(domain) as guest:
        assert get(guest) == "one"
    lab.ok("snapshot-create-as snap s3 --halt")
    assert domain.state == ("shut off", "from snapshot")
    lab.ok("snapshot-revert snap s3")
    with Guest(domain) as guest:
        assert guest.ask("cat /tmp/word") == "one"
    lab.ok("snapshot-delete snap --current")
    assert list(domain.snapshots) == ["s1"] and domain.snapshots.delete("s1") == ["s1"]
    assert states(tmp_path / "disk.qcow2") == [] and not os.listdir(domain.tree.snapshots("snap"))


def test_layers_while_it_writes(lab: Lab, domain_of: Register, tmp_path: Path) -> None:
    """External ones of a running guest: disks alone with frozen file systems, and with its memory in a file."""
    domain = lab.boot(domain_of(lab.define("layers", body=disk(tmp_path) + disk(tmp_path, "b.raw", "vdb"))))
    guest_disk = tmp_path / "disk.qcow2"
    wait_agent(domain)
    with Guest(domain) as guest:
        put(guest, "one")
        put(guest, "raw", "vdb")
        guest.ask("mkdir -p /tmp; echo one >/tmp/word")
    assert "disk vdb is raw" in lab.fails("snapshot-create-as layers no")
    assert "already exists" in lab.fails(
        f"snapshot-create-as layers no --disk-only --diskspec vda,file={guest_disk}"
    )
    lab.ok("snapshot-create-as layers s1 --disk-only --quiesce")
    assert domain.state == ("running", "booted") and lab.ok("domblklist layers").split()[-3:] == [
        str(tmp_path / "disk.s1"),
        "vdb",
        str(tmp_path / "b.s1"),
    ]
    with Guest(domain) as guest:
        put(guest, "two")
        put(guest, "more", "vdb")
    memory = tmp_path / "memory"
    lab.ok(f"snapshot-create-as layers s2 --memspec file={memory} --live")
    assert domain.state[0] == "running" and memory.stat().st_size > 1 << 20
    assert lab.ok("snapshot-info layers s2").split()[7:10] == ["running", "Location:", "external"]
    with Guest(domain) as guest:
        assert get(guest) == "two"
        put(guest, "three")
        guest.ask("echo three >/tmp/word")
    lab.ok("snapshot-revert layers s2")
    assert domain.state == ("running", "from snapshot")
    with Guest(domain) as guest:
        assert guest.ask("cat /tmp/word") == "one" and get(guest) == "two" and get(guest, "vdb") == "more"
        put(guest, "four")
    # Deleted while the guest goes on: the last one, the first one, and the one it came from.
    lab.ok("snapshot-create-as layers s3 --disk-only")
    with Guest(domain) as guest:
        put(guest, "five")
    lab.ok("snapshot-delete layers s3")
    assert not (tmp_path / "disk.s3").exists() and len(chain(domain, "vda")) == 3
    lab.ok("snapshot-delete layers s1")
    assert len(chain(domain, "vda")) == 2 and chain(domain, "vdb")[1:] == ["b.raw"]
    with Guest(domain) as guest:
        assert get(guest) == "five" and get(guest, "vdb") == "more" and guest.ask("cat /tmp/word") == "one"
    lab.ok("snapshot-revert layers s2 --paused")
    assert domain.state == ("paused", "from snapshot")
    domain.resume()
    with Guest(domain) as guest:
        assert guest.ask("cat /tmp/word") == "one" and get(guest) == "two" and get(guest, "vdb") == "more"
        put(guest, "six")
    lab.ok("snapshot-delete layers s2")
    assert chain(domain, "vda") == ["disk.qcow2"] and chain(domain, "vdb") == ["b.raw"]
    domain.destroy()
    lab.boot(domain)
    with Guest(domain) as guest:
        assert get(guest) == "six" and get(guest, "vdb") == "more"
    assert sorted(os.listdir(tmp_path)) == ["b.raw", "disk.qcow2"]


def killed(lab: Lab, domain: Domain, line: str, when: str, *, qemu: bool = False) -> bool:
    """Run a verb and kill it, or QEMU, as soon as it has written down ``when``; gives whether it came to that."""
    victim = domain.live.pid if domain.is_running else None
    verb = subprocess.Popen(
        [sys.executable, "-m", "qkvm", "--root", lab.root, *line.split()],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        cwd=TOP,
    )
    seen = False
    while verb.poll() is None and not seen:
        try:
            seen = when in Path(store.pending_file(domain)).read_text(encoding="utf-8")
        except FileNotFoundError:
            continue
    if seen:
        os.kill(victim if qemu and victim is not None else verb.pid, signal.SIGKILL)
    _, words = verb.communicate(timeout=60)
    assert "Traceback" not in words, words
    return seen


def test_killed_in_the_middle(lab: Lab, domain_of: Register, tmp_path: Path) -> None:
    """qkvm or QEMU ends in the middle of each: what is there is of one piece, the next verb clears the rest."""
    domain = lab.boot(domain_of(lab.define("frail", body=disk(tmp_path))))
    image = tmp_path / "disk.qcow2"
    begun = 0

    def word(value: str) -> None:
        with Guest(domain) as guest:
            put(guest, value)
            guest.ask(f"mkdir -p /tmp; echo {value} >/tmp/word")

    def same() -> str:
        """What is on the disk and in the memory alike, once nothing is pending any more."""
        lab.ok("gc")
        assert not os.path.exists(store.pending_file(domain)) and domain.state[0] == "running"
        with Guest(domain) as guest:
            assert get(guest) == guest.ask("cat /tmp/word")
            return get(guest)

    word("one")
    lab.ok("snapshot-create-as frail base")
    word("two")
    # While it is taken: it is taken back, or was complete.
    begun += killed(lab, domain, "snapshot-create-as frail s1", '"do": "create"')
    assert same() == "two"
    assert ("s1" in states(image)) == store.exists(domain, "s1")
    memory = tmp_path / "memory"
    begun += killed(lab, domain, f"snapshot-create-as frail s2 --memspec {memory}", '"phase": "made"')
    assert same() == "two" and not store.exists(domain, "s2") and chain(domain, "vda") == ["disk.qcow2"]
    assert not memory.exists() and not (tmp_path / "disk.s2").exists()
    begun += killed(lab, domain, "snapshot-create-as frail s3 --disk-only", '"phase": "switched"')
    assert same() == "two" and store.exists(domain, "s3") and chain(domain, "vda") == ["disk.s3", "disk.qcow2"]
    word("three")
    # While it is deleted: it is gone.
    begun += killed(lab, domain, "snapshot-delete frail s3", '"do": "delete"')
    assert same() == "three" and not store.exists(domain, "s3") and chain(domain, "vda") == ["disk.qcow2"]
    # While the guest goes back: it is there, or had not left.
    begun += killed(lab, domain, "snapshot-revert frail base", '"phase": "loading"')
    assert same() in ("one", "three")
    lab.ok("snapshot-revert frail base")
    assert same() == "one"
    word("four")
    # QEMU ends: what the guest has synced is on the disk, and it boots.
    begun += killed(lab, domain, "snapshot-create-as frail s4", '"do": "create"', qemu=True)
    lab.ok("gc")
    assert domain.state[0] == "shut off" and states(image) == sorted(store.load(domain))
    lab.boot(domain)
    with Guest(domain) as guest:
        assert get(guest) == "four"
    begun += killed(lab, domain, "snapshot-revert frail base", '"phase": "loading"', qemu=True)
    lab.ok("gc")
    assert not os.path.exists(store.pending_file(domain))
    if domain.is_running:
        # The kill came first, and hit the QEMU that was to be replaced.
        domain.destroy()
    # A QEMU that was killed may leave clusters that nobody uses (3), and nothing worse.
    assert subprocess.run(["qemu-img", "check", "-q", image], check=False).returncode in (0, 3)
    assert begun >= 6


def test_no_room(lab: Lab, domain_of: Register, tmp_path: Path) -> None:
    """The file system of the images is full: an error that says so, and a guest that goes on."""
    with small_filesystem(tmp_path) as small, ended(domain_of, lab, disk(Path(small), size="8M")) as domain:
        with Guest(domain) as guest:
            put(guest, "one")
        message = lab.fails(f"snapshot-create-as tight s2 --memspec {small}/memory")
        assert "No space left on device (the file system is full)" in message
        assert domain.state[0] == "running" and os.listdir(small) == ["disk.qcow2"]
        message = lab.fails("snapshot-create-as tight s1")
        assert "QEMU could not save the snapshot: " in message and "disk.qcow2 is full" in message
        assert domain.state[0] == "running" and states(f"{small}/disk.qcow2") == []
        with Guest(domain) as guest:
            assert get(guest) == "one"


def test_an_overlay_that_finds_no_room(lab: Lab, domain_of: Register, tmp_path: Path) -> None:
    """The guest stops before anything is lost, and when there is room again it goes on."""
    body = disk(tmp_path, size="16M")
    with small_filesystem(tmp_path, "2m") as small, ended(domain_of, lab, body) as domain:
        lab.ok(f"snapshot-create-as tight base --disk-only --diskspec vda,file={small}/over")
        with Guest(domain) as guest:
            guest.ask("head -c 6291456 /dev/urandom >/run/data")
            guest.ask(
                "(dd if=/run/data of=/dev/vda bs=1M seek=4 conv=fsync && echo whole >/run/done) 2>/dev/null &"
            )
            deadline = time.monotonic() + 60
            while domain.state != ("paused", "I/O error"):
                assert time.monotonic() < deadline and domain.state[0] == "running"
                time.sleep(0.02)
            subprocess.run(["mount", "-o", "remount,size=16m", small], check=True)
            lab.ok("resume tight")
            guest.until("cat /run/done 2>/dev/null; true", "whole")
            guest.ask("echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/vda bs=1M skip=4 count=6 | cmp - /run/data")


@contextmanager
def ended(domain_of: Register, lab: Lab, body: str) -> Iterator[Domain]:
    """A domain that is up, and is ended however the block ends: the file system of its disk is to go."""
    domain = lab.boot(domain_of(lab.define("tight", body=body)))
    try:
        yield domain
    finally:
        domain.destroy()


def test_a_guest_that_has_not_run_yet(lab: Lab, domain_of: Register, tmp_path: Path) -> None:
    """Started with --paused it is before its first instruction: kept so, saved so, and boots from there."""
    domain = domain_of(lab.define("fresh", body=disk(tmp_path)))
    domain.start(paused=True)
    lab.ok("snapshot-create-as fresh inside")
    lab.ok("snapshot-create-as fresh laid --disk-only")
    assert domain.state == ("paused", "starting up")
    lab.ok("managedsave fresh")
    lab.ok("start fresh")
    assert domain.state[0] == "paused"
    lab.ok("snapshot-delete fresh laid")
    mark = log_size(domain)
    lab.ok("snapshot-revert fresh inside --running")
    wait_ready(domain, mark)
