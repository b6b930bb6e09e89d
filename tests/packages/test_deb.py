"""The Debian package on a fresh host: installed, at work, upgraded under a running guest, rotated, taken away."""

from __future__ import annotations

import gzip
import time
from pathlib import Path

from tests.packages.chroot import APT, Chroot

BOOT = 240.0
"""Seconds; the guest takes 3 on an idle machine."""

LOG = "/var/log/qkvm/tiny.serial.log"


def named(host: Chroot) -> set[str]:
    """All files and folders of a host with qkvm in their path, but what apt keeps."""
    apart = " -o ".join(f"-path {place}" for place in ("/tmp", "/var/cache", "/var/lib/dpkg", "/var/log/apt"))
    return set(host.ok(rf"find / /run -xdev \( {apart} \) -prune -o -path '*qkvm*' -print").splitlines())


def install(host: Chroot, deb: str) -> None:
    """Install a package and what it needs; its own scripts run without a network."""
    host.download(deb)
    host.ok(f"{APT} install -y --no-install-recommends {deb}")


def older(host: Chroot, deb: str) -> str:
    """The same package under a version that was before it."""
    script = (
        f"dpkg-deb -R {deb} /tmp/old && sed -i 's/^Version: .*/Version: 0.0.1/' /tmp/old/DEBIAN/control && "
        "dpkg-deb -b /tmp/old /tmp/old.deb >/dev/null && rm -r /tmp/old"
    )
    host.ok(script)
    return "/tmp/old.deb"


def wait_ready(host: Chroot) -> None:
    """Wait until the guest has said in its present serial log that it is up."""
    deadline = time.monotonic() + BOOT
    while "guest: ready" not in (text := host.path(LOG).read_text(encoding="utf-8", errors="replace")):
        assert time.monotonic() < deadline, f"the guest has not booted: {text[-400:]}"
        time.sleep(0.1)


def qemu(host: Chroot) -> str:
    """Pid and start of the one QEMU that runs there."""
    [pid] = host.ok(
        "cd /proc; for p in [0-9]*; do case $(cat $p/comm) in qemu-system*) echo $p;; esac; done"
    ).split()
    return f"{pid} " + host.ok(f"cut -d ' ' -f 22 /proc/{pid}/stat")


def rotate(host: Chroot) -> None:
    """QEMU goes on at the new end of a log that logrotate has cut; two times give a compressed one."""
    before = host.path(LOG).read_bytes()
    host.ok("logrotate --force /etc/logrotate.d/qkvm")
    assert host.path(LOG).stat().st_size == 0 and host.path(f"{LOG}.1.gz").exists()
    assert gzip.decompress(host.path(f"{LOG}.1.gz").read_bytes()) == before
    host.ok("qkvm reset tiny")
    wait_ready(host)
    after = host.path(LOG).read_bytes()
    assert b"\0" not in after[:64] and len(after) < 2 * len(before)
    assert host.path(LOG).stat().st_blocks * 512 >= len(after), "the log has no hole at its beginning"
    host.ok("logrotate --force /etc/logrotate.d/qkvm")
    assert gzip.decompress(host.path(f"{LOG}.1.gz").read_bytes()) == after
    assert gzip.decompress(host.path(f"{LOG}.2.gz").read_bytes()) == before


def test_the_life_of_a_package(host: Chroot, deb: Path) -> None:
    present = f"/tmp/{deb.name}"
    host.path(present).write_bytes(deb.read_bytes())
    old = older(host, present)

    install(host, old)
    assert host.ok("qkvm --version").strip() == deb.name.split("_")[1].partition("+")[0]
    assert "Id   Name   State" in host.ok("qkvm list")
    assert "default" in host.ok("qkvm net-list --all")
    # Its group may look at nothing until root says so.
    assert host.ok("getent group qkvm-read").startswith("qkvm-read:")
    assert not host.path("/var/lib/qkvm-read").exists()
    host.ok("qkvm setup-read")
    assert host.ok("stat -c %G /var/lib/qkvm-read").strip() == "qkvm-read"
    # In a chroot only the CPU can be what the package is not to blame for.
    failed = [line for line in host.run("qkvm host-validate").stdout.splitlines() if ": FAIL" in line]
    assert all("hardware virtualization" in line for line in failed), failed
    assert host.path("/usr/lib/qkvm/qkvm/__pycache__").is_dir(), "it is compiled, or each verb would do so"

    host.ok("qkvm net-start default")
    host.ok(
        "qkvm install --name tiny --memory 256 --vcpus 1 --nodisks --network network=default --graphics none "
        "--boot kernel=/srv/kernel,initrd=/srv/initrd,kernel_args=console=ttyS0 --noautoconsole"
    )
    wait_ready(host)
    running = qemu(host)
    install(host, present)
    assert "0.0.1" not in host.ok("dpkg-query -W qkvm")
    assert qemu(host) == running
    assert "running" in host.ok("qkvm domstate tiny")
    assert "192.168.122." in host.ok("qkvm domifaddr tiny --wait")
    rotate(host)
    assert qemu(host) == running
    host.ok("qkvm shutdown tiny --wait")
    host.ok("qkvm start tiny")

    host.ok(f"{APT} purge -y qkvm")
    assert not host.run("grep -h -e '(qemu' -e '(dnsmasq' /proc/[0-9]*/stat | grep -v ') Z '").stdout
    assert host.ok("nft list ruleset").strip() == "" and "virbr" not in host.ok("ip -brief link")
    assert sorted(named(host)) == ["/etc/qkvm", "/etc/qkvm/domains", "/etc/qkvm/domains/tiny.toml"]
