"""The host's NUMA nodes that the guest's memory comes from (virsh numatune).

At its start QEMU gets a memory policy (host/node/placement.py), or in mode restrictive a control group that
confines it (cpuset.mems). In modes strict and restrictive that group also changes the nodes of a running guest:
the kernel moves its memory.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from msgspec.structs import replace

from qkvm.domain.definition import together
from qkvm.domain.tuning import tuned
from qkvm.domain.tuning.group import any_group_of, group_of
from qkvm.domain.tuning.threads import parse_cpus
from qkvm.errors import InvalidState, InvalidValue
from qkvm.files import Undo
from qkvm.host.cgroup import Group
from qkvm.host.node import numa
from qkvm.scope import Scope
from qkvm.spec import domain as spec
from qkvm.units import format_cpu_list, printable

if TYPE_CHECKING:
    from qkvm.domain.handle import Handle
    from qkvm.domain.run import Run


def parameters(domain: Handle, *, scope: Scope = Scope.CURRENT) -> tuple[str, str]:
    """Return mode and nodes; 'strict' and '' by default."""
    wanted = domain.resolve(scope)
    tune = of_run(domain.live) if wanted.live else domain.definition.numatune
    return (str(tune.mode), tune.nodeset) if tune is not None else (str(spec.NumaMode.STRICT), "")


def of_run(run: Run) -> spec.NumaTune | None:
    """Return the present tuning of a running guest, None for none."""
    return tuned.live(run, "numatune", spec.NumaTune)


def set_parameters(domain: Handle, mode: str | None, nodeset: str | None, *, scope: Scope = Scope.CURRENT) -> None:
    """Change mode and nodes, live, in the definition, or both; an empty nodeset removes the tuning.

    :raises InvalidState: live with another mode, or no cpuset controller. :raises InvalidValue: no such node.
    """
    chosen = _mode(mode)
    nodes = _nodes(nodeset) if nodeset else set()
    together(
        domain,
        scope,
        lambda run, undo: _set_live(run, chosen, nodes, undo),
        lambda present: _with(present, chosen, nodeset),
    )


def _mode(text: str | None) -> spec.NumaMode | None:
    if text is None:
        return None
    # virsh also accepts the numbers of its API.
    name = {"0": "strict", "1": "preferred", "2": "interleave", "3": "restrictive"}.get(text, text)
    try:
        return spec.NumaMode(name)
    except ValueError:
        raise InvalidValue(f"Invalid mode: {printable(text)}", hint=", ".join(spec.NumaMode)) from None


def _nodes(text: str) -> set[int]:
    nodes = parse_cpus(text, "nodeset")
    missing = nodes - set(numa.numbers())
    if missing:
        raise InvalidValue(
            f"NUMA node {min(missing)} of nodeset '{printable(text)}' is not on this host",
            hint=f"it has {format_cpu_list(set(numa.numbers()))}",
        )
    return nodes


def _with(present: spec.Domain, mode: spec.NumaMode | None, nodeset: str | None) -> spec.Domain:
    before = present.numatune
    nodes = nodeset if nodeset is not None else before.nodeset if before is not None else ""
    if not nodes:
        if mode is not None and nodeset is None:
            raise InvalidValue("a mode alone says nothing", hint="--nodeset too")
        return replace(present, numatune=None)
    chosen = mode or (before.mode if before is not None else spec.NumaMode.STRICT)
    return replace(present, numatune=spec.NumaTune(nodeset=nodes, mode=chosen))


def _set_live(run: Run, mode: spec.NumaMode | None, nodes: set[int], undo: Undo) -> None:
    present = of_run(run)
    had = present.mode if present is not None else spec.NumaMode.STRICT
    if mode is not None and mode is not had:
        raise InvalidState("can't change numatune mode for running domain", hint="--config for the next start")
    if had not in (spec.NumaMode.STRICT, spec.NumaMode.RESTRICTIVE):
        raise InvalidState("change of nodeset for running domain requires strict or restrictive numa mode")
    group = cpuset_group(run)
    undo.add(group.write, "cpuset.mems", group.read("cpuset.mems").strip())
    group.write("cpuset.mems", format_cpu_list(nodes))
    chosen = spec.NumaTune(nodeset=format_cpu_list(nodes), mode=had) if nodes else None
    tuned.remember(run, "numatune", chosen, undo)


def cpuset_group(run: Run) -> Group:
    """Return the domain's group with the cpuset controller, and enable that if it is not.

    :raises InvalidState: it is not available.
    """
    group = any_group_of(run)
    if group is not None and "cpuset" not in group.controllers():
        parent = Group(group.path.rpartition("/")[0])
        for level in (Group(parent.path.rpartition("/")[0]), parent):
            level.enable("cpuset")
    return group_of(run, "cpuset")
