"""Packet filter rules in the legacy tables, through python-iptables (libiptc).

What this library leaves to its user (version 1.2.0): it takes no xtables lock, so that an edit may be lost or
undo another's; a Table is one object a process that keeps its handle when the namespace changes; and a commit
that happens while a table is freed has its errors swallowed. So each edit here is: take the lock that
iptables takes, refresh, edit, commit, refresh, look. Rules sit in chains of our own, which are jumped to from
the built-in ones; each carries the network's tag as a comment, and only tagged rules are ever deleted.
"""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from qkvm.errors import Busy, HostError
from qkvm.files import os_error
from qkvm.net.firewall import entries
from qkvm.net.plan import Family, FirewallPlan, Hook, Rule, Verdict, rules

_CHAINS = {
    Hook.DNAT: ("nat", "PREROUTING", "QKVM_PRE"),
    Hook.DNAT_OWN: ("nat", "OUTPUT", "QKVM_PRO"),
    Hook.INPUT: ("filter", "INPUT", "QKVM_INP"),
    Hook.OUTPUT: ("filter", "OUTPUT", "QKVM_OUT"),
    # Inserted in this order, each first: packets meet FWX, then FWI, then FWO, as with libvirt.
    Hook.FORWARD_OUT: ("filter", "FORWARD", "QKVM_FWO"),
    Hook.FORWARD_IN: ("filter", "FORWARD", "QKVM_FWI"),
    Hook.FORWARD_CROSS: ("filter", "FORWARD", "QKVM_FWX"),
    Hook.NAT: ("nat", "POSTROUTING", "QKVM_PRT"),
    Hook.MANGLE: ("mangle", "POSTROUTING", "QKVM_PRT"),
}
"""Table, built-in chain and our chain of each hook."""

_PROTOCOLS = {"tcp": "tcp", "udp": "udp", "icmpv6": "58"}
"""python-iptables knows ICMPv6 by its number alone (RFC 4443)."""

_REJECT = {Family.IP: "icmp-port-unreachable", Family.IP6: "icmp6-port-unreachable"}

_HEADER = 32
"""Bytes of xt_entry_match and xt_entry_target in front of an extension's own (linux/netfilter/x_tables.h)."""

_TABLES = tuple((family, name) for family in Family for name in ("filter", "nat", "mangle"))

_LOCK_SECONDS = 30.0

_RETRIES = 20
"""How often an edit that lost against a process without the lock is tried again."""

_HINT = "apt install iptables (its libraries are needed), and a kernel with the legacy ip_tables"


def lines(plan: FirewallPlan, family: Family = Family.IP) -> dict[str, list[str]]:
    """The plan as iptables-save (ip6tables-save) prints it, by table."""
    found: dict[str, list[str]] = {}
    for rule in rules(plan):
        if rule.family is family:
            table, _, chain = _CHAINS[rule.hook]
            found.setdefault(table, []).append(_line(rule, chain, plan.tag))
    return found


class Iptables:
    """The legacy iptables backend."""

    name = "iptables"

    def check(self) -> None:
        """Read the tables, which loads them in this network namespace. :raises HostError: that is impossible."""
        with _locked():
            for family, name in _TABLES:
                # Those of IPv6 are loaded for a network that has it.
                if family is Family.IP:
                    _open((family, name))

    def apply(self, plan: FirewallPlan) -> None:
        """Bring the network's rules in all tables to what the plan says, others' left alone."""
        with _locked():
            for table in _tables(plan):
                _until(table, lambda opened: _apply(opened, plan), lambda opened: not _differs(opened, plan))

    def remove(self, plan: FirewallPlan) -> None:
        """Delete the network's rules, then those of our chains that are empty."""
        with _locked():
            for table in _tables(plan):
                _until(
                    table, lambda opened: _remove(opened, plan.tag), lambda opened: not _tagged(opened, plan.tag)
                )

    def missing(self, plan: FirewallPlan) -> list[str]:
        """The plan's rules (and jumps to their chains) that are not in force."""
        with _locked():
            return [line for table in _tables(plan) for line in _lacks(_open(table), plan)]


# One edit.


def _tables(plan: FirewallPlan) -> list[tuple[Family, str]]:
    """The tables that a network has rules in, or may have had: those of IPv6 only where it can have one."""
    families = {Family.IP6 if ":" in subnet else Family.IP for subnet in plan.subnets} or set(Family)
    return [table for table in _TABLES if table[0] in families]


