"""Statistics of running domains, complete beside one that hangs and one that another command is busy with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from qkvm.api.domain import Domain
from qkvm.domain.watch import stats
from qkvm.errors import MonitorTimeout
from tests.guest.conftest import Lab, network_nic
from tests.guest.guest import Guest

Register = Callable[[Domain], Domain]

RECORDED = [
    f"{group}.{name}"
    for group, names in (
        ("state", "state reason"),
        ("cpu", "time user system cache.monitor.count haltpoll.success.time haltpoll.fail.time"),
        (
            "balloon",
            "current maximum swap_in swap_out major_fault minor_fault unused available usable last-update",
        ),
        ("balloon", "disk_caches hugetlb_pgalloc hugetlb_pgfail rss"),
        ("vcpu", "current maximum 0.state 0.time 0.wait 0.delay"),
        ("net", "count 0.name 0.rx.bytes 0.rx.pkts 0.rx.errs 0.rx.drop 0.tx.bytes 0.tx.pkts 0.tx.errs 0.tx.drop"),
        ("block", "count 0.name 0.path 0.backingIndex 0.rd.reqs 0.rd.bytes 0.rd.times 0.wr.reqs 0.wr.bytes"),
        ("block", "0.wr.times 0.fl.reqs 0.fl.times 0.allocation 0.capacity 0.physical"),
        ("dirtyrate", "calc_status calc_start_time calc_period calc_mode"),
    )
    for name in names.split()
]
"""The names of virsh 9.0's domstats for a running guest with a NIC and a disk, in its order."""


def _chain(folder: Path) -> str:
    """A qcow2 image upon a raw one, and the definition of a disk on both."""
    base, top = folder / "base.img", folder / "top.qcow2"
    base.write_bytes(os.urandom(1 << 20))
    subprocess.run(
        ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(base), "-F", "raw", str(top), "8M"], check=True
    )
    return (
        f'[[disks]]\npath = "{top}"\nformat = "qcow2"\ntarget = "vda"\n'
        f'[[disks.backing]]\npath = "{base}"\nformat = "raw"\n'
    )


@contextmanager
def _stopped(domain: Domain) -> Iterator[None]:
    """The domain's QEMU does nothing meanwhile."""
    pid = domain.live.pid
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_all_groups(lab: Lab, domain_of: Register, tmp_path: Path) -> None:
    os.chmod(tmp_path, 0o755)
    body = _chain(tmp_path) + network_nic() + "[[iothreads]]\nid = 4\n"
    domain = lab.boot(domain_of(lab.define("told", body=body)))
    with Guest(domain) as guest:
        guest.ask("dd if=/dev/vda of=/dev/null bs=64k count=16")
        deadline = time.monotonic() + 30
        while "unused_kib" not in _values(lab, "domstats told --balloon --json")["balloon"]:
            assert time.monotonic() < deadline, "the balloon's driver tells nothing"
        guest.ask("ping -c 2 192.168.122.1") if domain.addresses() else None
    text = lab.ok("domstats told")
    lines = text.splitlines()
    assert lines[0] == "Domain: 'told'" and text.endswith("\n\n")
    assert all(line.startswith("  ") and "=" in line for line in lines[1:-1])
    values = dict(line.strip().split("=", 1) for line in lines[1:-1])
    assert [name for name in values if not name.startswith("iothread.")] == RECORDED
    assert values["state.state"] == values["state.reason"] == "1" and values["balloon.maximum"] == "524288"
    assert int(values["block.0.rd.bytes"]) >= 1 << 20 and values["block.0.capacity"] == str(8 << 20)
    assert values["block.0.path"] == str(tmp_path / "top.qcow2") and values["net.0.name"].startswith("vnet")
    assert int(values["net.0.rx.bytes"]) > 0 and int(values["net.0.tx.pkts"]) > 0
    assert values["iothread.count"] == "1" and "iothread.4.poll-max-ns" in values

    layers = _values(lab, "domstats told --block --backing --json")
    assert [layer["path"] for layer in layers["disks"]] == [
        str(tmp_path / name) for name in ("top.qcow2", "base.img")
    ]
    assert (layers["disks"][1]["backing_index"], layers["disks"][1]["capacity_bytes"]) == (2, 1 << 20)
    only = _values(lab, "domstats --state --vcpu told --json")
    assert set(only) == {"state", "vcpu", "vcpus"} and only["vcpus"][0]["time_ns"] > 0
    domain.destroy()
    ended = _values(lab, "domstats told --json")
    assert ended["state"] == {"state": 5, "reason": 2}
    assert ended["disks"][0]["capacity_bytes"] == 8 << 20 and "cpu" not in ended


