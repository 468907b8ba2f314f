"""Sources of clips, labelled or not: folders, audio files, tables and data sets of the Hub.

Clips stay encoded: a column of audio holds what `decode_audio` takes, and its paths are absolute.
"""

import codecs
import glob
import logging
import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import soundfile
from datasets import (
    Audio,
    Dataset,
    Features,
    IterableDataset,
    Value,
    concatenate_datasets,
    load_dataset,
)
from datasets.exceptions import DatasetGenerationError

from ..arguments import on_one_line, option
from ..markdown import code_span
from .own_files import load_own, with_nothing_decoded
from .unusable import MAX_NAMED, MAX_UNUSABLE_SHARE, RENAMING

logger = logging.getLogger(__name__)

AUDIO_SUFFIXES = (
    ".wav .wave .bwf .rf64 .w64 .flac .ogg .oga .opus .mp3 .mp2 .aif .aiff .aifc .au .snd .sph .voc .caf "
    ".m4a .mp4 .aac .wma .webm .weba .mka .amr .3gp"
).split()
# What file systems and archives leave behind; so do all names that begin with a dot, such as ._x.wav.
LEFT_BEHIND = {"thumbs.db", "desktop.ini", "__macosx", "@eadir", "$recycle.bin", "system volume information"}
SEPARATORS = {".csv": ",", ".tsv": "\t"}
TABLE_SUFFIXES = [*SEPARATORS, ".json", ".jsonl", ".parquet"]
NUM_PATHS_TRIED = 1_000  # a table may have millions
MAX_FILE_SHARDS = 64  # of loose files as a stream: world sizes and numbers of workers usually divide it


@dataclass
class SourceArguments:
    """Where clips come from: `dataset_name`, `data_dir` or `train_file`; with none of them, the spoken digits."""

    dataset_name: str | None = option(default=None, help="A data set of the Hub, or a local copy of one.")
    dataset_config_name: str | None = option(default=None, help="Its configuration, where it has several.")
    dataset_revision: str | None = option(default=None, help="Its branch, tag or commit on the Hub.")
    data_dir: str | None = option(default=None, help="A folder of audio files.")
    train_file: list[str] | None = option(default=None, help="Files of the training clips.")
    audio_column_name: str = option(default="audio", help="The column of paths, encoded bytes, or structs of both.")
    max_train_samples: int | None = option(
        default=None, help="Train on at most this many clips, drawn at random; by default on all."
    )
    max_unusable_share: float = option(
        default=MAX_UNUSABLE_SHARE,
        help="Fail where more than this share of the clips is broken or too short; fewer are skipped and counted.",
    )

    def __post_init__(self):
        for name in ("train_file", "validation_file", "test_file"):
            if isinstance(getattr(self, name, None), str):
                setattr(self, name, [getattr(self, name)])
        sources = [name for name in ("dataset_name", "data_dir", "train_file") if getattr(self, name)]
        if len(sources) > 1:
            raise ValueError(f"There must be one source of training clips, found: {', '.join(sources)}. Give one.")
        if not 0 <= self.max_unusable_share <= 1:
            raise ValueError(f"`max_unusable_share` must lie between 0 and 1, found: {self.max_unusable_share}")


def describe_source(args: SourceArguments) -> str:
    """Names the training data, without the folders of this machine."""
    if args.dataset_name:
        return code_span(args.dataset_name)
    if args.data_dir:
        return f"the local folder {code_span(Path(args.data_dir).name)}"
    if args.train_file:
        return "the local files " + ", ".join(code_span(Path(file).name) for file in args.train_file)
    return "spoken English digits, synthesised by eSpeak NG; no voice is in two splits"


def hub_datasets(args: SourceArguments) -> list[str] | None:
    """Returns the training data's name on the Hub, where they are from there."""
    if args.dataset_name is None or Path(args.dataset_name).exists():
        return None
    return [args.dataset_name]


