"""Verbs that a shell's completion is made of."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "complete": (
        "qkvm",
        "internal command for autocompletion",
        "[[--string] <string>]...",
        "",
        "Print, one a line, what the last of these words can become. They are those behind qkvm, options included.",
    ),
    "completion": (
        "qkvm",
        "print the completion script of a shell",
        "<shell>",
        "",
        "Print what teaches bash or zsh to complete qkvm's verbs, their options, and the names of what is there.\nFor bash: source <(qkvm completion bash)\nFor zsh, behind compinit: source <(qkvm completion zsh)",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    ("complete", "string"): "partial string to autocomplete",
    ("completion", "shell"): "bash or zsh",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