def _until(table: tuple[Family, str], edit: Callable[[Any], bool], done: Callable[[Any], bool]) -> None:
    """Edit a table until a fresh look shows the edit.

    The kernel refuses a commit (EAGAIN) where the number of rules has changed since they were read. Where a
    program without the lock changed them and the number is the same, the later commit undoes the earlier.
    """
    iptc = _iptc()
    last: Exception | None = None
    for attempt in range(_RETRIES):
        opened = _open(table)
        try:
            if not edit(opened):
                return
            opened.commit()
        except iptc.IPTCError as error:
            if _errno() != errno.EAGAIN:
                raise HostError(f"cannot change the {table[1]} table: {os.strerror(_errno())}") from error
            last = error
            time.sleep(0.001 * attempt)
            continue
        if done(_open(table)):
            return
    raise HostError(
        f"the {table[1]} table changes faster than it can be written",
        hint="another program edits it without taking /run/xtables.lock",
    ) from last


def _apply(table: Any, plan: FirewallPlan) -> bool:
    """Bring an open table to the plan; False where nothing had to be changed."""
    changed = False
    for hook, (name, builtin, chain) in _CHAINS.items():
        if name != table.name:
            continue
        mine = _mine(table, plan, hook)
        if not mine:
            changed |= _clear(table, builtin, chain, plan.tag)
            continue
        if not table.is_chain(chain):
            table.create_chain(chain)
            changed = True
        changed |= _ensure_jump(table, builtin, chain)
        built = [_build(table, rule, plan.tag) for rule in mine]
        ours = _ours(table, chain, plan.tag)
        if [_content(table, entry) for _, entry in ours] == [_rule_content(rule) for rule in built]:
            continue
        _delete(table, chain, [number for number, _ in ours])
        for rule in built:
            table.append_entry(chain, rule.rule)
        changed = True
    return changed


def _remove(table: Any, tag: str) -> bool:
    """Delete the tagged rules of an open table, and our chains that hold no rule; False where none was there."""
    changed = False
    for name, builtin, chain in _CHAINS.values():
        if name == table.name:
            changed |= _clear(table, builtin, chain, tag)
    return changed


def _clear(table: Any, builtin: str, chain: str, tag: str) -> bool:
    """Delete the tagged rules of one of our chains, and the chain where it holds no rule then."""
    if not table.is_chain(chain):
        return False
    ours = _ours(table, chain, tag)
    _delete(table, chain, [number for number, _ in ours])
    if entries.rules(table, chain):
        return bool(ours)
    jumps = enumerate(entries.rules(table, builtin))
    _delete(table, builtin, [number for number, entry in jumps if entries.is_jump(table, entry, chain)])
    # A foreign rule that jumps there keeps the chain alive.
    if not any(
        entries.target(table, entry) == chain
        for other in table.chains
        for entry in entries.rules(table, other.name)
    ):
        table.delete_chain(chain)
    return True


def _mine(table: Any, plan: FirewallPlan, hook: Hook) -> list[Rule]:
    """The plan's rules of a hook that belong into an open table."""
    return [rule for rule in rules(plan) if rule.hook is hook and rule.family is _family(table)]


def _family(table: Any) -> Family:
    return Family.IP6 if isinstance(table, _iptc().Table6) else Family.IP


def _ensure_jump(table: Any, builtin: str, chain: str) -> bool:
    """A jump to our chain from a built-in one, in front of what is there; False where there is one."""
    if any(entries.is_jump(table, entry, chain) for entry in entries.rules(table, builtin)):
        return False
    jump = _new_rule(table)
    jump.create_target(chain)
    table.insert_entry(builtin, jump.rule, 0)
    return True


def _lacks(table: Any, plan: FirewallPlan) -> list[str]:
    """Lines of iptables-save that the plan asks for and an open table does not have."""
    lacking: list[str] = []
    for hook, (name, builtin, chain) in _CHAINS.items():
        mine = _mine(table, plan, hook) if name == table.name else []
        if not mine:
            continue
        if not any(entries.is_jump(table, entry, chain) for entry in entries.rules(table, builtin)):
            lacking.append(f"-A {builtin} -j {chain}")
        present = [_content(table, entry) for _, entry in _ours(table, chain, plan.tag)]
        lacking += [
            _line(rule, chain, plan.tag)
            for rule in mine
            if _rule_content(_build(table, rule, plan.tag)) not in present
        ]
    return lacking


