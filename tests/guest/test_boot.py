"""What the machine's boot and halt do: start what is marked, in order; shut all down within one deadline."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from qkvm.api.domain import Domain
from tests.guest import guest as guests
from tests.guest.conftest import TOP, Lab, network_nic

Register = Callable[[Domain], Domain]


def test_autostart_is_marked_and_told(lab: Lab, domain_of: Register) -> None:
    domain = domain_of(lab.define("marked"))
    assert lab.ok("autostart marked") == "Domain 'marked' marked as autostarted\n\n"
    assert domain.definition.autostart
    assert "Autostart:      enable\n" in lab.ok("dominfo marked")
    assert lab.ok("list --all --autostart --name").split() == ["marked"]
    assert lab.ok("autostart --disable marked") == "Domain 'marked' unmarked as autostarted\n\n"
    assert lab.ok("list --all --autostart") == " Id   Name   State\n--------------------\n\n"
    assert lab.ok("net-autostart default") == "Network default marked as autostarted\n\n"
    assert "yes" in lab.ok("net-list")
    assert lab.ok("net-autostart default --disable") == "Network default unmarked as autostarted\n\n"
    domain.start()
    domain.undefine()
    assert "cannot set autostart for transient domain" in lab.fails("autostart marked")


def test_what_is_marked_for_the_next_boot_starts_once(lab: Lab, domain_of: Register) -> None:
    domain = domain_of(lab.define("once"))
    assert lab.ok("autostart once --once") == "Domain 'once' marked as autostarted on next boot\n\n"
    told = lab.ok("dominfo once")
    assert "Autostart:      disable\nAutostart Once: enable\n" in told
    assert lab.ok("autostart once --once --disable") == "Domain 'once' unmarked as autostarted on next boot\n\n"
    assert lab.ok("autostart-all").strip() == "" and not domain.is_running
    lab.ok("autostart once --once")
    assert "Domain 'once' started" in lab.ok("autostart-all") and domain.is_running
    assert not domain.definition.autostart_once and not domain.definition.autostart
    domain.destroy()
    assert lab.ok("autostart-all").strip() == "" and not domain.is_running
    # What starts with each boot goes on to do so.
    lab.ok("autostart once")
    lab.ok("autostart once --once")
    lab.ok("autostart-all")
    assert domain.is_running and domain.definition.autostart and not domain.definition.autostart_once


def test_boot_and_halt(lab: Lab, domain_of: Register) -> None:
    """Networks first, domains by their order; at halt the other way round; one that is deaf is ended."""
    lab.host.networks.define(
        'name = "lab"\nbridge = "lab0"\naddress = "10.78.0.1/24"\n[dhcp]\nstart = "10.78.0.2"\nend = "10.78.0.9"\n'
    )
    nic = network_nic("52:54:00:00:bb:01").replace("default", "lab")
    first = domain_of(lab.define("z-first", body=nic))
    second = domain_of(lab.define("a-second"))
    deaf = domain_of(lab.define("deaf", cmdline="ignore_powerbutton noagent"))
    other = domain_of(lab.define("other"))
    broken = domain_of(lab.define("broken", body=network_nic("52:54:00:00:bb:02").replace("default", "no-such")))
    try:
        lab.ok("net-autostart lab")
        for line in ("z-first --order 1", "a-second --order 2", "deaf --order 2", "broken"):
            lab.ok(f"autostart {line}")
        done = lab.run("autostart-all")
        assert done.returncode == 1, "one of them failed"
        told = [line for line in done.stdout.splitlines() if line]
        assert told == [
            "Network 'lab' started",
            "Domain 'z-first' started",
            "Domain 'a-second' started",
            "Domain 'deaf' started",
        ]
        assert (
            "warning: domain 'broken': Network not found: no network with matching name 'no-such'" in done.stderr
        )
        assert first.is_running and second.is_running and deaf.is_running
        assert not other.is_running and not broken.is_running
        assert lab.run("autostart-all").stdout.strip() == "", "what runs is left as it is"
        for domain in (first, second, deaf):
            guests.wait_ready(domain)
        begin = time.monotonic()
        done = lab.run("shutdown-all --timeout 20")
        assert done.returncode == 1 and time.monotonic() - begin < 60
        told = [line for line in done.stdout.splitlines() if line]
        assert sorted(told[:2]) == ["Domain 'a-second' has shut down", "Domain 'deaf' destroyed"]
        assert "domain 'deaf': the guest did not power off within" in done.stderr
        # What is left of the deadline when the deaf one has eaten it is nothing: the first is ended too.
        assert told[2].startswith("Domain 'z-first'")
        assert second.state == ("shut off", "shutdown") and deaf.state == ("shut off", "destroyed")
        assert not first.is_running
        assert lab.run("shutdown-all").returncode == 0
    finally:
        for domain in (first, second, deaf):
            if domain.is_running:
                domain.destroy()
        if lab.host.networks["lab"].active:
            lab.host.networks["lab"].destroy()
        lab.host.networks["lab"].undefine()


def test_the_service_is_written_and_runs(lab: Lab, domain_of: Register) -> None:
    domain = domain_of(lab.define("served"))
    lab.ok("autostart served")
    script = Path(lab.root, "etc/init.d/qkvm")
    unit = Path(lab.root, "etc/systemd/system/qkvm.service")
    try:
        done = lab.run("setup-boot --init sysv --timeout 30")
        assert done.returncode == 0 and done.stdout.startswith(f"{script} written\n"), done.stderr
        assert "warning: it is not switched on: update-rc.d qkvm defaults" in done.stderr
        assert script.stat().st_mode & 0o777 == 0o755

        def service(action: str) -> str:
            return subprocess.run(
                [str(script), action], capture_output=True, text=True, check=True, timeout=300, cwd=TOP
            ).stdout

        assert "Domain 'served' started" in service("start")
        assert "served" in service("status")
        guests.wait_ready(domain)
        assert "Domain 'served' has shut down" in service("stop")
        assert subprocess.run([str(script), "dance"], capture_output=True, check=False).returncode == 2
        assert lab.run("setup-boot --init systemd").returncode == 0
        text = unit.read_text()
        assert (
            f"--root {lab.root} autostart-all\n" in text
            and f"--root {lab.root} shutdown-all --timeout 120\n" in text
        )
        assert lab.ok("setup-boot --init systemd --print").rstrip("\n") == text.rstrip("\n")
        assert lab.ok("setup-boot --init sysv --remove") == f"{script} removed\n\n"
        assert lab.ok("setup-boot --init sysv --remove") == f"{script} was not there\n\n"
        unit.write_text("[Unit]\nDescription=mine\n")
        for line in ("setup-boot --init systemd", "setup-boot --init systemd --remove"):
            assert "was not written by qkvm" in lab.fails(line)
        assert unit.read_text() == "[Unit]\nDescription=mine\n"
        assert "unknown init 'runit'" in lab.fails("setup-boot --init runit")
    finally:
        for path in (script, unit):
            if path.exists():
                os.unlink(path)
