"""A whole host with KVM, as a guest of an emulator: that of scripts/make-host, booted once and resumed since.

QEMU's TCG emulates AMD's SVM, so that the kernel in there has a /dev/kvm of its own, with nested paging. The first
start boots the host and keeps its state; later ones resume that, each on a disk of its own, which is gone
afterwards. What is typed in there goes through QEMU's guest agent; files come and go in a shared folder.
"""

from __future__ import annotations

import base64
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from qkvm.errors import AgentUnresponsive
from qkvm.qmp.agent import AgentSession
from qkvm.qmp.library import LibrarySession
from qkvm.qmp.session import Session

TOP = Path(__file__).resolve().parents[2]

BOOT_TIMEOUT = 900.0
"""Seconds; a boot takes one minute on an idle machine."""

COMMAND_TIMEOUT = 600.0

SHARE = "/share"
"""Where the shared folder is mounted in the host."""

ENVIRONMENT = ("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LANG=C.UTF-8")

HARDWARE = (
    "-nodefaults",
    "-no-user-config",
    "-display",
    "none",
    "-machine",
    "q35,kernel-irqchip=off",
    "-accel",
    "tcg,thread=multi",
    "-cpu",
    "EPYC,-monitor",
    "-smp",
    "1",
    "-m",
    "3072",
    "-device",
    "intel-iommu",
    "-append",
    "root=/dev/vda console=ttyS0 quiet intel_iommu=on mitigations=off",
    "-device",
    "virtio-blk-pci,drive=disk",
    "-device",
    "virtio-rng-pci",
    "-device",
    "virtio-9p-pci,fsdev=share,mount_tag=share",
    "-device",
    "virtio-serial-pci",
    "-device",
    "virtserialport,chardev=agent,name=org.qemu.guest_agent.0",
    # Its network is there, and leads nowhere.
    "-netdev",
    "user,id=uplink,restrict=on",
    "-device",
    "virtio-net-pci,netdev=uplink",
)
"""The machine. Its CPU can't monitor, since TCG takes that for no operation, and idle CPUs would spin."""


Result = subprocess.CompletedProcess[str]
"""What a command in the host gave."""


