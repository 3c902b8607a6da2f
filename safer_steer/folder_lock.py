"""One process at a time in an output folder: a lock of the operating system that names who holds it.

It is a POSIX lock (fcntl.lockf) on `FOLDER/.lock`. The kernel lets go of it when its process ends, however it ends, so
there is no stale lock to delete; and it is not handed on to forked children, so a data loader's worker that outlives a
`kill -9` of its run blocks nobody. (`filelock` uses flock, which children inherit, and names no holder.) Network file
systems pass such locks between hosts where they are mounted with locking, as NFSv4 is.
"""

import errno
import fcntl
import json
import os
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, ClassVar

from safer_steer.errors import UserError
from safer_steer.secrets import without_keys

FILE = ".lock"
REFUSED = (errno.EACCES, errno.EAGAIN)
UNSUPPORTED = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)
SETTLE_S = 0.1  # a holder writes who it is right after it got the lock


class FolderLock:
    """The lock of one folder. A process may hold it several times: a command for all its steps, and each step."""

    # Closing any descriptor of a file gives up the process's lock on it, so there is one for each folder.
    _open: ClassVar[dict[Path, tuple[IO[str], int]]] = {}

    def __init__(self, folder: Path):
        """Takes the lock; makes the folder if absent.

        Raises:
            UserError: another process holds it; the message says which, where and since when.
        """
        folder.mkdir(parents=True, exist_ok=True)
        self._key, self._held = folder.resolve(), True
        file, uses = self._open.get(self._key) or (_locked(folder), 0)
        self._open[self._key] = file, uses + 1

    def release(self) -> None:
        """Gives the lock up, once."""
        if not self._held:
            return
        self._held = False
        file, uses = self._open.pop(self._key)
        if uses > 1:
            self._open[self._key] = file, uses - 1
            return
        file.close()


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Holds the folder's lock for a block.

    Raises:
        UserError: another process holds it.
    """
    lock = FolderLock(folder)
    try:
        yield
    finally:
        lock.release()


def _locked(folder: Path) -> IO[str]:
    file = (folder / FILE).open("a+", encoding="utf-8")
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in REFUSED:
            time.sleep(SETTLE_S)
            file.seek(0)
            holder = _described(file.read())
            file.close()
            raise UserError(
                f"{folder} is in use by {holder}; wait for it to end, stop it, or choose another output folder"
            ) from None
        if error.errno not in UNSUPPORTED:
            file.close()
            raise
        print(
            f"warning: the file system of {folder} has no locks ({error.strerror}): nothing stops a second run in this "
            "folder; make sure that there is none",
            file=sys.stderr,
        )
    file.truncate(0)
    file.write(json.dumps(_self_description(), ensure_ascii=True) + "\n")
    file.flush()
    return file


def _self_description() -> dict[str, str | int]:
    now = datetime.now(UTC).isoformat(timespec="seconds")
    command = without_keys(" ".join(sys.argv))[:300]
    return {"pid": os.getpid(), "host": socket.gethostname(), "started_at": now, "command": command}


def _described(text: str) -> str:
    try:
        holder = json.loads(text)
        return "process {pid} on {host}, started {started_at}: {command}".format(**holder)
    except (ValueError, KeyError, TypeError):  # it is about to write its name
        return "another process"
