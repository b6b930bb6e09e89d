"""Processes: who runs, start, end. The only place that starts any.

A pid alone is never trusted: it is paired with a lock that the process holds (QEMU's pid file) or with its
start time (dnsmasq), and signals go through a pidfd.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys

from qkvm.errors import MissingProgram, ProgramFailed
from qkvm.files import os_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, Protocol

    class Limits(Protocol):
        """What a program may take; see :class:`qkvm.host.confine.Limits`."""

        def around(self, argv: Sequence[str]) -> list[str]: ...  # noqa: D102

        def exceeded(self, code: int, stderr: str) -> str: ...  # noqa: D102


_FLOCK = 32  # Bytes of struct flock of fcntl.h on 64-bit Linux. It begins with the type; byte 24 begins the pid.

FIRST_FD = 100
"""Fds are handed to QEMU under numbers from here on: what the command line shows is the same each time."""

_children: set[int] = set()
"""Pids that this process started and must wait for, so that no zombie of it stays."""


def lock_holder(path: str) -> int | None:
    """The pid of the process that holds a POSIX write lock on ``path``, None where nobody does (F_GETLK).

    QEMU locks its ``-pidfile`` for its whole life, and the kernel takes the lock away with the process.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise os_error(error, f"cannot read {path}") from error
    try:
        query = fcntl.F_WRLCK.to_bytes(2, sys.byteorder).ljust(_FLOCK, b"\0")
        found = fcntl.fcntl(fd, fcntl.F_GETLK, query)
    finally:
        os.close(fd)
    kind, pid = (int.from_bytes(found[at : at + size], sys.byteorder) for at, size in ((0, 2), (24, 4)))
    return pid if kind != fcntl.F_UNLCK else None


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot (field 22 of /proc/PID/stat); None where it is gone.

    A zombie counts as gone. Pid and start time together name one process of this boot.
    """
    fields = stat_fields(f"/proc/{pid}/stat")
    if fields is None or fields[0] in ("Z", "X"):
        return None
    return int(fields[19])


def stat_fields(path: str) -> list[str] | None:
    """The fields of a /proc stat file from the state (field 3 of proc(5)) on; None where the task is gone."""
    try:
        with open(path, "rb") as stream:
            text = stream.read().decode("ascii", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text[text.rindex(")") + 2 :].split()


def find_program(name: str, needed_for: str, package: str) -> str:
    """The path of a program on PATH (sbin folders are looked in too).

    :param needed_for: the feature, for the error. :param package: Debian's package that brings it.
    :raises MissingProgram: it is not installed.
    """
    if "/" in name:
        if os.access(name, os.X_OK):
            return name
        raise MissingProgram(name, needed_for, package)
    for folder in (os.environ.get("PATH") or os.defpath).split(":") + ["/usr/sbin", "/sbin"]:
        candidate = os.path.join(folder, name)
        if folder and os.access(candidate, os.X_OK) and os.path.isfile(candidate):
            return candidate
    raise MissingProgram(name, needed_for, package)


def run(
    argv: Sequence[str],
    *,
    stdin: bytes = b"",
    timeout: float = 30.0,
    folder: str = "/",
    user: tuple[int, int] | None = None,
    limits: Limits | None = None,
    to_file: bool = False,
) -> bytes:
    """Run a program to its end and give its stdout; its locale is C.

    :param folder: where it starts; it is entered before it becomes ``user``, a uid and gid of its own.
    :param limits: what it may take; it has no network then.
    :param to_file: its stdout is a file, for a program that loses what a full pipe does not take.

    The whole of ``stdin`` is there before the program starts: it reads all of it also where this process is
    killed meanwhile.

    :raises ProgramFailed: exit code not 0, or not ended within ``timeout`` seconds (then it is killed).
    """
    import signal
    import subprocess

    name = os.path.basename(argv[0])
    command = list(argv) if limits is None else limits.around(argv)
    try:
        with (
            open(os.memfd_create(f"stdin of {name}"), "w+b") as given,
            open(os.memfd_create(f"stdout of {name}"), "w+b") as told,
        ):
            given.write(stdin)
            given.seek(0)
            done: subprocess.CompletedProcess[bytes] = subprocess.run(
                command,
                stdin=given,
                stdout=told if to_file else subprocess.PIPE,
                stderr=subprocess.PIPE,
                timeout=timeout,
                cwd=folder,
                env=_environment(),
                check=False,
                **_identity(user),
            )
            told.seek(0)
            said = told.read() if to_file else done.stdout
    except subprocess.TimeoutExpired as error:
        raise ProgramFailed(
            f"{name} did not end within {timeout:g} s", argv=command, code=-signal.SIGKILL, stderr=""
        ) from error
    except OSError as error:
        raise os_error(error, f"cannot start {command[0]}") from error
    if done.returncode:
        raise _failure(argv, done.returncode, done.stderr, limits)
    return said


def run_watched(
    argv: Sequence[str],
    watch: Callable[[], object],
    *,
    interval: float = 0.2,
    stdout: int | None = None,
    limits: Limits | None = None,
) -> None:
    """Run a program that may take long to its end; its locale is C, its folder /.

    :param watch: is called every ``interval`` seconds meanwhile; where it raises, or the user interrupts, the
        program is killed. :param stdout: an fd for what it prints, None for nowhere.
    :param limits: what it may take; it has no network then.
    :raises ProgramFailed: exit code not 0.
    """
    import subprocess

    command = list(argv) if limits is None else limits.around(argv)
    child: subprocess.Popen[bytes] | None = None
    try:
        with _Uninterrupted():
            child = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL if stdout is None else stdout,
                stderr=subprocess.PIPE, cwd="/", env=_environment(),
            )  # fmt: skip
        while True:
            try:
                _, said = child.communicate(timeout=interval)
                break
            except subprocess.TimeoutExpired:
                watch()
    except BaseException as error:
        if child is not None:
            child.kill()
            child.communicate()
        elif isinstance(error, OSError):
            raise os_error(error, f"cannot start {command[0]}") from error
        raise
    if child.returncode:
        raise _failure(argv, child.returncode, said, limits)


class _Uninterrupted:
    """A block that ^C does not end in its middle: a child that was just made would run on, known to nobody.

    Not a generator: contextlib alone takes a read verb two milliseconds.
    """

    def __enter__(self) -> None:
        import signal
        import threading

        self._pending = False
        self._before = signal.getsignal(signal.SIGINT)
        self._holds = callable(self._before) and threading.current_thread() is threading.main_thread()
        if self._holds:
            signal.signal(signal.SIGINT, self._note)

    def _note(self, _number: int, _frame: object) -> None:
        self._pending = True

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        import signal

        if self._holds:
            signal.signal(signal.SIGINT, self._before)
        if self._pending and kind is None:
            signal.raise_signal(signal.SIGINT)


def foreground(argv: Sequence[str]) -> int:
    """Run a program on the user's own terminal, with his environment, to its end, and give its exit code.

    For an editor or a viewer: what it is and says is between the user and it.
    """
    import subprocess

    try:
        return subprocess.run(list(argv), check=False).returncode
    except OSError as error:
        raise os_error(error, f"cannot start {argv[0]}") from error


def spawn(
    argv: Sequence[str],
    *,
    stdin: int,
    stdout: int,
    stderr: int,
    pass_fds: Sequence[int] = (),
    folder: str = "/",
    user: tuple[int, int] | None = None,
) -> int:
    """Start a program that outlives this one, in a session of its own, and give its pid.

    The caller keeps (and closes) its own copies of all fds; ``pass_fds`` keep their numbers in the child.

    :param folder: where it starts; it is entered before it becomes ``user``, a uid and gid of its own.
    """
    import subprocess

    reap()
    try:
        child = subprocess.Popen(
            list(argv), stdin=stdin, stdout=stdout, stderr=stderr, pass_fds=pass_fds,
            cwd=folder, env=_environment(), start_new_session=True, **_identity(user),
        )  # fmt: skip
    except OSError as error:
        raise os_error(error, f"cannot start {argv[0]}") from error
    _children.add(child.pid)
    # The object is told that it is done with: otherwise it would warn that the child still runs.
    child.returncode = 0
    return child.pid


def high_fd(fd: int) -> int:
    """A copy of an fd under the first free number from :data:`FIRST_FD` on, for the caller to close."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST_FD)


