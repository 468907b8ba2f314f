"""Exported programs in ExecuTorch: where they are, and how they are run."""

import json
from collections.abc import Callable
from pathlib import Path

import torch
from executorch.extension.pybindings.portable_lib import _threadpool_get_thread_count, _unsafe_reset_threadpool
from executorch.runtime import Runtime


def program_path(folder: Path, seconds: float, dtype: str) -> Path:
    """Where the program for clips of this length goes; a JSON file of its name has what a device must know."""
    return folder / f"model_{seconds:g}s{'' if dtype == 'float32' else f'_{dtype}'}.pte"


def num_samples_of(path: Path) -> int:
    """The length of the clips that a program reads, by the JSON file beside it."""
    return json.loads(path.with_suffix(".json").read_text())["num_samples"]


def open_program(path: Path) -> Callable[[torch.Tensor], torch.Tensor]:
    """A function that runs a program: clip (1, num_samples) -> logits, of a model of frames those of the frames.

    It runs on as many CPU threads as PyTorch, as do from then on all programs of the process.
    """
    if _threadpool_get_thread_count() != torch.get_num_threads():
        _unsafe_reset_threadpool(torch.get_num_threads())
    method = Runtime.get().load_program(path).load_method("forward")
    return lambda clip: method.execute([clip])[0]
