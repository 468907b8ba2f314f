"""Labelled clips as a data set of the Hub that `load_dataset` gives with `Audio` and `ClassLabel`."""

import hashlib
import os
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
from datasets import Audio, Dataset, DatasetInfo, Features, List, SplitInfo, Value
from datasets.info import DatasetInfosDict
from datasets.splits import SplitDict
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard, DatasetCardData
from tqdm.auto import tqdm

from ..arguments import option
from ..data.folders import split_named
from ..data.labelled import DataArguments, load_splits
from ..data.labels import encode_labels
from ..data.own_files import load_own
from ..data.sources import TABLE_SUFFIXES, find_files
from ..data.unusable import MAX_NAMED, MIN_SECONDS, UnusableClip, describe, read_usable
from .cards import render
from .links import check_link
from .upload import Destination, SharingError

MAX_SHARD_SIZE = 500_000_000  # bytes of audio in a parquet file
DERIVED = ("configs", "dataset_info", "size_categories")  # metadata that follow from the clips
SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}


@dataclass
class DatasetArguments:
    """How to read labelled clips for publication, and what to state of them."""

    audio_column_name: str = option(default="audio", help="Read the clips from this column of the tables.")
    label_column_name: str = option(default="label", help="Read the labels from this column of the tables.")
    multi_label: bool | None = option(
        default=None,
        metadata={"nargs": "?", "const": True},
        help="Allow a clip any number of labels; False keeps names with ';' whole.",
    )
    skip_broken: bool = option(default=False, help="Skip clips that cannot be used.")
    license: str | None = option(
        default=None, help="State this licence, as the Hub names it; without one nobody else may use the clips."
    )


@dataclass
class Split:
    """What was written or read of a split: the SHA-256 of each row, all of its columns, its label, and sums."""

    digests: list[str] = field(default_factory=list)
    labels: list[int | list[int]] = field(default_factory=list)
    num_bytes: int = 0
    seconds: float = 0.0

    def add(self, row: dict[str, Any], seconds: float = 0.0) -> None:
        encoded = row["audio"]["bytes"]
        digest = hashlib.sha256(encoded)
        digest.update(repr((row["audio"]["path"], sorted(others(row).items()))).encode("utf-8", "surrogatepass"))
        self.digests.append(digest.hexdigest())
        self.labels.append(row["label"])
        self.num_bytes += len(encoded)
        self.seconds += seconds

    def counts(self, num_labels: int) -> list[int]:
        """Clips of each label."""
        found = Counter(chain.from_iterable(np.atleast_1d(label).tolist() for label in self.labels))
        return [found[i] for i in range(num_labels)]


def others(row: dict[str, Any]) -> dict[str, Any]:
    """A row without its clip."""
    return {name: value for name, value in row.items() if name != "audio"}


def stored_rows(dataset: Dataset) -> Iterator[dict[str, Any]]:
    """The rows as they are stored: sounds and images in further columns stay encoded too."""
    for table in dataset.with_format("arrow").iter(batch_size=1):
        yield table.to_pylist()[0]


@dataclass
class StagedDataset:
    """Clips in parquet files: their folder, the features that `load_dataset` gives, and the splits."""

    folder: Path
    features: Features
    splits: dict[str, Split]

    @property
    def is_multi_label(self) -> bool:
        return isinstance(self.features["label"], List)

    @property
    def label_names(self) -> list[str]:
        feature = self.features["label"]
        return (feature.feature if self.is_multi_label else feature).names

    @property
    def further_columns(self) -> list[str]:
        return [name for name in self.features if name not in ("audio", "label")]

    def label_counts(self) -> dict[str, list[int]]:
        """Clips of each label by split."""
        return {name: split.counts(len(self.label_names)) for name, split in self.splits.items()}


def load_clips(sources: list[str], args: DatasetArguments) -> dict[str, Dataset]:
    """
    Loads the splits as they are, each with undecoded `audio`, `label`, and the further columns that all of them have.

    Args:
        sources (`list[str]`): A folder, or one or several tables.
        args (`DatasetArguments`): How to read them.

    Raises:
        `SharingError`: A source, a column or a label is missing or inconsistent.
    """
    settings: dict[str, Any] = {
        "audio_column_name": args.audio_column_name,
        "label_column_name": args.label_column_name,
        "multi_label": args.multi_label,
    }
    if len(sources) == 1 and Path(sources[0]).is_dir():
        settings["data_dir"] = sources[0]
    else:
        for source in sources:
            settings.setdefault(f"{split_of(Path(source))}_file", []).append(source)
    try:
        splits = load_splits(DataArguments(**settings), seed=0)
        shared = set.intersection(*(set(dataset.column_names) for dataset in splits.values())) - {"audio", "label"}
        return encode_labels(splits, args.multi_label, tuple(sorted(shared)))
    except ValueError as error:
        raise SharingError(str(error)) from error


