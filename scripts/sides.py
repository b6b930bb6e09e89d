"""Two sides of a comparison, qkvm and libvirt: the same guest on the same machine, each in namespaces of its own.

The host's libvirt, networks and files are not touched, and all ends with the namespaces. This file plays both
parts: what a driver (bench.py, compare_virsh.py) imports, and (run with a side's name) the side itself, which
answers the driver's requests, one JSON line each way.

Where libvirt's set-up is not Debian's own, that makes it faster: no AppArmor profiles, no cgroups, no polkit,
and a /dev/kvm that its probe may open, without which it would probe QEMU anew at every start.
"""

from __future__ import annotations

import importlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Protocol

NAME = "bench"
NETWORK = "default"
UUID = "5eed0000-0000-4000-8000-000000000001"
MAC = "52:54:00:5e:ed:01"
MAXIMUM_KIB = 1024 * 1024
SIZES_KIB = (448 * 1024, 512 * 1024)
"""setmem goes to and fro between these, so that there is always something to do; the second is the start's."""

CMDLINE = "console=ttyS0 quiet"
PACKAGES = "libvirt-daemon-system libvirt-clients python3-libvirt"
DEBIAN_PYTHON = "/usr/bin/python3"
"""The one that has libvirt's module."""

QEMU = "qemu-system-x86_64"
READY = b"guest: ready"
WORLD, WORLD_ADDRESS, OUTSIDE = "world", "203.0.113.2", "203.0.113.1"
"""A namespace beyond a side's host, its address there, and the host's on the way (TEST-NET-3 of RFC 5737)."""

PATIENCE = 120.0
"""Seconds that anything awaited may take: a guest's boot under TCG on a busy machine."""


class SideError(Exception):
    """The comparison can't go on; the text says why."""


# The sides: each measures itself, inside its namespaces.


class Calls(Protocol):
    """What differs between the two: how they are set up, and how their library is called."""

    program: str
    serial_log: Path
    images: Path
    guest: dict[str, str]

    def call(self, name: str) -> Callable[[int], object]:
        """The function behind an API call of GROUPS; it takes the KiB to set."""

    def actual_kib(self) -> int:
        """The guest's memory as its balloon leaves it now."""

    def close(self) -> None:
        """Take networks and daemons away."""


class Qkvm:
    """qkvm's library, in this process for all the run."""

    def __init__(self, folder: Path, guest: dict[str, str]) -> None:
        import qkvm
        from qkvm.domain.tuning.cputime import process_time_ns

        self.program = str(Path(sys.executable).parent / "qkvm")
        root = folder / "root"
        root.mkdir(mode=0o755)
        os.environ["QKVM_ROOT"] = str(root)
        self._host = qkvm.Host()
        self._host.prepare()
        self._network = self._host.networks[NETWORK]
        self._network.start()
        self.serial_log = Path(self._host.tree.serial_log(NAME))
        self.images = Path(self._host.tree.images)
        self.guest = guest
        disk = self.images / "bench.qcow2"
        _make_disk(disk)
        self._domain = self._host.define(_toml(guest, disk))
        self._process_time_ns = process_time_ns

    def _info(self) -> tuple[object, ...]:
        """What virDomainGetInfo tells."""
        run = self._domain.live
        maximum = run.record["memory"]["maximum"]
        return run.state(), maximum, run.balloon(), run.vcpu_count(), self._process_time_ns(run.pid or 0)

    def call(self, name: str) -> Callable[[int], object]:
        """See Calls."""
        from qkvm import Scope

        domain = self._domain
        calls: dict[str, Callable[[int], object]] = {
            "info": lambda _: self._info(),
            "query-status": lambda _: domain.qemu.command("query-status"),
            "set-memory": lambda kib: domain.memory.set(kib, scope=Scope.LIVE, wait=False),
            "set-memory-wait": lambda kib: domain.memory.set(kib, scope=Scope.LIVE),
            "start": lambda _: domain.start(),
            "hot-add": lambda _: domain.vcpus.set_count(2, scope=Scope.LIVE, wait=False),
            "destroy": lambda _: domain.destroy(),
        }
        return calls[name]

    def actual_kib(self) -> int:
        """See Calls."""
        return self._domain.memory.stats()["actual"]

    def close(self) -> None:
        """See Calls."""
        self._network.destroy()


