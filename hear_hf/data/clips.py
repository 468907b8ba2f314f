"""Clips for the two stages of pretraining: decoded, cut to the window, with the teacher's features or codes.

All that is random in an item follows from the seed, the epoch and the clip's own bytes or path, never from a global
generator: any number of processes and workers, and a run that resumes, see the same crops and masks. Unusable clips
are found as they are read, for there may be millions.
"""

import itertools
import zlib
from collections.abc import Iterable, Iterator
from typing import Any

import fsspec
import numpy as np
import torch
from datasets import Dataset, IterableDataset, List, Value
from datasets.distributed import split_dataset_by_node
from torch.utils.data import get_worker_info

from ..spectrogram_hear import num_encoder_frames
from .augmentation import at_speed
from .balance import SourceBalance
from .decoded_cache import DecodedCache, as_float
from .decoding import read_duration
from .teacher_outputs import OUTPUTS_COLUMN, Outputs, crop_outputs, read_outputs
from .teacher_states import TEACHER_COLUMN, TeacherFeatures, check_teacher_column, drawn_indices, row_values
from .unusable import MAX_UNUSABLE_SHARE, UnusableClip, decode_usable, describe, refuse_too_many, warn_of_skipped

CODES_COLUMN = "codes"
LABELS_COLUMN = "labels"
LISTING_COLUMN = "listing"
# So many clips must be read before their unusable share counts, and so many in a row may be unusable.
MIN_CLIPS_READ, MAX_IN_A_ROW = 1_000, 100
MIN_CLIPS_READ_OF_STREAM, MAX_IN_A_ROW_OF_STREAM = 10_000, 1_000  # a whole shard may be broken
MAX_WORKERS = 1_024


