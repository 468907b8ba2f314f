"""The folder of the visitors' clips. Each run of the app has its own, and removes those of runs that are gone."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from huggingface_hub.utils import WeakFileLock

PREFIX = "hear_space_"


@contextmanager
def clip_folder() -> Iterator[Path]:
    """Gives Gradio a new folder for uploads, below `GRADIO_TEMP_DIR` or the system's, and removes it at the end."""
    home = Path(os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir())
    home.mkdir(parents=True, exist_ok=True)
    clear_abandoned(home)
    folder = home / f"{PREFIX}{os.urandom(8).hex()}"
    # The lock comes before the folder, so that a folder without a holder of its lock is a dead run's.
    with WeakFileLock(_lock(folder)):
        folder.mkdir(mode=0o700)
        os.environ["GRADIO_TEMP_DIR"] = str(folder)
        try:
            yield folder
        finally:
            _remove(folder)


def clear_abandoned(home: Path) -> None:
    """Removes this user's folders of runs that were killed, with the clips in them."""
    for folder in home.glob(f"{PREFIX}*/"):
        with suppress(OSError):  # a lock that another run holds is a TimeoutError
            if not hasattr(os, "getuid") or folder.lstat().st_uid == os.getuid():
                with WeakFileLock(_lock(folder), timeout=0.01):
                    _remove(folder)


def _lock(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    with suppress(OSError):
        _lock(folder).unlink()
