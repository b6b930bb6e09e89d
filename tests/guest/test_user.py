"""Without root: a whole day and every feature, as a user who is nobody else and has no right that others lack.

The steps themselves are in asuser/, and run as that user.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.guest.conftest import TOP
from tests.guest.userhome import UID, UserHome, user_home
from tests.host import nslab

HOST, OTHER = "192.0.2.7", "198.51.100.9"
"""The host's own address, and one more that guests reach it under (TEST-NET-1 and -2 of RFC 5737)."""


@pytest.fixture(scope="module")
def lab() -> None:
    """There is none of root's."""


@pytest.fixture(autouse=True)
def _nothing_is_left() -> None:
    """Each test looks itself: what runs is another user's."""


@pytest.fixture(scope="module")
def user(guest_files: tuple[str, str]) -> Iterator[UserHome]:
    made = subprocess.run(
        [str(TOP / "scripts/make-guest"), "--full"], stdout=subprocess.PIPE, text=True, check=True
    )
    full = dict(line.split("=", 1) for line in made.stdout.splitlines())
    files = {"vmlinuz": guest_files[0], "initrd": guest_files[1], "vmlinuz-full": full["KERNEL"]}
    with user_home({**files, "initrd-full": full["INITRD"]}) as home:
        yield home


@contextmanager
def network() -> Iterator[None]:
    """A namespace whose way out is a cable, as a user finds a host."""
    home, fresh = nslab.Namespace.current(), nslab.Namespace.new()
    fresh.enter()
    try:
        with nslab.IPRoute() as ipr:
            ipr.link("add", ifname="up0", kind="veth", peer={"ifname": "up1"})
            for name, address, prefix in (("up0", HOST, 24), ("up1", OTHER, 32)):
                (index,) = ipr.link_lookup(ifname=name)
                ipr.addr("add", index=index, address=address, prefixlen=prefix)
                ipr.link("set", index=index, state="up")
            ipr.route("add", dst="default", gateway="192.0.2.1")
        yield
    finally:
        home.enter()
        home.close()
        fresh.close()


def processes(user: UserHome) -> dict[int, str]:
    """What runs as the user with anything of theirs, by pid: its words and open files tell."""
    found = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with suppress(OSError):
            proc = Path("/proc", pid)
            own = proc.stat().st_uid == UID and "Z" not in proc.joinpath("stat").read_text().rpartition(")")[2][:3]
            words = [proc.joinpath("cmdline").read_bytes().decode("utf-8", "replace")]
            words += [os.readlink(fd) for fd in proc.joinpath("fd").iterdir()] if own else []
            if own and any(str(user.folder) in word for word in words):
                found[int(pid)] = words[0].replace("\0", " ")
    return found


@contextmanager
def none_left(user: UserHome) -> Iterator[None]:
    """Afterwards nothing of the user's runs, however this has ended."""
    try:
        yield
        nslab.until(lambda: not processes(user), "the end of all that the user has started")
    finally:
        for pid in processes(user):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("part", ["day", "work", "stacks"])
def test_as_a_user(user: UserHome, part: str) -> None:
    """All steps of a part, seen to pass and to leave nothing running."""
    with network(), none_left(user):
        done = user.run(
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            f"--basetemp={user.home}/tmp-{part}",
            "-W",
            "ignore",
            f"{user.code}/tests/guest/asuser/{part}.py",
            timeout=1500,
            CI=os.environ.get("CI", ""),
            QKVM_TEST_HOST=HOST,
            QKVM_TEST_OTHER=OTHER,
        )
    print(done.stdout)
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    passed = re.search(r"^(\d+) passed in ", done.stdout, re.MULTILINE)
    steps = (user.code / f"tests/guest/asuser/{part}.py").read_text()
    assert passed is not None and int(passed[1]) >= steps.count("\ndef test_"), "one was not collected"
