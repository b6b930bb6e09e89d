"""Each machine type boots a real guest with network, disk, balloon and console."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

from qkvm.api.domain import Domain
from tests.guest.conftest import Lab, network_nic
from tests.guest.guest import Guest, tsc_frequency, wait_agent
from tests.host import nslab

Register = Callable[[Domain], Domain]


@pytest.mark.parametrize("machine", ["q35", "pc", "microvm"])
def test_boots_with_everything(lab: Lab, domain_of: Register, tmp_path: Path, machine: str) -> None:
    image = tmp_path / "disk.qcow2"
    nslab.sh("qemu-img", "create", "-q", "-f", "qcow2", str(image), "64M")
    body = f"[[disks]]\npath = '{image}'\nformat = 'qcow2'\ntarget = 'vda'\n" + network_nic()
    cmdline = tsc_frequency() if machine == "microvm" else ""
    domain = lab.boot(domain_of(lab.define(f"m-{machine}", machine=machine, body=body, cmdline=cmdline)))
    found = lab.ok(f"domifaddr m-{machine} --source lease --wait")
    with Guest(domain) as guest:
        address = domain.addresses(sources=("lease",))[0].ip
        guest.until(f"nics | grep -c {address}/24 || true", "1")
        assert address in found
        guest.ask("echo written-by-the-guest | dd of=/dev/vda conv=fsync")
        assert "written-by-the-guest" in guest.ask("head -c 20 /dev/vda")
        assert guest.ask("cat /sys/class/misc/hw_random/rng_current").startswith("virtio")
    wait_agent(domain)
    told = json.loads(lab.ok(f"guestinfo m-{machine} --disk --json"))
    assert [disk["name"] for disk in told["disks"]] == ["/dev/vda"]
    # A microvm's disk has no address that both sides know.
    assert told["targets"] == ([] if machine == "microvm" else [{"device": "/dev/vda", "target": "vda"}])
    assert domain.memory.set(300 * 1024) == 300 * 1024
    if machine == "microvm":
        assert "can't plug devices while it runs" in lab.fails(f"attach-interface m-{machine} network default")
    domain.shutdown(wait=True)
    assert domain.state == ("shut off", "shutdown")


@pytest.mark.parametrize("machine", ["q35", "pc"])
def test_boots_from_its_first_disk(lab: Lab, domain_of: Register, tmp_path: Path, machine: str) -> None:
    """Without a kernel the firmware loads the first disk's boot sector; this one speaks on the serial port."""
    words = b"hello from the boot sector\r\n"
    # cli; cld; mov ds, 0; mov si, 0x7c1a; mov dx, 0x3f8; next: lodsb; test al, al; jz end; out dx, al; jmp next
    # end: hlt; jmp end
    code = bytes.fromhex("fafc31c08ed8be1a7cbaf803ac84c07403eeebf8f4ebfd").ljust(0x1A, b"\x90")
    sector = (code + words + b"\0").ljust(510, b"\0") + b"\x55\xaa"
    first, second = tmp_path / "first.img", tmp_path / "second.img"
    first.write_bytes(sector.ljust(1 << 20, b"\0"))
    second.write_bytes(sector.replace(b"hello", b"wrong").ljust(1 << 20, b"\0"))
    disks = "".join(
        f"[[disks]]\npath = '{path}'\nformat = 'raw'\ntarget = '{target}'\n"
        for path, target in ((first, "vda"), (second, "vdb"))
    )
    domain = domain_of(lab.define(f"disk-{machine}", machine=machine, body=disks, boot="{}"))
    domain.start()
    log = Path(domain.tree.serial_log(domain.name))
    nslab.until(lambda: log.exists() and words in log.read_bytes(), "the boot sector's words", 60)
    assert b"wrong" not in log.read_bytes()


def test_many_root_ports(lab: Lab, domain_of: Register) -> None:
    """As many ports as a definition may have leave a machine that boots."""
    lab.boot(domain_of(lab.define("ports", root_ports="24")))


def test_domargv_is_what_start_runs(lab: Lab, domain_of: Register) -> None:
    """The very words, one option a line, and nothing is started by looking."""
    domain = domain_of(lab.define("shown", body=network_nic() + "[vnc]\nport = 5977\n", cmdline="quiet a,b"))
    shown = [word for line in lab.ok("domargv shown").splitlines() for word in shlex.split(line)]
    assert not domain.is_running
    lab.ok("start shown")
    ran = Path(f"/proc/{domain.live.pid}/cmdline").read_bytes().decode().split("\0")[:-1]
    assert ran == shown == domain.live.record["argv"]


