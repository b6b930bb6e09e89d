"""Commands of the user's own for QEMU's monitor (virsh qemu-monitor-command); they taint the domain."""

from __future__ import annotations

from qkvm.domain.run import write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run

_TAINT = "custom-monitor"
_TEXTS = {_TAINT: "custom monitor control commands issued"}


def command(domain: Handle, name: str, arguments: dict[str, Any] | None = None, *, fd: int | None = None) -> Any:
    """Run a QMP command and return its result.

    :param fd: is sent with it, for commands such as add-fd and getfd. :raises CommandRefused: QEMU's error.
    """
    with domain.lock(), domain.monitor() as session:
        _taint(domain.live)
        return session.execute(name, arguments, fd=fd)


def line(domain: Handle, text: str, *, fd: int | None = None) -> str:
    """Run a line of the human monitor and return its output."""
    with domain.lock(), domain.monitor() as session:
        _taint(domain.live)
        return session.hmp(text, fd=fd)


def _taint(run: Run) -> None:
    """Note in the record that the domain may not be as its definition says any more."""
    present = run.record.setdefault("taints", [])
    if _TAINT not in present:
        present.append(_TAINT)
        write(run)


def taints(run: Run) -> list[str]:
    """Return what taints this run, in virsh's words (dominfo)."""
    return [f"tainted: {_TEXTS.get(taint, taint)}" for taint in run.record.get("taints", ())]