class ClipReader:
    """
    Turns a row of a dataset into a training example.

    Args:
        sampling_rate (`int`): The rate to decode to, in Hz.
        max_length_seconds (`float`, *optional*): Cut a crop of this length out of each longer clip, at random.
        min_crop_seconds (`float`, *optional*):
            Cut crops of a random length, between this and `max_length_seconds`, out of the clips that are longer.
        min_length_seconds (`float`, *optional*, defaults to 0.04): Shorter clips are unusable: two encoder frames.
        seed (`int`, *optional*, defaults to 0): The seed of all draws.
        align_samples (`int`, *optional*):
            Crops start at a multiple of this, a multiple of 20 ms where there are codes; 20 ms by default.
        teacher (`TeacherFeatures`, *optional*): How to read the column `teacher_hidden_states`.
        cache (`DecodedCache`, *optional*): Where clips may lie decoded, at the same rate.
        random_speed (`float`, *optional*, defaults to 0):
            Play each crop faster or slower by up to this share, which neither codes nor stored outputs follow.
    """

    def __init__(
        self,
        sampling_rate: int,
        max_length_seconds: float | None = None,
        min_length_seconds: float = 0.04,
        seed: int = 0,
        align_samples: int | None = None,
        teacher: TeacherFeatures | None = None,
        cache: DecodedCache | None = None,
        min_crop_seconds: float | None = None,
        random_speed: float = 0.0,
    ):
        if max_length_seconds is not None and max_length_seconds < min_length_seconds:
            raise ValueError(
                f"`max_length_seconds` must be at least `min_length_seconds`, found: {max_length_seconds} < "
                f"{min_length_seconds}"
            )
        self.sampling_rate, self.hop_length = sampling_rate, sampling_rate // 100
        self.max_samples = None if max_length_seconds is None else round(max_length_seconds * sampling_rate)
        if min_crop_seconds is not None and not min_length_seconds <= min_crop_seconds <= (max_length_seconds or 0):
            raise ValueError(
                f"`min_crop_seconds` must lie between {min_length_seconds} and `max_length_seconds`, found: "
                f"{min_crop_seconds} with {max_length_seconds}"
            )
        self.min_length_seconds, self.min_crop_seconds = min_length_seconds, min_crop_seconds
        self.align_samples = align_samples or 2 * self.hop_length
        self.random_speed = random_speed
        self.seed, self.teacher, self.cache = seed, teacher, cache
        self.label2id: dict[str, int] = {}

    def read(self, row: dict[str, Any], epoch: int, turn: int = 0) -> dict[str, Any]:
        """
        Reads a row.

        Args:
            row (`dict`):
                `audio` (what `decode_audio` takes) and, of the whole clip, `teacher_hidden_states`, `codes` (one each
                20 ms) and `teacher_outputs` where there are any; `labels`, names in `label2id`; `listing`, which
                counts the listings of its file before this one.
            epoch (`int`): Varies the crop.
            turn (`int`, *optional*, defaults to 0): How often the epoch has drawn this clip before; varies it too.

        Returns:
            `dict`: `input_values` (float32 of shape `(num_samples,)`), `seed` (`int`, for further draws), and for the
            crop's encoder frames `teacher_hidden_states` (float32 of shape `(num_frames, hidden_size)`) and `codes`
            (int64 of shape `(num_frames,)`) where the row has them; `teacher_outputs`, cut to the crop, and `labels`
            (int64 of shape `(num_labels,)`) likewise.

        Raises:
            `UnusableClip`: The message says why.
        """
        audio = _fetch(row.get("audio"))
        samples = self._whole(audio)
        listing = row.get(LISTING_COLUMN) or 0
        again = [listing, turn] if turn else [listing] if listing else []  # listed or drawn again is cropped anew
        rng = np.random.default_rng([self.seed, epoch, _identity(audio, samples), *again])
        example: dict[str, Any] = {"seed": int(rng.integers(2**31))}
        speed = (1 + self.random_speed) ** rng.uniform(-1, 1) if self.random_speed else 1.0
        start, stop = self._crop(len(samples), rng, speed)
        example["input_values"] = as_float(samples[start:stop])  # of a cached clip no more than this is converted
        if self.random_speed:
            example["input_values"] = at_speed(example["input_values"], self.sampling_rate, speed)[: self.max_samples]
        num_frames = num_encoder_frames(stop - start, self.hop_length)
        if self.teacher is not None:
            values = row.get(TEACHER_COLUMN)
            example[TEACHER_COLUMN] = self._cut_teacher(self.teacher, values, len(samples), start, stop, num_frames)
        if OUTPUTS_COLUMN in row:
            seconds = start / self.sampling_rate, stop / self.sampling_rate
            example[OUTPUTS_COLUMN] = [crop_outputs(one, *seconds) for one in self._outputs(row)]
        if CODES_COLUMN in row:
            example[CODES_COLUMN] = self._cut_codes(row[CODES_COLUMN], len(samples), start, num_frames)
        if LABELS_COLUMN in row:
            example[LABELS_COLUMN] = np.array([self.label2id[name] for name in row[LABELS_COLUMN]], dtype=np.int64)
        return example

    def decode(self, audio: dict[str, Any]) -> np.ndarray:
        """Returns the samples of a whole clip; raises `UnusableClip` where it cannot be used or is silent."""
        return as_float(self._whole(audio))

    def _whole(self, audio: dict[str, Any]) -> np.ndarray:
        """The samples of a whole clip: float32, or those of the cache."""
        samples = None if self.cache is None else self.cache.get(audio)
        if samples is None or len(samples) < self.min_length_seconds * self.sampling_rate:
            samples = decode_usable(audio, self.min_length_seconds, self.sampling_rate)
        if samples.min() == samples.max():
            raise UnusableClip("it is silent")
        return samples

    def _crop(self, num_samples: int, rng: np.random.Generator, speed: float) -> tuple[int, int]:
        """Where a crop of a clip of this length, to be played at a speed, starts and stops."""
        length = self.max_samples
        if length is not None and self.min_crop_seconds is not None:
            length = round(rng.uniform(self.min_crop_seconds * self.sampling_rate, length))
        length = None if length is None else round(length * speed)
        if length is None or num_samples <= length:
            return 0, num_samples
        num_starts = (num_samples - length) // self.align_samples + 1
        start = int(rng.integers(num_starts)) * self.align_samples
        return start, start + length

    def _cut_teacher(
        self, teacher: TeacherFeatures, values: Any, num_samples: int, start: int, stop: int, num_frames: int
    ) -> np.ndarray:
        if values is None or len(values) == 0:
            raise UnusableClip("it has no teacher features")
        try:
            clip_seconds, first, last = (samples / self.sampling_rate for samples in (num_samples, start, stop))
            return teacher.crop(teacher.frames(np.asarray(values)), clip_seconds, first, last, num_frames)
        except (TypeError, ValueError) as error:
            raise UnusableClip(str(error)) from error

    def _outputs(self, row: dict[str, Any]) -> list[Outputs]:
        outputs = read_outputs(row[OUTPUTS_COLUMN])
        if outputs is None:
            raise UnusableClip("it has no outputs of the teachers")
        return outputs

    def _cut_codes(self, codes: Any, num_samples: int, start: int, num_frames: int) -> np.ndarray:
        expected = num_encoder_frames(num_samples, self.hop_length)
        if codes is None or len(codes) != expected:
            raise UnusableClip(f"it must have {expected} codes, found: {None if codes is None else len(codes)}")
        first = start // (2 * self.hop_length)
        return np.asarray(codes[first : first + num_frames], dtype=np.int64)


