"""Verbs on grants of networks to users."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "net-grant": (
        "network",
        "let a user without root plug guests into a network, list who may, take it back",
        "[--network <string>] [--who <string>] [--revoke] [--list] [--taps=<number>] [--not-isolated] [--json]",
        "",
        "Let a user, or the members of a @GROUP, plug NICs of their own guests into a network of root's. A helper\n"
        "    of root's gives them a tap for each, with the filter clean-traffic in force. It is set up with the\n"
        "    first grant (a socket of systemd's, or a rule of sudo's) and taken away with the last one.\n"
        "    Without WHO, or with --list, show the grants; --revoke cuts the user's guests off at once.",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    ("net-grant", "list"): "list the grants, of all networks where none is named",
    ("net-grant", "not-isolated"): "let guests of users who are granted the network reach each other",
    ("net-grant", "revoke"): "take the grant back",
    ("net-grant", "taps"): "how many NICs each user may have there (default: 8)",
    ("net-grant", "who"): "user name or number, or @GROUP",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
