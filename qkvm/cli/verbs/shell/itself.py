"""Verbs of the shell itself."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "cd": (
        "qkvm",
        "change the current directory",
        "[--dir <string>]",
        "",
        "Change the current directory of the shell.",
    ),
    "connect": (
        "qkvm",
        "connect anew, or read-only",
        "[--name <string>] [--readonly]",
        "",
        "There is no daemon to connect to: qkvm is the hypervisor of this host, qemu:///system.\nWith --readonly the verbs that follow in the shell may only look; without it they may change things again.",
    ),
    "echo": (
        "qkvm",
        "echo arguments",
        "[--shell] [--xml] [--split] [--err] [--prefix=<string>] [[--string] <string>]...",
        "",
        "Echo back arguments, possibly with quoting.",
    ),
    "exit": (
        "qkvm",
        "quit this interactive terminal",
        "",
        "",
        "",
    ),
    "pwd": (
        "qkvm",
        "print the current directory",
        "",
        "",
        "Print the current directory.",
    ),
    "quit": (
        "qkvm",
        "quit this interactive terminal",
        "",
        "",
        "",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    ("cd", "dir"): "directory to switch to (default: home or else root)",
    ("connect", "name"): "hypervisor connection URI: qemu:///system or qemu:///session",
    ("connect", "readonly"): "refuse verbs that change anything",
    ("echo", "err"): "output to stderr",
    ("echo", "prefix"): "prefix the message",
    ("echo", "shell"): "escape for shell use",
    ("echo", "split"): "split each argument on ','; ',,' is an escape sequence",
    ("echo", "string"): "arguments to echo",
    ("echo", "xml"): "escape for XML use",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
