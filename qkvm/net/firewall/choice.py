"""The packet filter: one small protocol, two full backends.

Which backend? The one whose tables the host really uses, since rules in the other kind of tables are easy to
overlook and reload at another time. ``auto`` decides so:

1. ``iptables`` is the legacy program, or legacy tables are loaded while nft's ruleset is empty: iptables.
2. nft is installed and works: nftables.
3. legacy tables can be read: iptables.

Reading legacy tables through libiptc loads them, which would make the host look like a legacy one from then
on. So nothing here reads them before the choice is made, and a network's record keeps the name of its backend:
what was made by one is never looked for in the other.
"""

from __future__ import annotations

import os
from typing import Protocol

from qkvm.errors import HostError, InvalidValue, MissingProgram
from qkvm.net.firewall.plan import FirewallPlan


class Firewall(Protocol):
    """What a backend does. All raise HostError when the host lacks or refuses something."""

    name: str

    def check(self) -> None:
        """Find out whether this backend works on this host, without changing anything."""

    def apply(self, plan: FirewallPlan) -> None:
        """Bring the tables to what the plan says; a second time changes nothing."""

    def remove(self, plan: FirewallPlan) -> None:
        """Take away what was made for the plan's network, and nothing else; absence is no error."""

    def missing(self, plan: FirewallPlan) -> list[str]:
        """The rules of the plan that are not in force, one line of text each."""

    def surplus(self, plan: FirewallPlan) -> list[str]:
        """The network's rules that the plan does not have, or has once and the tables twice; a line each."""


def choose(setting: str = "auto") -> Firewall:
    """The backend for a new network.

    :param setting: auto, iptables or nftables. :raises MissingProgram: the host has neither.
    :raises HostError: the chosen one does not work here; better now than with half a network made.
    """
    chosen = backend(_live() if setting == "auto" else setting)
    chosen.check()
    return chosen


def live_name(setting: str = "auto") -> str:
    """The name of the backend that :func:`choose` would take, found without a look at whether it works.

    :raises InvalidValue: an unknown setting.
    """
    return backend(_live(check=False) if setting == "auto" else setting).name


def backend(name: str) -> Firewall:
    """The backend of that name, as a record keeps it. :raises InvalidValue: there is no such one."""
    if name == "iptables":
        from qkvm.net.firewall.iptables import Iptables

        return Iptables()
    if name == "nftables":
        from qkvm.net.firewall.nftables import Nftables

        return Nftables()
    raise InvalidValue(f"unknown firewall '{name}'", hint="auto, iptables or nftables")


def _live(*, check: bool = True) -> str:
    """The name of the backend whose tables this host uses.

    :param check: see whether legacy tables work, where nft does not; that loads them.
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
    """Whether the ``iptables`` of this host is the legacy one, through all links of the alternatives system."""
    from qkvm.host.process import find_program

    try:
        program = find_program("iptables", "", "")
    except HostError:
        return False
    return "legacy" in os.path.basename(os.path.realpath(program))


def _legacy_tables_loaded() -> bool:
    """Whether anything uses the legacy tables in this network namespace."""
    try:
        with open("/proc/thread-self/net/ip_tables_names", "rb") as stream:
            return bool(stream.read().strip())
    except OSError:
        return False
