"""Bad input: a clear line, exit 1, nothing half-made; and data that stays data all the way into the guest."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from qkvm.api.domain import Domain
from qkvm.domain import run as runs
from qkvm.domain.manage import gc
from qkvm.errors import InvalidState, LaunchError
from tests.guest.conftest import TOP, Lab, network_nic
from tests.guest.guest import Guest
from tests.host import nslab

Register = Callable[[Domain], Domain]


def _world(lab: Lab) -> tuple[object, ...]:
    """What a refused command must not change."""
    tree = lab.host.tree
    # What is remembered of QEMU is there from the first verb on that asks it.
    passing = re.compile(r"/last-id\.json$|/emulators(/|$)")
    files = sorted(str(path) for path in Path(tree.root).rglob("*") if not passing.search(str(path)))
    return files, nslab.links(), nslab.processes_naming(tree.root)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("start ../etc/passwd", "failed to get domain"),
        ("start ''", "failed to get domain ''"),
        ("start 'a\nb'", "failed to get domain 'a\\nb'"),
        ("start -- -x", "failed to get domain '-x'"),
        ("define /nonexistent.toml", "No such file or directory"),
        ("install --name a/b --memory 64 --boot kernel={k}", "domain name 'a/b' is not allowed"),
        ("install --name .. --memory 64 --boot kernel={k}", "domain name '..' is not allowed"),
        ("install --name=-rf --memory 64 --boot kernel={k}", "domain name '-rf' is not allowed"),
        ("install --name 'a\nb' --memory 64 --boot kernel={k}", "is not allowed"),
        ("install --name 42 --memory 64 --boot kernel={k}", "digits alone would be taken for an id"),
        ("install --name " + "x" * 81 + " --memory 64 --boot kernel={k}", "81 characters, at most 80"),
        ("install --name x --memory 0 --boot kernel={k}", "too little"),
        ("install --name x --memory -5 --boot kernel={k}", "malformed or out of range"),
        ("install --name x --memory 9E --boot kernel={k}", "malformed or out of range"),
        ("install --name x --memory 512,maxmemory=256 --boot kernel={k}", "memory higher than max memory"),
        ("install --name x --memory 64 --vcpus 0 --boot kernel={k}", "malformed or out of range"),
        ("install --name x --memory 64 --vcpus 2,maxvcpus=1 --boot kernel={k}", "more than the maximum of 1"),
        ("install --name x --memory 64 --vcpus 100000 --boot kernel={k}", "malformed or out of range"),
        ("install --name x --memory 64 --boot kernel=/nonexistent", "kernel /nonexistent is not there"),
        ("install --name x --memory 64 --boot kernel={k},initrd=/nonexistent", "initrd /nonexistent is not there"),
        ("install --name x --memory 64 --disk path=/nonexistent.img --boot kernel={k}", "is not there"),
        ("install --name x --memory 64 --disk path=/proc/x.img,size=1 --boot kernel={k}", "x.img"),
        ("install --name x --memory 64 --disk size=0 --boot kernel={k}", "is no size"),
        ("install --name x --memory 64 --disk size=nan --boot kernel={k}", "is no size"),
        ("install --name x --memory 64 --disk size=1,format=vmdk --boot kernel={k}", "'vmdk' is not known"),
        ("install --name x --memory 64 --network bridge=nosuch --boot kernel={k}", "on 'nosuch': No such device"),
        ("install --name x --memory 64 --network network=nosuch --boot kernel={k}", "Network not found"),
        ("install --name x --memory 64 --network bridge=" + "b" * 16 + " --boot kernel={k}", "15 bytes at most"),
        ("install --name x --memory 64 --graphics spice --boot kernel={k}", "--graphics spice is not supported"),
        ("install --name x --memory 64 --graphics vnc,listen=example --boot kernel={k}", "is not an IP address"),
        ("install --name x --memory 64 --graphics vnc,port=80 --boot kernel={k}", "out of range"),
        ("install --name x --memory 64 --cpu 'qemu64 -S' --boot kernel={k}", "is not a CPU model"),
        ("install --name x --memory 64 --machine isapc --boot kernel={k}", "--machine 'isapc' is not known"),
        ("install --name x --memory 64", "nothing to boot from"),
        ("install --memory 64 --boot kernel={k}", "--name is required"),
        ("install --name x --memory 64 --cdrom /nonexistent.iso", "install medium /nonexistent.iso is not there"),
        ("install --name x --memory 64,hotplug=on --boot kernel={k}", "Unknown --memory options: ['hotplug']"),
        ("setmem x bogus", "Scaled numeric value 'bogus' for <size> option is malformed or out of range"),
        ("setvcpus x many", "Numeric value 'many' for <count> option is malformed or out of range"),
        ("list --bogus", "command 'list' doesn't support option --bogus"),
        ("start", "command 'start' requires <domain> option"),
        ("nosuchverb", "unknown command: 'nosuchverb'"),
        ("net-start nosuch", "failed to get network 'nosuch'"),
        ("net-start default", "already active"),
    ],
)
def test_refused_with_one_line(lab: Lab, line: str, words: str) -> None:
    before = _world(lab)
    said = lab.fails(line.replace("{k}", lab.kernel))
    assert words in said
    assert _world(lab) == before, "something half-made is left"


def test_broken_definitions_name_file_and_place(lab: Lab, tmp_path: Path) -> None:
    path = tmp_path / "broken.toml"
    for text, words in (
        ('name = "x"\nmemory = [', "not TOML"),
        ('name = "x"\nmemory = 1 2', "line 2"),
        ('name = "x"\nuuid = "1"\nmemory = { current = 1, maximum = "1GiB" }', "key memory.current"),
        ('name = "x"\ncolour = "red"', "unknown field `colour`"),
        ("\udcff".encode("utf-8", "surrogateescape").decode("latin-1"), str(path)),
        ('name = "x"\nuuid = "zz"\nmemory = { current = "1GiB", maximum = "1GiB" }', "malformed UUID"),
    ):
        path.write_text(text, encoding="utf-8")
        said = lab.fails(f"define {path}")
        assert words in said
        assert str(path) in said or "UUID" in said
    stored = Path(lab.host.tree.domain_definition("damaged"))
    stored.write_text("= nonsense", encoding="utf-8")
    try:
        assert f"{stored}: not TOML: Invalid statement (at line 1, column 1)" in lab.fails("start damaged")
        assert "damaged" in lab.ok("list --all"), "one damaged definition does not hide the others"
    finally:
        stored.unlink()


NASTY = """a b,c=d,,"e'{{ 7 * 7 }}{% raw %}$(id)`id`\\x %s;|&"""


