"""Recordings with what is heard in them when: from folders, tables, the Hub, or soundscapes made on the spot.

Every source gives a `DatasetDict` of undecoded `audio` and of `events`, lists of `start`, `end` and `label`.
"""

import logging
import os
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset, DatasetDict

from ..arguments import option
from .annotations import Event, companions, events_feature, is_dcase, read_annotations
from .folders import SPLIT_NAMES, concatenated, split_named
from .held_out import clip_keys, divide_clips
from .labelled import DataArguments, label_feature, load_labelled_audio
from .own_files import only_own_files
from .soundscapes import SoundscapeArguments, make_soundscapes
from .sources import (
    TABLE_SUFFIXES,
    describe_source,
    draw,
    files_below,
    find_files,
    from_files,
    load_from_hub,
    read_tables,
    undecoded,
    warn_of_left_out,
    with_absolute_paths,
)
from .unusable import MAX_NAMED, MIN_SECONDS, UnusableClip, describe, read_usable, refuse_too_many, warn_of_skipped

logger = logging.getLogger(__name__)


@dataclass
class AnnotatedDataArguments(DataArguments):
    """
    Where the annotated recordings come from: `dataset_name`, `data_dir` or `train_file`; with none of them,
    soundscapes of the embedded spoken digits.
    """

    data_dir: str | None = option(
        default=None,
        help="A folder of recordings, each with a file of its name beside it that says what is heard when (Audacity's "
        "label track, Raven's selection table); train/, validation/ and test/ may stand above them.",
    )
    train_file: list[str] | None = option(
        default=None,
        help="DCASE's TSV tables (filename, onset, offset, event_label), or tables with a column of events, of the "
        "training recordings. Paths in a table are relative to it, or to --audio_dir.",
    )
    audio_dir: str | None = option(default=None, help="The folder that the paths in tables are relative to.")
    events_column_name: str = option(
        default="events", help="The column of lists of structs: start, end (in seconds) and label."
    )
    annotation_label_column: str | None = option(
        default=None, help="The column of labels in Raven's tables; by default Annotation, Label, Species or Tag."
    )
    soundscapes: bool = option(
        default=False,
        help="Take the clips of the source, which have a label each as for finetune.py, and make soundscapes of them.",
    )
    weak_labels: bool = option(
        default=False,
        help="Learn from which labels a training recording has, not from when. A source without events must have the "
        "column of labels then.",
    )


def load_annotated_audio(
    data_args: AnnotatedDataArguments, soundscape_args: SoundscapeArguments, seed: int = 0
) -> DatasetDict:
    """
    Loads recordings with their events, or makes soundscapes, and leaves out what cannot be used.

    Every recording is decoded once: events must lie in it.

    Args:
        data_args (`AnnotatedDataArguments`): The source and its columns.
        soundscape_args (`SoundscapeArguments`): How to make soundscapes, where they are made.
        seed (`int`, *optional*, defaults to 0): Decides the automatic validation split and the soundscapes.

    Returns:
        `DatasetDict`: The splits `train`, `validation` and, where there is one, `test`, each with the columns `audio`
        (`Audio(decode=False)`) and `events` (a list of structs of `start`, `end` and `label`, a `ClassLabel`). Of a
        source without events, the column `label`, a list of `ClassLabel`, in place of them.

    Raises:
        `ValueError`: A column, a label, a file or a split is missing, or too many recordings or events are unusable;
            the message says which.
    """
    if data_args.soundscapes or not (data_args.dataset_name or data_args.data_dir or data_args.train_file):
        clips = load_labelled_audio(data_args, seed)
        return make_soundscapes(clips, soundscape_args, seed)
    splits = _load_splits(data_args)
    if splits is None:
        return load_labelled_audio(replace(data_args, multi_label=True), seed)
    rng = np.random.default_rng(seed)
    splits = {split: splits[split] for split in SPLIT_NAMES if split in splits}
    if "train" not in splits:
        raise ValueError(f"There must be recordings to train on, found only {list(splits)}. Add a folder train/.")
    checked = {split: _checked(dataset, split, data_args.max_unusable_share) for split, dataset in splits.items()}
    checked = _encoded(checked)
    if "validation" not in checked:
        labels = [sorted({event["label"] for event in events}) for events in checked["train"]["events"][:]]
        keys = clip_keys(checked["train"])
        train, validation = divide_clips(labels, keys, None, data_args.validation_share, rng)
        checked["validation"] = checked["train"].select(validation)
        checked["train"] = checked["train"].select(train)
    for split, dataset in checked.items():
        limit = data_args.max_train_samples if split == "train" else data_args.max_eval_samples
        checked[split] = draw(dataset, limit, rng)
    return DatasetDict({split: checked[split] for split in SPLIT_NAMES if split in checked})


