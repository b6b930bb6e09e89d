"""Folders of the host in guests for real, by virtiofs and by 9p: data both ways, and nothing beyond the folder."""

from __future__ import annotations

import hashlib
import os
import shlex
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from qkvm.api.domain import Domain
from qkvm.domain.device import sidecar
from qkvm.domain.device.share import plug as shareplug
from qkvm.errors import HostError, MissingProgram
from qkvm.host import process, programs
from qkvm.scope import Scope
from qkvm.spec import domain as spec
from tests.guest import guest as guests
from tests.guest.conftest import TOP, Lab
from tests.guest.guest import Guest
from tests.host import nslab

# Made before this process enters a namespace, from which nothing can be downloaded.
pytestmark = pytest.mark.usefixtures("full_guest")

Register = Callable[[Domain], Domain]

DATA = bytes(range(256)) * 2048
SUM = hashlib.sha256(DATA).hexdigest()
NINEP = "mount -t 9p -o trans=virtio,version=9p2000.L"


def share(source: Path | str, tag: str, **more: str) -> str:
    """A shared folder, as TOML."""
    lines = "".join(f"{key} = {value}\n" for key, value in more.items())
    return f'[[filesystems]]\nsource = "{source}"\ntarget = "{tag}"\n{lines}'


def folder(path: Path) -> Path:
    """A folder that root alone may enter, with known data, and ways that lead out of it."""
    path.mkdir(mode=0o700)
    (path / "data").write_bytes(DATA)
    (path / "out").symlink_to(path.parent / "secret")
    (path / "up").symlink_to("../secret")
    (path.parent / "secret").write_text("the host's own\n")
    return path


def serving(lab: Lab) -> set[int]:
    """The virtiofsds of this lab, told by the logs that they write.

    Where /tmp is a mount, one that is in a mount namespace of its own has its log's path begin there.
    """
    found = set()
    root = os.path.join("", *lab.root.split("/")[-2:])
    for entry in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            log = os.readlink(f"/proc/{entry}/fd/2")
            if f"{root}/" in log and "virtiofsd-" in log:
                found.add(int(entry))
    return found


@contextmanager
def none_left(lab: Lab) -> Iterator[None]:
    """Afterwards there is no virtiofsd, however this has ended."""
    try:
        yield
        nslab.until(lambda: not serving(lab), "the end of virtiofsd")
    finally:
        process.reap()
        for pid in serving(lab):
            os.kill(pid, signal.SIGKILL)


def test_virtiofs(lab: Lab, domain_of: Register, tmp_path: Path) -> None:
    with none_left(lab):
        _virtiofs(lab, domain_of, tmp_path)


