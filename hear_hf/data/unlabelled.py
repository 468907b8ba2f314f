"""Unlabelled audio for pretraining: from a folder, files, tables or a data set of the Hub, loaded or streamed."""

import json
from collections import Counter
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Dataset, IterableDataset, concatenate_datasets

from ..arguments import option
from .balance import EQUAL, SOURCE_COLUMN, SQRT_DURATION
from .clips import CODES_COLUMN, LABELS_COLUMN, LISTING_COLUMN
from .labels import with_label_names
from .own_files import only_own_files
from .sources import (
    AUDIO_SUFFIXES,
    TABLE_SUFFIXES,
    SourceArguments,
    as_stream,
    column_names,
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
from .spoken_digits import spoken_digits
from .teacher_outputs import OUTPUTS_COLUMN
from .teacher_states import NUM_FRAMES_COLUMN, TEACHER_COLUMN, TeacherStatesArguments

MAX_VALIDATION_CLIPS = 5_000  # of those held out automatically
FILE_SUFFIXES = [*TABLE_SUFFIXES, *AUDIO_SUFFIXES]


@dataclass
class UnlabelledAudioArguments(SourceArguments):
    """
    Where the unlabelled clips come from: `dataset_name`, `data_dir` or `train_file`; with none of them, the embedded
    spoken digits.
    """

    data_dir: str | None = option(
        default=None, help="A folder: every audio file in it and below it, except hidden ones."
    )
    train_file: list[str] | None = option(
        default=None,
        help="Audio files, or CSV, TSV, JSON, JSON Lines or parquet tables of clips, or patterns such as "
        "'shards/*.parquet'. Paths in a table are relative to it.",
    )
    dataset_split_name: str = option(default="train", help="The data set's split to train on.")
    min_length_seconds: float = option(default=0.04, help="Skip shorter clips; the default is two encoder frames.")
    source_column: str | None = option(
        default=None, help="The column that names each clip's source, where sources are to be balanced."
    )

    def further_columns(self) -> dict[str, str]:
        """Columns that are asked for beside the audio, with our names for them."""
        return {self.source_column: SOURCE_COLUMN} if self.source_column else {}


@dataclass
class PretrainingDataArguments(UnlabelledAudioArguments):
    """Where the unlabelled clips come from, which are held out, and how they are cut."""

    validation_file: list[str] | None = option(
        default=None, help="Files of the validation clips, of the kinds that train_file takes."
    )
    validation_share: float = option(
        default=0.02,
        help="Hold out this share of the clips, at least one, where there is no validation_file; 0 holds out none, "
        "and so does a stream.",
    )
    max_eval_samples: int | None = option(
        default=None, help="Validate on at most this many clips, drawn at random; by default on all."
    )
    max_length_seconds: float | None = option(
        default=None, help="Train on a random crop of this length of each longer clip; by default the model's window."
    )
    min_crop_seconds: float | None = option(
        default=None,
        help="Train on crops of a random length, from this to max_length_seconds, so that all kinds of sounds are "
        "heard for a short time too; by default on crops of all of max_length_seconds.",
    )
    streaming: bool = option(default=False, help="Read the training clips as they are needed, in endless passes.")
    shuffle_buffer_size: int = option(default=1_000, help="Clips of a stream that each worker holds to draw from.")
    source_weights: list[str] | None = option(
        default=None,
        help="Draw clips from each source in these shares: `equal`, `sqrt_duration` (by the square root of its "
        "duration), or a number for each. Sources are the entries of train_file or, in the order of their names, the "
        "values of source_column. By default each clip is drawn once in an epoch.",
    )
    clip_weights: str = option(
        default=EQUAL,
        help="Draw the clips of a source alike (`equal`) or by the square root of their duration (`sqrt_duration`), "
        "so that many short clips do not crowd out long ones. Without source_weights all clips are one source.",
    )
    decoded_cache: str | None = option(
        default=None,
        help="Decode each clip once into this folder, which then takes 115 MB per hour at 16 kHz, and read it from "
        "there, in this run and in later ones.",
    )

    def __post_init__(self):
        super().__post_init__()
        if self.streaming and self.decoded_cache is not None:
            raise ValueError("`decoded_cache` must come without `streaming`: a stream may have any size.")
        if self.clip_weights not in (EQUAL, SQRT_DURATION):
            raise ValueError(f"`clip_weights` must be {EQUAL!r} or {SQRT_DURATION!r}, found: {self.clip_weights!r}")
        if (self.source_weights or self.clip_weights != EQUAL) and self.streaming:
            raise ValueError(
                "`source_weights` and `clip_weights` must come without `streaming`: a stream gives its clips as they "
                "lie."
            )
        if self.source_weights and not (self.train_file or self.source_column):
            raise ValueError(
                "`source_weights` must come with several entries of `train_file`, or with a `source_column`, found "
                "neither. Give one of them."
            )
        if not 0 <= self.validation_share < 1:
            raise ValueError(f"`validation_share` must be at least 0 and below 1, found: {self.validation_share}")
        if self.streaming and self.max_train_samples is not None:
            raise ValueError("`max_train_samples` must come without `streaming`: limit a stream with --max_steps.")


@dataclass
class DistillationDataArguments(PretrainingDataArguments):
    """Where the clips of a distillation come from, and the labels of those that have any."""

    label_column_name: str | None = option(
        default=None,
        help="Also learn from this column, where it is not null: names of the teacher's labels, a list of them or "
        "several joined by ';'. By default no labels are read.",
    )
    stored_teachers: bool = option(
        default=False,
        help="Learn from what `precompute_teacher.py --for_distillation` stored in the tables of train_file, without "
        "any teacher.",
    )

    def __post_init__(self):
        super().__post_init__()
        if self.label_column_name and self.streaming:
            raise ValueError("`label_column_name` must come without `streaming`: all labels are checked beforehand.")

    def further_columns(self):
        labels = {self.label_column_name: LABELS_COLUMN} if self.label_column_name else {}
        outputs = {OUTPUTS_COLUMN: OUTPUTS_COLUMN} if self.stored_teachers else {}
        return super().further_columns() | labels | outputs


def load_unlabelled_audio(
    data_args: PretrainingDataArguments, seed: int = 0, teacher_args: TeacherStatesArguments | None = None
) -> tuple[Dataset | IterableDataset, Dataset | None]:
    """
    Loads undecoded clips from the source that `data_args` names.

    Args:
        data_args (`PretrainingDataArguments`): The source and its columns.
        seed (`int`, *optional*, defaults to 0):
            Decides the held-out clips, the clips that `max_train_samples` and `max_eval_samples` keep, and the spoken
            digits.
        teacher_args (`TeacherStatesArguments`, *optional*): Which stored states of a teacher to keep; none by default.

    Returns:
        The training clips, an `IterableDataset` if `streaming`, and the validation clips or `None`. Columns: `audio`
        (pass an entry to `decode_audio`) and, where the source has them, `codes`, `teacher_hidden_states`,
        `num_frames` and, to be balanced, `source`.

    Raises:
        `ValueError`: A file, a column or a row is missing or inconsistent; the message says which.
    """
    has_weighed_files = data_args.source_weights and not data_args.source_column
    load = _load_each_entry if has_weighed_files else _load_source
    train = load(data_args, seed, data_args.streaming, teacher_args)
    validation = None
    if data_args.validation_file:
        validation = _load_files(data_args.validation_file, data_args, False, teacher_args)
    rng = np.random.default_rng(seed)
    if isinstance(train, Dataset):
        if validation is None and data_args.validation_share > 0 and len(train) > 1:
            validation, train = _hold_out(train, data_args.validation_share, rng)
        train = draw(train, data_args.max_train_samples, rng)
    if validation is not None:
        validation = draw(validation, data_args.max_eval_samples, rng)
    return train, validation


def load_whole_source(args: UnlabelledAudioArguments, seed: int = 0) -> Dataset:
    """Loads the undecoded clips of a source, none held out, with the columns `audio` and, if wanted, `source`."""
    clips = draw(_load_source(args, seed), args.max_train_samples, np.random.default_rng(seed))
    return clips.select_columns(["audio"] + [SOURCE_COLUMN] * (SOURCE_COLUMN in clips.column_names))


def _hold_out(dataset: Dataset, share: float, rng: np.random.Generator) -> tuple[Dataset, Dataset]:
    """Divides the clips into held-out and other ones; all listings of a held-out clip leave the others."""
    copies = np.zeros(len(dataset), bool)
    if LISTING_COLUMN in dataset.column_names:
        copies = np.asarray(dataset[LISTING_COLUMN][:]) > 0
    candidates = rng.permutation(np.flatnonzero(~copies))
    held_out = candidates[: min(max(1, round(share * len(candidates))), MAX_VALIDATION_CLIPS)]
    kept = np.ones(len(dataset), bool)
    kept[held_out] = False
    if copies.any():
        paths = pc.struct_field(dataset.data.column("audio"), "path").to_numpy()
        kept &= ~(copies & np.isin(paths, paths[held_out]))
    return dataset.select(np.sort(held_out)), dataset.select(np.flatnonzero(kept))


def _load_source(
    args: UnlabelledAudioArguments,
    seed: int,
    streaming: bool = False,
    teacher_args: TeacherStatesArguments | None = None,
) -> Dataset | IterableDataset:
    if teacher_args is not None and teacher_args.teacher_file:
        _check_teacher_file(args, streaming)
    if args.dataset_name:
        dataset = load_from_hub(args, split=args.dataset_split_name, streaming=streaming)
        clips = _with_our_columns(dataset, args, teacher_args, args.dataset_name)
        return only_own_files(clips, "audio", args.dataset_name)
    if args.data_dir:
        paths, others = files_below(args.data_dir)
        warn_of_left_out(args.data_dir, {"they hold no audio": others})
        if not paths:
            raise ValueError(
                f"--data_dir must be a folder with audio files in or below it, found none in {args.data_dir}"
            )
        return _loose_files(paths, args, streaming)
    if args.train_file:
        if teacher_args is not None and teacher_args.teacher_file:
            return _join(_load_with_teachers(args, teacher_args))
        return _load_files(args.train_file, args, streaming, teacher_args)
    digits = spoken_digits(seed)["train"].select_columns("audio")
    return as_stream(digits) if streaming else digits


def _load_each_entry(
    args: UnlabelledAudioArguments, seed: int, streaming: bool, teacher_args: TeacherStatesArguments | None
) -> Dataset | IterableDataset:
    """Loads the entries of `train_file`, each with its name as the source of its clips."""
    entries = args.train_file or []
    counts = Counter(find_files(entries, FILE_SUFFIXES))
    path, count = max(counts.items(), key=lambda item: item[1])
    if count > 1 or (teacher_args is not None and teacher_args.teacher_file):
        found = f"{path} in {count}" if count > 1 else "`teacher_file`, which belongs to all of them"
        raise ValueError(
            f"Entries of `train_file` with `source_weights` must share nothing, found {found}. Correct them, or name "
            "the sources in a column and give --source_column."
        )
    datasets = []
    for entry in entries:
        dataset: Any = _load_source(replace(args, train_file=[entry]), seed, streaming, teacher_args)
        datasets.append(dataset.add_column(SOURCE_COLUMN, [entry] * len(dataset)))
    return _join(datasets)


def _check_teacher_file(args: UnlabelledAudioArguments, streaming: bool) -> None:
    if not args.train_file:
        raise ValueError("`teacher_file` must come with the `train_file` that it belongs to, found none.")
    if streaming:
        raise ValueError(
            "`teacher_file` must come without `streaming`: put the teacher's column into the tables of train_file."
        )


def _load_files(
    patterns: list[str],
    args: UnlabelledAudioArguments,
    streaming: bool,
    teacher_args: TeacherStatesArguments | None,
) -> Dataset | IterableDataset:
    paths = find_files(patterns, FILE_SUFFIXES)
    if streaming or len(set(paths)) == len(paths):
        return _join(_load_neighbours(paths, args, streaming, teacher_args))
    datasets = []
    for listing, again in enumerate(_listings(paths)):
        for dataset in _load_neighbours(again, args, False, teacher_args):
            datasets.append(dataset.add_column(LISTING_COLUMN, [listing] * len(dataset)))
    return _join(datasets)


def _join(datasets: list[Dataset | IterableDataset]) -> Dataset | IterableDataset:
    columns = [sorted(column_names(dataset)) for dataset in datasets]
    different = next((names for names in columns if names != columns[0]), None)
    if different is not None:
        raise ValueError(
            f"All files must have the same of our columns, found {columns[0]} in some and {different} in others. "
            "Make them equal, or train on one kind."
        )
    return concatenate_datasets(datasets)


def _load_neighbours(
    paths: list[Path],
    args: UnlabelledAudioArguments,
    streaming: bool,
    teacher_args: TeacherStatesArguments | None,
) -> list[Dataset | IterableDataset]:
    """Loads tables and audio files, neighbours of one kind and folder in one call."""
    datasets = []
    for (suffix, _), neighbours in groupby(paths, lambda path: (path.suffix.lower(), path.parent)):
        if suffix in AUDIO_SUFFIXES:
            datasets.append(_loose_files(list(neighbours), args, streaming))
            continue
        for table, folder in read_tables(list(neighbours), streaming):
            clips = _with_our_columns(table, args, teacher_args, f"Tables in {folder}")
            datasets.append(with_absolute_paths(clips, "audio", folder))
    return datasets


def _loose_files(paths: list[Path], args: UnlabelledAudioArguments, streaming: bool) -> Dataset | IterableDataset:
    clips: Any = from_files(paths, streaming)
    has_labels = LABELS_COLUMN in args.further_columns().values()
    return with_label_names(clips, LABELS_COLUMN, "files") if has_labels else clips


def _listings(paths: list[Path]) -> list[list[Path]]:
    """Collects the paths that are listed for the first time, for the second time, and so on."""
    listings: list[list[Path]] = []
    counts: Counter[Path] = Counter()
    for path in paths:
        if counts[path] == len(listings):
            listings.append([])
        listings[counts[path]].append(path)
        counts[path] += 1
    return listings


def _with_our_columns(
    dataset: Dataset | IterableDataset,
    args: UnlabelledAudioArguments,
    teacher_args: TeacherStatesArguments | None,
    source: str,
) -> Dataset | IterableDataset:
    """Keeps `audio`, undecoded, and what belongs to the codes or the teacher, under our names."""
    names = column_names(dataset)
    if args.audio_column_name not in names:
        raise ValueError(
            f"{source} must have the column {args.audio_column_name!r}, found: {names}. Set --audio_column_name."
        )
    if args.source_column and args.source_column not in names:
        raise ValueError(f"{source} must have the column {args.source_column!r}, found: {names}. Set --source_column.")
    ours = {args.audio_column_name: "audio", CODES_COLUMN: CODES_COLUMN, **args.further_columns()}
    if teacher_args is not None:
        ours |= {teacher_args.teacher_column_name: TEACHER_COLUMN, NUM_FRAMES_COLUMN: NUM_FRAMES_COLUMN}
    dataset = undecoded(dataset.select_columns([name for name in ours if name in names]), args.audio_column_name)
    renamed = {old: new for old, new in ours.items() if old in names and old != new}
    dataset = dataset.rename_columns(renamed) if renamed else dataset
    return with_label_names(dataset, LABELS_COLUMN, source) if LABELS_COLUMN in ours.values() else dataset


def _load_with_teachers(args: UnlabelledAudioArguments, teacher_args: TeacherStatesArguments) -> list[Dataset]:
    paths = find_files(args.train_file or [], FILE_SUFFIXES)
    teacher_paths = find_files(teacher_args.teacher_file or [], [".parquet"])
    if len(paths) != len(teacher_paths) or any(path.suffix.lower() not in TABLE_SUFFIXES for path in paths):
        raise ValueError(
            f"`teacher_file` must hold one table for each table of `train_file`, found {len(teacher_paths)} for "
            f"{len(paths)}: {list(map(str, paths[:3]))}. Give as many, in the same order."
        )
    return [_load_with_teacher(*pair, args, teacher_args) for pair in zip(paths, teacher_paths, strict=True)]


def _load_with_teacher(
    path: Path, teacher_path: Path, args: UnlabelledAudioArguments, teacher_args: TeacherStatesArguments
) -> Dataset:
    ((table, folder),) = read_tables([path])
    ((teacher, _),) = read_tables([teacher_path])
    clips, column = _with_our_columns(table, args, None, str(path)), teacher_args.teacher_column_name
    if len(clips) != len(teacher) or column not in teacher.column_names:
        raise ValueError(
            f"{teacher_path} must have the column {column!r} and the {len(clips)} rows of {path}, found: "
            f"{teacher.column_names} and {len(teacher)} rows. Compute the features of that table."
        )
    has_paths = "path" in table.column_names
    paths = table.data.column("path") if has_paths else pc.struct_field(clips.data.column("audio"), "path")
    _check_same_paths(paths, teacher, path, teacher_path)
    kept = {name for name in (column, NUM_FRAMES_COLUMN) if name in teacher.column_names}
    teacher = teacher.select_columns(sorted(kept))
    if column != TEACHER_COLUMN:
        teacher = teacher.rename_column(column, TEACHER_COLUMN)
    return concatenate_datasets([with_absolute_paths(clips, "audio", folder), teacher], axis=1)


def _check_same_paths(clip_paths: pa.ChunkedArray, teacher: Dataset, path: Path, teacher_path: Path) -> None:
    if "path" not in teacher.column_names:
        return
    teacher_paths = teacher.data.column("path").cast(pa.string())
    equal = np.asarray(pc.fill_null(pc.equal(clip_paths.cast(pa.string()), teacher_paths), True))
    if not equal.all():
        row = int(equal.argmin())
        raise ValueError(
            f"{teacher_path} must hold the features of the clips of {path} row by row, found those of "
            f"{teacher_paths[row]} beside {clip_paths[row]} in row {row}. Give the files in the same order."
        )


def teacher_metadata(patterns: list[str]) -> dict[str, Any]:
    """Reads what parquet files say of their teacher or teachers, which must be the same in all of them."""
    found = {}
    for path in find_files(patterns, FILE_SUFFIXES):
        if path.suffix.lower() == ".parquet":
            metadata = pq.read_schema(path).metadata or {}
            found[str(path)] = json.loads(metadata.get(b"teacher", b"{}"))
            found[str(path)].pop("num_clips", None)  # of one pool among several
    different = [path for path in found if found[path] != next(iter(found.values()))]
    if different:
        raise ValueError(
            f"The files must say the same of the teacher in their metadata, found a difference between "
            f"{next(iter(found))} and {different[0]}. Compute the features with one teacher and one scale."
        )
    return next(iter(found.values()), {})
