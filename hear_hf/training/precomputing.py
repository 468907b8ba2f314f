"""A teacher's hidden states, stored in tables once, so that the quantizer can learn from them in many passes."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets import Dataset
from tqdm.auto import tqdm

from ..arguments import option
from ..data.clips import MIN_CLIPS_READ, ClipReader
from ..data.teacher_states import NUM_FRAMES_COLUMN, TEACHER_COLUMN
from ..data.unlabelled import UnlabelledAudioArguments
from ..data.unusable import UnusableClip, describe, refuse_too_many, warn_of_skipped
from ..evaluation.frozen_encoders import FrozenEncoder
from .teachers import TeacherArguments


@dataclass
class PrecomputingArguments:
    """Where the states go, and how many clips are read and stored together."""

    output_dir: str = option(default="runs/teacher", help="The folder for the tables.")
    batch_size: int = option(default=8, help="Clips that the teacher reads at once, each of them whole.")
    clips_per_file: int = option(default=500, help="Clips in a table.")

    def __post_init__(self):
        for name in ("batch_size", "clips_per_file"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be positive, found: {getattr(self, name)}")


class StatesReader:
    """
    Runs a teacher over clips, skips the unusable ones, and fails where they are too many.

    Args:
        encoder (`FrozenEncoder`): The teacher.
        num_clips (`int`): All clips that will be read.
        data_args (`UnlabelledAudioArguments`): Which of them are unusable, and how many may be.
    """

    def __init__(self, encoder: FrozenEncoder, num_clips: int, data_args: UnlabelledAudioArguments):
        self.encoder, self.max_share = encoder, data_args.max_unusable_share
        self.clips = ClipReader(encoder.sampling_rate, min_length_seconds=data_args.min_length_seconds)
        self.min_read = min(num_clips, MIN_CLIPS_READ)
        self.num_read = self.num_unusable = 0

    def states(self, clips: Dataset, batch_size: int) -> Iterator[torch.Tensor | None]:
        """Yields of each clip (num_frames, hidden_size) in float16; `None` of one that is skipped."""
        for start in range(0, len(clips), batch_size):
            waveforms = [self._decode(audio) for audio in clips[start : start + batch_size]["audio"]]
            usable = [waveform for waveform in waveforms if waveform is not None]
            states = iter(self.encoder(usable, self.encoder.sampling_rate))
            yield from (None if waveform is None else next(states).half().cpu() for waveform in waveforms)

    def _decode(self, audio: Any) -> np.ndarray | None:
        self.num_read += 1
        try:
            return self.clips.decode(audio)
        except UnusableClip as error:
            self.num_unusable += 1
            description = describe(audio, "a clip", error)
            warn_of_skipped(description, self.num_unusable)
            refuse_too_many(self.num_unusable, self.num_read, self.max_share, [description], self.min_read)
            return None


def as_table(clips: Dataset, states: list[torch.Tensor | None], teacher: dict) -> pa.Table:
    """Joins the clips and their states, flat, with a description of the teacher in the metadata."""
    table = clips.with_format("arrow")[:]
    counts = [0 if frames is None else len(frames) for frames in states]
    flat = [None if frames is None else frames.flatten().numpy() for frames in states]
    table = table.append_column(TEACHER_COLUMN, pa.array(flat, pa.list_(pa.float16())))
    table = table.append_column(NUM_FRAMES_COLUMN, pa.array(counts, pa.int32()))
    return table.replace_schema_metadata({"teacher": json.dumps(teacher)})


def is_written(path: Path, clips: Dataset, teacher: dict) -> bool:
    """Says whether the table is there; one of another teacher, or of clips of other paths, is refused."""
    if not path.exists():
        return False
    found = json.loads((pq.read_schema(path).metadata or {}).get(b"teacher", b"{}"))
    stored = pq.ParquetFile(path).read(columns=["audio.path"])["audio"].to_pylist()
    if found != teacher or [_path(clip) for clip in stored] != [_path(clip) for clip in clips["audio"]]:
        raise ValueError(
            f"{path} must be of this teacher and these clips, {teacher}, found: {found}. Give another --output_dir."
        )
    return True


def _path(clip: dict[str, Any] | None) -> str | None:
    return None if clip is None else clip["path"]


def precompute(
    clips: Dataset,
    encoder: FrozenEncoder,
    teacher_args: TeacherArguments,
    data_args: UnlabelledAudioArguments,
    args: PrecomputingArguments,
) -> list[Path]:
    """
    Writes the tables that are not there yet.

    Args:
        clips (`Dataset`): With the column `audio`, undecoded.
        encoder (`FrozenEncoder`): The teacher.
        teacher_args (`TeacherArguments`): What the encoder was loaded by, which the tables' metadata record.
        data_args (`UnlabelledAudioArguments`): Which clips are unusable, and how many may be.
        args (`PrecomputingArguments`): Where the tables go.

    Returns:
        `list[Path]`: All tables, in the clips' order.

    Raises:
        `ValueError`: A table of another teacher or of other clips is in the way, or too many clips are unusable.
    """
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    teacher = {
        "name": teacher_args.teacher_name_or_path,
        "layer": teacher_args.teacher_layer,
        "revision": teacher_args.teacher_revision,
        "hidden_size": encoder.hidden_size,
        "num_clips": len(clips),
    }
    starts = range(0, len(clips), args.clips_per_file)
    paths = [folder / f"clips-{i:05d}-of-{len(starts):05d}.parquet" for i in range(len(starts))]
    reader = StatesReader(encoder, len(clips), data_args)
    with tqdm(total=len(clips), desc="Computing the teacher's states", unit="clip") as progress:
        for start, path in zip(starts, paths, strict=True):
            some = clips.select(range(start, min(start + args.clips_per_file, len(clips))))
            if is_written(path, some, teacher):
                progress.update(len(some))
                continue
            states = []
            for frames in reader.states(some, args.batch_size):
                states.append(frames)
                progress.update()
            partial = path.with_suffix(".partial")
            pq.write_table(as_table(some, states, teacher), partial, row_group_size=100)
            os.replace(partial, path)
    if reader.num_unusable:
        print(
            f"Skipped {reader.num_unusable} clips, which cannot be used and have no states; the training skips them."
        )
    return paths