def split_of(table: Path) -> str:
    """The split that a table's name begins with, else `train`."""
    begins = re.split(r"[^a-z]", table.stem.lower())[0]
    return split_named(begins) or "train"


def source_folders(sources: list[str]) -> list[Path]:
    """The folders, absolute, that sources of `load_clips` are or lie in."""
    paths = [Path(os.path.abspath(source)) for source in sources]
    if len(paths) == 1 and paths[0].is_dir():
        return paths
    return list(dict.fromkeys(path.parent for path in find_files(sources, TABLE_SUFFIXES)))


def stage_dataset(
    datasets: dict[str, Dataset], folder: Path, skip_broken: bool = False, sources: list[Path] | None = None
) -> StagedDataset:
    """
    Writes clips to parquet files.

    Args:
        datasets (`dict[str, Dataset]`): The splits, as `load_clips` returns them.
        folder (`Path`): The folder to create.
        skip_broken (`bool`, *optional*, defaults to `False`): Whether to skip clips that cannot be used.
        sources (`list[Path]`, *optional*): The folders that `source_folders` gives. Links may not lead out of them,
            and of paths below them the names alone are published.

    Raises:
        `SharingError`: Clips cannot be used, a split keeps none, or a clip is a link that leads out of its source.
    """
    sources = sources or []
    folder.mkdir(parents=True)
    splits: dict[str, Split] = {}
    broken: list[str] = []
    for name, dataset in datasets.items():
        splits[name] = Split()
        shards: list[Path] = []
        for rows in shards_of(readable_rows(name, dataset, splits[name], broken, sources)):
            shards.append(write_shard(rows, dataset, folder / f"{name}-{len(shards)}"))
        for i, shard in enumerate(shards):
            shard.rename(folder / f"{name}-{i:05d}-of-{len(shards):05d}.parquet")
    report_broken(broken, splits, skip_broken)
    return StagedDataset(folder, published_features(next(iter(datasets.values()))), splits)


def readable_rows(
    name: str, dataset: Dataset, split: Split, broken: list[str], sources: list[Path]
) -> Iterable[dict[str, Any]]:
    """The rows whose clip can be used, which it adds to `split`; it adds the reasons of the others to `broken`."""
    folders = {str(folder) for source in sources for folder in (source, source.resolve())}
    for index, row in enumerate(tqdm(stored_rows(dataset), total=len(dataset), desc=f"Reading {name}")):
        check_clip(row["audio"], sources)
        try:
            clip, seconds = encoded_clip(row["audio"])
        except UnusableClip as error:
            broken.append(describe(row["audio"], f"clip {index} of {name}", error))
            continue
        published = without_folders(others(row), folders) | {"audio": clip}
        split.add(published, seconds)
        yield published


def shards_of(rows: Iterable[dict[str, Any]]) -> Iterable[list[dict[str, Any]]]:
    """Rows in lists of `MAX_SHARD_SIZE` bytes of audio; one empty list if there are none."""
    shard: list[dict[str, Any]] = []
    size = 0
    for row in rows:
        if size >= MAX_SHARD_SIZE:
            yield shard
            shard, size = [], 0
        shard.append(row)
        size += len(row["audio"]["bytes"])
    yield shard


def encoded_clip(audio: dict[str, Any]) -> tuple[dict[str, Any], float]:
    """A clip's file under its name alone, and its length in seconds; raises `UnusableClip` as fine-tuning does."""
    samples, sampling_rate = read_usable(audio, MIN_SECONDS)
    encoded = Path(audio["path"]).read_bytes() if audio["bytes"] is None else audio["bytes"]
    return {"bytes": encoded, "path": base_name(audio["path"])}, len(samples) / sampling_rate


def check_clip(audio: dict[str, Any] | None, sources: list[Path]) -> None:
    """Raises `SharingError` where a clip below a source is a link that leads out of it."""
    if audio is None or audio["bytes"] is not None or not os.path.lexists(audio["path"] or ""):
        return
    path = Path(os.path.abspath(audio["path"]))
    for source in sources:
        if path.is_relative_to(source):
            check_link(path, source)


def base_name(path: str | None) -> str | None:
    return path and re.split(r"[/\\]", path)[-1]


def without_folders(value: Any, folders: set[str]) -> Any:
    """The value, but of each path in it to or below one of the folders, at any depth, the name alone."""
    if isinstance(value, dict):
        return {key: without_folders(item, folders) for key, item in value.items()}
    if isinstance(value, list):
        return [without_folders(item, folders) for item in value]
    if not isinstance(value, str):
        return value
    path = re.sub("^file:(//[^/]*)?", "", value, flags=re.IGNORECASE)
    path = value if path == value else unquote(path)
    if not os.path.isabs(path):
        return value
    clean = os.path.normpath(path)
    is_there = any(clean == folder or clean.startswith(f"{folder}{os.sep}") for folder in folders if folder != os.sep)
    return Path(clean).name if is_there else value


