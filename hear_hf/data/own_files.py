"""Which files a data set of others may name: its own and the Hub's, no address and no other file of this machine."""

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import datasets
import pyarrow.compute as pc
from datasets import Dataset, IterableDataset, load_dataset, load_dataset_builder
from datasets.features.features import require_decoding
from huggingface_hub import DatasetCard, HfApi, constants
from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

# A file of the Hub, perhaps in an archive there.
ADDRESS = re.compile(r"((zip|tar|gzip)://((?!::).)*::)*hf://((?!::).)*")
SCHEME = re.compile(r"[A-Za-z][\w+.-]*:|.*::", re.DOTALL)  # what makes an address of a path
CARD, STANDALONE_METADATA = "README.md", ".huggingface.yaml"  # where `datasets` looks for `configs`
MAX_SHOWN = 100  # letters of a path


def load_own(name: str, config_name: str | None = None, revision: str | None = None, **options: Any) -> Any:
    """
    Calls `load_dataset`, but refuses a data set whose card or folder leads to files other than its own and the Hub's.

    Of the Hub, the commit whose card was checked is the one that is loaded.

    Args:
        name (`str`): A data set of the Hub, or the folder of a local copy.
        config_name (`str`, *optional*): Its configuration, where it has several.
        revision (`str`, *optional*): Its branch, tag or commit on the Hub.
        **options: Further options of `load_dataset`.

    Raises:
        `ValueError`: Tables or loose clips lie elsewhere; they were not read.
    """
    if os.path.exists(name):
        cards = [Path(name, CARD), Path(name, STANDALONE_METADATA)]
    else:
        cards, revision = _cards_on_hub(name, revision)
    for path in chain.from_iterable(_named_files(card) for card in cards if card.is_file()):
        if not _may_be_named(path, name):
            raise _not_own(path, name)
    builder = load_dataset_builder(name, config_name, revision=revision, cache_dir=options.get("cache_dir"))
    folders = _folders(name)
    for path in chain.from_iterable((builder.config.data_files or {}).values()):  # what patterns and links lead to
        if not _is_own(path, folders):
            raise _not_own(path, name)
    return load_dataset(name, config_name, revision=revision, **options)


def _cards_on_hub(name: str, revision: str | None) -> tuple[list[Path], str | None]:
    """Downloads what says which files a data set has, and returns the commit that it is of."""
    hub = HfApi(endpoint=datasets.config.HF_ENDPOINT)
    try:
        info = hub.dataset_info(name, revision=revision)
    except (HTTPError, HfHubHTTPError, OfflineModeIsEnabled):
        return [], revision  # `load_dataset` says so, or takes what it has prepared before
    files = {file.rfilename for file in info.siblings or []} & {CARD, STANDALONE_METADATA}
    download = partial(hub.hf_hub_download, name, repo_type="dataset", revision=info.sha)
    return [Path(download(file)) for file in sorted(files)], info.sha


def _named_files(card: Path) -> Iterator[str]:
    """The files, folders and patterns that a card names in any of its configurations."""
    if card.name == CARD:
        metadata = DatasetCard.load(card).data
    else:  # the same without a card around it
        text = re.sub("^---$", "", card.read_text(encoding="utf-8"), flags=re.MULTILINE)
        metadata = DatasetCard(f"---\n{text}\n---\n").data
    configs = metadata.get("configs")
    for config in configs if isinstance(configs, list) else []:
        if isinstance(config, dict):
            yield from _strings([config.get("data_files"), config.get("data_dir")])


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list | set | tuple):  # YAML has them all
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


def _may_be_named(path: str, name: str) -> bool:
    """Whether a path or pattern on a card leads to the Hub or, as far as can be seen, into its data set."""
    if SCHEME.match(path):
        return bool(ADDRESS.fullmatch(path))
    if os.path.isabs(path):
        return _is_own(path, _folders(name))
    return ".." not in re.split(r"[/\\]", path)


def _not_own(path: str, name: str) -> ValueError:
    return ValueError(
        f"{name} must consist of its own files and those of the Hub, found: {_shown(path)}, which was not read. "
        "Correct `data_files` in its README.md, or rename its folder if its path has one of *?[]."
    )


def with_nothing_decoded(dataset: Dataset | IterableDataset) -> Dataset | IterableDataset:
    """Leaves images, recordings and the like as they are stored, and out where they lie in lists or structs."""
    for name, feature in dict(dataset.features or {}).items():
        if hasattr(feature, "decode"):
            dataset = dataset.cast_column(name, replace(feature, decode=False))
        elif require_decoding(feature):
            dataset = dataset.remove_columns(name)
    return dataset


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
        folders = [os.path.join(constants.HF_HUB_CACHE, f"datasets--{name.replace('/', '--')}"), *map(str, downloads)]
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
