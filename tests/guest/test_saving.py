"""Saved guests: everything is there again, nothing is lost whatever happens on the way, damage is refused."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from qkvm.api.domain import Domain
from qkvm.domain.state import migration
from qkvm.host import journal
from qkvm.net.link import table
from qkvm.qemu.quirks import Quirk
from qkvm.qmp.plain import PlainSession
from qkvm.scope import Scope
from tests.guest.conftest import TOP, Lab, network_nic
from tests.guest.guest import Guest, log_size, tsc_frequency, wait_ready
from tests.guest.images import small_filesystem
from tests.host import nslab

Register = Callable[[Domain], Domain]

MEMORY = 192
"""MiB of a guest whose memory is looked at."""

FIRST, SECOND = "52:54:00:00:aa:31", "52:54:00:00:aa:32"


def disk(tmp_path: os.PathLike[str], name: str = "disk.qcow2") -> str:
    """A disk as TOML."""
    path = os.path.join(tmp_path, name)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", path, "64M"], check=True)
    return f'[[disks]]\npath = "{path}"\nformat = "qcow2"\ntarget = "vda"\n'


def count(guest: Guest) -> int:
    """Where the counter in the guest's RAM stands."""
    return guest.number("cat /tmp/count")


def start_counting(guest: Guest) -> None:
    loop = "n=0; while :; do n=$((n+1)); echo $n >/tmp/new; mv /tmp/new /tmp/count; sleep 0.05; done"
    guest.ask(f"mkdir -p /tmp; ({loop}) >/dev/null 2>&1 &")
    guest.until("test -s /tmp/count && echo yes; true", "yes")


def lease_of(domain: Domain, mac: str) -> str:
    """The address that a NIC has got by DHCP."""
    from qkvm.domain.watch import address

    return address.wait(domain, sources=("lease",), interface=mac, timeout=60)[0].ip


def serves(address: str) -> bool:
    """Whether the guest's web server answers on that address, over bridge and tap."""
    with socket.create_connection((address, 80), timeout=60) as web:
        web.sendall(b"GET /passwd HTTP/1.0\r\n\r\n")
        return b"200 OK" in web.recv(1000)


def test_a_guest_with_plugged_devices_comes_back(
    lab: Lab, domain_of: Register, tmp_path: os.PathLike[str]
) -> None:
    body = network_nic(FIRST) + disk(tmp_path)
    domain = lab.boot(domain_of(lab.define("traveller", body=body, vcpus="{ current = 1, maximum = 3 }")))
    domain.nics.attach(type="network", source="default", mac=SECOND)
    domain.vcpus.set_count(2)
    lab.ok("iothreadadd traveller 3")
    for target, bus in (("vdb", "virtio --iothread 3"), ("sda", "scsi")):
        made = disk(tmp_path, f"{target}.qcow2").split('"')[1]
        lab.ok(f"attach-disk traveller {made} {target} --targetbus {bus} --subdriver qcow2")
    with Guest(domain) as guest:
        guest.until("cat /sys/devices/system/cpu/online", "0-1")
        guest.until("ls /sys/block | grep -c '^[sv]d'", "3")
        guest.ask("echo SCSI | dd of=/dev/sda bs=512 seek=5 conv=sync 2>/dev/null; sync")
        guest.ask("echo on disk | dd of=/dev/vda bs=512 seek=7 conv=sync 2>/dev/null; sync")
        guest.ask("httpd -h /etc")
        start_counting(guest)
        before = count(guest)
    addresses = [lease_of(domain, mac) for mac in (FIRST, SECOND)]
    assert all(serves(address) for address in addresses)
    path = os.path.join(tmp_path, "traveller.save")
    run = domain.live
    assert lab.ok(f"save traveller {path} --verbose") == f"\nDomain 'traveller' saved to {path}\n\n"
    assert domain.state == ("shut off", "saved")
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert not table.present(run.devices("nics")[0]["target"])

    assert lab.ok(f"restore {path}") == f"Domain restored from {path}\n\n"
    assert domain.state == ("running", "restored")
    assert domain.live.id == run.id + 1
    assert domain.live.vcpu_count() == 2
    assert [nic.mac for nic in domain.nics.all()] == [FIRST, SECOND]
    with Guest(domain) as guest:
        after = count(guest)
        assert after >= before
        guest.until(f"[ $(cat /tmp/count) -gt {after} ] && echo more; true", "more")
        assert guest.ask("cat /sys/devices/system/cpu/online") == "0-1"
        assert guest.ask("dd if=/dev/vda bs=512 skip=7 count=1 2>/dev/null | head -c 7") == "on disk"
        assert guest.ask("ls /sys/class/net").split() == ["eth0", "eth1", "lo"]
        assert guest.ask("dd if=/dev/sda bs=512 skip=5 count=1 2>/dev/null | head -c 4") == "SCSI"
    assert all(serves(address) for address in addresses)

    # Once more: what was plugged in the first run was there from the start in the second.
    lab.ok(f"save traveller {path}")
    lab.ok(f"restore {path}")
    with Guest(domain) as guest:
        guest.ask("dd if=/dev/sda of=/dev/null count=1 2>/dev/null")
    domain.nics.detach(type="network", mac=SECOND)
    assert [nic.mac for nic in domain.nics.all()] == [FIRST]


