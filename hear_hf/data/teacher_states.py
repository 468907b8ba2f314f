"""A teacher's hidden states: read from Arrow, checked, cut to a crop, brought to the encoder's frames, standardised.

The targets are the same whether the states were stored or come from a teacher that runs beside the training.

A stored row holds the features of one whole clip, frame after frame and equally spaced: nested lists (num_frames x
hidden_size), or one flat list with the number of frames in the column `num_frames` or the width in the metadata.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from datasets import Dataset, IterableDataset

from ..arguments import option
from ..events import ENCODER_FRAME_SECONDS, FIRST_FRAME_SECONDS

TEACHER_COLUMN = "teacher_hidden_states"
NUM_FRAMES_COLUMN = "num_frames"  # of flat features
NUM_STATISTICS_CLIPS = 2_000


Frames = TypeVar("Frames", np.ndarray, torch.Tensor)  # (num_frames, hidden_size)


@dataclass
class TeacherStatesArguments:
    """Which states of a teacher the clips bring along, and how a teacher's states become targets."""

    teacher_column_name: str = option(
        default=TEACHER_COLUMN, help="The column of the teacher's states, used where there is one."
    )
    teacher_file: list[str] | None = option(
        default=None,
        help="Parquet tables with that column, one for each table of train_file, in the same order and with as many "
        "rows.",
    )
    teacher_frame_seconds: float | None = option(
        default=None,
        help="Time from one stored frame of the teacher to the next; by default what the table's metadata say, else a "
        "clip's duration over its frames.",
    )
    standardize_teacher: bool = option(
        default=True, help="Bring each component of the teacher to mean 0 and deviation 1 over the training clips."
    )
    teacher_whitening: float = option(
        default=1.0,
        help="Divide by the deviation to this power: below 1, components that vary more count for more.",
    )

    def __post_init__(self):
        if not 0 <= self.teacher_whitening <= 1:
            raise ValueError(f"`teacher_whitening` must be between 0 and 1, found: {self.teacher_whitening}")


class TeacherFeatures:
    """
    What the numbers of a teacher mean, and how they become one row for each encoder frame of a crop.

    Args:
        hidden_size (`int`): Width of the teacher's frames.
        frame_seconds (`float`, *optional*):
            Time from one stored frame to the next: frame i covers i to i + 1 times this. Without it, a clip's frames
            share its duration.
        scale (`list[float]` of length `hidden_size`, *optional*): Factor of each component, as of int8 features.

    Attributes `mean` and `std` of shape `(hidden_size,)`: what is subtracted from the scaled components, and what
    these are divided by. Before they are measured, features keep their offset and scale.
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
        """Calls the constructor, with the `hidden_size` of the first row that shows it where none is given."""
        if hidden_size is None:
            rows = dataset
            if isinstance(dataset, Dataset):
                rows = dataset.select_columns(list({TEACHER_COLUMN, NUM_FRAMES_COLUMN} & set(dataset.column_names)))
            hidden_size = next(filter(None, map(_stored_width, rows)), None)
        if hidden_size is None:
            raise ValueError(
                f"{TEACHER_COLUMN!r} must show the width of the teacher's frames, found flat lists or nulls alone. "
                f"Give nested lists, a column {NUM_FRAMES_COLUMN!r}, or `hidden_size` in the table's metadata."
            )
        return cls(hidden_size, **options)

    def standardize(self, dataset: Dataset | IterableDataset, seed: int = 0, whitening: float = 1.0) -> None:
        """Measures the column of at most `NUM_STATISTICS_CLIPS` clips: drawn, or a stream's first."""
        if isinstance(dataset, Dataset):
            drawn = dataset.select(drawn_indices(len(dataset), NUM_STATISTICS_CLIPS, seed))
            rows: Iterable[Any] = (_values(batch[TEACHER_COLUMN]) for batch in _arrow_batches(drawn, 1))
        else:
            rows = (row[TEACHER_COLUMN] or [] for row in dataset.take(NUM_STATISTICS_CLIPS))
        self.measure(self._usable_frames(rows), whitening)

    def measure(self, clips: Iterable[np.ndarray], whitening: float = 1.0) -> None:
        """
        Measures mean and deviation of each component.

        Args:
            clips (`Iterable[np.ndarray]`): The unscaled frames of each clip, `(num_frames, hidden_size)`.
            whitening (`float`, *optional*, defaults to 1.0):
                Divide components by their deviation to this power: 1 makes them equal, 0 only centres them.
        """
        moments = Moments()
        for frames in clips:
            moments.add(frames)
        mean, std = moments.read()
        self.mean, self.std = mean * self.scale, (std * self.scale) ** whitening

    def _usable_frames(self, rows: Iterable[Any]) -> Iterable[np.ndarray]:
        for values in rows:
            try:
                frames = self.frames(np.asarray(values, np.float32))
            except (TypeError, ValueError):  # ragged or too wide; the reader skips this clip too
                continue
            if len(frames) > 0 and np.isfinite(frames).all():
                yield frames

    def frames(self, values: np.ndarray) -> np.ndarray:
        """Shapes the stored numbers of a clip, flat or nested, to `(num_frames, hidden_size)`."""
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
        return self.targets(frames, step, start - first * step, num_frames)

    def targets(self, frames: Frames, step: float, start: float, num_frames: int) -> Frames:
        """
        Brings frames to the times of the encoder's, linearly between the frames' centres, and standardises them.

        Args:
            frames (`np.ndarray` or `torch.Tensor` of shape `(num_teacher_frames, hidden_size)`): Unscaled, float32.
            step (`float`): Time from one frame to the next, in seconds.
            start (`float`): Where the encoder's frames begin, in seconds from the beginning of `frames`.
            num_frames (`int`): Encoder frames.

        Returns:
            `np.ndarray` or `torch.Tensor` of shape `(num_frames, hidden_size)`: float32.
        """
        seconds = start + FIRST_FRAME_SECONDS + ENCODER_FRAME_SECONDS * np.arange(num_frames)
        position = np.clip(seconds / step - 0.5, 0, len(frames) - 1)
        left = np.minimum(position.astype(int), max(len(frames) - 2, 0))
        right = np.minimum(left + 1, len(frames) - 1)
        weight = (position - left).astype(np.float32)[:, None]
        left, right, weight, scale, mean, std = (
            torch.as_tensor(array, device=frames.device) if isinstance(frames, torch.Tensor) else array
            for array in (left, right, weight, self.scale, self.mean, self.std)
        )
        resampled = (1 - weight) * frames[left] + weight * frames[right]
        return (resampled * scale - mean) / std


