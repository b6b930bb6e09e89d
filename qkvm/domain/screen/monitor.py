"""QEMU's monitor for who wants to speak with it himself (virsh qemu-monitor-command); it taints the domain."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from qkvm.domain.screen import taint

if TYPE_CHECKING:
    from collections.abc import Iterator

    from qkvm.domain.handle import Handle
    from qkvm.qmp.session import Session


def command(domain: Handle, name: str, arguments: dict[str, Any] | None = None, *, fd: int | None = None) -> Any:
    """Run a QMP command and give what it returns.

    :param fd: goes along with it, for commands such as add-fd and getfd. :raises CommandRefused: QEMU's error.
    """
    with _session(domain) as session:
        return session.execute(name, arguments, fd=fd)


def line(domain: Handle, text: str, *, fd: int | None = None) -> str:
    """Run a line of the human monitor and give its text."""
    with _session(domain) as session:
        return session.hmp(text, fd=fd)


@contextmanager
def _session(domain: Handle) -> Iterator[Session]:
    with domain.lock(), domain.monitor() as session:
        taint.mark(domain.live, taint.CUSTOM_MONITOR)
        yield session