def test_data_arrives_as_data(lab: Lab, domain_of: Register, tmp_path: Path) -> None:
    """Commas, quotes, braces, Jinja and shell syntax in every string that reaches the template."""
    folder = tmp_path / NASTY
    folder.mkdir()
    kernel, initrd, disk = folder / "k,readonly=on", folder / "i'", folder / 'd",x'
    shutil.copy(lab.kernel, kernel)
    shutil.copy(lab.initrd, initrd)
    with open(disk, "wb") as stream:
        stream.write(b"QFI\xfbnot a qcow2 image, whatever it says".ljust(1 << 20, b"\0"))
    import tomlkit

    text = tomlkit.dumps(
        {
            "name": "nasty",
            "uuid": os.urandom(16).hex(),
            "title": NASTY,
            "description": NASTY + "\n" + NASTY,
            "memory": {"current": "256MiB", "maximum": "256MiB"},
            "boot": {"kernel": str(kernel), "initrd": str(initrd), "cmdline": f"console=ttyS0 {NASTY}"},
            "disks": [{"path": str(disk), "format": "raw", "target": "vda", "serial": "S-1"}],
        }
    )
    domain = lab.boot(domain_of(lab.host.define(text)))
    with Guest(domain) as guest:
        assert NASTY in guest.ask("cat /proc/cmdline")
        # A raw disk stays raw, whatever its first bytes claim.
        assert guest.ask("head -c 4 /dev/vda | md5sum; cat /sys/block/vda/size").split()[-1] == str(
            (1 << 20) // 512
        )
        assert guest.ask("cat /sys/block/vda/serial") == "S-1"
    blocks = domain.qemu.command("query-named-block-nodes")
    assert {(node["drv"], node["file"]) for node in blocks} == {("raw", "/dev/fdset/0"), ("file", "/dev/fdset/0")}
    (fdset,) = domain.qemu.command("query-fdsets")
    assert {one["opaque"] for one in fdset["fds"]} == {str(disk)}
    assert lab.ok("domblklist nasty --json")
    assert NASTY in lab.ok("list --title")


