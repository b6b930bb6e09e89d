"""The guest agent: every verb that needs one, its effect seen inside the guest; and agents that don't answer."""

from __future__ import annotations

import json
import os
import shlex
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qkvm.api.domain import Domain
from qkvm.domain.watch import address
from qkvm.errors import AgentMissing, AgentRefused, AgentUnresponsive, InvalidState, NotReached
from qkvm.host import journal
from tests.guest.conftest import Lab, network_nic
from tests.guest.guest import Guest, log_size, wait_agent, wait_ready
from tests.host import nslab

Register = Callable[[Domain], Domain]

MAC = "52:54:00:00:aa:01"


@pytest.fixture(scope="module")
def vm(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Domain]:
    """A guest with an agent, a disk with a file system on /mnt, a NIC and two vCPUs."""
    image = tmp_path_factory.mktemp("disk") / "disk.img"
    nslab.sh("qemu-img", "create", "-q", "-f", "raw", str(image), "64M")
    domain = lab.define(
        "vm",
        cmdline="guestname=inner",
        vcpus="{ current = 2, maximum = 2 }",
        body=f"[[disks]]\npath = '{image}'\nformat = 'raw'\ntarget = 'vda'\nserial = 'disk-of-vm'\n"
        + network_nic(MAC),
    )
    lab.boot(domain)
    wait_agent(domain)
    with Guest(domain) as guest:
        guest.ask("mke2fs /dev/vda && mount /dev/vda /mnt")
    yield domain
    domain.destroy()
    domain.undefine()


def answering(domain: Domain) -> None:
    """Wait until the agent answers."""
    deadline = time.monotonic() + 60
    while True:
        try:
            domain.guest.info(["hostname"])
            return
        except AgentUnresponsive:
            assert time.monotonic() < deadline, "no agent answers"


def quickly(lab: Lab, line: str, seconds: float) -> str:
    """The error of a command line that must fail within so many seconds, beside what a busy machine adds."""
    started = time.monotonic()
    error = lab.fails(line)
    assert time.monotonic() - started < seconds + 4, f"{line}: {error}"
    return error


def log_since(domain: Domain, mark: int) -> str:
    """What the guest has written to its console since a mark."""
    return Path(domain.tree.serial_log(domain.name)).read_bytes()[mark:].decode("utf-8", "replace")


# What it tells.


def test_guestinfo(lab: Lab, vm: Domain) -> None:
    with Guest(vm) as guest:
        # Somebody is logged in: struct utmp of utmp.h, type 7, with line, user and time.
        guest.ask(
            r"printf '\7\0\0\0\1\0\0\0ttyS0' >/run/u && truncate -s 44 /run/u && printf root >>/run/u && "
            r"truncate -s 340 /run/u && printf '\1\0\0\0' >>/run/u && truncate -s 384 /run/u && "
            "mkdir -p /var && ln -sfn /run /var/run && mv /run/u /run/utmp"
        )
        kernel = guest.ask("uname -r")
    text = lab.ok("guestinfo vm")
    lines = text.splitlines()
    assert all(line[20:22] == ": " for line in lines if line), text
    shown = {line[:20].strip(): line[22:] for line in lines if line}
    assert shown["user.count"] == "1" and shown["user.0.name"] == "root"
    assert shown["user.0.login-time"] == "1000"
    assert f"{'os.id':<20}: qkvm-guest\n{'os.name':<20}: Test guest\n" in text
    assert shown["os.kernel-release"] == kernel
    assert shown["timezone.name"] == "UTC" and shown["timezone.offset"] == "0"
    assert shown["hostname"] == "inner"
    assert shown["fs.count"] == "1" and shown["fs.0.mountpoint"] == "/mnt"
    assert shown["fs.0.disk.0.alias"] == "vda" and shown["fs.0.disk.0.device"] == "/dev/vda"
    assert shown["disk.0.name"] == "/dev/vda" and shown["disk.0.alias"] == "vda"
    assert shown["disk.0.partition"] == "no"
    assert shown["if.count"] == "2" and shown["if.1.hwaddr"] == MAC
    assert set(lab.ok("guestinfo vm --os --hostname").replace(".", " ").split()) >= {"os", "hostname"}
    assert "timezone" not in lab.ok("guestinfo vm --os")
    told = json.loads(lab.ok("guestinfo vm --json"))
    assert told["os"]["kernel_release"] == kernel
    assert told["interfaces"][1]["hardware_address"] == MAC
    assert told["targets"] == [{"device": "/dev/vda", "target": "vda"}]
    assert vm.guest.info(["timezone"])["timezone"].offset == 0
    # Agents tell the load from QEMU 10.0's on.
    known = json.loads(lab.ok("""qemu-agent-command vm '{"execute": "guest-info"}'"""))["return"][
        "supported_commands"
    ]
    if any(command["name"] == "guest-get-load" for command in known):
        load = dict(
            line.replace(" ", "").split(":") for line in lab.ok("guestinfo vm --load").splitlines() if line
        )
        assert list(load) == ["load.1m", "load.5m", "load.15m"] and 0 < float(load["load.1m"]) < 100
    else:
        assert "guest-get-load has not been found" in lab.fails("guestinfo vm --load")
        assert "load" not in told