class Machine:
    """A running host, for use with ``with``.

    :param release: Debian's. :param fresh: boot it, instead of resuming the state that was kept.
    """

    def __init__(self, release: str, *, fresh: bool = False) -> None:
        self._files = made(release)
        self._fresh = fresh
        self._folder = Path(tempfile.mkdtemp(prefix="qkvm-machine-"))
        self.share = self._folder / "share"
        self.console_log = self._folder / "console.log"
        self._qemu: subprocess.Popen[bytes] | None = None
        self._agent: AgentSession | None = None
        self._turn = threading.Lock()

    def __enter__(self) -> Machine:
        try:
            self.share.mkdir()
            if self._fresh:
                self._boot(self._files["DISK"])
            else:
                self._resume(self._state())
            self._mount_share()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._hang_up()
        if self._qemu is not None and self._qemu.poll() is None:
            self._qemu.kill()
        if self._qemu is not None:
            self._qemu.wait()
        shutil.rmtree(self._folder)

    # What is done in it.

    def run(self, command: str, *, user: str = "root", timeout: float = COMMAND_TIMEOUT) -> Result:
        """Run a shell command, in a scope of its own as after a login, and wait until it has ended."""
        argv = ["bash", "-c", command] if user == "root" else ["runuser", "-l", user, "-c", command]
        asked = self._ask(
            "guest-exec",
            {
                "path": "systemd-run",
                "arg": ["--scope", "--quiet", "--", *argv],
                "env": list(ENVIRONMENT),
                "capture-output": True,
            },
        )
        deadline = time.monotonic() + timeout
        while not (status := self._ask("guest-exec-status", {"pid": asked["pid"]}))["exited"]:
            assert time.monotonic() < deadline, f"'{command}' has not ended within {timeout:g} s\n{self.console()}"
            time.sleep(0.05)
        out, err = (
            base64.b64decode(status.get(name, "")).decode("utf-8", "replace") for name in ("out-data", "err-data")
        )
        return Result(command, status.get("exitcode", 128 + status.get("signal", 0)), out, err)

    def sh(self, command: str, *, user: str = "root", timeout: float = COMMAND_TIMEOUT) -> str:
        """Run a shell command that must succeed, and give what it prints."""
        done = self.run(command, user=user, timeout=timeout)
        assert done.returncode == 0, f"'{command}' ended with {done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout

    def qkvm(self, line: str, *, user: str = "root", timeout: float = COMMAND_TIMEOUT) -> str:
        """Run a qkvm command line that must succeed, and give what it prints."""
        return self.sh(f"qkvm {line}", user=user, timeout=timeout)

    def fails(self, line: str, *, user: str = "root") -> str:
        """Run a qkvm command line that must fail as virsh does, and give its one line of error."""
        done = self.run(f"qkvm {line}", user=user)
        lines = [text for text in done.stderr.splitlines() if not text.startswith("warning: ")]
        assert done.returncode == 1 and len(lines) == 1, f"qkvm {line}: {done.returncode} {done.stderr}"
        return lines[0]

    def install_qkvm(self) -> None:
        """Install this tree's qkvm as a user would: its wheel by pip, in the environment that is on the PATH."""
        wheel = build_wheel(self.share)
        # Bytes are compiled by those who need them: all of them take a minute here.
        self.sh(
            "/opt/qkvm/bin/pip install -q --no-index --find-links /opt/wheelhouse --no-compile "
            f"--disable-pip-version-check --root-user-action=ignore {SHARE}/{wheel.name}"
        )

    # Its power.

    def wait_off(self, *, timeout: float = BOOT_TIMEOUT) -> None:
        """Wait until the machine has switched itself off."""
        assert self._qemu is not None
        self._hang_up()
        try:
            self._qemu.wait(timeout)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"the host has not gone down within {timeout:g} s\n{self.console()}") from None

    def power_button(self) -> None:
        """Press it."""
        with self._monitor() as monitor:
            monitor.execute("system_powerdown")

    def boot_again(self) -> None:
        """Boot the machine from its disk after :meth:`wait_off`."""
        assert self._qemu is not None and self._qemu.poll() is not None
        self._start(self._folder / "disk.qcow2")
        self._wait_up()
        self._mount_share()

    def console(self, size: int = 2000) -> str:
        """The last characters of its serial console."""
        return self.console_log.read_text(encoding="utf-8", errors="replace")[-size:]

    # How it comes to run.

    def _boot(self, disk: Path) -> None:
        self._start(self._overlay(disk))
        self._wait_up()

    def _resume(self, state: Path) -> None:
        with open(state / "memory", "rb") as memory:
            self._start(self._overlay(state / "disk.qcow2"), incoming=memory.fileno())
            with self._monitor() as monitor:
                _until(lambda: monitor.execute("query-status")["status"] == "paused", "taken up its state")
                monitor.execute("cont")
        # Its clock stood still meanwhile.
        self._ask("guest-set-time", {"time": time.time_ns()})

    def _state(self) -> Path:
        """The folder with the state of the booted host, which is made where it is not there."""
        binary = Path(_qemu())
        recipe = [str(self._files["DISK"]), *HARDWARE, str(binary), str(os.stat(binary).st_mtime_ns)]
        disk = self._files["DISK"].parent
        state = disk / f"state-{hashlib.sha256(repr(recipe).encode()).hexdigest()[:16]}"
        with open(disk / "lock-state", "w", encoding="utf-8") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not state.exists():
                self._boot(self._files["DISK"])
                self._keep(state)
        return state

    def _keep(self, state: Path) -> None:
        """Keep memory and disk of the booted host, and end it."""
        assert self._qemu is not None
        part = Path(tempfile.mkdtemp(dir=state.parent, prefix="state."))
        try:
            self.sh("modprobe kvm_amd && modprobe vhost_net && modprobe vhost_vsock && sync")
            self._hang_up()
            # TCG before 9.0 loses track of what the guest writes meanwhile.
            with self._monitor() as monitor, open(part / "memory", "wb") as memory:
                monitor.execute("stop")
                monitor.execute("migrate-set-parameters", {"max-bandwidth": 1 << 40})
                monitor.send_fd("memory", memory.fileno())
                monitor.execute("migrate", {"uri": "fd:memory"})
                _until(lambda: _migrated(monitor), "written its state")
                monitor.execute("quit")
            self._qemu.wait(60)
            shutil.move(self._folder / "disk.qcow2", part / "disk.qcow2")
            part.rename(state)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise

    def _mount_share(self) -> None:
        self.sh(f"mkdir -p {SHARE} && mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144 share {SHARE}")

    def _overlay(self, disk: Path) -> Path:
        path = self._folder / "disk.qcow2"
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", disk, "-F", "qcow2", path], check=True)
        return path

    def _start(self, disk: Path, *, incoming: int | None = None) -> None:
        folder = self._folder
        argv = [
            _qemu(),
            *HARDWARE,
            "-kernel",
            str(self._files["KERNEL"]),
            "-initrd",
            str(self._files["INITRD"]),
            "-drive",
            f"file={disk},if=none,id=disk,format=qcow2,cache=unsafe",
            "-fsdev",
            f"local,id=share,path={self.share},security_model=none",
            "-chardev",
            f"socket,id=agent,path={folder}/agent.sock,server=on,wait=off",
            "-chardev",
            f"file,id=console,path={self.console_log},append=on",
            "-serial",
            "chardev:console",
            "-qmp",
            f"unix:{folder}/qmp.sock,server=on,wait=off",
            *([] if incoming is None else ["-incoming", f"fd:{incoming}"]),
        ]
        with open(folder / "qemu.log", "ab") as log:
            self._qemu = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=() if incoming is None else (incoming,),
            )
        _until((folder / "qmp.sock").exists, "begun", self._alive)

    def _wait_up(self) -> None:
        """Wait until the agent answers and systemd has started all there is."""
        deadline = time.monotonic() + BOOT_TIMEOUT
        while True:
            self._alive()
            try:
                self._ask("guest-ping")
                break
            except AgentUnresponsive:
                assert time.monotonic() < deadline, f"the host has not come up\n{self.console()}"
        self.run("systemctl is-system-running --wait")

    def _alive(self) -> None:
        assert self._qemu is not None
        log = (self._folder / "qemu.log").read_text(encoding="utf-8", errors="replace")
        assert self._qemu.poll() is None, f"QEMU ended with {self._qemu.returncode}: {log[-2000:]}"

    def _monitor(self) -> Session:
        return LibrarySession(str(self._folder / "qmp.sock"), name="machine")

    def _ask(self, command: str, arguments: dict[str, Any] | None = None) -> dict[str, Any]:
        with self._turn:
            if self._agent is None:
                agent = AgentSession(
                    str(self._folder / "agent.sock"),
                    lock=str(self._folder / "agent.lock"),
                    name="machine",
                    timeout=60.0,
                )
                agent.__enter__()
                self._agent = agent
            try:
                return self._agent.execute(command, arguments, kind=dict[str, Any])
            except AgentUnresponsive:
                self._leave_agent()
                raise

    def _hang_up(self) -> None:
        with self._turn:
            self._leave_agent()

    def _leave_agent(self) -> None:
        agent, self._agent = self._agent, None
        if agent is not None:
            agent.__exit__(None, None, None)


