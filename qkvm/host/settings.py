"""The administrator's settings: etc/qkvm/qkvm.toml. All have a default; the file may be absent."""

from __future__ import annotations

import os

from msgspec import Struct

from qkvm.errors import InvalidValue
from qkvm.files import read_bytes
from qkvm.host.programs import EMULATOR
from qkvm.paths import Tree
from qkvm.spec import toml


class Settings(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What holds for all domains and networks of this host.

    ``qemu`` is the emulator (a name on PATH or a path). ``user`` is whom QEMU becomes: 'auto' gives each run a
    uid of its own, 'root' leaves it root, 'UID:GID' or a name is taken as it is; without root it is who starts
    it. ``firewall`` is 'auto', 'iptables' or 'nftables'. ``serial_log_kib`` caps the serial log of a domain.
    ``trace`` keeps a transcript of what is said to each domain's QEMU and agent.
    ``cgroup`` is 'auto' (a group of qkvm's own at the top), 'off', or the path of a cgroup v2 group to make the
    domains' groups in.
    """

    qemu: str = EMULATOR
    user: str = "auto"
    firewall: str = "auto"
    serial_log_kib: int = 1024
    trace: bool = False
    cgroup: str = "auto"


def load(tree: Tree) -> Settings:
    """The settings of a tree.

    :raises DefinitionError: the file is not TOML or says what is not known.
    """
    raw = read_bytes(tree.settings)
    settings = toml.loads(raw or b"", Settings, tree.settings)
    if settings.firewall not in ("auto", "iptables", "nftables"):
        raise InvalidValue(
            f"{tree.settings}: firewall '{settings.firewall}' is not known", hint="auto, iptables or nftables"
        )
    if settings.serial_log_kib < 16:
        raise InvalidValue(
            f"{tree.settings}: serial_log_kib {settings.serial_log_kib} is too small", hint="16 or more"
        )
    if settings.cgroup not in ("auto", "off") and not settings.cgroup.startswith("/"):
        raise InvalidValue(
            f"{tree.settings}: cgroup '{settings.cgroup}' is not known", hint="auto, off, or a group's path"
        )
    return settings


_UID_BASE = 0x70000000
"""Above all ranges that systemd's "Users, Groups, UIDs and GIDs" gives to users and containers."""

_TPM_UID_BASE = 0x74000000
"""Likewise, for who keeps a TPM's secrets: the QEMU beside it must not read them."""


def run_as(user: str, ident: int) -> str:
    """The 'UID:GID' (or name) that QEMU becomes, empty where it is to stay who qkvm is.

    :param ident: the domain's id, unique for this boot, which makes the uid its own.
    """
    if user == "root" or os.geteuid() != 0:
        # Who is not root can become nobody else.
        return ""
    if user != "auto":
        return user
    uid = _own_uid(_UID_BASE + ident)
    return f"{uid}:{uid}"


def tpm_user(user: str, ident: int) -> tuple[int, int] | None:
    """The uid and gid of a domain's swtpm: its own where QEMU has one, else QEMU's; None where that is who we are.

    :raises InvalidValue: there is no such user.
    """
    if os.geteuid() != 0:
        return None
    if user == "auto":
        uid = _own_uid(_TPM_UID_BASE + ident)
        return uid, uid
    return user_ids(user) if user != "root" else None


def user_ids(user: str) -> tuple[int, int]:
    """The uid and gid that a name, or 'UID:GID', stands for, as QEMU reads them.

    :raises InvalidValue: there is no such user.
    """
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
    # Inside a user namespace only mapped ids can be taken; there nobody has to do.
    with open("/proc/self/uid_map", encoding="ascii") as stream:
        for line in stream:
            first, _, count = (int(field) for field in line.split())
            if first <= uid < first + count:
                return uid
    return 65534
