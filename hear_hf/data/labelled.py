"""Labelled audio: from a folder, from tables, from the Hub, or the embedded spoken digits.

Every source gives a `DatasetDict` of undecoded `audio` and a `label`; `decode_audio` turns one entry into samples.
"""

from collections import Counter, defaultdict
from collections.abc import Hashable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from datasets import ClassLabel, Dataset, DatasetDict, List

from ..arguments import option
from .folders import SPLIT_NAMES, concatenated, load_folder
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
    multi_label: bool = option(
        default=False,
        help="Let a clip have any number of labels: a list, or names joined by ';' (both are recognised without this "
        "option) or ','.",
    )
    validation_share: float = option(
        default=0.1, help="Validate on this share of the training clips where there is no validation split."
    )
    max_eval_samples: int | None = option(
        default=None, help="Validate and test on at most this many clips each, drawn at random; by default on all."
    )

    def __post_init__(self):
        super().__post_init__()
        if (self.validation_file or self.test_file) and not self.train_file:
            raise ValueError("`validation_file` and `test_file` must come with `train_file`, found none: give it too.")
        if not 0 < self.validation_share < 1:
            raise ValueError(f"`validation_share` must lie between 0 and 1, found: {self.validation_share}")


def load_labelled_audio(data_args: DataArguments, seed: int = 0, keep_columns: tuple[str, ...] = ()) -> DatasetDict:
    """
    Loads labelled clips from the source that `data_args` names, and leaves out those that cannot be used.

    Every clip is decoded once, so that a broken one is named before the training begins.

    Args:
        data_args (`DataArguments`):
            The source and its columns.
        seed (`int`, *optional*, defaults to 0):
            Decides the automatic validation split, the clips that `max_train_samples` and `max_eval_samples` keep,
            and the spoken digits.
        keep_columns (`tuple[str, ...]`, *optional*, defaults to none):
            Further columns to keep, which all splits must have.

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
    groups = _validation_groups(splits, data_args.group_column)
    for split, dataset in splits.items():
        _require_columns(dataset, list(keep_columns), split, "the column's name, or leave the split out")
    splits = encode_labels(splits, data_args.multi_label, keep_columns)
    rng = np.random.default_rng(seed)
    if "validation" not in splits:
        train, validation = _split_indices(splits["train"]["label"][:], groups, data_args.validation_share, rng)
        splits["validation"] = splits["train"].select(validation)
        splits["train"] = splits["train"].select(train)
    for split, dataset in splits.items():
        limit = data_args.max_train_samples if split == "train" else data_args.max_eval_samples
        splits[split] = draw(dataset, limit, rng)
    splits = {split: splits[split] for split in SPLIT_NAMES if split in splits}
    usable = skip_unusable(splits, data_args.max_unusable_share)
    _check_what_is_left(splits, usable)
    return DatasetDict(usable)


def _validation_groups(splits: dict[str, Dataset], column: str | None) -> list[Hashable] | None:
    """The group of each training clip, where a validation split is to be drawn that divides none of them."""
    if column is None or "validation" in splits:
        return None
    _require_columns(splits["train"], [column], "train", "--group_column")
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
        splits[split] = undecoded(dataset, "audio")
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


def encode_labels(splits: dict[str, Dataset], multi_label: bool, keep_columns: tuple[str, ...]) -> dict[str, Dataset]:
    """Gives all splits the same classes, and drops every column but `audio`, `label` and those to keep."""
    labels, class_names = {}, {}
    for split, dataset in splits.items():
        labels[split], class_names[split] = _named_labels(dataset.features["label"], dataset["label"][:], split)
    labels = _split_joined_labels(labels, class_names, multi_label)
    multi_label = multi_label or any(isinstance(label, list) for values in labels.values() for label in values)
    for split, values in labels.items():
        if multi_label:
            labels[split] = [[label] if isinstance(label, str) else label or [] for label in values]
        elif None in values:
            raise ValueError(
                f"Each clip must have a label, found {values.count(None)} of {len(values)} in the {split} split "
                "without. Remove them, or leave the split out."
            )

    used = {split: set(chain(*values) if multi_label else values) for split, values in labels.items()}
    names = class_names["train"] or _sorted_names(used["train"])
    if len(names) < (1 if multi_label else 2):
        raise ValueError(f"The train split must have at least two classes, found: {names}")
    for split, found in used.items():
        if found - set(names):
            raise ValueError(
                f"The {split} split must have only labels of the train split, found also: "
                f"{sorted(found - set(names))}. Correct or remove them, or add clips of them to train."
            )

    feature = ClassLabel(names=names)
    for split, values in labels.items():
        if multi_label:
            ids = [[feature.str2int(name) for name in dict.fromkeys(clip)] for clip in values]
        else:
            ids = feature.str2int(values)
        dataset = splits[split].select_columns(["audio", *keep_columns])
        splits[split] = dataset.add_column("label", ids, feature=List(feature) if multi_label else feature)
    return splits


def _named_labels(feature: Any, values: list, split: str) -> tuple[list, list[str] | None]:
    """Each clip's label by name (`None` where it has none) or list of names, and the classes declared, if any."""
    item = getattr(feature, "feature", feature)  # of a list
    dtype = str(getattr(item, "dtype", item))
    if not dtype.startswith(("string", "large_string", "int", "uint", "bool")):
        raise ValueError(f"Labels must be strings, integers or lists of them, found in the {split} split: {feature}")
    declared = item.names if isinstance(item, ClassLabel) else None

    def name(value):
        if isinstance(value, list):
            return [name(one) for one in value if name(one) is not None]
        if value is None or value == "" or (declared and value < 0):  # the Hub's -1: not published
            return None
        return declared[value] if declared else str(value)

    return [name(value) for value in values], declared


