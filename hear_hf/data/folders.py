"""Folders of labelled clips: one sub-folder per class, or Hugging Face's audiofolder with its metadata files.

Either may lie in folders named after their splits.
"""

import logging
import os
from collections import defaultdict
from itertools import chain
from pathlib import Path

import pyarrow.compute as pc
from datasets import Dataset, concatenate_datasets

from .sources import (
    files_below,
    from_files,
    is_visible,
    read_tables,
    undecoded,
    warn_of_left_out,
    with_absolute_paths,
)
from .unusable import MAX_NAMED

logger = logging.getLogger(__name__)

SPLIT_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev", "eval"),
    "test": ("test", "testing"),
}
METADATA_NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
FILE_NAME_COLUMN = "file_name"


def split_named(name: str) -> str | None:
    """The split that a folder or a table of this name is, in any letters; `None` for any other name."""
    return next((split for split, names in SPLIT_NAMES.items() if name.lower() in names), None)


def load_folder(folder: str | Path, label_column: str) -> dict[str, Dataset]:
    """
    Loads a folder of labelled clips, and warns of the files in it that are left out.

    Args:
        folder (`str` or `Path`):
            Holds `metadata.csv`, `.jsonl` or `.parquet` at any depth, whose rows are the clips; without them one
            sub-folder per class, with its clips at any depth. `train/`, `validation/` and `test/`, of any case, are
            splits.
        label_column (`str`): The column of labels in the metadata; `file_name` is that of the paths.

    Returns:
        `dict[str, Dataset]`: The splits, with `audio`, `label` and the further columns of the metadata.

    Raises:
        `ValueError`: There are no labels, or folders and splits contradict each other; the message names the folder.
    """
    folder = Path(os.path.abspath(folder))
    if not folder.is_dir():
        raise ValueError(f"--data_dir must be a folder with one sub-folder per class, found none at {folder}")
    recordings, others = files_below(folder)
    metadata = [path for path in others if path.name.lower() in METADATA_NAMES and path.is_file()]
    tables = _labelled_tables(metadata, label_column)
    if tables:
        splits = _load_metadata(folder, tables, label_column)
    else:
        parts = _split_folders(folder)
        splits = {
            split: _load_class_folders(part, recordings, metadata, label_column) for split, part in parts.items()
        }
    clips = chain.from_iterable(dataset["audio"] for dataset in splits.values())
    listed = {os.path.normpath(audio["path"]) for audio in clips if audio}
    unlisted = [path for path in recordings if str(path) not in listed]
    why_unlisted = "no row of the metadata lists them" if tables else "they lie in no class folder"
    others = [path for path in others if path not in metadata]
    warn_of_left_out(folder, {"they hold no audio": others, why_unlisted: unlisted})
    return splits


def _labelled_tables(metadata: list[Path], label_column: str) -> list[tuple[Dataset, Path]]:
    """The metadata files that give clips and labels, each with its folder."""
    tables, folders = [], set()
    for path in metadata:
        ((table, folder),) = read_tables([path])
        if {FILE_NAME_COLUMN, label_column} <= set(table.column_names):
            if folder in folders:
                raise ValueError(
                    f"A folder must hold one file of metadata, found several in {folder}. Remove the others."
                )
            folders.add(folder)
            tables.append((table, folder))
    return tables


def _load_metadata(folder: Path, tables: list[tuple[Dataset, Path]], label_column: str) -> dict[str, Dataset]:
    parts = defaultdict(list)
    for table, beside in tables:
        table = table.remove_columns(list({"audio", "label"} & set(table.column_names) - {label_column}))
        table = with_absolute_paths(undecoded(table, FILE_NAME_COLUMN), FILE_NAME_COLUMN, beside)
        names = {FILE_NAME_COLUMN: "audio", label_column: "label"}
        table = table.rename_columns({old: new for old, new in names.items() if old != new})
        for split, rows in _rows_of_splits(table, folder).items():
            parts[split].append(table.select(rows))
    if "train" not in parts:
        raise ValueError(f"{folder} must hold clips to train on, in train/, found only: {sorted(parts)}. Rename one.")
    return {split: concatenated(parts[split]) for split in SPLIT_NAMES if split in parts}