def test_images_that_lead_elsewhere_are_refused(lab: Lab, domain_of: Register, tmp_path: Path) -> None:
    base, overlay = tmp_path / "base.qcow2", tmp_path / "overlay.qcow2"
    nslab.sh("qemu-img", "create", "-q", "-f", "qcow2", str(base), "1M")
    nslab.sh("qemu-img", "create", "-q", "-f", "qcow2", "-b", str(base), "-F", "qcow2", str(overlay))
    disk = "[[disks]]\npath = '{}'\nformat = 'qcow2'\ntarget = 'vda'\n"
    domain_of(lab.define("linked", body=disk.format(overlay)))
    assert "has a backing file" in lab.fails("start linked")
    (tmp_path / "fake.qcow2").write_bytes(b"\0" * 4096)
    domain_of(lab.define("fake", body=disk.format(tmp_path / "fake.qcow2")))
    assert "is not a qcow2 image" in lab.fails("start fake")


def test_qemu_that_refuses(lab: Lab, domain_of: Register) -> None:
    """Its own words, the log's place, and everything that was made for it undone."""
    domain = domain_of(lab.define("refused", cpu='"no-such-model"', body=network_nic()))
    before = _world(lab)
    with pytest.raises(LaunchError, match="unable to find CPU model 'no-such-model'") as caught:
        domain.start()
    assert caught.value.code == 1 and caught.value.log == lab.host.tree.qemu_log("refused")
    said = lab.fails("start refused")
    assert "unable to find CPU model" in said and caught.value.log in said
    os.unlink(caught.value.log)
    assert _world(lab) == before
    assert lab.ok("list --all --name").split() == ["refused"]


def test_vnc_port_that_is_taken(lab: Lab, domain_of: Register) -> None:
    first = domain_of(lab.define("screen1", body="[vnc]\nport = 5955\n"))
    domain_of(lab.define("screen2", body="[vnc]\nport = 5955\n"))
    first.start()
    assert "cannot listen for VNC on 127.0.0.1 port 5955: Address already in use" in lab.fails("start screen2")


def test_own_templates(lab: Lab, domain_of: Register) -> None:
    """The administrator's folder wins; a template that gives no valid options is refused with its line."""
    domain = domain_of(lab.define("styled"))
    own = Path(lab.host.tree.templates) / "q35.args.j2"
    packaged = TOP / "templates/q35.args.j2"
    own.write_text(packaged.read_text() + "-rtc base=2020-01-01\n", encoding="utf-8")
    try:
        assert "-rtc base=2020-01-01\n" in lab.ok("domargv styled")
        own.write_text("-name {{ domain.name }}\nrm -rf /\n", encoding="utf-8")
        assert "template q35.args.j2, line 2: 'rm -rf /' is no option" in lab.fails("start styled")
        own.write_text("-name x\n{{ domain.nosuch }}\n", encoding="utf-8")
        assert "line 2" in lab.fails("start styled")
    finally:
        own.unlink()
    assert "-rtc base=2020-01-01" not in lab.ok("domargv styled")
    assert domain.state == ("shut off", "unknown")