def heed_interrupts() -> None:
    """What a shell starts in the background, these tests perhaps, ignores SIGINT, and so do its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Listener:
    """A verb that waits for events, in a process of its own; it listens once its block is entered."""

    def __init__(self, lab: Lab, domain: Domain, line: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "qkvm", "--root", lab.root, *line.split()],
            stdout=subprocess.PIPE,
            text=True,
            cwd=TOP,
            preexec_fn=heed_interrupts,
        )
        assert self._process.stdout is not None
        os.set_blocking(self._process.stdout.fileno(), False)
        self._domain = domain

    def __enter__(self) -> Listener:
        try:
            self._await()
        except BaseException:
            self.__exit__()
            raise
        return self

    def _await(self) -> None:
        """Wait until it tells of something."""
        assert self._process.stdout is not None
        deadline = time.monotonic() + 60
        while not self._process.stdout.readline():
            assert time.monotonic() < deadline and self._process.poll() is None
            self._domain.suspend()
            self._domain.resume()
            time.sleep(0.1)

    def __exit__(self, *_: object) -> None:
        """It ends with the test, however that ends."""
        self._process.kill()
        self._process.communicate()

    def end(self, last: str, times: int = 1) -> str:
        """End it by ^C once it has told of something so many times, and give all that it has told."""
        stdout = self._process.stdout
        assert stdout is not None
        told, deadline = "", time.monotonic() + 60
        while told.count(last) < times:
            line = stdout.readline()
            told += line
            assert time.monotonic() < deadline and self._process.poll() is None, told
            if not line:
                time.sleep(0.02)
        os.set_blocking(stdout.fileno(), True)
        self._process.send_signal(signal.SIGINT)
        rest, _ = self._process.communicate(timeout=60)
        assert self._process.returncode == 0
        return told + rest


def test_saves_are_told_of_as_events(lab: Lab, domain_of: Register) -> None:
    domain = lab.boot(domain_of(lab.define("told", body=network_nic())))
    line = "qemu-monitor-event --domain told --event ^(MIG|STOP|SHUT) --regex --loop"
    with Listener(lab, domain, "event --all --loop") as libvirts, Listener(lab, domain, line) as qemus:
        domain.nics.attach(type="network", source="default", mac=SECOND, scope=Scope.PERSISTENT)
        domain.managed_save()
        domain.start()
        domain.remove_managed_save()
        domain.destroy()
        told = libvirts.end("Stopped Destroyed")
        told_by_qemu = qemus.end("event SHUTDOWN", times=2)
    wanted = [
        "event 'device-added' for domain 'told': net1",
        "event 'lifecycle' for domain 'told': Defined Updated",
        "event 'migration-iteration' for domain 'told': iteration: '2'",
        "event 'job-completed' for domain 'told':\n\toperation: 2\n\ttime_elapsed: ",
        "event 'lifecycle' for domain 'told': Stopped Saved",
        "event 'lifecycle' for domain 'told': Started Restored",
        "event 'lifecycle' for domain 'told': Resumed Unpaused",
        "event 'lifecycle' for domain 'told': Stopped Destroyed",
        "event loop interrupted\nevents received: ",
    ]
    assert all(line in told for line in wanted), (told, [line for line in wanted if line not in told])
    rest = told
    for line in wanted[4:]:
        assert line in rest, told
        rest = rest.partition(line)[2]
    assert re.search(r"^event STOP at \d+\.\d{6} for domain 'told': <null>$", told_by_qemu, re.M), told_by_qemu
    assert re.search(
        r"^event MIGRATION_PASS at \d+\.\d{6} for domain 'told': {\"pass\":2}$", told_by_qemu, re.M
    ), told_by_qemu
    assert "RESUME" not in told_by_qemu and "event loop interrupted" in told_by_qemu
    done = lab.run("qemu-monitor-event --domain told --timeout 1")
    assert (done.returncode, done.stdout) == (1, "event loop timed out\nevents received: 0\n\n")


def test_a_managed_save_is_taken_up_by_the_next_start(lab: Lab, domain_of: Register) -> None:
    domain = lab.boot(domain_of(lab.define("kept", body=network_nic())))
    saved = domain.tree.managed_save("kept")
    assert "Managed save:   no" in lab.ok("dominfo kept")
    with Guest(domain) as guest:
        start_counting(guest)
        before = count(guest)
    assert lab.ok("managedsave kept") == "\nDomain 'kept' state saved by qkvm\n\n"
    assert domain.state == ("shut off", "saved")
    assert "Managed save:   yes" in lab.ok("dominfo kept")
    assert "saved" in lab.ok("list --all --managed-save") and "saved" not in lab.ok("list --all")
    assert lab.ok("list --all --with-managed-save --name").split() == ["kept"]
    for others in ("--without-managed-save", "--with-managed-save --autostart"):
        assert lab.ok(f"list --all {others} --name").split() == []
    assert "Refusing to undefine while domain managed save image exists" in lab.fails("undefine kept")

    assert lab.ok("start kept") == "Domain 'kept' started\n\n"
    assert domain.state == ("running", "restored")
    assert sorted(os.listdir(domain.tree.saves)) == []
    with Guest(domain) as guest:
        assert count(guest) >= before
    assert "already active" in lab.fails("start kept")

    # Paused when it was saved, paused when it comes back; --running says otherwise.
    domain.suspend()
    domain.managed_save()
    domain.start()
    assert domain.state == ("paused", "user")
    lab.ok("resume kept")
    assert domain.state == ("running", "unpaused")
    lab.ok("managedsave kept --paused --bypass-cache")
    lab.ok("start kept --bypass-cache")
    assert domain.state == ("paused", "user")
    lab.ok("managedsave kept --running")
    lab.ok("start kept --paused")
    assert domain.state == ("paused", "user")
    domain.resume()

    # Thrown away: by the verb for it, by a start that is to boot, by undefine.
    domain.managed_save()
    assert lab.ok("managedsave-remove kept") == "Removed managedsave image for domain 'kept'\n"
    assert lab.ok("managedsave-remove kept") == "Domain 'kept' has no manage save image; removal skipped\n"
    lab.boot(domain)
    domain.managed_save()
    lab.ok("start kept --force-boot")
    assert domain.state == ("running", "booted") and not os.path.exists(saved)
    domain.managed_save()
    assert lab.ok("undefine kept --managed-save") == "Domain 'kept' has been undefined\n\n"
    assert not os.path.exists(saved)


def test_damage_is_refused_before_anything_starts(
    lab: Lab, domain_of: Register, tmp_path: os.PathLike[str]
) -> None:
    domain = lab.boot(domain_of(lab.define("fragile")))
    path = os.path.join(tmp_path, "whole")
    lab.ok(f"save fragile {path}")
    with open(path, "rb") as stream:
        whole = stream.read()
    last_id = domain.run.id if domain.run else 0
    size = len(whole)
    damaged = {
        "short": (whole[:-1], "is damaged"),
        "half": (whole[: size // 2], "is damaged"),
        "stub": (whole[:10], "is damaged"),
        "empty": (b"", "is no saved guest"),
        "prefix": (whole[:20] + bytes([whole[20] ^ 1]) + whole[21:], "prefix does not fit"),
        "text": (whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:], "description does not fit"),
        "strange": (b"x" + whole[1:], "is no saved guest"),
        "libvirts": (b"LibvirtQemudSave" + whole[16:], "was saved by libvirt"),
    }
    for name, (content, words) in damaged.items():
        wrong = os.path.join(tmp_path, name)
        with open(wrong, "wb") as stream:
            stream.write(content)
        assert words in lab.fails(f"restore {wrong}"), name
        assert not domain.is_running
    assert "No such file" in lab.fails(f"restore {path}.not")
    assert "no ordinary file" in lab.fails(f"restore {tmp_path}")
    run = domain.run
    assert run is not None and run.id == last_id, "none of these has come as far as a start"

    # What lies in the stream QEMU would choke on, or worse: it never gets to its end.
    wrong = os.path.join(tmp_path, "stream")
    with open(wrong, "wb") as stream:
        stream.write(whole[: size // 2] + bytes([whole[size // 2] ^ 1]) + whole[size // 2 + 1 :])
    assert "content does not fit its checksum" in lab.fails(f"restore {wrong}")
    assert domain.state == ("shut off", "saved")

    # Another domain has the name now.
    domain.undefine()
    domain_of(lab.define("fragile"))
    assert "which belongs to domain 'fragile' uuid" in lab.fails(f"restore {path}")
    domain.undefine()
    lab.ok(f"restore {path}")
    assert not domain.is_persistent and domain.state == ("running", "restored")
    assert "already active" in lab.fails(f"restore {path}")
    assert "transient" in lab.fails("managedsave fragile")
    lab.ok(f"save fragile {path}")
    assert "fragile" not in lab.ok("list --all --name").split()
    lab.ok(f"restore {path} --paused")
    assert domain.state == ("paused", "user")


def test_saved_states_are_compressed(lab: Lab, domain_of: Register, tmp_path: os.PathLike[str]) -> None:
    domain = lab.boot(domain_of(lab.define("tight")))
    with Guest(domain) as guest:
        start_counting(guest)
    assert "image format 'lz77' is not supported (raw, gzip," in lab.fails(
        f"save tight {tmp_path}/x --image-format lz77"
    )
    sizes = {}
    for name in ("raw", "zstd", "gzip"):
        path = os.path.join(tmp_path, name)
        lab.ok(f"save tight {path} --image-format {name}")
        sizes[name] = os.stat(path).st_size
        assert "<name>tight</name>" in lab.ok(f"save-image-dumpxml {path}")
        described = Path(tmp_path, "xml")
        described.write_text(lab.ok(f"save-image-dumpxml {path}"), encoding="utf-8")
        lab.ok(f"save-image-define {path} {described} --running")
        lab.ok(f"restore {path}")
        with Guest(domain) as guest:
            before = count(guest)
            guest.until(f"[ $(cat /tmp/count) -gt {before} ] && echo on; true", "on")
    assert sizes["raw"] > 2 * max(sizes["zstd"], sizes["gzip"]), sizes
    lab.ok("destroy tight")
    with open(os.path.join(tmp_path, "zstd"), "r+b") as stream:
        stream.seek(sizes["zstd"] // 2)
        byte = stream.read(1)[0]
        stream.seek(-1, os.SEEK_CUR)
        stream.write(bytes([byte ^ 1]))
    assert "does not fit its checksum" in lab.fails(f"restore {tmp_path}/zstd")
    assert not domain.is_running


def test_several_channels_write_a_sparse_state(lab: Lab, domain_of: Register, tmp_path: os.PathLike[str]) -> None:
    domain = lab.boot(domain_of(lab.define("broad")))
    path = os.path.join(tmp_path, "state")
    with Guest(domain) as guest:
        start_counting(guest)
    for words, error in (
        ("--parallel-channels 2", "parallel channels need the image format sparse"),
        ("--image-format sparse --parallel-channels 0", "channels cannot be 0"),
        ("--image-format sparse --parallel-channels 256", "256 parallel channels are too many"),
        ("--image-format sparse --bypass-cache", "does not go with the image format sparse"),
    ):
        assert error in lab.fails(f"save broad {path} {words}")
    told = json.loads(lab.ok("""qemu-monitor-command broad '{"execute": "query-migrate-capabilities"}'"""))
    if "mapped-ram" not in {one["capability"] for one in told["return"]}:
        error = lab.fails(f"save broad {path} --image-format sparse --parallel-channels 2")
        assert "this QEMU writes no sparse states" in error and os.listdir(tmp_path) == []
        assert domain.state[0] == "running"
        return
    for saved, restored in (
        ("--parallel-channels 3", "--parallel-channels 2"),
        ("", ""),
        ("--parallel-channels 2", ""),
    ):
        lab.ok(f"save broad {path} --image-format sparse {saved}")
        lab.ok(f"restore {path} {restored}")
        with Guest(domain) as guest:
            before = count(guest)
            guest.until(f"[ $(cat /tmp/count) -gt {before} ] && echo on; true", "on")
    # What that has set in QEMU is in the way of no other save.
    lab.ok(f"save broad {path}")
    assert "parallel channels need" in lab.fails(f"restore {path} --parallel-channels 2")
    lab.ok(f"restore {path}")


def test_what_the_guest_can_not_see_may_change(
    lab: Lab, domain_of: Register, tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    domain = lab.boot(domain_of(lab.define("moved", body=disk(tmp_path))))
    path, changed = os.path.join(tmp_path, "state"), os.path.join(tmp_path, "moved.toml")
    with open(domain.tree.domain_definition("moved"), encoding="utf-8") as stream:
        text = stream.read()

    def described(old: str, new: str) -> str:
        assert old in text
        with open(changed, "w", encoding="utf-8") as stream:
            stream.write(text.replace(old, new))
        return f"--xml {changed}"

    assert "another memory.maximum" in lab.fails(f"save moved {path} {described('512MiB', '600MiB')}")
    more = '[[nics]]\nmac = "52:54:00:00:aa:39"\nsource = "default"\n[[disks]]'
    assert "another number of nics" in lab.fails(f"save moved {path} {described('[[disks]]', more)}")
    assert domain.state[0] == "running" and not os.path.exists(path)
    lab.ok(f"save moved {path}")
    os.rename(os.path.join(tmp_path, "disk.qcow2"), os.path.join(tmp_path, "other.qcow2"))
    assert "disk.qcow2" in lab.fails(f"restore {path}")
    own = domain.uuid.replace("-", "")
    assert "another uuid" in lab.fails(f"restore {path} {described(own, '0' * 8 + own[8:])}")
    lab.ok(f"restore {path} {described('disk.qcow2', 'other.qcow2')}")
    assert domain.state == ("running", "restored")
    assert "other.qcow2" in lab.ok("domblklist moved")

    # The same by the file's own description, in libvirt's XML.
    lab.ok(f"save moved {path}")
    xml = lab.ok(f"save-image-dumpxml {path}")
    assert "other.qcow2'/>" in xml and "<vcpu placement='static'>1</vcpu>" in xml
    assert lab.ok(f"save-image-dumpxml {path} --xpath //target/@dev") == ' dev="vda"\n\n'
    assert json.loads(lab.ok(f"save-image-dumpxml {path} --json"))["state"] == "running"
    with open(changed, "w", encoding="utf-8") as stream:
        stream.write(xml.replace("other.qcow2", "third.qcow2"))
    assert lab.ok(f"save-image-define {path} {changed} --paused") == f"State file {path} updated.\n\n"
    with open(changed, "w", encoding="utf-8") as stream:
        stream.write(xml.replace("<vcpu placement='static'>1", "<vcpu>2"))
    assert "another vcpus" in lab.fails(f"save-image-define {path} {changed}")
    os.rename(os.path.join(tmp_path, "other.qcow2"), os.path.join(tmp_path, "third.qcow2"))
    lab.ok(f"restore {path}")
    assert domain.state == ("paused", "user")
    assert "third.qcow2" in lab.ok("domblklist moved")

    # And with an editor.
    lab.ok("managedsave moved")
    editor = os.path.join(tmp_path, "editor")
    for command, words in (
        ("true", "Managed save image of domain 'moved' XML configuration not changed.\n\n"),
        (
            "sed -i s/third.qcow2/disk.qcow2/ $1",
            "Managed save image of Domain 'moved' XML configuration edited.\n\n",
        ),
    ):
        with open(editor, "w", encoding="utf-8") as stream:
            stream.write(f"#!/bin/sh\n{command}\n")
        os.chmod(editor, 0o755)
        monkeypatch.setenv("VISUAL", editor)
        assert lab.ok("managedsave-edit moved --running") == words
    with open(editor, "w", encoding="utf-8") as stream:
        stream.write("#!/bin/sh\nsed -i s/disk.qcow2/third.qcow2/ $1\n")
    assert lab.ok(f"save-image-edit {path}") == f"Saved image {path} XML configuration not changed.\n\n"
    os.rename(os.path.join(tmp_path, "third.qcow2"), os.path.join(tmp_path, "disk.qcow2"))
    xml = lab.ok("managedsave-dumpxml moved")
    with open(changed, "w", encoding="utf-8") as stream:
        stream.write(xml.replace("<memory unit='KiB'>524288", "<memory unit='KiB'>524289"))
    assert "another memory.maximum" in lab.fails(f"managedsave-define moved {changed}")
    with open(changed, "w", encoding="utf-8") as stream:
        stream.write(xml.replace("<name>moved</name>", "<name>moved</name><title>after</title>"))
    lab.ok(f"managedsave-define moved {changed}")
    lab.ok("start moved")
    assert domain.state == ("running", "restored") and "after" in json.dumps(domain.live.record["definition"])
    assert "does not have managed save image" in lab.fails("managedsave-dumpxml moved")


def slow_disk(delay: float) -> str:
    """Python that has each MiB that is written take so many seconds more."""
    return f"""
