"""Labelled clips as a data set of the Hub that `load_dataset` gives with `Audio` and `ClassLabel`."""

import argparse
import hashlib
import re
from collections import Counter
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

import numpy as np
from datasets import Audio, Dataset, DatasetInfo, Features, List, SplitInfo, Value, load_dataset
from datasets.info import DatasetInfosDict
from datasets.splits import SplitDict
from datasets.utils.metadata import MetadataConfigs
from huggingface_hub import DatasetCard, DatasetCardData
from tqdm.auto import tqdm

from ..data.decoding import decode_audio
from ..data.labelled import SPLIT_NAMES, DataArguments, encode_labels, load_splits
from .cards import code_span, plain
from .upload import SharingError

CARD_TEMPLATE = Path(__file__).with_name("templates") / "dataset_card.md"
MAX_SHARD_SIZE = 500_000_000  # bytes of audio in a parquet file
SAMPLING_RATE = 16_000  # Hz, to which clips are decoded to see whether they can be
NUM_NAMED = 10  # broken clips
DERIVED = ("configs", "dataset_info", "size_categories")  # metadata that follow from the clips
SIZES = {1_000: "n<1K", 10_000: "1K<n<10K", 100_000: "10K<n<100K", 1_000_000: "100K<n<1M"}


@dataclass
class Split:
    """What was written or read of a split: of each clip the SHA-256 of its file and its label, and sums."""

    digests: list[str] = field(default_factory=list)
    labels: list = field(default_factory=list)
    num_bytes: int = 0
    seconds: float = 0.0

    def add(self, encoded: bytes, label: int | list[int], seconds: float) -> None:
        self.digests.append(hashlib.sha256(encoded).hexdigest())
        self.labels.append(label)
        self.num_bytes += len(encoded)
        self.seconds += seconds

    def counts(self, num_labels: int) -> list[int]:
        """Clips of each label."""
        found = Counter(chain.from_iterable(np.atleast_1d(label).tolist() for label in self.labels))
        return [found[i] for i in range(num_labels)]


def load(args: argparse.Namespace) -> dict[str, Dataset]:
    """The splits as they are, each with undecoded `audio`, `label`, and the further columns that all of them have."""
    columns = {name: getattr(args, name) for name in ("audio_column_name", "label_column_name", "multi_label")}
    if len(args.sources) == 1 and Path(args.sources[0]).is_dir():
        columns["data_dir"] = args.sources[0]
    for source in args.sources if "data_dir" not in columns else []:
        columns.setdefault(f"{split_of(Path(source))}_file", []).append(source)
    try:
        splits = load_splits(DataArguments(**columns), seed=0)
        shared = set.intersection(*(set(dataset.column_names) for dataset in splits.values())) - {"audio", "label"}
        return encode_labels(splits, args.multi_label, tuple(sorted(shared)))
    except ValueError as error:
        raise SharingError(str(error)) from error


def split_of(table: Path) -> str:
    begins = re.split(r"[^a-z]", table.stem.lower())[0]
    return next((split for split, names in SPLIT_NAMES.items() if begins in names), "train")


def write_splits(datasets: dict[str, Dataset], folder: Path, skip_broken: bool) -> dict[str, Split]:
    """Writes the clips that decode to parquet files in `folder`, and refuses or passes over the others."""
    folder.mkdir(parents=True)
    splits, broken = {}, []
    for name, dataset in datasets.items():
        split, rows, size, shards = Split(), [], 0, []
        for index, row in enumerate(tqdm(dataset, desc=f"Reading {name}")):
            try:
                clip, seconds = encoded_clip(row["audio"])
            except (OSError, ValueError) as error:
                path = row["audio"] and base_name(row["audio"]["path"])
                broken.append(f"{path or f'clip {index + 1} of {name}'}: {error}")
                continue
            rows.append({column: without_folders(value) for column, value in row.items()} | {"audio": clip})
            size += len(clip["bytes"])
            split.add(clip["bytes"], row["label"], seconds)
            if size >= MAX_SHARD_SIZE:
                shards.append(write_shard(rows, dataset, folder / f"{name}-{len(shards)}"))
                rows, size = [], 0
        if rows or not shards:
            shards.append(write_shard(rows, dataset, folder / f"{name}-{len(shards)}"))
        for i, shard in enumerate(shards):
            shard.rename(folder / f"{name}-{i:05d}-of-{len(shards):05d}.parquet")
        splits[name] = split
    report_broken(broken, splits, skip_broken)
    return splits


