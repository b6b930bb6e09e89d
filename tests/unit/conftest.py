"""Unit tests touch nothing of the host: no process is started, no netlink socket opened, no rule read."""

from __future__ import annotations

import guard
import pytest


@pytest.fixture
def allow_host() -> None:
    """Opt in: the test that asks for this may start processes and use netlink and iptables."""


@pytest.fixture(autouse=True)
def _keep_off_the_host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "allow_host" not in request.fixturenames:
        guard.install(monkeypatch)