def made(release: str) -> dict[str, Path]:
    """The files of a release's host, by the names that make-host prints; it makes those that are not there yet."""
    done = subprocess.run([str(TOP / "scripts/make-host"), release], stdout=subprocess.PIPE, text=True, check=True)
    return {name: Path(path) for name, _, path in (line.partition("=") for line in done.stdout.splitlines())}


def build_wheel(folder: Path) -> Path:
    """Build this tree's wheel into a folder, with what the environment has."""
    subprocess.run(
        [
            sys.executable,
            "-m",
            "pip",
            "wheel",
            "-q",
            "--disable-pip-version-check",
            "--no-deps",
            "--no-build-isolation",
            "--no-cache-dir",
            "-w",
            str(folder),
            str(TOP),
        ],
        check=True,
    )
    (wheel,) = folder.glob("qkvm-*.whl")
    return wheel


def _qemu() -> str:
    path = shutil.which("qemu-system-x86_64")
    assert path is not None, "qemu-system-x86_64 is not installed"
    return os.path.realpath(path)


def _migrated(monitor: Session) -> bool:
    seen = monitor.execute("query-migrate")
    assert seen.get("status") not in ("failed", "cancelled"), seen
    return bool(seen.get("status") == "completed")


def _until(condition: Callable[[], object], what: str, check: Callable[[], None] = lambda: None) -> None:
    """Look until the condition holds: QEMU tells of it nowhere else."""
    deadline = time.monotonic() + 120
    while not condition():
        check()
        assert time.monotonic() < deadline, f"QEMU has not {what} within 120 s"
        time.sleep(0.02)