def load_from_hub(args: SourceArguments, **options: Any) -> Any:
    """
    Calls `load_own`, and says what to do where the clips are loose files and torchcodec is missing.

    No column is decoded when it is read: an image, say, may be an address that decoding would follow.

    Raises:
        `ValueError`: The data set names tables elsewhere than in itself and on the Hub.
    """
    name, revision = str(args.dataset_name), args.dataset_revision
    try:
        found = load_own(name, args.dataset_config_name, revision=revision, **options)
    except ImportError as error:
        raise ImportError(
            f"{args.dataset_name} is stored as loose audio files, which `datasets` reads only with torchcodec. "
            "Install torchcodec and FFmpeg, or use the Hub's copy: --dataset_revision refs/convert/parquet"
        ) from error
    if isinstance(found, dict):
        return type(found)({split: with_nothing_decoded(dataset) for split, dataset in found.items()})
    return with_nothing_decoded(found)


def find_files(patterns: Iterable[str], suffixes: list[str]) -> list[Path]:
    """
    Finds files by their paths or by glob patterns, in the order given.

    Args:
        patterns (`Iterable[str]`): A path that exists is that file; only others are tried as patterns.
        suffixes (`list[str]`): What the files may end in, in lower case.

    Raises:
        `ValueError`: A pattern leads to no file, or to one of another kind.
    """
    paths: list[Path] = []
    for pattern in patterns:
        found = [pattern] if os.path.isfile(pattern) else sorted(glob.glob(pattern, recursive=True))
        files = [Path(os.path.abspath(path)) for path in found if os.path.isfile(path)]
        wrong = [path for path in files if path.suffix.lower() not in suffixes]
        if wrong or not files:
            raise ValueError(
                f"{pattern!r} must lead to files that end in one of {suffixes}, found: "
                f"{wrong[0] if wrong else 'no file'}. Correct the path or the pattern."
            )
        paths += files
    return paths


def is_visible(name: str) -> bool:
    """Whether a file or a folder of this name was put there by its owner."""
    return not name.startswith(".") and name.lower() not in LEFT_BEHIND


def files_below(folder: str | Path) -> tuple[list[Path], list[Path]]:
    """Lists the audio files in and below a folder, and the others, in order, but no hidden ones and no README.md."""
    audio: list[Path] = []
    others: list[Path] = []
    for parent, subfolders, names in os.walk(os.path.abspath(folder), followlinks=True):
        subfolders[:] = [name for name in subfolders if is_visible(name) and not _leads_back(Path(parent, name))]
        for name in filter(is_visible, names):
            path = Path(parent, name)
            if path.name.lower() != "readme.md":
                (audio if is_audio(path) else others).append(path)
    return sorted(audio), sorted(others)


def _leads_back(path: Path) -> bool:
    """Whether a folder is a link to one that it lies in."""
    return path.is_symlink() and path.parent.resolve().is_relative_to(path.resolve())


def is_audio(path: str | Path) -> bool:
    """Whether a file is audio by its suffix or, of any other suffix, by its content."""
    if os.path.splitext(path)[1].lower() in AUDIO_SUFFIXES:
        return True
    if not os.path.isfile(path):  # a named pipe would wait for its writer
        return False
    try:
        with open(path, "rb") as file:
            return soundfile.info(file).frames > 0
    except (OSError, soundfile.LibsndfileError, TypeError):  # TypeError: raw samples, by their suffix
        return False


def audio_files(folder: str | Path) -> list[Path]:
    """Lists the audio files in and below a folder, in order and without hidden ones."""
    return files_below(folder)[0]


def warn_of_left_out(folder: str | Path, files: dict[str, list[Path]]) -> None:
    """Counts the files of a folder that are not used, by the reason, and names the first few of each."""
    for reason, paths in files.items():
        if paths:
            names = [on_one_line(readable(os.path.relpath(path, folder))) for path in paths[:MAX_NAMED]]
            named = ", ".join(names + ["..."] * (len(paths) > MAX_NAMED))
            logger.warning(f"Left out of {readable(folder)}, as {reason}: {named} ({len(paths)} in all)")


