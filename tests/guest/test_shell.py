"""The shell and completion beside a running guest: fresh state in one long process, and names of what is there."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from qkvm.api.domain import Domain
from tests.guest.conftest import TOP, Lab, network_nic
from tests.terminal import Terminal

MAC = "52:54:00:00:aa:01"
NETWORK = 'name = "{}"\nmode = "isolated"\nbridge = "qkvmlab"\naddress = "192.168.131.1/24"\n'


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("disk") / "disk.raw"
    path.write_bytes(bytes(1 << 20))
    return path


@pytest.fixture(scope="module")
def vm(lab: Lab, disk: Path) -> Iterator[Domain]:
    """The domain runner, which runs, beside sleeper, which does not."""
    body = f"[[disks]]\npath = '{disk}'\nformat = 'raw'\ntarget = 'vdc'\n" + network_nic(MAC)
    domain, sleeper = lab.define("runner", body=body), lab.define("sleeper")
    yield lab.boot(domain)
    domain.destroy()
    domain.undefine()
    sleeper.undefine()


@pytest.fixture
def shell(lab: Lab, tmp_path: Path) -> Iterator[Callable[..., Terminal]]:
    made: list[Terminal] = []

    def start(*options: str) -> Terminal:
        environment = {**os.environ, "TERM": "dumb", "INPUTRC": "/dev/null", "XDG_CACHE_HOME": str(tmp_path)}
        argv = [sys.executable, "-m", "qkvm", "--root", lab.root, *options]
        made.append(Terminal(argv, cwd=TOP, env=environment))
        made[-1].expect("qkvm # ")
        return made[-1]

    yield start
    for terminal in made:
        terminal.close()


def run(shell: Terminal, line: str) -> str:
    """Type a line and give what it prints."""
    shell.type(f"{line}\n")
    return shell.expect("qkvm # ").partition("\n")[2].removesuffix("qkvm # ")


def test_what_is_offered(lab: Lab, vm: Domain) -> None:
    def offered(*words: str) -> list[str]:
        return lab.ok(f"complete -- {' '.join(words)}").split()

    tap = vm.nics.all()[0].interface
    assert offered("start", "''") == ["sleeper"]
    for verb in ("shutdown", "destroy", "suspend", "console", "domifaddr"):
        assert offered(verb, "''") == ["runner"]
    assert offered("resume", "''")[0].startswith("--"), "none is paused"
    assert offered("dominfo", "''") == offered("undefine", "''") == ["runner", "sleeper"]
    assert offered("domif-setlink", "runner", "''") == sorted([MAC, tap])
    assert offered("domif-setlink", str(vm.live.id), MAC[:8]) == [MAC]
    assert offered("detach-interface", "runner", "network", "--mac", "''") == [MAC]
    assert offered("net-start", "''")[0].startswith("--"), "the only network is active"
    assert offered("net-destroy", "''") == ["default"]
    assert offered("attach-interface", "runner", "network", "''") == ["default"]
    vm.suspend()
    assert offered("resume", "''") == ["runner"]
    vm.resume()


def test_a_long_session_sees_what_others_do(lab: Lab, vm: Domain, shell: Callable[..., Terminal]) -> None:
    terminal = shell()
    assert run(terminal, "domstate --reason ru\t") == f"{' '.join(vm.state[:1])} ({vm.state[1]})\n\n"
    vm.suspend()
    assert run(terminal, "domstate runner --reason") == "paused (user)\n\n"
    assert run(terminal, "resu\tru\t") == "Domain 'runner' resumed\n\n"
    assert vm.state[0] == "running"
    # The tab is typed behind the MAC address's first half, colons and all.
    assert run(terminal, f"domif-setlink runner {MAC[:8]}\tdo\t") == "Device updated successfully\n\n"
    assert not vm.nics.all()[0].link
    lab.ok(f"domif-setlink runner {MAC} up")
    assert run(terminal, f"domif-getlink runner {MAC}") == f"{MAC} up\n"
    assert "error: Failed to start domain 'runner'" in run(terminal, "start runner; domname runner")
    assert run(terminal, "setmem runner 200M; setmem runner 256M") == "\n\n"


def test_networks_again_and_again(lab: Lab, vm: Domain, shell: Callable[..., Terminal], tmp_path: Path) -> None:
    definition = tmp_path / "lab.toml"
    definition.write_text(NETWORK.format("lab"))
    terminal = shell()
    assert run(terminal, f"net-define {tmp_path}/la\t") == f"Network lab defined from {definition}\n\n"
    for _ in range(2):
        assert run(terminal, "net-start la\t") == "Network lab started\n\n"
        lab.ok("net-destroy lab")
        both = run(terminal, "net-start lab; net-destroy lab")
        assert both == "Network lab started\n\nNetwork lab destroyed\n\n"
    assert run(terminal, "net-undefine lab") == "Network lab has been undefined\n\n"


def test_a_domain_outlives_the_shell_that_started_it(lab: Lab, vm: Domain, shell: Callable[..., Terminal]) -> None:
    sleeper = lab.host.domain("sleeper")
    terminal = shell("-e", "^a")
    try:
        for _ in range(2):
            assert run(terminal, "start sl\t").endswith("Domain 'sleeper' started\n\n")
            assert run(terminal, "destroy sl\t") == "Domain 'sleeper' destroyed\n\n"
        children = Path(f"/proc/{terminal.child.pid}/task/{terminal.child.pid}/children")
        assert children.read_text() == "", "no zombie stays"
        terminal.type("start sleeper --console\n")
        terminal.expect("Escape character is ^a (Ctrl + a)")
        terminal.expect("guest: ready", 120)
        terminal.type("\x01")
        terminal.expect("qkvm # ")
        terminal.type("\x03")
        terminal.expect("qkvm # ")
        terminal.type("exit\n")
        assert terminal.child.wait(60) == 0 and terminal.is_restored()
        assert lab.ok("domstate sleeper") == "running\n\n"
    finally:
        if sleeper.is_running:
            sleeper.destroy()


def test_a_script_with_a_guest(lab: Lab, vm: Domain) -> None:
    assert lab.ok("-q 'domid runner; domname runner'") == f"{vm.live.id}\nrunner\n"
    assert lab.run("'domname runner; domname nosuch'").returncode == 1
    assert lab.run("'domname nosuch; domname runner'").returncode == 0
    assert "read only access prevents destroy" in lab.fails("-r destroy runner")
    assert vm.is_running
