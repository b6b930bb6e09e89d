"""Packet filter rules in the legacy tables, through python-iptables (libiptc).

What this library leaves to its user (version 1.2.0): it takes no xtables lock, so edits can be lost; a Table is
one object a process that keeps its handle when the namespace changes; and errors of a commit while a table is
freed are swallowed. So each edit here is: take the lock that iptables takes, refresh, edit, commit, refresh, look.
Rules are in chains of our own, to which the built-in ones jump; each carries the network's tag as a comment, and
only tagged rules are ever deleted.
"""

from __future__ import annotations

import errno
import os
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from qkvm.errors import HostError
from qkvm.net.firewall import legacy, xtables
from qkvm.net.firewall.plan import Family, FirewallPlan, Hook, Rule, Verdict, rules
from qkvm.net.firewall.save import CHAINS, REJECT, destination, line, span
from qkvm.net.firewall.xtables import errno_, library, lock, open_table

_PROTOCOLS = {"tcp": "tcp", "udp": "udp", "icmpv6": "58"}
"""python-iptables knows ICMPv6 only by its number (RFC 4443)."""

_HEADER = 32
"""Bytes of xt_entry_match and xt_entry_target before an extension's own data (linux/netfilter/x_tables.h)."""

_TABLES = tuple((family, name) for family in Family for name in ("filter", "nat", "mangle"))

_RETRIES = 20
"""How often an edit is retried that lost against a process without the lock."""


class Iptables:
    """The legacy iptables backend."""

    name = "iptables"

    def check(self) -> None:
        """Read the tables, which loads them in this network namespace. :raises HostError: that is impossible."""
        with lock():
            for family, name in _TABLES:
                # Those of IPv6 are loaded for a network that has it.
                if family is Family.IP:
                    open_table((family, name))

    def apply(self, plan: FirewallPlan) -> None:
        """Bring the network's rules in all tables to the plan."""
        with lock():
            for table in _tables(plan):
                _until(table, lambda opened: _apply(opened, plan), lambda opened: not _differs(opened, plan))

    def remove(self, plan: FirewallPlan) -> None:
        """Delete the network's rules, then those of our chains that are empty."""
        with lock():
            for table in _tables(plan):
                _until(table, lambda opened: _remove(opened, plan.tag), lambda it: not _tagged(it, plan.tag))

    def missing(self, plan: FirewallPlan) -> list[str]:
        """Return the plan's rules (and jumps to their chains) that are not in force."""
        with lock():
            return [line for table in _tables(plan) for line in _lacks(open_table(table), plan)]

    def surplus(self, plan: FirewallPlan) -> list[str]:
        """Return the tagged rules that the plan does not have (that often), and the jumps beyond the first."""
        with lock():
            return [line for table in _tables(plan) for line in _excess(open_table(table), plan)]


# One edit.


def _tables(plan: FirewallPlan) -> list[tuple[Family, str]]:
    """Return the tables in which a network has rules or may have had some; IPv6's only where it can have IPv6."""
    families = {Family.IP6 if ":" in subnet else Family.IP for subnet in plan.subnets} or set(Family)
    if plan.opens:
        return [(family, "filter") for family in families if "filter" in legacy.loaded(family)]
    return [table for table in _TABLES if table[0] in families]


def _until(table: tuple[Family, str], edit: Callable[[Any], bool], done: Callable[[Any], bool]) -> None:
    """Edit a table until a fresh look shows the edit.

    The kernel refuses a commit (EAGAIN) where the number of rules has changed since they were read. Where a
    program without the lock changed them and the number is the same, the later commit undoes the earlier.
    """
    iptc = library()
    last: Exception | None = None
    for attempt in range(_RETRIES):
        opened = open_table(table)
        try:
            if not edit(opened):
                return
            opened.commit()
        except iptc.IPTCError as error:
            if errno_() != errno.EAGAIN:
                raise HostError(f"cannot change the {table[1]} table: {os.strerror(errno_())}") from error
            last = error
            time.sleep(0.001 * attempt)
            continue
        if done(open_table(table)):
            return
    raise HostError(
        f"the {table[1]} table changes faster than it can be written",
        hint="another program edits it without taking /run/xtables.lock",
    ) from last


def _apply(table: Any, plan: FirewallPlan) -> bool:
    """Bring an open table to the plan; return False where nothing had to change."""
    changed = False
    for hook, (name, builtin, chain) in CHAINS.items():
        if name != table.name:
            continue
        mine = _mine(table, plan, hook)
        if not mine:
            changed |= _clear(table, builtin, chain, plan.tag)
            continue
        if not table.is_chain(chain):
            table.create_chain(chain)
            changed = True
        built = [_build(table, rule, plan.tag) for rule in mine]
        ours = _ours(table, chain, plan.tag)
        if [_content(table, entry) for _, entry in ours] == [_rule_content(rule) for rule in built]:
            continue
        _delete(table, chain, [number for number, _ in ours])
        for rule in built:
            table.append_entry(chain, rule.rule)
        changed = True
    return _ensure_jumps(table) or changed


