"""Classifiers of few clips: a linear head on what the frozen model makes of them, learned in seconds.

args = TeachingArguments(model_name_or_path="checkpoints/hear-tiny")
dataset = load_taught_audio(DataArguments(data_dir="my_sounds"), args)
lesson = teach(*load_base(args), dataset, args, ViewArguments())
lesson.model.save_pretrained("runs/my_sounds")
"""

import logging
import os
import warnings
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from datasets import Dataset, DatasetDict, concatenate_datasets
from transformers import AutoConfig, AutoFeatureExtractor, AutoModelForAudioClassification

from .. import HEARFeatureExtractor, HEARForAudioClassification
from ..arguments import option
from ..data.held_out import clip_keys, joined_groups
from ..data.labelled import DataArguments, label_feature, load_labelled_audio
from ..data.unlabelled import UnlabelledAudioArguments, load_whole_source
from ..data.unusable import MAX_UNUSABLE_SHARE
from ..evaluation.folds import Division, divide
from ..evaluation.logistic import (
    DEFAULT_STRENGTH,
    CrossValidation,
    Head,
    Views,
    cross_validate,
    fit_heads,
)
from ..rates import check_rates
from ..sharing.cards import label_names
from .taught_heads import MULTI_LABEL, with_linear_head, with_more_labels
from .views import Reader, ViewArguments, cut_recordings, read_views

logger = logging.getLogger(__name__)


