"""What a model gives elsewhere: in a process without `hear_hf`, without this one's secrets, and for a limited time."""

import os
import signal
import site
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
from huggingface_hub import HfApi, constants

from .temporary import temporary_folder

CHILD = Path(__file__).with_name("isolated.py")
TIME_LIMIT = 600  # seconds
ENVIRONMENT = (  # what Python and PyTorch need; tokens and keys of clouds are not among it
    "PATH",
    "PYTHONPATH",
    "VIRTUAL_ENV",
    "LD_LIBRARY_PATH",
    "DYLD_LIBRARY_PATH",
    "SYSTEMROOT",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "CUDA_VISIBLE_DEVICES",
)


def outputs_elsewhere(
    source: str,
    models: list[tuple[str, str]],
    revision: str = "main",
    token: str | None = None,
    base: tuple[str, str] | None = None,
) -> list[np.ndarray]:
    """
    Computes `outputs_on_noise` as another machine would: without `hear_hf` and with empty caches.

    The process that runs the model's code gets no token and is offline: what is on the Hub is downloaded before.

    Args:
        source (`str`): A folder, or a repository of the Hub.
        models (`list[tuple[str, str]]`): The Auto class and the sub-folder of each, for example `("AutoModel", "")`.
        revision (`str`, *optional*, defaults to `"main"`): Branch, tag or commit.
        token (`str`, *optional*): A token that may read it.
        base (`tuple[str, str]`, *optional*): Of an adapter, the base model on the Hub and its commit.

    Raises:
        `RuntimeError`: A model did not load, or not in time; the message says why.
    """
    with temporary_folder() as temporary:
        download = partial(
            HfApi(endpoint=constants.ENDPOINT, token=token).snapshot_download, cache_dir=temporary / "hub"
        )
        if not Path(source).is_dir():
            download(source, revision=revision)
        base_folder = "" if base is None else download(base[0], revision=base[1])
        run_child(temporary, source, revision, base_folder, *map(":".join, models))
        return [np.load(temporary / f"{i}.npy") for i in range(len(models))]


def run_child(home: Path, *arguments: str) -> None:
    """Runs `isolated.py` in a process that dies with this one; raises `RuntimeError` if it fails or takes too long."""
    environment = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    environment |= {name: str(home) for name in ("HOME", "HF_HOME", "TMPDIR")}
    environment |= {"HF_HUB_OFFLINE": "1", "PYTHONUSERBASE": site.getuserbase()}
    command = [sys.executable, "-P", str(CHILD), str(home), *arguments]
    errors = home / "errors.txt"
    with errors.open("w") as file:
        process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=file, stderr=file, start_new_session=True
        )
    try:
        failed = process.wait(TIME_LIMIT) != 0
    except subprocess.TimeoutExpired as error:
        raise RuntimeError(f"it took longer than {TIME_LIMIT} s") from error
    finally:
        _end(process)
    if failed:
        lines = errors.read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise RuntimeError((lines or ["the process ended without a message"])[-1])


def _end(process: subprocess.Popen) -> None:
    """Ends a process that still runs, with those that it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL) if hasattr(os, "killpg") else process.kill()
        process.wait()
    if process.stdin:
        process.stdin.close()
