"""Verbs that list and compare CPU models."""

from __future__ import annotations

from qkvm import xml
from qkvm.cli import common
from qkvm.cli.output import json_text
from qkvm.cli.parse import UsageError
from qkvm.errors import InvalidValue

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.cli.context import Context
    from qkvm.cli.parse import Args
    from qkvm.emulator.cpu import Named
    from qkvm.emulator.survey import CpuModel, Emulator


def cpu_models(context: Context, args: Args) -> None:
    """Print the names of the CPU models of an architecture."""
    cpus = context.host.emulators.cpus
    found = context.host.emulators.find(arch=args.required("arch"))
    if args.json:
        return context.out(json_text([
            {"name": model.name, "vendor": cpus.vendor(model), "deprecated": model.deprecated,
             "features": cpus.features(model)}
            for model in found.models
        ]))  # fmt: skip
    return context.out("".join(f"{model.name}\n" for model in found.models))


def hypervisor_cpu_models(context: Context, args: Args) -> None:
    """Print the names of the CPU models that a guest on this host can have, or of all models with --all."""
    found, accelerator = _hypervisor(context, args)
    usable = {model.name: not model.lacks.get(accelerator) for model in found.models}
    names = [name for name, fits in usable.items() if fits or args.flag("all")]
    if args.json:
        return context.out(json_text([{"name": name, "usable": usable[name]} for name in names]))
    return context.out("".join(f"{name}\n" for name in names))


def cpu_compare(context: Context, args: Args) -> int:
    """Print whether this host's CPU has all that a described CPU needs."""
    found = context.host.emulators.find()
    return _compare(context, args, found, context.host.emulators.cpus.of_host(found), "host CPU", "Host CPU")


def hypervisor_cpu_compare(context: Context, args: Args) -> int:
    """Print whether the best CPU that a guest can have has all that a described CPU needs."""
    found, accelerator = _hypervisor(context, args)
    best = context.host.emulators.cpus.of_hypervisor(found, accelerator)
    words = "CPU provided by hypervisor on the host"
    return _compare(context, args, found, best, f"the {words}", f"The {words}")


def _compare(context: Context, args: Args, found: Emulator, actual: CpuModel, whose: str, Whose: str) -> int:
    cpus = context.host.emulators.cpus
    text, path = common.read_text(args.required("file"))
    outcome = cpus.compare(found, actual, cpus.read(text, path)[0])
    bad = outcome.result == "incompatible"
    if bad and args.flag("error"):
        raise InvalidValue(f"the CPU is incompatible with host CPU: {outcome.reason}")
    if args.json:
        context.out(json_text(outcome._asdict()))
    elif bad:
        context.out(f"CPU described in {path} is incompatible with {whose}\n")
    elif outcome.result == "identical":
        context.out(f"CPU described in {path} is identical to {whose}\n")
    else:
        context.out(f"{Whose} is a superset of CPU described in {path}\n")
    return 1 if bad else 0


def cpu_baseline(context: Context, args: Args) -> None:
    """Print the best CPU that is compatible with all described ones."""
    cpus = context.host.emulators.cpus
    described = cpus.read(*common.read_text(args.required("file")))
    found = context.host.emulators.find()
    named = cpus.baseline(found, described, migratable=args.flag("migratable"))
    same = {one.model for one in described} == {named.model}
    _show(context, args, found, named, fallback="forbid" if same else "allow")


def hypervisor_cpu_baseline(context: Context, args: Args) -> None:
    """Print the best CPU that is compatible with all described ones and with a hypervisor on this host."""
    args.exclusive("file", "model")
    cpus, model = context.host.emulators.cpus, args.text("model")
    if args.has("file"):
        described = cpus.read(*common.read_text(args.text("file") or ""))
    elif model is not None:
        described = [cpus.model(model)]
    else:
        raise UsageError("Either --file or --model must be provided")
    found, accelerator = _hypervisor(context, args)
    best = cpus.of_hypervisor(found, accelerator)
    named = cpus.baseline(found, described, within=best, migratable=args.flag("migratable"))
    _show(context, args, found, named)


def _hypervisor(context: Context, args: Args) -> tuple[Emulator, str]:
    """Return the selected emulator and accelerator."""
    emulators = context.host.emulators
    found = emulators.find(binary=args.text("emulator") or "", arch=args.text("arch") or "")
    emulators.machine(found, args.text("machine") or "")
    return found, emulators.accelerator(emulators.type(found, args.text("virttype") or ""))


def _show(context: Context, args: Args, found: Emulator, named: Named, fallback: str = "forbid") -> None:
    top = context.host.emulators.cpus.xml(found, named, expand=args.flag("features"), fallback=fallback)
    if args.json:
        features = [{"name": one.get("name"), "policy": one.get("policy")} for one in top.all("feature")]
        context.out(json_text({"model": named.model, "vendor": named.vendor, "features": features}))
    else:
        context.out(xml.dump(top))