def _remove(table: Any, tag: str) -> bool:
    """Delete the tagged rules of an open table, and our empty chains; return False where there were none."""
    changed = False
    for name, builtin, chain in CHAINS.values():
        if name == table.name:
            changed |= _clear(table, builtin, chain, tag)
    return changed


def _clear(table: Any, builtin: str, chain: str, tag: str) -> bool:
    """Delete the tagged rules of one of our chains, and the chain itself if it is empty then."""
    if not table.is_chain(chain):
        return False
    ours = _ours(table, chain, tag)
    _delete(table, chain, [number for number, _ in ours])
    if xtables.rules(table, chain):
        return bool(ours)
    jumps = enumerate(xtables.rules(table, builtin))
    _delete(table, builtin, [number for number, entry in jumps if xtables.is_jump(table, entry, chain)])
    # A foreign rule that jumps there keeps the chain alive.
    if not any(
        xtables.target(table, entry) == chain
        for other in table.chains
        for entry in xtables.rules(table, other.name)
    ):
        table.delete_chain(chain)
    return True


def _mine(table: Any, plan: FirewallPlan, hook: Hook) -> list[Rule]:
    """Return the plan's rules of a hook that belong in an open table."""
    return [rule for rule in rules(plan) if rule.hook is hook and rule.family is _family(table)]


def _family(table: Any) -> Family:
    return Family.IP6 if isinstance(table, library().Table6) else Family.IP


def _ensure_jumps(table: Any) -> bool:
    """Have the built-in chains jump to ours, once each and in order, in front of what drops everything.

    Return False where they do. Others' rules in front of our jumps that drop less stay there.
    """
    changed = False
    for builtin, chains in _jumps(table).items():
        if _jumps_well(table, builtin, chains):
            continue
        numbers = [
            number
            for number, entry in enumerate(xtables.rules(table, builtin))
            if any(xtables.is_jump(table, entry, chain) for chain in chains)
        ]
        _delete(table, builtin, numbers)
        for chain in reversed(chains):
            jump = _new_rule(table)
            jump.create_target(chain)
            table.insert_entry(builtin, jump.rule, 0)
        changed = True
    return changed


def _jumps(table: Any) -> dict[str, list[str]]:
    """Return our chains in an open table, in order, by the built-in chain that jumps to them."""
    found: dict[str, list[str]] = {}
    for name, builtin, chain in reversed(CHAINS.values()):
        if name == table.name and table.is_chain(chain):
            found.setdefault(builtin, []).append(chain)
    return found


def _jumps_well(table: Any, builtin: str, chains: list[str]) -> bool:
    """Whether a built-in chain has our jumps once each, in order, in front of what drops everything."""
    met: list[str] = []
    for entry in xtables.rules(table, builtin):
        chain = xtables.target(table, entry)
        if legacy.drops(table, entry) and met != chains:
            return False
        if xtables.is_plain(entry) and chain in chains:
            met.append(chain)
    return met == chains


def _lacks(table: Any, plan: FirewallPlan) -> list[str]:
    """Return the plan's lines of iptables-save that an open table lacks."""
    lacking: list[str] = []
    for hook, (name, builtin, chain) in CHAINS.items():
        mine = _mine(table, plan, hook) if name == table.name else []
        if not mine:
            continue
        if not any(xtables.is_jump(table, entry, chain) for entry in xtables.rules(table, builtin)):
            lacking.append(f"-A {builtin} -j {chain}")
        present = [_content(table, entry) for _, entry in _ours(table, chain, plan.tag)]
        lacking += [
            line(rule, chain, plan.tag)
            for rule in mine
            if _rule_content(_build(table, rule, plan.tag)) not in present
        ]
    return lacking


def _excess(table: Any, plan: FirewallPlan) -> list[str]:
    """Return what an open table has of ours beyond the plan, in words."""
    found = []
    for hook, (name, builtin, chain) in CHAINS.items():
        if name != table.name or not table.is_chain(chain):
            continue
        left = Counter(_rule_content(_build(table, rule, plan.tag)) for rule in _mine(table, plan, hook))
        for number, entry in _ours(table, chain, plan.tag):
            left[_content(table, entry)] -= 1
            if left[_content(table, entry)] < 0:
                found.append(f"rule {number + 1} of {chain}")
        jumps = sum(xtables.is_jump(table, entry, chain) for entry in xtables.rules(table, builtin))
        found += [f"-A {builtin} -j {chain}"] * (jumps - 1)
    return found


