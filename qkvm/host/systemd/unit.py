"""Scopes: the units in which systemd keeps the processes of others (systemd.scope(5)).

Where systemd is the host's init, all that qkvm starts and leaves running lives in a scope of its own: it outlives
the session of the user who started it, and a halt leaves it alone until qkvm.service has ended what runs. A scope
is made by systemd-run, empty but for a keeper that ends with this process; who is to live there is moved in
meanwhile, and systemd removes the scope with its last process. Delegate=yes allows the moving, and groups of
threads.

Guests of a user who is not root get scopes of the user's own systemd, but only where that runs from the boot on
(loginctl enable-linger). Otherwise it ends with the user's last session, and would take the guests along, which
outlive a session that they are left in.

The files of a scope's own control group belong to systemd, which writes them anew at a daemon-reload. So a limit
is written twice: into the kernel, which checks it, and as a property of the unit, which then says the same.
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
"""The service of the host's boot and halt: scopes are stopped after it."""

MACHINES, SYSTEM = "machine.slice", "system.slice"
"""Where guests live, and where the services of the host do; a user's systemd has a machine.slice of its own."""

_DEADLINE = 15.0
"""Seconds for systemd to make a scope; it takes 0.01."""

_GRACE = 2.0
"""Seconds in which a keeper ends, whose stdin does."""

_LONGEST = 200
"""Characters of a unit's name, which may have 255, without its suffix."""

_TASKS = 16384
"""Threads of one guest at most, as machined has it; the default of units is lower."""

_BUS = "/run/dbus/system_bus_socket"


def usable() -> bool:
    """Whether systemd is this host's init and takes scopes from this process.

    Its bus must be there, and a user who is not root must linger.
    """
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
    """Whether the user's systemd runs from the boot on, and not only while they are logged in."""
    import pwd

    try:
        return os.path.exists(f"/var/lib/systemd/linger/{pwd.getpwuid(os.geteuid()).pw_name}")
    except KeyError:
        return False


def runtime_folder() -> str:
    """Where the sockets of the user's systemd and of its bus are."""
    return os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.geteuid()}"


def as_user(program: str, *words: str) -> list[str]:
    """The command line of a program that speaks to the user's own systemd; cron and su leave its variables out."""
    folder = runtime_folder()
    return [
        process.find_program("env", "the user's systemd", "coreutils"), f"XDG_RUNTIME_DIR={folder}",
        f"DBUS_SESSION_BUS_ADDRESS=unix:path={folder}/bus", program, "--user", *words,
    ]  # fmt: skip


def _speaking(program: str, *words: str) -> list[str]:
    """The command line of a program that speaks to the systemd that has this process's scopes."""
    return [program, *words] if os.geteuid() == 0 else as_user(program, *words)


def _program(name: str) -> str:
    try:
        return process.find_program(name, "scopes", "systemd")
    except HostError:
        return ""


def escape(text: str) -> str:
    """A text as part of a unit's name: what may not be there as \\xNN, byte by byte (systemd.unit(5))."""
    plain = "".join(
        chr(byte) if chr(byte).isalnum() and byte < 128 or chr(byte) in ":_." else f"\\x{byte:02x}"
        for byte in os.fsencode(text)
    )
    if len(plain) > _LONGEST:
        # Half an escape at the end would be none.
        plain = plain[:_LONGEST]
        cut = plain.rfind("\\", _LONGEST - 3)
        plain = plain[:cut] if cut >= 0 else plain
    return f"\\x2e{plain[1:]}" if plain.startswith(".") else plain


