"""Labelled audio: from a folder, from tables, from the Hub, or the embedded spoken digits.

Every source gives a `DatasetDict` of undecoded `audio` and a `label`; `decode_audio` turns one entry into samples.
"""

import logging
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from itertools import chain

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, Value

from ..arguments import option
from .folders import SPLIT_NAMES, concatenated, load_folder, split_named
from .held_out import clip_keys, divide_clips, warn_of_repeated
from .labels import encode_labels
from .own_files import only_own_files
from .sources import (
    TABLE_SUFFIXES,
    SourceArguments,
    draw,
    find_files,
    load_from_hub,
    read_tables,
    undecoded,
    with_absolute_paths,
)
from .spoken_digits import spoken_digits
from .unusable import skip_unusable

logger = logging.getLogger(__name__)

SPLIT_COLUMNS = ("split", "subset", "partition", "set")


@dataclass
class DataArguments(SourceArguments):
    """
    Where the labelled clips come from: `dataset_name`, `data_dir` or `train_file`; with none of them, the embedded
    spoken digits.
    """

    data_dir: str | None = option(
        default=None,
        help="A folder with one sub-folder per class, or with metadata.csv or .jsonl files that name clips and labels "
        "(Hugging Face's audiofolder); train/, validation/ and test/ may stand above either.",
    )
    train_file: list[str] | None = option(
        default=None,
        help="CSV, TSV, JSON, JSON Lines or parquet tables of the training clips, or patterns such as "
        "'shards/*.parquet'. Paths in a table are relative to it.",
    )
    validation_file: list[str] | None = option(default=None, help="Tables of the validation clips.")
    test_file: list[str] | None = option(default=None, help="Tables of the test clips.")
    train_split_name: str = option(default="train", help="The data set's split to train on.")
    validation_split_name: str = option(
        default="validation",
        help="Its split to evaluate on while training; valid, val, dev and eval are found under this name too.",
    )
    test_split_name: str = option(default="test", help="Its split to evaluate on at the end; '' leaves it out.")
    label_column_name: str = option(default="label", help="The column of names, numbers, or lists of them.")
    group_column: str | None = option(
        default=None, help="A column (speaker, fold) whose groups the automatic validation split keeps together."
    )
    multi_label: bool | None = option(
        default=None,
        metadata={"nargs": "?", "const": True},
        help="Let a clip have any number of labels: a list, or names joined by ';' (both are recognised without this "
        "option) or ','. False keeps names with ';' whole.",
    )
    validation_share: float = option(
        default=0.1, help="Validate on this share of the training clips where there is no validation split."
    )
    clips_per_class: int | None = option(
        default=None, help="Train on at most this many clips of each class, drawn at random; by default on all."
    )
    max_eval_samples: int | None = option(
        default=None, help="Validate and test on at most this many clips each, drawn at random; by default on all."
    )

    def __post_init__(self):
        super().__post_init__()
        if self.clips_per_class is not None and self.clips_per_class < 1:
            raise ValueError(f"`clips_per_class` must be at least 1, found: {self.clips_per_class}")
        if (self.validation_file or self.test_file) and not self.train_file:
            raise ValueError("`validation_file` and `test_file` must come with `train_file`, found none: give it too.")
        if not 0 < self.validation_share < 1:
            raise ValueError(f"`validation_share` must lie between 0 and 1, found: {self.validation_share}")


def load_labelled_audio(
    data_args: DataArguments,
    seed: int = 0,
    keep_columns: tuple[str, ...] = (),
    hold_out: bool = True,
    min_classes: int = 2,
) -> DatasetDict:
    """
    Loads labelled clips from the source that `data_args` names, and leaves out those that cannot be used.

    Every clip is decoded once, so that a broken one is named before the training begins.

    Args:
        data_args (`DataArguments`):
            The source and its columns.
        seed (`int`, *optional*, defaults to 0):
            Decides the automatic validation split, the clips that `clips_per_class`, `max_train_samples` and
            `max_eval_samples` keep, and the spoken digits.
        keep_columns (`tuple[str, ...]`, *optional*, defaults to none):
            Further columns to keep, which all splits must have.
        hold_out (`bool`, *optional*, defaults to `True`):
            Whether to draw a validation split from the training clips where there is none.
        min_classes (`int`, *optional*, defaults to 2):
            How many classes there must be where a clip has one label.

    Returns:
        `DatasetDict`: The splits `train`, `validation` and, where there is one, `test`, each with the columns `audio`
        (`Audio(decode=False)`: pass an entry to `decode_audio`) and `label` (`ClassLabel`, or a list of them with
        several labels a clip). The names of the classes are those that the training split declares, else its sorted
        labels.

    Raises:
        `ValueError`: A column, a label, a file or a split is missing or inconsistent, or too many clips are unusable;
            the message says which.
    """
    splits = load_splits(data_args, seed)
    _warn_of_split_columns(splits)
    hold_out = hold_out and "validation" not in splits
    groups = _validation_groups(splits, data_args.group_column) if hold_out else None
    for split, dataset in splits.items():
        _require_columns(dataset, list(keep_columns), split, "the column's name, or leave the split out")
    splits = encode_labels(splits, data_args.multi_label, keep_columns, min_classes)
    keys = {split: clip_keys(dataset) for split, dataset in splits.items()}
    warn_of_repeated(splits, keys)
    rng = np.random.default_rng(seed)
    if hold_out:
        labels = splits["train"]["label"][:]
        train, validation = divide_clips(labels, keys["train"], groups, data_args.validation_share, rng)
        splits["validation"] = splits["train"].select(validation)
        splits["train"] = splits["train"].select(train)
    if data_args.clips_per_class is not None:
        splits["train"] = draw_per_class(splits["train"], data_args.clips_per_class, rng)
    for split, dataset in splits.items():
        limit = data_args.max_train_samples if split == "train" else data_args.max_eval_samples
        splits[split] = draw(dataset, limit, rng)
    splits = {split: splits[split] for split in SPLIT_NAMES if split in splits}
    usable = skip_unusable(splits, data_args.max_unusable_share)
    _check_what_is_left(splits, usable)
    return DatasetDict(usable)


