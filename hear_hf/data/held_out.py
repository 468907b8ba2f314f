"""Clips that are held out of training for validation, none of which is trained on as well."""

import logging
import os
from collections import Counter, defaultdict
from collections.abc import Hashable
from itertools import chain

import numpy as np
from datasets import Dataset

logger = logging.getLogger(__name__)


def clip_keys(dataset: Dataset) -> list[Hashable]:
    """Tells the clips of an undecoded column `audio` apart: by their paths, and their bytes where these are stored."""
    keys: list[Hashable] = []
    for index, row in enumerate(dataset.select_columns("audio")):
        audio = row["audio"] or {"path": None, "bytes": None}
        path = audio["path"] and os.path.realpath(audio["path"])
        keys.append((path, hash(audio["bytes"])) if path or audio["bytes"] else index)
    return keys


def warn_of_repeated(splits: dict[str, Dataset], keys: dict[str, list[Hashable]]) -> None:
    """Warns of clips that are listed several times in the training split, or in another split too."""
    rows = defaultdict(list)
    for index, key in enumerate(keys["train"]):
        rows[key].append(index)
    repeated = [indices for indices in rows.values() if len(indices) > 1]
    if repeated:
        labels = splits["train"]["label"][:]
        contradict = sum(any(labels[index] != labels[indices[0]] for index in indices) for indices in repeated)
        logger.warning(
            f"Clips of the train split that are listed several times: {len(repeated)}, of them with different labels: "
            f"{contradict}. The first is {_name(splits['train'], repeated[0][0])}."
        )
    for split in [split for split in keys if split != "train"]:
        shared = [index for index, key in enumerate(keys[split]) if key in rows]
        if shared:
            logger.warning(
                f"Clips of the {split} split that are in train too: {len(shared)} of {len(keys[split])}. Scores on "
                f"them say nothing of unknown clips. The first is {_name(splits[split], shared[0])}."
            )


def _name(dataset: Dataset, index: int) -> str:
    return (dataset[index]["audio"] or {}).get("path") or f"clip {index}"


def divide_clips(
    labels: list, keys: list[Hashable], groups: list[Hashable] | None, share: float, rng: np.random.Generator
) -> tuple[list[int], list[int]]:
    """
    Draws a validation share: of each class (of a clip's rarest one) without groups, of all clips with them, smallest
    groups first. Every class keeps a clip in train.

    Args:
        labels (`list`): Of each row its class, or a list of them.
        keys (`list[Hashable]`): Of each row what tells its clip from others: a clip listed again is not divided.
        groups (`list[Hashable]`, *optional*): Of each row its group, none of which is divided.
        share (`float`): The share of the rows to hold out.
        rng (`np.random.Generator`): Decides which.

    Returns:
        The indices of the rows to train on, and of those to validate on.

    Raises:
        `ValueError`: Nothing can be held out.
    """
    clips = [label if isinstance(label, list) else [label] for label in labels]
    unit_of = joined_groups(keys, list(range(len(keys))) if groups is None else groups)
    remaining = Counter(chain(*clips))
    units, strata = defaultdict(list), defaultdict(list)
    for index in range(len(clips)):
        units[unit_of[index]].append(index)
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


def joined_groups(keys: list[Hashable], groups: list[Hashable]) -> list[Hashable]:
    """Groups, joined where the same clip is in several of them."""
    merged = {group: group for group in groups}
    of_clip: dict[Hashable, Hashable] = {}

    def root(group: Hashable) -> Hashable:
        while merged[group] != group:
            group = merged[group]
        return group

    for key, group in zip(keys, groups, strict=True):
        merged[root(group)] = root(of_clip.setdefault(key, group))
    return [root(group) for group in groups]
