"""Verbs for the machine's boot and halt."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "autostart": (
        "domain",
        "autostart a domain",
        "<domain> [--disable] [--once] [--order=<number>]",
        "",
        "Configure a domain to be automatically started when this machine boots.\n"
        "qkvm has no daemon: the service that qkvm setup-boot writes does it.",
    ),
    "autostart-all": (
        "qkvm",
        "start the networks and domains that are marked as autostarted",
        "",
        "",
        "Start networks, then domains in their order, as at the machine's boot. One that fails does not stop the rest.",
    ),
    "setup-boot": (
        "qkvm",
        "write the service that starts and stops guests with this machine",
        "[--init=<string>] [--timeout=<number>] [--print] [--remove]",
        "",
        "Write a systemd unit or an init script that runs autostart-all at boot and shutdown-all at halt.",
    ),
    "shutdown-all": (
        "qkvm",
        "shut down all domains, as at the machine's halt",
        "[--timeout=<number>]",
        "",
        "Shut down all running domains, in the opposite order of their start, within one deadline; then end the rest.",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    ("autostart", "disable"): "disable autostarting",
    ("autostart", "once"): "control next boot state",
    ("autostart", "order"): "domains of a lower number start earlier and are shut down later",
    ("setup-boot", "init"): "systemd or sysv (default: what this machine runs)",
    ("setup-boot", "print"): "print it instead of writing it",
    ("setup-boot", "remove"): "take it away",
    ("setup-boot", "timeout"): "seconds that the guests have at halt",
    ("shutdown-all", "timeout"): "seconds that all of them together have",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
