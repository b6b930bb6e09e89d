"""Scopes: units for processes that systemd did not start (systemd.scope(5)).

Where systemd is the host's init, all that qkvm leaves running is in a scope of its own. So it outlives the session
of the user who started it, and at a halt it runs until qkvm.service has ended it. systemd-run makes a scope with
only a keeper in it, which ends with this process. Meanwhile the processes are moved in; systemd removes the scope
with the last of them. Delegate=yes allows moving processes and making groups of threads.

Guests of other users get scopes of the user's own systemd, but only if that runs from the boot on (loginctl
enable-linger). Otherwise it ends with the user's last session and would end the guests, which survive in a
session.

A scope's control group belongs to systemd, which rewrites its files at a daemon-reload. So a limit is written
twice: into the kernel, which checks it, and as a property of the unit.
"""

from __future__ import annotations

import os
import select
import time
from contextlib import contextmanager
from typing import NamedTuple

from qkvm.errors import HostError, InvalidState, QkvmError
from qkvm.host import process
from qkvm.host.cgroup import Group, mount_point

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

SERVICE = "qkvm.service"
"""The service for the host's boot and halt; scopes are stopped after it."""

MACHINES, SYSTEM = "machine.slice", "system.slice"
"""The slices of guests, and of the host's services; a user's systemd has its own machine.slice."""

_DEADLINE = 15.0
"""Seconds for systemd to make a scope; it takes 0.01."""

_GRACE = 2.0
"""Seconds in which a keeper ends after its stdin is closed."""

_LONGEST = 200
"""Characters of a unit's name without its suffix; 255 are allowed with it."""

_TASKS = 16384
"""Threads of one guest at most, as machined sets it; the default of units is lower."""

_BUS = "/run/dbus/system_bus_socket"


def usable() -> bool:
    """Whether systemd is this host's init and makes scopes for this process (the user must linger)."""
    if not os.path.isdir("/run/systemd/system"):
        return False
    if os.geteuid() == 0:
        bus = _BUS
    elif lingers():
        bus = os.path.join(runtime_folder(), "bus")
    else:
        return False
    return os.path.exists(bus) and all(_program(name) for name in ("systemd-run", "busctl"))


def lingers() -> bool:
    """Whether the user's systemd runs from the boot on, not only while they are logged in."""
    import pwd

    try:
        return os.path.exists(f"/var/lib/systemd/linger/{pwd.getpwuid(os.geteuid()).pw_name}")
    except KeyError:
        return False


def runtime_folder() -> str:
    """Return the folder of the sockets of the user's systemd and its bus."""
    return os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"


def as_user(program: str, *words: str) -> list[str]:
    """Return a command line that talks to the user's own systemd; cron and su unset its variables."""
    folder = runtime_folder()
    environment = [f"XDG_RUNTIME_DIR={folder}", f"DBUS_SESSION_BUS_ADDRESS=unix:path={folder}/bus"]
    env = process.find_program("env", "the user's systemd", "coreutils")
    return [env, *environment, program, "--user", *words]


def _speaking(program: str, *words: str) -> list[str]:
    """Return the command line of a program that talks to the systemd for this process's scopes."""
    return [program, *words] if os.geteuid() == 0 else as_user(program, *words)


def _program(name: str) -> str:
    try:
        return process.find_program(name, "scopes", "systemd")
    except HostError:
        return ""


def escape(text: str) -> str:
    """Escape a text for a unit's name: other bytes become \\xNN (systemd.unit(5))."""
    plain = "".join(
        chr(byte) if chr(byte).isalnum() and byte < 128 or chr(byte) in ":_." else f"\\x{byte:02x}"
        for byte in os.fsencode(text)
    )
    if len(plain) > _LONGEST:
        # Half an escape at the end would be invalid.
        plain = plain[:_LONGEST]
        cut = plain.rfind("\\", _LONGEST - 3)
        plain = plain[:cut] if cut >= 0 else plain
    return f"\\x2e{plain[1:]}" if plain.startswith(".") else plain


class Keeper:
    """The process that holds a new scope until others are in it; made by :func:`begin`."""

    def __init__(self, unit: str, pid: int, stdin: int, stdout: int, words: int) -> None:
        self.unit = unit
        self._pid = pid
        self._started = process.start_time(pid)
        self._fds = [stdin, stdout, words]

    def wait(self) -> UnitGroup:
        """Wait until the scope exists; return its control group.

        :raises HostError: systemd refused, with its own words. :raises InvalidState: cgroup v2 is not mounted.
        """
        _, stdout, words = self._fds
        poll = select.poll()
        poll.register(stdout, select.POLLIN)
        if not poll.poll(_DEADLINE * 1000):
            raise HostError(f"systemd did not make {self.unit} within {_DEADLINE:g} s")
        if not os.read(stdout, 1):
            said = os.pread(words, 4096, 0).decode("utf-8", "replace")
            raise HostError(f"systemd did not make {self.unit}: {process.last_line(said)}")
        mount = mount_point()
        with open(f"/proc/{self._pid}/cgroup", encoding="utf-8", errors="surrogateescape") as stream:
            paths = [line.rstrip("\n")[3:] for line in stream if line.startswith("0::")]
        if not mount or not paths or not paths[0].endswith(self.unit):
            raise InvalidState("cgroup v2 is not mounted")
        return UnitGroup(mount + paths[0], self.unit)

    def leave(self) -> None:
        """End the keeper: the scope now lasts as long as other processes in it. Twice is no error."""
        fds, self._fds = self._fds, []
        for fd in fds:
            os.close(fd)
        # By the second time, the pid may be another's.
        if fds and self._started is not None:
            process.see_end(self._pid, self._started, _GRACE, grace=_GRACE)