def _rows_of_splits(table: Dataset, folder: Path) -> dict[str, list[int]]:
    """The rows of each split, which is the first folder on their path that is named like one, else train."""
    rows: dict[str, list[int]] = defaultdict(list)
    unnamed: list[int] = []
    for row, path in enumerate(pc.struct_field(table.data.column("audio"), "path").to_pylist()):
        parents = Path(os.path.relpath(path, folder)).parts[:-1] if path else ()
        split = next(filter(None, map(split_named, parents)), None)
        (unnamed if split is None else rows[split]).append(row)
    if rows and unnamed:
        path = table[unnamed[0]]["audio"]["path"]
        raise ValueError(
            f"All clips of a metadata file must lie in split folders such as train/ and test/, or none, found "
            f"{len(unnamed)} outside, the first {path}. Move them."
        )
    return rows or {"train": unnamed}


def concatenated(datasets: list[Dataset]) -> Dataset:
    """Joins the tables of a split, which must have the same columns."""
    for dataset in datasets:
        if dataset.features != datasets[0].features:
            raise ValueError(
                f"The tables of a split must have the same columns, found: {datasets[0].features} and "
                f"{dataset.features}. Make them equal."
            )
    return concatenate_datasets(datasets)


def _split_folders(folder: Path) -> dict[str, Path]:
    """The folder of each split; the whole folder as train where it has none."""
    subfolders = _subfolders(folder)
    named = {path: split_named(path.name) for path in subfolders}
    # A class may be called "train": beside other classes, and without folders inside.
    are_splits = named and all(named.values())
    if not are_splits and not any(split == "train" and _subfolders(path) for path, split in named.items()):
        return {"train": folder}
    splits: dict[str, Path] = {}
    for path, split in named.items():
        if split is None or split in splits:
            raise ValueError(
                f"Beside train/, {folder} must hold only validation/ (or one of {SPLIT_NAMES['validation'][1:]}) and "
                f"test/, found: {[path.name for path in subfolders]}. Move or rename {path.name}/."
            )
        splits[split] = path
    if "train" not in splits:
        raise ValueError(
            f"{folder} must hold train/ beside its other splits, found: {[path.name for path in subfolders]}. Add or "
            "rename one; a class cannot be called like a split."
        )
    return {split: splits[split] for split in SPLIT_NAMES if split in splits}


def _subfolders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and is_visible(path.name))


def _load_class_folders(folder: Path, recordings: list[Path], metadata: list[Path], label_column: str) -> Dataset:
    classes: dict[Path, list[Path]] = {path: [] for path in _subfolders(folder)}
    for path in recordings:
        if path.is_relative_to(folder) and path.parent != folder:
            classes[folder / path.relative_to(folder).parts[0]].append(path)
    if not classes:
        raise ValueError(
            f"{folder} must hold one sub-folder of audio files per class, or a metadata.csv with the columns "
            f"{FILE_NAME_COLUMN!r} and {label_column!r} (another name: --label_column_name), found no sub-folder"
            f"{_columns_of(metadata)}."
        )
    for class_folder, clips in classes.items():
        inner = [path.name for path in _subfolders(class_folder) if split_named(path.name)]
        if inner:
            raise ValueError(
                f"Splits must be folders above the classes, found {inner} in {class_folder}. Move them to "
                f"{folder}, or name {class_folder} as --data_dir."
            )
        if not clips:
            raise ValueError(
                f"Each class folder must hold audio files, found none in {class_folder}. Add clips or remove it."
            )
    _warn_of_equal_folders(list(classes))
    labels = [class_folder.name for class_folder, clips in classes.items() for _ in clips]
    return from_files(list(chain(*classes.values()))).add_column("label", labels)


def _warn_of_equal_folders(class_folders: list[Path]) -> None:
    """Warns where the folders inside may be the classes, and those above them splits of other names."""
    inner = [[path.name for path in _subfolders(class_folder)] for class_folder in class_folders]
    if len(inner) > 1 and len(inner[0]) > 1 and all(names == inner[0] for names in inner):
        logger.warning(
            f"The classes are {[path.name for path in class_folders][:MAX_NAMED]}, and each has the folders "
            f"{inner[0][:MAX_NAMED]}. If those are the classes, call the folders above them train/, validation/ and "
            "test/."
        )


def _columns_of(metadata: list[Path]) -> str:
    if not metadata:
        return ""
    ((table, _),) = read_tables(metadata[:1])
    return f", and {metadata[0]} with the columns {table.column_names}"