class PretrainingClips(torch.utils.data.Dataset):
    """
    Clips by index. In place of an unusable one comes the next that is usable, so that batches stay full.

    Args:
        dataset (`datasets.Dataset`): As `load_unlabelled_audio` gives it.
        reader (`ClipReader`): Decodes, crops and aligns.
        training (`bool`, *optional*, defaults to `True`): Whether crops change from epoch to epoch.
        max_unusable_share (`float`, *optional*, defaults to 0.1):
            The largest share of unusable clips, among those read so far, to go on with.
        balance (`SourceBalance`, *optional*): How often to draw from each source; by default each clip once.
    """

    def __init__(
        self,
        dataset: Dataset,
        reader: ClipReader,
        training: bool = True,
        max_unusable_share: float = MAX_UNUSABLE_SHARE,
        balance: SourceBalance | None = None,
    ):
        if len(dataset) == 0:
            raise ValueError("The data set must hold clips, found none.")
        if reader.teacher is not None:
            if TEACHER_COLUMN not in dataset.column_names:
                raise ValueError(
                    f"The data set must have the column {TEACHER_COLUMN!r}, found: {dataset.column_names}."
                )
            check_teacher_column(dataset, reader.teacher.hidden_size)
        self.dataset, self.reader, self.training = dataset.with_format("arrow"), reader, training
        self.max_unusable_share, self.balance = max_unusable_share, balance
        # In shared memory, so that workers that outlive an epoch see the next, and report what they read and skip.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        self._was_read = torch.zeros(len(dataset), dtype=torch.bool).share_memory_()
        self._is_unusable = torch.zeros(len(dataset), dtype=torch.bool).share_memory_()

    @property
    def teacher(self) -> TeacherFeatures | None:
        return self.reader.teacher

    @property
    def epoch(self) -> int:
        return int(self._epoch)

    @property
    def num_skipped(self) -> int:
        """Number of clips that this process, in all its workers, has found unusable so far."""
        return int(self._is_unusable.sum())

    def set_epoch(self, epoch: int) -> None:
        if self.training:
            self._epoch.fill_(epoch)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int | tuple[int, int]) -> dict[str, Any]:
        """Reads a clip by its index, or by that and the turn in which the sampler draws it."""
        index, turn = index if isinstance(index, tuple) else (index, 0)
        if not -len(self) <= index < len(self):
            raise IndexError(f"`index` must lie in a data set of {len(self)} clips, found: {index}")
        num_tried = min(len(self), MAX_IN_A_ROW)
        for position in range(index, index + num_tried):
            row = self._row(position % len(self))
            self._was_read[position % len(self)] = True
            try:
                return self.reader.read(row, self.epoch, turn)
            except UnusableClip as error:
                last_error = error
                self._skip(position % len(self), row, error)
        raise _all_unusable(num_tried, last_error) from last_error

    def sample(self, num_clips: int) -> Iterator[np.ndarray]:
        """Yields the waveforms of clips drawn by the seed, cut as in epoch 0, without the unusable ones."""
        rows = (self._row(int(index)) for index in drawn_indices(len(self), num_clips, self.reader.seed))
        return _usable_waveforms(rows, self.reader)

    def sample_outputs(self, num_clips: int) -> Iterator[list[Outputs]]:
        """Yields the stored outputs of the clips that `sample` draws, those of the whole clips."""
        drawn = drawn_indices(len(self), num_clips, self.reader.seed)
        found = (read_outputs(self._row(int(index))[OUTPUTS_COLUMN]) for index in drawn)
        return (outputs for outputs in found if outputs is not None)

    def fill_cache(self) -> None:
        """Decodes what the reader's cache lacks; without one, nothing."""
        if self.reader.cache is not None:
            self.reader.cache.fill((self._row(index)["audio"] for index in range(len(self))), len(self))

    def whole(self, index: int) -> np.ndarray | None:
        """Returns the samples of a clip without any crop, `None` where it is unusable."""
        try:
            return self.reader.decode(_fetch(self._row(index)["audio"]))
        except UnusableClip:
            return None

    def with_codes(self, codes: list[list[int] | None]) -> "PretrainingClips":
        """Adds the codes of each whole clip, on the grid of 20 ms; `None` where it is unusable."""
        feature = List(Value("int64"))
        dataset = self.dataset.add_column(CODES_COLUMN, [clip or [] for clip in codes], feature=feature)
        return PretrainingClips(dataset, self.reader, self.training, self.max_unusable_share, self.balance)

    def use_labels(self, label2id: dict[str, int]) -> None:
        """
        Lets the clips bring along their labels, by the indices that `label2id` gives.

        Raises:
            `ValueError`: A name is not in it, or no training clip has a label.
        """
        found = {name for clip in self.dataset.with_format(None)[LABELS_COLUMN] for name in clip}
        if found - set(label2id) or (self.training and not found):
            raise ValueError(
                f"The labels of the clips must be among the teacher's {len(label2id)}, found "
                f"{f'also {sorted(found - set(label2id))[:10]}' if found else 'none'}. Correct `label_column_name` or "
                "its labels; null stands for none."
            )
        self.reader.label2id = label2id

    def seconds(self, index: int) -> float:
        """Returns the duration of a clip, from the cache or its header if possible; 0 where it is unusable."""
        audio = self._row(index)["audio"] or {}
        cached = self.reader.cache.get(audio) if self.reader.cache is not None else None
        found = read_duration(audio) if cached is None else len(cached) / self.reader.sampling_rate
        samples = self.whole(index) if found is None else None
        return found or (0.0 if samples is None else len(samples) / self.reader.sampling_rate)

    def _row(self, index: int) -> dict[str, Any]:
        table = self.dataset[index]
        row = {"audio": table["audio"][0].as_py()}
        for column in {TEACHER_COLUMN, CODES_COLUMN} & set(table.column_names):
            row[column] = row_values(table, column)
        if OUTPUTS_COLUMN in table.column_names:
            row[OUTPUTS_COLUMN] = table[OUTPUTS_COLUMN][0]
        for column in {LISTING_COLUMN, LABELS_COLUMN} & set(table.column_names):
            row[column] = table[column][0].as_py()
        return row

    def _skip(self, index: int, row: dict[str, Any], error: UnusableClip) -> None:
        if self._is_unusable[index]:
            return
        self._is_unusable[index] = True
        description = describe(row["audio"], f"clip {index}", error)
        warn_of_skipped(description, self.num_skipped)
        num_read, min_read = int(self._was_read.sum()), min(len(self), MIN_CLIPS_READ)
        refuse_too_many(self.num_skipped, num_read, self.max_unusable_share, [description], min_read)