def write_shard(rows: list[dict[str, Any]], dataset: Dataset, path: Path) -> Path:
    features = published_features(dataset)
    stored = Features({**features, "audio": {"bytes": Value("binary"), "path": Value("string")}})
    columns = {name: [row[name] for row in rows] for name in features}
    Dataset.from_dict(columns, features=stored).cast_column("audio", Audio()).to_parquet(path)
    return path


def published_features(dataset: Dataset) -> Features:
    return Features({**dataset.features, "audio": Audio()})


def report_broken(broken: list[str], splits: dict[str, Split], skip_broken: bool) -> None:
    """Prints which clips were skipped; raises `SharingError` if none may be, or if a split is left without clips."""
    if not broken:
        return
    named = "\n".join(broken[:MAX_NAMED] + ["..."] * (len(broken) > MAX_NAMED))
    total = len(broken) + sum(len(split.labels) for split in splits.values())
    found = f"{len(broken)} of {total} clips cannot be used:\n{named}"
    if not skip_broken:
        raise SharingError(f"{found}\nFix or remove them, or skip them with --skip_broken.")
    if not all(split.labels for split in splits.values()):
        raise SharingError(f"{found}\nEach split must keep a clip: correct the source.")
    print(f"Skipped: {found}")


def dataset_metadata(data: StagedDataset, license: str | None) -> DatasetCardData:
    """What the Hub and `load_dataset` read of a data set."""
    num_clips = sum(len(split.labels) for split in data.splits.values())
    size = next((name for limit, name in SIZES.items() if num_clips < limit), "n>1M")
    metadata = DatasetCardData(
        license=license, task_categories=["audio-classification"], tags=["audio"], size_categories=[size]
    )
    infos = SplitDict()
    for name, split in data.splits.items():
        infos.add(SplitInfo(name, num_bytes=split.num_bytes, num_examples=len(split.labels)))
    info = DatasetInfo(
        features=data.features,
        splits=infos,
        download_size=sum(path.stat().st_size for path in data.folder.iterdir()),
        dataset_size=sum(split.num_bytes for split in data.splits.values()),
    )
    DatasetInfosDict({"default": info}).to_dataset_card_data(metadata)
    files = [{"split": name, "path": f"{data.folder.name}/{name}-*"} for name in data.splits]
    MetadataConfigs({"default": {"data_files": files}}).to_dataset_card_data(metadata)
    return metadata


def dataset_card(data: StagedDataset, license: str | None, repository: str, own: Path) -> DatasetCard:
    """
    The card of a data set.

    Args:
        data (`StagedDataset`): The clips.
        license (`str`, *optional*): As the Hub names it.
        repository (`str`): Where they will be, as `OWNER/NAME`.
        own (`Path`): The user's own card, which is completed if it exists.

    Raises:
        `SharingError`: The metadata of the user's own card are no YAML, or it is a link that leads out of its folder.
    """
    metadata = dataset_metadata(data, license)
    if own.is_file():
        check_link(own, own.parent)
        return completed_card(own, metadata)
    title = repository.rpartition("/")[2]
    return DatasetCard(render("dataset_card.md", metadata, data=data, title=title, repository=repository))


def completed_card(path: Path, metadata: DatasetCardData) -> DatasetCard:
    """The user's own card, with what `load_dataset` needs and what it does not say itself."""
    try:
        card = DatasetCard.load(path)
    except Exception as error:  # whatever YAML or huggingface_hub raises
        raise SharingError(f"The metadata of {path} must be YAML, found: {error}") from error
    for key, value in metadata.to_dict().items():
        if key in DERIVED or not card.data.get(key):
            card.data[key] = value
    return card


def compare_download(data: StagedDataset, target: Destination, revision: str, temporary: Path) -> None:
    """Downloads a data set, reads it as `load_dataset` does, and compares each row with the staged one."""
    folder = target.api().snapshot_download(
        target.name, repo_type="dataset", revision=revision, local_dir=temporary / "downloaded"
    )
    downloaded = load_own(folder, cache_dir=str(temporary / "cache"))
    for name, split in data.splits.items():
        found = Split()
        for row in stored_rows(downloaded[name]):
            found.add(row)
        same = (downloaded[name].features, found.digests, found.labels) == (data.features, split.digests, split.labels)
        if not same:
            raise SharingError(f"The split {name} must be as it was uploaded, found otherwise. Run the command again.")
