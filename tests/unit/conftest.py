"""Unit tests touch nothing of the host: no process is started, no netlink socket opened, no rule read."""

from __future__ import annotations

import guard
import pytest
from hypothesis import HealthCheck, settings

# How long an example takes is the machine's matter, not a property; a busy one would fail it now and then.
settings.register_profile("qkvm", deadline=None, max_examples=25, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("qkvm")


@pytest.fixture
def allow_host() -> None:
    """Opt in: the test that asks for this may start processes and use netlink and iptables."""


@pytest.fixture(autouse=True)
def _keep_off_the_host(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if "allow_host" not in request.fixturenames:
        guard.install(monkeypatch)