def drawn_indices(num_clips: int, num_wanted: int, seed: int) -> np.ndarray:
    """Draws clips to measure a teacher on, the same whether its states are stored or computed."""
    return np.sort(np.random.default_rng(seed).permutation(num_clips)[:num_wanted])


def _stored_width(row: dict[str, Any]) -> int | None:
    """Returns the width of the frames in a row of plain lists; `None` where it does not show."""
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
    """Reads the numbers in a table of one row, flat, without a detour through Python lists; `None` for null."""
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
    """Reads the column `num_frames`, 0 where there is none."""
    if NUM_FRAMES_COLUMN not in batch.column_names:
        return np.zeros(num_rows, int)
    return np.asarray(pc.fill_null(batch[NUM_FRAMES_COLUMN], 0)).astype(int)


def _clip_name(batch: pa.Table, row: int) -> str:
    return str((batch["audio"][row].as_py() or {}).get("path"))


class Moments:
    """Mean and standard deviation of each component over all frames, merged clip by clip (Chan et al., 1979)."""

    def __init__(self) -> None:
        self.count, self._mean, self._squares = 0, np.zeros(()), np.zeros(())

    def add(self, frames: np.ndarray) -> None:
        """Adds the frames of a clip, (num_frames, hidden_size), at least one."""
        frames = frames.astype(np.float64)
        total = self.count + len(frames)
        shift = frames.mean(axis=0) - self._mean
        squares = frames.var(axis=0) * len(frames) + shift**2 * self.count * len(frames) / total
        self._mean, self._squares = self._mean + shift * len(frames) / total, self._squares + squares
        self.count = total

    def read(self) -> tuple[np.ndarray, np.ndarray]:
        """Returns mean and deviation in float32; 1 is the deviation of a constant component."""
        if self.count == 0:
            raise ValueError("A teacher must have states of some clips to measure, found none. Compute them anew.")
        std = np.sqrt(self._squares / self.count)
        return self._mean.astype(np.float32), np.where(std > 0, std, 1).astype(np.float32)
