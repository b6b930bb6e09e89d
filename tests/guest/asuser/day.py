"""The working day of test_notes.py for a user: the same steps, on a guest without a bridge."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from qkvm.api.domain import Domain
from tests.guest import guest as guests
from tests.guest.asuser.conftest import UserLab
from tests.guest.guest import Guest
from tests.guest.test_notes import (
    NAME,
    end_the_day,
    install_line,
    test_autostart,
    test_help,
    test_lists,
    test_suboptions_are_listed,
    test_the_balloon_moves,
    test_the_shell,
    test_the_ways_to_its_screen,
    test_vcpus_are_plugged,
)

__all__ = [
    "test_autostart",
    "test_help",
    "test_lists",
    "test_suboptions_are_listed",
    "test_the_balloon_moves",
    "test_the_shell",
    "test_the_ways_to_its_screen",
    "test_vcpus_are_plugged",
]


@pytest.fixture(scope="module")
def day(lab: UserLab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Domain]:
    """The guest of that day; nothing is said of its network."""
    image = tmp_path_factory.mktemp("images") / f"{NAME}.img"
    said = lab.ok(install_line(lab, image, network=""))
    assert "Starting install..." in said and "Domain creation completed." in said
    assert image.stat().st_size < 8 << 30, "allocated as it is written"
    domain = lab.host.domain(NAME)
    guests.wait_ready(domain)
    yield domain
    end_the_day(lab, domain)


def test_nics_come_and_go(lab: UserLab, day: Domain) -> None:
    first = lab.ok(f"domiflist {NAME}").splitlines()
    assert re.match(r" - +user +- +virtio +52:54:00:", first[2])
    said = lab.ok(f"attach-interface {NAME} --type user --source none --model virtio --persistent")
    assert said == "Interface attached successfully\n\n"
    second = lab.ok(f"domiflist {NAME}").splitlines()
    assert re.match(r" - +user +- +virtio +52:54:00:", second[3])
    mac = second[3].split()[-1]
    with Guest(day) as guest:
        guest.until(f"nics | grep -c {mac} || true", "1")
    said = lab.ok(f"detach-interface {NAME} --type user --mac {mac} --persistent")
    assert said == "Interface detached successfully\n\n"
    assert lab.ok(f"domiflist {NAME}").splitlines() == first