class Libvirt:
    """libvirtd and virtlogd of this run's own, and libvirt's Python module, connected for all the run."""

    def __init__(self, folder: Path, guest: dict[str, str]) -> None:
        self.program = "virsh"
        os.environ["LIBVIRT_DEFAULT_URI"] = "qemu:///system"
        _mount_libvirt(folder)
        self._daemons = [_daemon("virtlogd", folder), _daemon("libvirtd", folder)]
        library = importlib.import_module("libvirt")
        qemu = importlib.import_module("libvirt_qemu")
        library.registerErrorHandler(lambda *_: None, None)
        self._connection = _eventually(lambda: library.open("qemu:///system"), library.libvirtError)
        self._connection.networkDefineXML(_NETWORK_XML).create()
        # What it may read and what it takes the ownership of must be its own.
        self.images = Path("/var/lib/libvirt/images")
        self.guest = own = _copies(guest, self.images)
        disk = self.images / "bench.qcow2"
        _make_disk(disk)
        self.serial_log = Path("/var/log/libvirt/qemu/bench.serial.log")
        self._domain = self._connection.defineXML(_xml(own, disk, self.serial_log))
        self._live = library.VIR_DOMAIN_AFFECT_LIVE
        self._monitor = qemu.qemuMonitorCommand

    def call(self, name: str) -> Callable[[int], object]:
        """See Calls."""

        domain = self._domain
        calls: dict[str, Callable[[int], object]] = {
            "info": lambda _: domain.info(),
            "query-status": lambda _: self._monitor(domain, '{"execute": "query-status"}', 0),
            "set-memory": lambda kib: domain.setMemoryFlags(kib, self._live),
            "start": lambda _: domain.create(),
            "hot-add": lambda _: domain.setVcpusFlags(2, self._live),
            "destroy": lambda _: domain.destroy(),
        }
        return calls[name]

    def actual_kib(self) -> int:
        """See Calls."""
        return int(self._domain.memoryStats()["actual"])

    def close(self) -> None:
        """See Calls."""
        self._connection.networkLookupByName(NETWORK).destroy()
        self._connection.close()

    def end(self) -> None:
        """End the daemons."""
        for daemon in reversed(self._daemons):
            daemon.terminate()
            daemon.wait(PATIENCE)