class Keeper:
    """The process that holds a new scope until others live in it; made by :func:`begin`."""

    def __init__(self, unit: str, pid: int, stdin: int, stdout: int, words: int) -> None:
        self.unit = unit
        self._pid = pid
        self._started = process.start_time(pid)
        self._fds = [stdin, stdout, words]

    def wait(self) -> UnitGroup:
        """Wait until the scope is there, and give its control group.

        :raises HostError: systemd made none, in its own words. :raises InvalidState: cgroup v2 is not mounted.
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
        """End: from now on the scope is there as long as others live in it. Twice is no error."""
        fds, self._fds = self._fds, []
        for fd in fds:
            os.close(fd)
        # A pid may be another's by the second time.
        if fds and self._started is not None:
            process.see_end(self._pid, self._started, _GRACE, grace=_GRACE)


def begin(unit: str, slice_: str, description: str, *properties: str) -> Keeper:
    """Have systemd make a scope, and return while it does so.

    :param properties: more of them, as systemd-run's -p takes them.
    """
    argv = _speaking(
        _program("systemd-run"), "--scope", "--quiet", "--collect", "--no-ask-password", f"--unit={unit}",
        f"--slice={slice_}", f"--description={description}",
        # At a halt, when all is stopped in the opposite order. A user's systemd knows no targets of file systems.
        "-pDelegate=yes", f"-pBefore={SERVICE}", "-pAfter=local-fs.target remote-fs.target",
        *(f"-p{text}" for text in properties), "--", "cat",
    )  # fmt: skip
    theirs, stdin = os.pipe2(os.O_CLOEXEC)
    stdout, other = os.pipe2(os.O_CLOEXEC)
    words = os.memfd_create(f"stderr of {unit}"[:200])
    # What comes back through cat proves that it runs, and where it runs the scope is.
    os.write(stdin, b"\n")
    try:
        pid = process.spawn(argv, stdin=theirs, stdout=other, stderr=words)
    except BaseException:
        for fd in (stdin, stdout, words):
            os.close(fd)
        raise
    finally:
        os.close(theirs)
        os.close(other)
    return Keeper(unit, pid, stdin, stdout, words)


def begin_machine(label: str, description: str) -> Keeper:
    """Have systemd make the scope of a guest, named as machined names those that it makes."""
    return begin(machine_unit(label), MACHINES, description, f"TasksMax={_TASKS}")


def machine_unit(label: str) -> str:
    """The name of a guest's scope."""
    return f"machine-{escape(label)}.scope"


@contextmanager
def housed(label: str, name: str, description: str) -> Iterator[list[str]]:
    """A scope of the host's services for the time of the block, and longer for what stays in it.

    Gives words that stand before a command line which is to run there; none where there is no scope.
    """
    keeper = None
    if usable():
        # The former one of this label and name may still be about to go.
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
            # A user may move no process out of the session of a login, but systemd does so for its owner.
            call("systemd1", "systemd1.Manager", "AttachProcessesToUnit", "ssau", self.unit, "", "1", str(pid))

    def write(self, name: str, text: str) -> None:
        """Write one of its files, and the property of the unit that stands for it."""
        super().write(name, text)
        from qkvm.host.systemd.limits import properties

        found = properties(self, name, text)
        if self._untold is not None:
            self._untold += found
        elif found:
            self._tell(found)

    @contextmanager
    def together(self) -> Iterator[None]:
        """A block whose writes systemd is told of in one go, at its end."""
        self._untold = []
        try:
            yield
            if self._untold:
                self._tell(self._untold)
        finally:
            self._untold = None

    def _tell(self, found: list[tuple[str, ...]]) -> None:
        words = [word for one in found for word in one]
        call(
            "systemd1", "systemd1.Manager", "SetUnitProperties",
            "sba(sv)", self.unit, "true", str(len(found)), *words,
        )  # fmt: skip


def call(*words: str) -> None:
    """Call a method over root's or the user's bus (busctl(1)): service and interface below org.freedesktop.

    :raises ProgramFailed: it is refused, in the service's words.
    """
    process.run(_call(*words))


class Call(NamedTuple):
    """A call that is on its way: the process that waits for the answer."""

    pid: int
    started: int | None

    def finish(self, timeout: float) -> None:
        """Wait until it is answered, well or not, for ``timeout`` seconds at most."""
        if self.started is not None:
            process.see_end(self.pid, self.started, timeout, grace=0.5)


def call_on(*words: str) -> Call:
    """The same, without waiting."""
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