def reap() -> None:
    """Take leave of children that have ended meanwhile."""
    for pid in list(_children):
        try:
            if os.waitpid(pid, os.WNOHANG)[0] == pid:
                _children.discard(pid)
        except ChildProcessError:
            _children.discard(pid)


def exit_code(pid: int) -> int | None:
    """How a child of this process ended (negative: signal), waiting for its end; None for a stranger."""
    if pid not in _children:
        return None
    _children.discard(pid)
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:
        return None


def open_pidfd(pid: int, started: int | None = None) -> int | None:
    """A pidfd of a live process, None where it is gone; the caller closes it.

    :param started: its start time; where given, another process that got the same pid counts as gone.
    """
    try:
        fd = os.pidfd_open(pid)
    except OSError as error:
        if error.errno in (errno.ESRCH, errno.EINVAL):
            return None
        raise os_error(error, f"cannot open process {pid}") from error
    if start_time(pid) is None or (started is not None and start_time(pid) != started):
        os.close(fd)
        return None
    return fd


def ended(pidfd: int, timeout: float) -> bool:
    """Whether the process of a pidfd ends within ``timeout`` seconds."""
    import select

    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(max(0.0, timeout) * 1000))


def end(pidfd: int, *, grace: float, force: bool = True) -> bool:
    """End a process: SIGTERM, and SIGKILL after ``grace`` seconds where ``force`` allows; True when it ended."""
    import signal

    try:
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        if ended(pidfd, grace):
            reap()
            return True
        if not force:
            return False
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    except ProcessLookupError:
        return True
    # A process in an uninterruptible wait takes its signal late; a minute of that is a broken disk.
    done = ended(pidfd, 60.0)
    reap()
    return done


