"""The plan in the words of iptables-save: the chains of the legacy backend, and a line for each rule."""

from __future__ import annotations

from qkvm.net.firewall.plan import Family, FirewallPlan, Hook, Rule, Verdict, rules

CHAINS = {
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

REJECT = {Family.IP: "icmp-port-unreachable", Family.IP6: "icmp6-port-unreachable"}


def lines(plan: FirewallPlan, family: Family = Family.IP) -> dict[str, list[str]]:
    """The plan as iptables-save (ip6tables-save) prints it, by table."""
    found: dict[str, list[str]] = {}
    for rule in rules(plan):
        if rule.family is family:
            table, _, chain = CHAINS[rule.hook]
            found.setdefault(table, []).append(line(rule, chain, plan.tag))
    return found


def document(plan: FirewallPlan, family: Family) -> list[str]:
    """The same for iptables-restore --noflush: with our chains, and the jumps in front of what is there."""
    found = []
    for table, listed in lines(plan, family).items():
        used = {text.split()[1] for text in listed}
        places = [(builtin, chain) for name, builtin, chain in CHAINS.values() if name == table and chain in used]
        found += [
            f"*{table}", *(f":{chain} - [0:0]" for _, chain in places),
            *(f"-I {builtin} -j {chain}" for builtin, chain in places), *listed, "COMMIT",
        ]  # fmt: skip
    return found


def line(rule: Rule, chain: str, tag: str) -> str:
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
        words.append(f"-m {rule.protocol} --dport {span(rule.ports, ':')}")
    if rule.local:
        words.append("-m addrtype --dst-type LOCAL")
    if rule.established:
        words.append("-m conntrack --ctstate RELATED,ESTABLISHED")
    if rule.translated:
        words.append("-m conntrack --ctstate DNAT")
    words.append(f'-m comment --comment "{tag}" -j {rule.verdict}')
    if rule.verdict is Verdict.REJECT:
        words.append(f"--reject-with {REJECT[rule.family]}")
    elif rule.verdict is Verdict.CHECKSUM:
        words.append("--checksum-fill")
    elif rule.verdict is Verdict.DNAT:
        words.append(f"--to-destination {destination(rule)}")
    elif rule.to_ports:
        words.append(f"--to-ports {span(rule.to_ports, '-')}")
    return " ".join(words)


def span(ports: tuple[int, int], dash: str) -> str:
    """Ports as a text has them: one, or the first and the last, with what iptables or nft puts in between."""
    first, last = ports
    return str(first) if first == last else f"{first}{dash}{last}"


def destination(rule: Rule) -> str:
    """What DNAT changes a destination to: an address, with a port where that changes too."""
    if rule.to_ports is None:
        return rule.to
    address = f"[{rule.to}]" if rule.family is Family.IP6 else rule.to
    return f"{address}:{span(rule.to_ports, '-')}"