def test_names_and_addresses(lab: Lab, vm: Domain) -> None:
    lab.ok("domifaddr vm --source lease --wait")
    ip = vm.addresses(sources=("lease",))[0].ip
    with Guest(vm) as guest:
        # The lease is the server's word; the guest takes its address a moment later.
        guest.until(f"nics | grep -c {ip}/24 || true", "1")
        guest.until("ip addr show dev eth0 | grep -c 'inet6 fe80::' || true", "1")
    assert lab.ok("domhostname vm") == "inner\n\n"
    assert lab.ok("domhostname vm --source lease") == "inner\n\n"
    assert json.loads(lab.ok("domhostname vm --json")) == {"hostname": "inner"}
    assert "Unknown data source 'dns'" in lab.fails("domhostname vm dns")
    shown = lab.ok("domifaddr vm --source agent --wait")
    assert f" {'lo':<10} {'00:00:00:00:00:00':<17}    {'ipv4':<12} 127.0.0.1/8\n" in shown
    assert f" {'-':<10} {'-':<17}    {'ipv6':<12} ::1/128\n" in shown
    assert f" {'eth0':<10} {MAC:<17}    {'ipv4':<12} {ip}/24\n" in shown
    assert f"{MAC:<17}    ipv6         fe80::" in lab.ok("domifaddr vm --source agent --full --interface eth0")
    told = json.loads(lab.ok("domifaddr vm --source agent --json"))
    assert {"mac": MAC, "ip": ip, "prefix": 24, "source": "agent", "interface": "eth0"} in told
    # An address that the host could not know comes from the agent, under the tap's name; link-local ones don't.
    with Guest(vm) as guest:
        guest.ask("ip addr add 10.99.0.7/16 dev eth0")
    tap = vm.nics.all()[0].interface
    deadline = time.monotonic() + 60
    # An agent that nobody has named is given half a second, which a busy machine may take.
    while len(told := json.loads(lab.ok("domifaddr vm --json"))) < 2:
        assert time.monotonic() < deadline, told
    assert [(item["ip"], item["source"], item["interface"]) for item in told] == [
        (ip, "lease", tap),
        ("10.99.0.7", "agent", tap),
    ]


# What it does.


