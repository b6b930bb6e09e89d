"""The program nft, used through its JSON (libnftables-json(5))."""

from __future__ import annotations

import json
from typing import Any

from qkvm.errors import HostError, ProgramFailed


def nft(*arguments: str, stdin: dict[str, Any] | None = None, needed_for: str) -> list[dict[str, Any]]:
    """Run ``nft -j`` and return the objects of its answer; a transaction (``-f -`` on stdin) has none.

    :raises MissingProgram: nft is not installed. :raises ProgramFailed: it refused, with its own words.
    """
    raw = _run("-j", *arguments, stdin=b"" if stdin is None else json.dumps(stdin).encode(), needed_for=needed_for)
    if not raw.strip():
        return []
    try:
        answer = json.loads(raw)["nftables"]
    except (ValueError, KeyError, TypeError) as error:
        raise NotJson(f"nft answered what is not its JSON: {raw[:80]!r}") from error
    return list(answer)


class NotJson(HostError):
    """nft's answer can't be parsed."""


def tables(*, needed_for: str) -> list[tuple[str, str]]:
    """Return family and name of every table of this network namespace, from nft's text.

    In JSON, version 1.0.6 prints a freed string for a table's flags, or breaks off.
    """
    text = _run("list", "tables", needed_for=needed_for).decode("utf-8", "replace")
    words = [line.split(" ", 2) for line in text.splitlines() if line.startswith("table ")]
    return [(family, name) for _, family, name in words]


def ruleset(*, needed_for: str) -> list[dict[str, Any]]:
    """Return all rules, without the members of sets; the flags of tables are a list of words from nft's text."""
    try:
        found = nft("--terse", "list", "ruleset", needed_for=needed_for)
    except NotJson:
        named = tables(needed_for=needed_for)
        found = [item for family, name in named for item in _table(family, name, needed_for)]
    for item in found:
        if "flags" in item.get("table", {}):
            table = item["table"]
            table["flags"] = _flags(table["family"], table["name"], needed_for)
    return found


def _table(family: str, name: str, needed_for: str) -> list[dict[str, Any]]:
    """Return the rules of a table, or at least its chains; nothing for a table that is gone."""
    try:
        return nft("--terse", "list", "table", family, name, needed_for=needed_for)
    except NotJson:
        chains = nft("list", "chains", family, needed_for=needed_for)
        itself = {"table": {"family": family, "name": name, "flags": ""}}
        return [itself, *(item for item in chains if item.get("chain", {}).get("table") == name)]
    except ProgramFailed:
        return []


def _flags(family: str, name: str, needed_for: str) -> list[str]:
    try:
        text = _run("--terse", "list", "table", family, name, needed_for=needed_for).decode("utf-8", "replace")
    except ProgramFailed:
        return []
    lines = (line.strip() for line in text.splitlines())
    return next((line.replace(",", " ").split()[1:] for line in lines if line.startswith("flags ")), [])


def _run(*arguments: str, stdin: bytes = b"", needed_for: str) -> bytes:
    from qkvm.host.process import find_program, run

    return run([find_program("nft", needed_for, "nftables"), *arguments], stdin=stdin)
