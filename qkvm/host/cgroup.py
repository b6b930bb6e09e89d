"""Control groups (cgroup v2): one for each running domain, and on request one for a kind of its threads.

    MOUNT/qkvm/NAME.domain/             QEMU: memory, io, and the CPU time of all of it
    MOUNT/qkvm/NAME.domain/vcpu0/ …     threaded: a quota for one vCPU, an iothread, or the emulator's threads

MOUNT is the host's cgroup2 mount; a root other than / has its own top group. Groups outlast QEMU, and
:func:`remove` removes them. Limits of memory and I/O apply to processes, so they are set on the domain's group;
groups of threads have only the cpu controller (Documentation/admin-guide/cgroup-v2.rst, "Threads").
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress

from qkvm.errors import HostError, InvalidState, InvalidValue
from qkvm.files import closing_fd, os_error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.paths import Tree

WANTED = ("cpu", "memory", "io")
"""Controllers that each domain's group gets if the host has them; cpuset only where it is needed."""

WEIGHT_DEFAULT = 100
"""The default cpu.weight and io.weight of a group."""

_SUFFIX = ".domain"
_GONE = (errno.ENOENT, errno.ENODEV)


class Group:
    """One control group by its path; nothing is held open."""

    __slots__ = ("path",)

    def __init__(self, path: str) -> None:
        self.path = path

    def __repr__(self) -> str:
        return f"Group({self.path!r})"

    def exists(self) -> bool:
        """Whether it exists."""
        return os.path.isdir(self.path)

    def child(self, name: str) -> Group:
        """Return the group of that name in it, which need not exist."""
        return Group(os.path.join(self.path, name))

    def read(self, name: str) -> str:
        """Return the text of one of its files.

        :raises InvalidState: the file's controller is not available here. :raises HostError: it can't be read.
        """
        try:
            with open(os.path.join(self.path, name), encoding="ascii", errors="replace") as stream:
                return stream.read()
        except OSError as error:
            raise self._failure(error, name, "read") from error

    def write(self, name: str, text: str) -> None:
        """Write one of its files.

        :raises InvalidState: the file's controller is not available here.
        :raises InvalidValue: the kernel refuses the value. :raises HostError: it can't be written.
        """
        try:
            with closing_fd(os.open(os.path.join(self.path, name), os.O_WRONLY | os.O_CLOEXEC)) as fd:
                os.write(fd, text.encode())
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ERANGE):
                raise InvalidValue(f"the kernel refuses '{text}' for {name}") from error
            raise self._failure(error, name, "write") from error

    def _failure(self, error: OSError, name: str, verb: str) -> HostError | InvalidState:
        controller = name.partition(".")[0]
        if error.errno in _GONE and controller != "cgroup":
            return unavailable(controller, self._why_not(controller))
        return os_error(error, f"cannot {verb} {os.path.join(self.path, name)}")

    def _why_not(self, controller: str) -> str:
        if not self.exists():
            return f"group {self.path} is gone"
        if controller in self.controllers():
            return f"this kernel has no such file in {self.path}"
        return why_not(os.path.dirname(self.path), controller)

    def flat(self, name: str) -> dict[str, int]:
        """Parse a file of 'key number' lines, such as cpu.stat."""
        pairs = (line.split() for line in self.read(name).splitlines())
        return {pair[0]: int(pair[1]) for pair in pairs if len(pair) == 2 and pair[1].isdigit()}

    def has(self, name: str) -> bool:
        """Whether it has a file of that name: the controller is enabled, and the kernel has the file."""
        return os.path.exists(os.path.join(self.path, name))

    def controllers(self) -> set[str]:
        """Return the controllers that are enabled for it."""
        try:
            return set(self.read("cgroup.controllers").split())
        except HostError:
            return set()

    def enable(self, controller: str) -> None:
        """Enable a controller for the groups in it. :raises InvalidState: it is not available."""
        if controller in self.read("cgroup.subtree_control").split():
            return
        try:
            self.write("cgroup.subtree_control", f"+{controller}")
        except (HostError, InvalidValue) as error:
            raise unavailable(controller, why_not(self.path, controller)) from error

    def processes(self) -> list[int]:
        """Return the pids of its processes, also in its threaded groups."""
        return [int(pid) for pid in self.read("cgroup.procs").split()]

    def add_process(self, pid: int) -> None:
        """Move a process with all its threads into it."""
        self.write("cgroup.procs", str(pid))

    def add_thread(self, tid: int) -> bool:
        """Move one thread into this threaded group; False where the thread has ended."""
        try:
            self.write("cgroup.threads", str(tid))
        except HostError as error:
            if isinstance(error.__cause__, ProcessLookupError):
                return False
            raise
        return True

    def threads(self) -> set[int]:
        """Return the ids of its threads, without those of groups in it."""
        return {int(tid) for tid in self.read("cgroup.threads").split()}

    def thread_groups(self) -> list[str]:
        """Return the names of the groups in it, sorted."""
        try:
            return sorted(entry.name for entry in os.scandir(self.path) if entry.is_dir(follow_symlinks=False))
        except FileNotFoundError:
            return []

    def thread_group(self, name: str) -> Group:
        """Return the threaded group of that name in it; it is made with the cpu controller where it is missing.

        :raises InvalidState: the cpu controller is not available.
        """
        found = self.child(name)
        if not found.exists():
            if "cpu" not in self.controllers():
                raise unavailable("cpu", self._why_not("cpu"))
            _make(found.path)
            # The controller is enabled afterwards: a group that distributes one already can't become threaded.
            found.write("cgroup.type", "threaded")
            self.enable("cpu")
        return found


