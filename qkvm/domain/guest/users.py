"""Set passwords and SSH keys of the guest's users by its agent."""

from __future__ import annotations

from base64 import b64encode
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from qkvm.domain.guest import agent as agents
from qkvm.errors import NotReached
from qkvm.units import check_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from qkvm.domain.handle import Handle
    from qkvm.qmp.agent import AgentSession


class _Keys(Struct):
    keys: tuple[str, ...]


def set_password(domain: Handle, user: str, password: str, *, encrypted: bool = False) -> None:
    """Set the password of a user of the guest (virsh set-user-password).

    :param encrypted: it is hashed already (crypt(5)). :raises AgentRefused: there is no such user.
    """
    check_text(password, "password")
    arguments = {
        "username": user,
        "password": b64encode(password.encode()).decode("ascii"),
        "crypted": encrypted,
    }
    with agents.session(domain) as agent:
        agent.execute("guest-set-user-password", arguments, kind=dict[str, Any])


def ssh_keys(domain: Handle, user: str) -> tuple[str, ...]:
    """Return the lines of a user's authorized_keys in the guest (virsh get-user-sshkeys)."""
    with agents.session(domain) as agent:
        return _keys(agent, user)


def add_ssh_keys(domain: Handle, user: str, keys: Sequence[str], *, reset: bool = False) -> None:
    """Authorize keys for a user of the guest (virsh set-user-sshkeys).

    :param reset: remove all others. :raises NotReached: the guest does not have them afterwards.
    """
    wanted = _lines(keys)
    with agents.session(domain) as agent:
        arguments = {"username": user, "keys": wanted, "reset": reset}
        agent.execute("guest-ssh-add-authorized-keys", arguments, kind=dict[str, Any])
        shown = _keys(agent, user)
    if not set(wanted) <= set(shown) or (reset and len(shown) > len(wanted)):
        raise NotReached(f"the guest shows other keys for user {user}", asked=wanted, reached=list(shown))


def remove_ssh_keys(domain: Handle, user: str, keys: Sequence[str]) -> None:
    """Remove authorized keys; it is no error if the user does not have one.

    :raises NotReached: the guest still has one.
    """
    unwanted = _lines(keys)
    with agents.session(domain) as agent:
        arguments = {"username": user, "keys": unwanted}
        agent.execute("guest-ssh-remove-authorized-keys", arguments, kind=dict[str, Any])
        shown = _keys(agent, user)
    if set(unwanted) & set(shown):
        raise NotReached(f"the guest still shows the keys of user {user}", asked=[], reached=list(shown))


def _keys(agent: AgentSession, user: str) -> tuple[str, ...]:
    return agent.execute("guest-ssh-get-authorized-keys", {"username": user}, kind=_Keys).keys


def _lines(keys: Sequence[str]) -> list[str]:
    """Return keys without empty lines and comments, which the agent refuses."""
    stripped = (check_text(key.strip(), "key") for key in keys)
    return [key for key in stripped if key and not key.startswith("#")]