def encoded_clip(audio: dict) -> tuple[dict, float]:
    """A clip's file under its name alone, and its length in seconds; raises what `decode_audio` does."""
    seconds = len(decode_audio(audio, SAMPLING_RATE)) / SAMPLING_RATE
    encoded = Path(audio["path"]).read_bytes() if audio["bytes"] is None else audio["bytes"]
    return {"bytes": encoded, "path": base_name(audio["path"])}, seconds


def base_name(path: str | None) -> str | None:
    return path and re.split(r"[/\\]", path)[-1]


def without_folders(value):
    """A string that is an absolute path loses its folders, which concern this machine alone."""
    is_absolute = isinstance(value, str) and re.match(r"/|[A-Za-z]:[/\\]|\\\\", value)
    return base_name(value) if is_absolute else value


def write_shard(rows: list[dict], dataset: Dataset, path: Path) -> Path:
    features = published_features(dataset)
    stored = Features({**features, "audio": {"bytes": Value("binary"), "path": Value("string")}})
    columns = {name: [row[name] for row in rows] for name in features}
    Dataset.from_dict(columns, features=stored).cast_column("audio", Audio()).to_parquet(path)
    return path


def published_features(dataset: Dataset) -> Features:
    return Features({**dataset.features, "audio": Audio()})


def report_broken(broken: list[str], splits: dict[str, Split], skip_broken: bool) -> None:
    if not broken:
        return
    named = "\n".join(broken[:NUM_NAMED] + ["..."] * (len(broken) > NUM_NAMED))
    total = len(broken) + sum(len(split.labels) for split in splits.values())
    found = f"{len(broken)} of {total} clips cannot be decoded:\n{named}"
    if not skip_broken:
        raise SharingError(f"{found}\nMend or remove them, or leave them out by --skip_broken.")
    if not all(split.labels for split in splits.values()):
        raise SharingError(f"{found}\nEach split must keep a clip: correct the source.")
    print(f"Leaves out: {found}")


def dataset_card(splits: dict[str, Split], features: Features, folder: Path, args: argparse.Namespace) -> DatasetCard:
    """What the Hub and `load_dataset` read of the data set, and a description for people."""
    num_clips = sum(len(split.labels) for split in splits.values())
    size = next((name for limit, name in SIZES.items() if num_clips < limit), "n>1M")
    metadata = DatasetCardData(
        license=args.license, task_categories=["audio-classification"], tags=["audio"], size_categories=[size]
    )
    infos = SplitDict()
    for name, split in splits.items():
        infos.add(SplitInfo(name, num_bytes=split.num_bytes, num_examples=len(split.labels)))
    info = DatasetInfo(
        features=features,
        splits=infos,
        download_size=sum(path.stat().st_size for path in folder.iterdir()),
        dataset_size=sum(split.num_bytes for split in splits.values()),
    )
    DatasetInfosDict({"default": info}).to_dataset_card_data(metadata)
    files = [{"split": name, "path": f"data/{name}-*"} for name in splits]
    MetadataConfigs({"default": {"data_files": files}}).to_dataset_card_data(metadata)
    own = Path(args.sources[0]) / "README.md"
    if own.is_file():
        return completed_card(own, metadata)
    names = getattr(features["label"], "feature", features["label"]).names
    return DatasetCard.from_template(
        metadata,
        template_path=str(CARD_TEMPLATE),
        title=plain(args.repo_id.rpartition("/")[2]),
        repository=args.repo_id,
        names=names,
        multi_label=isinstance(features["label"], List),
        splits=splits,
        counts={name: split.counts(len(names)) for name, split in splits.items()},
        columns=[name for name in features if name not in ("audio", "label")],
        code_span=code_span,
    )


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


def compare(splits: dict[str, Split], features: Features, temporary: Path) -> None:
    """Reads the downloaded data set as `load_dataset` does, and compares every clip and label with what went up."""
    downloaded = load_dataset(str(temporary / "downloaded"), cache_dir=str(temporary / "cache"))
    for name, split in splits.items():
        found = Split()
        dataset = downloaded[name].cast_column("audio", Audio(decode=False))
        for row in dataset:
            found.add(row["audio"]["bytes"], row["label"], 0.0)
        same = (downloaded[name].features, found.digests, found.labels) == (features, split.digests, split.labels)
        if not same:
            raise SharingError(f"The split {name} is not what went up. Give the command again.")
