"""The main job, step by step, each observed: a network, a guest on it, CPUs, memory and NICs changed, all gone.

Run by scripts/demo, which does the set-up.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

from qkvm import Host
from tests.guest.guest import Guest, log_size, wait_ready

QKVM = str(Path(sys.executable).parent / "qkvm")
WORLD_ADDRESS, HOST_ADDRESS = "203.0.113.2", "203.0.113.1"  # TEST-NET-3 of RFC 5737.
NAME = "vm01"
SYSCTLS = ("ipv4/ip_forward", "ipv4/conf/all/forwarding", "ipv6/conf/all/forwarding")


class StepFailed(Exception):
    """What was observed is not what should be."""


def check(condition: object, message: str) -> None:
    """Fail the step unless the condition holds."""
    if not condition:
        raise StepFailed(message)


def run(*argv: str, namespace: str = "") -> str:
    """Run a program, in a namespace where one is named, and give its output."""
    prefix = ["ip", "netns", "exec", namespace] if namespace else []
    done = subprocess.run([*prefix, *argv], capture_output=True, text=True, check=False, timeout=300)
    if done.returncode:
        raise StepFailed(f"'{' '.join(argv)}' ended with {done.returncode}: {done.stderr.strip()}")
    return done.stdout + (f"({done.stderr.strip()})" if done.stderr.strip() else "")


def ping(address: str, *, timeout: float = 20.0) -> None:
    """See that an address answers. The lease is known a moment before the guest has taken it: one lost is none."""
    deadline = time.monotonic() + timeout
    while subprocess.run(
        ["ping", "-q", "-c", "1", "-W", "1", address], capture_output=True, check=False
    ).returncode:
        check(time.monotonic() < deadline, f"{address} does not answer the host's ping within {timeout:g} s")


class Stage:
    """A namespace that plays this host (none with ``here``), one that plays the outside world, a cable between.

    With ``drop``, 'nft' or 'legacy', its iptables of that kind drops what it should forward, as Docker's.
    """

    def __init__(self, *, here: bool, drop: str) -> None:
        self.drop = drop
        self.host = "" if here else f"qkvm-demo-host-{os.getpid()}"
        self.world = f"qkvm-demo-world-{os.getpid()}"
        self.link = f"qkdemo{os.getpid() % 100000}"

    def __enter__(self) -> Stage:
        try:
            for namespace in filter(None, (self.host, self.world)):
                run("ip", "netns", "add", namespace)
                run("ip", "link", "set", "lo", "up", namespace=namespace)
            run("ip", "link", "add", self.link, "type", "veth", "peer", "name", "outside", "netns", self.world,
                namespace=self.host)  # fmt: skip
            for namespace, link, address in (
                (self.host, self.link, HOST_ADDRESS),
                (self.world, "outside", WORLD_ADDRESS),
            ):
                run("ip", "addr", "add", f"{address}/30", "dev", link, namespace=namespace)
                run("ip", "link", "set", link, "up", namespace=namespace)
            if self.drop:
                for program in ("iptables", "ip6tables"):
                    run(f"{program}-{self.drop}", "-P", "FORWARD", "DROP", namespace=self.host)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        if not self.host:
            subprocess.run(["ip", "link", "del", self.link], check=False, stderr=subprocess.DEVNULL)
        for namespace in filter(None, (self.host, self.world)):
            subprocess.run(["ip", "netns", "del", namespace], check=False, stderr=subprocess.DEVNULL)

    def play(self) -> int:
        """Run the steps on it, in a process that lives in the host's namespace, and give their exit code."""
        prefix = ["ip", "netns", "exec", self.host] if self.host else []
        child = subprocess.Popen([*prefix, sys.executable, __file__, "--on-stage", self.world])
        try:
            return child.wait()
        except BaseException:
            child.terminate()
            child.wait()
            raise


