"""The plan as iptables-save prints it: the legacy backend's chains, and a line for each rule."""

from __future__ import annotations

from qkvm.net.firewall.plan import Family, FirewallPlan, Hook, Rule, Verdict, rules

CHAINS = {
    Hook.DNAT: ("nat", "PREROUTING", "QKVM_PRE"),
    Hook.DNAT_OWN: ("nat", "OUTPUT", "QKVM_PRO"),
    Hook.INPUT: ("filter", "INPUT", "QKVM_INP"),
    Hook.OUTPUT: ("filter", "OUTPUT", "QKVM_OUT"),
    # Inserted in this order, each in front: packets meet FWX, then FWI, then FWO, as with libvirt.
    Hook.FORWARD_OUT: ("filter", "FORWARD", "QKVM_FWO"),
    Hook.FORWARD_IN: ("filter", "FORWARD", "QKVM_FWI"),
    Hook.FORWARD_CROSS: ("filter", "FORWARD", "QKVM_FWX"),
    Hook.NAT: ("nat", "POSTROUTING", "QKVM_PRT"),
    Hook.MANGLE: ("mangle", "POSTROUTING", "QKVM_PRT"),
}
"""Table, built-in chain and our chain of each hook."""

REJECT = {Family.IP: "icmp-port-unreachable", Family.IP6: "icmp6-port-unreachable"}


def lines(plan: FirewallPlan, family: Family = Family.IP) -> dict[str, list[str]]:
    """Return the plan as iptables-save (ip6tables-save) prints it, by table."""
    found: dict[str, list[str]] = {}
    for rule in rules(plan):
        if rule.family is family:
            table, _, chain = CHAINS[rule.hook]
            found.setdefault(table, []).append(line(rule, chain, plan.tag))
    return found


def document(plan: FirewallPlan, family: Family) -> list[str]:
    """Return the plan for iptables-restore --noflush: our chains, the jumps to them, and the rules."""
    found = []
    for table, listed in lines(plan, family).items():
        used = {text.split()[1] for text in listed}
        places = [(builtin, chain) for name, builtin, chain in CHAINS.values() if name == table and chain in used]
        found += [f"*{table}", *(f":{chain} - [0:0]" for _, chain in places)]
        found += [*(f"-I {builtin} -j {chain}" for builtin, chain in places), *listed, "COMMIT"]
    return found


def line(rule: Rule, chain: str, tag: str) -> str:
    """Return a rule of the plan as iptables-save prints it."""
    words = (
        f"-A {chain}",
        f"-s {rule.source}" if rule.source else "",
        f"{'! ' * rule.not_destination}-d {rule.destination}" if rule.destination else "",
        f"-i {rule.in_interface}" if rule.in_interface else "",
        f"-o {rule.out_interface}" if rule.out_interface else "",
        f"-p {'ipv6-icmp' if rule.protocol == 'icmpv6' else rule.protocol}" if rule.protocol else "",
        f"-m {rule.protocol} --dport {span(rule.ports, ':')}" if rule.ports else "",
        "-m addrtype --dst-type LOCAL" if rule.local else "",
        "-m conntrack --ctstate RELATED,ESTABLISHED" if rule.established else "",
        "-m conntrack --ctstate DNAT" if rule.translated else "",
        f'-m comment --comment "{tag}" -j {rule.verdict}',
        _target(rule),
    )
    return " ".join(filter(None, words))


def _target(rule: Rule) -> str:
    if rule.verdict is Verdict.REJECT:
        return f"--reject-with {REJECT[rule.family]}"
    if rule.verdict is Verdict.CHECKSUM:
        return "--checksum-fill"
    if rule.verdict is Verdict.DNAT:
        return f"--to-destination {destination(rule)}"
    return f"--to-ports {span(rule.to_ports, '-')}" if rule.to_ports else ""


def span(ports: tuple[int, int], dash: str) -> str:
    """Return ports as text: one, or the first and the last with a dash of iptables or nft."""
    first, last = ports
    return str(first) if first == last else f"{first}{dash}{last}"


def destination(rule: Rule) -> str:
    """Return what DNAT changes a destination to: an address, with a port where that changes too."""
    if rule.to_ports is None:
        return rule.to
    address = f"[{rule.to}]" if rule.family is Family.IP6 else rule.to
    return f"{address}:{span(rule.to_ports, '-')}"