def readable(name: str | Path) -> str:
    """A name with the bytes that are no UTF-8 written as escapes, as they can neither be printed nor stored."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")


def find_audio(names: Iterable[str]) -> list[str]:
    """
    Lists the audio files that paths, folders and glob patterns lead to, in the order given and each once.

    Args:
        names (`Iterable[str]`): A path that exists is that file, whatever it holds. Folders and patterns lead to the
            audio files in and below them, hidden ones apart; a warning counts the other files of folders. A name that
            leads to none stays as it is: reading it says what is wrong.
    """
    found: list[str] = []
    for name in names:
        if os.path.isdir(name):
            below, others = files_below(name)
            warn_of_left_out(name, {"they hold no audio": others})
            matches = [os.path.join(name, path.relative_to(os.path.abspath(name))) for path in below]
        elif os.path.isfile(name):
            matches = [name]
        else:
            matches = [path for path in sorted(glob.glob(name, recursive=True)) if _is_audio_file(path)]
        found += matches or [name]
    return list(dict.fromkeys(found))


def _is_audio_file(path: str) -> bool:
    return os.path.isfile(path) and is_visible(os.path.basename(path)) and is_audio(path)


def from_files(paths: list[Path], streaming: bool = False) -> Dataset | IterableDataset:
    """Makes a data set of audio files, with the column `audio`; raises `ValueError` where a name is no UTF-8."""
    _check_names(paths)
    dataset = undecoded(Dataset.from_dict({"audio": [str(path) for path in paths]}), "audio")
    return as_stream(dataset) if streaming else dataset


def _check_names(paths: list[Path]) -> None:
    wrong = [path for path in paths if readable(path) != str(path)]
    if wrong:
        raise ValueError(
            f"The names of files and folders must be UTF-8, found {len(wrong)} that are not, probably Latin-1, the "
            f"first {readable(wrong[0])}. Rename them, for example with {RENAMING}."
        )


def as_stream(dataset: Dataset) -> IterableDataset:
    """Makes a stream of a data set of small rows."""
    return dataset.to_iterable_dataset(num_shards=min(len(dataset), MAX_FILE_SHARDS))


def draw(dataset: Dataset, limit: int | None, rng: np.random.Generator) -> Dataset:
    """Draws at most `limit` clips, and keeps their order."""
    if limit is None or limit >= len(dataset):
        return dataset
    return dataset.select(np.sort(rng.permutation(len(dataset))[:limit]))


def read_tables(paths: list[Path], streaming: bool = False) -> Iterator[tuple[Dataset | IterableDataset, Path]]:
    """
    Reads tables, neighbours of one folder, kind and header in one call: a set may have thousands of them.

    The columns of CSV and TSV files are text, without missing values: the labels "01" and "none" stay what they are.

    Args:
        paths (`list[Path]`): Files that end in one of `TABLE_SUFFIXES`.
        streaming (`bool`, *optional*, defaults to `False`): Whether to read rows only as they are needed.

    Yields:
        Data sets in the order of the files, each with the folder that its paths are relative to.

    Raises:
        `ValueError`: There are no rows, or text or a name is not in UTF-8; the message names the file.
    """
    _check_names(paths)
    for (folder, suffix, header), neighbours in groupby(paths, _kind):
        settings: dict[str, Any] = {"path": "parquet" if suffix == ".parquet" else "json"}
        if suffix in SEPARATORS:
            features = Features({name: Value("string") for name in header})
            settings = {"path": "csv", "sep": SEPARATORS[suffix], "features": features, "keep_default_na": False}
        yield _read(list(neighbours), streaming, settings), folder


def _kind(path: Path) -> tuple[Path, str, tuple[str, ...]]:
    """The folder and the suffix of a table that has rows, and the columns that a CSV or TSV file names."""
    suffix, num_rows = path.suffix.lower(), 1
    header: tuple[str, ...] = ()
    if suffix != ".parquet":
        _check_encoding(path)
    if suffix in SEPARATORS:
        try:
            first_row = pd.read_csv(path, sep=SEPARATORS[suffix], nrows=1)
        except pd.errors.EmptyDataError as error:
            raise _no_clips(path) from error
        except pd.errors.ParserError as error:
            raise _no_table(path, error) from error
        names = list(first_row.columns)
        if len(names) == 1 and re.search(r"[;\t|]", names[0]):
            raise ValueError(
                f"The columns of {path} must be separated by {SEPARATORS[suffix]!r}, found the only one "
                f"{names[0][:100]!r}. Save it with commas, or with tabs as .tsv."
            )
        header, num_rows = tuple(names), len(first_row)
    elif suffix == ".parquet":
        try:
            num_rows = pq.read_metadata(path).num_rows
        except (OSError, pa.ArrowException) as error:
            raise _no_table(path, error) from error
    if num_rows == 0:
        raise _no_clips(path)
    return path.parent, suffix, header


def _check_encoding(path: Path) -> None:
    """Refuses text in another encoding than UTF-8, which spreadsheets write in many countries."""
    decoder, line = codecs.getincrementaldecoder("utf-8")(), 1
    with open(path, "rb") as file:
        while block := file.read(2**20):
            try:
                decoder.decode(block)
            except UnicodeDecodeError as error:
                line += error.object[: error.start].count(b"\n")
                raise _no_utf8(path, line, error.object) from error
            if b"\0" in block:
                raise _no_utf8(path, line, block)
            line += block.count(b"\n")


def _no_utf8(path: Path, line: int, content: bytes) -> ValueError:
    if content.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        encoding = "UTF-32"
    elif b"\0" in content or content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        encoding = "UTF-16"
    else:  # of these two the latter alone has characters from 0x80 to 0x9f
        encoding = "WINDOWS-1252" if re.search(rb"[\x80-\x9f]", content) else "ISO-8859-1"
    return ValueError(
        f"{path} must be text in UTF-8, found another encoding in line {line}, probably {encoding}. Save it as UTF-8, "
        f"or convert it: iconv -f {encoding} -t UTF-8 {path.name} > utf8_{path.name}"
    )


def _read(paths: list[Path], streaming: bool, settings: dict[str, Any]) -> Dataset | IterableDataset:
    files = [glob.escape(str(path)) for path in paths]  # `load_dataset` takes them for patterns
    try:
        dataset = load_dataset(**settings, data_files=files, split="train", streaming=streaming)
    except DatasetGenerationError as error:  # their columns may differ
        if len(paths) == 1:
            raise _no_table(paths[0], error.__cause__ or error) from error
        return concatenate_datasets([_read([path], streaming, settings) for path in paths])
    except ValueError as error:
        if "no data" not in str(error):  # in an empty JSON file
            raise
        raise _no_clips(paths[0]) from error
    if isinstance(dataset, Dataset) and len(dataset) == 0:
        raise _no_clips(paths[0])
    return dataset


def _no_table(path: Path, error: BaseException) -> ValueError:
    reason = " ".join(str(error).split())[:200]
    return ValueError(f"{path} must be a table that can be read, found: {reason}. Correct it, or write it anew.")


def _no_clips(path: Path) -> ValueError:
    return ValueError(f"{path} must hold clips, found none: fill it or leave it out.")


def column_names(dataset: Dataset | IterableDataset) -> list[str]:
    """Lists the columns of a data set; those of the first row where a stream does not know them."""
    return dataset.column_names or list(next(iter(dataset), {}))


def undecoded(dataset: Dataset | IterableDataset, column: str) -> Dataset | IterableDataset:
    """Casts a column to `Audio(decode=False)`, so that its entries suit `decode_audio`."""
    feature = (dataset.features or {}).get(column)
    if isinstance(dataset, IterableDataset):  # a stream of paths or bytes is left alone: these suit too
        return dataset.cast_column(column, Audio(decode=False)) if isinstance(feature, Audio) else dataset
    if feature == Value("large_string"):  # as pandas writes; `Audio` does not take it
        dataset = dataset.cast_column(column, Value("string"))
    elif not isinstance(feature, Audio | dict) and feature not in (Value("string"), Value("binary")):
        raise ValueError(
            f"{column!r} must hold paths, bytes or structs of both, found {feature}: name another column."
        )
    return dataset.cast_column(column, Audio(decode=False))


def with_absolute_paths(dataset: Dataset | IterableDataset, column: str, folder: Path) -> Dataset | IterableDataset:
    """
    Makes the paths in an undecoded column absolute.

    Args:
        dataset (`Dataset` or `IterableDataset`): Rows of a table.
        column (`str`): Its column of audio; empty paths become null.
        folder (`Path`): What the paths are relative to: the table's own folder.

    Raises:
        `ValueError`: There is no audio, or none of the paths that are tried, at most `NUM_PATHS_TRIED`, leads to a
            file: the table is in the wrong folder. A missing file among others is an unusable clip.
    """
    if isinstance(dataset, IterableDataset):
        return _stream_with_absolute_paths(dataset, column, folder)
    audio = dataset.data.column(column)
    if pc.struct_field(audio, "bytes").null_count == audio.null_count < len(audio):  # what there is, is embedded
        return dataset
    audio = pa.chunked_array([_with_absolute_paths(chunk, folder) for chunk in audio.chunks])
    if audio.null_count == len(audio):
        raise ValueError(f"{column!r} must hold audio, found only empty rows. Name another column.")
    paths = pc.struct_field(audio, "path").filter(pc.struct_field(audio, "bytes").is_null()).drop_null()
    spread = np.linspace(0, max(len(paths) - 1, 0), min(NUM_PATHS_TRIED, len(paths)))
    _check_some_exist((paths[int(index)].as_py() for index in spread), column, folder)
    resolved = undecoded(Dataset.from_dict({column: audio}), column)
    others = dataset.remove_columns(column)
    return concatenate_datasets([resolved, others], axis=1) if others.column_names else resolved


def _with_absolute_paths(chunk: pa.StructArray, folder: Path) -> pa.StructArray:
    encoded = pc.struct_field(chunk, "bytes")
    pairs = zip(encoded.is_null().to_pylist(), pc.struct_field(chunk, "path").to_pylist(), strict=True)
    paths = pa.array([_absolute(path, folder) if is_file else path for is_file, path in pairs], pa.string())
    is_empty = pc.and_(encoded.is_null(), paths.is_null())
    return pa.StructArray.from_arrays([encoded, paths], ["bytes", "path"], mask=is_empty)


def _absolute(path: str | None, folder: Path) -> str | None:
    """An absolute path, with its accents as the file's name has them: macOS stores them apart."""
    if not path or path.isascii() or os.path.exists(folder / path):
        return str(folder / path) if path else None
    spellings = [str(folder / unicodedata.normalize(form, path)) for form in ("NFC", "NFD")]
    return next(filter(os.path.exists, spellings), str(folder / path))


