"""--cloud-init: make the texts of a seed from passwords and keys, or from the user's own files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from qkvm.cli.common import read_text
from qkvm.cli.install.reader import Suboptions
from qkvm.cli.parse import UsageError
from qkvm.domain.access import keys
from qkvm.errors import HostError, MissingProgram
from qkvm.storage.media.seed import Seed
from qkvm.units import host_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from qkvm.cli.install.reader import Options
    from qkvm.paths import Tree
    from qkvm.spec.domain import Domain

_LETTERS = "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
"""The characters of a generated password; none looks like another one."""

_LENGTH = 16
"""57 characters to the 16th power: 93 bits."""

_GENERATED = (*("root-password-generate", "root-password-file", "root-ssh-key", "clouduser-ssh-key", "disable"),)
"""Suboptions from which user-data is made."""

_SALT = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


_LOGIN = r"""
unit=serial-getty@ttyS0.service
[ -d /run/systemd/system ] && [ ! -e /run/systemd/system/$unit.d ] || exit 0
mkdir -p /run/systemd/system/$unit.d
printf '[Service]\nExecStart=\nExecStart=-/sbin/agetty --autologin root --noclear %%I 115200 $TERM\n' \
    >/run/systemd/system/$unit.d/qkvm.conf
systemctl daemon-reload
systemctl --no-block try-restart $unit
"""
"""Log root in on the serial console, to which only the owner of the guest gets. The first of two calls does it: an
image need not have both of cloud-init's modules, and bootcmd comes before the login is asked for."""


class Asked(NamedTuple):
    """A seed, and the password that was generated for it; '' if none was."""

    seed: Seed
    password: str


def seed(options: Options, domain: Domain, own_key: Callable[[], list[str]]) -> Asked | None:
    """Return the seed that --cloud-init asks for; None if it is not given.

    Without suboptions, generate a root password and disable cloud-init after the first boot, as virt-install
    does; root and the image's default user get qkvm's own key, which 'qkvm ssh' uses. A file for user-data or
    meta-data replaces the text that would be generated.

    :param own_key: returns qkvm's own public key, which is made at first need.
    :raises HostError: a file can't be read.
    """
    if not options.has("cloud-init"):
        return None
    given = options.first("cloud-init")
    password = ""
    own = [] if given.values else own_key()
    if not given.values:
        given = Suboptions(given.name, {"root-password-generate": "yes", "disable": "yes"})
    if given.has("user-data"):
        # The file may be a script or of many parts: nothing can be added to it.
        given.exclude(*_GENERATED, reason="user-data= is the whole text; write it there")
        user_data = _file(given, "user-data")
    else:
        user_data, password = _user_data(given, own)
    meta_data = _file(given, "meta-data") if given.has("meta-data") else _meta_data(domain)
    network_config = _file(given, "network-config") if given.has("network-config") else ""
    return Asked(Seed(user_data, meta_data, network_config), password)


def own(domain: Domain, keys: list[str]) -> Asked:
    """Return the seed of a guest of 'qkvm run': its name, these keys, and root on its serial console."""
    name = json.loads(_meta_data(domain))
    config: dict[str, Any] = {"bootcmd": [["sh", "-c", _LOGIN]], "runcmd": [["sh", "-c", _LOGIN]]}
    if keys:
        config |= {
            "users": ["default", {"name": "root", "ssh_authorized_keys": keys}],
            "ssh_authorized_keys": keys,
            "disable_root": False,
        }
    user_data = f"#cloud-config\n{json.dumps({'hostname': name['local-hostname'], **config}, indent=1)}\n"
    return Asked(Seed(user_data, _meta_data(domain)), "")


def _file(given: Suboptions, key: str) -> str:
    text, path = read_text(given.text(key))
    if not text:
        raise HostError(f"--cloud-init {key}: {path} is empty")
    return text


def _meta_data(domain: Domain) -> str:
    """Return meta-data: the host name, and the id by which cloud-init knows that it has already run."""
    return json.dumps({"instance-id": domain.uuid, "local-hostname": host_name(domain.name)}) + "\n"


def own_key(tree: Tree) -> list[str]:
    """Return qkvm's own public key; none where ssh is not installed, as a guest can do without."""
    try:
        return [keys.public_key(tree)]
    except MissingProgram:
        return []


def _user_data(given: Suboptions, own: list[str]) -> tuple[str, str]:
    """Return user-data (#cloud-config in JSON, which is valid YAML), and the generated password.

    :param own: keys for root and for the image's default user, beside those that were given.
    """
    config: dict[str, Any] = {}
    users: list[Any] = []
    password, made_up = _password(given)
    root_keys = [*own, *(_key(path) for path in given.several("root-ssh-key"))]
    cloud_keys = [*own, *(_key(path) for path in given.several("clouduser-ssh-key"))]
    if root_keys:
        users.append({"name": "root", "ssh_authorized_keys": root_keys})
        # With disable_root, root's key only prints a message to log in as another user.
        config["disable_root"] = False
    if root_keys or cloud_keys:
        config["users"] = ["default", *users]
    if cloud_keys:
        config["ssh_authorized_keys"] = cloud_keys
    if password:
        # CentOS 7's cloud-init knows "list" and not "users".
        config["chpasswd"] = {"list": f"root:{hash_password(password)}\n", "expire": bool(made_up)}
    if given.flag("disable"):
        config["runcmd"] = ["echo 'disabled by qkvm install --cloud-init' >/etc/cloud/cloud-init.disabled"]
    return f"#cloud-config\n{json.dumps(config, indent=1)}\n", made_up


def _password(given: Suboptions) -> tuple[str, str]:
    """Return the root password, and the generated one; each is '' if there is none."""
    if given.flag("root-password-generate"):
        given.exclude("root-password-file", reason="the password is made up")
        made_up = _random(_LETTERS, _LENGTH)
        return made_up, made_up
    if not given.has("root-password-file"):
        return "", ""
    first = _file(given, "root-password-file").split("\n", 1)[0]
    if not first or ":" in first and first.startswith("$"):
        raise UsageError("--cloud-init root-password-file: the first line is no password")
    return first, ""


def _key(path: str) -> str:
    """Return the first line of a public key file."""
    text, path = read_text(path)
    key = text.strip().split("\n", 1)[0].strip()
    if "PRIVATE KEY" in key or len(key.split()) < 2:
        raise UsageError(f"{path} holds no public SSH key", hint="such as ~/.ssh/id_ed25519.pub")
    return key


def _random(letters: str, length: int) -> str:
    from secrets import choice

    return "".join(choice(letters) for _ in range(length))


def hash_password(password: str) -> str:
    """Hash a password for /etc/shadow: SHA-512 (crypt(5), $6$), by the C library's crypt.

    :raises HostError: libcrypt is not installed.
    """
    import ctypes

    salt = f"$6${_random(_SALT, 16)}$"
    try:
        crypt = ctypes.CDLL("libcrypt.so.1", use_errno=True).crypt
    except OSError as error:
        raise HostError(
            "libcrypt.so.1 is not there; hashing a password needs it", hint="apt install libcrypt1"
        ) from error
    crypt.restype = ctypes.c_char_p
    crypt.argtypes = (ctypes.c_char_p, ctypes.c_char_p)
    hashed: bytes | None = crypt(password.encode(), salt.encode())
    if not hashed or not hashed.startswith(b"$6$"):
        raise HostError("libcrypt.so.1 can't hash with SHA-512")
    return hashed.decode()
