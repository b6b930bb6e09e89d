"""Verbs on a domain's console and screen."""

from __future__ import annotations

VERBS: dict[str, tuple[str, str, str, str, str]] = {
    "console": (
        "domain",
        "connect to the guest console",
        "<domain> [--devname <string>] [--force] [--resume] [--safe]",
        "",
        "Connect the virtual serial console for the guest",
    ),
    "domdisplay": (
        "domain",
        "domain display connection URI",
        "<domain> [--include-password] [--type <string>] [--all] [--json]",
        "",
        "Output the connection URI of the domain's graphical display.",
    ),
    "inject-nmi": (
        "domain",
        "Inject NMI to the guest",
        "<domain>",
        "",
        "Give the guest's vCPUs a non-maskable interrupt.",
    ),
    "screenshot": (
        "domain",
        "take a screenshot of a current domain console and store it into a file",
        "<domain> [--file <string>] [--screen <number>]",
        "Failed to take a screenshot of domain '{domain}'",
        "Take a picture of the domain's screen, as PNG.",
    ),
    "send-key": (
        "domain",
        "Send keycodes to the guest",
        "<domain> [--codeset=<string>] [--holdtime=<number>] {[--keycode] <string>}...",
        "",
        "Press keys on the guest's keyboard, all at once. Each is a number of the code set, or a name of Linux's:\n"
        "  qkvm send-key vm01 KEY_LEFTCTRL KEY_LEFTALT KEY_DELETE",
    ),
    "ttyconsole": (
        "domain",
        "tty console",
        "<domain>",
        "",
        "Output where the guest's serial console is: a pseudo terminal's device, or the path of a Unix socket.",
    ),
    "view": (
        "domain",
        "open a domain's screen in a viewer",
        "<domain>",
        "",
        "Start remote-viewer, virt-viewer or vncviewer on the domain's screen, whichever is installed;\n"
        "where none is, say the address.",
    ),
    "vncdisplay": (
        "domain",
        "vnc display",
        "<domain> [--json]",
        "",
        "Output the IP address and port number of the domain's VNC display.",
    ),
}

OPTIONS: dict[tuple[str, str], str] = {
    ("console", "devname"): "character device name: serial0, serial1 …",
    ("console", "resume"): "resume a paused guest after connecting to console",
    ("domdisplay", "all"): "show all possible graphical displays (a domain has one)",
    ("domdisplay", "include-password"): "includes the password into the connection URI if available",
    ("domdisplay", "type"): "select particular graphical display (vnc)",
    ("screenshot", "file"): "where to store the screenshot",
    ("screenshot", "screen"): "ID of a screen to take screenshot of",
    ("send-key", "codeset"): "the codeset of keycodes: linux (default), qnum, rfb, xt, xt_kbd, atset1, usb, win32",
    ("send-key", "holdtime"): "the time (in milliseconds) how long the keys will be held",
    ("send-key", "keycode"): "the key code, or its name",
}
"""What an option means in one verb, where that is not what :mod:`qkvm.cli.verbs.options` says."""
