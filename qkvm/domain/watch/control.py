"""Whether a domain accepts commands now (virsh domcontrol)."""

from __future__ import annotations

import time

from qkvm.errors import Busy
from qkvm.qmp import survey

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.domain.handle import Handle

PATIENCE = 2.0
"""Seconds for QEMU's answer; it usually takes one or two milliseconds."""

OK, OCCUPIED, ERROR = "ok", "occupied", "error"


def state(domain: Handle) -> tuple[str, float, str]:
    """Return the state in virsh's words, the seconds until QEMU's answer, and the error.

    A domain is occupied while another qkvm has its lock, or its QEMU does not answer in time.

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
