"""The verb table: everything the command line knows of a verb before it loads the verb's own module.

A start pays for this module whatever the verb, so it holds constants only: a synopsis is parsed for the one
verb that was asked for, and its module is imported when it is called.

A synopsis is in virsh's notation:

    <domain>                  required; by position or by name
    <count:int> <size:size>   the same, checked as a whole number or as a size with its suffix
    [--live]                  a flag
    [--mac <string>]          optional value; by name or, as in virsh, by position after the required ones
    [--timeout=<number>]      optional value by name only: what virsh doesn't have may not shift what it has
    {[--cmd] <string>}...     all remaining words, at least one; [[--cmd] <string>]... may be none
"""

from __future__ import annotations

GROUPS = {
    "domain": "Domain Management",
    "monitor": "Domain Monitoring",
    "events": "Domain Events",
    "host": "Host and Hypervisor",
    "network": "Networking",
    "qkvm": "Qkvm itself",
}
"""Keyword and title of each help group, in virsh's order."""

RAW = frozenset({"install"})
"""Verbs that read their words themselves: the options are not virsh's."""

ANYBODY = frozenset({"help", "version"})
"""Verbs that look at no tree and need no rights."""

_MANAGEMENT = "qkvm.cli.management"
_MONITORING = "qkvm.cli.monitoring"
_NETWORKING = "qkvm.cli.networking"
_HOSTING = "qkvm.cli.hosting"
_SCOPE = "[--config] [--live] [--current]"

