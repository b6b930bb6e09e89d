"""Verbs on the system in a guest: what it is, its clock, its CPUs, its users."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "domhostname": (
        "domain",
        "print the domain's hostname",
        "<domain> [--source <string>] [--json]",
        "failed to get hostname",
        "Print the name that the guest has given itself.",
    ),
    "domtime": (
        "monitor",
        "domain time",
        "<domain> [--now] [--pretty] [--sync] [--time <number:signed>] [--json]",
        "",
        "Gets or sets the domain's system time",
    ),
    "get-user-sshkeys": (
        "domain",
        "list authorized SSH keys for given user (via agent)",
        "<domain> <user> [--json]",
        "",
        "Use the guest agent to query authorized SSH keys for given user",
    ),
    "guestinfo": (
        "domain",
        "query information about the guest (via agent)",
        "<domain> [--user] [--os] [--timezone] [--hostname] [--filesystem] [--disk] [--interface] [--load] [--json]",
        "",
        "Use the guest agent to query various information from guest's point of view",
    ),
    "guestvcpus": (
        "domain",
        "query or modify state of vcpu in the guest (via agent)",
        "<domain> [--cpulist <string>] [--enable] [--disable] [--json]",
        "",
        "Use the guest agent to query or set cpu state from guest's point of view",
    ),
    "set-user-password": (
        "domain",
        "set the user password inside the domain",
        "<domain> <user> <password> [--encrypted]",
        "",
        "Changes the password of the specified user inside the domain",
    ),
    "set-user-sshkeys": (
        "domain",
        "manipulate authorized SSH keys file for given user (via agent)",
        "<domain> <user> [--file <string>] [--reset] [--remove]",
        "",
        "Append, reset or remove specified key from the authorized keys file for given user",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    ("domhostname", "source"): "address source: 'lease' or 'agent'",
    ("domtime", "now"): "set to the time of the host",
    ("domtime", "pretty"): "print domain's time in human readable form",
    ("domtime", "sync"): "instead of setting given time, synchronize from domain's RTC",
    ("domtime", "time"): "time to set, in seconds since 1970",
    ("get-user-sshkeys", "user"): "user to list authorized keys for",
    ("guestinfo", "disk"): "report disk information",
    ("guestinfo", "filesystem"): "report filesystem information",
    ("guestinfo", "hostname"): "report hostname",
    ("guestinfo", "interface"): "report interface information",
    ("guestinfo", "load"): "report load averages information",
    ("guestinfo", "os"): "report operating system information",
    ("guestinfo", "timezone"): "report timezone information",
    ("guestinfo", "user"): "report active users",
    ("guestvcpus", "cpulist"): "list of cpus to enable or disable",
    ("guestvcpus", "disable"): "disable cpus specified by cpulist",
    ("guestvcpus", "enable"): "enable cpus specified by cpulist",
    ("set-user-password", "encrypted"): "the password is already encrypted",
    ("set-user-password", "password"): "the new password",
    ("set-user-password", "user"): "the username",
    ("set-user-sshkeys", "file"): "optional file to read keys from",
    ("set-user-sshkeys", "remove"): "remove keys from the authorized keys file",
    ("set-user-sshkeys", "reset"): "clear out authorized keys file before adding new keys",
    ("set-user-sshkeys", "user"): "user to set authorized keys for",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
