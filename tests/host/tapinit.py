"""What an init does for the helper that gives taps to users: listen, and start it for each connection."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import threading
from pathlib import Path

from qkvm.net.grant import right
from qkvm.paths import Tree

HELPER = right.command()


class Init:
    """What an init does for the helper: it listens, and starts it for each connection."""

    def __init__(self, tree: Tree, cwd: Path | None = None, env: dict[str, str] | None = None) -> None:
        # Users must get to the socket, and the tree of a test is nobody's but root's.
        self.place = tempfile.mkdtemp(prefix="qkvm-tap-")
        os.chmod(self.place, 0o755)
        self.system = Tree(self.place)
        os.makedirs(os.path.dirname(self.system.tap_socket))
        self.log = os.path.join(self.place, "log")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.system.tap_socket)
        os.chmod(self.system.tap_socket, 0o666)
        self._listener.listen()
        self._argv = [*HELPER, "accepted", tree.root]
        self._cwd, self._env = cwd, env
        self._children: list[subprocess.Popen[bytes]] = []
        self._worker = threading.Thread(target=self._serve)
        self._worker.start()

    def _serve(self) -> None:
        while True:
            try:
                peer, _ = self._listener.accept()
            except OSError:
                return
            with peer, open(self.log, "ab") as log:
                child = subprocess.Popen(
                    self._argv,
                    stdin=peer.fileno(),
                    stdout=subprocess.DEVNULL,
                    stderr=log,
                    cwd=self._cwd,
                    env=self._env,
                )
            self._children.append(child)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._worker.join()
        self._listener.close()
        for child in self._children:
            child.wait(30)
        shutil.rmtree(self.place)