class Side:
    """Answers the driver's requests: one JSON line each way."""

    def __init__(self, folder: Path, calls: Calls, guest: dict[str, str]) -> None:
        self._folder = folder
        self._calls = calls
        self._guest = guest
        self._kib = SIZES_KIB[-1]
        self._servers: list[subprocess.Popen[bytes]] = []

    def serve(self) -> None:
        """Answer until the driver closes the line."""
        for line in sys.stdin:
            request = json.loads(line)
            answer = getattr(self, "do_" + request.pop("do"))(**request)
            print(json.dumps(answer), flush=True)

    def _other_size(self) -> int:
        self._kib = SIZES_KIB[self._kib == SIZES_KIB[0]]
        return self._kib

    def do_command(self, words: list[str]) -> float:
        """Seconds that a command takes from its start to its end."""
        if "{kib}" in words:
            kib = self._other_size()
            words = [word.format(kib=kib) for word in words]
        with open(self._folder / "stderr", "w+b") as stderr:
            begin = time.perf_counter()
            child = subprocess.Popen(
                [self._calls.program, *words], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=stderr
            )
            code = child.wait()
            seconds = time.perf_counter() - begin
            if code:
                stderr.seek(0)
                raise SideError(f"{self._calls.program} {' '.join(words)}: {stderr.read().decode().strip()}")
        return seconds

    def do_output(self, words: list[str], stdin: str = "") -> dict[str, Any]:
        """What a command prints on both streams, and its exit code."""
        done = subprocess.run(
            [self._calls.program, *words], input=stdin, capture_output=True, text=True, check=False,
            timeout=PATIENCE, cwd=self._calls.images,
        )  # fmt: skip
        return {"output": done.stdout, "error": done.stderr, "code": done.returncode}

    def do_places(self) -> dict[str, str]:
        """Where this side's guest files lie: kernel, initrd, and the folder for images."""
        return {**self._calls.guest, "images": str(self._calls.images), "serial": str(self._calls.serial_log)}

    def do_image(self, name: str) -> str:
        """Make an empty image and give its path."""
        path = self._calls.images / name
        _make_disk(path)
        return str(path)

    def do_call(self, name: str, times: int) -> float:
        """Seconds that a call of the library takes."""
        function = self._calls.call(name)
        kib = self._other_size() if "memory" in name else 0
        begin = time.perf_counter()
        for _ in range(times):
            function(kib)
        return (time.perf_counter() - begin) / times

    def do_await_guest(self) -> float:
        """Wait until the guest has booted and is quiet."""
        begin = time.monotonic()
        while not (self._calls.serial_log.exists() and READY in self._calls.serial_log.read_bytes()):
            if time.monotonic() > begin + PATIENCE:
                raise SideError(f"the guest is not up after {PATIENCE:g} s")
            time.sleep(0.02)
        self.do_settle()
        time.sleep(0.5)
        return time.monotonic() - begin

    def do_forget(self) -> None:
        """The guest has ended: forget what it said. The next one starts with its memory anew."""
        self._calls.serial_log.unlink(missing_ok=True)
        self._kib = SIZES_KIB[-1]

    def do_settle(self) -> None:
        """Wait until the guest has the memory that was set last."""
        deadline = time.monotonic() + PATIENCE
        while self._calls.actual_kib() != self._kib:
            if time.monotonic() > deadline:
                raise SideError("the guest's balloon does not move")
            time.sleep(0.02)

    def do_bare(self) -> float:
        """Seconds from the start of a QEMU without any manager to its first reply."""
        argv = [
            QEMU, "-nodefaults", "-no-user-config", "-S", "-display", "none", "-machine", "q35", "-accel", "tcg",
            "-m", str(MAXIMUM_KIB // 1024), "-smp", "1,maxcpus=2", "-kernel", self._guest["kernel"],
            "-initrd", self._guest["initrd"], "-append", CMDLINE, "-device", "virtio-balloon-pci",
            "-sandbox", "on", "-qmp", "stdio",
        ]  # fmt: skip
        begin = time.perf_counter()
        with subprocess.Popen(
            argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        ) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            child.stdin.write(b'{"execute": "qmp_capabilities"}\n')
            child.stdin.flush()
            child.stdout.readline()
            child.stdout.readline()
            seconds = time.perf_counter() - begin
            child.kill()
        return seconds

    def do_resident(self) -> list[tuple[str, int]]:
        """Name and KiB of memory of all processes here but the benchmark's own two."""
        found = []
        for pid in sorted(int(entry) for entry in os.listdir("/proc") if entry.isdigit()):
            status = _status(pid)
            # A process that is about to end has no memory any more.
            if pid not in (1, os.getpid()) and "VmRSS" in status:
                found.append((status["Name"], int(status["VmRSS"].split()[0])))
        return found

    def do_world(self, port: int) -> None:
        """Make a namespace beyond this side's host, and serve iperf3 there and on the host."""
        for line in (
            f"ip netns add {WORLD}", f"ip link add uplink type veth peer name eth0 netns {WORLD}",
            f"ip addr add {OUTSIDE}/24 dev uplink", "ip link set uplink up",
            f"ip -n {WORLD} addr add {WORLD_ADDRESS}/24 dev eth0", f"ip -n {WORLD} link set eth0 up",
        ):  # fmt: skip
            subprocess.run(line.split(), check=True)
        for prefix in ("", f"ip netns exec {WORLD} "):
            self._servers.append(
                subprocess.Popen(
                    f"{prefix}iperf3 --server --port {port}".split(),
                    stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                )
            )  # fmt: skip

    def do_close(self) -> None:
        """The domain is off: take the network away too."""
        for server in self._servers:
            server.terminate()
            server.wait(PATIENCE)
        self._calls.close()


def _status(pid: int) -> dict[str, str]:
    try:
        text = Path(f"/proc/{pid}/status").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return {}
    return {key: value.strip() for key, _, value in (line.partition(":") for line in text.splitlines())}


def _eventually(function: Callable[[], Any], error: type[Exception]) -> Any:
    """The function's value, as soon as it fails no more."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return function()
        except error:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def _copies(guest: dict[str, str], folder: Path) -> dict[str, str]:
    return {key: str(shutil.copy(path, folder)) for key, path in guest.items()}


def _make_disk(path: Path) -> None:
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(path), "1G"], check=True)


def _toml(guest: dict[str, str], disk: Path) -> str:
    return f"""
name = "{NAME}"
uuid = "{UUID}"
machine = "q35"
accel = "tcg"
memory = {{ current = "{SIZES_KIB[-1]}KiB", maximum = "{MAXIMUM_KIB}KiB" }}
vcpus = {{ current = 1, maximum = 2 }}
boot = {{ kernel = "{guest["kernel"]}", initrd = "{guest["initrd"]}", cmdline = "{CMDLINE}" }}
disks = [{{ path = "{disk}", format = "qcow2", target = "vda" }}]
nics = [{{ mac = "{MAC}", source = "{NETWORK}" }}]
"""


_NETWORK_XML = f"""
<network>
  <name>{NETWORK}</name> <forward mode='nat'/> <bridge name='virbr0' stp='on' delay='0'/>
  <ip address='192.168.122.1' netmask='255.255.255.0'>
    <dhcp><range start='192.168.122.2' end='192.168.122.254'/></dhcp>
  </ip>
</network>
"""


def _xml(guest: dict[str, str], disk: Path, serial_log: Path) -> str:
    """The same domain as that of _toml, with what qkvm gives to each: root ports, an RNG, an agent, no USB."""
    ports = "".join(f"<controller type='pci' index='{index}' model='pcie-root-port'/>" for index in range(1, 9))
    return f"""
<domain type='qemu'>
  <name>{NAME}</name> <uuid>{UUID}</uuid>
  <memory unit='KiB'>{MAXIMUM_KIB}</memory> <currentMemory unit='KiB'>{SIZES_KIB[-1]}</currentMemory>
  <vcpu current='1'>2</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{guest["kernel"]}</kernel> <initrd>{guest["initrd"]}</initrd> <cmdline>{CMDLINE}</cmdline>
  </os>
  <features><acpi/><apic/></features>
  <devices>
    <controller type='usb' model='none'/> {ports}
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/> <source file='{disk}'/> <target dev='vda' bus='virtio'/>
    </disk>
    <interface type='network'>
      <mac address='{MAC}'/> <source network='{NETWORK}'/> <model type='virtio'/>
    </interface>
    <serial type='pty'><log file='{serial_log}'/></serial>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel>
    <memballoon model='virtio' freePageReporting='on'><stats period='5'/></memballoon>
    <rng model='virtio'><backend model='random'>/dev/urandom</backend></rng>
    <input type='keyboard' bus='ps2'/>
    <video><model type='none'/></video>
  </devices>
</domain>
"""


# Namespaces.


def _mount_libvirt(folder: Path) -> None:
    """Give libvirt folders and a /dev/kvm of its own, so that the host's are neither seen nor changed."""
    for place in ("/etc/libvirt", "/var/lib/libvirt", "/var/cache/libvirt", "/var/log/libvirt"):
        own = folder / place.replace("/", "-").strip("-")
        own.mkdir(mode=0o755)
        _mount("--bind", str(own), place)
    # A domain's disk is opened by another user; both need not see more than their own.
    for place in ("/var/lib/libvirt/images", "/var/log/libvirt/qemu"):
        os.mkdir(place, 0o755)
    Path("/etc/libvirt/libvirtd.conf").write_text('auth_unix_ro = "none"\nauth_unix_rw = "none"\n')
    Path("/etc/libvirt/qemu.conf").write_text('security_driver = "none"\n')
    if os.path.exists("/dev/kvm"):
        node = folder / "kvm"
        # libvirt probes as another user; where that is refused it takes what it knows of QEMU for outdated.
        os.mknod(node, 0o666 | 0o020000, os.stat("/dev/kvm").st_rdev)
        os.chmod(node, 0o666)
        _mount("--bind", str(node), "/dev/kvm")


def _daemon(name: str, folder: Path) -> subprocess.Popen[bytes]:
    with open(folder / f"{name}.log", "wb") as log:
        return subprocess.Popen([f"/usr/sbin/{name}"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def _mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


def _be_init() -> None:
    """Go on in a child while this process, the first of its namespace, takes leave of the dead.

    libvirt waits for a QEMU that it ends until even its zombie is gone: an init that is slow would slow it down.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    child = os.fork()
    if not child:
        return
    while True:
        pid, status = os.wait()
        if pid == child:
            # All that is left in the namespace ends with its first process.
            os._exit(os.waitstatus_to_exitcode(status) & 0xFF)


def run_side(name: str, folder: Path, guest: dict[str, str]) -> int:
    """One side, from the set-up of its namespaces to their end."""
    _be_init()
    # sysfs shows the network namespace of whoever mounts it; with the old one the host's cgroups go too.
    subprocess.run(["umount", "--recursive", "--lazy", "/sys"], check=True)
    _mount("-t", "sysfs", "sysfs", "/sys")
    _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", str(folder))
    _mount("-t", "tmpfs", "-o", "mode=755", "tmpfs", "/run")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    os.chmod(folder, 0o755)
    own = _copies(guest, folder)
    calls = Qkvm(folder, own) if name == "qkvm" else Libvirt(folder, own)
    print(json.dumps("ready"), flush=True)
    try:
        Side(folder, calls, own).serve()
    finally:
        if isinstance(calls, Libvirt):
            calls.end()
    return 0


class Remote:
    """A side as the driver sees it."""

    def __init__(self, name: str, folder: Path, guest: dict[str, str]) -> None:
        self.name = name
        folder.mkdir()
        python = sys.executable if name == "qkvm" else DEBIAN_PYTHON
        self._child = subprocess.Popen(
            ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
             python, __file__, name, str(folder), guest["kernel"], guest["initrd"]],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True,
        )  # fmt: skip

    @property
    def _lines(self) -> tuple[IO[str], IO[str]]:
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        return self._child.stdin, self._child.stdout

    def ask(self, do: str, **details: object) -> Any:
        """Have something done and give the answer."""
        self._lines[0].write(json.dumps({"do": do, **details}) + "\n")
        self._lines[0].flush()
        return self.answer()

    def answer(self) -> Any:
        """Wait for an answer."""
        line = self._lines[1].readline()
        if not line:
            raise SideError(f"the {self.name} side ended before its time")
        return json.loads(line)

    def close(self) -> None:
        """End it: it goes when its line is closed, and the kernel takes along what it started."""
        self._lines[0].close()
        try:
            self._child.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


# What a driver needs beside.


def output(*argv: str) -> str:
    """What a program prints."""
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()


def has_libvirt() -> bool:
    """Whether all of libvirt that is needed is installed."""
    programs = all(shutil.which(name, path="/usr/sbin:/usr/bin") for name in ("libvirtd", "virtlogd", "virsh"))
    probe = [DEBIAN_PYTHON, "-c", "import libvirt, libvirt_qemu"]
    return programs and subprocess.run(probe, stderr=subprocess.DEVNULL, check=False).returncode == 0


def versions(*, libvirt: bool) -> dict[str, str]:
    """What is compared, and on what."""
    from qkvm.cli.context import VERSION

    found = {
        "qkvm": VERSION,
        "QEMU": output(QEMU, "--version").split()[3].partition("(")[0],
        "Python": platform.python_version(),
        "Linux": platform.release(),
    }
    return found | ({"libvirt": output("virsh", "--version")} if libvirt else {})


def guest_files() -> dict[str, str]:
    """The paths of the test guest's kernel and initrd."""
    lines = output(str(Path(__file__).parent / "make-guest")).splitlines()
    return {key.lower(): path for key, _, path in (line.partition("=") for line in lines)}


@contextmanager
def both(names: list[str], guest: dict[str, str]) -> Iterator[list[Remote]]:
    """The sides, set up at the same time; afterwards nothing of them is left."""
    folder = Path(tempfile.mkdtemp(prefix="qkvm-sides-"))
    sides: list[Remote] = []
    try:
        for name in names:
            sides.append(Remote(name, folder / name, guest))
        for side in sides:
            side.answer()
        yield sides
    finally:
        # Their files lay in their own mounts: only the empty mount points are here.
        for side in sides:
            side.close()
        shutil.rmtree(folder)


if __name__ == "__main__":
    _, name, folder, kernel, initrd = sys.argv
    try:
        sys.exit(run_side(name, Path(folder), {"kernel": kernel, "initrd": initrd}))
    except KeyboardInterrupt:
        sys.exit(130)
    except SideError as error:
        print(f"{name}: {error}", file=sys.stderr)
        sys.exit(1)