def test_file_systems(lab: Lab, vm: Domain) -> None:
    assert lab.ok("domfsinfo vm") == (
        " Mountpoint   Name   Type   Target\n"
        "------------------------------------\n"
        " /mnt         vda    ext2   vda\n\n"
    )
    told = json.loads(lab.ok("domfsinfo vm --json"))
    assert (told[0]["mountpoint"], told[0]["targets"]) == ("/mnt", ["vda"]) and told[0]["total_bytes"] > 50 << 20
    blocked = "cat /proc/[0-9]*/stat 2>/dev/null | grep -c ') D ' || true"
    with Guest(vm) as guest:
        for line, answer in (("domfsfreeze vm", 1), ("domfsfreeze vm /mnt", 1), ("domfsfreeze vm /nowhere", 0)):
            assert lab.ok(line) == f"Froze {answer} filesystem(s)\n\n"
            if answer:
                guest.ask("rm -f /run/wrote; { echo new >/mnt/file; echo done >/run/wrote; } >/dev/null 2>&1 &")
                guest.until(blocked, "1")
                assert guest.ask("ls /run/wrote 2>/dev/null || echo not yet") == "not yet"
                # A frozen guest's agent does little else.
                assert "domfsthaw" in lab.fails("guestinfo vm --os")
            assert lab.ok("domfsthaw vm") == f"Thawed {answer} filesystem(s)\n\n"
            if answer:
                guest.until("cat /run/wrote 2>/dev/null || true", "done")
        assert vm.guest.freeze(["/mnt"]) == 1 and vm.guest.thaw() == 1
        refused = lab.fails("domfsthaw vm --mountpoint /mnt")
        assert refused.startswith("error: Unable to thaw filesystems: argument unsupported: ")
        # Blocks that a removed file had go back to the host's file system.
        guest.ask("dd if=/dev/urandom of=/mnt/big bs=1M count=20 && sync")
        path = vm.definition.disks[0].path
        before = os.stat(path).st_blocks
        guest.ask("rm /mnt/big && sync")
        assert lab.ok("domfstrim vm") == "\n"
        assert os.stat(path).st_blocks <= before - (19 << 11)
        assert json.loads(lab.ok("domfstrim vm --minimum 4096 --json"))[0]["path"] == "/mnt"
        assert "Specifying mount point is not supported" in lab.fails("domfstrim vm --mountpoint /mnt")
        assert "malformed or out of range" in lab.fails("domfstrim vm --minimum -5")


def test_clock(lab: Lab, vm: Domain) -> None:
    try:
        with Guest(vm) as guest:
            lab.ok("domtime vm --time 1700000000")
            assert 1700000000 <= guest.number("date +%s") <= 1700000060
            assert guest.ask("hwclock -u").startswith("Tue Nov 14 22:1")
            assert lab.ok("domtime vm --pretty").startswith("Time: 2023-11-14 22:1")
            shown = lab.ok("domtime vm")
            assert shown.startswith("Time: 17000000") and shown.count("\n") == 1
            told = json.loads(lab.ok("domtime vm --json"))
            assert 1700000000 <= told["time_ns"] // 10**9 <= 1700000060
            guest.ask("date -s 2001-01-01")
            lab.ok("domtime vm --sync")
            assert 1700000000 <= guest.number("date +%s") <= 1700000120
            lab.ok("domtime vm --now")
            assert abs(guest.number("date +%s") - time.time()) < 30
        assert "mutually exclusive" in lab.fails("domtime vm --now --sync")
        assert "out of range" in lab.fails("domtime vm --time -1")
        assert "out of range" in lab.fails(f"domtime vm --time {1 << 62}")
    finally:
        lab.ok("domtime vm --now")


def test_users(lab: Lab, vm: Domain, tmp_path: Path) -> None:
    def hashed(user: str) -> str:
        return guest.ask(f"awk -F: '$1 == \"{user}\" {{ print $2 }}' /etc/shadow")

    with Guest(vm) as guest:
        assert hashed("user") == "*"
        assert lab.ok("set-user-password vm user 'pa:ss wörd'") == "Password set successfully for user in vm\n"
        salt = hashed("user").split("$")[2]
        assert guest.ask(f"mkpasswd -m sha512 -S {salt} 'pa:ss wörd'") == hashed("user")
        lab.ok("set-user-password vm root --encrypted '$6$salt$hash'")
        assert hashed("root") == "$6$salt$hash"
        assert "guest-set-user-password" in lab.fails("set-user-password vm nobody x")
        assert "control character" in lab.fails("set-user-password vm user 'a\nroot:b'")
        # SSH keys.
        keys = tmp_path / "keys"
        keys.write_text("# mine\nssh-ed25519 AAAAone a@b\n\nssh-ed25519 AAAAtwo c@d\n")
        lab.ok(f"set-user-sshkeys vm user {keys}")
        file = "/home/user/.ssh/authorized_keys"
        assert guest.ask(f"cat {file}").splitlines() == ["ssh-ed25519 AAAAone a@b", "ssh-ed25519 AAAAtwo c@d"]
        assert guest.ask(f"stat -c '%U %a' {file}") == "user 600"
        keys.write_text("ssh-ed25519 AAAAone a@b\n")
        lab.ok(f"set-user-sshkeys vm user --remove --file {keys}")
        assert lab.ok("get-user-sshkeys vm user") == "ssh-ed25519 AAAAtwo c@d\n\n"
        lab.ok(f"set-user-sshkeys vm user --reset --file {keys}")
        assert json.loads(lab.ok("get-user-sshkeys vm user --json")) == ["ssh-ed25519 AAAAone a@b"]
        lab.ok("set-user-sshkeys vm user --reset")
        assert guest.ask(f"cat {file}") == ""
        for line, words in (
            ("set-user-sshkeys vm user", "Option --file is required"),
            ("set-user-sshkeys vm user --remove", "Option --file is required by option --remove"),
            (f"set-user-sshkeys vm user {tmp_path}/none", "Failed to open file"),
            (f"set-user-sshkeys vm user {keys} --reset --remove", "mutually exclusive"),
            ("get-user-sshkeys vm nobody", "failed to lookup user 'nobody'"),
        ):
            assert words in lab.fails(line)
        keys.write_text("\n")
        assert "contains no keys" in lab.fails(f"set-user-sshkeys vm user {keys}")


