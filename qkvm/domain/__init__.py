"""Domains: what is known of one, and the verbs on it."""

from __future__ import annotations

from qkvm.domain import handle


def _mend(domain: handle.Handle) -> None:
    """Mend what killed ones have left of a domain."""
    from qkvm.domain.manage import mend

    mend.pass_by(domain)


handle.mended_by(_mend)
