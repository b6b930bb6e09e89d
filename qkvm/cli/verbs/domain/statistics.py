"""Verbs on the statistics of domains."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "domcontrol": (
        "monitor",
        "domain control interface state",
        "<domain> [--json]",
        "",
        "Returns whether QEMU takes commands at this moment.",
    ),
    "domstats": (
        "monitor",
        "get statistics about one or multiple domains",
        "[--state] [--cpu-total] [--balloon] [--vcpu] [--interface] [--block] [--perf] [--iothread] [--memory] [--dirtyrate] [--vm] [--list-active] [--list-inactive] [--list-persistent] [--list-transient] [--list-running] [--list-paused] [--list-shutoff] [--list-other] [--raw] [--enforce] [--backing] [--nowait] [--json] [[--domain] <string>]...",
        "",
        "Gets statistics about one or more (or all) domains.\nOnly what QEMU alone knows is asked of it (balloon, block, iothread, dirtyrate, vm), of all domains at once; one that\ngives no answer within 5 seconds (--nowait: half a one) lacks these, with a warning.",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    ("domstats", "backing"): "add backing chain information to block stats",
    ("domstats", "balloon"): "report domain balloon statistics",
    ("domstats", "block"): "report domain block device statistics",
    ("domstats", "cpu-total"): "report domain physical cpu usage",
    ("domstats", "dirtyrate"): "report domain dirty rate information",
    ("domstats", "domain"): "list of domains to get stats for",
    ("domstats", "enforce"): "fail where some of the requested statistics can't be had",
    ("domstats", "interface"): "report domain network interface information",
    ("domstats", "iothread"): "report domain IOThread information",
    ("domstats", "list-active"): "list only active domains",
    ("domstats", "list-inactive"): "list only inactive domains",
    ("domstats", "list-other"): "list only domains in other states",
    ("domstats", "list-paused"): "list only paused domains",
    ("domstats", "list-persistent"): "list only persistent domains",
    ("domstats", "list-running"): "list only running domains",
    ("domstats", "list-shutoff"): "list only shutoff domains",
    ("domstats", "list-transient"): "list only transient domains",
    ("domstats", "memory"): "report domain memory usage: nothing without resctrl monitors",
    ("domstats", "nowait"): "wait neither for a busy domain nor long for QEMU",
    ("domstats", "perf"): "report domain perf event statistics: no event is ever enabled",
    ("domstats", "raw"): "do not pretty-print the fields",
    ("domstats", "state"): "report domain state",
    ("domstats", "vcpu"): "report domain virtual cpu information",
    ("domstats", "vm"): "report hypervisor-specific statistics",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
