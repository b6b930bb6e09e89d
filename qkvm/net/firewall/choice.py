"""Choose the packet filter's backend: the one whose tables the host uses.

Rules in the other kind of tables are easily overlooked, and reloaded at another time. ``auto`` decides:

1. ``iptables`` is the legacy program, or legacy tables are loaded while nft's ruleset is empty: iptables.
2. nft is installed and works: nftables.
3. legacy tables can be read: iptables.

Reading legacy tables through libiptc loads them, and from then on the host looks like a legacy one. So nothing
here reads them before the choice, and a network's record keeps the name of its backend.
"""

from __future__ import annotations

import os
from typing import Protocol

from qkvm.errors import HostError, InvalidValue, MissingProgram
from qkvm.net.firewall.plan import FirewallPlan


class Firewall(Protocol):
    """What a backend does. All methods raise HostError when the host lacks or refuses something."""

    name: str

    def check(self) -> None:
        """Check that this backend works on this host; change nothing."""

    def apply(self, plan: FirewallPlan) -> None:
        """Bring the tables to the plan; a second time changes nothing."""

    def remove(self, plan: FirewallPlan) -> None:
        """Remove what was made for the plan's network, and nothing else; absence is no error."""

    def missing(self, plan: FirewallPlan) -> list[str]:
        """Return the plan's rules that are not in force, one line each."""

    def surplus(self, plan: FirewallPlan) -> list[str]:
        """Return the network's rules that the plan does not have, or that are there twice, one line each."""


def choose(setting: str = "auto") -> Firewall:
    """Return the backend for a new network.

    :param setting: auto, iptables or nftables. :raises MissingProgram: the host has neither.
    :raises HostError: the chosen backend does not work here.
    """
    chosen = backend(_live() if setting == "auto" else setting)
    chosen.check()
    return chosen


def live_name(setting: str = "auto") -> str:
    """Return the name of the backend that :func:`choose` would take, without checking that it works.

    :raises InvalidValue: an unknown setting.
    """
    return backend(_live(check=False) if setting == "auto" else setting).name


def backend(name: str) -> Firewall:
    """Return the backend of that name. :raises InvalidValue: there is none."""
    if name == "iptables":
        from qkvm.net.firewall.iptables import Iptables

        return Iptables()
    if name == "nftables":
        from qkvm.net.firewall.nftables import Nftables

        return Nftables()
    raise InvalidValue(f"unknown firewall '{name}'", hint="auto, iptables or nftables")


def _live(*, check: bool = True) -> str:
    """Return the name of the backend whose tables this host uses.

    :param check: whether to try legacy tables, where nft does not work; that loads them.
    """
    from qkvm.net.firewall import nftables

    tables = nftables.table_count()
    if _iptables_is_legacy() or (_legacy_tables_loaded() and not tables):
        return "iptables"
    if tables is not None:
        return "nftables"
    from qkvm.net.firewall import iptables

    try:
        if check:
            iptables.Iptables().check()
    except HostError as error:
        raise MissingProgram("nft", "the packet filter of a network", "nftables") from error
    return "iptables"


def _iptables_is_legacy() -> bool:
    """Whether this host's ``iptables`` is the legacy one, behind all links of the alternatives system."""
    from qkvm.host.process import find_program

    try:
        program = find_program("iptables", "", "")
    except HostError:
        return False
    return "legacy" in os.path.basename(os.path.realpath(program))


def _legacy_tables_loaded() -> bool:
    """Whether this network namespace uses the legacy tables."""
    try:
        with open("/proc/thread-self/net/ip_tables_names", "rb") as stream:
            return bool(stream.read().strip())
    except OSError:
        return False
