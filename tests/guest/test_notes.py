"""A person's working day with libvirt, every command of it, with qkvm for virsh and qkvm install for virt-install.

Names and paths are adapted, nothing else. First the installation from a CD, then the day on the running guest.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from qkvm.api.domain import Domain
from qkvm.domain.screen import display as screen
from tests.guest import guest as guests
from tests.guest.conftest import TOP, Lab
from tests.guest.guest import Guest
from tests.terminal import Terminal

NAME = "vm01-centos7.4-64"


def end_the_day(lab: Lab, day: Domain) -> None:
    """Power off the hard way, forget the definition, keep the image."""
    image = Path(day.definition.disks[0].path)
    assert lab.ok(f"destroy {NAME}") == f"Domain '{NAME}' destroyed\n\n"
    assert lab.ok(f"undefine {NAME}") == f"Domain '{NAME}' has been undefined\n\n"
    assert image.exists(), "the image is not the definition's"
    assert NAME not in lab.ok("list --all") and not os.path.exists(lab.host.tree.domain_definition(NAME))


def install_line(lab: Lab, image: Path, *, network: str) -> str:
    """The notes' virt-install, with the kernel of the test guest for its medium."""
    return (
        f"install --name {NAME} --graphics vnc,listen=0.0.0.0,port=5920,keymap=en_us --memory 512,maxmemory=1024 "
        f"--vcpus 1,maxvcpus=2 --disk path={image},size=8,format=qcow2 {network} "
        f"--boot kernel={lab.kernel},initrd={lab.initrd},kernel_args='console=ttyS0 quiet' --machine pc "
        "--noautoconsole"
    )


@pytest.fixture(scope="module")
def day(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Domain]:
    """The guest of that day, installed as the notes say, but for the medium: it boots the test guest's kernel."""
    image = tmp_path_factory.mktemp("images") / f"{NAME}.img"
    said = lab.ok(install_line(lab, image, network="--network bridge=virbr0"))
    assert "Starting install..." in said and "Domain creation completed." in said
    assert image.stat().st_size < 8 << 30, "allocated as it is written"
    domain = lab.host.domain(NAME)
    guests.wait_ready(domain)
    yield domain
    end_the_day(lab, domain)


def test_suboptions_are_listed(lab: Lab) -> None:
    """virt-install --disk=? and its like: the option's name, then its suboptions, one a line."""
    for option, some in (
        ("disk", ("path", "size", "format")),
        ("network", ("bridge", "model")),
        ("vcpus", ("maxvcpus",)),
    ):
        lines = lab.ok(f"install --{option}=?").splitlines()
        assert lines[0] == f"--{option} options:"
        assert all(line.startswith("  ") for line in lines[1:] if line)
        assert {f"  {word}" for word in some} <= set(lines)


def test_help(lab: Lab, day: Domain) -> None:
    whole = [line.split() for line in lab.ok("help").splitlines() if line.startswith("    ")]
    for word, verbs in (
        ("list", "domblklist domiflist list net-list pool-list vol-list"),
        ("edit", "edit managedsave-edit net-edit pool-edit save-image-edit"),
        (
            "info",
            "domfsinfo domjobinfo dumpxml iothreadinfo managedsave-dumpxml save-image-dumpxml schedinfo "
            "vcpuinfo domblkinfo dominfo nodeinfo sysinfo net-dhcp-leases net-dumpxml net-info pool-dumpxml "
            "pool-info vol-dumpxml vol-info",
        ),
        (
            "interface",
            "attach-interface detach-interface domif-setlink domiftune domcontrol domif-getlink "
            "domifaddr domiflist domifstat",
        ),
    ):
        assert set(verbs.split()) <= {words[0] for words in whole if word in " ".join(words)}
    assert lab.ok("help list").startswith("  NAME\n    list - list domains\n")
    usage = lab.ok("--help")
    assert "    attach-interface               attach network interface\n" in usage
    shown = lab.ok("attach-interface --help")
    for part in (
        "  NAME\n    attach-interface - attach network interface\n",
        "[--domain] <string>  domain name, id or uuid",
        "--persistent     make live change persistent",
        "--mac <string>   MAC address",
    ):
        assert part in shown
    assert "  NAME\n    detach-interface - detach network interface\n" in lab.ok("detach-interface --help")


def test_lists(lab: Lab, day: Domain) -> None:
    run = day.live.id
    wanted = (
        f" Id   Name                State\n-----------------------------------\n {run:<4} {NAME}   running\n\n"
    )
    assert lab.ok("list") == lab.ok("list --all") == wanted
    assert re.search(r"^ default   active   (no|yes)$", lab.ok("pool-list"), re.MULTILINE)
    assert re.search(r"^ vda +/.*/vm01-centos7\.4-64\.img$", lab.ok(f"domblklist {NAME}"), re.MULTILINE)


def test_networks(lab: Lab, day: Domain) -> None:
    assert re.search(r"^ default   active   (no|yes) +yes$", lab.ok("net-list"), re.MULTILINE)


def test_autostart(lab: Lab, day: Domain) -> None:
    assert lab.ok(f"autostart {NAME}") == f"Domain '{NAME}' marked as autostarted\n\n"
    assert "Autostart:      enable" in lab.ok(f"dominfo {NAME}")
    assert lab.ok(f"autostart --disable {NAME}") == f"Domain '{NAME}' unmarked as autostarted\n\n"


