"""The administrator's settings: etc/qkvm/qkvm.toml. All have defaults; the file may be absent."""

from __future__ import annotations

import os

from msgspec import Struct

from qkvm.errors import InvalidValue
from qkvm.files import read_bytes
from qkvm.host.programs import EMULATOR
from qkvm.paths import Tree
from qkvm.spec import toml


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Settings for all domains and networks of this host.

    ``qemu``: the emulator (a name on PATH or a path). ``user``: the user that QEMU runs as: 'auto' for a uid of
    its own each run, 'root', 'UID:GID' or a name; without root's rights it is the user who starts it.
    ``firewall``: 'auto', 'iptables' or 'nftables'. ``serial_log_kib``: maximum size of a domain's serial log.
    ``trace``: whether to keep a transcript of what is said to each domain's QEMU and agent.
    ``cgroup``: 'auto' (qkvm's own group at the top), 'off', or the path of a cgroup v2 group for the domains'
    groups.
    """

    qemu: str = EMULATOR
    user: str = "auto"
    firewall: str = "auto"
    serial_log_kib: int = 1024
    trace: bool = False
    cgroup: str = "auto"


def load(tree: Tree) -> Settings:
    """Return the settings of a tree. :raises DefinitionError: no TOML, or unknown keys."""
    raw = read_bytes(tree.settings)
    settings = toml.loads(raw or b"", Settings, tree.settings)
    firewalls, problem, hint = ("auto", "iptables", "nftables"), "", ""
    if settings.firewall not in firewalls:
        problem, hint = f"firewall '{settings.firewall}' is not known", "auto, iptables or nftables"
    elif settings.serial_log_kib < 16:
        problem, hint = f"serial_log_kib {settings.serial_log_kib} is too small", "16 or more"
    elif settings.cgroup not in ("auto", "off") and not settings.cgroup.startswith("/"):
        problem, hint = f"cgroup '{settings.cgroup}' is not known", "auto, off, or a group's path"
    if problem:
        raise InvalidValue(f"{tree.settings}: {problem}", hint=hint)
    return settings


_UID_BASE = 0x70000000
"""Above all ranges in systemd's "Users, Groups, UIDs and GIDs" for users and containers."""

_TPM_UID_BASE = 0x74000000
"""The same for processes that hold a TPM's secrets, which the domain's QEMU must not read."""


def run_as(user: str, ident: int) -> str:
    """Return the 'UID:GID' (or name) that QEMU becomes, '' where it stays as it is.

    :param ident: the domain's id, unique in this boot, for its own uid.
    """
    if user == "root" or os.geteuid() != 0:
        # Only root can become another user.
        return ""
    if user != "auto":
        return user
    uid = _own_uid(_UID_BASE + ident)
    return f"{uid}:{uid}"


def tpm_user(user: str, ident: int) -> tuple[int, int] | None:
    """Return uid and gid of a domain's swtpm, None where it stays as it is. If QEMU has its own uid, so has swtpm.

    :raises InvalidValue: there is no such user.
    """
    if os.geteuid() != 0:
        return None
    if user == "auto":
        uid = _own_uid(_TPM_UID_BASE + ident)
        return uid, uid
    return user_ids(user) if user != "root" else None


def user_ids(user: str) -> tuple[int, int]:
    """Return the uid and gid of a name or 'UID:GID', as QEMU reads them. :raises InvalidValue: no such user."""
    uid, colon, gid = user.partition(":")
    if colon and uid.isdigit() and gid.isdigit():
        return int(uid), int(gid)
    import pwd

    try:
        found = pwd.getpwnam(user)
    except KeyError:
        raise InvalidValue(f"user '{user}' of qkvm.toml does not exist") from None
    return found.pw_uid, found.pw_gid


def _own_uid(uid: int) -> int:
    # In a user namespace with few mapped ids, QEMU runs as 'nobody'.
    with open("/proc/self/uid_map", encoding="ascii") as stream:
        for line in stream:
            first, _, count = (int(field) for field in line.split())
            if first <= uid < first + count:
                return uid
    return 65534
