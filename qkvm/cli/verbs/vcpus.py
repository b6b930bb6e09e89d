"""Verbs on a domain's vCPUs."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "setvcpu": (
        "domain",
        "attach/detach vcpu or groups of threads",
        "<domain> <vcpulist> [--enable] [--disable] [--config] [--live] [--current] [--timeout=<number>] [--no-wait]",
        "",
        "Add or remove vcpus by their number.\nWaits until the guest has followed and says what was reached.",
    ),
    "setvcpus": (
        "domain",
        "change number of virtual CPUs",
        "<domain> <count:int> [--maximum] [--config] [--live] [--current] [--guest] [--hotpluggable] [--timeout=<number>] [--no-wait]",
        "",
        "Change the number of virtual CPUs in the guest domain.\nWaits until the guest has followed and says what was reached.",
    ),
    "vcpucount": (
        "domain",
        "domain vcpu counts",
        "<domain> [--maximum] [--active] [--live] [--config] [--current] [--guest] [--json]",
        "",
        "Returns the number of virtual CPUs used by the domain.",
    ),
    "vcpuinfo": (
        "domain",
        "detailed domain vcpu information",
        "<domain> [--pretty] [--json]",
        "",
        "Returns basic information about the domain virtual CPUs.",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    ("setvcpu", "vcpulist"): "ids of vcpus to manipulate",
    ("setvcpu", "enable"): "enable cpus specified by cpumap",
    ("setvcpu", "disable"): "disable cpus specified by cpumap",
    ("vcpucount", "config"): "get value to be used on next boot",
    ("vcpucount", "current"): "get value according to current domain state",
    ("setvcpus", "guest"): "modify cpu state in the guest",
    ("setvcpus", "hotpluggable"): "make added vcpus hot(un)pluggable (they always are, or the machine can't)",
    ("vcpucount", "guest"): "retrieve vcpu count from the guest instead of the hypervisor",
    ("vcpucount", "live"): "get value from running domain",
    ("vcpucount", "maximum"): "get maximum count of vcpus",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