def _virtiofs(lab: Lab, domain_of: Register, tmp_path: Path) -> None:
    source = folder(tmp_path / "shared, one")
    link = tmp_path / "link"
    link.symlink_to(source)
    disk = tmp_path / "disk.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", disk, "8M"], check=True)
    body = share(link, "rw") + share(source, "ro/1", readonly="true")
    body += f'[[disks]]\npath = "{disk}"\nformat = "qcow2"\ntarget = "vda"\n'
    memory = '{ current = "192MiB", maximum = "256MiB" }'
    domain = lab.boot(domain_of(lab.define("vm", body=body, memory=memory)))
    assert [entry["driver"] for entry in domain.live.record["filesystems"]] == ["virtiofs", "virtiofs"]
    assert lab.ok("dumpxml vm").count("<driver type='virtiofs'/>") == 2
    assert "<source type='memfd'/>" in lab.ok("dumpxml vm") and "<access mode='shared'/>" in lab.ok("dumpxml vm")
    assert "memfd" not in lab.ok("dumpxml vm --inactive")
    # Where the name leads to from now on is nothing to the guest.
    link.unlink()
    link.symlink_to("/etc")
    with Guest(domain) as guest:
        guest.ask("mkdir -p /mnt/rw /mnt/ro; mount -t virtiofs rw /mnt/rw && mount -t virtiofs ro/1 /mnt/ro")
        both_ways(guest, source, "/mnt/rw")
        assert guest.ask("cat /mnt/ro/back") == "from the guest"
        for command in ("echo x >/mnt/ro/new", "rm /mnt/ro/data", "chmod 777 /mnt/ro/data", "mkdir /mnt/ro/new"):
            assert "Read-only file system" in guest.ask(f"mount -o remount,rw /mnt/ro; {command} 2>&1 || true")
        guest.ask("chown 12:34 /mnt/rw/back && chmod 640 /mnt/rw/back")
    info = (source / "back").stat()
    assert (info.st_uid, info.st_gid, info.st_mode & 0o777) == (12, 34, 0o640)
    _refusals_while_it_runs(lab, tmp_path)
    assert lab.ok("snapshot-create-as vm disks --disk-only") and domain.state[0] == "running"
    # A second guest sees what the first one writes; a reset takes nothing away.
    other = lab.boot(domain_of(lab.define("other", body=share(source, "rw", driver='"virtiofs"'))))
    with Guest(other) as second, Guest(domain) as guest:
        second.ask("mkdir /mnt/s; mount -t virtiofs rw /mnt/s && echo hello >/mnt/s/note")
        guest.until("cat /mnt/rw/note 2>/dev/null || true", "hello")
    mark = guests.log_size(domain)
    lab.ok("reset vm")
    guests.wait_ready(domain, mark)
    with Guest(domain) as guest:
        guest.ask(f"mkdir -p /mnt/rw; mount -t virtiofs rw /mnt/rw; sha256sum /mnt/rw/data | grep {SUM}")
    _plugged(lab, domain, tmp_path)
    _killed_plugging(lab, domain, tmp_path)
    _killed(lab, domain, other)


def both_ways(guest: Guest, source: Path, place: str) -> None:
    """Data of the host is read in the guest, and the other way; links lead nowhere but in the guest."""
    assert guest.ask(f"sha256sum {place}/data").split()[0] == SUM
    guest.ask(f"echo from the guest >{place}/back && cp {place}/data {place}/copy && sync")
    assert (source / "back").read_text() == "from the guest\n" and (source / "copy").read_bytes() == DATA
    (source / "later").write_text("later\n")
    guest.until(f"cat {place}/later 2>/dev/null || true", "later")
    assert guest.ask(f"cat {place}/out {place}/up {place}/../secret 2>/dev/null || echo nothing") == "nothing"
    # A link that the guest makes is no way out either.
    secret = source.parent / "secret"
    guest.ask(f"ln -s {secret} {place}/made && ! cat {place}/made 2>/dev/null && mkdir {place}/d")
    assert (source / "d").is_dir()


def _refusals_while_it_runs(lab: Lab, tmp_path: Path) -> None:
    saved = tmp_path / "saved"
    words = "a guest with a virtiofs share (rw) can't be "
    for line in (f"save vm {saved}", "managedsave vm", f"dump vm {saved}", "snapshot-create-as vm whole"):
        assert words in lab.fails(line), line
    lab.ok(f"dump vm {saved} --memory-only")
    saved.unlink()
    assert lab.ok("domstate vm") == "running\n\n"
    assert not [name for name in os.listdir(tmp_path) if name.startswith("saved")]
    described = tmp_path / "share.xml"
    for driver, error in (
        ("<driver type='path'/>", "a filesystem by 9p can't be attached to a running domain"),
        ("<driver type='virtiofs'/>", "filesystem tag 'rw' is used twice in one domain"),
    ):
        described.write_text(f"<filesystem>{driver}<source dir='{tmp_path}'/><target dir='rw'/></filesystem>")
        assert error in lab.fails(f"attach-device vm {described}")