def see_end(pid: int, started: int | None, patience: float, *, grace: float) -> None:
    """See a process end by itself within ``patience`` seconds, or end it; one that is gone is no error."""
    pidfd = open_pidfd(pid, started)
    if pidfd is None:
        return reap()
    try:
        if not ended(pidfd, patience):
            end(pidfd, grace=grace)
    finally:
        os.close(pidfd)
        reap()


def describe_exit(code: int) -> str:
    """A return code as words: 'exit code 1' or 'killed by SIGSYS'."""
    if code >= 0:
        return f"exit code {code}"
    import signal

    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def last_line(text: str) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "(it said nothing)"


def _failure(argv: Sequence[str], code: int, stderr: bytes, limits: Limits | None) -> ProgramFailed:
    """The error about a program that has failed; one that was over its limits is said to be."""
    words = stderr.decode("utf-8", "replace").strip()
    over = limits.exceeded(code, words) if limits is not None else ""
    return ProgramFailed(
        f"{os.path.basename(argv[0])} {over or f'failed ({describe_exit(code)}): {last_line(words)}'}",
        argv=list(argv), code=code, stderr=words,
    )  # fmt: skip


def _identity(user: tuple[int, int] | None) -> dict[str, Any]:
    """What makes a child another user, who belongs to no other group and leaves nothing for others to read."""
    if user is None:
        return {}
    return {"user": user[0], "group": user[1], "extra_groups": (), "umask": 0o077}


def _environment() -> dict[str, str]:
    """A clean environment: what the user's shell sets must not change what a child does or says."""
    return {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
