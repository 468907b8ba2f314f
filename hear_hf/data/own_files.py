"""Which files a data set of others may name: its own and the Hub's, no address and no other file of this machine."""

import os
import re
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import pyarrow.compute as pc
from datasets import Dataset, IterableDataset
from huggingface_hub.constants import HF_HUB_CACHE

# A file of the Hub, perhaps in an archive there.
ADDRESS = re.compile(r"((zip|tar|gzip)://((?!::).)*::)*hf://((?!::).)*")
MAX_SHOWN = 100  # letters of a path


def only_own_files(dataset: Dataset | IterableDataset, column: str, name: str) -> Dataset | IterableDataset:
    """
    Refuses clips that lie elsewhere than in the data set that names them.

    Args:
        dataset (`Dataset` or `IterableDataset`): Rows of a data set of the Hub or a local copy of one.
        column (`str`): Its undecoded column of audio.
        name (`str`): The data set's name or folder.

    Returns:
        The same rows. A stream is checked as it is read.

    Raises:
        `ValueError`: A clip without bytes is at an address other than `hf://`, or at a path outside the data set.
    """
    check = partial(_check, name=name, folders=_folders(name))
    if isinstance(dataset, IterableDataset):
        return dataset.filter(check, input_columns=[column])
    for table in dataset.select_columns(column).with_format("arrow").iter(batch_size=1_000):
        audio = table.column(column).combine_chunks()
        paths = pc.struct_field(audio, "path").filter(pc.struct_field(audio, "bytes").is_null())
        for path in paths.to_pylist():
            check(path)
    return dataset


def _folders(name: str) -> list[str]:
    """The folders that may hold the files of a data set."""
    if os.path.exists(name):
        folders = [name]
    else:
        downloads = datasets.config.DOWNLOADED_DATASETS_PATH, datasets.config.EXTRACTED_DATASETS_PATH
        folders = [os.path.join(HF_HUB_CACHE, f"datasets--{name.replace('/', '--')}"), *map(str, downloads)]
    return [one for folder in folders for one in (os.path.abspath(folder), os.path.realpath(folder))]


def _check(audio: Any, name: str, folders: list[str]) -> bool:
    if isinstance(audio, dict):
        audio = audio.get("path") if audio.get("bytes") is None else None
    if not isinstance(audio, str) or not audio or ADDRESS.fullmatch(audio):
        return True
    if "://" not in audio and any(Path(os.path.abspath(audio)).is_relative_to(folder) for folder in folders):
        return True
    shown = audio if len(audio) <= MAX_SHOWN else f"{audio[:MAX_SHOWN]}..."
    raise ValueError(
        f"{name} must hold its clips itself, as bytes, own files or hf:// addresses, found: {shown!r}, which was not "
        "read. Leave such rows out, or download the clips and give them with --train_file."
    )