import time
from qkvm.storage import stream
write = stream._write_all
def slow(fd, view):
    time.sleep({delay})
    write(fd, view)
stream._write_all = slow
"""


class Saver:
    """A `qkvm save` in a process of its own, and on a disk that takes some seconds; caught at work.

    ``live`` has it done as under KVM, where the guest is not stopped beforehand; else it is done as under TCG.
    """

    def __init__(self, lab: Lab, domain: Domain, line: str, *, live: bool = False) -> None:
        code = f"""
import sys
from qkvm.domain.state import migration
migration.tracks_writes = lambda run: {live}
{slow_disk(0.1)}
from qkvm.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
        self.process = subprocess.Popen(
            [sys.executable, "-c", code, "--root", lab.root, *line.split()],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=TOP,
            preexec_fn=heed_interrupts,
        )
        self._lab, self._domain = lab, domain

    def __enter__(self) -> Saver:
        try:
            deadline = time.monotonic() + 60
            while "Data total" not in self._lab.run(f"domjobinfo {self._domain.name}").stdout:
                assert time.monotonic() < deadline and self.process.poll() is None
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        """It ends with the test, however that ends."""
        self.process.kill()
        self.process.communicate()

    def end(self) -> tuple[int, str]:
        """Wait for its end; exit code and error line."""
        _, words = self.process.communicate(timeout=60)
        return self.process.returncode, words.strip()


