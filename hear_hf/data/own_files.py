"""Which files a data set of others may name: its own and the Hub's, no address and no other file of this machine."""

import os
import re
from collections.abc import Iterable
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


def check_own_tables(tables: Iterable[str], name: str) -> None:
    """
    Refuses tables, or loose clips, that lie elsewhere than in the data set whose card or folder led to them.

    Args:
        tables (`Iterable[str]`): Addresses and paths.
        name (`str`): The data set's name or folder.

    Raises:
        `ValueError`: One is neither a file of the data set nor at an address of the Hub.
    """
    folders = _folders(name)
    for path in tables:
        if not _is_own(path, folders):
            raise ValueError(
                f"{name} must consist of its own files and those of the Hub, found: {_shown(path)}, which was not "
                "read. Correct `data_files` in its README.md, or rename its folder if its path has one of *?[]."
            )


def _folders(name: str) -> list[str]:
    """The folders that may hold the files of a data set."""
    if os.path.exists(name):
        folders = [name]
    else:
        downloads = datasets.config.DOWNLOADED_DATASETS_PATH, datasets.config.EXTRACTED_DATASETS_PATH
        folders = [os.path.join(HF_HUB_CACHE, f"datasets--{name.replace('/', '--')}"), *map(str, downloads)]
    return [os.path.realpath(folder) for folder in folders]


def _check(audio: Any, name: str, folders: list[str]) -> bool:
    if isinstance(audio, dict):
        audio = audio.get("path") if audio.get("bytes") is None else None
    if not isinstance(audio, str) or not audio or _is_own(audio, folders):
        return True
    raise ValueError(
        f"{name} must hold its clips itself, as bytes, own files or hf:// addresses, found: {_shown(audio)}, which "
        "was not read. Leave such rows out, or download the clips and give them with --train_file."
    )


def _is_own(path: str, folders: list[str]) -> bool:
    """Whether a path or address leads to the Hub or into a folder, and by no link out of it."""
    if ADDRESS.fullmatch(path):
        return True
    return "://" not in path and any(Path(os.path.realpath(path)).is_relative_to(folder) for folder in folders)


def _shown(path: str) -> str:
    return repr(path if len(path) <= MAX_SHOWN else f"{path[:MAX_SHOWN]}...")