def label_names(dataset: Dataset) -> list[str]:
    """The names of the labels of a split, of its events or of its clips."""
    if "events" in dataset.features:
        return dataset.features["events"].feature["label"].names
    return label_feature(dataset)[0].names


def describe_annotated(args: AnnotatedDataArguments) -> str:
    """Names the training data, without the folders of this machine."""
    source = describe_source(args)
    made = args.soundscapes or not (args.dataset_name or args.data_dir or args.train_file)
    return f"soundscapes of {source}" if made else source


def _load_splits(args: AnnotatedDataArguments) -> dict[str, Dataset] | None:
    """The splits with `audio` and `events` as they are written; `None` where there are no events, but labels."""
    if args.data_dir:
        return _load_folder(Path(os.path.abspath(args.data_dir)), args)
    if args.train_file:
        files = {split: getattr(args, f"{split}_file") for split in SPLIT_NAMES}
        tables = {split: _load_tables(patterns, args) for split, patterns in files.items() if patterns}
    else:
        found = load_from_hub(args)
        names = {split: getattr(args, f"{split}_split_name") for split in SPLIT_NAMES}
        tables = {split: found[name] for split, name in names.items() if name in found}
    column = args.events_column_name
    without = [split for split, table in tables.items() if column not in table.column_names]
    if without and args.weak_labels:
        return None
    splits = {}
    for split, table in tables.items():
        missing = [name for name in (args.audio_column_name, column) if name not in table.column_names]
        if missing:
            raise ValueError(
                f"The {split} split must have the columns {missing}, found: {table.column_names}. Set "
                "--audio_column_name and --events_column_name, or learn from labels of whole clips with --weak_labels."
            )
        item = getattr(table.features[column], "feature", None)
        if not isinstance(item, dict) or not {"start", "end", "label"} <= set(item):
            raise ValueError(
                f"The column {column!r} of the {split} split must hold lists of structs of start, end, label, found: "
                f"{table.features[column]}. Name another column with --events_column_name."
            )
        table = table.select_columns([args.audio_column_name, column])
        table = table.rename_columns({args.audio_column_name: "audio", column: "events"})
        table = undecoded(table, "audio")
        splits[split] = only_own_files(table, "audio", args.dataset_name) if args.dataset_name else table
    return splits


def _load_tables(patterns: list[str], args: AnnotatedDataArguments) -> Dataset:
    datasets = []
    for path in find_files(patterns, TABLE_SUFFIXES):
        folder = Path(args.audio_dir or path.parent)
        if is_dcase(path):
            events = read_annotations(path)
            dataset = Dataset.from_dict({args.audio_column_name: list(events)})
            dataset = _with_events(
                undecoded(dataset, args.audio_column_name), events.values(), args.events_column_name
            )
        else:
            ((dataset, _),) = read_tables([path])
        if args.audio_column_name in dataset.column_names:
            dataset = undecoded(dataset, args.audio_column_name)
            dataset = with_absolute_paths(dataset, args.audio_column_name, folder)
        datasets.append(dataset)
    return concatenated(datasets)


def _load_folder(folder: Path, args: AnnotatedDataArguments) -> dict[str, Dataset]:
    """Recordings with the annotations beside them, by the split whose folder they lie in."""
    if not folder.is_dir():
        raise ValueError(f"--data_dir must be a folder of recordings and their annotations, found none at {folder}")
    recordings, others = files_below(folder)
    known = set(others)
    found: dict[str, list[tuple[Path, list[Event]]]] = defaultdict(list)
    without, used = [], set()
    for recording in recordings:
        path = next((path for path in companions(recording) if path in known and path.is_file()), None)
        if path is None:
            without.append(recording)
            continue
        used.add(path)
        events = read_annotations(path, args.annotation_label_column)
        own = [event for name, listed in events.items() if name in ("", recording.name) for event in listed]
        split = split_named(recording.relative_to(folder).parts[0]) or "train"
        found[split].append((recording, own))
    warn_of_left_out(
        folder,
        {
            "they have no annotations beside them": without,
            "they are of no recording": sorted(known - used),
        },
    )
    if not found:
        raise ValueError(
            "--data_dir must hold recordings with a file of their name beside them that says what is heard when, such "
            f"as one.txt beside one.wav, found none in {folder}. To make soundscapes of labelled clips, add "
            "--soundscapes."
        )
    return {
        split: _with_events(from_files([path for path, _ in pairs]), [events for _, events in pairs], "events")
        for split, pairs in found.items()
    }