def status(event: dict[str, Any]) -> str:
    return str(event["data"]["status"]) if event.get("event") == "MIGRATION" else ""


def test_a_save_that_does_not_get_to_its_end_leaves_the_guest_running(
    lab: Lab, domain_of: Register, tmp_path: os.PathLike[str]
) -> None:
    domain = lab.boot(domain_of(lab.define("restless")))
    with Guest(domain) as guest:
        start_counting(guest)
    pid = domain.live.pid
    assert lab.ok("domjobinfo restless") == "Job type:         None        \n\n"
    assert "no job is active on the domain" in lab.fails("domjobabort restless")

    line = "Start to calculate domain's memory dirty rate successfully, duration: 1 seconds\n"
    told = lab.ok("domdirtyrate-calc restless --seconds 1 --mode page-sampling --wait")
    assert re.fullmatch(re.escape(line) + r"\d+ MiB/s\n\n", told)
    assert (
        lab.ok("domdirtyrate-calc restless --seconds 10") == line.replace("duration: 1 ", "duration: 10 ") + "\n"
    )
    assert "already being measured" in lab.fails("domdirtyrate-calc restless")
    nslab.until(lambda: domain.qemu.command("query-dirty-rate")["status"] == "measured", "the end of measuring")
    assert "needs KVM" in lab.fails("domdirtyrate-calc restless --mode dirty-ring")
    if lab.host.domain("restless").live.needs(Quirk.DIRTY_RATE):
        assert "needs KVM" in lab.fails("domdirtyrate-calc restless --mode dirty-bitmap")
    else:
        told = lab.ok("domdirtyrate-calc restless --mode dirty-bitmap --wait")
        assert re.fullmatch(re.escape(line) + r"\d+ MiB/s\n\n", told)
    assert "within [1, 60]" in lab.fails("domdirtyrate-calc restless --seconds 61")
    assert "Unknown calculation mode" in lab.fails("domdirtyrate-calc restless --mode guess")

    # Seen from another process, and ended by it.
    with Saver(lab, domain, "managedsave restless") as saver:
        told = lab.ok("domjobinfo restless")
        assert told.startswith(
            "Job type:         Unbounded   \nOperation:        Save        \nTime elapsed:     "
        )
        assert "Data total:       5" in told and "Page size:        4096         bytes" in told
        assert "no post-copy migration" in lab.fails("domjobabort restless --postcopy")
        assert lab.ok("domjobabort restless") == "\n"
        code, words = saver.end()
    assert (code, words) == (
        1,
        "error: Failed to save domain 'restless' state: operation aborted: domain save job: canceled by client",
    )
    assert goes_on(domain) and os.listdir(domain.tree.saves) == []
    assert "Cancelled" in lab.ok("domjobinfo restless --completed --keep-completed")
    assert lab.ok("domjobinfo restless --completed --anystats").count("\n") > 3
    assert "None" in lab.ok("domjobinfo restless --completed")

    # ^C.
    with Saver(lab, domain, "managedsave restless") as saver:
        saver.process.send_signal(signal.SIGINT)
        code, words = saver.end()
    assert code == 1 and "canceled by client" in words
    assert goes_on(domain) and os.listdir(domain.tree.saves) == []

    # Killed: QEMU finds that nobody reads and gives up; the next verb sweeps, and lets a guest go on that waits.
    for live in (True, False):
        with Saver(lab, domain, "managedsave restless", live=live) as saver:
            saver.process.kill()
            saver.end()
        assert goes_on(domain) if live else domain.state == ("paused", "saving")
        assert len(os.listdir(domain.tree.saves)) == 1
        assert "None" in lab.ok("domjobinfo restless")
        lab.ok("gc")
        assert goes_on(domain) and os.listdir(domain.tree.saves) == []

    # No room.
    with small_filesystem(tmp_path) as small:
        assert "No space left on device (the file system is full)" in lab.fails(f"save restless {small}/state")
        assert os.listdir(small) == []
    assert goes_on(domain) and domain.live.pid == pid
    assert "No such file or directory" in lab.fails(f"save restless {tmp_path}/not/there")
    assert "no ordinary file" in lab.fails("save restless /dev/null")

    # The plug pulled meanwhile.
    with Saver(lab, domain, "managedsave restless") as saver:
        mark = journal.size(domain.live.journal)
        with subprocess.Popen(
            [sys.executable, "-m", "qkvm", "--root", lab.root, "destroy", "restless"], cwd=TOP
        ) as puller:
            journal.wait(
                domain.live.journal,
                mark,
                lambda event: status(event) == "cancelling",
                timeout=60,
                alive=lambda: domain.is_running,
                what="the end of the migration",
            )
            code, words = saver.end()
        assert code == 1 and "error: Failed to save" in words
    assert puller.returncode == 0
    assert domain.state == ("shut off", "destroyed")