def test_vcpus(lab: Lab, vm: Domain) -> None:
    with Guest(vm) as guest:
        assert guest.number("cpus") == 2
        assert lab.ok("guestvcpus vm") == (f"{'vcpus':<15}: 0-1\n{'online':<15}: 0-1\n{'offlinable':<15}: 1\n\n")
        lab.ok("guestvcpus vm 1 --disable")
        assert guest.number("cpus") == 1
        assert f"{'online':<15}: 0\n" in lab.ok("guestvcpus vm")
        assert json.loads(lab.ok("guestvcpus vm --json"))[1] == {"vcpu": 1, "online": False, "offlinable": True}
        assert lab.ok("vcpucount vm --guest") == "1\n\n"
        assert lab.ok("vcpucount vm --guest --maximum") == "2\n\n"
        lab.ok("guestvcpus vm --cpulist 0-1,^0 --enable")
        assert guest.number("cpus") == 2
        lab.ok("setvcpus vm 1 --guest")
        assert guest.number("cpus") == 1
        lab.ok("setvcpus vm 2 --guest")
        assert guest.number("cpus") == 2
        assert json.loads(lab.ok("vcpucount vm --guest --json")) == {
            "maximum": {"guest": 2},
            "current": {"guest": 2},
        }
        for line, words in (
            ("guestvcpus vm 0 --disable", "vCPU 0 can't be offlined"),
            ("guestvcpus vm 1-7 --enable", "guest has no vCPU 2-7"),
            ("guestvcpus vm 1", "One of options --enable or --disable is required by option --cpulist"),
            ("guestvcpus vm 1 --enable --disable", "mutually exclusive"),
            ("guestvcpus vm --enable", "Option --cpulist is required by option --enable"),
            ("guestvcpus vm one --enable", "Invalid cpulist 'one'"),
            ("setvcpus vm 3 --guest", "greater than the count of enabled vcpus"),
            ("setvcpus vm 2 --guest --config", "mutually exclusive"),
        ):
            assert words in lab.fails(line)


