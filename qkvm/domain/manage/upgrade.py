"""Check what another QEMU would do with a domain (qkvm upgrade-check): what it lacks, what changes, if it starts.

The domain is not touched: its hardware is started in a separate QEMU without disks and networks behind it.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import TYPE_CHECKING, NamedTuple

from msgspec.structs import replace

from qkvm.domain.launch import preview
from qkvm.domain.state import saved
from qkvm.domain.store import snapshots as snapshotstore
from qkvm.emulator import hardware, machinetype
from qkvm.emulator import survey as emulator
from qkvm.errors import HostError, ProgramFailed, QkvmError
from qkvm.host import process
from qkvm.host.node import accel
from qkvm.host.validate import Check
from qkvm.qemu import devices, needs
from qkvm.qemu.harmless import harmless
from qkvm.qmp import oneshot
from qkvm.spec import domain as spec
from qkvm.spec import toml
from qkvm.spec.snapshot import NO

if TYPE_CHECKING:
    from qkvm.domain.handle import Handle
    from qkvm.domain.launch.preview import Preview
    from qkvm.emulator.survey import Emulator
    from qkvm.paths import Tree
    from qkvm.qemu.render import Option


class Line(NamedTuple):
    """A line of two command lines side by side: an option now, and the other QEMU's; '' for none."""

    now: str
    then: str


class Report(NamedTuple):
    """What the QEMU ``then`` would do with a domain whose definition has the QEMU ``now``.

    A QEMU that is missing or does not answer is None. ``lines`` are both command lines, empty if one of them can't
    be made.
    """

    domain: str
    now: Emulator | None
    then: Emulator | None
    checks: list[Check]
    lines: list[Line]

    @property
    def fails(self) -> bool:
        """Whether the domain would not start, or a saved state would be lost."""
        return any(check.level == "FAIL" for check in self.checks)


def find(tree: Tree, binary: str) -> Emulator:
    """Return a QEMU by its path or its name on PATH; '' for the settings' one.

    :raises HostError: it is missing, or no QEMU. :raises InvalidValue: it has another architecture.
    """
    if binary and "/" not in binary:
        binary = process.find_program(binary, "upgrade-check", "qemu-system-x86")
    try:
        return emulator.find(tree, binary=binary, arch="x86_64")
    except ProgramFailed as error:
        raise HostError(
            f"{error.argv[0]} is no QEMU: {process.last_line(error.stderr)}",
            hint="a qemu-system-x86_64 of 7.2 or newer",
        ) from error


def check(domain: Handle, then: Emulator | None = None) -> Report:
    """Check one domain.

    :param then: another QEMU than the definition's own.
    """
    report = Report(domain.name, None, then, [], [])
    try:
        definition = domain.definition
        now, problem = _present(domain.tree, definition)
        then = then or now
        if then is None:
            raise HostError(problem)
        report = report._replace(now=now, then=then)
        checks = [_machine(definition, then), _cpu(definition, now, then), *_states(domain, now, then)]
        report.checks.extend(checks)
        wanted = preview.of(domain, replace(definition, emulator=then.path))
    except QkvmError as error:
        report.checks.append(Check("command-line", "for a command line", "FAIL", str(error)))
        return report
    report.checks.extend(_lacking(domain.name, wanted.options, now, then))
    if report.checks[0].level != "FAIL":
        # Without its machine type a start is no use.
        report.checks.append(_start(wanted))
    if now is not None:
        report.lines.extend(_side_by_side(domain, replace(definition, emulator=now.path), wanted.options))
    return report


def _present(tree: Tree, definition: spec.Domain) -> tuple[Emulator | None, str]:
    """Return the definition's own QEMU, or None and what is wrong with it."""
    try:
        return find(tree, definition.emulator), ""
    except HostError as error:
        return None, str(error)


def _machine(definition: spec.Domain, then: Emulator) -> Check:
    """Check whether QEMU has the machine type, and whether the definition pins its version."""
    pinned = machinetype.pinned(definition, then)
    name = pinned.machine.versioned(pinned.machine_version)
    what, advice = f"for machine type {name}", machinetype.remaining(then, definition.machine)
    found = then.machine(name)
    if found is None:
        return Check("machine", what, "FAIL", advice)
    if pinned != definition:
        return Check("machine", what, "WARN", "the definition names no version; its next start pins it to this")
    if found.deprecated:
        return Check("machine", what, "WARN", f"it is deprecated; {advice}")
    return Check("machine", what, "PASS")


