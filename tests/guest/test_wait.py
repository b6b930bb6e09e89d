"""Waiting for a guest: addresses of this run, its agent, its SSH server; never longer than it can come."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from qkvm.api.domain import Domain
from qkvm.errors import InvalidState, NotReached
from tests.guest.conftest import Lab, network_nic
from tests.guest.guest import Guest

Register = Callable[[Domain], Domain]

STACK = '[[nics]]\nmac = "52:54:00:00:aa:02"\ntype = "user"\nforwards = [{ ports = "2200-2240", to = 2 }]\n'
"""slirp: port 2220 of the host leads to port 22 of the guest."""


def test_an_address_is_one_of_this_run(lab: Lab, domain_of: Register) -> None:
    domain = domain_of(lab.define("again", body=network_nic()))
    domain.start()
    first = domain.wait("address")
    assert first in lab.ok("domifaddr again --wait")
    domain.destroy()
    domain.start(paused=True)
    # It has the lease, and can't have asked for it.
    assert first in lab.ok("domifaddr again --source lease")
    said = lab.fails("domifaddr again --wait --timeout 2")
    assert f"no NIC has an address of this run after 2 s ({first} was its address in an earlier run" in said
    assert f"no address of domain 'again' after 2 s: {first} was its" in lab.fails(
        "wait again --for address --timeout 2"
    )
    domain.resume()
    assert lab.ok("wait again --for address").strip() == first
    # One that was saved meanwhile has asked for none, and answers.
    domain.managed_save()
    domain.start()
    assert first in lab.ok("domifaddr again --wait --source lease")


def test_guests_that_come(lab: Lab, domain_of: Register) -> None:
    domain = domain_of(lab.define("comes", body=network_nic("52:54:00:00:aa:03") + STACK))
    assert "domain is not running" in lab.fails("wait comes --for agent")
    assert "shut off" in lab.fails("wait comes --for running --timeout 1")
    with pytest.raises(NotReached, match="no running of domain 'comes' after 0.2 s: shut off"):
        domain.wait("running", timeout=0.2)
    domain.start()
    assert lab.ok("wait comes --for running").strip() == "running (booted)"
    assert lab.ok("wait comes --for agent").strip() == "the agent answers"
    assert "'sleep' (running, shutoff, address, agent, ssh, cloud-init)" in lab.fails("wait comes --for sleep")
    assert "the guest has no cloud-init" in lab.fails("wait comes --for cloud-init")
    with Guest(domain) as guest:
        # slirp connects before it knows whether the guest does: a connection says nothing.
        assert "no ssh of domain 'comes' after 2 s" in lab.fails("wait comes --for ssh --timeout 2")
        guest.ask("nc -ll -p 22 -e echo SMTP </dev/null >/dev/null 2>&1 & echo $! >/run/nc")
        assert "answers, but not as an SSH server does" in lab.fails("wait comes --for ssh --timeout 4")
        guest.ask("kill $(cat /run/nc); nc -ll -p 22 -e echo SSH-2.0-tiny </dev/null >/dev/null 2>&1 &")
    assert lab.ok("wait comes --for ssh").strip() == "127.0.0.1:2220 SSH-2.0-tiny"
    domain.nics.detach(type="user")
    address = domain.wait("address")
    assert domain.wait("ssh") == f"{address}:22 SSH-2.0-tiny"
    domain.suspend()
    assert "paused" in lab.fails("wait comes --for agent --timeout 1")


def test_a_guest_that_ends_is_not_waited_for(lab: Lab, domain_of: Register) -> None:
    domain = domain_of(lab.define("ends", cmdline="noagent"))
    lab.boot(domain)
    begin = time.monotonic()
    with Guest(domain) as guest:
        assert "no agent to ask" in lab.fails("wait ends --for cloud-init --timeout 1")
        guest.ask("echo 'Cloud-init v. 22.4.2 finished at Mon, 30 Nov 2026 11:29:11 +0000.' >/dev/ttyS0")
        said = "Cloud-init v. 22.4.2 finished at Mon, 30 Nov 2026 11:29:11 +0000."
        assert lab.ok("wait ends --for cloud-init").strip() == said
        guest.ask("(sleep 3; poweroff -f) </dev/null >/dev/null 2>&1 &")
    with pytest.raises(InvalidState, match="ended while it was waited for its ssh: shut off"):
        domain.wait("ssh")
    assert time.monotonic() - begin < 120
    assert domain.wait("shutoff").startswith("shut off")
    # The next run has not said it.
    domain.start(paused=True)
    assert "no final message" in lab.fails("wait ends --for cloud-init --timeout 1")
