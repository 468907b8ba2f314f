"""Tables of clips in a parquet file: encoded audio and, of each clip, its source, its licence and further texts."""

import io
import json
import os
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import soundfile

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
