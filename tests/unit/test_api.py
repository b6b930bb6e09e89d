"""The public handles: what their methods take by keyword is what the functions behind them take."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import pytest

from qkvm.api import options
from qkvm.api.domain import Domain
from qkvm.api.host import Host
from qkvm.domain.device.disk import media
from qkvm.domain.device.disk import plug as disks
from qkvm.domain.device.nic import plug as nics
from qkvm.domain.guest import agent
from qkvm.domain.life import start
from qkvm.domain.manage import undefine, xml
from qkvm.domain.snapshot import delete, revert
from qkvm.domain.snapshot.taking import Wanted
from qkvm.domain.state import dump, save
from qkvm.domain.tuning import balloon, vcpu
from qkvm.domain.watch import address, stats

BEHIND: dict[Callable[..., Any], tuple[type, Callable[..., Any]]] = {
    Domain.start: (options.Start, start.start),
    Domain.save: (options.Save, save.save),
    Domain.managed_save: (options.ManagedSave, save.managed_save),
    Domain.create_snapshot: (options.Snapshot, Wanted),
    Domain.revert_to_snapshot: (options.Revert, revert.revert),
    Domain.delete_snapshot: (options.DeleteSnapshot, delete.delete),
    Domain.dump: (options.Dump, dump.dump),
    Domain.xml: (options.Xml, xml.dump),
    Domain.undefine: (options.Undefine, undefine.undefine),
    Domain.set_vcpus: (options.Vcpus, vcpu.set_count),
    Domain.set_memory: (options.Memory, balloon.set_current),
    Domain.set_max_memory: (options.Scoped, balloon.set_maximum),
    Domain.attach_interface: (options.AttachInterface, nics.attach),
    Domain.detach_interface: (options.DetachInterface, nics.detach),
    Domain.attach_disk: (options.Scoped, disks.attach),
    Domain.detach_disk: (options.Unplugging, disks.detach),
    Domain.change_media: (options.ChangeMedia, media.change),
    Domain.addresses: (options.Addresses, address.addresses),
    Domain.agent: (options.Agent, agent.session),
    Host.create: (options.Create, start.create),
    Host.restore: (options.Restore, start.restore),
    Host.statistics: (options.Statistics, stats.collect),
}


@pytest.mark.parametrize("method", BEHIND, ids=lambda method: method.__name__)
def test_options_are_those_of_the_function_behind(method: Callable[..., Any]) -> None:
    kind, behind = BEHIND[method]
    assert f"options.{kind.__name__}]" in inspect.signature(method).parameters["options"].annotation
    taken = inspect.signature(behind).parameters.values()
    if behind is Wanted:
        expected = {one.name for one in taken} - {"name"}
    else:
        expected = {one.name for one in taken if one.kind is inspect.Parameter.KEYWORD_ONLY}
    assert set(kind.__annotations__) == expected


def test_no_method_takes_just_anything() -> None:
    open_ended = [
        f"{kind.__name__}.{name}"
        for kind in (Domain, Host)
        for name, method in inspect.getmembers(kind, inspect.isfunction)
        for one in inspect.signature(method).parameters.values()
        if one.kind is inspect.Parameter.VAR_KEYWORD and "Unpack" not in str(one.annotation)
    ]
    assert not open_ended
