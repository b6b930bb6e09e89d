"""Verbs about CPU models: which there are, whether one fits, what several have in common."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "cpu-baseline": (
        "host",
        "find the CPU that several can stand for",
        "<file> [--features] [--migratable] [--json]",
        "",
        "Find the fullest CPU that all the given ones can stand for, from the emulator's own definitions of its models.",
    ),
    "cpu-compare": (
        "host",
        "say whether this host's CPU can stand for another",
        "<file> [--error] [--validate] [--json]",
        "Failed to compare host CPU with {file}",
        "Compare this host's CPU with a described one. The exit code is 1 where it can't stand for it.",
    ),
    "cpu-models": (
        "host",
        "list the CPU models of an architecture",
        "<arch> [--json]",
        "failed to get CPU model names",
        "List the CPU models that the emulator of an architecture has.",
    ),
    "hypervisor-cpu-baseline": (
        "host",
        "find the CPU that several and the hypervisor can stand for",
        "[--file <string>] [--virttype <string>] [--emulator <string>] [--arch <string>] [--machine <string>] [--features] [--migratable] [--model <string>] [--json]",
        "",
        "Find the fullest CPU that all the given ones can stand for and that a guest on this host can have.",
    ),
    "hypervisor-cpu-compare": (
        "host",
        "say whether a guest's CPU can stand for another",
        "<file> [--virttype <string>] [--emulator <string>] [--arch <string>] [--machine <string>] [--error] [--validate] [--json]",
        "Failed to compare hypervisor CPU with {file}",
        "Compare the fullest CPU that a guest on this host can have with a described one.",
    ),
    "hypervisor-cpu-models": (
        "host",
        "list the CPU models that a guest on this host can have",
        "[--virttype <string>] [--emulator <string>] [--arch <string>] [--machine <string>] [--all] [--json]",
        "",
        "List the CPU models that the emulator has and can give a guest here, or all that it has.",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    ("cpu-baseline", "features"): "list the model's own features too",
    ("cpu-baseline", "file"): "file with <cpu> elements, or with a domain's or capabilities' XML",
    ("cpu-baseline", "migratable"): "leave out features that stand in the way of migration",
    ("cpu-compare", "error"): "tell why it can't as an error",
    ("cpu-compare", "file"): "file with a <cpu> element, or with a domain's or capabilities' XML",
    ("cpu-compare", "validate"): "validate the XML (which is always done)",
    ("cpu-models", "arch"): "architecture, such as x86_64",
    ("hypervisor-cpu-baseline", "arch"): "guest architecture, such as x86_64",
    ("hypervisor-cpu-baseline", "emulator"): "path of the emulator to ask",
    ("hypervisor-cpu-baseline", "features"): "list the model's own features too",
    ("hypervisor-cpu-baseline", "file"): "file with <cpu> elements, or with a domain's or capabilities' XML",
    ("hypervisor-cpu-baseline", "machine"): "machine type, such as q35",
    ("hypervisor-cpu-baseline", "migratable"): "leave out features that stand in the way of migration",
    ("hypervisor-cpu-baseline", "model"): "one model as it is, in place of a file",
    ("hypervisor-cpu-baseline", "virttype"): "what runs the guest: kvm or qemu (TCG)",
    ("hypervisor-cpu-compare", "arch"): "guest architecture, such as x86_64",
    ("hypervisor-cpu-compare", "emulator"): "path of the emulator to ask",
    ("hypervisor-cpu-compare", "error"): "tell why it can't as an error",
    ("hypervisor-cpu-compare", "file"): "file with a <cpu> element, or with a domain's or capabilities' XML",
    ("hypervisor-cpu-compare", "machine"): "machine type, such as q35",
    ("hypervisor-cpu-compare", "validate"): "validate the XML (which is always done)",
    ("hypervisor-cpu-compare", "virttype"): "what runs the guest: kvm or qemu (TCG)",
    ("hypervisor-cpu-models", "all"): "also the models that a guest on this host can't have",
    ("hypervisor-cpu-models", "arch"): "guest architecture, such as x86_64",
    ("hypervisor-cpu-models", "emulator"): "path of the emulator to ask",
    ("hypervisor-cpu-models", "machine"): "machine type, such as q35",
    ("hypervisor-cpu-models", "virttype"): "what runs the guest: kvm or qemu (TCG)",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