class Demo:
    """The steps, under a root of their own."""

    def __init__(self, world_namespace: str) -> None:
        self.root = tempfile.mkdtemp(prefix="qkvm-demo-")
        self.world_namespace = world_namespace
        self.host = Host(self.root)
        self.host.prepare()
        self.before: dict[str, object] = {}
        self.tcg_lost_vcpu = False

    def clear(self) -> None:
        """Take away what a failed step has left."""
        for domain in self.host.domains():
            if domain.is_running:
                domain.destroy()
        for network in self.host.networks.all():
            if network.record is not None:
                network.destroy()
        shutil.rmtree(self.root)

    def qkvm(self, *words: str) -> str:
        """Type a qkvm command on the demo's host."""
        return run("env", f"QKVM_ROOT={self.root}", QKVM, *words)

    def snapshot(self) -> dict[str, object]:
        """Everything that must be the same afterwards as before."""
        rules = json.loads(run("nft", "-j", "--stateless", "list", "ruleset"))
        legacy = [line.partition("[")[0] for line in run("iptables-legacy-save").splitlines()]
        # A table that has been looked at is there from then on, with its built-in chains.
        plain = re.compile(r"#|\*|COMMIT|:[A-Z]+ ACCEPT ")
        return {
            "links": [link["ifname"] for link in json.loads(run("ip", "-j", "link"))],
            "nft rules": [item for item in rules["nftables"] if "metainfo" not in item],
            "iptables rules": [line for line in legacy if not plain.match(line)],
            "sysctls": [Path(f"/proc/sys/net/{name}").read_text() for name in SYSCTLS],
            "processes": processes_of(self.root),
            "files under run/": sorted(str(path) for path in Path(self.host.tree.run).rglob("*")),
        }

    # The steps.

    def network(self) -> str:
        """net-start."""
        self.before = self.snapshot()
        said = self.qkvm("net-start", "default").split("\n")[0]
        actual = self.host.networks["default"].actual
        addresses = json.loads(run("ip", "-j", "-4", "addr", "show", "dev", actual.bridge))
        seen = f"{addresses[0]['addr_info'][0]['local']}/{addresses[0]['addr_info'][0]['prefixlen']}"
        check(seen == actual.address, f"bridge {actual.bridge} has {seen}, not {actual.address}")
        backend = (self.host.networks["default"].record or {})["firewall"]
        return f"{actual.subnets[0]} on {actual.bridge}, MASQUERADE by {backend}, dnsmasq: {said}"

    def install(self) -> str:
        """install."""
        disk = os.path.join(self.root, f"{NAME}.img")
        kernel, initrd = os.environ["KERNEL"], os.environ["INITRD"]
        self.qkvm(
            "install", "--name", NAME, "--memory", "512,maxmemory=1024", "--vcpus", "1,maxvcpus=2",
            "--disk", f"path={disk},size=8,format=qcow2", "--network", "network=default,model=virtio",
            "--graphics", "vnc,listen=127.0.0.1,port=5920",
            "--boot", f"kernel={kernel},initrd={initrd},kernel_args=console=ttyS0 quiet",
            "--noautoconsole",
        )  # fmt: skip
        domain = self.host.domain(NAME)
        info = json.loads(run("qemu-img", "info", "-U", "-f", "qcow2", "--output=json", disk))
        check(info["virtual-size"] == 8 << 30, f"the disk has {info['virtual-size']} bytes")
        pid = domain.live.pid
        session = int(Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()[3])
        check(session == pid and session != os.getsid(0), "QEMU is not detached from the terminal")
        wait_ready(domain)
        return f"8 GiB qcow2 made, QEMU {pid} detached, guest is up"

    def reach(self) -> str:
        """Leases, pings, and the way out."""
        table = self.qkvm("domifaddr", NAME, "--source", "lease", "--wait")
        address = self.host.domain(NAME).addresses(sources=("lease",))[0].ip
        check(address in table, f"domifaddr does not show {address}")
        ping(address)
        with WorldServer(self.world_namespace) as server, Guest(self.host.domain(NAME)) as guest:
            answer = guest.ask(f"fetch {WORLD_ADDRESS} {server.port}")
        check(server.greeting in answer, f"the guest read '{answer}' from the world")
        check(server.peers == [HOST_ADDRESS], f"the world saw {server.peers}, not {HOST_ADDRESS}")
        return f"lease {address}, host pings it, the world sees it as {HOST_ADDRESS}"

    def look(self) -> str:
        """The read verbs."""
        state = self.qkvm("domstate", NAME, "--reason").strip()
        check(state == "running (booted)", f"domstate says {state}")
        lines = {verb: self.qkvm(*verb.split()) for verb in (
            "list", "list --all", f"dominfo {NAME}", f"domiflist {NAME}", f"domblklist {NAME}", f"vcpuinfo {NAME}",
        )}  # fmt: skip
        for verb, text in lines.items():
            check(NAME in text or "VCPU:" in text or "vnet" in text, f"{verb} prints:\n{text}")
        nic = self.host.domain(NAME).nics.all()[0]
        return f"{state}; {nic.interface} {nic.mac}; list, dominfo, domiflist, domblklist, vcpuinfo agree"

    def vcpus(self) -> str:
        """Two CPUs, and one again."""
        domain = self.host.domain(NAME)
        self.qkvm("setvcpus", NAME, "2", "--live")
        with Guest(domain) as guest:
            guest.until("cpus", "2")
        said = self.qkvm("setvcpus", NAME, "1", "--live", "--force")
        with Guest(domain) as guest:
            guest.until("cpus", "1")
        count = self.qkvm("vcpucount", NAME, "--live").strip()
        check(count == "1", f"vcpucount says {count}")
        self.tcg_lost_vcpu = "start it anew" in said
        return "the guest itself reports 2, then 1"

    def balloon(self) -> str:
        """384 MiB, then 1 GiB."""
        seen = []
        for size, mib in (("384M", 384), ("1G", 1024)):
            self.qkvm("setmem", NAME, size, "--live")
            with Guest(self.host.domain(NAME)) as guest:
                total = guest.number("memtotal") // 1024
            # A guest's MemTotal lacks what its kernel took at boot: some 90 MiB here.
            check(mib - 128 <= total < mib, f"the guest has {total} MiB of {mib}")
            stats = dict(line.split() for line in self.qkvm("dommemstat", NAME).splitlines() if line)
            check(int(stats["actual"]) == mib * 1024, f"dommemstat says {stats['actual']}")
            hmp = self.qkvm("qemu-monitor-command", NAME, "--hmp", "info", "balloon").strip()
            check(hmp == f"balloon: actual={mib}", f"QEMU says '{hmp}'")
            seen.append(f"{mib} MiB (guest's MemTotal {total})")
        return " then ".join(seen)

    def restart(self) -> str:
        """What a QEMU needs whose TCG lost a vCPU."""
        mark = log_size(self.host.domain(NAME))
        self.qkvm("destroy", NAME)
        self.qkvm("start", NAME)
        wait_ready(self.host.domain(NAME), mark)
        return "QEMU's TCG survives no device change after a vcpu was unplugged (KVM does): guest is up again"

    def nic(self) -> str:
        """A second NIC comes, is used, and goes."""
        domain = self.host.domain(NAME)
        self.qkvm("attach-interface", NAME, "--type", "network", "--source", "default", "--model", "virtio",
                  "--persistent")  # fmt: skip
        first, second = domain.nics.all()
        table = self.qkvm("domifaddr", NAME, "--interface", second.mac, "--source", "lease", "--wait")
        address = next(item.ip for item in domain.addresses(sources=("lease",)) if item.mac == second.mac)
        check(address in table, f"domifaddr does not show {address}")
        ping(address)
        with Guest(domain) as guest:
            check(second.mac in guest.ask("nics"), "the guest does not see the second NIC")
        self.qkvm("detach-interface", NAME, "--type", "network", "--mac", second.mac, "--persistent")
        with Guest(domain) as guest:
            check(second.mac not in guest.ask("nics"), "the guest still has the second NIC")
        links = run("ip", "-br", "link")
        check(second.interface not in links and first.interface in links, f"links are now:\n{links}")
        return f"{second.mac} got {address} and answered; the guest lost it, then {second.interface} went"

    def end(self) -> str:
        """Shutdown, start, destroy, undefine, net-destroy."""
        self.qkvm("shutdown", NAME, "--wait")
        state = self.qkvm("domstate", NAME, "--reason").strip()
        check(state == "shut off (shutdown)", f"domstate says {state}")
        self.qkvm("start", NAME)
        self.qkvm("destroy", NAME)
        gone = self.qkvm("domstate", NAME, "--reason").strip()
        check(gone == "shut off (destroyed)", f"domstate says {gone}")
        self.qkvm("undefine", NAME)
        check(NAME not in self.qkvm("list", "--all"), f"{NAME} is still listed")
        self.qkvm("net-destroy", "default")
        return f"{state}; started; {gone}; undefined; network destroyed"

    def nothing_left(self) -> str:
        """The same as before step 1."""
        after = self.snapshot()
        for what, before in self.before.items():
            check(after[what] == before, f"{what} were {before}, are {after[what]}")
        return ", ".join(self.before) + " as before step 1"

    def steps(self) -> list[tuple[str, Callable[[], str]]]:
        """Number and name of each step, in order."""
        return [
            ("1 net-start default", self.network),
            (f"2 install {NAME}", self.install),
            ("3 lease, ping, MASQUERADE", self.reach),
            ("4 list, dominfo, …", self.look),
            ("5 setvcpus 2, then 1", self.vcpus),
            ("6 setmem 384M, then 1G", self.balloon),
            ("- destroy, start", self.restart),
            ("7 attach, detach-interface", self.nic),
            ("8 shutdown … net-destroy", self.end),
            ("9 nothing is left", self.nothing_left),
        ]