class StreamedClips(torch.utils.data.IterableDataset):
    """
    Clips of a stream, again and again without end: each pass shuffles the shards and, in a buffer, the clips anew.

    Args:
        dataset (`datasets.IterableDataset`): As `load_unlabelled_audio` gives it.
        reader (`ClipReader`): Decodes, crops and aligns. Its seed also decides the order.
        shuffle_buffer_size (`int`, *optional*, defaults to 1000): Encoded clips that a worker holds to draw from.
        rank (`int`, *optional*, defaults to 0):
            This process: it reads its own shards or, where their number is no multiple of `world_size`, every
            `world_size`-th clip. DataLoader workers divide its shards among themselves.
        world_size (`int`, *optional*, defaults to 1): Number of processes.
        max_unusable_share (`float`, *optional*, defaults to 0.1):
            The largest share of unusable clips, among those read so far, to go on with.
    """

    def __init__(
        self,
        dataset: IterableDataset,
        reader: ClipReader,
        shuffle_buffer_size: int = 1_000,
        rank: int = 0,
        world_size: int = 1,
        max_unusable_share: float = MAX_UNUSABLE_SHARE,
    ):
        self.dataset, self.reader, self.shuffle_buffer_size = dataset, reader, shuffle_buffer_size
        self.rank, self.world_size, self.max_unusable_share = rank, world_size, max_unusable_share
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()
        # A row for each worker: clips read and of them unusable, in all passes, and different unusable ones.
        self._counts = torch.zeros(MAX_WORKERS, 3, dtype=torch.int64).share_memory_()

    @property
    def teacher(self) -> TeacherFeatures | None:
        return self.reader.teacher

    @property
    def num_skipped(self) -> int:
        """Number of clips that this process, in all its workers, has found unusable so far."""
        return int(self._counts[:, 2].sum())

    def set_epoch(self, epoch: int) -> None:
        """Sets the pass that the next iteration begins with."""
        self._epoch.fill_(epoch)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        worker = get_worker_info()
        counts, num_in_a_row = self._counts[worker.id if worker else 0], 0
        unusable: set[int] = set()
        for epoch in itertools.count(int(self._epoch)):
            num_rows = num_usable = 0
            for num_rows, row in enumerate(self._pass(epoch), start=1):  # noqa: B007
                counts[0] += 1
                try:
                    example = self.reader.read(row, epoch)
                except UnusableClip as error:
                    counts[1] += 1
                    num_in_a_row += 1
                    self._skip(row, error, unusable, counts)
                    if num_in_a_row == MAX_IN_A_ROW_OF_STREAM:
                        raise _all_unusable(num_in_a_row, error) from error
                    last_error = error
                else:
                    num_in_a_row, num_usable = 0, num_usable + 1
                    yield example
            if num_rows == 0:  # more workers than shards
                return
            if num_usable == 0:
                raise _all_unusable(num_rows, last_error) from last_error

    def sample(self, num_clips: int) -> Iterator[np.ndarray]:
        """Yields the waveforms of the first clips, cut as in the first pass, without the unusable ones."""
        return _usable_waveforms(self.dataset.take(num_clips), self.reader)

    def sample_outputs(self, num_clips: int) -> Iterator[list[Outputs]]:
        """Yields the stored outputs of the clips that `sample` draws, those of the whole clips."""
        found = (read_outputs(row[OUTPUTS_COLUMN]) for row in self.dataset.take(num_clips))
        return (outputs for outputs in found if outputs is not None)

    def _pass(self, epoch: int) -> IterableDataset:
        # Not `dataset.set_epoch`: it is shared between the workers, and each of them counts its own passes.
        seed = int(np.random.default_rng([self.reader.seed, epoch]).integers(2**31))
        shuffled = self.dataset.shuffle(seed=seed, buffer_size=self.shuffle_buffer_size)
        return split_dataset_by_node(shuffled, self.rank, self.world_size) if self.world_size > 1 else shuffled

    def _skip(self, row: dict[str, Any], error: UnusableClip, unusable: set[int], counts: torch.Tensor) -> None:
        description = describe(row.get("audio"), "a clip", error)
        identity = zlib.crc32(repr(row.get("audio")).encode())
        if identity not in unusable:
            unusable.add(identity)
            counts[2] += 1
            warn_of_skipped(description, self.num_skipped)
        num_read, num_unusable = self._counts[:, :2].sum(0).tolist()
        refuse_too_many(num_unusable, num_read, self.max_unusable_share, [description], MIN_CLIPS_READ_OF_STREAM)


