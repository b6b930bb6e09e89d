"""A Debian as its users run it: UEFI, systemd, cloud-init, the agent; snapshots and backups while it writes."""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from qkvm.api.domain import Domain
from tests.guest.backups import manifest
from tests.guest.conftest import TOP, Lab
from tests.guest.guest import wait_agent
from tests.terminal import Terminal

# Made before this process enters a namespace, from which nothing can be downloaded.
pytestmark = pytest.mark.usefixtures("debian_disk")

BOOT = 300.0
"""Seconds; firmware and systemd take 40 under TCG on an idle machine."""

USER_DATA = r"""#cloud-config
hostname: seeded
write_files:
- path: /srv/writer
  content: |
    # Writes a file, and when it is on the disk its checksum into a list, for ever.
    cd /srv/data
    i=0
    while :; do
        i=$((i + 1))
        head -c 65536 /dev/urandom >$i
        sync $i
        sha256sum $i >>../sums
        sync ../sums
    done
runcmd:
- mkdir /srv/data
- touch /srv/sums
"""

SYSTEM = "find /usr/bin /usr/lib/systemd /etc/cloud -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum"

NUMBER = "wc -l </srv/sums"

IDENTITY = "cat /etc/machine-id /etc/ssh/ssh_host_*_key.pub"


@pytest.fixture(scope="session")
def debian_disk() -> str:
    """A disk with Debian, to make others from."""
    made = subprocess.run([str(TOP / "scripts/make-debian")], stdout=subprocess.PIPE, text=True, check=True)
    return made.stdout.strip().removeprefix("DISK=")


def sh(domain: Domain, command: str) -> str:
    """What a command prints that the guest's agent runs; it must succeed."""
    with domain.guest.session(timeout=120) as agent:
        arguments = {"path": "/bin/sh", "arg": ["-c", command], "capture-output": True}
        pid = agent.execute("guest-exec", arguments, kind=dict[str, Any])["pid"]
        deadline = time.monotonic() + BOOT
        while not (done := agent.execute("guest-exec-status", {"pid": pid}, kind=dict[str, Any]))["exited"]:
            assert time.monotonic() < deadline, f"the guest's '{command}' does not end"
            time.sleep(0.05)
    out, err = (base64.b64decode(done.get(name, "")).decode() for name in ("out-data", "err-data"))
    assert done["exitcode"] == 0, f"the guest's '{command}' ended with {done['exitcode']}: {out}{err}"
    return out.strip()


def goes_on(domain: Domain, more: int) -> None:
    """Wait until the guest's writer has written some files more than it has."""
    begin, deadline = int(sh(domain, NUMBER)), time.monotonic() + BOOT
    while int(sh(domain, NUMBER)) < begin + more:
        assert time.monotonic() < deadline, "the guest writes no more"


def verify(domain: Domain, system: str, least: int) -> None:
    """All that was written and listed is there as it was, and so are Debian's own files."""
    assert int(sh(domain, NUMBER)) >= least
    sh(domain, "cd /srv/data && sha256sum --quiet -c ../sums")
    assert sh(domain, SYSTEM) == system


def wait_no_agent(deb: Domain) -> None:
    """A command that the agent begins to run while it is stopped is lost with it."""
    deadline = time.monotonic() + BOOT
    while deb.guest.is_there():
        assert time.monotonic() < deadline, "the agent does not go"
        time.sleep(0.02)


def takes_vcpus(lab: Lab, deb: Domain) -> None:
    """Debian 12 has no rule that brings plugged CPUs online: its agent does, and without one qkvm says so."""
    online = "cat /sys/devices/system/cpu/online"
    assert sh(deb, online) == "0-1"
    lab.ok("setvcpus deb 3 --live --timeout 120")
    assert sh(deb, online) == "0-2"
    # The agent comes back when the guest has seen its cable pulled.
    again = "until grep -q 0 /sys/class/net/e*/carrier; do sleep 0.2; done; systemctl start qemu-guest-agent"
    sh(deb, f"systemd-run --quiet sh -c 'systemctl stop qemu-guest-agent; {again}'")
    wait_no_agent(deb)
    assert "guest uses 3 of 4 vCPUs: it did not follow within 3 s" in lab.fails(
        "setvcpus deb 4 --live --timeout 3"
    )
    nic = deb.nics.all()[0].mac
    lab.ok(f"domif-setlink deb {nic} down")
    deb.wait("agent", timeout=BOOT)
    lab.ok(f"domif-setlink deb {nic} up")
    lab.ok("setvcpus deb 4 --live --timeout 120")
    assert sh(deb, online) == "0-3"


def by_ssh(lab: Lab, deb: Domain, tmp_path: Path) -> None:
    """A way in by ssh, with qkvm's own key and host key; without an agent, exec and cp take it too."""
    assert lab.ok("ssh --add-key deb -- hostname") == "seeded\n"
    assert lab.run("ssh deb -- exit 3").returncode == 3
    assert os.listdir(Path(lab.host.tree.ssh, "hosts")) == [deb.uuid]
    terminal = Terminal(
        [sys.executable, "-m", "qkvm", "--root", lab.root, "exec", "-t", "deb", "sh", "-c", "tty; exit 5"]
    )
    try:
        terminal.expect("/dev/pts/", timeout=BOOT)
        assert terminal.child.wait(BOOT) == 5
    finally:
        terminal.close()
    sh(deb, "systemd-run --quiet systemctl stop qemu-guest-agent")
    wait_no_agent(deb)
    done = lab.run("exec -v --timeout 60 -e A=1 -w /srv deb -- sh -c 'pwd; echo $A; echo err >&2; exit 9'")
    assert (done.returncode, done.stdout) == (9, "/srv\n1\n") and "err\n" in done.stderr, done.stderr
    assert "port 22 answers" in done.stderr
    lab.ok(f"cp deb:/srv/writer {tmp_path}/writer")
    assert "for ever" in (tmp_path / "writer").read_text()
    lab.ok(f"cp {tmp_path}/writer deb:/root/again")
    assert "for ever" in lab.ok("exec deb -- cat /root/again")
    lab.ok("exec deb -- systemctl start qemu-guest-agent")
    wait_agent(deb)


