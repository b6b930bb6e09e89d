"""The program nft, spoken to in its JSON (libnftables-json(5))."""

from __future__ import annotations

import json
from typing import Any

from qkvm.errors import HostError, ProgramFailed


def nft(*arguments: str, stdin: dict[str, Any] | None = None, needed_for: str) -> list[dict[str, Any]]:
    """Run ``nft -j`` and give the objects of its answer; a transaction, on stdin with ``-f -``, has none.

    :raises MissingProgram: nft is not installed. :raises ProgramFailed: it refused, in its own words.
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
    """nft's answer can't be read."""


def tables(*, needed_for: str) -> list[tuple[str, str]]:
    """Family and name of every table of this network namespace.

    From nft's text: version 1.0.6 prints a freed string, or breaks off, where JSON should tell a table's flags.
    """
    text = _run("list", "tables", needed_for=needed_for).decode("utf-8", "replace")
    words = [line.split(" ", 2) for line in text.splitlines() if line.startswith("table ")]
    return [(family, name) for _, family, name in words]


def ruleset(*, needed_for: str) -> list[dict[str, Any]]:
    """All rules, without the members of sets. Flags of tables are those of nft's text, a list of words."""
    try:
        found = nft("--terse", "list", "ruleset", needed_for=needed_for)
    except NotJson:
        found = [
            item for family, name in tables(needed_for=needed_for) for item in _table(family, name, needed_for)
        ]  # fmt: skip
    for item in found:
        if "flags" in item.get("table", {}):
            table = item["table"]
            table["flags"] = _flags(table["family"], table["name"], needed_for)
    return found


def _table(family: str, name: str, needed_for: str) -> list[dict[str, Any]]:
    """The rules of one table, or at least its chains; nothing of one that is gone."""
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
