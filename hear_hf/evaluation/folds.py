"""Which clips a probe is trained on, which ones choose its regularisation, and which ones it is scored on."""

from collections.abc import Hashable
from typing import NamedTuple

import numpy as np
from datasets import Dataset, DatasetDict, concatenate_datasets
from sklearn.model_selection import GroupKFold, KFold, LeaveOneGroupOut, StratifiedGroupKFold, StratifiedKFold

from ..data.held_out import clip_keys
from ..data.labelled import label_feature

NUM_TUNING_FOLDS = 3
Division = tuple[np.ndarray, np.ndarray]  # positions of the clips on either side


class Clips(NamedTuple):
    """Clips of all splits: `audio`, and one entry per clip of the rest."""

    audio: Dataset
    splits: np.ndarray  # names
    labels: np.ndarray  # class indices (num_clips,), or 0 and 1 (num_clips, num_labels)
    groups: np.ndarray | None  # values of the fold column
    keys: np.ndarray | None = None  # equal numbers for a clip that is listed again

    @property
    def metric(self) -> str:
        """The name of what a probe is scored by."""
        return "mean_average_precision" if self.labels.ndim == 2 else "accuracy"


class Fold(NamedTuple):
    """Clips to train on, their divisions to choose by (as positions in `train`), and clips to score on."""

    train: np.ndarray
    tuning: list[Division]
    test: np.ndarray


def gather_clips(dataset: DatasetDict, fold_column: str | None = None, num_folds: int | None = None) -> Clips:
    """
    Joins the clips of all splits; with folds of the training clips, those of a test split are left out.

    Args:
        dataset (`DatasetDict`): The splits of `load_labelled_audio`.
        fold_column (`str`, *optional*): The column whose values are the folds; the dataset must have kept it.
        num_folds (`int`, *optional*): How many random folds there will be.

    Raises:
        `ValueError`: The column has a single value.
    """
    has_folds = fold_column is not None or num_folds is not None
    names = [split for split in dataset if not (has_folds and split == "test")]
    audio = concatenate_datasets([dataset[split] for split in names])
    labels, (classes, multi_label) = audio["label"][:], label_feature(audio)
    if multi_label:
        indicators = np.zeros((len(labels), classes.num_classes), dtype=int)
        for row, present in zip(indicators, labels, strict=True):
            row[present] = 1
        labels = indicators
    groups = None if fold_column is None else np.array(audio[fold_column][:])
    if groups is not None and len(set(groups)) < 2:
        raise ValueError(f"The column {fold_column!r} must have at least two values, found: {set(groups)}.")
    splits = np.repeat(names, [len(dataset[split]) for split in names])
    numbers: dict[Hashable, int] = {}
    keys = np.array([numbers.setdefault(key, len(numbers)) for key in clip_keys(audio)])
    return Clips(audio.select_columns("audio"), splits, np.asarray(labels), groups, keys)


def make_folds(clips: Clips, num_folds: int | None, seed: int) -> list[Fold]:
    """Divides clips to train on, to choose by and to score on: once as the splits say, or once per fold."""
    if clips.groups is not None:
        outer = list(LeaveOneGroupOut().split(clips.labels, groups=clips.groups))
    elif num_folds is not None:
        outer = divide(clips.labels, num_folds, seed, clips.keys)
    elif "test" in clips.splits:
        train, test = np.flatnonzero(clips.splits != "test"), np.flatnonzero(clips.splits == "test")
        return [Fold(train, [train_and_validation(clips.splits[train])], test)]
    else:
        outer = [train_and_validation(clips.splits)]
    return [Fold(train, tuning_divisions(clips, train, seed), test) for train, test in outer]


def train_and_validation(splits: np.ndarray) -> Division:
    return np.flatnonzero(splits == "train"), np.flatnonzero(splits == "validation")


def tuning_divisions(clips: Clips, train: np.ndarray, seed: int) -> list[Division]:
    """Divides the training clips of a fold, and keeps each group of them on one side where there are several."""
    groups = None if clips.groups is None else clips.groups[train]
    if groups is None or len(set(groups)) < 2:
        keys = None if clips.keys is None else clips.keys[train]
        return divide(clips.labels[train], NUM_TUNING_FOLDS, seed, keys)
    return list(GroupKFold(min(NUM_TUNING_FOLDS, len(set(groups)))).split(train, groups=groups))


def divide(labels: np.ndarray, num_folds: int, seed: int, keys: np.ndarray | None = None) -> list[Division]:
    """Divides clips into random folds, each with its share of every label where a clip has one; no clip is in two."""
    num_clips = len(labels if keys is None else np.unique(keys))
    if num_clips < num_folds:
        raise ValueError(
            f"Each fold must have a clip, found {num_clips} clips for {num_folds} folds. Add clips, or take fewer "
            "folds."
        )
    can_stratify = labels.ndim == 1 and np.bincount(labels).max() >= num_folds
    if num_clips < len(labels):
        grouped = StratifiedGroupKFold(num_folds, shuffle=True, random_state=seed) if can_stratify else None
        return list((grouped or GroupKFold(num_folds)).split(labels, labels, groups=keys))
    divider = StratifiedKFold if can_stratify else KFold
    return list(divider(num_folds, shuffle=True, random_state=seed).split(labels, labels))