def _cpu(definition: spec.Domain, now: Emulator | None, then: Emulator) -> Check:
    """Check whether QEMU has the CPU model, and with the same features."""
    try:
        chosen = accel.choose(definition.accel)[0]
    except HostError as error:
        return Check("cpu", "for its accelerator", "FAIL", str(error))
    name = devices.cpu_model(definition, chosen).partition(",")[0]
    what = f"for CPU model {name}"
    if f"{name}-x86_64-cpu" not in then.devices:
        return Check("cpu", what, "FAIL", "see: qkvm domcapabilities --emulatorbin " + shlex.quote(then.path))
    model = then.model(name)
    if model is not None and model.deprecated:
        return Check("cpu", what, "WARN", "it is deprecated; see: qkvm hypervisor-cpu-models")
    if now is None or name not in ("max", "host") or chosen not in now.best or chosen not in then.best:
        return Check("cpu", what, "PASS")
    before, after = now.best[chosen].features, then.best[chosen].features
    words = [
        f"{word} {len(some)}: {', '.join(sorted(some))}"
        for word, some in (("it gains", after - before), ("it loses", before - after))
        if some
    ]
    advice = "; ".join(words) + '; a named model, such as cpu = "qemu64", stays as it is' if words else ""
    return Check("cpu", what, "NOTE" if words else "PASS", advice)


def _states(domain: Handle, now: Emulator | None, then: Emulator) -> Iterator[Check]:
    """Check whether QEMU can load each saved state of the guest."""
    for kind, definition in _saved(domain):
        name = definition.machine.versioned(definition.machine_version)
        ident, what = kind.replace(" ", "-"), f"for the state of {kind}, a {name}"
        if then.machine(name) is None:
            yield Check(ident, what, "FAIL", f"QEMU {then.version} has no such machine and could not load it")
        elif now is not None and then.release < now.release:
            yield Check(ident, what, "WARN", f"states of QEMU {now.version} are not made for an older one")
        else:
            yield Check(ident, what, "PASS")


def _saved(domain: Handle) -> Iterator[tuple[str, spec.Domain]]:
    """Yield the definition of each state with memory; damaged files are left out."""
    try:
        if domain.has_managed_save:
            yield "managed save", saved.load(domain.tree.managed_save(domain.name)).definition
        for name, one in snapshotstore.load(domain).items():
            if one.memory != NO:
                yield f"snapshot {name}", toml.from_plain(one.definition, spec.Domain, name)
    except QkvmError:
        return


def _lacking(domain: str, options: list[Option], now: Emulator | None, then: Emulator) -> Iterator[Check]:
    """Check whether QEMU has all device types, properties and options."""
    wanted, edit = needs.of(options), f"choose others: qkvm edit {domain}"
    missing = needs.missing_types(wanted, then)
    hint = hardware.package_hint(missing)
    yield _gone("devices", "for device types", missing, hint or edit)
    asked = needs.questions(wanted, then)
    answers = oneshot.ask(then.path, "tcg:kvm", [(command, {"typename": name}) for command, name, _ in asked])
    gone = [
        f"{name}.{prop}"
        for (_, name, props), answer in zip(asked, answers, strict=True)
        if isinstance(answer, list)
        for prop in sorted(props - {entry["name"] for entry in answer})
    ]
    yield _gone("properties", "for properties of devices", gone, edit)
    if now is not None:
        left = needs.missing_options(wanted, now, then)
        yield _gone("options", "for options", left, f"in a template of yours? see: qkvm domargv {domain}")


def _gone(ident: str, what: str, names: list[str], hint: str) -> Check:
    if not names:
        return Check(ident, what, "PASS")
    return Check(ident, what, "FAIL", f"it has no {', '.join(names)}; {hint}")


def _start(wanted: Preview) -> Check:
    """Check whether its hardware starts, with vCPUs stopped and nothing behind the devices."""
    options, left = harmless(wanted.options)
    argv = [wanted.binary, *(word for option in options for word in option.argv())]
    ident, what = "start", "if its hardware starts"
    try:
        answers = oneshot.converse(argv, wanted.script)
    except HostError as error:
        said = error.stderr if isinstance(error, ProgramFailed) else ""
        return Check(ident, what, "FAIL", process.last_line(said) if said else str(error))
    for (command, _), answer in zip(wanted.script, answers, strict=True):
        if isinstance(answer, str):
            return Check(ident, what, "FAIL", f"it refused {command}: {answer}")
    return Check(ident, what, "PASS", f"tried without {', '.join(left)}" if left else "")


def _side_by_side(domain: Handle, definition: spec.Domain, then: list[Option]) -> Iterator[Line]:
    """Yield both command lines side by side."""
    try:
        now = preview.of(domain, definition).options
    except QkvmError:
        return
    before, after = ([shlex.join(option.argv()) for option in options] for options in (now, then))
    for _, i1, i2, j1, j2 in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        yield from (Line(*pair) for pair in zip_longest(before[i1:i2], after[j1:j2], fillvalue=""))
