"""Set up :mod:`qkvm.net.grant.helper` to run as root while any network is granted to a user.

Python can't be setuid, and qkvm has no daemon. Where systemd runs, it listens at a socket, starts the helper for
each connection, and the kernel names the peer; the helper has nothing of the user's environment, session or
control group. Elsewhere a rule of sudo's allows one program, without arguments, to the users who are granted a
network.
"""

from __future__ import annotations

import functools
import os
import stat
import sys
from shlex import quote
from typing import TYPE_CHECKING, NamedTuple

from qkvm.errors import AlreadyExists, HostError, MissingProgram
from qkvm.files import os_error, read_bytes, remove, write_atomic
from qkvm.host import process
from qkvm.net.grant import grants

if TYPE_CHECKING:
    from collections.abc import Iterable

    from qkvm.paths import Tree

_MARK = "# Written by qkvm net-grant, which also takes it away."

_SOCKET = """\
{mark}
[Unit]
Description=qkvm: taps for users who are granted a network

[Socket]
ListenStream={socket}
SocketMode=0666
Accept=yes
MaxConnections=16
# Of one user, where systemd counts them so.
MaxConnectionsPerSource=4
# Too many connections end each other, not the socket.
TriggerLimitBurst=0

[Install]
WantedBy=sockets.target
"""

_SERVICE = """\
{mark}
[Unit]
Description=qkvm: a tap for a user who is granted a network
CollectMode=inactive-or-failed

[Service]
ExecStart={command} accepted {root}
StandardInput=socket
StandardOutput=null
StandardError=journal
RuntimeMaxSec=120
# A dnsmasq that it started anew goes on.
KillMode=process
NoNewPrivileges=yes
"""

_PROGRAM = """\
#!/bin/sh
{mark}
exec {command} sudo {root}
"""

_RULE = '{who} ALL=(root) NOPASSWD: {program} ""\n'


class _File(NamedTuple):
    path: str
    text: str
    mode: int


def init(tree: Tree) -> str:
    """Return what starts the helper on this host: 'systemd' or 'sudo'."""
    return "systemd" if tree.root == "/" and os.path.isdir("/run/systemd/system") else "sudo"


def refresh(tree: Tree, *, kind: str = "") -> list[str]:
    """Write or remove what starts the helper, as the grants require; return warnings.

    :raises HostError: a user other than root could change this qkvm. :raises AlreadyExists: a file is another's.
    """
    kind = kind or init(tree)
    whom = {one.who for network in grants.networks(tree) for one in grants.load(tree, network)}
    wanted = _files(tree, kind, whom)
    if not whom:
        if kind == "systemd":
            _systemctl("disable", "--now", "qkvm-tap.socket")
        for file in wanted:
            _refuse_foreign(file.path)
            remove(file.path)
        return []
    check_code()
    for file in wanted:
        _refuse_foreign(file.path)
        _make_folder(os.path.dirname(file.path))
        write_atomic(file.path, file.text, file.mode)
        # The umask must not change it.
        os.chmod(file.path, file.mode)
    if kind == "systemd":
        _systemctl("daemon-reload")
        return [] if _systemctl("enable", "--now", "qkvm-tap.socket") else ["systemctl is not there"]
    return _check_sudo(wanted[-1].path)


def _files(tree: Tree, kind: str, whom: Iterable[str]) -> list[_File]:
    command_line = " ".join(map(quote, command()))
    fields = {"mark": _MARK, "socket": tree.tap_socket, "root": quote(tree.root), "command": command_line}
    if kind == "systemd":
        folder = os.path.join(tree.root, "etc/systemd/system")
        return [
            _File(os.path.join(folder, "qkvm-tap.socket"), _SOCKET.format(**fields), 0o644),
            _File(os.path.join(folder, "qkvm-tap@.service"), _SERVICE.format(**fields), 0o644),
        ]
    rules = "".join(_RULE.format(who=_sudo_name(who), program=tree.tap_program) for who in sorted(whom))
    return [
        _File(tree.tap_program, _PROGRAM.format(**fields), 0o755),
        _File(os.path.join(tree.root, "etc/sudoers.d/qkvm-tap"), f"{_MARK}\n{rules}", 0o440),
    ]


def command() -> list[str]:
    """Return the helper's command line without its arguments.

    It names a file: with -I, Python finds no module in the folder that Debian's package uses.
    """
    return [sys.executable, "-I", os.path.join(os.path.dirname(os.path.abspath(__file__)), "helper.py")]


def _sudo_name(who: str) -> str:
    """Return a user or group as sudoers(5) has it; names that a grant accepts need no escape there."""
    return f"%{who[1:]}" if who.startswith("@") else f"#{who}" if who.isdigit() else who


def _check_sudo(path: str) -> list[str]:
    """Have visudo check the rule: sudo works for nobody with a wrong one."""
    try:
        process.run([process.find_program("visudo", "a grant where no systemd runs", "sudo"), "-c", "-f", path])
    except MissingProgram as error:
        return [f"{error}; {error.hint}"]
    except HostError:
        remove(path)
        raise
    return []


def _systemctl(*words: str) -> bool:
    try:
        process.run([process.find_program("systemctl", "the helper for taps", "systemd"), *words])
    except MissingProgram:
        return False
    return True


def _make_folder(path: str) -> None:
    try:
        os.makedirs(path, mode=0o755, exist_ok=True)
    except OSError as error:
        raise os_error(error, f"cannot make {path}") from error


def _refuse_foreign(path: str) -> None:
    raw = read_bytes(path)
    if raw is not None and _MARK.encode() not in raw:
        raise AlreadyExists(f"{path} is there already and was not written by qkvm", hint="move it out of the way")


def check_code() -> None:
    """Refuse to run as root a qkvm that another user could change: interpreter, modules and what these import.

    :raises HostError: a file or folder on the way is another user's, or others can write it.
    """
    from qkvm.paths import package

    places = [sys.executable, os.path.realpath(sys.executable), sys.prefix, sys.base_prefix, *sys.path]
    for place in filter(os.path.isabs, places):
        _check_place(place)
    for folder, _, names in os.walk(package()):
        for name in ("", *names):
            _check_entry(os.path.join(folder, name))
    _check_place(package())


def _check_place(path: str) -> None:
    """Check a path and all folders above it, also those behind symbolic links."""
    for form in (path, os.path.realpath(path)):
        while True:
            _check_entry(form)
            if form == "/":
                break
            form = os.path.dirname(form)


def _check_entry(path: str) -> None:
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return
    mode = info.st_mode
    shared = mode & stat.S_IWOTH or (mode & stat.S_IWGRP and _has_members(info.st_gid))
    # In a sticky folder such as /tmp only root can remove or rename root's files; a link has no mode of its own.
    kept = (stat.S_ISDIR(mode) and mode & stat.S_ISVTX) or stat.S_ISLNK(mode)
    if info.st_uid != 0 or (shared and not kept):
        raise HostError(
            f"root can't be the helper of users with this qkvm: {path} is not root's alone to change",
            hint="install qkvm where only root can write: the package, or pip as root in /opt",
        )


@functools.cache
def _has_members(gid: int) -> bool:
    """Whether a group has members other than root; Debian's staff, which may own /usr/local, begins empty."""
    import grp
    import pwd

    try:
        listed = [name for name in grp.getgrgid(gid).gr_mem if name != "root"]
    except KeyError:
        return True
    return bool(listed) or any(one.pw_gid == gid and one.pw_uid for one in pwd.getpwall())
