"""Temporary folders of which none outlives its run for long: what a killed run left, the next one removes."""

import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from huggingface_hub.utils import WeakFileLock

PREFIX = "hear_hf_staged_"
LOCK = "in_use.lock"  # the system lets go of it when its process ends, however that happens
YOUNG = 60  # seconds in which a folder may not have its lock yet


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A temporary folder that is removed at the end, or by the next run if this one is killed."""
    clear_abandoned()
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as temporary:
        with WeakFileLock(Path(temporary) / LOCK):
            yield Path(temporary)


def clear_abandoned() -> None:
    """Removes this user's temporary folders whose run is gone."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):  # a lock that another run holds is a TimeoutError
            status = folder.lstat()
            is_ours = not hasattr(os, "getuid") or status.st_uid == os.getuid()
            if is_ours and (folder / LOCK).is_file() and time.time() - status.st_mtime > YOUNG:
                with WeakFileLock(folder / LOCK, timeout=0.01):
                    shutil.rmtree(folder, ignore_errors=True)
