"""CPU models: what a CPU is called, whether one can stand for another, what many have in common."""

from __future__ import annotations

from pathlib import Path

import machines
import pytest
from machines import build

from qkvm import xml
from qkvm.emulator import cpu
from qkvm.emulator.survey import CpuModel, Emulator
from qkvm.errors import DefinitionError, HostError, InvalidValue
from qkvm.host.node import accel

OLD = frozenset(("fpu", "sse2", "lahf-lm"))
NEW = OLD | {"avx", "pclmulqdq"}
NEWEST = NEW | {"avx2", "rtm"}


def model(name: str, features: frozenset[str], vendor: str = "GenuineIntel", **more: int) -> CpuModel:
    return CpuModel(name=name, vendor=vendor, features=features, lacks={"tcg": ()}, **more)  # type: ignore[arg-type]


def emulator(**best: CpuModel) -> Emulator:
    return Emulator(
        path="/usr/bin/qemu",
        version="7.2.0",
        package="",
        arch="x86_64",
        machines=(),
        devices=frozenset(),
        commands={},
        tpms=(),
        sev={},
        sev_refusal="",
        best=best,
        features=NEWEST
        | {
            "invtsc",
            "svm",
            "mds-no",
            "spec-ctrl",
            "stibp",
            "amd-stibp",
            "ssbd",
            "avx512vnni",
            "sse4.1",
            "tsc-deadline",
            "vme",
            "ibrs",
            "amd-ssbd",
            "virt-ssbd",
        },
        models=(
            model("qemu64", frozenset(("fpu", "sse2")), "AuthenticAMD"),
            model("Old", OLD, family=6, model=10),
            model("New", NEW, family=6, model=20),
            model("Newest", NEWEST, family=6, model=30),
            model("Amd", NEW | {"svm"}, "AuthenticAMD", family=23, model=1),
            model("Careful", NEW | {"mds-no"}),
        ),
    )


QEMU = emulator(tcg=model("max", NEW))


def described(text: str) -> cpu.Described:
    return cpu.read(text, "x.xml")[0]


def own(features: frozenset[str], vendor: str = "GenuineIntel") -> CpuModel:
    return CpuModel(name=cpu.OWN, vendor=vendor, features=features)


@pytest.mark.parametrize(
    ("text", "result", "reason"),
    [
        ("<cpu><model>New</model></cpu>", "identical", ""),
        ("<cpu><model>Old</model></cpu>", "superset", ""),
        (
            "<cpu match='strict'><model>Old</model></cpu>",
            "incompatible",
            "does not strictly match required CPU features: avx, pclmuldq",
        ),
        (
            "<cpu match='minimum'><model>Newest</model></cpu>",
            "incompatible",
            "does not provide required features: avx2, rtm",
        ),
        (
            "<cpu><model>Newest</model><feature name='rtm' policy='disable'/>"
            "<feature name='avx2' policy='optional'/></cpu>",
            "identical",
            "",
        ),
        (
            "<cpu><model>Old</model><feature name='avx' policy='forbid'/></cpu>",
            "incompatible",
            "provides forbidden features: avx",
        ),
        ("<cpu><model>Old</model><feature name='rtm' policy='force'/></cpu>", "superset", ""),
        ("<cpu><model>Old</model><feature name='pclmuldq'/><feature name='avx'/></cpu>", "identical", ""),
        ("<cpu><model>Old</model><feature name='osxsave'/></cpu>", "superset", ""),
        ("<cpu><model>New</model><vendor>AMD</vendor></cpu>", "incompatible", "required CPU vendor AMD"),
        ("<cpu><arch>aarch64</arch><model>New</model></cpu>", "incompatible", "arch aarch64 does not match"),
        ("<cpu><arch>x86_64</arch><model>New</model><vendor>Intel</vendor></cpu>", "identical", ""),
    ],
)
def test_compare(text: str, result: str, reason: str) -> None:
    outcome = cpu.compare(QEMU, own(NEW), described(text))
    assert outcome.result == result
    assert reason in outcome.reason if reason else not outcome.reason


