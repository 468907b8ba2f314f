"""Labels of all splits as numbers of the same classes, one or several a clip."""

import logging
import re
import unicodedata
from collections import defaultdict
from itertools import chain
from typing import Any

from datasets import ClassLabel, Dataset, List, Value

from .unusable import MAX_NAMED

logger = logging.getLogger(__name__)

# What no reader sees at the ends of a label: spaces, and signs that join letters, turn them or mark an encoding.
UNSEEN_ENDS = re.compile(r"^[\s\u200b-\u200f\u2060\ufeff]+|[\s\u200b-\u200f\u2060\ufeff]+$")


def encode_labels(
    splits: dict[str, Dataset], multi_label: bool | None, keep_columns: tuple[str, ...], min_classes: int = 2
) -> dict[str, Dataset]:
    """
    Gives all splits the same classes, and drops every column but `audio`, `label` and those to keep.

    Args:
        splits (`dict[str, Dataset]`): Each with the column `label`: names, numbers, or lists of them.
        multi_label (`bool`, *optional*):
            Whether a clip may have any number of labels. By default lists and names joined by ";" say so, the latter
            with a warning.
        keep_columns (`tuple[str, ...]`): Further columns, which all splits have.
        min_classes (`int`, *optional*, defaults to 2): How many classes there must be where a clip has one label.

    Raises:
        `ValueError`: Labels are missing, of no use, or of one split only.
    """
    labels, class_names = {}, {}
    spellings: dict[str, set[str]] = defaultdict(set)
    for split, dataset in splits.items():
        feature = dataset.features["label"]
        labels[split], class_names[split] = _named_labels(feature, dataset["label"][:], split, spellings)
    _warn_of_spellings(spellings)
    labels = _split_joined_labels(labels, class_names, multi_label)
    has_lists = any(isinstance(label, list) for values in labels.values() for label in values)
    if has_lists and multi_label is False:
        raise ValueError("With --multi_label False each clip must have one label, found lists. Leave the option out.")
    multi_label = multi_label or has_lists
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
    if len(names) < (1 if multi_label else min_classes):
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


def with_label_names(dataset: Dataset, column: str, source: str) -> Dataset:
    """
    Makes of a column of labels lists of names, empty where a clip has none or where there is no such column.

    Args:
        dataset (`Dataset`): Clips, of which some may have labels.
        column (`str`): The column of names, lists of them, or several joined by ";".
        source (`str`): Names the clips in errors.
    """
    lists: list[list[str]] = [[]] * len(dataset)
    if column in dataset.column_names:
        spellings: dict[str, set[str]] = defaultdict(set)
        values, declared = _named_labels(dataset.features[column], dataset[column][:], source, spellings)
        _warn_of_spellings(spellings)
        lists = [value if isinstance(value, list) else [value] if value else [] for value in values]
        if declared is None:
            lists = [[part.strip() for name in names for part in name.split(";") if part.strip()] for names in lists]
        dataset = dataset.remove_columns(column)
    return dataset.add_column(column, lists, feature=List(Value("string")))


def _named_labels(
    feature: Any, values: list, split: str, spellings: dict[str, set[str]]
) -> tuple[list, list[str] | None]:
    """
    Each clip's label by name (`None` where it has none) or list of names, and the classes declared, if any.

    Adds to `spellings` how each name is written.
    """
    item = getattr(feature, "feature", feature)  # of a list
    dtype = str(getattr(item, "dtype", item))
    if not dtype.startswith(("string", "large_string", "int", "uint", "bool")):
        raise ValueError(f"Labels must be strings, integers or lists of them, found in the {split} split: {feature}")
    declared = item.names if isinstance(item, ClassLabel) else None

    def name(value):
        if isinstance(value, list):
            return [name(one) for one in value if name(one) is not None]
        if value is None or (declared and value < 0):  # the Hub's -1: not published
            return None
        if declared:
            return declared[value]
        text = unicodedata.normalize("NFC", str(value))  # macOS stores accents in names of files apart
        text = UNSEEN_ENDS.sub("", text)
        spellings[text].add(str(value))
        return text or None

    return [name(value) for value in values], declared


def _warn_of_spellings(spellings: dict[str, set[str]]) -> None:
    """Warns of classes written in several ways: merged where ends or codes differ, apart where the rest does."""
    merged = [ascii(sorted(written)) for text, written in sorted(spellings.items()) if text and len(written) > 1]
    if merged:
        logger.warning(
            "Labels that differ only in spaces at their ends, or in how accents are encoded, are taken for one class: "
            + ", ".join(merged[:MAX_NAMED])
        )
    alike = defaultdict(list)
    for text in sorted(spellings):
        alike[_look(text)].append(text)
    apart = [str(names) for names in alike.values() if len(names) > 1]
    if apart:
        logger.warning(
            "Labels that differ only in case, spaces or signs that look the same stay classes apart: "
            + ", ".join(apart[:MAX_NAMED])
        )


def _look(text: str) -> str:
    """What a reader sees of a label, whatever its case and its spaces."""
    seen = re.sub(r"\s+", " ", unicodedata.normalize("NFKC", text).casefold())
    return "".join(sign for sign in seen if unicodedata.category(sign) not in ("Cf", "Cc"))


def _split_joined_labels(
    labels: dict[str, list], class_names: dict[str, Any], multi_label: bool | None
) -> dict[str, list]:
    """Splits strings such as "dog;cat" into lists, where they are not the declared name of a class."""
    plain = {split: values for split, values in labels.items() if class_names[split] is None}
    joined = [split for split, values in plain.items() if not any(isinstance(label, list) for label in values)]
    values = [label for split in joined for label in labels[split] if label]
    with_semicolon = [label for label in values if ";" in label]
    if multi_label is False:
        return labels
    if with_semicolon:
        delimiter = ";"
        if multi_label is None:
            logger.warning(
                f"{len(with_semicolon)} of {len(values)} labels hold ';', the first {with_semicolon[0]!r}, so that a "
                "clip may have any number of labels. Say so with --multi_label, or keep such names whole with "
                "--multi_label False."
            )
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
