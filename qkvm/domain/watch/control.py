"""Whether a domain can be given commands now (virsh domcontrol)."""

from __future__ import annotations

import time

from qkvm.errors import Busy
from qkvm.qmp import survey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.domain.handle import Handle

PATIENCE = 2.0
"""Seconds in which a QEMU that takes commands answers; it takes one or two milliseconds."""

OK, OCCUPIED, ERROR = "ok", "occupied", "error"


def state(domain: Handle) -> tuple[str, float, str]:
    """State in virsh's words, the seconds for which it was waited, and what went wrong.

    Occupied is a domain that another qkvm is at work on, or a QEMU that takes no commands at this moment.

    :raises InvalidState: it is not running.
    """
    run = domain.live
    begin = time.monotonic()
    try:
        with domain.lock(timeout=0):
            talk = survey.Talk(run.monitor, [("query-status", {})], domain.transcript)
            survey.ask({run.monitor: talk}, PATIENCE, lambda *_: None)
    except Busy as error:
        return OCCUPIED, 0.0, str(error)
    waited = time.monotonic() - begin
    if not talk.failure:
        return OK, waited, ""
    return (OCCUPIED if talk.late else ERROR), waited, talk.failure