def _differs(table: Any, plan: FirewallPlan) -> bool:
    """Whether an open table lacks something of the plan, or has a tagged rule that is not of it."""
    ours = sum(
        len(_ours(table, chain, plan.tag)) for name, _, chain in _CHAINS.values() if name == table.name
    )  # fmt: skip
    wanted = sum(len(_mine(table, plan, hook)) for hook, (name, _, _) in _CHAINS.items() if name == table.name)
    return ours != wanted or bool(_lacks(table, plan))


def _tagged(table: Any, tag: str) -> bool:
    return any(_ours(table, chain, tag) for name, _, chain in _CHAINS.values() if name == table.name)


# Rules of ours, as the library reads them.


def _ours(table: Any, chain: str, tag: str) -> list[tuple[int, Any]]:
    """Number and raw form of the rules in a chain that carry the tag."""
    return [
        (number, entry)
        for number, entry in enumerate(entries.rules(table, chain))
        if entries.comment(entry) == tag
    ]


def _content(table: Any, entry: Any) -> tuple[object, ...]:
    """What a rule of ours says, without its counters."""
    return _rule_content(_new_rule(table, entry))


def _rule_content(rule: Any) -> tuple[object, ...]:
    """The bytes of a rule's conditions and target that userspace sets, to compare two."""
    target = rule.target
    name = bytes(target.target.u.user.name)
    # Built-in targets hold a number there that is known only once the table is written.
    data = b"" if name in (b"ACCEPT", b"DROP", b"RETURN") else bytes(target._target_buf[_HEADER : target.usersize])
    matches = tuple((match.name, bytes(match.match_buf[_HEADER : match.usersize])) for match in rule.matches)
    return (entries.header(rule.entry), matches, name, data)


def _delete(table: Any, chain: str, numbers: list[int]) -> None:
    """Delete rules by number, from the last on, so that each number still holds when it is used.

    :raises IPTCError: libiptc refuses. The library has no method for this, only libiptc's function.
    """
    for number in reversed(numbers):
        if table._iptc.iptc_delete_num_entry(chain.encode(), number, table._handle) != 1:
            raise _iptc().IPTCError(f"can't delete rule {number} of {chain}")


def _new_rule(table: Any, entry: Any = None) -> Any:
    """A rule of python-iptables, empty or read from a raw one, that belongs to one table.

    The library's own Rule opens all five tables to find out whether a target is a chain, which loads them in
    this network namespace for good.
    """
    iptc = _iptc()
    base = iptc.Rule6 if _family(table) is Family.IP6 else iptc.Rule
    kind = type("Rule", (base,), {"tables": [table]})
    return kind(entry, iptc.Chain(table, "")) if entry is not None else kind()


# Rules of the plan.


def _build(table: Any, rule: Rule, tag: str) -> Any:
    """A rule of the plan as one of python-iptables, with the tag as its comment."""
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
        _set(built.create_match(rule.protocol), dport=_range(rule.ports, ":"))
    if rule.local:
        _set(built.create_match("addrtype"), dst_type="LOCAL")
    if rule.established:
        _set(built.create_match("conntrack"), ctstate="RELATED,ESTABLISHED")
    if rule.translated:
        _set(built.create_match("conntrack"), ctstate="DNAT")
    _set(built.create_match("comment"), comment=tag)
    target = built.create_target(rule.verdict.value)
    if rule.verdict is Verdict.REJECT:
        _set(target, reject_with=_REJECT[rule.family])
    elif rule.verdict is Verdict.CHECKSUM:
        _set(target, checksum_fill="")
    elif rule.verdict is Verdict.DNAT:
        _set(target, to_destination=_destination(rule))
    elif rule.to_ports:
        _set(target, to_ports=_range(rule.to_ports, "-"))
    elif rule.verdict is Verdict.MASQUERADE:
        _set(target)
    return built


def _range(ports: tuple[int, int], dash: str) -> str:
    first, last = ports
    return str(first) if first == last else f"{first}{dash}{last}"


def _destination(rule: Rule) -> str:
    """What DNAT changes a destination to: an address, with a port where that changes too."""
    if rule.to_ports is None:
        return rule.to
    address = f"[{rule.to}]" if rule.family is Family.IP6 else rule.to
    return f"{address}:{_range(rule.to_ports, '-')}"


def _set(module: Any, **parameters: str) -> None:
    """Set a match's or target's parameters and let its extension complete them.

    Not the library's own final_check(), which Chain.append_rule calls too: to read the parameters back it
    redirects this process's stdout for a moment, and another thread's output would go astray.
    """
    for name, value in parameters.items():
        setattr(module, name, value)
    module._final_check()