def test_what_only_kvm_could_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    careful = described("<cpu><model>Careful</model></cpu>")
    with pytest.raises(HostError, match="only KVM could tell whether the host CPU has mds-no"):
        cpu.compare(QEMU, own(NEW), careful)
    # A guest's CPU is known in full.
    assert "mds-no" in cpu.compare(QEMU, model("max", NEW), careful).reason
    real = emulator(tcg=model("max", NEW), kvm=model("host", NEW | {"mds-no"}))
    monkeypatch.setattr(accel, "has_hardware_virtualization", lambda: True)
    assert cpu.compare(real, own(NEW | {"mds-no"}), careful).result == "identical"
    assert "mds-no" in cpu.compare(real, own(NEW), careful).reason


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<cpu><model>Nosuch</model></cpu>", "x.xml: line 1: Unknown CPU model Nosuch"),
        ("<cpu><model>Old</model>\n<feature name='nosuch'/></cpu>", "Unknown CPU feature nosuch"),
    ],
)
def test_unknown_names(text: str, words: str) -> None:
    with pytest.raises(InvalidValue, match=words):
        cpu.compare(QEMU, own(NEW), described(text))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<domain/>", "no host CPU specified"),
        ("<cpu/>", "line 1: XML error: Missing CPU model name"),
        ("\n<cpu match='near'><model>Old</model></cpu>", "line 2: match 'near' is not known"),
        ("<cpu mode='host-passthrough'/>", "a CPU of mode 'host-passthrough' names no model"),
        ("<cpu><model>Old</model>\n<feature name='avx' policy='maybe'/></cpu>", "line 2: policy 'maybe'"),
        ("<cpu><model>Old</model><feature name='avx'/><feature name='avx'/></cpu>", "specified more than once"),
        ("<cpu>", "not XML"),
        ("<?xml version='1.0'?>\n<!DOCTYPE x>\n<cpu/>", ":2: "),
        ("", "no host CPU specified"),
    ],
)
def test_bad_descriptions(text: str, words: str) -> None:
    with pytest.raises(DefinitionError, match=words):
        cpu.read(text, "x.xml")


def test_where_cpus_are_found() -> None:
    text = """<?xml version='1.0'
        encoding='UTF-8'?>
    <capabilities><host><cpu><model>A</model></cpu></host></capabilities>
    <domain><cpu mode='custom'><model>B</model></cpu></domain>
    <domainCapabilities><cpu><mode name='host-model'><model>C</model><feature policy='disable' name='x'/></mode>
    <mode name='custom'><model>no</model></mode></cpu></domainCapabilities>
    <cpu><model>D</model></cpu>"""
    found = cpu.read(text, "x")
    assert [(one.model, one.line) for one in found] == [("A", 3), ("B", 4), ("C", 5), ("D", 7)]
    assert found[2].policies == {"x": "disable"}


def baseline(*texts: str, **options: object) -> str:
    found = cpu.baseline(QEMU, cpu.read("".join(texts), "x"), **options)  # type: ignore[arg-type]
    return f"{found.model} {found.vendor} +{','.join(found.required)} -{','.join(found.disabled)}"


OLD_, NEW_, NEWEST_ = (
    f"<cpu><model>{name}</model><vendor>Intel</vendor></cpu>" for name in ("Old", "New", "Newest")
)


def test_baseline() -> None:
    assert baseline(NEWEST_, NEW_) == "New Intel + -"
    assert baseline(NEWEST_, OLD_) == "Old Intel + -"
    assert baseline(NEW_) == "New Intel + -"
    extra = NEW_.replace("</cpu>", "<feature name='avx2'/><feature name='invtsc'/></cpu>")
    assert baseline(NEWEST_, extra) == "New Intel +avx2 -"
    assert baseline(extra) == "New Intel +avx2,invtsc -"
    assert baseline(extra, migratable=True) == "New Intel +avx2 -"
    # Without a subset of its own name the result falls back to a lesser model.
    less = NEW_.replace("</cpu>", "<feature name='avx' policy='disable'/></cpu>")
    assert baseline(less, NEWEST_) == "Old Intel +pclmulqdq -"
    assert baseline(less) == "New Intel + -avx"
    assert baseline("<cpu><model>qemu64</model></cpu>", NEW_) == "qemu64  + -"