def goes_on(domain: Domain) -> bool:
    """Whether the counter in the guest counts."""
    with Guest(domain) as guest:
        before = count(guest)
        guest.until(f"[ $(cat /tmp/count) -gt {before} ] && echo more; true", "more")
    return domain.state[0] == "running"


def killed_at(lab: Lab, where: str, what: str, *, first: str = "") -> None:
    """Run qkvm in a process that is killed at a function, 'module:name', or behind it with '+' in front.

    :param first: Python that the process runs before all else.
    """
    module, _, name = where.lstrip("+").partition(":")
    holder, _, attribute = name.rpartition(".")
    code = f"""{first}
import os, sys
import {module} as module
holder = module.{holder} if {holder!r} else module
before = holder.{attribute}
def fatal(*args, **options):
    if {where.startswith("+")}:
        before(*args, **options)
    os.kill(os.getpid(), 9)
holder.{attribute} = fatal
from qkvm.cli.main import main
main(sys.argv[1:])
""".replace("module. if", "module if")
    done = subprocess.run([sys.executable, "-c", code, "--root", lab.root, *what.split()], cwd=TOP, check=False)
    assert done.returncode == -signal.SIGKILL


def test_killed_at_the_worst_moments(lab: Lab, domain_of: Register, tmp_path: os.PathLike[str]) -> None:
    domain = lab.boot(domain_of(lab.define("doomed")))
    with Guest(domain) as guest:
        start_counting(guest)
    pid, folder = domain.live.pid, domain.tree.saves

    # All is written, but the file has no name yet: the guest goes on with the next verb that passes by.
    killed_at(lab, "qkvm.storage.stream:StreamWriter.commit", "managedsave doomed")
    assert domain.state == ("paused", "saving")
    lab.ok("gc")
    assert goes_on(domain) and domain.live.pid == pid and os.listdir(folder) == []

    # It has its name: the guest is saved, and the next verb that passes by ends its QEMU.
    killed_at(lab, "+qkvm.storage.stream:StreamWriter.commit", "managedsave doomed")
    assert domain.state == ("paused", "saving") and os.listdir(folder) == ["doomed.save"]
    lab.ok("gc")
    assert domain.state == ("shut off", "saved") and os.listdir(folder) == ["doomed.save"]
    domain.start()
    assert goes_on(domain) and os.listdir(folder) == []

    # QEMU is up and has nothing yet: it all is still in the file.
    domain.managed_save()
    killed_at(lab, "qkvm.storage.savefile:SaveFile.feed", "start doomed")
    lab.ok("gc")
    assert not domain.is_running and os.listdir(folder) == ["doomed.save"]

    # QEMU has all, and has not been let go.
    killed_at(lab, "qkvm.domain.state.migration:go_on", "start doomed")
    assert domain.state[0] == "paused"
    lab.ok("gc")
    assert goes_on(domain) and os.listdir(folder) == []
    assert domain.state == ("running", "restored")


