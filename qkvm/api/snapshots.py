"""A domain's snapshots, checkpoints and backups; `qkvm.Domain` provides these nouns."""

from __future__ import annotations

from qkvm.api.verb import Noun, lazily, verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from qkvm.domain import store
    from qkvm.domain.backup import begin, checkpoint, folder, job
    from qkvm.domain.snapshot import create, define, delete, revert
else:
    (store,) = lazily("qkvm.domain", "store")
    begin, checkpoint, folder, job = lazily("qkvm.domain.backup", "begin", "checkpoint", "folder", "job")
    create, define, delete, revert = lazily("qkvm.domain.snapshot", "create", "define", "delete", "revert")


class Snapshots(Noun):
    """A domain's snapshots, by name (virsh snapshot-list): ``vm.snapshots["before"]``."""

    __slots__ = ()
    __getitem__ = verb(lambda: store.snapshots.find)
    all = verb(lambda: store.snapshots.load)
    current = verb(lambda: store.snapshots.current)
    set_current = verb(lambda: define.set_current)
    create = verb(lambda: create.create)
    revert = verb(lambda: revert.revert)
    delete = verb(lambda: delete.delete)
    redefine = verb(lambda: define.redefine)
    rename = verb(lambda: define.rename)

    def __iter__(self) -> Iterator[str]:
        return iter(self.all())


class Checkpoints(Noun):
    """A domain's checkpoints, by name (virsh checkpoint-list)."""

    __slots__ = ()
    __getitem__ = verb(lambda: store.checkpoints.find)
    all = verb(lambda: store.checkpoints.load)
    create = verb(lambda: checkpoint.create)
    delete = verb(lambda: checkpoint.delete)
    redefine = verb(lambda: checkpoint.redefine)
    describe = verb(lambda: checkpoint.describe)
    sizes = verb(lambda: checkpoint.sizes)
    xml = verb(lambda: checkpoint.xml)

    def __iter__(self) -> Iterator[str]:
        return iter(self.all())


class Backup(Noun):
    """Backups of a domain: into a folder (qkvm backup), or as in virsh backup-begin."""

    __slots__ = ()
    into = verb(lambda: folder.backup)
    begin = verb(lambda: begin.begin)
    xml = verb(lambda: begin.xml)
    abort = verb(lambda: job.abort)
    wait = verb(lambda: job.wait)