# name: (module, group, summary, synopsis, headline), in the order of help. The function in the module has the
# verb's name with underscores. The headline stands before the text of an error that the verb itself raises.
VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "attach-interface": (
        _MANAGEMENT,
        "domain",
        "attach network interface",
        "<domain> <type> <source> [--target <string>] [--mac <string>] [--model=<string>] [--persistent] "
        f"{_SCOPE} [--print-xml]",
        "Failed to attach interface",
    ),
    "console": (_MANAGEMENT, "domain", "connect to the guest console", "<domain> [--force] [--safe]", ""),
    "define": (
        _MANAGEMENT,
        "domain",
        "define (but don't start) a domain from a file",
        "<file> [--validate]",
        "",
    ),
    "destroy": (
        _MANAGEMENT,
        "domain",
        "destroy (stop) a domain",
        "<domain> [--graceful] [--remove-logs]",
        "Failed to destroy domain '{domain}'",
    ),
    "detach-interface": (
        _MANAGEMENT,
        "domain",
        "detach network interface",
        f"<domain> <type> [--mac <string>] [--persistent] {_SCOPE} [--timeout=<number>] [--no-wait]",
        "Failed to detach interface",
    ),
    "domargv": (
        _MANAGEMENT,
        "domain",
        "show the QEMU command line of a domain",
        "<domain> [--template=<file>]",
        "",
    ),
    "domid": (_MANAGEMENT, "domain", "convert a domain name or UUID to domain id", "<domain>", ""),
    "domif-setlink": (
        _MANAGEMENT,
        "domain",
        "set link state of a virtual interface",
        "<domain> <interface> <state> [--config]",
        "Failed to update interface link state",
    ),
    "domname": (_MANAGEMENT, "domain", "convert a domain id or UUID to domain name", "<domain>", ""),
    "domuuid": (_MANAGEMENT, "domain", "convert a domain name or id to domain UUID", "<domain>", ""),
    "install": (
        "qkvm.cli.install",
        "domain",
        "make a domain from virt-install's options and start it",
        "[[--option] <string>]...",
        "",
    ),
    "qemu-monitor-command": (
        _MANAGEMENT,
        "domain",
        "QEMU Monitor Command",
        "<domain> [--hmp] [--pretty] [--return-value] {[--cmd] <string>}...",
        "",
    ),
    "reboot": (
        _MANAGEMENT,
        "domain",
        "reboot a domain",
        "<domain> [--mode <string>]",
        "Failed to reboot domain '{domain}'",
    ),
    "reset": (_MANAGEMENT, "domain", "reset a domain", "<domain>", "Failed to reset domain '{domain}'"),
    "resume": (_MANAGEMENT, "domain", "resume a domain", "<domain>", "Failed to resume domain '{domain}'"),
    "setmaxmem": (
        _MANAGEMENT,
        "domain",
        "change maximum memory limit",
        "<domain> <size:size> " + _SCOPE,
        "Unable to change MaxMemorySize",
    ),
    "setmem": (
        _MANAGEMENT,
        "domain",
        "change memory allocation",
        f"<domain> <size:size> {_SCOPE} [--timeout=<number>] [--no-wait]",
        "",
    ),
    "setvcpus": (
        _MANAGEMENT,
        "domain",
        "change number of virtual CPUs",
        f"<domain> <count:int> [--maximum] {_SCOPE} [--timeout=<number>] [--no-wait]",
        "",
    ),
    "shutdown": (
        _MANAGEMENT,
        "domain",
        "gracefully shutdown a domain",
        "<domain> [--mode <string>] [--wait] [--timeout=<number>]",
        "Failed to shutdown domain '{domain}'",
    ),
    "start": (
        _MANAGEMENT,
        "domain",
        "start a (previously defined) inactive domain",
        "<domain> [--console] [--paused]",
        "Failed to start domain '{domain}'",
    ),
    "suspend": (_MANAGEMENT, "domain", "suspend a domain", "<domain>", "Failed to suspend domain '{domain}'"),
    "undefine": (
        _MANAGEMENT,
        "domain",
        "undefine a domain",
        "<domain>",
        "Failed to undefine domain '{domain}'",
    ),
    "vcpucount": (
        _MANAGEMENT,
        "domain",
        "domain vcpu counts",
        "<domain> [--maximum] [--active] [--live] [--config] [--current] [--json]",
        "",
    ),
    "vcpuinfo": (
        _MANAGEMENT,
        "domain",
        "detailed domain vcpu information",
        "<domain> [--pretty] [--json]",
        "",
    ),
    "domblklist": (
        _MONITORING,
        "monitor",
        "list all domain blocks",
        "<domain> [--inactive] [--details] [--json]",
        "",
    ),
    "domif-getlink": (
        _MONITORING,
        "monitor",
        "get link state of a virtual interface",
        "<domain> <interface> [--config] [--json]",
        "",
    ),
    "domifaddr": (
        _MONITORING,
        "monitor",
        "Get network interfaces' addresses for a running domain",
        "<domain> [--interface <string>] [--full] [--source <string>] [--wait] [--timeout=<number>] [--json]",
        "Failed to query for interfaces addresses",
    ),
    "domiflist": (
        _MONITORING,
        "monitor",
        "list all domain virtual interfaces",
        "<domain> [--inactive] [--slots] [--json]",
        "",
    ),
    "domifstat": (
        _MONITORING,
        "monitor",
        "get network interface stats for a domain",
        "<domain> <interface> [--json]",
        "Failed to get interface stats {domain} {interface}",
    ),
    "dominfo": (_MONITORING, "monitor", "domain information", "<domain> [--json]", ""),
    "dommemstat": (
        _MONITORING,
        "monitor",
        "get memory statistics for a domain",
        f"<domain> [--period=<number>] {_SCOPE} [--json]",
        "Failed to get memory statistics for domain {domain}",
    ),
    "domstate": (_MONITORING, "monitor", "domain state", "<domain> [--reason] [--json]", ""),
    "list": (
        _MONITORING,
        "monitor",
        "list domains",
        "[--inactive] [--all] [--transient] [--persistent] [--state-running] [--state-paused] [--state-shutoff] "
        "[--state-other] [--autostart] [--no-autostart] [--uuid] [--name] [--id] [--table] [--title] [--json]",
        "",
    ),
    "event": (
        _MONITORING,
        "events",
        "Domain Events",
        "[--domain <string>] [--event <string>] [--all] [--loop] [--timeout <number>] [--list] [--timestamp] "
        "[--json]",
        "",
    ),
    "hostname": (_HOSTING, "host", "print the hypervisor hostname", "", ""),
    "uri": (_HOSTING, "host", "print the hypervisor canonical URI", "", ""),
    "version": (_HOSTING, "host", "show version", "[--json]", ""),
    "net-define": (
        _NETWORKING,
        "network",
        "define an inactive persistent virtual network or modify an existing persistent one from a file",
        "<file> [--validate]",
        "",
    ),
    "net-destroy": (
        _NETWORKING,
        "network",
        "destroy (stop) a network",
        "<network>",
        "Failed to destroy network {network}",
    ),
    "net-dhcp-leases": (
        _NETWORKING,
        "network",
        "print lease info for a given network",
        "<network> [--mac <string>] [--json]",
        "Failed to get leases info for {network}",
    ),
    "net-dump": (_NETWORKING, "network", "network information in TOML", "<network>", ""),
    "net-info": (_NETWORKING, "network", "network information", "<network> [--json]", ""),
    "net-list": (
        _NETWORKING,
        "network",
        "list networks",
        "[--inactive] [--all] [--persistent] [--transient] [--autostart] [--no-autostart] [--uuid] [--name] "
        "[--table] [--json]",
        "",
    ),
    "net-name": (_NETWORKING, "network", "convert a network UUID to network name", "<network>", ""),
    "net-start": (
        _NETWORKING,
        "network",
        "start a (previously defined) inactive network",
        "<network>",
        "Failed to start network {network}",
    ),
    "net-undefine": (
        _NETWORKING,
        "network",
        "undefine a persistent network",
        "<network>",
        "Failed to undefine network {network}",
    ),
    "net-uuid": (_NETWORKING, "network", "convert a network name to network UUID", "<network>", ""),
    "gc": (_MANAGEMENT, "qkvm", "remove what runs of domains that ended have left behind", "", ""),
    "help": ("qkvm.cli.help", "qkvm", "print help", "[--command <string>]", ""),
}


class Verb:
    """One entry of the table."""

    __slots__ = ("group", "headline", "module", "name", "summary", "synopsis")

    def __init__(self, name: str, entry: tuple[str, str, str, str, str]) -> None:
        self.name = name
        self.module, self.group, self.summary, self.synopsis, self.headline = entry

    @property
    def function(self) -> str:
        """Name of the function in the module: the verb's, and ``list_`` where a built-in has that name."""
        return _RENAMED.get(self.name) or self.name.replace("-", "_")

    @property
    def raw(self) -> bool:
        """Whether the verb gets its words as they are."""
        return self.name in RAW


_RENAMED = {"list": "list_", "help": "help_"}


def find(name: str) -> Verb | None:
    """The verb of that exact name: as in virsh, there are no abbreviations."""
    entry = VERBS.get(name)
    return None if entry is None else Verb(name, entry)