def memory_and_pid(domain: Domain) -> tuple[bytes, int]:
    """What lies in the guest's RAM, read from QEMU's, which is left as it is; and QEMU's pid."""
    pid = domain.live.pid
    with PlainSession(domain.live.second_monitor, name=domain.name) as session:
        told = session.execute("human-monitor-command", {"command-line": "gpa2hva 0"})
    found = re.search(r" is 0x([0-9a-f]+)", told)
    assert pid is not None and found, told
    with open(f"/proc/{pid}/mem", "rb") as stream:
        stream.seek(int(found[1], 16))
        return stream.read(MEMORY << 20), pid


def test_all_of_the_memory_comes_back(lab: Lab, domain_of: Register, tmp_path: os.PathLike[str]) -> None:
    """Each page of it, also where the guest has time to write into what has gone out already."""
    memory = f'{{ current = "{MEMORY}MiB", maximum = "{MEMORY}MiB" }}'
    domain, path = lab.boot(domain_of(lab.define("exact", memory=memory))), os.path.join(tmp_path, "state")
    with Guest(domain) as guest:
        start_counting(guest)
    # As on a busy host: the disk is slow, and QEMU is told late that the next pass is to be the last.
    late = (
        "from qkvm.domain.state import migration\n"
        "migration._LIMITS['downtime-limit'] = 1\nmigration._LAST_PASS = {}\n"
    )
    for _ in range(2):
        # The file has its name, and QEMU has not been ended.
        saving = f"save exact {path}"
        killed_at(lab, "+qkvm.storage.stream:StreamWriter.commit", saving, first=late + slow_disk(0.02))
        before, pid = memory_and_pid(domain)
        lab.ok("gc")
        lab.ok(f"restore {path} --paused")
        after, other = memory_and_pid(domain)
        assert pid != other and len(before) == len(after) == MEMORY << 20
        pages = range(0, len(before), 4096)
        (page,) = [page for page in pages if before[page : page + 4096] != after[page : page + 4096]]
        # The guest runs on from its state once more, which its generation id tells it (vmgenid.h, GUID_OFFSET).
        begin, end = page + 40, page + 56
        assert before[page:begin] + before[end : page + 4096] == after[page:begin] + after[end : page + 4096]
        assert f"<genid>{UUID(bytes_le=after[begin:end])}</genid>" in lab.ok("dumpxml exact")
        domain.resume()
        assert goes_on(domain)