def test_backups_of_a_debian(
    lab: Lab, debian_disk: str, tmp_path: Path, domain_of: Callable[[Domain], Domain]
) -> None:
    """A seed is applied; what is gone for good comes back from a full backup and two that add to it."""
    seed = tmp_path / "user-data"
    seed.write_text(USER_DATA, encoding="utf-8")
    key = tmp_path / "key"
    key.write_bytes(b"\0\xff" * 1400)
    lab.ok(
        "install --name deb --osinfo debian12 --memory 512 --vcpus 2,maxvcpus=4 --import "
        f"--credential motto=a=b,c --credential key,file={key} "
        f"--graphics none --disk size=2,backing_store={debian_disk},backing_format=qcow2 "
        f"--network network=default --cloud-init user-data={seed} --noautoconsole"
    )
    deb = domain_of(lab.host.domain("deb"))
    deb.wait("agent", timeout=BOOT)
    assert lab.ok("wait deb --for cloud-init").startswith("done, by DataSourceNoCloud")
    assert sh(deb, "systemd-creds --system cat motto") == "a=b,c"
    assert sh(deb, "systemd-creds --system cat key | sha256sum").split()[0] == sha256(key.read_bytes()).hexdigest()
    assert deb.wait("address") in sh(deb, "ip address")
    assert sh(deb, "systemctl is-system-running --wait") == "running"
    assert sh(deb, "cat /proc/1/comm /sys/firmware/efi/fw_platform_size") == "systemd\n64"
    assert sh(deb, "hostname; ls /srv") == "seeded\ndata\nsums\nwriter"
    by_ssh(lab, deb, tmp_path)
    identity = sh(deb, IDENTITY).splitlines()
    takes_vcpus(lab, deb)
    system = sh(deb, SYSTEM)
    sh(deb, "systemd-run --quiet --unit=writer sh /srv/writer")
    goes_on(deb, 5)
    then = int(sh(deb, NUMBER))
    lab.ok("snapshot-create-as deb written")
    backups, least = tmp_path / "backups", 0
    for kind in ("--full", "--incremental", "--incremental"):
        goes_on(deb, 5)
        least = int(sh(deb, NUMBER))
        assert f": {kind[2:]}" in lab.ok(f"backup deb {backups} {kind}")
    assert [one["guest"] for one in manifest(backups)] == ["frozen"] * 3
    lab.ok("snapshot-revert deb written")
    # The guest opens its port anew in the first moments.
    wait_agent(deb)
    goes_on(deb, 5)
    sh(deb, "systemctl stop writer")
    verify(deb, system, then + 5)
    lab.ok("destroy deb")
    lab.ok("undefine deb --nvram --snapshots-metadata --remove-all-storage")
    assert not os.listdir(lab.host.tree.images) and not os.listdir(lab.host.tree.seeds)
    # A copy is another machine: cloud-init gives it ids, keys and the network of its own MAC.
    lab.ok(f"restore-backup {backups} --name twin")
    twin = domain_of(lab.host.domain("twin"))
    lab.ok("start twin")
    wait_agent(twin, timeout=BOOT)
    verify(twin, system, least)
    assert int(sh(twin, NUMBER)) < least + 200
    assert lab.ok("wait twin --for cloud-init").startswith("done, by DataSourceNoCloud")
    assert len(identity) > 2 and not set(identity) & set(sh(twin, IDENTITY).splitlines())
    assert twin.wait("address") in sh(twin, "ip address")
    twin.shutdown(wait=True)
    lab.ok("undefine twin --nvram --remove-all-storage")


def test_run_of_a_debian(lab: Lab, debian_disk: str) -> None:
    """A prompt of root's at the console, a command with its exit code; its power-off leaves nothing."""
    argv = [sys.executable, "-m", "qkvm", "--root", lab.root, "run", debian_disk, "--boot", "uefi"]
    argv += ["--credential", "motto=onwards"]
    guest = Terminal([*argv, "--name", "passes", "--memory", "512", "--vcpus", "2"], cwd=TOP)
    try:
        guest.expect("root@passes:~#", timeout=BOOT)
        done = lab.run("exec passes -- sh -c 'hostname; systemd-creds --system cat motto; exit 7'")
        assert (done.returncode, done.stdout) == (7, "passes\nonwards")
        guest.type("poweroff\n")
        assert guest.child.wait(BOOT) == 0 and guest.is_restored()
    finally:
        guest.child.terminate()
        guest.child.wait(60)
        guest.close()
    tree = lab.host.tree
    folders = (tree.passing_guests, tree.images, tree.seeds, tree.nvrams, tree.domain_runs, tree.log)
    assert [name for folder in folders if os.path.isdir(folder) for name in os.listdir(folder)] == []