@pytest.mark.parametrize("program", ["qemu-system-x86_64", "qemu-img", "dnsmasq"])
def test_program_that_is_missing(lab: Lab, program: str) -> None:
    """In a mount namespace in which the program can't be run."""
    path = shutil.which(program, path="/usr/bin:/usr/sbin")
    assert path is not None
    verb = {
        "qemu-system-x86_64": f"install --name m --memory 64 --boot kernel={lab.kernel}",
        "qemu-img": f"install --name m --memory 64 --disk size=1 --boot kernel={lab.kernel}",
        "dnsmasq": "net-start other",
    }[program]
    if program == "dnsmasq":
        lab.host.networks.define(
            'name = "other"\nbridge = "other0"\naddress = "10.77.0.1/24"\n'
            '[dhcp]\nstart = "10.77.0.2"\nend = "10.77.0.9"\n'
        )
    before = _world(lab)
    script = f"mount --bind /dev/null {path} && exec {sys.executable} -m qkvm --root {lab.root} {verb}"
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, check=False, cwd=TOP, timeout=60
    )
    assert done.returncode == 1
    line = done.stderr.splitlines()[-1]
    assert f"{program} is not installed" in line and "apt install" in line, done.stderr
    assert _world(lab) == before
    if program == "dnsmasq":
        lab.host.networks["other"].undefine()


def test_not_root(lab: Lab) -> None:
    """Another user can't read this checkout everywhere: the program is loaded before it becomes one."""
    program = (
        "import os, sys, qkvm.cli.main as cli; os.setgroups([]); os.setgid(65534); os.setuid(65534); "
        "sys.exit(cli.main(['--root', '/', 'list']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, cwd=TOP, timeout=60
    )
    assert done.returncode == 1, done.stderr
    assert done.stderr.startswith("error: the tree / belongs to another user"), done.stderr


def test_killed_anywhere_in_a_start(lab: Lab, domain_of: Register) -> None:
    """kill -9 of qkvm at ever later moments of a start: the next verbs find their way, and nothing is left."""
    domain = domain_of(lab.define("cut", body=network_nic()))
    idle = nslab.processes_naming(lab.root)
    outcomes = set()
    # The later moments are for a slow machine, on which even half a second is before the spawn.
    for delay in (*range(0, 600, 40), 2000, 10000):
        if delay > 600 and True in outcomes:
            break
        child = subprocess.Popen(
            [sys.executable, "-m", "qkvm", "--root", lab.root, "start", "cut"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=TOP,
        )
        time.sleep(delay / 1000)
        child.send_signal(signal.SIGKILL)
        child.wait()
        # A QEMU that was just spawned comes up, and is then the one that runs.
        with domain.lock():
            runs.settle(domain.tree, domain.name)
        outcomes.add(domain.is_running)
        if domain.is_running:
            domain.destroy()
        domain.start()
        assert domain.state == ("running", "booted")
        domain.destroy()
        assert nslab.processes_naming(lab.root) == idle
    assert outcomes == {True, False}, "both before and after the spawn were met"


_KILLED_AFTER_SPAWN = """
import os, signal, sys
from qkvm import Host
from qkvm.host import process

original = process.spawn

def spawn(*arguments, **options):
    child = original(*arguments, **options)
    os.kill(child, signal.SIGSTOP)
    print(child, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

process.spawn = spawn
Host(sys.argv[1]).domain("orphan").start()
"""


@pytest.mark.parametrize("verb", ["start", "undefine", "gc"])
def test_killed_right_after_the_spawn(lab: Lab, domain_of: Register, verb: str) -> None:
    """The QEMU of the killed start is held before its lock: the next verb waits and starts no second one."""
    domain = domain_of(lab.define("orphan", body=network_nic()))
    idle = nslab.processes_naming(lab.root)
    done = subprocess.run(
        [sys.executable, "-c", _KILLED_AFTER_SPAWN, lab.root],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        cwd=TOP,
        timeout=60,
    )
    assert done.returncode == -signal.SIGKILL and not domain.is_running
    threading.Timer(0.5, os.kill, (int(done.stdout), signal.SIGCONT)).start()
    if verb == "start":
        with pytest.raises(InvalidState, match="already active"):
            domain.start()
    elif verb == "undefine":
        domain.undefine()
    else:
        gc.collect(domain.tree)
    assert domain.is_running
    assert len(set(nslab.processes_naming(lab.root)) - set(idle)) == 1
    domain.destroy()
    assert nslab.processes_naming(lab.root) == idle
