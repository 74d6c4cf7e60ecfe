"""One run at a time on a shard, and no leftovers of runs that were killed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import re
import shutil
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

from braing3n.errors import BrainG3NError
from braing3n.preprocess.records import now

logger = logging.getLogger(__name__)
TEMPORARY = re.compile(r"\.tmp(\d+)-")  # as braing3n.files.atomic_path names them


@contextlib.contextmanager
def shard_lock(path: Path) -> Iterator[None]:
    """Hold the lock file of a shard; the system lets go of it when the process ends, however it ends.

    Raises:
        BrainG3NError: another run holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            raise BrainG3NError(
                "another run is working on this shard",
                file=path,
                found=handle.read().strip() or "a run that is just starting",
                remedy="wait for it, or end it by its process id",
            ) from None
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.ENOTSUP, errno.ENOLCK):
                raise
            logger.warning("%s: this file system has no locks; make sure that nothing else works on the shard", path)
        handle.truncate(0)
        handle.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": now()}))
        handle.flush()
        yield
        handle.truncate(0)


def remove_leftovers(paths: Iterable[Path]) -> int:
    """Remove temporary files and folders whose process is dead; how many there were.

    To be called with the shard's lock held: a process of another machine cannot be asked whether it lives.
    """
    count = 0
    for path in paths:
        found = TEMPORARY.match(path.name)
        if found is None or alive(int(found[1])):
            continue
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
        count += 1
    return count


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