def _differs(table: Any, plan: FirewallPlan) -> bool:
    """Whether an open table lacks a rule of the plan, or has a tagged rule that is not in it."""
    ours = sum(len(_ours(table, chain, plan.tag)) for name, _, chain in CHAINS.values() if name == table.name)
    wanted = sum(len(_mine(table, plan, hook)) for hook, (name, _, _) in CHAINS.items() if name == table.name)
    return ours != wanted or bool(_lacks(table, plan))


def _tagged(table: Any, tag: str) -> bool:
    return any(_ours(table, chain, tag) for name, _, chain in CHAINS.values() if name == table.name)


# Rules of ours, as the library reads them.


def _ours(table: Any, chain: str, tag: str) -> list[tuple[int, Any]]:
    """Return number and raw form of the rules in a chain that carry the tag."""
    numbered = enumerate(xtables.rules(table, chain))
    return [(number, entry) for number, entry in numbered if xtables.comment(entry) == tag]


def _content(table: Any, entry: Any) -> tuple[object, ...]:
    """Return what a rule of ours says, without its counters."""
    return _rule_content(_new_rule(table, entry))


def _rule_content(rule: Any) -> tuple[object, ...]:
    """Return the bytes of a rule's conditions and target that userspace sets, to compare two rules."""
    target = rule.target
    name = bytes(target.target.u.user.name)
    # Built-in targets hold a number that is known only once the table is written.
    data = b"" if name in (b"ACCEPT", b"DROP", b"RETURN") else bytes(target._target_buf[_HEADER : target.usersize])
    matches = tuple((match.name, bytes(match.match_buf[_HEADER : match.usersize])) for match in rule.matches)
    return (xtables.header(rule.entry), matches, name, data)


def _delete(table: Any, chain: str, numbers: list[int]) -> None:
    """Delete rules by number, from the last on, so that the other numbers still hold.

    The library has no method for this, only libiptc's function. :raises IPTCError: libiptc refuses.
    """
    for number in reversed(numbers):
        if table._iptc.iptc_delete_num_entry(chain.encode(), number, table._handle) != 1:
            raise library().IPTCError(f"can't delete rule {number} of {chain}")


def _new_rule(table: Any, entry: Any = None) -> Any:
    """Return a rule of python-iptables, empty or read from a raw one, that belongs to one table.

    The library's own Rule opens all five tables to find out whether a target is a chain, which loads them in this
    network namespace for good.
    """
    iptc = library()
    base = iptc.Rule6 if _family(table) is Family.IP6 else iptc.Rule
    kind = type("Rule", (base,), {"tables": [table]})
    return kind(entry, iptc.Chain(table, "")) if entry is not None else kind()


# Rules of the plan.


def _build(table: Any, rule: Rule, tag: str) -> Any:
    """Return a rule of the plan as one of python-iptables, with the tag as its comment."""
    built = _new_rule(table)
    if rule.source:
        built.src = rule.source
    if rule.destination:
        built.dst = ("!" if rule.not_destination else "") + rule.destination
    if rule.in_interface:
        built.in_interface = rule.in_interface
    if rule.out_interface:
        built.out_interface = rule.out_interface
    if rule.protocol:
        built.protocol = _PROTOCOLS[rule.protocol]
    if rule.ports:
        _set(built.create_match(rule.protocol), dport=span(rule.ports, ":"))
    if rule.local:
        _set(built.create_match("addrtype"), dst_type="LOCAL")
    if rule.established:
        _set(built.create_match("conntrack"), ctstate="RELATED,ESTABLISHED")
    if rule.translated:
        _set(built.create_match("conntrack"), ctstate="DNAT")
    _set(built.create_match("comment"), comment=tag)
    target = built.create_target(rule.verdict.value)
    if rule.verdict is Verdict.REJECT:
        _set(target, reject_with=REJECT[rule.family])
    elif rule.verdict is Verdict.CHECKSUM:
        _set(target, checksum_fill="")
    elif rule.verdict is Verdict.DNAT:
        _set(target, to_destination=destination(rule))
    elif rule.to_ports:
        _set(target, to_ports=span(rule.to_ports, "-"))
    elif rule.verdict is Verdict.MASQUERADE:
        _set(target)
    return built


def _set(module: Any, **parameters: str) -> None:
    """Set a match's or target's parameters and let its extension complete them.

    The library's own final_check(), which Chain.append_rule calls too, redirects this process's stdout for a
    moment to read the parameters back; another thread's output would go astray.
    """
    for name, value in parameters.items():
        setattr(module, name, value)
    module._final_check()
