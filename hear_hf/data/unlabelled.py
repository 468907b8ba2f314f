"""Unlabelled audio for pretraining: from a folder, files, tables or a dataset of the Hub, loaded or streamed."""

import glob
import json
import os
from collections import Counter
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from datasets import Audio, Dataset, IterableDataset, concatenate_datasets, load_dataset
from datasets.exceptions import DatasetGenerationError

from ..arguments import option
from .clips import CODES_COLUMN, LISTING_COLUMN, ClipReader, PretrainingClips, StreamedClips
from .labelled import AUDIO_SUFFIXES, load_from_hub, undecoded
from .spoken_digits import spoken_digits
from .teacher_states import NUM_FRAMES_COLUMN, TEACHER_COLUMN, TeacherFeatures

TABLE_READERS = {
    ".csv": {"path": "csv"},
    ".tsv": {"path": "csv", "sep": "\t"},
    ".json": {"path": "json"},
    ".jsonl": {"path": "json"},
    ".parquet": {"path": "parquet"},
}
MAX_VALIDATION_CLIPS = 5_000  # of those held out automatically
MAX_FILE_SHARDS = 64  # of loose files as a stream: world sizes and numbers of workers usually divide it
NUM_PATHS_TRIED = 1_000


@dataclass
class PretrainingDataArguments:
    """
    Where the unlabelled clips come from: `dataset_name`, `data_dir` or `train_file`; with none of them, the embedded
    spoken digits.
    """

    dataset_name: str | None = option(default=None, help="A dataset of the Hub, or a local copy of one.")
    dataset_config_name: str | None = option(default=None, help="Its configuration, where it has several.")
    dataset_revision: str | None = option(default=None, help="Its branch, tag or commit on the Hub.")
    dataset_split_name: str = option(default="train", help="Its split to train on.")
    data_dir: str | None = option(
        default=None, help="A folder: every audio file in it and below it, hidden ones excepted."
    )
    train_file: list[str] | None = option(
        default=None,
        help="Audio files, or CSV, TSV, JSON, JSON Lines or parquet tables of clips; patterns such as "
        "'shards/*.parquet' too. Paths in a table are relative to it.",
    )
    validation_file: list[str] | None = option(default=None, help="The same for the validation clips.")
    validation_share: float = option(
        default=0.02,
        help="The share of the clips to hold out, at least one, where there is no validation_file; 0 is none. A "
        "stream holds out none.",
    )
    audio_column_name: str = option(default="audio", help="The column of paths, encoded bytes, or structs of both.")
    teacher_column_name: str = option(
        default=TEACHER_COLUMN, help="The column of the teacher's features, used where there is one."
    )
    teacher_file: list[str] | None = option(
        default=None,
        help="Parquet tables with that column, one for each table of train_file, in the same order and with as many "
        "rows.",
    )
    teacher_frame_seconds: float | None = option(
        default=None,
        help="Time from one frame of the teacher to the next; by default what the table's metadata say, else a "
        "clip's duration over its frames.",
    )
    standardize_teacher: bool = option(
        default=True, help="Bring each component of the teacher to mean 0 and deviation 1 over the training clips."
    )
    teacher_whitening: float = option(
        default=1.0,
        help="Divide by the deviation to this power: below 1, components that vary more count for more.",
    )
    streaming: bool = option(default=False, help="Read the training clips as they are needed, in endless passes.")
    shuffle_buffer_size: int = option(default=1_000, help="Clips of a stream that each worker holds to draw from.")
    max_length_seconds: float | None = option(
        default=None, help="Train on a random crop of this length of each longer clip; by default the model's window."
    )
    min_length_seconds: float = option(default=0.04, help="Pass over shorter clips: two encoder frames.")
    max_train_samples: int | None = option(default=None, help="Train on at most so many clips, drawn at random.")
    max_eval_samples: int | None = option(default=None, help="Validate on at most so many clips, drawn at random.")

    def __post_init__(self):
        sources = [name for name in ("dataset_name", "data_dir", "train_file") if getattr(self, name)]
        if len(sources) > 1:
            raise ValueError(f"There must be one source of training clips, found: {', '.join(sources)}. Give one.")
        if self.teacher_file and not self.train_file:
            raise ValueError("`teacher_file` must come with the `train_file` that it belongs to, found none.")
        if not 0 <= self.validation_share < 1:
            raise ValueError(f"`validation_share` must be at least 0 and below 1, found: {self.validation_share}")
        if not 0 <= self.teacher_whitening <= 1:
            raise ValueError(f"`teacher_whitening` must be between 0 and 1, found: {self.teacher_whitening}")
        if self.streaming and self.teacher_file:
            raise ValueError(
                "`teacher_file` must come without `streaming`: put the teacher's column into the tables of train_file."
            )
        if self.streaming and self.max_train_samples is not None:
            raise ValueError("`max_train_samples` must come without `streaming`: limit a stream with --max_steps.")


