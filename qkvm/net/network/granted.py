"""Grant a network to other users, and take a grant back with all that they have by it (qkvm net-grant)."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from qkvm.errors import InvalidState
from qkvm.net import run
from qkvm.net.grant import grants, handout, right
from qkvm.net.network.handle import Handle
from qkvm.spec.grant import Grant

if TYPE_CHECKING:
    from qkvm.paths import Tree


class Granted(NamedTuple):
    """A grant of a network; ``used`` counts the NICs that users have by it now."""

    network: str
    grant: Grant
    used: int


def allow(network: Handle, who: str, *, taps: int | None = None, isolated: bool = True) -> list[str]:
    """Grant the network to a user, or to a group as '@NAME'; return warnings.

    :param taps: how many NICs each user may have; None for the default. :param isolated: whether guests of users
        can't reach each other.
    :raises NotFound: no such user or group. :raises InvalidState: the network has no DHCP.
    """
    if network.definition.dhcp is None:
        raise InvalidState(
            f"network '{network.name}' gives no addresses by DHCP",
            hint="what a user's guest sends is filtered by the address that DHCP keeps for it",
        )
    right.check_code()
    wanted = {} if taps is None else {"taps": taps}
    grants.allow(network.tree, network.name, Grant(who=who, isolated=isolated, **wanted))
    return _settle(network)


def revoke(network: Handle, who: str) -> list[str]:
    """Take a grant back, and remove the NICs that users have by it; return warnings.

    :raises NotFound: there is no such grant.
    """
    grants.revoke(network.tree, network.name, who)
    return _settle(network)


def _settle(network: Handle) -> list[str]:
    handout.enforce(network.tree, network.name)
    return right.refresh(network.tree)


def listing(network: Handle) -> list[Granted]:
    """Return the grants of a network."""
    tree, name = network.tree, network.name
    live = handout.live(run.read(tree, name) or {})
    return [
        Granted(name, one, sum(grants.of(tree, name, entry["uid"]) == one for entry in live))
        for one in grants.load(tree, name)
    ]


def all_grants(tree: Tree) -> list[Granted]:
    """Return the grants of all networks."""
    return [one for name in grants.networks(tree) for one in listing(Handle(tree, name))]