def test_the_shell(lab: Lab, day: Domain) -> None:
    prompt = "qkvm # " if os.geteuid() == 0 else "qkvm > "
    with closing(Terminal([sys.executable, "-m", "qkvm", "--root", lab.root], cwd=str(TOP))) as terminal:
        terminal.expect(prompt)
        terminal.type("help list\n")
        assert "list - list domains" in terminal.expect(prompt)
        terminal.type("quit\n")
        assert terminal.child.wait(60) == 0


def test_the_ways_to_its_screen(lab: Lab, day: Domain, tmp_path: Path) -> None:
    """QEMU listens where it was told, a stock client draws it, view names it, and the console has a prompt."""
    argv = Path(f"/proc/{day.live.pid}/cmdline").read_text().split("\0")
    assert argv[argv.index("-vnc") + 1] == "0.0.0.0:20" and argv[argv.index("-k") + 1] == "en-us"
    assert lab.ok(f"vncdisplay {NAME}").strip() == ":20"
    shown = screen.display(day)
    assert shown is not None and shown.is_wildcard
    drawn = tmp_path / "screen.png"
    done = subprocess.run(
        [sys.executable, "-m", "vncdotool.command", "-s", "127.0.0.1::5920", "capture", str(drawn)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 0 and drawn.read_bytes().startswith(b"\x89PNG"), done.stderr
    assert "vnc://127.0.0.1:5920" in lab.run(f"view {NAME}").stdout
    with closing(
        Terminal([sys.executable, "-m", "qkvm", "--root", lab.root, "console", NAME], cwd=str(TOP))
    ) as terminal:
        terminal.expect(f"Connected to domain '{NAME}'")
        terminal.expect("Escape character is ^]")
        terminal.type("\n")
        terminal.expect("guest# ")
        terminal.type("echo typed-$((40+2))\n")
        terminal.expect("typed-42")
        terminal.type("\x1d")
        assert terminal.child.wait(60) == 0


def test_vcpus_are_plugged(lab: Lab, day: Domain) -> None:
    found = [line for line in lab.ok(f"dumpxml {NAME}").splitlines() if "vcpu" in line]
    assert found == ["  <vcpu placement='static' current='1'>2</vcpu>"]
    assert "CPU(s):         1\n" in lab.ok(f"dominfo {NAME}")
    assert lab.ok(f"setvcpus {NAME} 2 --live") == "\n"
    assert "CPU(s):         2\n" in lab.ok(f"dominfo {NAME}")
    blocks = [block for block in lab.ok(f"vcpuinfo {NAME}").split("\n\n") if block.strip()]
    assert [
        re.match(r"VCPU: +(\d+)\nCPU: +\d+\nState: +running\nCPU time: +[\d.]+s\nCPU Affinity: +[y-]+", block)
        is not None
        for block in blocks
    ] == [True, True]
    with Guest(day) as guest:
        guest.until("cpus", "2")


def test_the_balloon_moves(lab: Lab, day: Domain) -> None:
    lines = lab.ok(f"dumpxml {NAME}").splitlines()
    assert (
        "  <memory unit='KiB'>1048576</memory>" in lines
        and "  <currentMemory unit='KiB'>524288</currentMemory>" in lines
    )
    assert any(line.strip().startswith("<memballoon model='virtio'") for line in lines)
    assert "balloon: actual=512" in lab.ok(f"qemu-monitor-command {NAME} --hmp info balloon")
    lab.ok(f"qemu-monitor-command {NAME} --hmp balloon 1024")
    with Guest(day) as guest:
        guest.until("[ $(memtotal) -gt 800000 ] && echo more || true", "more")
    deadline = time.monotonic() + 60
    while "balloon: actual=1024" not in lab.ok(f"qemu-monitor-command {NAME} --hmp info balloon"):
        assert time.monotonic() < deadline, "the guest takes its memory in a moment"
    stats = lab.ok(f"domstats --balloon {NAME}")
    assert stats.startswith(f"Domain: '{NAME}'\n")
    names = ("current", "maximum", "swap_in", "swap_out", "major_fault", "minor_fault", "unused", "rss")
    assert all(f"  balloon.{name}=" in stats for name in names)


def test_nics_come_and_go(lab: Lab, day: Domain) -> None:
    first = lab.ok(f"domiflist {NAME}").splitlines()
    assert first[0].split() == ["Interface", "Type", "Source", "Model", "MAC"]
    assert re.match(r" vnet\d+ +bridge +virbr0 +virtio +52:54:00:", first[2])
    said = lab.ok(f"attach-interface {NAME} --type network --source default --model virtio --persistent")
    assert said == "Interface attached successfully\n\n"
    second = lab.ok(f"domiflist {NAME}").splitlines()
    assert re.match(r" vnet\d+ +network +default +virtio +52:54:00:", second[3])
    mac = second[3].split()[-1]
    with Guest(day) as guest:
        guest.until(f"nics | grep -c {mac} || true", "1")
    said = lab.ok(f"detach-interface {NAME} --type network --mac {mac} --persistent")
    assert said == "Interface detached successfully\n\n"
    assert lab.ok(f"domiflist {NAME}").splitlines() == first


def test_the_host_side_of_its_network(lab: Lab, day: Domain) -> None:
    """NAT as the notes read it off: forwarding on, and MASQUERADE with its range of ports."""
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text().strip() == "1"
    listed = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
    listed += subprocess.run(
        ["iptables-legacy", "-t", "nat", "-nL"], capture_output=True, text=True, check=True
    ).stdout
    assert "masquerade to :1024-65535" in listed or "masq ports: 1024-65535" in listed