def test_dumps(lab: Lab, domain_of: Register, tmp_path: os.PathLike[str], monkeypatch: pytest.MonkeyPatch) -> None:
    domain = lab.boot(domain_of(lab.define("dumped")))
    with Guest(domain) as guest:
        start_counting(guest)
        guest.ask("(while :; do sleep 1000; done) & echo 'needle 7f3a' | tr a-z A-Z >/tmp/needle")
    core, raw = os.path.join(tmp_path, "core"), os.path.join(tmp_path, "raw")
    assert lab.ok(f"dump dumped {core} --memory-only --verbose") == f"\nDomain 'dumped' dumped to {core}\n\n"
    assert goes_on(domain)
    assert memory_of(core)["LOAD"] >= 512 << 20
    with open(core, "rb") as stream:
        assert b"NEEDLE 7F3A" in stream.read()
    assert "Completed" in lab.ok("domjobinfo dumped --completed")

    lab.ok(f"dump dumped {core} --memory-only --format kdump-zlib --bypass-cache")
    with open(core, "rb") as stream:
        assert stream.read(12) == b"makedumpfile"
    assert "is not supported" in lab.fails(f"dump dumped {core} --memory-only --format gzip")
    assert "only works with --memory-only" in lab.fails(f"dump dumped {core} --format elf")
    assert "mutually exclusive" in lab.fails(f"dump dumped {core} --crash --reset")
    assert goes_on(domain)

    lab.ok(f"dump dumped {raw} --live")
    with open(raw, "rb") as stream:
        assert stream.read(4) == b"QEVM"
    assert goes_on(domain)
    with monkeypatch.context() as patch:
        # As under KVM, where the guest is not stopped beforehand.
        patch.setattr(migration, "tracks_writes", lambda _: True)
        domain.dump(raw)
    assert goes_on(domain)
    assert "is a bare migration stream" in lab.fails(f"restore {raw}")

    # ^C, and another process's view of it.
    with Saver(lab, domain, f"dump dumped {core} --memory-only") as dumper:
        assert "Operation:        Dump        \n" in lab.ok("domjobinfo dumped")
        assert lab.ok("domstate dumped --reason") == "paused (dumping)\n\n"
        assert "cannot abort memory-only dump" in lab.fails("domjobabort dumped")
        dumper.process.send_signal(signal.SIGINT)
        code, words = dumper.end()
    assert code == 1 and "domain dump job: canceled by client" in words
    assert goes_on(domain) and sorted(os.listdir(tmp_path)) == ["core", "raw"]

    with small_filesystem(tmp_path) as small:
        assert "No space left on device" in lab.fails(f"dump dumped {small}/core --memory-only")
        assert goes_on(domain)
        assert "No space left on device" in lab.fails(f"dump dumped {small}/raw")
        assert goes_on(domain) and os.listdir(small) == []

    domain.suspend()
    lab.ok(f"dump dumped {core} --memory-only")
    assert domain.state == ("paused", "user")
    domain.resume()
    pid, mark = domain.live.pid, log_size(domain)
    lab.ok(f"dump dumped {raw} --bypass-cache --reset")
    wait_ready(domain, mark)
    assert domain.live.pid == pid
    lab.ok(f"dump dumped {raw} --crash")
    assert domain.state == ("shut off", "crashed")
    assert sorted(os.listdir(tmp_path)) == ["core", "raw"]
    assert "not running" in lab.fails(f"dump dumped {core}")


