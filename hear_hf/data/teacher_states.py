"""A teacher's hidden states, precomputed: read from Arrow, checked, standardised, cut to a crop and resampled.

A row holds the features of one whole clip, frame after frame and equally spaced: nested lists (num_frames x
hidden_size), or one flat list with the number of frames in the column `num_frames` or the width in the metadata.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset, IterableDataset

TEACHER_COLUMN = "teacher_hidden_states"
NUM_FRAMES_COLUMN = "num_frames"  # of flat features
NUM_STATISTICS_CLIPS = 2_000
ENCODER_FRAME_SECONDS = 0.02
# Frame t spans the spectrogram frames 2t and 2t + 1, which are centred at 20 t ms and 20 t + 10 ms.
FIRST_FRAME_SECONDS = 0.005


class TeacherFeatures:
    """
    What the numbers of a teacher column mean, and how they become one row for each encoder frame of a crop.

    Args:
        hidden_size (`int`): Width of the teacher's frames.
        frame_seconds (`float`, *optional*):
            Time from one frame to the next: frame i covers i to i + 1 times this. Without it, a clip's frames share
            its duration.
        scale (`list[float]` of length `hidden_size`, *optional*): Factor of each component, as of int8 features.

    The attributes `mean` and `std` of shape `(hidden_size,)` are what is taken off the scaled components and what they
    are divided by, once `standardize` has been called; before it, features keep their offset and scale.
    """

    def __init__(self, hidden_size: int, frame_seconds: float | None = None, scale: list[float] | None = None):
        if frame_seconds is not None and not frame_seconds > 0:
            raise ValueError(f"`frame_seconds` must be positive, found: {frame_seconds}")
        self.hidden_size, self.frame_seconds = hidden_size, frame_seconds
        self.scale = np.ones(hidden_size, np.float32) if scale is None else np.asarray(scale, np.float32)
        if self.scale.shape != (hidden_size,):
            raise ValueError(f"`scale` must hold {hidden_size} factors, found: {self.scale.shape}")
        self.mean, self.std = np.zeros(hidden_size, np.float32), np.ones(hidden_size, np.float32)

    @classmethod
    def from_dataset(cls, dataset: Dataset | IterableDataset, hidden_size: int | None = None, **options):
        """As the constructor, with the `hidden_size` of the first row that tells it where none is given."""
        if hidden_size is None:
            rows = dataset
            if isinstance(dataset, Dataset):
                rows = dataset.select_columns(list({TEACHER_COLUMN, NUM_FRAMES_COLUMN} & set(dataset.column_names)))
            hidden_size = next(filter(None, map(_stored_width, rows)), None)
        if hidden_size is None:
            raise ValueError(
                f"{TEACHER_COLUMN!r} must tell the width of the teacher's frames, found flat lists or nulls alone. "
                f"Give nested lists, a column {NUM_FRAMES_COLUMN!r}, or `hidden_size` in the table's metadata."
            )
        return cls(hidden_size, **options)

    def standardize(self, dataset: Dataset | IterableDataset, seed: int = 0, whitening: float = 1.0) -> None:
        """Measures at most `NUM_STATISTICS_CLIPS` clips: drawn, or a stream's first.

        Components are divided by their deviation to the power `whitening`: 1 makes them equal, 0 only centres them.
        """
        if isinstance(dataset, Dataset):
            drawn = np.random.default_rng(seed).permutation(len(dataset))[:NUM_STATISTICS_CLIPS]
            rows = (_values(batch[TEACHER_COLUMN]) for batch in _arrow_batches(dataset.select(np.sort(drawn)), 1))
        else:
            rows = (row[TEACHER_COLUMN] or [] for row in dataset.take(NUM_STATISTICS_CLIPS))
        mean, std = _moments(self._usable_frames(rows))
        self.mean, self.std = mean * self.scale, (std * self.scale) ** whitening

    def _usable_frames(self, rows: Iterable[Any]) -> Iterable[np.ndarray]:
        for values in rows:
            try:
                frames = self.frames(np.asarray(values, np.float32))
            except (TypeError, ValueError):  # ragged or too wide; the reader passes over this clip too
                continue
            if len(frames) > 0 and np.isfinite(frames).all():
                yield frames

    def frames(self, values: np.ndarray) -> np.ndarray:
        """The stored numbers of a clip, flat or nested, as `(num_frames, hidden_size)`."""
        if (values.ndim == 2 and values.shape[1] != self.hidden_size) or values.size % self.hidden_size:
            raise ValueError(f"teacher frames must be {self.hidden_size} wide, found an array of {values.shape}")
        return values.reshape(-1, self.hidden_size)

    def crop(self, frames: np.ndarray, clip_seconds: float, start: float, stop: float, num_frames: int) -> np.ndarray:
        """
        Cuts the frames that overlap a crop and resamples them to the encoder's, linearly between the frames' centres.

        Args:
            frames (`np.ndarray` of shape `(num_teacher_frames, hidden_size)`): As stored, of the whole clip.
            clip_seconds (`float`): Duration of the clip.
            start (`float`), stop (`float`): The crop, in seconds.
            num_frames (`int`): Encoder frames of the crop.

        Returns:
            `np.ndarray` of shape `(num_frames, hidden_size)`: float32, scaled and standardised.

        Raises:
            `ValueError`: The frames end more than one frame before the crop does, or are not finite.
        """
        step = self.frame_seconds or clip_seconds / len(frames)
        if stop > (len(frames) + 1.01) * step:
            raise ValueError(f"the teacher's frames cover {len(frames) * step:.2f} s of the clip's {clip_seconds:.2f}")
        first = min(int(start / step + 1e-6), len(frames) - 1)
        frames = frames[first : max(int(np.ceil(stop / step - 1e-6)), first + 1)].astype(np.float32)
        if not np.isfinite(frames).all():
            raise ValueError("the teacher's features must be finite, found NaN or infinity")
        seconds = start + FIRST_FRAME_SECONDS + ENCODER_FRAME_SECONDS * np.arange(num_frames)
        position = np.clip(seconds / step - 0.5 - first, 0, len(frames) - 1)
        left = np.minimum(position.astype(int), max(len(frames) - 2, 0))
        right = np.minimum(left + 1, len(frames) - 1)
        weight = (position - left).astype(np.float32)[:, None]
        resampled = (1 - weight) * frames[left] + weight * frames[right]
        return (resampled * self.scale - self.mean) / self.std


def _stored_width(row: dict[str, Any]) -> int | None:
    """The width of the frames in a row of plain lists; `None` where it does not tell."""
    values = row[TEACHER_COLUMN]
    if not values or not isinstance(values, list):
        return None
    if isinstance(values[0], list):
        return len(values[0])
    return len(values) // row[NUM_FRAMES_COLUMN] if row.get(NUM_FRAMES_COLUMN) else None


def check_teacher_column(dataset: Dataset, hidden_size: int) -> None:
    """Raises a `ValueError` that names the first row whose features have another width or are not finite."""
    first = 0
    for batch in _arrow_batches(dataset, 1_000):
        column = _storage(batch[TEACHER_COLUMN])
        counts = np.asarray(pc.fill_null(pc.list_value_length(column), 0))  # of frames, or of numbers if flat
        ends = np.cumsum(counts)
        if _is_list(column.type.value_type):
            widths = np.asarray(pc.fill_null(pc.list_value_length(column.flatten()), 0))
            wrong = np.searchsorted(ends, np.flatnonzero(widths != hidden_size), side="right")
            numbers_per_count = hidden_size
        else:
            expected = _num_frames(batch, len(counts)) * hidden_size
            wrong = np.flatnonzero((counts % hidden_size != 0) | ((expected > 0) & (counts != expected)))
            numbers_per_count = 1
        if len(wrong) > 0:
            raise ValueError(
                f"Each row of {TEACHER_COLUMN!r} must hold frames {hidden_size} wide, found another size in row "
                f"{first + wrong[0]} ({_clip_name(batch, int(wrong[0]))}). Compute it anew or set it to null."
            )
        values = _values(batch[TEACHER_COLUMN])
        finite = np.isfinite(values)
        if not finite.all():
            row = int(np.searchsorted(ends, int((~finite).argmax()) // numbers_per_count, side="right"))
            raise ValueError(
                f"Each row of {TEACHER_COLUMN!r} must hold finite numbers, found NaN or infinity in row {first + row} "
                f"({_clip_name(batch, row)}). Compute it anew or set it to null."
            )
        first += len(batch)


def row_values(table: pa.Table, column: str) -> np.ndarray | None:
    """The numbers in a table of one row, flat, without a detour through Python lists; `None` for null."""
    return None if table[column].null_count else _values(table[column])


def _arrow_batches(dataset: Dataset, batch_size: int) -> Iterable[pa.Table]:
    names = [name for name in ("audio", TEACHER_COLUMN, NUM_FRAMES_COLUMN) if name in dataset.column_names]
    return dataset.select_columns(names if batch_size > 1 else [TEACHER_COLUMN]).with_format("arrow").iter(batch_size)


def _storage(column: pa.ChunkedArray) -> pa.Array:
    array = column.chunk(0) if column.num_chunks == 1 else pa.concat_arrays(column.chunks)
    return array.storage if isinstance(array, pa.ExtensionArray) else array  # `Array2D` is an extension of lists


def _is_list(dtype: pa.DataType) -> bool:
    return pa.types.is_list(dtype) or pa.types.is_large_list(dtype) or pa.types.is_fixed_size_list(dtype)


def _values(column: pa.ChunkedArray) -> np.ndarray:
    array = _storage(column)
    while _is_list(array.type):
        array = array.flatten()
    return array.to_numpy(zero_copy_only=False)


def _num_frames(batch: pa.Table, num_rows: int) -> np.ndarray:
    """The column `num_frames`, 0 where there is none."""
    if NUM_FRAMES_COLUMN not in batch.column_names:
        return np.zeros(num_rows, int)
    return np.asarray(pc.fill_null(batch[NUM_FRAMES_COLUMN], 0)).astype(int)


def _clip_name(batch: pa.Table, row: int) -> str:
    return str((batch["audio"][row].as_py() or {}).get("path"))


def _moments(clips: Iterable[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each component over all frames, merged clip by clip (Chan et al., 1979)."""
    count, mean, squares = 0, 0.0, 0.0
    for frames in clips:
        frames = frames.astype(np.float64)
        total = count + len(frames)
        shift = frames.mean(axis=0) - mean
        squares = squares + frames.var(axis=0) * len(frames) + shift**2 * count * len(frames) / total
        mean, count = mean + shift * len(frames) / total, total
    if count == 0:
        raise ValueError(f"The column {TEACHER_COLUMN!r} must hold features, found only null and empty rows.")
    std = np.sqrt(squares / count)
    return mean.astype(np.float32), np.where(std > 0, std, 1).astype(np.float32)