def _split_joined_labels(labels: dict[str, list], class_names: dict[str, Any], multi_label: bool) -> dict[str, list]:
    """Splits strings such as "dog;cat" into lists, where they are not the declared name of a class."""
    plain = {split: values for split, values in labels.items() if class_names[split] is None}
    joined = [split for split, values in plain.items() if not any(isinstance(label, list) for label in values)]
    if any(label and ";" in label for split in joined for label in labels[split]):
        delimiter = ";"
    elif multi_label:
        delimiter = ","
    else:
        return labels
    parts = {
        split: [[part.strip() for part in (label or "").split(delimiter) if part.strip()] for label in labels[split]]
        for split in joined
    }
    return labels | parts


def _sorted_names(names: set[str]) -> list[str]:
    try:
        return sorted(names, key=lambda name: (int(name), name))
    except ValueError:
        return sorted(names)


def _split_indices(
    labels: list, groups: list[Hashable] | None, share: float, rng: np.random.Generator
) -> tuple[list[int], list[int]]:
    """
    Draws a validation share: of each class (of a clip's rarest one) without groups, of all clips with them, smallest
    groups first. Every class keeps a clip in train.
    """
    clips = [label if isinstance(label, list) else [label] for label in labels]
    remaining = Counter(chain(*clips))
    units, strata = defaultdict(list), defaultdict(list)
    for index in range(len(clips)):
        units[index if groups is None else groups[index]].append(index)
    for unit in units.values():
        stratum = min(clips[unit[0]], key=remaining.__getitem__, default=None) if groups is None else None
        strata[stratum].append(unit)

    validation = []
    for members in strata.values():
        quota = num_wanted = max(1, round(share * sum(map(len, members))))
        for unit in sorted((members[i] for i in rng.permutation(len(members))), key=len):
            lost = Counter(chain(*(clips[index] for index in unit)))
            fits = num_wanted == quota or len(unit) / 2 < num_wanted
            if fits and all(lost[label] < remaining[label] for label in lost):
                validation += unit
                num_wanted -= len(unit)
                remaining -= lost
    if not validation:
        raise ValueError(
            f"A validation split must leave each class a clip in train, found no way among {len(units)} "
            f"{'clips' if groups is None else 'groups'} to draw one. Add clips or give a validation split."
        )
    return sorted(set(range(len(clips))) - set(validation)), sorted(validation)
