"""What QEMU can do on this host: ``host.emulators.find()``, ``host.emulators.cpus.compare(…)``."""

from __future__ import annotations

from qkvm.api.verb import Noun, lazily, part, plain, verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from qkvm.emulator import capabilities, cpu, domcapabilities, survey
else:
    capabilities, cpu, domcapabilities, survey = lazily(
        "qkvm.emulator", "capabilities", "cpu", "domcapabilities", "survey"
    )


class Emulators(Noun):
    """The QEMUs of this host, and what they offer to guests (virsh capabilities, domcapabilities)."""

    __slots__ = ()
    find = verb(lambda: survey.find)
    capabilities = plain(lambda: capabilities.facts)
    capabilities_xml = plain(lambda: capabilities.document)
    machine = plain(lambda: domcapabilities.choose_machine)
    type = plain(lambda: domcapabilities.choose_type)
    accelerator = plain(lambda: domcapabilities.accelerator)
    vcpu_limit = plain(lambda: domcapabilities.vcpu_limit)
    domain_capabilities = plain(lambda: domcapabilities.facts)
    domain_capabilities_xml = plain(lambda: domcapabilities.document)
    cpus = part(lambda: Cpus)


class Cpus(Noun):
    """CPUs: of this host, of a hypervisor on it, and described ones (virsh cpu-compare, cpu-baseline)."""

    __slots__ = ()
    of_host = plain(lambda: cpu.of_host)
    of_hypervisor = plain(lambda: cpu.of_hypervisor)
    read = plain(lambda: cpu.read)
    model = plain(lambda: cpu.plain)
    vendor = plain(lambda: cpu.model_vendor)
    features = plain(lambda: cpu.features)
    compare = plain(lambda: cpu.compare)
    baseline = plain(lambda: cpu.baseline)
    xml = plain(lambda: cpu.element)
