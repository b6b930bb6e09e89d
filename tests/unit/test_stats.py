"""Statistics under virsh's names, from answers of QEMU and of the kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from qkvm.api.domain import Domain
from qkvm.domain.block import stats as blockstats
from qkvm.domain.run import Run
from qkvm.domain.watch import statgroups, stats
from qkvm.paths import Tree
from qkvm.spec import domain as spec
from qkvm.spec.size import Size

COUNTERS = {
    "rd_operations": 2,
    "rd_bytes": 4608,
    "rd_total_time_ns": 140138,
    "wr_operations": 0,
    "wr_bytes": 0,
    "wr_total_time_ns": 0,
    "flush_operations": 0,
    "flush_total_time_ns": 0,
    "wr_highest_offset": 0,
}
LAYER = {
    "node-name": "qcow2-vda",
    "stats": COUNTERS,
    "parent": {"stats": {**COUNTERS, "wr_highest_offset": 262144}},
}
STATS = [
    {
        "qdev": "/machine/peripheral/disk-vda/virtio-backend",
        **LAYER,
        "backing": {**LAYER, "node-name": "raw-vda-1"},
    },
    {"qdev": "disk-sdb", "stats": COUNTERS},
]
NODES = [
    {"node-name": "qcow2-vda", "image": {"virtual-size": 1073741824, "actual-size": 204800}},
    {"node-name": "raw-vda-1", "image": {"virtual-size": 512, "actual-size": 4096}},
]
DISKS: list[dict[str, Any]] = [
    {"id": "disk-vda", "target": "vda", "path": "/i/top.qcow2", "spec": {"backing": [{"path": "/i/base"}]}},
    {"id": "disk-sdb", "target": "sdb", "path": ""},
    {"id": "disk-sdc", "target": "sdc", "path": "/i/c"},
]


def test_block_devices() -> None:
    found = blockstats.of_run(DISKS, STATS, NODES, backing=False)
    assert list(found)[:16] == [
        "block.count",
        "block.0.name",
        "block.0.path",
        "block.0.backingIndex",
        "block.0.rd.reqs",
        "block.0.rd.bytes",
        "block.0.rd.times",
        "block.0.wr.reqs",
        "block.0.wr.bytes",
        "block.0.wr.times",
        "block.0.fl.reqs",
        "block.0.fl.times",
        "block.0.allocation",
        "block.0.capacity",
        "block.0.physical",
        "block.1.name",
    ]
    assert found["block.count"] == 3 and found["block.0.allocation"] == 262144
    assert found["block.0.capacity"] == 1073741824 and found["block.0.physical"] == 204800
    # An empty drive has no path, and one that QEMU says nothing of still its name.
    assert "block.1.path" not in found and found["block.1.rd.reqs"] == 2
    assert found["block.2.path"] == "/i/c" and "block.2.rd.reqs" not in found


def test_block_devices_with_all_their_layers() -> None:
    found = blockstats.of_run(DISKS, STATS, NODES, backing=True)
    assert found["block.count"] == 4
    assert found["block.1.path"] == "/i/base" and found["block.1.backingIndex"] == 2
    assert found["block.1.capacity"] == 512


def test_a_disk_without_blocks_in_a_file_system_has_its_length(tmp_path: Path) -> None:
    (tmp_path / "device").write_bytes(bytes(8192))
    nodes = [{"node-name": "qcow2-vda", "image": {"virtual-size": 8192, "actual-size": 0}}]
    disks = [DISKS[0] | {"path": str(tmp_path / "device")}]
    assert blockstats.of_run(disks, STATS, nodes, backing=False)["block.0.physical"] == 8192


def test_disks_of_a_domain_that_does_not_run(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(bytes(8192))
    disks = tuple(
        spec.Disk(path=path, format=spec.DiskFormat.RAW, target=target)
        for path, target in ((str(tmp_path / "raw"), "vda"), ("/not/there", "vdb"))
    )
    definition = spec.Domain(
        name="vm", uuid="0" * 32, memory=spec.Memory(current=Size(1024), maximum=Size(2048)), disks=disks
    )
    found = blockstats.of_definition(definition, backing=False)
    assert (found["block.0.capacity"], found["block.0.physical"]) == (8192, 8192)
    assert found["block.1.path"] == "/not/there" and "block.1.capacity" not in found


def _sight(tmp_path: Path, **record: object) -> statgroups.Sight:
    contents: Any = {
        "id": 1,
        "uuid": "0" * 32,
        "accel": "kvm",
        "vcpus": [],
        "nics": [],
        "disks": [],
        "definition": {},
        **record,
    }
    run = Run(str(tmp_path), "vm", contents)
    return statgroups.Sight(Domain(Tree(str(tmp_path)), "vm"), run, backing=False)


# As in the examples of qapi/stats.json.
SCHEMAS = [
    {
        "provider": "kvm",
        "target": "vm",
        "stats": [
            {"name": "remote_tlb_flush", "type": "cumulative"},
            {"name": "max_mmu_page_hash_collisions", "type": "peak"},
            {"name": "nx_lpage_splits", "type": "instant"},
        ],
    },
    {
        "provider": "kvm",
        "target": "vcpu",
        "stats": [
            {"name": "halt_poll_success_ns", "type": "cumulative"},
            {"name": "halt_wait_hist", "type": "log2-histogram"},
        ],
    },
]


def test_counters_of_kvm(tmp_path: Path) -> None:
    sight = _sight(tmp_path)
    sight.answers["vm"] = [
        [
            {
                "provider": "kvm",
                "stats": [
                    {"name": "remote_tlb_flush", "value": 5},
                    {"name": "max_mmu_page_hash_collisions", "value": 0},
                    {"name": "nx_lpage_splits", "value": 7},
                    {"name": "unknown", "value": 9},
                ],
            }
        ],
        SCHEMAS,
    ]
    assert statgroups.vm(sight) == {
        "vm.remote_tlb_flush.sum": 5,
        "vm.max_mmu_page_hash_collisions.max": 0,
        "vm.nx_lpage_splits.cur": 7,
    }
    path = "/machine/unattached/device[0]"
    sight.answers["vcpu"] = [
        [
            {
                "provider": "kvm",
                "qom-path": path,
                "stats": [
                    {"name": "halt_poll_success_ns", "value": 100},
                    {"name": "halt_wait_hist", "value": [0, 1]},
                ],
            }
        ],
        SCHEMAS,
        [{"qom-path": path, "cpu-index": 3}],
    ]
    assert statgroups._vcpu_counters(sight) == {3: {"halt_poll_success_ns.sum": 100}}


def test_questions_are_asked_only_where_there_are_answers(tmp_path: Path) -> None:
    def asked(**record: object) -> list[str]:
        sight = _sight(tmp_path, **record)
        sight.pid = 1
        return [command for group in stats.GROUPS for command, _ in statgroups.questions(group, sight)]

    assert asked(accel="tcg", definition={"balloon": False}) == ["query-dirty-rate"]
    assert asked(accel="tcg", iothreads=[{"id": 1}], disks=[{"id": "d", "since": 0}]) == [
        "qom-get",
        "query-blockstats",
        "query-named-block-nodes",
        "query-iothreads",
        "query-dirty-rate",
    ]
    assert [name for name in asked() if name.startswith("query-stats")] == [
        "query-stats",
        "query-stats-schemas",
    ] * 2


def test_dirty_rate(tmp_path: Path) -> None:
    sight = _sight(tmp_path)
    assert statgroups.dirtyrate(sight) == {}
    sight.answers["dirtyrate"] = [
        {
            "status": "measured",
            "start-time": 10,
            "calc-time": 1,
            "mode": "dirty-ring",
            "dirty-rate": 4,
            "vcpu-dirty-rate": [{"id": 0, "dirty-rate": 3}],
        }
    ]
    assert statgroups.dirtyrate(sight) == {
        "dirtyrate.calc_status": 2,
        "dirtyrate.calc_start_time": 10,
        "dirtyrate.calc_period": 1,
        "dirtyrate.calc_mode": "dirty-ring",
        "dirtyrate.megabytes_per_second": 4,
        "dirtyrate.vcpu.0.megabytes_per_second": 3,
    }


def test_iothreads(tmp_path: Path) -> None:
    sight = _sight(tmp_path)
    sight.answers["iothread"] = [
        [{"id": "iothread2", "thread-id": 5, "poll-max-ns": 32768, "poll-grow": 0, "poll-shrink": 0}]
    ]
    assert statgroups.iothread(sight) == {
        "iothread.count": 1,
        "iothread.2.poll-max-ns": 32768,
        "iothread.2.poll-grow": 0,
        "iothread.2.poll-shrink": 0,
    }


def test_every_state_and_reason_has_its_number() -> None:
    """The words that a run can tell of itself are those that libvirt has numbers for."""
    assert statgroups._REASONS["running"].index("unpaused") == 5
    assert statgroups._REASONS["paused"].index("I/O error") == 5
    assert statgroups._REASONS["shut off"].index("crashed") == 3
    assert set(statgroups._REASONS) == set(statgroups._STATES)
