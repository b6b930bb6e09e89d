"""--cloud-init: the texts of a seed, from passwords and keys or from the user's own files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, NamedTuple

from qkvm.cli.common import read_text
from qkvm.cli.install.reader import Suboptions
from qkvm.cli.parse import UsageError
from qkvm.errors import HostError
from qkvm.storage.media.seed import Seed

if TYPE_CHECKING:
    from qkvm.cli.install.reader import Options
    from qkvm.spec.domain import Domain

_LETTERS = "abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ23456789"
"""Of what a password is made that people read and type: nothing that looks like another."""

_LENGTH = 16
"""57 letters to the 16th power: 93 bits."""

_SALT = "./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"


class Asked(NamedTuple):
    """A seed, and the password that was made up for it, to be told once; '' for none."""

    seed: Seed
    password: str


def seed(options: Options, domain: Domain) -> Asked | None:
    """The seed that --cloud-init asks for; None where it is not given.

    Without suboptions a root password is made up, and cloud-init disabled after the first boot, as virt-install
    does. A file for user-data or meta-data takes the place of all that would be written there.

    :raises HostError: a file can't be read.
    """
    if not options.has("cloud-init"):
        return None
    given = options.first("cloud-init")
    if not given.values:
        given = Suboptions(given.name, {"root-password-generate": "yes", "disable": "yes"})
    password = ""
    if given.has("user-data"):
        user_data = _file(given, "user-data")
    else:
        user_data, password = _user_data(given)
    meta_data = _file(given, "meta-data") if given.has("meta-data") else _meta_data(domain)
    network_config = _file(given, "network-config") if given.has("network-config") else ""
    return Asked(Seed(user_data, meta_data, network_config), password)


def _file(given: Suboptions, key: str) -> str:
    text, path = read_text(given.text(key))
    if not text:
        raise HostError(f"--cloud-init {key}: {path} is empty")
    return text


def _meta_data(domain: Domain) -> str:
    """The id by which cloud-init knows that it has done its work, and the host name."""
    name = "".join(char if char.isascii() and (char.isalnum() or char in ".-") else "-" for char in domain.name)
    return json.dumps({"instance-id": domain.uuid, "local-hostname": name.strip(".-") or "guest"}) + "\n"


def _user_data(given: Suboptions) -> tuple[str, str]:
    """user-data as cloud-init's #cloud-config, in JSON, which is YAML too; and the password that was made up."""
    config: dict[str, Any] = {}
    users: list[Any] = []
    password, made_up = _password(given)
    root_keys = [_key(path) for path in given.several("root-ssh-key")]
    cloud_keys = [_key(path) for path in given.several("clouduser-ssh-key")]
    if root_keys:
        users.append({"name": "root", "ssh_authorized_keys": root_keys})
        # Else root's key would only say that one should log in as somebody else.
        config["disable_root"] = False
    if root_keys or cloud_keys:
        config["users"] = ["default", *users]
    if cloud_keys:
        config["ssh_authorized_keys"] = cloud_keys
    if password:
        # The list, not users: CentOS 7's cloud-init knows no other.
        config["chpasswd"] = {"list": f"root:{hash_password(password)}\n", "expire": bool(made_up)}
    if given.flag("disable"):
        config["runcmd"] = ["echo 'disabled by qkvm install --cloud-init' >/etc/cloud/cloud-init.disabled"]
    return f"#cloud-config\n{json.dumps(config, indent=1)}\n", made_up


def _password(given: Suboptions) -> tuple[str, str]:
    """The root password, and the same where it was made up; both '' where there is none."""
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
    """The first line of a public key's file."""
    text, path = read_text(path)
    key = text.strip().split("\n", 1)[0].strip()
    if "PRIVATE KEY" in key or len(key.split()) < 2:
        raise UsageError(f"{path} holds no public SSH key", hint="such as ~/.ssh/id_ed25519.pub")
    return key


def _random(letters: str, length: int) -> str:
    from secrets import choice

    return "".join(choice(letters) for _ in range(length))


def hash_password(password: str) -> str:
    """A password as /etc/shadow has it: SHA-512 (crypt(5), $6$), by the C library's crypt.

    :raises HostError: there is no libcrypt.
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