def _plugged(lab: Lab, domain: Domain, tmp_path: Path) -> None:
    """A folder comes to a running guest and leaves it, and its virtiofsd with it."""
    (tmp_path / "more").mkdir()
    (tmp_path / "more/two").write_text("2\n")
    described = tmp_path / "share.xml"
    described.write_text(
        "<filesystem type='mount'><driver type='virtiofs'/>"
        f"<source dir='{tmp_path}/more'/><target dir='more'/></filesystem>"
    )
    before = serving(lab)
    lab.ok(f"attach-device vm {described} --live --config")
    assert len(domain.definition.filesystems) == 3 and "<alias name='fs2'/>" in lab.ok("dumpxml vm")
    with Guest(domain) as guest:
        guest.ask("mkdir -p /mnt/m; mount -t virtiofs more /mnt/m && echo 1 >>/mnt/m/two; umount /mnt/m")
    assert serving(lab) > before
    lab.ok("detach-device-alias vm fs2 --live --no-wait")
    lab.ok(f"detach-device vm {described} --config")
    # Whoever comes by ends it when the guest has let go.
    nslab.until(lambda: lab.ok("gc") is not None and serving(lab) == before, "the end of virtiofsd")
    assert len(domain.live.devices("filesystems")) == len(domain.definition.filesystems) == 2
    assert (tmp_path / "more/two").read_text() == "2\n1\n"


def killed_in_sidecar(act: Callable[[], object]) -> None:
    """Do it in a process that is killed as soon as a virtiofsd has been started."""
    started = sidecar.start

    def start_and_die(*arguments: Any, **options: Any) -> None:
        started(*arguments, **options)
        os._exit(9)

    child = os.fork()
    if child == 0:
        try:
            sidecar.start = start_and_die
            act()
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 9


def _killed_plugging(lab: Lab, domain: Domain, tmp_path: Path) -> None:
    """What who was killed had begun is no share, and in nobody's way."""
    more = spec.Filesystem(source=f"{tmp_path}/more", target="more", driver=spec.FilesystemDriver.VIRTIOFS)
    before = serving(lab)
    killed_in_sidecar(lambda: shareplug.attach(domain, more, scope=Scope.LIVE))
    nslab.until(lambda: serving(lab) == before, "the end of virtiofsd")
    lab.ok(f"attach-device vm {tmp_path}/share.xml --persistent")
    with Guest(domain) as guest:
        guest.ask("mount -t virtiofs more /mnt/m && cat /mnt/m/two && umount /mnt/m")
    lab.ok(f"detach-device vm {tmp_path}/share.xml --live --config")
    assert serving(lab) == before and len(domain.definition.filesystems) == 2
    killed_in_sidecar(lambda: shareplug.attach(domain, more, scope=Scope.LIVE))
    assert "matching filesystem device was not found" in lab.fails(f"detach-device vm {tmp_path}/share.xml")
    assert [entry["id"] for entry in domain.live.record["filesystems"]] == ["fs0", "fs1"]


def _killed(lab: Lab, domain: Domain, other: Domain) -> None:
    """Who is killed takes along what serves it; a virtiofsd that is killed is told of, and its guest runs on."""
    (entry,) = other.live.record["sidecars"]
    os.kill(entry["pid"], signal.SIGKILL)
    nslab.until(lambda: "virtiofsd-fs0 has ended" in lab.ok("dominfo other"), "the word of it")
    assert lab.ok("domstate other") == "running\n\n"
    with Guest(other) as guest:
        assert guest.ask("echo alive") == "alive"
    qemu = domain.live.pid
    assert qemu is not None
    os.kill(qemu, signal.SIGKILL)
    lab.ok("destroy other")
    nslab.until(lambda: not serving(lab), "the end of virtiofsd")
    assert lab.ok("domstate vm --reason") == "shut off (crashed)\n\n"
    domain.start(paused=True)
    assert len({entry["pid"] for entry in domain.live.record["sidecars"]} & serving(lab)) == 2
    domain.destroy()