def unavailable(controller: str, reason: str) -> InvalidState:
    """Return the error for a limit whose controller this host does not have."""
    return InvalidState(f"cgroup v2 controller '{controller}' is not available", hint=reason)


def mount_point(root: str = "") -> str:
    """Return where cgroup2 is mounted in this mount namespace, '' for nowhere (proc(5), mountinfo).

    :param root: a prefix for /proc, empty for this host's own.
    """
    found = ""
    with open(f"{root}/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as stream:
        for line in stream:
            head, _, tail = line.partition(" - ")
            if tail.startswith("cgroup2 "):
                point = head.split(" ")[4]
                for octal, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
                    point = point.replace(octal, char)
                # The main one of several is the nearest to the root.
                if not found or len(point) < len(found):
                    found = point
    return found


def top(tree: Tree, setting: str) -> str:
    """Return the path of the group that holds the groups of a tree's domains; it need not exist.

    :param setting: qkvm.toml's ``cgroup``: 'auto', or the parent group.
    :raises InvalidState: this host has no cgroup v2, or the setting names no group.
    """
    parent = mount_point() if setting == "auto" else setting
    if not parent:
        raise InvalidState("cgroup v2 is not mounted", hint="mount -t cgroup2 none /sys/fs/cgroup")
    if not os.path.exists(os.path.join(parent, "cgroup.procs")):
        raise InvalidState(f"{parent} is not a cgroup v2 group")
    return os.path.join(parent, tree.label)


def domain_group(tree: Tree, name: str, setting: str) -> Group:
    """Return the group of a domain, which need not exist; see :func:`top`."""
    return Group(os.path.join(top(tree, setting), name + _SUFFIX))


def create(group: Group) -> None:
    """Make the group of a domain with this host's controllers; an old one is replaced.

    :raises InvalidState: it is not empty. :raises HostError: groups can't be made here (read-only, no right).
    """
    parent = Group(os.path.dirname(group.path))
    _make(parent.path)
    for level in (Group(os.path.dirname(parent.path)), parent):
        for controller in WANTED:
            try:
                level.enable(controller)
            except InvalidState:
                # Setting a limit reports this; a domain without limits runs without the controller.
                continue
    remove(group.path)
    try:
        _make(group.path)
    except HostError:
        # The last other domain of this tree has just removed the top group.
        _make(parent.path)
        _make(group.path)


def _make(path: str) -> None:
    try:
        os.mkdir(path, 0o755)
    except FileExistsError:
        pass
    except OSError as error:
        raise os_error(error, f"cannot make control group {path}") from error


def remove(path: str, timeout: float = 2.0) -> bool:
    """Remove a domain's group, and the tree's if that was the last; return whether there was one.

    :param timeout: seconds to wait for a process that has just ended to leave it.
    :raises HostError: it is still in use, or there is no right to remove it.
    """
    if not path or not path.endswith(_SUFFIX) or not os.path.isdir(path):
        return False
    deadline = time.monotonic() + timeout
    for name in Group(path).thread_groups():
        _rmdir(os.path.join(path, name), deadline)
    _rmdir(path, deadline)
    # It stays if other domains have groups in it.
    with suppress(OSError):
        os.rmdir(os.path.dirname(path))
    return True


def _rmdir(path: str, deadline: float) -> None:
    while True:
        try:
            os.rmdir(path)
            return
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() >= deadline:
                raise os_error(error, f"cannot remove control group {path}") from error
        time.sleep(0.002)


def left_over(tree: Tree, setting: str) -> dict[str, str]:
    """Return the groups of a tree's domains: name of the domain -> path."""
    try:
        folder = top(tree, setting)
        names = os.listdir(folder)
    except (InvalidState, OSError):
        return {}
    return {
        name.removesuffix(_SUFFIX): os.path.join(folder, name) for name in sorted(names) if name.endswith(_SUFFIX)
    }


def why_not(parent: str, controller: str) -> str:
    """Return why the groups in ``parent`` lack a controller: the first group from the top that can't give it."""
    mount = mount_point()
    if not mount or not (parent == mount or parent.startswith(mount.rstrip("/") + "/")):
        return "cgroup v2 is not mounted"
    steps = [mount]
    for part in parent[len(mount) :].strip("/").split("/"):
        if part:
            steps.append(os.path.join(steps[-1], part))
    for step in steps:
        group = Group(step)
        if controller not in group.controllers():
            taken = "the host uses it in a v1 hierarchy; " if step == mount and v1_has(controller) else ""
            return f"{taken}{step}/cgroup.controllers has: {' '.join(sorted(group.controllers())) or 'none'}"
        if not os.access(os.path.join(step, "cgroup.subtree_control"), os.W_OK):
            return f"{step} is read-only"
        if controller not in group.read("cgroup.subtree_control").split():
            return f"{step}/cgroup.subtree_control does not take it: processes live in {step} itself"
    return f"{parent} does not have it"


def v1_has(controller: str, root: str = "") -> bool:
    """Whether a v1 hierarchy has the controller (/proc/cgroups: its hierarchy is not 0).

    :param root: as for :func:`mount_point`.
    """
    name = "blkio" if controller == "io" else controller
    try:
        with open(f"{root}/proc/cgroups", encoding="ascii") as stream:
            return any(line.split()[:1] == [name] and line.split()[1] != "0" for line in stream)
    except OSError:
        return False
