"""What teachers make of clips, stored in tables once, so that a model can learn from it in many passes."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets import Dataset
from tqdm.auto import tqdm

from ..arguments import option
from ..data.clip_tables import digest_of, tables_of_one_run
from ..data.clips import MIN_CLIPS_READ, ClipReader
from ..data.teacher_states import NUM_FRAMES_COLUMN, TEACHER_COLUMN
from ..data.unlabelled import UnlabelledAudioArguments
from ..data.unusable import UnusableClip, describe, refuse_too_many, warn_of_skipped
from ..evaluation.frozen_encoders import FrozenEncoder
from .distillation_teachers import DistillationTeacherArguments
from .stored_teachers import DISTILLATION
from .teachers import TeacherArguments

TEACHER, CLIPS = "teacher", "clips"  # the keys of what a table is of


@dataclass
class PrecomputingArguments:
    """What is stored, where it goes, and how many clips are read and stored together."""

    for_distillation: bool = option(
        default=False,
        help="Store what distill.py learns from: labels and embeddings of clips and frames, of one or several "
        "teachers. By default the hidden states that train_quantizer.py learns from.",
    )
    output_dir: str = option(default="runs/teacher", help="The folder for the tables.")
    batch_size: int = option(default=8, help="Clips that the teacher reads at once, each of them whole.")
    clips_per_file: int = option(default=500, help="Clips in a table.")

    def __post_init__(self):
        for name in ("batch_size", "clips_per_file"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be positive, found: {getattr(self, name)}")


@dataclass
class StoredTeacherArguments(DistillationTeacherArguments):
    """The models whose states or outputs are stored."""

    teacher_layer: int = option(
        default=-1, help="Which of its `hidden_states` to store; not used for distillation. Negative: from the end."
    )

    def only_one(self) -> TeacherArguments:
        """The arguments of the one model whose hidden states are wanted."""
        names = self.teacher_name_or_path
        if len(names) > 1:
            raise ValueError(f"Hidden states must be those of one teacher, found {len(names)}: {names}.")
        return TeacherArguments(
            names[0] if names else None, self.teacher_layer, self.teacher_revision[0], self.teacher_trust_remote_code
        )


class Storable(Protocol):
    """What teachers make of clips, as it is read and stored: a `noun` for it, and the `metadata` of the tables."""

    noun: str
    sampling_rate: int
    metadata: dict[str, Any]

    def read(self, waveforms: list[np.ndarray]) -> list[Any]:
        """Returns what there is to store of each clip."""

    def columns(self, rows: list[Any]) -> dict[str, pa.Array]:
        """Makes columns of it; a row is `None` where a clip has none."""


class StatesToStore:
    """
    The hidden states of a teacher, in float16.

    Args:
        encoder (`FrozenEncoder`): The teacher.
        args (`TeacherArguments`): What it was loaded by.
    """

    noun = "states"

    def __init__(self, encoder: FrozenEncoder, args: TeacherArguments):
        self.encoder, self.sampling_rate = encoder, encoder.sampling_rate
        self.metadata: dict[str, Any] = {
            "name": args.teacher_name_or_path,
            "layer": args.teacher_layer,
            "revision": args.teacher_revision,
            "hidden_size": encoder.hidden_size,
        }

    def read(self, waveforms: list[np.ndarray]) -> list[torch.Tensor]:
        return [states.half().cpu() for states in self.encoder(waveforms, self.sampling_rate)]

    def columns(self, rows: list[torch.Tensor | None]) -> dict[str, pa.Array]:
        counts = [0 if frames is None else len(frames) for frames in rows]
        flat = [None if frames is None else frames.flatten().numpy() for frames in rows]
        return {
            TEACHER_COLUMN: pa.array(flat, pa.list_(pa.float16())),
            NUM_FRAMES_COLUMN: pa.array(counts, pa.int32()),
        }


class StoringReader:
    """
    Runs teachers over clips, skips the unusable ones, and fails where they are too many.

    Args:
        storable (`Storable`): What to make of the clips.
        num_clips (`int`): All clips that will be read.
        data_args (`UnlabelledAudioArguments`): Which of them are unusable, and how many may be.
    """

    def __init__(self, storable: Storable, num_clips: int, data_args: UnlabelledAudioArguments):
        self.storable, self.max_share = storable, data_args.max_unusable_share
        self.clips = ClipReader(storable.sampling_rate, min_length_seconds=data_args.min_length_seconds)
        self.min_read = min(num_clips, MIN_CLIPS_READ)
        self.num_read = self.num_unusable = 0

    def rows(self, clips: Dataset, batch_size: int) -> Iterator[Any]:
        """Yields what there is to store of each clip; `None` of one that is skipped."""
        for start in range(0, len(clips), batch_size):
            waveforms = [self._decode(audio) for audio in clips[start : start + batch_size]["audio"]]
            usable = [waveform for waveform in waveforms if waveform is not None]
            rows = iter(self.storable.read(usable) if usable else [])
            yield from (None if waveform is None else next(rows) for waveform in waveforms)

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


def as_table(clips: Dataset, columns: dict[str, pa.Array], metadata: dict[str, str]) -> pa.Table:
    """Joins the clips and the columns, with a description of the teacher and of the clips in the metadata."""
    table = clips.with_format("arrow")[:]
    for name, column in columns.items():
        table = table.append_column(name, column)
    return table.replace_schema_metadata(metadata)


def is_written(path: Path, metadata: dict[str, str]) -> bool:
    """Says whether the table is there; one of another teacher, or of other clips, is refused."""
    if not path.exists():
        return False
    stored = pq.read_schema(path).metadata or {}
    found = {name: stored.get(name.encode(), b"{}").decode() for name in metadata}
    if found != metadata:
        raise ValueError(
            f"{path} must be of this teacher and these clips, {_short(metadata)}, found: {_short(found)}. Give "
            "another --output_dir."
        )
    return True


def _short(metadata: dict[str, str]) -> dict[str, Any]:
    teacher = json.loads(metadata[TEACHER])
    return {name: value for name, value in teacher.items() if name != DISTILLATION} | {CLIPS: metadata[CLIPS][:8]}


def precompute(
    clips: Dataset, storable: Storable, data_args: UnlabelledAudioArguments, args: PrecomputingArguments
) -> list[Path]:
    """
    Writes the tables that are not there yet.

    Args:
        clips (`Dataset`): With the column `audio`, undecoded.
        storable (`Storable`): What to store of each clip.
        data_args (`UnlabelledAudioArguments`): Which clips are unusable, and how many may be.
        args (`PrecomputingArguments`): Where the tables go.

    Returns:
        `list[Path]`: All tables, in the clips' order.

    Raises:
        `ValueError`: A table of another teacher or of other clips is in the way, another run is at work there, or too
            many clips are unusable.
    """
    folder, stated = Path(args.output_dir), json.dumps(storable.metadata | {"num_clips": len(clips)})
    reader = StoringReader(storable, len(clips), data_args)
    progress = tqdm(total=len(clips), desc=f"Computing the teacher's {storable.noun}", unit="clip")
    with progress, tables_of_one_run(folder, "clips", len(clips), args.clips_per_file) as tables:
        for path, place in tables.items():
            some = clips.select(place)
            metadata = {TEACHER: stated, CLIPS: digest_of(some)}
            if is_written(path, metadata):
                progress.update(len(some))
                continue
            rows = []
            for row in reader.rows(some, args.batch_size):
                rows.append(row)
                progress.update()
            partial = path.with_suffix(".partial")
            pq.write_table(as_table(some, storable.columns(rows), metadata), partial, row_group_size=100)
            os.replace(partial, path)
    if reader.num_unusable:
        print(
            f"Skipped {reader.num_unusable} clips, which cannot be used and have no {storable.noun}; the training "
            "skips them."
        )
    return list(tables)