def load_pretraining_clips(
    data_args: PretrainingDataArguments,
    sampling_rate: int,
    max_length_seconds: float,
    seed: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> tuple[PretrainingClips | StreamedClips, PretrainingClips | None]:
    """
    Loads the clips that `data_args` names, ready for a DataLoader.

    Args:
        data_args (`PretrainingDataArguments`): The source and its columns.
        sampling_rate (`int`): The rate to decode to, in Hz.
        max_length_seconds (`float`): Length of the crops where `data_args` says nothing: the model's window.
        seed (`int`, *optional*, defaults to 0): Decides the held-out clips, their order, and all draws.
        rank (`int`, *optional*, defaults to 0), world_size (`int`, *optional*, defaults to 1):
            This process and their number; only a stream needs them.

    Returns:
        The training clips, and the validation clips or `None`. Their `teacher` is `None` without teacher features.

    Raises:
        `ValueError`: A file, a column or a row is missing or inconsistent; the message says which.
    """
    train, validation = load_unlabelled_audio(data_args, seed)
    teacher = None
    if TEACHER_COLUMN in _column_names(train):
        metadata = _teacher_metadata(data_args)
        if data_args.teacher_frame_seconds is not None:
            metadata["frame_seconds"] = data_args.teacher_frame_seconds
        teacher = TeacherFeatures.from_dataset(train, **metadata)
    length = max_length_seconds if data_args.max_length_seconds is None else data_args.max_length_seconds
    reader = ClipReader(sampling_rate, length, data_args.min_length_seconds, seed, teacher=teacher)
    if isinstance(train, IterableDataset):
        clips = StreamedClips(train, reader, data_args.shuffle_buffer_size, rank, world_size)
    else:
        clips = PretrainingClips(train, reader)
    if teacher is not None and data_args.standardize_teacher:
        teacher.standardize(train, seed, data_args.teacher_whitening)  # after the column was checked
    return clips, None if validation is None else PretrainingClips(validation, reader, training=False)


def load_unlabelled_audio(
    data_args: PretrainingDataArguments, seed: int = 0
) -> tuple[Dataset | IterableDataset, Dataset | None]:
    """
    Loads undecoded clips from the source that `data_args` names.

    Args:
        data_args (`PretrainingDataArguments`): The source and its columns.
        seed (`int`, *optional*, defaults to 0):
            Decides the held-out clips, the clips that `max_train_samples` and `max_eval_samples` keep, and the spoken
            digits.

    Returns:
        The training clips, an `IterableDataset` if `streaming`, and the validation clips or `None`. Columns: `audio`
        (pass an entry to `decode_audio`) and, where the source has them, `teacher_hidden_states`, `num_frames` and
        `codes`.

    Raises:
        `ValueError`: A file, a column or a row is missing or inconsistent; the message says which.
    """
    train = _load_training_clips(data_args, seed)
    validation = None
    if data_args.validation_file:
        validation = _load_files(data_args.validation_file, data_args)
    rng = np.random.default_rng(seed)
    if isinstance(train, Dataset):
        if validation is None and data_args.validation_share > 0 and len(train) > 1:
            validation, train = _hold_out(train, data_args.validation_share, rng)
        train = _draw(train, data_args.max_train_samples, rng)
    if validation is not None:
        validation = _draw(validation, data_args.max_eval_samples, rng)
    return train, validation


def _hold_out(dataset: Dataset, share: float, rng: np.random.Generator) -> tuple[Dataset, Dataset]:
    """The clips held out and the others; of files listed several times, no copy of a clip held out is left."""
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


def _draw(dataset: Dataset, limit: int | None, rng: np.random.Generator) -> Dataset:
    if limit is None or limit >= len(dataset):
        return dataset
    return dataset.select(np.sort(rng.permutation(len(dataset))[:limit]))


def _load_training_clips(data_args: PretrainingDataArguments, seed: int) -> Dataset | IterableDataset:
    streaming = data_args.streaming
    if data_args.dataset_name:
        name, config, revision = data_args.dataset_name, data_args.dataset_config_name, data_args.dataset_revision
        dataset = load_from_hub(name, config, revision, split=data_args.dataset_split_name, streaming=streaming)
        return _with_our_columns(dataset, data_args, name)
    if data_args.data_dir:
        return _from_paths(_audio_files_below(data_args.data_dir), streaming)
    if data_args.train_file:
        return _load_files(data_args.train_file, data_args, streaming, data_args.teacher_file)
    digits = spoken_digits(seed)["train"].select_columns("audio")
    return _as_stream(digits) if streaming else digits


def _audio_files_below(folder: str) -> list[Path]:
    found = []
    for parent, subfolders, names in os.walk(folder):
        subfolders[:] = [name for name in subfolders if not name.startswith(".")]
        found += [Path(parent, name) for name in names if not name.startswith(".")]
    found = sorted(path for path in found if path.suffix.lower() in AUDIO_SUFFIXES)
    if not found:
        raise ValueError(f"--data_dir must be a folder with audio files in or below it, found none in {folder}")
    return found


def _from_paths(paths: list[Path], streaming: bool) -> Dataset | IterableDataset:
    dataset = Dataset.from_dict({"audio": [str(path) for path in paths]}).cast_column("audio", Audio(decode=False))
    return _as_stream(dataset) if streaming else dataset


def _as_stream(dataset: Dataset) -> IterableDataset:
    return dataset.to_iterable_dataset(num_shards=min(len(dataset), MAX_FILE_SHARDS))


def _load_files(
    patterns: list[str],
    data_args: PretrainingDataArguments,
    streaming: bool = False,
    teacher_patterns: list[str] | None = None,
) -> Dataset | IterableDataset:
    paths = _expand(patterns, [*TABLE_READERS, *AUDIO_SUFFIXES])
    if teacher_patterns:
        datasets = _load_with_teachers(paths, _expand(teacher_patterns, [".parquet"]), data_args)
    elif streaming or len(set(paths)) == len(paths):
        datasets = _load_neighbours(paths, data_args, streaming)
    else:
        datasets = []
        for listing, again in enumerate(_listings(paths)):
            for dataset in _load_neighbours(again, data_args):
                datasets.append(dataset.add_column(LISTING_COLUMN, [listing] * len(dataset)))
    columns = [sorted(_column_names(dataset)) for dataset in datasets]
    different = next((names for names in columns if names != columns[0]), None)
    if different is not None:
        raise ValueError(
            f"All files must have the same of our columns, found {columns[0]} in some and {different} in others. "
            "Make them equal, or train on one kind."
        )
    return concatenate_datasets(datasets)


def _load_neighbours(
    paths: list[Path], data_args: PretrainingDataArguments, streaming: bool = False
) -> list[Dataset | IterableDataset]:
    """Neighbours of one kind and folder in one call: a set may have thousands of shards."""
    datasets = []
    for (suffix, folder), group in groupby(paths, lambda path: (path.suffix.lower(), path.parent)):
        if suffix in TABLE_READERS:
            datasets.append(_resolve_paths(_load_tables(list(group), data_args, streaming), folder))
        else:
            datasets.append(_from_paths(list(group), streaming))
    return datasets


def _listings(paths: list[Path]) -> list[list[Path]]:
    """The paths when they are first listed, when they are listed for the second time, and so on."""
    listings: list[list[Path]] = []
    counts: Counter[Path] = Counter()
    for path in paths:
        if counts[path] == len(listings):
            listings.append([])
        listings[counts[path]].append(path)
        counts[path] += 1
    return listings


def _expand(patterns: list[str], suffixes: list[str]) -> list[Path]:
    paths = []
    for pattern in patterns:
        found = [pattern] if os.path.isfile(pattern) else sorted(glob.glob(pattern, recursive=True))
        found = [Path(path) for path in found if os.path.isfile(path)]
        wrong = [path for path in found if path.suffix.lower() not in suffixes]
        if wrong or not found:
            raise ValueError(
                f"{pattern!r} must lead to files that end in one of {suffixes}, found: "
                f"{wrong[0] if wrong else 'no file'}. Correct the path or the pattern."
            )
        paths += found
    return paths


def _load_tables(paths: list[Path], data_args: PretrainingDataArguments, streaming: bool) -> Dataset | IterableDataset:
    files = [str(path) for path in paths]
    reader = TABLE_READERS[paths[0].suffix.lower()]
    try:
        dataset = load_dataset(**reader, data_files=files, split="train", streaming=streaming)
    except DatasetGenerationError:  # their other columns may differ
        if len(paths) == 1:
            raise
        return concatenate_datasets([_load_tables([path], data_args, streaming) for path in paths])
    return _with_our_columns(dataset, data_args, files[0])


def _with_our_columns(
    dataset: Dataset | IterableDataset, data_args: PretrainingDataArguments, source: str
) -> Dataset | IterableDataset:
    """Only `audio`, undecoded, and what belongs to the teacher or the codes, under our names."""
    names = _column_names(dataset)
    if not names or (isinstance(dataset, Dataset) and len(dataset) == 0):
        raise ValueError(f"{source} must hold clips, found none: fill it or leave it out.")
    if data_args.audio_column_name not in names:
        raise ValueError(
            f"{source} must have the column {data_args.audio_column_name!r}, found: {names}. Set --audio_column_name."
        )
    ours = {
        data_args.audio_column_name: "audio",
        data_args.teacher_column_name: TEACHER_COLUMN,
        NUM_FRAMES_COLUMN: NUM_FRAMES_COLUMN,
        CODES_COLUMN: CODES_COLUMN,
    }
    dataset = dataset.select_columns([name for name in ours if name in names])
    if isinstance(dataset, Dataset):
        dataset = undecoded(dataset, data_args.audio_column_name)
    elif isinstance((dataset.features or {}).get(data_args.audio_column_name), Audio):  # else as the file has it
        dataset = dataset.cast_column(data_args.audio_column_name, Audio(decode=False))
    renamed = {old: new for old, new in ours.items() if old in names and old != new}
    return dataset.rename_columns(renamed) if renamed else dataset


def _column_names(dataset: Dataset | IterableDataset) -> list[str]:
    """Of a stream that does not tell, those of its first row."""
    return dataset.column_names or list(next(iter(dataset), {}))


def _resolve_paths(dataset: Dataset | IterableDataset, folder: Path) -> Dataset | IterableDataset:
    """Makes the paths of clips that are not embedded absolute."""
    if isinstance(dataset, IterableDataset):
        if _embedded(next(iter(dataset))["audio"]):
            return dataset
        return dataset.map(partial(_with_absolute_path, folder=folder))
    column = dataset.data.column("audio")
    if pc.struct_field(column, "bytes").null_count == column.null_count:
        return dataset
    clips = [_absolute(clip, folder) for clip in column.to_pylist()]
    paths = [clip["path"] for clip in clips if clip is not None and not _embedded(clip)]
    if not any(os.path.isfile(path) for path in paths[:NUM_PATHS_TRIED]):
        raise ValueError(
            f"The paths in a table must lead to files, absolute or from {folder.resolve()}, found none at the first, "
            f"{paths[0]}. Move the table beside its audio or correct the paths."
        )
    resolved = undecoded(Dataset.from_dict({"audio": clips}), "audio")
    others = [name for name in dataset.column_names if name != "audio"]
    return concatenate_datasets([resolved, dataset.select_columns(others)], axis=1) if others else resolved


def _embedded(audio: Any) -> bool:
    return isinstance(audio, bytes) or (isinstance(audio, dict) and audio.get("bytes") is not None)


def _absolute(audio: Any, folder: Path) -> Any:
    path = audio.get("path") if isinstance(audio, dict) else audio
    return audio if _embedded(audio) or path is None else {"bytes": None, "path": str(folder / path)}


def _with_absolute_path(row: dict[str, Any], folder: Path) -> dict[str, Any]:
    return {**row, "audio": _absolute(row["audio"], folder)}


def _load_with_teachers(
    paths: list[Path], teacher_paths: list[Path], data_args: PretrainingDataArguments
) -> list[Dataset]:
    if len(paths) != len(teacher_paths) or any(path.suffix.lower() not in TABLE_READERS for path in paths):
        raise ValueError(
            f"`teacher_file` must hold one table for each table of `train_file`, found {len(teacher_paths)} for "
            f"{len(paths)}: {list(map(str, paths[:3]))}. Give as many, in the same order."
        )
    return [_load_with_teacher(*pair, data_args) for pair in zip(paths, teacher_paths, strict=True)]


def _load_with_teacher(path: Path, teacher_path: Path, data_args: PretrainingDataArguments) -> Dataset:
    table = load_dataset(**TABLE_READERS[path.suffix.lower()], data_files=str(path), split="train")
    clips = _with_our_columns(table, data_args, str(path))
    teacher = load_dataset("parquet", data_files=str(teacher_path), split="train")
    column = data_args.teacher_column_name
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
    clips = clips.remove_columns(list({TEACHER_COLUMN, NUM_FRAMES_COLUMN} & set(clips.column_names)))
    return concatenate_datasets([_resolve_paths(clips, path.parent), teacher], axis=1)


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


def _teacher_metadata(data_args: PretrainingDataArguments) -> dict[str, Any]:
    """What the parquet files tell of the teacher: any of `hidden_size`, `frame_seconds` and `scale`."""
    patterns = data_args.teacher_file or data_args.train_file or []
    found = {}
    for path in _expand(patterns, [*TABLE_READERS, *AUDIO_SUFFIXES]):
        if path.suffix.lower() == ".parquet":
            metadata = pq.read_schema(path).metadata or {}
            found[str(path)] = json.loads(metadata.get(b"teacher", b"{}"))
    first = next(iter(found), None)
    for path, metadata in found.items():
        if metadata != found[first]:
            raise ValueError(
                f"The files must say the same of the teacher in their metadata, found a difference between {first} "
                f"and {path}. Compute the features with one teacher and one scale."
            )
    known = ("hidden_size", "frame_seconds", "scale")
    return {name: value for name, value in found.get(first, {}).items() if name in known}