def test_baseline_within_a_hypervisor() -> None:
    assert baseline(NEWEST_, within=model("max", NEW)) == "Newest Intel + -avx2,rtm"
    # Of two that are equally near the one is taken from which nothing must be taken away.
    assert baseline(NEWEST_, NEW_, within=model("max", NEW - {"avx"})) == "Old Intel +pclmulqdq -"


def test_baseline_of_strangers() -> None:
    with pytest.raises(InvalidValue, match="CPU vendors do not match: AMD, Intel"):
        baseline(NEW_, "<cpu><model>Amd</model></cpu>")
    with pytest.raises(InvalidValue, match="no feature in common"):
        baseline(NEW_, within=model("max", frozenset(("svm",))))
    bare = emulator(tcg=model("max", NEW))
    none = cpu.plain("cortex-a57")
    with pytest.raises(InvalidValue, match="Unknown CPU model cortex-a57"):
        cpu.baseline(bare, [none])


def test_the_same_signature_is_preferred() -> None:
    features = NEWEST | {"vme"}
    assert cpu.name_of(QEMU, features, vendor="Intel").model == "Newest"
    assert cpu.name_of(QEMU, features, vendor="Intel", signature=(6, 20)).model == "New"
    assert cpu.name_of(QEMU, features, vendor="AMD").model == "qemu64", "Amd needs svm, which is not there"
    with pytest.raises(HostError, match="no CPU model that this CPU could be called by"):
        cpu.name_of(QEMU, frozenset(("vme",)))


def test_the_hosts_own(tmp_path: Path) -> None:
    root = build(tmp_path, {"proc/cpuinfo": machines.CPUINFO})
    found = cpu.of_host(QEMU, root)
    assert found.vendor == "GenuineIntel" and (found.family, found.model) == (6, 85)
    # Intel's ibrs and ibpb are two faces of spec-ctrl; vmx is not among the names that this emulator knows.
    assert found.features == {
        "fpu",
        "vme",
        "sse2",
        "spec-ctrl",
        "stibp",
        "ssbd",
        "invtsc",
        "avx512vnni",
        "sse4.1",
        "tsc-deadline",
    }
    amd = machines.CPUINFO.replace("GenuineIntel", "AuthenticAMD")
    found = cpu.of_host(QEMU, build(tmp_path, {"proc/cpuinfo": amd}))
    assert {"ibrs", "amd-stibp", "amd-ssbd"} <= found.features and "spec-ctrl" not in found.features
    virtual = amd.replace("ssbd", "ssbd virt_ssbd")
    found = cpu.of_host(QEMU, build(tmp_path, {"proc/cpuinfo": virtual}))
    assert "virt-ssbd" in found.features and "amd-ssbd" not in found.features


def test_libvirts_xml() -> None:
    named = cpu.Named("Old", "Intel", ["avx"], ["lahf-lm"])
    assert xml.dump(cpu.element(QEMU, named)) == (
        "<cpu mode='custom' match='exact'>\n"
        "  <model fallback='forbid'>Old</model>\n"
        "  <vendor>Intel</vendor>\n"
        "  <feature policy='require' name='avx'/>\n"
        "  <feature policy='disable' name='lahf_lm'/>\n"
        "</cpu>\n"
    )
    listed = cpu.element(QEMU, named._replace(vendor=""), expand=True, fallback="allow")
    assert [(one.get("name"), one.get("policy")) for one in listed.all("feature")] == [
        ("avx", "require"),
        ("fpu", "require"),
        ("lahf_lm", "disable"),
        ("sse2", "require"),
    ]
    assert listed.find("vendor") is None


def test_an_accelerator_that_does_not_work() -> None:
    assert cpu.of_hypervisor(QEMU, "tcg").name == "max"
    with pytest.raises(HostError, match="can't use kvm here"):
        cpu.of_hypervisor(QEMU, "kvm")


def test_an_emulator_that_tells_no_features() -> None:
    arm = Emulator(
        path="/usr/bin/qemu",
        version="7.2.0",
        package="",
        arch="aarch64",
        machines=(),
        devices=frozenset(),
        commands={},
        tpms=(),
        features=frozenset(),
        models=(CpuModel(name="cortex-a57"),),
        best={},
        sev={},
        sev_refusal="",
    )
    with pytest.raises(InvalidValue, match="does not tell what its CPU models have"):
        cpu.baseline(arm, [cpu.plain("cortex-a57")])