def _with_events(dataset: Dataset, events: Iterable[list[Event]], column: str) -> Dataset:
    rows = [[event._asdict() for event in listed] for listed in events]
    return dataset.add_column(column, rows, feature=events_feature())


def _checked(dataset: Dataset, split: str, max_share: float) -> Dataset:
    """Leaves out recordings that cannot be decoded and events that do not lie in theirs, and counts both."""
    kept, events, refused, num_events = [], [], [], 0
    clipped = merged = 0
    for index, row in enumerate(dataset):
        try:
            samples, rate = read_usable(row["audio"], MIN_SECONDS)
        except UnusableClip as error:
            refused.append(describe(row["audio"], f"clip {index} of {split}", error))
            warn_of_skipped(refused[-1], len(refused))
            continue
        seconds, usable = len(samples) / rate, []
        for event in row["events"] or []:
            num_events += 1
            reason = _why_refused(event, seconds)
            if reason:
                refused.append(describe(row["audio"], f"clip {index} of {split}", ValueError(reason)))
                warn_of_skipped(refused[-1], len(refused))
                continue
            clipped += event["end"] > seconds
            usable.append(event | {"label": str(event["label"]), "end": min(event["end"], seconds)})
        joined = _joined(usable)
        merged += len(usable) - len(joined)
        kept.append(index)
        events.append(joined)
    refuse_too_many(len(refused), len(dataset) + num_events, max_share, refused[:MAX_NAMED])
    for count, what in (
        (clipped, "reach past the end and end with it"),
        (merged, "overlap one of their label and join it"),
    ):
        if count:
            logger.warning(f"Events of the {split} split that {what}: {count} of {num_events}.")
    if not kept:
        raise ValueError(f"Each split must keep a usable recording, found none in {split}. Correct or add some.")
    names = getattr(dataset.features["events"].feature["label"], "names", None)
    result = dataset.select(kept).select_columns("audio")
    if names is not None:
        events = [[event | {"label": names[int(event["label"])]} for event in listed] for listed in events]
    return result.add_column("events", events, feature=events_feature())


def _why_refused(event: dict[str, Any], seconds: float) -> str | None:
    start, end, label = event["start"], event["end"], event["label"]
    if label in (None, ""):
        return f"its event from {start} s to {end} s must have a label, found none"
    if start is None or end is None or not np.isfinite([start, end]).all():
        return f"its event {label!r} must have a start and an end, found {start} and {end}"
    if not 0 <= start < end:
        return f"its event {label!r} must end after its start, which must not be negative, found {start} s to {end} s"
    if start >= seconds:
        return f"its event {label!r} must start before its end at {seconds:.2f} s, found {start} s"
    return None


def _joined(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Joins events of one label that overlap or touch, and sorts all by their start."""
    joined: list[dict[str, Any]] = []
    last: dict[str, dict[str, Any]] = {}
    for event in sorted(events, key=lambda event: event["start"]):
        previous = last.get(event["label"])
        if previous is not None and event["start"] <= previous["end"]:
            previous["end"] = max(previous["end"], event["end"])
        else:
            last[event["label"]] = dict(event)
            joined.append(last[event["label"]])
    return joined


def _encoded(splits: dict[str, Dataset]) -> dict[str, Dataset]:
    """Gives all splits the labels of the training split, by number."""
    used = {
        split: Counter(event["label"] for events in dataset["events"][:] for event in events)
        for split, dataset in splits.items()
    }
    names = sorted(used["train"])
    if not names:
        raise ValueError("The train split must have events, found none. See whether its annotations are read.")
    for split, counts in used.items():
        if unknown := sorted(set(counts) - set(names)):
            raise ValueError(
                f"The {split} split must have only labels of the train split, found also: {unknown}. Correct or "
                "remove them, or add recordings of them to train."
            )
    encoded = {}
    for split, dataset in splits.items():
        rows = [
            [event | {"label": names.index(event["label"])} for event in events] for events in dataset["events"][:]
        ]
        encoded[split] = dataset.remove_columns("events").add_column("events", rows, feature=events_feature(names))
    return encoded