@dataclass
class TeachingArguments:
    """What to teach it to, against what, and where the result goes."""

    model_name_or_path: str = option(help="Teach this HEAR checkpoint: a folder, or a repository of the Hub.")
    model_revision: str = option(default="main", help="The branch, tag or commit of the checkpoint.")
    trust_remote_code: bool = option(default=False, help="Run the code that a checkpoint of the Hub comes with.")
    output_dir: str = option(default="runs/taught", help="Where the model and its report go.")
    keep_labels: bool = option(
        default=False, help="Keep the checkpoint's own labels, and add the new ones beside them."
    )
    unknown: list[str] | None = option(
        default=None,
        help="Folders, audio files or tables of sounds that are none of the labels. Each label is then scored by "
        "itself, and none of them is heard below a score of 0.5.",
    )
    false_alarm_rate: float = option(
        default=0.01, help="Let each label be heard in this share of the unknown windows."
    )
    window_seconds: float = option(
        default=2.0, help="Cut unknown sounds into windows of this length: that in which a stream is heard later."
    )
    max_unknown_windows: int = option(default=2_000, help="Learn from at most this many of them, drawn at random.")
    num_folds: int = option(default=5, help="Cross-validate in this many folds.")
    seed: int = option(default=0, help="Seed of the folds, the views, and whatever is drawn of the data.")

    def __post_init__(self):
        if not 0 < self.false_alarm_rate < 1:
            raise ValueError(f"`false_alarm_rate` must lie between 0 and 1, found: {self.false_alarm_rate}")
        for name, least in (("window_seconds", 0.1), ("max_unknown_windows", 2), ("num_folds", 2)):
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` must be at least {least}, found: {getattr(self, name)}")


class Labelled(NamedTuple):
    """The labels of the clips and windows that are learned from, and which of these belong together.

    `targets` are classes `(num_clips,)`, or 0 and 1 `(num_clips, num_labels)`; `groups` `(num_clips,)` are equal for
    clips that stay on one side of a fold; `unknown` `(num_clips,)` are those of no label on purpose.
    """

    names: list[str]
    targets: np.ndarray
    groups: np.ndarray
    unknown: np.ndarray

    @property
    def strata(self) -> np.ndarray:
        """Of each clip its rarest label, and one number further where it has none: (num_clips,)."""
        if self.targets.ndim == 1:
            return self.targets
        counts = np.where(self.targets, self.targets.sum(0), len(self.targets) + 1)
        return np.where(self.targets.any(1), counts.argmin(1), self.targets.shape[1])


@dataclass
class Lesson:
    """
    What was taught, and how well it is known.

    Args:
        model (`HEARForAudioClassification`): With the labels in its head.
        labelled (`Labelled`): What it learned from.
        strength (`float`): Of the regression.
        validation (`CrossValidation`, *optional*): `None` where there are too few clips.
        thresholds (`np.ndarray` of shape `(num_labels,)`, *optional*): Which logit of the held-out scores became 0.
        test_logits (`np.ndarray`, *optional*): Of the test split, where there is one, by the new labels.
        test_targets (`np.ndarray`, *optional*): Its targets.
    """

    model: HEARForAudioClassification
    labelled: Labelled
    strength: float
    validation: CrossValidation | None = None
    thresholds: np.ndarray | None = None
    test_logits: np.ndarray | None = None
    test_targets: np.ndarray | None = None


def load_taught_audio(data_args: DataArguments, args: TeachingArguments) -> DatasetDict:
    """Loads the clips to teach, as `load_labelled_audio` does, but holds none of them out: `train`, perhaps `test`."""
    keep = () if data_args.group_column is None else (data_args.group_column,)
    dataset = load_labelled_audio(data_args, args.seed, keep, hold_out=False, min_classes=1 if args.unknown else 2)
    train = concatenate_datasets([dataset[split] for split in dataset if split != "test"])
    return DatasetDict({"train": train} | ({"test": dataset["test"]} if "test" in dataset else {}))


def load_unknown(args: TeachingArguments) -> Dataset | None:
    """Loads the recordings of `unknown`, undecoded, where there are to be any."""
    parts = []
    for name in args.unknown or []:
        source: dict[str, Any] = {"data_dir": name} if os.path.isdir(name) else {"train_file": [name]}
        parts.append(load_whole_source(UnlabelledAudioArguments(**source), args.seed))
    return concatenate_datasets(parts) if parts else None


def load_base(args: TeachingArguments) -> tuple[HEARForAudioClassification, HEARFeatureExtractor]:
    """
    Loads the model to teach, with its feature extractor.

    Raises:
        `ValueError`: It is another model, its weights below the head are missing, or its labels cannot be kept.
    """
    name = args.model_name_or_path
    source = {"revision": args.model_revision, "trust_remote_code": args.trust_remote_code}
    config = AutoConfig.from_pretrained(name, **source)
    if config.model_type != "hear":
        raise ValueError(f"`model_name_or_path` must hold a HEAR, found a model of type {config.model_type!r}.")
    model, loading = AutoModelForAudioClassification.from_pretrained(
        name, config=config, output_loading_info=True, **source
    )
    has_head = not any(key.startswith("classifier.") for key in loading["missing_keys"])
    missing = sorted(key for key in loading["missing_keys"] if not key.startswith("classifier."))
    if missing:
        raise ValueError(
            f"{name} must hold the weights of a whole HEAR, found {len(missing)} missing, the first {missing[0]}: "
            "random ones tell no sounds apart. Fine-tune it, or take checkpoints/hear-tiny."
        )
    if args.keep_labels and not (has_head and config.problem_type == MULTI_LABEL):
        found = f"problem_type {config.problem_type!r}" if has_head else "no labels that were trained"
        raise ValueError(
            f"`keep_labels` needs a checkpoint that scores each label by itself ({MULTI_LABEL}), found {found}: a new "
            "label would change scores that sum to 1. Teach all labels at once, or train that checkpoint with "
            "--multi_label or teach it with --unknown."
        )
    feature_extractor = AutoFeatureExtractor.from_pretrained(name, **source)
    check_rates(name, config, feature_extractor)
    return model, feature_extractor


def teach(
    model: HEARForAudioClassification,
    feature_extractor: HEARFeatureExtractor,
    dataset: DatasetDict,
    args: TeachingArguments,
    view_args: ViewArguments,
    unknown: Dataset | None = None,
    data_args: DataArguments | None = None,
) -> Lesson:
    """
    Teaches labels to a model, whose weights below the head stay as they are.

    Args:
        model (`HEARForAudioClassification`): Keeps its weights; the lesson's model is another, on the CPU.
        feature_extractor (`HEARFeatureExtractor`): The model's.
        dataset (`DatasetDict`): The splits `train` and perhaps `test` of `load_taught_audio`.
        args (`TeachingArguments`): What to do with them.
        view_args (`ViewArguments`): How to vary the clips.
        unknown (`Dataset`, *optional*): Recordings of none of the labels, in a column `audio`.
        data_args (`DataArguments`, *optional*): Says which clips form groups, and how many unknown ones may be broken.

    Raises:
        `ValueError`: There are too few clips or labels, or a label exists already.
    """
    if args.keep_labels:
        check_new(label_feature(dataset["train"])[0].names, label_names(model.config))
    reader, rate = Reader(model, feature_extractor), feature_extractor.sampling_rate
    windows: list[np.ndarray] = []
    recordings = np.zeros(0, dtype=int)
    if unknown is not None:
        max_share = MAX_UNUSABLE_SHARE if data_args is None else data_args.max_unusable_share
        windows, recordings = cut_recordings(
            unknown, rate, args.window_seconds, args.max_unknown_windows, max_share, args.seed
        )
    one_by_one = unknown is not None or args.keep_labels
    labelled = gather(dataset["train"], recordings, one_by_one, None if data_args is None else data_args.group_column)
    views = read_views(reader, dataset["train"], view_args, windows, round(args.window_seconds * rate))
    if windows:
        first = int(views.clips[-1]) + 1
        features = np.concatenate([views.features, reader.read(windows)])
        views = Views(features, np.concatenate([views.clips, first + np.arange(len(windows))]))

    divisions = divide_clips(labelled, args.num_folds, args.seed)
    validation = cross_validate(views, labelled.targets, divisions) if divisions else None
    strength = DEFAULT_STRENGTH if validation is None else validation.strength
    (head,) = fit_heads(views.features, labelled.targets[views.clips], views.weights, [strength])
    lesson = Lesson(model, labelled, strength, validation)
    if unknown is not None and validation is None:
        logger.warning("There are too few clips to choose thresholds on held-out ones: scores of 0.5 mean nothing.")
    if unknown is not None and validation is not None:
        warn_of_few(len(windows), args.false_alarm_rate)
        lesson.thresholds = thresholds_at(validation.logits_of_strength[labelled.unknown], args.false_alarm_rate)
        head = Head(head.weight, head.bias - lesson.thresholds)
    if "test" in dataset:
        lesson.test_targets = gather(dataset["test"], recordings[:0], one_by_one, None).targets
        lesson.test_logits = head(read_views(reader, dataset["test"], ViewArguments(num_views=1), [], 0).features)
    lesson.model = with_head(model.cpu(), head, labelled, args, lesson.thresholds is not None)
    return lesson


def check_new(names: list[str], old: list[str]) -> None:
    known = [name for name in names if name in old]
    if known:
        raise ValueError(
            f"With `keep_labels` the labels must be new to the checkpoint, found {known}, which it has already. "
            "Rename them, or leave `keep_labels` out."
        )


def with_head(
    model: HEARForAudioClassification, head: Head, labelled: Labelled, args: TeachingArguments, has_thresholds: bool
) -> HEARForAudioClassification:
    if args.keep_labels:
        taught = with_more_labels(model, head, labelled.names)
    else:
        problem_type = "single_label_classification" if labelled.targets.ndim == 1 else MULTI_LABEL
        taught = with_linear_head(model, head, labelled.names, problem_type)
    if has_thresholds:
        taught.config.false_alarm_rate = args.false_alarm_rate
    return taught


def gather(clips: Dataset, recordings: np.ndarray, one_by_one: bool, group_column: str | None) -> Labelled:
    """
    Lists targets and groups of the clips, and of the windows of unknown recordings behind them.

    Args:
        clips (`Dataset`): With `audio` and `label`.
        recordings (`np.ndarray` of shape `(num_windows,)`): The recording of each unknown window.
        one_by_one (`bool`): Whether each label is scored by itself although a clip has one.
        group_column (`str`, *optional*): The column of groups to keep together, beside clips that are listed again.
    """
    feature, multi_label = label_feature(clips)
    labels = clips["label"][:]
    if multi_label or one_by_one:
        targets = np.zeros((len(clips) + len(recordings), feature.num_classes), dtype=int)
        for row, present in zip(targets, labels, strict=False):
            row[present] = 1
    else:
        targets = np.asarray(labels)
    keys: list[Hashable] = clip_keys(clips)
    groups: list[Hashable] = joined_groups(
        keys, list(range(len(keys))) if group_column is None else clips[group_column][:]
    )
    numbers: dict[Hashable, int] = {}
    groups += [("unknown", number) for number in recordings.tolist()]
    of_clip = np.array([numbers.setdefault(group, len(numbers)) for group in groups])
    unknown = np.arange(len(groups)) >= len(clips)
    return Labelled(feature.names, targets, of_clip, unknown)


def divide_clips(labelled: Labelled, num_folds: int, seed: int) -> list[Division]:
    """
    Divides the clips for cross-validation; none where no label has two.

    Clips of a label that has no other are learned from in every fold, and never scored.
    """
    strata, groups = labelled.strata, labelled.groups
    sizes = Counter(stratum for stratum, _ in {*zip(strata.tolist(), groups.tolist(), strict=True)})
    alone = [stratum for stratum, size in sizes.items() if size == 1]
    scored = np.flatnonzero(~np.isin(strata, alone))
    num_folds = min(num_folds, max((sizes[stratum] for stratum in set(strata[scored].tolist())), default=0))
    named = [labelled.names[stratum] for stratum in alone if stratum < len(labelled.names)]
    if named:
        logger.warning(
            f"Labels of a single clip, or of one group of clips, are taught but cannot be judged: {', '.join(named)}. "
            "Record more."
        )
    if num_folds < 2:
        return []
    everything = np.arange(len(strata))
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "The least populated class")
        divisions = divide(strata[scored], num_folds, seed, groups[scored])
    return [(np.setdiff1d(everything, scored[test]), scored[test]) for _, test in divisions]


def thresholds_at(unknown_logits: np.ndarray, rate: float) -> np.ndarray:
    """
    The logit of each label that this share of the unknown windows reaches at most.

    Args:
        unknown_logits (`np.ndarray` of shape `(num_windows, num_labels)`): Of windows that were not learned from.
        rate (`float`): The share.
    """
    ordered = np.sort(unknown_logits, axis=0)[::-1]
    return np.nextafter(ordered[int(rate * len(ordered))], np.inf)


def warn_of_few(num_windows: int, rate: float) -> None:
    if rate * num_windows < 1:
        logger.warning(
            f"A false-alarm rate of {rate:g} cannot be measured on {num_windows} unknown windows: the thresholds lie "
            f"just above all of them. Give more than {int(1 / rate)}, or raise --false_alarm_rate."
        )
