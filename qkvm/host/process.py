"""Processes: who runs, start, end. Only this module starts programs.

A pid alone is never trusted. It is paired with a lock that the process holds (QEMU's pid file) or with its start
time (dnsmasq), and signals go through a pidfd.
"""

from __future__ import annotations

import errno
import fcntl
import os
import sys

from qkvm.errors import MissingProgram, ProgramFailed
from qkvm.files import closing_fd, os_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any, BinaryIO, Protocol

    class Limits(Protocol):
        """Limits of a program; see :class:`qkvm.host.confine.Limits`."""

        def around(self, argv: Sequence[str]) -> list[str]: ...  # noqa: D102

        def exceeded(self, code: int, stderr: str) -> str: ...  # noqa: D102


_FLOCK = 32  # Bytes of struct flock of fcntl.h on 64-bit Linux. It begins with the type; byte 24 begins the pid.

FIRST_FD = 100
"""First number of the fds that QEMU gets, so that its command line is the same each time."""

_children: set[int] = set()
"""Pids of children that this process must wait for, or they stay as zombies."""


def lock_holder(path: str) -> int | None:
    """Return the pid of the process with a POSIX write lock on ``path``, None where there is none (F_GETLK).

    QEMU locks its ``-pidfile`` for its whole life; the kernel releases the lock when the process ends.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise os_error(error, f"cannot read {path}") from error
    with closing_fd(fd):
        query = fcntl.F_WRLCK.to_bytes(2, sys.byteorder).ljust(_FLOCK, b"\0")
        found = fcntl.fcntl(fd, fcntl.F_GETLK, query)
    kind, pid = (int.from_bytes(found[at : at + size], sys.byteorder) for at, size in ((0, 2), (24, 4)))
    return pid if kind != fcntl.F_UNLCK else None


def start_time(pid: int) -> int | None:
    """Return when a process started, in clock ticks since boot (field 22 of /proc/PID/stat); None if it is gone.

    A zombie counts as gone. Pid and start time identify a process of this boot.
    """
    fields = stat_fields(f"/proc/{pid}/stat")
    if fields is None or fields[0] in ("Z", "X"):
        return None
    return int(fields[19])


def stat_fields(path: str) -> list[str] | None:
    """Return the fields of a /proc stat file from the state (field 3 of proc(5)) on; None if the task is gone."""
    try:
        with open(path, "rb") as stream:
            text = stream.read().decode("ascii", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    return text[text.rindex(")") + 2 :].split()


def find_program(name: str, needed_for: str, package: str) -> str:
    """Return the path of a program on PATH or in the sbin folders.

    :param needed_for: the feature, for the error. :param package: its Debian package.
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
    """Run a program to its end and return its stdout; its locale is C.

    :param stdin: written before the program starts, so that it is complete even if this process is killed.
    :param folder: its working folder, entered before it becomes ``user``, a uid and gid.
    :param limits: its limits; it then has no network. :param to_file: whether its stdout is a file, for a program
        that loses what does not fit into a pipe.
    :raises ProgramFailed: its exit code is not 0, or it is killed after ``timeout`` seconds.
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
        words = f"{name} did not end within {timeout:g} s"
        raise ProgramFailed(words, argv=command, code=-signal.SIGKILL, stderr="") from error
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
    """Run a program that may take long, to its end; its locale is C, its folder /.

    :param watch: called every ``interval`` seconds; if it raises, or the user interrupts, the program is killed.
    :param stdout: an fd for its output, None for none. :param limits: its limits; it then has no network.
    :raises ProgramFailed: its exit code is not 0.
    """
    import subprocess

    command = list(argv) if limits is None else limits.around(argv)
    child: subprocess.Popen[bytes] | None = None
    try:
        with _Uninterrupted():
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if stdout is None else stdout,
                stderr=subprocess.PIPE,
                cwd="/",
                env=_environment(),
            )
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
    """A block that ^C does not interrupt: a new child would run on, unknown to its parent.

    It is no generator, as importing contextlib takes a read verb two milliseconds.
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
    """Run an editor or viewer on the user's terminal, in their environment, to its end; return its exit code."""
    import subprocess

    try:
        return subprocess.run(list(argv), check=False).returncode
    except OSError as error:
        raise os_error(error, f"cannot start {argv[0]}") from error