def _usable_waveforms(rows: Iterable[dict[str, Any]], reader: ClipReader) -> Iterator[np.ndarray]:
    for row in rows:
        try:
            yield reader.read(row, epoch=0)["input_values"]
        except UnusableClip:
            continue


def _fetch(audio: Any) -> dict[str, Any]:
    """Makes a dictionary of an entry, and reads what lies behind a URL, as in streams of loose files."""
    if audio is None:
        raise UnusableClip("it has no audio")
    if isinstance(audio, bytes):
        audio = {"bytes": audio}
    elif not isinstance(audio, dict):
        audio = {"path": str(audio)}
    if audio.get("bytes") is None and "://" in (audio.get("path") or ""):
        try:
            with fsspec.open(audio["path"]) as file:
                return {"bytes": file.read(), "path": audio["path"]}
        except Exception as error:  # each file system has its own
            raise UnusableClip(f"it cannot be read: {error}") from error
    return audio


def _identity(audio: dict[str, Any], samples: np.ndarray) -> int:
    if audio.get("bytes") is not None:
        return zlib.crc32(audio["bytes"])
    return zlib.crc32(audio["path"].encode() if audio.get("path") else samples.tobytes())


def _all_unusable(num_clips: int, last_error: UnusableClip) -> ValueError:
    return ValueError(
        f"The data set must hold usable clips, found {num_clips} in a row that are not; the last: {last_error}. "
        "Check the audio and the column it is read from."
    )