class WorldServer:
    """A server in the outside world: greets one guest and remembers whom it saw."""

    _PROGRAM = (
        "import socket, sys\n"
        "s = socket.create_server(('0.0.0.0', 0)); s.settimeout(60)\n"
        "print(s.getsockname()[1], flush=True)\n"
        "c, a = s.accept(); c.sendall(sys.argv[1].encode() + b'\\n'); c.close()\n"
        "print(a[0], flush=True)\n"
    )

    def __init__(self, namespace: str) -> None:
        self.greeting = f"greetings-from-outside-{os.getpid()}"
        self.peers: list[str] = []
        self._child = subprocess.Popen(
            ["ip", "netns", "exec", namespace, sys.executable, "-c", self._PROGRAM, self.greeting],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._child.stdout is not None
        self.port = int(self._child.stdout.readline())
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._child.stdout is not None
        self.peers = self._child.stdout.read().split()

    def __enter__(self) -> WorldServer:
        return self

    def __exit__(self, *_: object) -> None:
        if self._child.poll() is None and not self.peers:
            # The last line may be under way; one that no guest reached has to be ended.
            try:
                self._child.wait(5)
            except subprocess.TimeoutExpired:
                self._child.kill()
        self._child.wait()
        self._reader.join()


def processes_of(root: str) -> list[str]:
    """Command lines of running processes that name this root."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit() and int(folder.name) != os.getpid():
            try:
                words = (folder / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if any(root.encode() in word for word in words):
                found.append(words[0].decode("utf-8", "replace"))
    return sorted(found)


def play(world_namespace: str) -> int:
    """Run the steps; 0 when all have passed."""
    demo = Demo(world_namespace)
    try:
        for name, step in demo.steps():
            if step == demo.restart and not demo.tcg_lost_vcpu:
                continue
            begin = time.monotonic()
            try:
                observed = step()
            except Exception as error:
                print(f"{name:<28} FAILED: {type(error).__name__}: {error}")
                print(f"demo: FAIL in step {name}")
                return 1
            print(f"{name:<28} {time.monotonic() - begin:6.2f} s  {observed}", flush=True)
    finally:
        demo.clear()
    print("demo: PASS")
    return 0


def main(words: list[str]) -> int:
    """Set the stage and run the steps on it."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    if words[:1] == ["--on-stage"]:
        return play(words[1])
    here, drop = words == ["--here"], next((kind for kind in ("nft", "legacy") if words == [f"--drop={kind}"]), "")
    if words and not (here or drop):
        print("usage: scripts/demo [--here | --drop=nft | --drop=legacy]", file=sys.stderr)
        return 1
    with Stage(here=here, drop=drop) as stage:
        return stage.play()


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except StepFailed as error:
        print(f"demo: FAIL in the set-up: {error}")
        sys.exit(1)
