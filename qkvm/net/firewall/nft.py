"""The program nft, spoken to in its JSON (libnftables-json(5))."""

from __future__ import annotations

import json
from typing import Any

from qkvm.errors import HostError


def nft(*arguments: str, stdin: dict[str, Any] | None = None, needed_for: str) -> list[dict[str, Any]]:
    """Run ``nft -j`` and give the objects of its answer; a transaction, on stdin with ``-f -``, has none.

    :raises MissingProgram: nft is not installed. :raises ProgramFailed: it refused, in its own words.
    """
    from qkvm.host.process import find_program, run

    program = find_program("nft", needed_for, "nftables")
    raw = run([program, "-j", *arguments], stdin=b"" if stdin is None else json.dumps(stdin).encode())
    if not raw.strip():
        return []
    try:
        answer = json.loads(raw)["nftables"]
    except (ValueError, KeyError, TypeError) as error:
        raise HostError(f"nft answered what is not its JSON: {raw[:80]!r}") from error
    return list(answer)