def _line(rule: Rule, chain: str, tag: str) -> str:
    """A rule of the plan in the words of iptables-save."""
    words = [f"-A {chain}"]
    if rule.source:
        words.append(f"-s {rule.source}")
    if rule.destination:
        words.append(("! " if rule.not_destination else "") + f"-d {rule.destination}")
    if rule.in_interface:
        words.append(f"-i {rule.in_interface}")
    if rule.out_interface:
        words.append(f"-o {rule.out_interface}")
    if rule.protocol:
        words.append(f"-p {'ipv6-icmp' if rule.protocol == 'icmpv6' else rule.protocol}")
    if rule.ports:
        words.append(f"-m {rule.protocol} --dport {_range(rule.ports, ':')}")
    if rule.local:
        words.append("-m addrtype --dst-type LOCAL")
    if rule.established:
        words.append("-m conntrack --ctstate RELATED,ESTABLISHED")
    if rule.translated:
        words.append("-m conntrack --ctstate DNAT")
    words.append(f'-m comment --comment "{tag}" -j {rule.verdict}')
    if rule.verdict is Verdict.REJECT:
        words.append(f"--reject-with {_REJECT[rule.family]}")
    elif rule.verdict is Verdict.CHECKSUM:
        words.append("--checksum-fill")
    elif rule.verdict is Verdict.DNAT:
        words.append(f"--to-destination {_destination(rule)}")
    elif rule.to_ports:
        words.append(f"--to-ports {_range(rule.to_ports, '-')}")
    return " ".join(words)


# The library and the lock.


_loaded: Any = None


def _iptc() -> Any:
    """The library, loaded once. :raises HostError: its C libraries are missing."""
    global _loaded
    if _loaded is None:
        import warnings

        try:
            with warnings.catch_warnings():
                # Version 1.2.0 has invalid escapes in its regular expressions.
                warnings.simplefilter("ignore", (DeprecationWarning))
                import iptc

                _register_nat(iptc.xtables)
        except Exception as error:
            raise HostError(f"python-iptables cannot be loaded: {error}", hint=_HINT) from error
        _loaded = iptc
    return _loaded


def _register_nat(xtables: Any) -> None:
    """Make DNAT and MASQUERADE known for IPv6 as well.

    libxt_NAT.so tells libxtables of its targets when it is loaded, and that takes those of the family in use
    alone; it is loaded but once, for IPv4. So a copy of it is loaded for IPv6.
    """
    import ctypes

    with open(os.path.join(xtables._xtables_libdir, "libxt_NAT.so"), "rb") as stream:
        library = stream.read()
    fd = os.memfd_create("libxt_NAT")
    try:
        os.write(fd, library)
        xtables.xtables._xtables_set_nfproto(xtables.NFPROTO_IPV6)
        ctypes.CDLL(f"/proc/self/fd/{fd}")
    finally:
        xtables.xtables._xtables_set_nfproto(xtables.NFPROTO_IPV4)
        os.close(fd)


def _errno() -> int:
    """The C library's errno: IPTCError carries only its words."""
    return int(_iptc().ip4tc._get_errno_loc()[0])


def _open(which: tuple[Family, str]) -> Any:
    """A table as the kernel has it now in this network namespace. :raises HostError: it has none."""
    iptc = _iptc()
    family, name = which
    try:
        # Without autocommit no commit is made behind our back when a stale handle is freed.
        table = (iptc.Table6 if family is Family.IP6 else iptc.Table)(name, autocommit=False)
        table.refresh()
    except iptc.IPTCError as error:
        version = "IPv6 " if family is Family.IP6 else ""
        raise HostError(
            f"cannot read the legacy {version}{name} table: {os.strerror(_errno())}", hint=_HINT
        ) from error
    return table


@contextmanager
def _locked() -> Iterator[None]:
    """Hold the lock that iptables-legacy itself takes around every change (its --wait).

    Not files.locked(), which removes the file afterwards: iptables does not look whether its lock still has a
    name. :raises Busy: another program holds it for too long.
    """
    import fcntl

    # Loading takes a fifth of a second, in which nobody should have to wait.
    iptc = _iptc()
    path = os.environ.get("XTABLES_LOCKFILE") or "/run/xtables.lock"
    deadline = time.monotonic() + _LOCK_SECONDS
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise os_error(error, f"cannot lock {path}") from error
    try:
        while True:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Busy(f"the packet filter is busy: another program holds {path}") from None
                time.sleep(0.002)
        yield
    finally:
        # The library keeps its tables for ever; an open one would keep a socket in this network namespace.
        for table in (*iptc.Table._cache.values(), *iptc.Table6._cache.values()):
            table.close()
        os.close(fd)