def _values(lab: Lab, line: str) -> dict[str, Any]:
    (entry,) = json.loads(lab.ok(line))
    assert entry.pop("domain") and entry.pop("missing") is None
    found: dict[str, Any] = entry
    return found


def test_a_hanging_qemu_holds_up_nobody(lab: Lab, domain_of: Register, monkeypatch: pytest.MonkeyPatch) -> None:
    domains = [domain_of(lab.define(f"many{number}")) for number in range(4)]
    for domain in domains:
        domain.start(paused=domain.name == "many3")
    hung, busy = domains[0], domains[1]
    assert lab.ok("domcontrol many0") == "ok\n\n"
    monkeypatch.setattr(stats, "PATIENCE", 1.0)
    with _stopped(hung), busy.lock():
        begin = time.monotonic()
        found = {entry.name: entry for entry in stats.collect(domains, nowait=True)}
        assert time.monotonic() - begin < 1.5
        assert "no answer within" in found["many0"].missing and "busy" in found["many1"].missing
        assert not found["many2"].missing and "dirtyrate.calc_status" in found["many2"].values
        # What needs no QEMU is told of all.
        for entry in found.values():
            assert {"state.state", "cpu.time", "vcpu.0.time", "balloon.rss"} <= set(entry.values)
        begin = time.monotonic()
        quick = stats.collect(domains, ["state", "cpu-total", "vcpu", "interface"])
        assert not any(entry.missing for entry in quick)
        assert time.monotonic() - begin < 0.3, "groups that QEMU is not asked for wait for nobody"
        with pytest.raises(MonitorTimeout, match="statistics of domain 'many0' are incomplete"):
            stats.collect(domains, ["balloon"], enforce=True)
        assert "incomplete" in lab.fails("domstats --enforce --nowait --block --dirtyrate")
        done = lab.run("domstats --nowait --dirtyrate many0 many2")
        assert done.returncode == 0 and "many0' are incomplete: QEMU: no answer" in done.stderr
        assert done.stdout.count("Domain: '") == 2 and "dirtyrate.calc_mode=page-sampling" in done.stdout
        assert lab.ok("domcontrol many0").startswith("occupied (")
        assert lab.ok("domcontrol many1") == "occupied (0.000s)\n\n"
    # A domain that is busy for a moment is waited for.
    assert lab.ok("domcontrol many1") == "ok\n\n"
    assert not any(entry.missing for entry in lab.host.statistics())
    assert [entry.name for entry in lab.host.statistics("many3", groups=["vcpu"])] == ["many3"]
    domains[2].destroy()
    assert "domain is not running" in lab.fails("domcontrol many2")

    def listed(options: str) -> list[str]:
        return [entry["domain"] for entry in json.loads(lab.ok(f"domstats --state --json {options}"))]

    assert listed("--list-active") == ["many0", "many1", "many3"] and listed("--list-inactive") == ["many2"]
    assert listed("--list-paused") == ["many3"] and listed("--list-running --list-shutoff") == [
        "many0",
        "many1",
        "many2",
    ]
    assert listed("--list-transient") == [] and listed("--list-persistent --list-other") == []
    assert listed("many2 many3 --list-active") == ["many3"]
    assert "failed to get domain 'nosuch'" in lab.fails("domstats nosuch")