def memory_of(core: str) -> dict[str, int]:
    """Bytes of each kind of segment in an ELF core, read with the ELF format's own field sizes (elf(5))."""
    with open(core, "rb") as stream:
        head = stream.read(64)
        assert head[:6] == b"\x7fELF\x02\x01" and struct.unpack_from("<H", head, 16) == (4,), "no 64-bit core"
        (offset,) = struct.unpack_from("<Q", head, 32)
        size, number = struct.unpack_from("<HH", head, 54)
        stream.seek(offset)
        segments = [struct.unpack_from("<IIQQQQQQ", stream.read(size)) for _ in range(number)]
    names = {1: "LOAD", 4: "NOTE"}
    found: dict[str, int] = {}
    for kind, _, place, _, _, in_file, _, _ in segments:
        assert place + in_file <= os.stat(core).st_size
        found[names[kind]] = found.get(names[kind], 0) + in_file
    assert found["NOTE"] > 0
    return found


@pytest.mark.parametrize("machine", ["pc", "microvm"])
def test_other_machines_come_back_too(
    lab: Lab, domain_of: Register, tmp_path: os.PathLike[str], machine: str
) -> None:
    """The same for machines with other buses; a q35 is in all the other tests."""
    body, cmdline = network_nic(FIRST) + disk(tmp_path), tsc_frequency() if machine == "microvm" else ""
    domain = lab.boot(domain_of(lab.define("other", machine=machine, body=body, cmdline=cmdline)))
    if machine == "pc":
        domain.nics.attach(type="network", source="default", mac=SECOND)
    with Guest(domain) as guest:
        start_counting(guest)
        guest.ask("httpd -h /etc")
    address = lease_of(domain, FIRST)
    domain.managed_save()
    domain.start()
    assert goes_on(domain) and serves(address)
    if machine == "pc":
        assert domain.live.record["definition"]["machine_version"] != ""
        domain.nics.detach(type="network", mac=SECOND)


def test_another_generation(lab: Lab, domain_of: Register, tmp_path: os.PathLike[str]) -> None:
    """A new definition gets a generation id, which QEMU shows; a guest from an older state has another one."""

    def shown() -> str:
        return str(json.loads(lab.ok("qemu-monitor-command again query-vm-generation-id"))["return"]["guid"])

    domain = domain_of(lab.define("again", body=disk(tmp_path)))
    stored = domain.definition.genid
    assert f"<genid>{stored}</genid>" in lab.ok("dumpxml again")
    # The same text anew: the machine must not change.
    text = Path(lab.host.tree.domain_definition("again")).read_text()
    lab.host.define("".join(line for line in text.splitlines(True) if not line.startswith("genid")))
    assert domain.definition.genid == stored
    lab.boot(domain)
    seen = [shown()]
    assert seen == [stored]
    lab.ok("snapshot-create-as again then")
    lab.ok("managedsave again")
    lab.ok("start again")
    seen.append(shown())
    with Guest(domain) as guest:
        guest.ask("true")
    lab.ok(f"save again {tmp_path}/saved")
    lab.ok(f"restore {tmp_path}/saved")
    seen.append(shown())
    lab.ok("destroy again")
    lab.ok("snapshot-revert again then")
    seen.append(shown())
    assert len(set(seen)) == len(seen)
    with Guest(domain) as guest:
        guest.ask("true")
    lab.ok("snapshot-delete again then")
    # A machine that was defined without stays without.
    assert not domain_of(lab.define("never", genid='"none"')).xml().count("genid>")
