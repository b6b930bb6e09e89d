"""No test may be skipped where it counts: with CI=true a skip is a failure."""

from __future__ import annotations

import os
from collections.abc import Generator

import pytest

# What this host knows of operating systems must not change what a test expects. Tests of it say where it is.
for _name in ("USER", "LOCAL", "SYSTEM"):
    os.environ[f"OSINFO_{_name}_DIR"] = "/nonexistent"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Turn a skip into a failure that tells its reason."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("CI") == "true":
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped, which CI=true forbids: {report.longrepr}"
    return report
