"""Verbs on the threads of a domain: where they run, and which there are."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "emulatorpin": (
        "domain",
        "control or query domain emulator affinity",
        "<domain> [--cpulist <string>] [--config] [--live] [--current] [--json]",
        "",
        "Pin domain emulator threads to host physical CPUs.",
    ),
    "iothreadadd": (
        "domain",
        "add an IOThread to the guest domain",
        "<domain> <id:int> [--config] [--live] [--current]",
        "",
        "Add an IOThread to the guest domain.",
    ),
    "iothreaddel": (
        "domain",
        "delete an IOThread from the guest domain",
        "<domain> <id:int> [--config] [--live] [--current]",
        "",
        "Delete an IOThread from the guest domain.",
    ),
    "iothreadinfo": (
        "domain",
        "view domain IOThreads",
        "<domain> [--config] [--live] [--current] [--json]",
        "Unable to get domain IOThreads information",
        "Returns basic information about the domain IOThreads.",
    ),
    "iothreadpin": (
        "domain",
        "control domain IOThread affinity",
        "<domain> <iothread:int> <cpulist> [--config] [--live] [--current]",
        "",
        "Pin domain IOThreads to host physical CPUs.",
    ),
    "iothreadset": (
        "domain",
        "modifies an existing IOThread of the guest domain",
        "<domain> <id:int> [--poll-max-ns <number>] [--poll-grow <number>] [--poll-shrink <number>] [--thread-pool-min <number>] [--thread-pool-max <number>] [--config] [--live] [--current]",
        "",
        "Modifies an existing IOThread of the guest domain.",
    ),
    "vcpupin": (
        "domain",
        "control or query domain vcpu affinity",
        "<domain> [--vcpu <number>] [--cpulist <string>] [--config] [--live] [--current] [--json]",
        "",
        "Pin domain VCPUs to host physical CPUs.",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    ("emulatorpin", "cpulist"): "host cpu number(s) to set, or omit option to query",
    ("iothreadadd", "id"): "iothread for the new IOThread",
    ("iothreaddel", "id"): "iothread_id for the IOThread to delete",
    ("iothreadpin", "cpulist"): "host cpu number(s) to set",
    ("iothreadpin", "iothread"): "IOThread ID number",
    ("iothreadset", "id"): "iothread id of existing IOThread",
    ("iothreadset", "poll-max-ns"): "set the maximum IOThread polling time in ns",
    ("iothreadset", "poll-grow"): "set the value to increase the IOThread polling time",
    ("iothreadset", "poll-shrink"): "set the value for reduction of the IOThread polling time",
    ("iothreadset", "thread-pool-min"): "lower boundary for worker thread pool",
    ("iothreadset", "thread-pool-max"): "upper boundary for worker thread pool",
    ("vcpupin", "vcpu"): "vcpu number",
    ("vcpupin", "cpulist"): "host cpu number(s) to set, or omit option to query",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