def begin(unit: str, slice_: str, description: str, *properties: str) -> Keeper:
    """Start making a scope. :param properties: more properties, as for systemd-run's -p."""
    words = ["--scope", "--quiet", "--collect", "--no-ask-password", f"--unit={unit}", f"--slice={slice_}"]
    # At a halt, all is stopped in the opposite order. A user's systemd has no targets of file systems.
    order = ["-pDelegate=yes", f"-pBefore={SERVICE}", "-pAfter=local-fs.target remote-fs.target"]
    words += [f"--description={description}", *order, *(f"-p{text}" for text in properties), "--", "cat"]
    argv = _speaking(_program("systemd-run"), *words)
    theirs, stdin = os.pipe2(os.O_CLOEXEC)
    stdout, other = os.pipe2(os.O_CLOEXEC)
    stderr = os.memfd_create(f"stderr of {unit}"[:200])
    # When cat returns this line, it runs in the scope.
    os.write(stdin, b"\n")
    try:
        pid = process.spawn(argv, stdin=theirs, stdout=other, stderr=stderr)
    except BaseException:
        for fd in (stdin, stdout, stderr):
            os.close(fd)
        raise
    finally:
        os.close(theirs)
        os.close(other)
    return Keeper(unit, pid, stdin, stdout, stderr)


def begin_machine(label: str, description: str) -> Keeper:
    """Start making the scope of a guest, named as machined names its scopes."""
    return begin(machine_unit(label), MACHINES, description, f"TasksMax={_TASKS}")


def machine_unit(label: str) -> str:
    """Return the name of a guest's scope."""
    return f"machine-{escape(label)}.scope"


@contextmanager
def housed(label: str, name: str, description: str) -> Iterator[list[str]]:
    """Have a scope for a service of the host during the block; it lasts as long as processes in it.

    Gives words to put before a command line that is to run there; none where there is no scope.
    """
    keeper = None
    if usable():
        # The former scope of this label and name may not be gone yet.
        number = time.monotonic_ns() // 1000000
        keeper = begin(f"{escape(f'{label}-{number}-{name}')}.scope", SYSTEM, description)
    try:
        try:
            path = keeper.wait().path if keeper is not None else ""
        except QkvmError:
            path = ""
        yield ["/bin/sh", "-c", 'echo $$ >"$0"; exec "$@"', f"{path}/cgroup.procs"] if path else []
    finally:
        if keeper is not None:
            keeper.leave()


class UnitGroup(Group):
    """The control group of a scope: its limits are the unit's too."""

    __slots__ = ("_untold", "unit")

    def __init__(self, path: str, unit: str) -> None:
        super().__init__(path)
        self.unit = unit
        self._untold: list[tuple[str, ...]] | None = None

    def add_process(self, pid: int) -> None:
        """Move a process with all its threads into it."""
        try:
            super().add_process(pid)
        except HostError as error:
            if not isinstance(error.__cause__, PermissionError):
                raise
            # A user may not move a process out of a login session, but systemd does it for its owner.
            call("systemd1", "systemd1.Manager", "AttachProcessesToUnit", "ssau", self.unit, "", "1", str(pid))

    def write(self, name: str, text: str) -> None:
        """Write one of its files, and the unit's property for it."""
        super().write(name, text)
        from qkvm.host.systemd.limits import properties

        found = properties(self, name, text)
        if self._untold is not None:
            self._untold += found
        elif found:
            self._tell(found)

    @contextmanager
    def together(self) -> Iterator[None]:
        """A block whose writes are reported to systemd together at its end."""
        self._untold = []
        try:
            yield
            if self._untold:
                self._tell(self._untold)
        finally:
            self._untold = None

    def _tell(self, found: list[tuple[str, ...]]) -> None:
        words = [word for one in found for word in one]
        method = ("systemd1", "systemd1.Manager", "SetUnitProperties")
        call(*method, "sba(sv)", self.unit, "true", str(len(found)), *words)


def call(*words: str) -> None:
    """Call a method over root's or the user's bus (busctl(1)): service and interface below org.freedesktop.

    :raises ProgramFailed: the service refuses, with its own words.
    """
    process.run(_call(*words))


class Call(NamedTuple):
    """A call without its answer: the process that waits for it."""

    pid: int
    started: int | None

    def finish(self, timeout: float) -> None:
        """Wait for the answer, whatever it is, at most ``timeout`` seconds."""
        if self.started is not None:
            process.see_end(self.pid, self.started, timeout, grace=0.5)


def call_on(*words: str) -> Call:
    """Call a method as :func:`call` does, without waiting."""
    nowhere = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        pid = process.spawn(_call(*words), stdin=nowhere, stdout=nowhere, stderr=nowhere)
        return Call(pid, process.start_time(pid))
    finally:
        os.close(nowhere)


def _call(service: str, interface: str, *rest: str) -> list[str]:
    prefix = "org.freedesktop."
    path = f"/{prefix}{service}".replace(".", "/")
    return _speaking(
        _program("busctl"), "call", "--quiet", "--timeout=10", prefix + service, path, prefix + interface, *rest
    )