def test_commands(lab: Lab, vm: Domain) -> None:
    def run(text: str, options: str = "") -> str:
        return lab.ok(f"qemu-agent-command vm {options} {shlex.quote(text)}")

    assert run('{"execute":"guest-ping"}') == '{"return":{}}\n\n'
    assert lab.ok("""qemu-agent-command vm --timeout 10 '{"execute":' '"guest-get-host-name"}'""") == (
        '{"return":{"host-name":"inner"}}\n\n'
    )
    assert run('{"execute":"guest-get-host-name"}', "--pretty --block") == (
        '{\n  "return": {\n    "host-name": "inner"\n  }\n}\n\n'
    )
    command = {"execute": "guest-exec", "arguments": {"path": "/bin/touch", "arg": ["/run/touched"]}}
    with Guest(vm) as guest:
        assert run(json.dumps(command), "--async") == "\n"
        guest.until("ls /run/touched 2>/dev/null || true", "/run/touched")
        # What a guest says is no terminal's business.
        guest.ask(r"printf 'na\303\244me\302\233' >/proc/sys/kernel/hostname")
        assert run('{"execute":"guest-get-host-name"}') == '{"return":{"host-name":"na\\u00E4me\\u009B"}}\n\n'
        assert lab.ok("domhostname vm") == "naäme\\x9b\n\n"
        guest.ask("hostname inner")
    for text, words in (
        ('{"execute":"guest-nothing"}', "unable to execute QEMU agent command 'guest-nothing': The command"),
        ("guest-ping", "cannot parse json"),
        ("{}", "is an object with 'execute'"),
    ):
        assert words in lab.fails(f"qemu-agent-command vm {shlex.quote(text)}")
    ping = """'{"execute":"guest-ping"}'"""
    assert "exclusive" in lab.fails(f"qemu-agent-command vm --async --block {ping}")
    assert "timeout must be positive" in lab.fails(f"qemu-agent-command vm --timeout 0 {ping}")
    assert lab.ok("guest-agent-timeout vm --timeout 30") == "\n"
    assert vm.live.record["agent_timeout"] == 30
    lab.ok("guest-agent-timeout vm")
    assert vm.live.record["agent_timeout"] == -2
    lab.ok("guestinfo vm --os")
    lab.ok("guest-agent-timeout vm --timeout -1")
    assert "less than the minimum '-2'" in lab.fails("guest-agent-timeout vm --timeout -3")
    vm.suspend()
    assert "domain is not running" in lab.fails(f"qemu-agent-command vm {ping}")
    vm.resume()


def test_sleep_and_waking(lab: Lab, vm: Domain) -> None:
    assert "domain is not pmsuspended" in lab.fails("dompmwakeup vm")
    with Guest(vm) as guest:
        guest.ask("echo awake >/run/kept")
        assert lab.ok("dompmsuspend vm mem") == "Domain 'vm' successfully suspended\n"
        assert lab.ok("domstate vm") == "pmsuspended\n\n"
        assert "domain is pmsuspended" in lab.fails("resume vm")
        assert "domain is not running" in lab.fails("dompmsuspend vm mem")
        assert lab.ok("dompmwakeup vm") == "Domain 'vm' successfully woken up\n"
        assert vm.state == ("running", "wakeup")
        # The guest's serial port takes no word before the guest has resumed it.
        answering(vm)
        assert guest.ask("cat /run/kept") == "awake"
        assert "PM: suspend exit" in guest.ask("dmesg")
        # Its memory is as it was, and so are its devices.
        assert guest.ask("ls /mnt/lost+found") == ""
    for line, words in (
        ("dompmsuspend vm hybrid", "not supported by the guest"),
        ("dompmsuspend vm disk", "unable to execute QEMU agent command 'guest-suspend-disk': "),
        ("dompmsuspend vm soon", "Invalid target"),
        ("dompmsuspend vm mem --duration 60", "Duration not supported"),
    ):
        error = lab.fails(line)
        assert words in error and "Domain 'vm' could not be suspended: " in error
    assert vm.state[0] == "running"


def test_sleep_on_disk(lab: Lab, domain_of: Register, tmp_path: Path) -> None:
    """The guest writes its memory to swap space and powers off; another guest is told not to sleep at all."""
    image = tmp_path / "swap.img"
    nslab.sh("qemu-img", "create", "-q", "-f", "raw", str(image), "400M")
    body = f"[[disks]]\npath = '{image}'\nformat = 'raw'\ntarget = 'vda'\n"
    domain = lab.boot(domain_of(lab.define("sleepy", body=body)))
    wait_agent(domain)
    with Guest(domain) as guest:
        guest.ask("mkswap /dev/vda && swapon /dev/vda")
    lab.ok("dompmsuspend sleepy disk")
    deadline = time.monotonic() + 60
    while domain.is_running:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert b"S1SUSPEND" in image.read_bytes()[:4096]
    image.write_bytes(b"")
    wakeless = domain_of(lab.define("wakeless", features="{ suspend_to_mem = false }"))
    lab.boot(wakeless)
    wait_agent(wakeless)
    assert "S3 state is disabled for this domain" in lab.fails("dompmsuspend wakeless mem")


# Power.