def test_what_a_killed_start_leaves(lab: Lab, domain_of: Register, tmp_path: Path) -> None:
    domain = domain_of(lab.define("half", body=share(tmp_path, "rw")))
    with none_left(lab):
        killed_in_sidecar(domain.start)
        lab.ok("gc")
        assert not serving(lab) and lab.ok("domstate half") == "shut off\n\n"
        assert not [name for name in os.listdir(domain.tree.domain_run("half")) if name.startswith("fs0")]


@pytest.fixture(scope="session")
def full_guest() -> tuple[str, str]:
    """Kernel and initramfs of a guest whose kernel has 9p."""
    made = subprocess.run(
        [str(TOP / "scripts/make-guest"), "--full"], stdout=subprocess.PIPE, text=True, check=True
    )
    found = dict(line.split("=", 1) for line in made.stdout.splitlines())
    return found["KERNEL"], found["INITRD"]


def test_9p(lab: Lab, domain_of: Register, full_guest: tuple[str, str], tmp_path: Path) -> None:
    """QEMU's user owns nothing, and yet works in a folder of root's: what it makes is the folder's owner's."""
    source, theirs = folder(tmp_path / "shared"), tmp_path / "theirs"
    theirs.mkdir(mode=0o750)
    os.chown(theirs, 1234, 5678)
    body = share(source, "rw", driver='"9p"') + share(source, "ro", driver='"9p"', readonly="true")
    body += share(theirs, "sq", access='"squash"') + share(theirs, "m", file_mode='"0640"', folder_mode='"0750"')
    kernel, initrd = full_guest
    boot = f"{{ kernel = '{kernel}', initrd = '{initrd}', cmdline = 'console=ttyS0' }}"
    domain = lab.boot(domain_of(lab.define("nine", body=body, boot=boot)))
    assert [entry["driver"] for entry in domain.live.record["filesystems"]] == ["9p"] * 4
    assert lab.ok("dumpxml nine").count("<filesystem type='mount' accessmode=") == 4
    saved = tmp_path / "saved"
    with Guest(domain) as guest:
        guest.ask(
            f"modprobe 9pnet_virtio; for t in rw ro sq m; do mkdir /mnt/$t; {NINEP} $t /mnt/$t || exit; done"
        )
        both_ways(guest, source, "/mnt/rw")
        guest.ask("chown 12:34 /mnt/rw/back && chmod 4755 /mnt/rw/back")
        assert guest.ask("stat -c %u:%g:%a /mnt/rw/back") == "12:34:4755"
        for command in ("echo x >/mnt/ro/new", "rm /mnt/ro/data", "mkdir /mnt/ro/new"):
            assert "Read-only file system" in guest.ask(f"{command} 2>&1 || true")
        guest.ask("echo s >/mnt/sq/s; chmod 604 /mnt/sq/s; echo m >/mnt/m/m; mkdir /mnt/m/d")
    assert [(path.stat().st_uid, path.stat().st_mode & 0o7777) for path in (source / "back", source / "d")] == [
        (0, 0o600),
        (0, 0o700),
    ]
    made = {
        path.name: (path.stat().st_uid, path.stat().st_gid, path.stat().st_mode & 0o7777)
        for path in theirs.iterdir()
    }
    assert made == {
        "s": (1234, 5678, 0o604),
        "m": (1234, 5678, 0o640),
        "d": (1234, 5678, 0o750),
    }
    assert "a guest that has mounted a 9p filesystem (" in lab.fails(f"save nine {saved}")
    described = tmp_path / "share.xml"
    described.write_text(f"<filesystem><source dir='{source}'/><target dir='rw'/></filesystem>")
    assert "a filesystem by 9p can't be detached from a running domain" in lab.fails(
        f"detach-device nine {described}"
    )
    with Guest(domain) as guest:
        guest.ask("umount /mnt/rw /mnt/ro /mnt/sq /mnt/m")
    lab.ok(f"save nine {saved}")
    # The next QEMU has another user, to whom what the first one made belongs as well.
    lab.ok(f"restore {saved}")
    with Guest(domain) as guest:
        guest.ask(f"{NINEP} rw /mnt/rw && echo more >>/mnt/rw/back")
        assert guest.ask("cat /mnt/rw/back") == "from the guest\nmore"
    domain.destroy()


