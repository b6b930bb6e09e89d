"""Run the same commands with virsh and qkvm on twin guests, and print where their outputs differ in more than ids.

Run by scripts/compare-virsh, which does the set-up. The twins are defined from one XML text, each on its own side
(see sides.py). What may differ from run to run (ids, UUIDs, times, paths, amounts) is taken out of both outputs
before they are compared; see tests/guest/session.py.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from dataclasses import dataclass, field
from difflib import unified_diff
from pathlib import Path

from scripts.sides import PACKAGES, Remote, SideError, both, guest_files, has_libvirt, versions
from tests.guest.session import recorded, shape

TWIN = "vm01"
MORE = """
list --all --id
list --all --name --uuid
list --inactive
list --state-running
list --all --title
dominfo nosuch
dominfo
dominfo vm01 --bogus
domstate vm01 extra
domblklist vm01 --inactive
domblkinfo vm01 --all --human
domblkstat vm01
domblkerror vm01
blkdeviotune vm01 vda
domiftune vm01 {tap}
schedinfo vm01
memtune vm01
blkiotune vm01
numatune vm01
iothreadinfo vm01
vcpucount vm01 --live
vcpucount vm01 --maximum --config
domstats --state vm01
domstats --interface --block vm01
domif-getlink vm01 {tap}
net-dumpxml default
net-info nosuch
net-update default frob ip-dhcp-host <host/>
net-update default add frob <host/>
net-update default add bridge <bridge/>
net-update default add ip-dhcp-host <foo/>
net-update default delete dns-txt <txt\tname='t'/>
net-update default add dns-txt <txt\tname='t'\tvalue='v'/>
net-update default modify dns-txt <txt\tname='t'\tvalue='v'/>
net-event
net-event --list
net-event --event foo
net-port-list default
net-port-list nosuch
nodecpumap
nodecpumap --pretty
nodecpustats --percent
freecell --all
maxvcpus qemu
net-name {uuid}
domjobinfo vm01 --completed
desc vm01 --title
metadata vm01 http://example.org/x
managedsave-remove vm01
undefine vm01 --bogus
suspend vm01
suspend vm01
resume vm01
resume vm01
echo a 'b c'
pwd
help list
help nosuch
setmem vm01 0
setvcpus vm01 many
setmaxmem vm01 1
attach-interface vm01 bridge nosuch0
detach-interface vm01 bridge
domif-setlink vm01 {tap} sideways
change-media vm01 vda --eject
attach-disk vm01 /nonexistent vdq
detach-disk vm01 vdq
send-key vm01 KEY_NOSUCH
inject-nmi vm01
qemu-monitor-command vm01 --hmp info status
qemu-monitor-command vm01 nonsense
"""
"""Commands beside those of the recorded session, given at its beginning."""

XML = """
<domain type='qemu'>
  <name>vm01</name>
  <uuid>986cfd79-8f99-42b1-802a-38a1252eca99</uuid>
  <memory unit='KiB'>1048576</memory>
  <currentMemory unit='KiB'>524288</currentMemory>
  <vcpu current='1'>2</vcpu>
  <os>
    <type arch='x86_64' machine='pc'>hvm</type>
    <kernel>{kernel}</kernel>
    <initrd>{initrd}</initrd>
    <cmdline>console=ttyS0 quiet</cmdline>
  </os>
  <features><acpi/><apic/></features>
  <devices>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2'/>
      <source file='{disk}'/>
      <target dev='vda' bus='virtio'/>
    </disk>
    <interface type='network'>
      <mac address='52:54:00:ce:d1:7e'/>
      <source network='default'/>
      <model type='virtio'/>
    </interface>
    <serial type='pty'/>
    <graphics type='vnc' port='5920' autoport='no' listen='127.0.0.1' keymap='en-us'/>
    <video><model type='vga'/></video>
    <memballoon model='virtio'/>
  </devices>