def test_power_by_the_agent(lab: Lab, domain_of: Register) -> None:
    """The guest ignores the power button: what happens, the agent does."""
    domain = lab.boot(domain_of(lab.define("deaf", cmdline="ignore_powerbutton")))
    wait_agent(domain)
    pid = domain.live.pid
    mark, seen = log_size(domain), journal.size(domain.live.journal)
    assert lab.ok("reboot deaf") == "Domain 'deaf' is being rebooted\n\n"
    assert "guest: reboot" in log_since(domain, mark)
    assert any(event["event"] == "RESET" for event in journal.events_from(domain.live.journal, seen)[0])
    wait_ready(domain, mark)
    wait_agent(domain)
    assert domain.live.pid == pid
    mark = log_size(domain)
    assert lab.ok("shutdown deaf --mode agent,acpi --wait") == "Domain 'deaf' has shut down\n\n"
    assert "guest: poweroff" in log_since(domain, mark)
    lab.boot(domain)
    wait_agent(domain)
    assert lab.ok("shutdown deaf --mode agent") == "Domain 'deaf' is being shutdown\n\n"
    deadline = time.monotonic() + 60
    while domain.is_running:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert domain.state == ("shut off", "shutdown")


# Agents that are not there, or say nothing.


def test_an_agent_that_hangs(lab: Lab, domain_of: Register) -> None:
    domain = lab.boot(domain_of(lab.define("hung", cmdline="agent_hang", body=network_nic(MAC))))
    wait_agent(domain)
    silent = "Guest agent is not responding: no answer to guest-sync-delimited in time"
    assert silent in quickly(lab, "guestinfo hung", 5)
    lab.ok("guest-agent-timeout hung --timeout 1")
    for line in ("domfsfreeze hung", "domtime hung", "dompmsuspend hung mem", "shutdown hung --mode agent"):
        assert silent in quickly(lab, line, 1)
    assert domain.state[0] == "running"
    ping = """'{"execute":"guest-ping"}'"""
    assert silent in quickly(lab, f"qemu-agent-command hung --timeout 2 {ping}", 2)
    lab.ok("guest-agent-timeout hung")
    # Who can do without an agent waits a moment only, whatever is set.
    started = time.monotonic()
    lab.ok("domifaddr hung")
    assert time.monotonic() - started < 4
    mark, started = log_size(domain), time.monotonic()
    lab.ok("shutdown hung --wait")
    assert time.monotonic() - started < 12
    assert "guest: power button" in log_since(domain, mark)


def test_no_agent(lab: Lab, domain_of: Register) -> None:
    domain = lab.boot(domain_of(lab.define("bare", cmdline="noagent")))
    absent = "Guest agent is not responding: QEMU guest agent is not connected"
    for line in (
        "domhostname bare",
        "domfsinfo bare",
        "reboot bare --mode agent",
        "domifaddr bare --source agent",
    ):
        assert absent in quickly(lab, line, 0)
    assert lab.fails("domhostname bare").startswith("error: failed to get hostname: ")
    assert "no hostname found for domain bare" in lab.fails("domhostname bare --source lease")
    with pytest.raises(NotReached):
        address.wait(domain, sources=("lease", "agent"), interface=None, timeout=0.1)
    mark = log_size(domain)
    lab.ok("reboot bare --mode acpi,agent")
    wait_ready(domain, mark)
    for mode, words in (
        ("initctl", "it is for containers"),
        ("agent,paravirt", "it is for containers"),
        ("knock", "Unknown mode 'knock' value, expecting 'acpi', 'agent', 'initctl', 'signal', or 'paravirt'"),
    ):
        assert words in lab.fails(f"shutdown bare --mode {mode}")
    mark = log_size(domain)
    domain.shutdown(wait=True)
    assert "guest: power button" in log_since(domain, mark)
    with pytest.raises(InvalidState):
        domain.guest.session()


def test_no_channel(lab: Lab, domain_of: Register) -> None:
    domain = domain_of(lab.define("plain", channels="[]"))
    domain.start()
    missing = "argument unsupported: QEMU guest agent is not configured"
    assert lab.fails("domhostname plain").startswith(f"error: failed to get hostname: {missing}")
    assert lab.fails("guestinfo plain").startswith(f"error: {missing}")
    with pytest.raises(AgentMissing):
        domain.guest.session()
    assert AgentRefused("guest-x", "GenericError", "no").desc == "no"