def _check_some_exist(paths: Iterable[str], column: str, folder: Path) -> None:
    tried = []
    for path in paths:
        if os.path.isfile(path):
            return
        tried.append(path)
    if tried:
        windows = " Write / in place of \\." if "\\" in tried[0] and os.sep == "/" else ""
        raise ValueError(
            f"The paths in {column!r} must lead to files, absolute or from {folder}, found no file; {len(tried)} were "
            f"tried, the first {tried[0]}. Move the table beside its audio or correct the paths.{windows}"
        )


def _stream_with_absolute_paths(dataset: IterableDataset, column: str, folder: Path) -> IterableDataset:
    first = next(iter(dataset), None)
    if first is None:
        raise ValueError(f"Tables in {folder} must hold clips, found none: fill them or leave them out.")
    if _is_embedded(first[column]):
        return dataset
    resolved = dataset.map(partial(_row_with_absolute_path, column=column, folder=folder))
    entries = (row[column] for row in resolved.take(NUM_PATHS_TRIED))
    _check_some_exist((audio["path"] for audio in entries if audio and not _is_embedded(audio)), column, folder)
    return resolved


def _row_with_absolute_path(row: dict[str, Any], column: str, folder: Path) -> dict[str, Any]:
    audio = row[column]
    if _is_embedded(audio):
        return row
    path = _absolute(audio.get("path") if isinstance(audio, dict) else audio, folder)
    return {**row, column: None if path is None else {"bytes": None, "path": path}}


def _is_embedded(audio: Any) -> bool:
    return isinstance(audio, bytes) or (isinstance(audio, dict) and audio.get("bytes") is not None)