</domain>
"""


@dataclass
class Comparison:
    """One command: what each side printed and its exit code."""

    line: str
    answers: dict[str, dict[str, object]] = field(default_factory=dict)

    def texts(self) -> dict[str, list[str]]:
        """The shape of each side's output; of an error, of its lines as one."""
        found = {}
        for side, answer in self.answers.items():
            errors = self.errors(side)
            found[side] = shape(str(answer["output"])) + ([f"error: {': '.join(errors)}"] if errors else [])
        return found

    def errors(self, side: str) -> list[str]:
        """The shapes of the lines of a side's error, without their mark."""
        lines = str(self.answers[side]["error"]).splitlines()
        return shape("\n".join(line.removeprefix("error: ") for line in lines))

    def differs(self) -> bool:
        """Whether exit codes or shapes differ.

        virsh's lines of an error, headline and reason in either order, are one line of qkvm's, which may have a
        hint behind them.
        """
        texts = self.texts()
        if self.answers["libvirt"]["code"] != self.answers["qkvm"]["code"]:
            return True
        theirs, ours = texts["libvirt"], texts["qkvm"]
        lines = self.errors("libvirt")
        if lines and ours:
            return theirs[:-1] != ours[:-1] or not all(line in ours[-1] for line in lines)
        return theirs != ours

    def show(self) -> str:
        """The two outputs as a difference."""
        texts = self.texts()
        codes = {side: answer["code"] for side, answer in self.answers.items()}
        head = f"{self.line}   [exit {codes['libvirt']}, {codes['qkvm']}]"
        lines = unified_diff(texts["libvirt"], texts["qkvm"], "virsh", "qkvm", lineterm="", n=0)
        return "\n".join([head, *(f"    {line}" for line in list(lines)[2:] if not line.startswith("@@"))])


class Twins:
    """The two sides with a domain of the same XML on each."""

    def __init__(self, sides: list[Remote]) -> None:
        self._sides = sides
        for side in sides:
            places = side.ask("places")
            disk = side.ask("image", name="vm01.img")
            text = XML.format(kernel=places["kernel"], initrd=places["initrd"], disk=disk)
            answer = side.ask("output", words=["define", "/dev/stdin"], stdin=text)
            pool = ["pool-define-as", "images", "dir", "--target", places["images"]]
            if side.name == "qkvm":
                # Its own default pool is that folder.
                for words in (["pool-destroy", "default"], ["pool-undefine", "default"]):
                    side.ask("output", words=words)
            for words in (pool, ["pool-start", "images"], ["pool-autostart", "images"]):
                side.ask("output", words=words)
            if answer["code"]:
                raise SideError(f"the {side.name} side does not take the guest's XML: {answer['error']}")

    def compare(self, line: str) -> Comparison:
        """Give one command to both."""
        comparison = Comparison(line)
        for side in self._sides:
            words = line.split(maxsplit=3) if '{"' in line else line.split(" ")
            if any(word in ("{tap}", "{uuid}") for word in words):
                words = [self._own(side, word) for word in words]
            comparison.answers[side.name] = side.ask("output", words=words)
        return comparison

    def _own(self, side: Remote, word: str) -> str:
        """What a side calls its first tap, and its network's UUID."""
        if word == "{uuid}":
            return str(side.ask("output", words=["net-uuid", "default"])["output"]).strip()
        if word != "{tap}":
            return word
        lines = str(side.ask("output", words=["domiflist", TWIN])["output"]).splitlines()
        return lines[2].split()[0] if len(lines) > 2 and lines[2].split() else "-"

    def run(self) -> list[Comparison]:
        """The whole: a start, more commands, then the session as it was recorded."""
        found = [self.compare("start vm01")]
        found += [self.compare(line) for line in MORE.strip().splitlines()]
        for step in recorded():
            if "52:54:00:6e" not in step.line:
                found.append(self.compare(step.line.replace("vnet24", "{tap}")))
        return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="compare-virsh", description="Compare the words of virsh and qkvm.")
    parser.add_argument("--json", metavar="FILE", help="write all answers there")
    parser.add_argument("--all", action="store_true", help="show the commands that agree too")
    return parser.parse_args()


def compare(arguments: argparse.Namespace) -> int:
    """Compare, print, and give the exit code: 0 also where outputs differ, for some do on purpose."""
    if os.geteuid() != 0:
        raise SideError("run it as root: it makes namespaces, bridges and taps")
    if not has_libvirt():
        raise SideError(f"libvirt is not installed\n  apt install --no-install-recommends {PACKAGES}\nbrings it")
    with both(["libvirt", "qkvm"], guest_files()) as sides:
        found = Twins(sides).run()
    print(", ".join(f"{name} {version}" for name, version in versions(libvirt=True).items()) + "\n")
    different = [one for one in found if one.differs()]
    for one in found if arguments.all else different:
        print(one.show())
    verbs = sorted({one.line.split()[0] for one in different})
    print(f"\n{len(found)} commands, {len(different)} differ; verbs that differ: {' '.join(verbs) or 'none'}")
    if arguments.json:
        text = json.dumps([{"line": one.line, **one.answers} for one in found], indent=1)
        Path(arguments.json).write_text(text + "\n", encoding="utf-8")
    return 0


def main() -> int:
    """Compare as the arguments tell."""
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(130))
    try:
        return compare(arguments)
    except KeyboardInterrupt:
        return 130
    except SideError as error:
        print(f"compare-virsh: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