def test_install_on_a_microvm(lab: Lab, domain_of: Register, tmp_path: Path) -> None:
    source = folder(tmp_path / "shared")
    boot = f"kernel={lab.kernel},initrd={lab.initrd},kernel_args='console=ttyS0 {guests.tsc_frequency()}'"
    with none_left(lab):
        lab.ok(
            f"install --name micro --machine microvm --memory 256 --import --disk none --network none"
            f" --boot {boot} --filesystem source.dir={source},target.dir=data --graphics none --noautoconsole"
        )
        domain = domain_of(lab.host.domain("micro"))
        assert [share.driver for share in domain.definition.filesystems] == ["auto"]
        guests.wait_ready(domain)
        with Guest(domain) as guest:
            guest.ask("mkdir /mnt/d; mount -t virtiofs data /mnt/d")
            both_ways(guest, source, "/mnt/d")
        domain.destroy()


def test_refusals(lab: Lab, domain_of: Register, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "root").symlink_to("/")
    cases = {
        f"{tmp_path}/none": "No such file or directory",
        f"{tmp_path}/file": "Not a directory",
        f"{tmp_path}/root": "is the whole of the host",
        f"{lab.root}/var/lib/qkvm/images": "qkvm keeps its own in",
        f"{lab.root}/etc": "qkvm keeps its own in",
    }
    Path(lab.root, "var/lib/qkvm/images").mkdir(exist_ok=True)
    for source, words in cases.items():
        lab.define("bad", body=share(source, "t"), uuid='"6ba4c816-eb6c-46cb-9f7a-0229f70b5da3"')
        error = lab.fails("start bad")
        assert words in error and source in error
    domain = domain_of(lab.host.domain("bad"))
    text = lab.ok("dumpxml bad").replace("<driver type='virtiofs'/>", "").replace(f"{lab.root}/etc", str(tmp_path))
    (tmp_path / "bad.xml").write_text(text)
    lab.ok(f"define {tmp_path}/bad.xml")
    assert "accessmode passthrough by 9p needs a QEMU that runs as root" in lab.fails("start bad")
    Path(domain.tree.settings).write_text('user = "root"\n')
    shown = shlex.split(lab.ok("domargv bad"))
    lab.ok("start bad --paused")
    argv = domain.live.record["argv"]
    (option,) = [word for word in argv if word.startswith("local,id=")]
    assert "security_model=passthrough" in option and option in shown
    lab.ok("destroy bad")
    Path(domain.tree.settings).unlink()
    # Without a virtiofsd it is 9p that serves, and what is for virtiofs alone is refused.
    known = programs.KNOWN["virtiofsd"]._replace(places=())
    monkeypatch.setitem(programs.KNOWN, "virtiofsd", known)
    for driver, source in (("virtiofs", str(tmp_path)), ("auto", "/proc/tty/driver")):
        lab.define("bad", body=share(source, "t", driver=f'"{driver}"'), uuid=f'"{domain.definition.uuid}"')
        with pytest.raises(MissingProgram if driver == "virtiofs" else HostError) as caught:
            domain.start()
        assert driver == "virtiofs" or "may not read it, and its file system can't map" in str(caught.value)
    lab.define("bad", body=share("/proc/sys/kernel", "t"), uuid=f'"{domain.definition.uuid}"')
    (warning,) = [text for text in domain.start(paused=True) if "its file system can't map its owner" in text]
    assert "may not write in /proc/sys/kernel" in warning
    assert [entry["driver"] for entry in domain.live.record["filesystems"]] == ["9p"]
    domain.destroy()
