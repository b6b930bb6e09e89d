"""Verbs about this host and this program."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "capabilities": (
        "host",
        "show what this host and its emulator offer",
        "[--xpath <string>] [--wrap] [--json]",
        "failed to get capabilities",
        "Returns what this host and its emulator offer: CPU, NUMA cells, machine types.",
    ),
    "domcapabilities": (
        "host",
        "show what a domain can be made of",
        "[--virttype <string>] [--emulatorbin <string>] [--arch <string>] [--machine <string>] [--xpath <string>] [--wrap] [--disable-deprecated-features] [--json]",
        "failed to get emulator capabilities",
        "Returns what a domain can be made of: what the emulator has and a definition has a word for. The emulator is started once to be asked, and its answers are kept.",
    ),
    "host-validate": (
        "host",
        "check whether this host is fit for guests",
        "[--hypervisor <string>] [--json]",
        "",
        "Checks one thing after the other, as virt-host-validate does, and says what to do where something is missing. The exit code is 1 where a check has failed. With --quiet what is well is left out.",
    ),
    "hostname": (
        "host",
        "show this host's name",
        "[--json]",
        "",
        "",
    ),
    "maxvcpus": (
        "host",
        "show the most vCPUs that a guest can have",
        "[--type <string>] [--json]",
        "",
        "Show the most vCPUs that a guest of the default machine type can have.",
    ),
    "nodesevinfo": (
        "host",
        "show what this host has of AMD SEV",
        "[--json]",
        "Unable to get host SEV information",
        "Show what AMD's memory encryption offers on this host, where it has it.",
    ),
    "sysinfo": (
        "host",
        "show what the firmware tells of this machine",
        "[--json]",
        "failed to get sysinfo",
        "Print what the firmware tells of this machine (SMBIOS) as XML.",
    ),
    "uri": (
        "host",
        "show where qkvm works",
        "[--json]",
        "",
        "",
    ),
    "version": (
        "host",
        "show version",
        "[--daemon] [--json]",
        "",
        "Display the system version information.",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    ("domcapabilities", "arch"): "guest architecture, such as x86_64",
    ("domcapabilities", "disable-deprecated-features"): "report host CPU model with deprecated features disabled",
    ("domcapabilities", "emulatorbin"): "path of the emulator to ask",
    ("domcapabilities", "machine"): "machine type, such as q35 or pc-q35-7.2",
    ("domcapabilities", "virttype"): "what runs the guest: kvm or qemu (TCG)",
    ("host-validate", "hypervisor"): "what guests run under: qemu",
    ("maxvcpus", "type"): "domain type: kvm or qemu",
    ("version", "daemon"): "report the daemon's version too (there is none)",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