class Piped:
    """A program whose output is read as it comes; ``code`` is its exit code at the end of that (128+n: signal)."""

    def __init__(self, argv: Sequence[str], stdin: BinaryIO | None) -> None:
        """Start it in the user's environment.

        :param stdin: its input, an open file; None for none.
        """
        import subprocess

        self.code = 0
        self._told = open(os.memfd_create(f"stderr of {argv[0]}"), "w+b")  # noqa: SIM115  closed at the end
        try:
            with _Uninterrupted():
                self._child = subprocess.Popen(
                    list(argv), stdin=stdin or subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._told
                )
        except OSError as error:
            self._told.close()
            raise os_error(error, f"cannot start {argv[0]}") from error

    def output(self) -> Iterator[tuple[str, bytes]]:
        """Yield 'out' and pieces of its stdout, then 'err' and its stderr. An error meanwhile ends the program."""
        assert self._child.stdout is not None
        try:
            while piece := os.read(self._child.stdout.fileno(), 1 << 16):
                yield "out", piece
            code = self._child.wait()
            self.code = code if code >= 0 else 128 - code
            self._told.seek(0)
            yield "err", self._told.read()
        finally:
            self._child.kill()
            self._child.wait()
            self._child.stdout.close()
            self._told.close()


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
    """Start a program that outlives this one, in its own session; return its pid.

    The caller closes its own copies of the fds; ``pass_fds`` keep their numbers in the child.

    :param folder: its working folder, entered before it becomes ``user``, a uid and gid.
    """
    import subprocess

    reap()
    try:
        child = subprocess.Popen(
            list(argv),
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            pass_fds=pass_fds,
            cwd=folder,
            env=_environment(),
            start_new_session=True,
            **_identity(user),
        )
    except OSError as error:
        raise os_error(error, f"cannot start {argv[0]}") from error
    _children.add(child.pid)
    # Mark it finished, or Popen warns.
    child.returncode = 0
    return child.pid


def high_fd(fd: int) -> int:
    """Return a copy of an fd with the first free number from :data:`FIRST_FD` on."""
    return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, FIRST_FD)


def reap() -> None:
    """Reap children that have exited."""
    for pid in list(_children):
        try:
            if os.waitpid(pid, os.WNOHANG)[0] == pid:
                _children.discard(pid)
        except ChildProcessError:
            _children.discard(pid)


def exit_code(pid: int) -> int | None:
    """Wait for a child's end and return its exit code (negative: signal); None if it is no child of ours."""
    if pid not in _children:
        return None
    _children.discard(pid)
    try:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    except ChildProcessError:
        return None


def open_pidfd(pid: int, started: int | None = None) -> int | None:
    """Return a pidfd of a live process, None if it is gone.

    :param started: its start time; another process that got the same pid counts as gone.
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
    """Wait until the process of a pidfd ends, at most ``timeout`` seconds; return whether it did."""
    import select

    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(max(0.0, timeout) * 1000))


def end(pidfd: int, *, grace: float, force: bool = True) -> bool:
    """End a process: SIGTERM, after ``grace`` seconds SIGKILL if ``force`` allows; return whether it ended."""
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
    # A process in an uninterruptible wait gets its signal late; after a minute, a disk is broken.
    done = ended(pidfd, 60.0)
    reap()
    return done


def see_end(pid: int, started: int | None, patience: float, *, grace: float) -> None:
    """Wait at most ``patience`` seconds for a process to end by itself, else end it; it may be gone."""
    pidfd = open_pidfd(pid, started)
    if pidfd is None:
        return reap()
    with closing_fd(pidfd):
        if not ended(pidfd, patience):
            end(pidfd, grace=grace)
    return reap()


def describe_exit(code: int) -> str:
    """Describe a return code: 'exit code 1' or 'killed by SIGSYS'."""
    if code >= 0:
        return f"exit code {code}"
    import signal

    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def last_line(text: str) -> str:
    """Return the last line that is not blank."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "(it said nothing)"


def _failure(argv: Sequence[str], code: int, stderr: bytes, limits: Limits | None) -> ProgramFailed:
    """Return the error for a program that has failed, perhaps by exceeding its limits."""
    words = stderr.decode("utf-8", "replace").strip()
    over = limits.exceeded(code, words) if limits is not None else ""
    how = over or f"failed ({describe_exit(code)}): {last_line(words)}"
    return ProgramFailed(f"{os.path.basename(argv[0])} {how}", argv=list(argv), code=code, stderr=words)


def _identity(user: tuple[int, int] | None) -> dict[str, Any]:
    """Return Popen's arguments that make a child another user, in no other group, with private files."""
    if user is None:
        return {}
    return {"user": user[0], "group": user[1], "extra_groups": (), "umask": 0o077}


def _environment() -> dict[str, str]:
    """Return a clean environment: the user's variables must not change what a child does or prints."""
    return {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
