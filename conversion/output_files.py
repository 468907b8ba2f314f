"""Writes what a conversion makes: all of it or nothing, and over an older result only where it is told to."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from transformers.utils import logging

from checkpoint_files import StateDict


def check_output(output_dir: Path, checkpoint: Path, force: bool) -> None:
    """Refuses a folder that may not be written."""
    if output_dir.exists() and not output_dir.is_dir():
        raise ValueError(f"`{output_dir}` must be a folder, found: a file. Give another name.")
    if output_dir in checkpoint.parents:
        raise ValueError(f"`{output_dir}` must not hold the checkpoint, which would be lost. Give another name.")
    if output_dir.is_dir() and any(output_dir.iterdir()) and not force:
        raise ValueError(f"`{output_dir}` must be new or empty. Give another name, or --force to replace it.")


@contextmanager
def put_in_place(output_dir: Path) -> Iterator[Path]:
    """Makes a folder beside `output_dir`, which takes its place where the block ends without an error."""
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output_dir.parent, prefix=f".{output_dir.name}-") as scratch:
        folder, replaced = Path(scratch) / output_dir.name, Path(scratch) / "replaced"
        folder.mkdir()
        yield folder
        try:
            if output_dir.exists():
                os.replace(output_dir, replaced)
            os.replace(folder, output_dir)
        except BaseException:  # an interrupt too: what is left in the scratch folder is deleted
            if replaced.exists() and not output_dir.exists():
                os.replace(replaced, output_dir)
            raise


def write_checkpoint(original: StateDict, output_file: Path) -> None:
    """Writes a checkpoint, reads it again, and puts it in place where all tensors are equal."""
    output_file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output_file.parent, prefix=f".{output_file.name}-") as scratch:
        written = Path(scratch) / output_file.name
        torch.save(original, written)
        reloaded = torch.load(written, weights_only=True, map_location="cpu")
        different = [key for key, tensor in original.items() if not torch.equal(tensor, reloaded[key])]
        if different:
            raise ValueError(f"The written tensors must equal the folder's, found others: {', '.join(different)}.")
        os.replace(written, output_file)


@contextmanager
def quiet() -> Iterator[None]:
    """Silences the progress bars and warnings of transformers: the report says what there is to say."""
    verbosity, has_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if has_bars:
            logging.enable_progress_bar()