def test_qemu_is_confined(lab: Lab, domain_of: Register) -> None:
    """Not root, no capabilities, seccomp filter on; its folder and sockets closed to others."""
    domain = domain_of(lab.define("confined", body=network_nic()))
    domain.start()
    status = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{domain.live.pid}/status").read_text().splitlines()
        if ":\t" in line
    )
    uids = set(status["Uid"].split())
    assert uids == {str(0x70000000 + domain.live.id)}
    assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
    assert status["Seccomp"] == "2"
    folder = Path(domain.live.folder)
    assert folder.stat().st_mode & 0o777 == 0o700
    for name in ("qmp.sock", "monitor.sock", "serial0.sock", "agent.sock", "record.json", "events.jsonl"):
        assert (folder / name).stat().st_mode & 0o077 == 0, name


def _image(folder: Path, name: str, text: bytes, *, base: str = "", size: str = "16M") -> str:
    """An image whose first bytes are ``text``: raw, or qcow2 on top of a raw ``base``."""
    path = str(folder / name)
    if base:
        nslab.sh("qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", path)
        return path
    nslab.sh("qemu-img", "create", "-q", "-f", "raw", path, size)
    with open(path, "r+b") as stream:
        stream.write(text)
    return path


@pytest.mark.parametrize("machine", ["q35", "pc"])
def test_hardware(lab: Lab, domain_of: Register, tmp_path: Path, machine: str) -> None:
    """Drives of every bus, ports of every kind, and what a definition says of clock, board and limits."""
    base = _image(tmp_path, "base.img", b"from the base")
    old = "hdc" if machine == "pc" else "sdc"
    disks = {
        "vda": (_image(tmp_path, "top.qcow2", b"", base=base), "qcow2", "virtio", "disk"),
        "sda": (_image(tmp_path, "scsi.img", b"a scsi disk"), "raw", "scsi", "disk"),
        "sdb": (_image(tmp_path, "cd.iso", b"a compact disc"), "raw", "scsi", "cdrom"),
        old: ("", "raw", "ide" if machine == "pc" else "sata", "cdrom"),
        "sdd": (_image(tmp_path, "stick.img", b"a usb stick"), "raw", "usb", "disk"),
        "fda": (_image(tmp_path, "floppy.img", b"a floppy", size="1440k"), "raw", "fdc", "floppy"),
    }
    body = "".join(
        f"[[disks]]\npath = '{path}'\nformat = '{fmt}'\nbus = '{bus}'\ndevice = '{device}'\ntarget = '{target}'\n"
        + (f"[[disks.backing]]\npath = '{base}'\nformat = 'raw'\n" if target == "vda" else "")
        for target, (path, fmt, bus, device) in disks.items()
    )
    written = tmp_path / "second-port"
    body += (
        f"[[serials]]\n[[serials]]\nkind = 'file'\npath = '{written}'\n"
        "[[serials]]\nkind = 'pty'\nmodel = 'pci-serial'\n[[serials]]\nmodel = 'virtio'\n"
        "[[channels]]\nname = 'org.qemu.guest_agent.0'\n[[channels]]\nname = 'org.example.0'\n"
        "[[inputs]]\ntype = 'tablet'\n[[inputs]]\ntype = 'keyboard'\nbus = 'virtio'\n"
        "[vnc]\npassword = 'secret'\nwebsocket = -1\n[watchdog]\naction = 'pause'\n"
        "[topology]\nsockets = 2\ncores = 2\n[smbios]\nserial = 'S,N-1'\n[clock]\nhpet = false\n"
        "[memory_backing]\nsource = 'memfd'\n[[iothreads]]\nid = 1\n"
    )
    domain = domain_of(
        lab.define(
            f"hw-{machine}",
            machine=machine,
            body=body,
            machine_version="'7.2'",
            video="'vga'",
            vcpus="{ current = 3, maximum = 4 }",
            panic="true",
        )
    )
    lab.boot(domain)
    assert not (Path(domain.live.folder) / "vnc.secret").exists(), "the password is no file any more"
    assert "secret" not in Path(f"/proc/{domain.live.pid}/cmdline").read_text().split("\0")
    with Guest(domain) as guest:
        assert guest.ask("head -c 13 /dev/vda") == "from the base"
        assert "S,N-1" in guest.ask("strings /sys/firmware/dmi/tables/DMI")
        guest.until("cpus", "3")
        assert "hpet" not in guest.ask("cat /sys/devices/system/clocksource/clocksource0/available_clocksource")
        guest.ask("echo through the second port >/dev/ttyS1")
        assert sorted(guest.ask("cat /sys/class/virtio-ports/*/name").split()) == [
            "org.example.0",
            "org.qemu.guest_agent.0",
        ]
    assert "through the second port" in written.read_text()
    shown = {node["node-name"]: node for node in domain.qemu.command("query-named-block-nodes")}
    assert shown["qcow2-vda"]["backing_file"] and not shown["qcow2-vda"]["ro"] and shown["raw-vda-1"]["ro"]
    blocks = {block["qdev"]: block for block in domain.qemu.command("query-block")}
    assert len(blocks) == 6 and sum("inserted" not in block for block in blocks.values()) == 1
