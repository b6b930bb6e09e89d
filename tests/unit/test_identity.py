"""What tells a copy from its original: the texts of its seed."""

from __future__ import annotations

import json

from qkvm.domain.state.copy import identity
from qkvm.storage.media.seed import Seed

ONE, TWO, NEW = "52:54:00:00:00:0a", "52:54:00:00:00:0b", "52:54:00:00:00:0c"


def test_addresses_that_change_places() -> None:
    before = Seed("#cloud-config\n", '{"instance-id": "i", "a": 1}', f"- {ONE}\n- {TWO.upper()}\n- {NEW}\n")
    after = identity.seed_of(before, "copy", {ONE: TWO, TWO: ONE})
    assert after.network_config == f"- {TWO}\n- {ONE}\n- {NEW}\n"
    meta = json.loads(after.meta_data)
    assert meta["a"] == 1 and meta["local-hostname"] == "copy" and meta["instance-id"] != "i"
    assert after.user_data == before.user_data and after.vendor_data.startswith("#cloud-boothook\n")


def test_a_seed_in_yaml_and_no_nics() -> None:
    before = Seed("", "instance-id: i\nlocal-hostname: h\nkeys:\n  - k\n", f"- {ONE}\n")
    after = identity.seed_of(before, "copy", {})
    lines = after.meta_data.splitlines()
    assert after.network_config == before.network_config
    assert "local-hostname: copy" in lines and "instance-id: i" not in lines and lines[-2:] == ["keys:", "  - k"]
