"""The guard of the unit tests guards."""

from __future__ import annotations

import sys

import pytest
from guard import Forbidden

from qkvm.host import process
from qkvm.net.link import link


def test_no_process_is_started() -> None:
    with pytest.raises(Forbidden):
        process.run(["true"])
    with pytest.raises(Forbidden):
        process.spawn(["true"], stdin=0, stdout=1, stderr=2)


def test_no_netlink_and_no_iptables() -> None:
    with pytest.raises(Forbidden):
        link.used_subnets()
    with pytest.raises(Forbidden):
        __import__("pyroute2.netlink.exceptions")
    with pytest.raises(Forbidden):
        __import__("iptc").Table  # noqa: B018


@pytest.mark.usefixtures("allow_host")
def test_a_test_can_opt_in() -> None:
    assert process.run([sys.executable, "-c", "print('well')"]) == b"well\n"
    # A write that does not wait puts no more into a pipe than that holds.
    hasty = "import os; os.set_blocking(1, False); os.write(1, bytes(1 << 20))"
    assert len(process.run([sys.executable, "-c", hasty], to_file=True)) == 1 << 20
    assert len(process.run([sys.executable, "-c", hasty])) < 1 << 20