def draw_per_class(dataset: Dataset, limit: int, rng: np.random.Generator) -> Dataset:
    """Draws clips of which each still has a class with fewer than `limit` ones, and keeps their order."""
    labels, drawn = dataset["label"][:], []
    counts: Counter[int] = Counter()
    for index in rng.permutation(len(dataset)).tolist():
        classes = labels[index] if isinstance(labels[index], list) else [labels[index]]
        if any(counts[name] < limit for name in classes):
            counts.update(classes)
            drawn.append(index)
    return dataset.select(sorted(drawn))


def _warn_of_split_columns(splits: dict[str, Dataset]) -> None:
    """Warns of clips whose own row says that they are of another split."""
    for split, dataset in splits.items():
        for column in set(dataset.column_names).intersection(SPLIT_COLUMNS):
            said = Counter(value for value in dataset[column][:] if split_named(str(value)) not in (None, split))
            if said:
                logger.warning(
                    f"The column {column!r} of the {split} split is not read, and says of {said.total()} of "
                    f"{len(dataset)} clips that they are of {sorted(said)}. Put them into tables or folders of their "
                    "own."
                )


def _validation_groups(splits: dict[str, Dataset], column: str | None) -> list[Hashable] | None:
    """The group of each training clip, where a validation split is to be drawn that divides none of them."""
    if column is None:
        return None
    _require_columns(splits["train"], [column], "train", "--group_column")
    feature = splits["train"].features[column]
    if not isinstance(feature, ClassLabel | Value):
        raise ValueError(f"{column!r} must hold one name or number a clip, found {feature}. Set --group_column.")
    return splits["train"][column][:]


def _check_what_is_left(splits: dict[str, Dataset], usable: dict[str, Dataset]) -> None:
    """Refuses a split without clips, and a class that lost all its training clips because they cannot be used."""
    empty = [split for split, dataset in usable.items() if len(dataset) == 0]
    if empty:
        raise ValueError(
            f"Each split must keep a usable clip, found none in {empty}. Correct the clips or add others."
        )
    before, after = (set(_used_labels(dataset["train"])) for dataset in (splits, usable))
    lost = [label_feature(splits["train"])[0].int2str(label) for label in sorted(before - after)]
    if lost:
        raise ValueError(
            f"Each class must keep a usable training clip, found none of {lost}. Correct the clips, add others, or "
            "remove the class."
        )


def _used_labels(dataset: Dataset) -> list[int]:
    """The classes of all clips, one after the other."""
    labels = dataset["label"][:]
    return list(chain(*labels)) if label_feature(dataset)[1] else labels


def label_feature(dataset: Dataset) -> tuple[ClassLabel, bool]:
    """Returns the label names of a data set, and whether a clip may have several."""
    feature = dataset.features["label"]
    return (feature, False) if isinstance(feature, ClassLabel) else (feature.feature, True)


def load_splits(data_args: DataArguments, seed: int) -> dict[str, Dataset]:
    """Loads the source's splits under our names, with `audio`, `label` and whatever other columns there are."""
    if data_args.dataset_name:
        splits = _load_hub(data_args)
    elif data_args.data_dir:
        return load_folder(data_args.data_dir, data_args.label_column_name)
    elif data_args.train_file:
        files = {split: getattr(data_args, f"{split}_file") for split in SPLIT_NAMES}
        splits = {split: _load_tables(paths, data_args) for split, paths in files.items() if paths}
    else:
        return dict(spoken_digits(seed))

    columns = {data_args.audio_column_name: "audio", data_args.label_column_name: "label"}
    for split, dataset in splits.items():
        _require_columns(dataset, list(columns), split, "--audio_column_name and --label_column_name")
        # Columns that are not asked for may already have these names.
        dataset = dataset.remove_columns(list({"audio", "label"} & set(dataset.column_names) - set(columns)))
        dataset = dataset.rename_columns({old: new for old, new in columns.items() if old != new})
        dataset = undecoded(dataset, "audio")
        splits[split] = only_own_files(dataset, "audio", data_args.dataset_name) if data_args.dataset_name else dataset
    return splits


def _require_columns(dataset: Dataset, names: list[str], split: str, option: str):
    missing = [name for name in names if name not in dataset.column_names]
    if missing:
        raise ValueError(
            f"The {split} split must have the columns {missing}, found: {dataset.column_names}. Set {option}."
        )


def _load_hub(data_args: DataArguments) -> dict[str, Dataset]:
    found = load_from_hub(data_args)
    splits = {}
    for split, names in SPLIT_NAMES.items():
        name = getattr(data_args, f"{split}_split_name")
        candidates = names if name == split else (name,)
        present = [candidate for candidate in candidates if candidate in found]
        if present:
            splits[split] = found[present[0]]
        elif split == "train" or (name and name != split):
            raise ValueError(
                f"{data_args.dataset_name} must have the split {name!r}, found: {list(found)}. "
                f"Name the right one with --{split}_split_name."
            )
    return splits


def _load_tables(patterns: list[str], data_args: DataArguments) -> Dataset:
    datasets, column = [], data_args.audio_column_name
    for dataset, folder in read_tables(find_files(patterns, TABLE_SUFFIXES)):
        if column in dataset.column_names:
            dataset = with_absolute_paths(undecoded(dataset, column), column, folder)
        datasets.append(dataset)
    return concatenated(datasets)
