"""Tables of clips in a parquet file: encoded audio and, of each clip, its source, its licence and further texts."""

import hashlib
import io
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile
from datasets import Dataset
from filelock import FileLock, Timeout

from .decoded_cache import digest

CLIPS_PER_ROW_GROUP = 128  # some megabytes, as much as is read at once
FORMATS = {"opus": ("OGG", "OPUS"), "flac": ("FLAC", "PCM_16")}


def encode_clip(samples: np.ndarray, sampling_rate: int, audio_format: str = "opus") -> bytes:
    """
    Encodes a clip as Ogg Opus, which takes some 20 kbit/s at 16 kHz, or as FLAC, four times as large but fast.

    Args:
        samples (`np.ndarray` of shape `(num_samples,)`): Mono, in [-1, 1]; what lies outside is clipped.
        sampling_rate (`int`): In Hz; for Opus 8000, 12,000, 16,000, 24,000 or 48,000.
        audio_format (`str`, *optional*, defaults to `"opus"`): `"opus"` or `"flac"`.
    """
    container, subtype = FORMATS[audio_format]
    buffer = io.BytesIO()
    soundfile.write(buffer, np.clip(samples, -1, 1), sampling_rate, format=container, subtype=subtype)
    return buffer.getvalue()


@contextmanager
def tables_of_one_run(folder: Path, stem: str, num_clips: int, clips_per_file: int) -> Iterator[dict[Path, range]]:
    """
    Keeps other runs out of a folder of tables.

    Args:
        folder (`Path`): Is made if need be.
        stem (`str`): What the names of the tables begin with.
        num_clips (`int`): Clips of all tables.
        clips_per_file (`int`): Clips of each of them but the last.

    Yields:
        The positions of the clips of each table, by its path.

    Raises:
        `ValueError`: Tables of another run are there, or one is at work.
    """
    starts = range(0, num_clips, clips_per_file)
    names = [f"{stem}-{i:05d}-of-{len(starts):05d}.parquet" for i in range(len(starts))]
    folder.mkdir(parents=True, exist_ok=True)
    others = sorted({path.name for path in folder.glob("*.parquet")} - {*names})
    if others:
        raise ValueError(f"{folder} must hold tables of this run alone, found {others[0]}. Give another --output_dir.")
    places = [range(start, min(start + clips_per_file, num_clips)) for start in starts]
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield {folder / name: place for name, place in zip(names, places, strict=True)}
            with suppress(OSError):  # where an open file cannot be removed
                (folder / ".lock").unlink()
    except Timeout as error:
        raise ValueError(f"{folder} must be of one run, found another at work. Wait for its end.") from error


def digest_of(clips: Dataset) -> str:
    """Tells the clips of a table from others: by their bytes, or by path, size and time of change of their files."""
    found = hashlib.sha256()
    for audio in clips["audio"]:
        found.update(digest(audio or {}))
    return found.hexdigest()


class PartialTable:
    """
    A parquet file that takes its name when the context is left without an error; before, it has another.

    Args:
        path (`Path`): The file to write.
        partial (`Path`): Its name until it is whole.
        schema (`pa.Schema`): Its columns.
    """

    def __init__(self, path: Path, partial: Path, schema: pa.Schema):
        self.path, self.partial, self.schema = path, partial, schema

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.writer = pq.ParquetWriter(self.partial, self.schema)
        return self

    def __exit__(self, error_type, error, traceback) -> None:
        if error_type is None:
            self.finish()
        self.writer.close()
        if error_type is None:
            os.replace(self.partial, self.path)
        else:
            self.partial.unlink()

    def finish(self) -> None:
        """Writes what is still held back."""
        raise NotImplementedError


class ClipTable(PartialTable):
    """
    Writes clips into a parquet file as data sets of the Hub have them: `audio`, a struct of `bytes` and `path`, and
    columns of text.

    Args:
        path (`str` or `Path`): The file to write.
        sampling_rate (`int`, *optional*): The clips' rate in Hz, where all have the same.
        text_columns (`tuple[str, ...]`): The columns beside `audio`.
    """

    def __init__(self, path: str | Path, sampling_rate: int | None, text_columns: tuple[str, ...]):
        features: dict[str, dict] = {"audio": {"sampling_rate": sampling_rate, "_type": "Audio"}}
        features |= {name: {"dtype": "string", "_type": "Value"} for name in text_columns}
        audio = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
        schema = pa.schema(
            [("audio", audio), *((name, pa.string()) for name in text_columns)],
            metadata={"huggingface": json.dumps({"info": {"features": features}})},
        )
        super().__init__(Path(path), Path(f"{path}.partial"), schema)
        self.rows: list[dict[str, Any]] = []

    def add(self, encoded: bytes, path: str, **texts: str) -> None:
        """Adds a clip: the bytes of an audio file, the name it would have, and the text of each column."""
        self.rows.append({"audio": {"bytes": encoded, "path": path}, **texts})
        if len(self.rows) == CLIPS_PER_ROW_GROUP:
            self.finish()

    def finish(self) -> None:
        if self.rows:
            self.writer.write_table(pa.Table.from_pylist(self.rows, schema=self.schema))
            self.rows = []
