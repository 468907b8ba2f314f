"""Stores a teacher's hidden states in tables once, so that the quantizer can learn from them in many passes."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from datasets import Dataset
from tqdm.auto import tqdm

from ..arguments import option
from ..data.clips import ClipReader, UnusableClip
from ..data.teacher_states import NUM_FRAMES_COLUMN, TEACHER_COLUMN
from ..evaluation.frozen_encoders import FrozenEncoder


@dataclass
class PrecomputingArguments:
    """Where the states go."""

    output_dir: str = option(default="runs/teacher", help="The folder for the tables.")
    batch_size: int = option(default=8, help="Clips that the teacher reads at once, each of them whole.")
    clips_per_file: int = option(default=500, help="Clips of a table.")

    def __post_init__(self):
        for name in ("batch_size", "clips_per_file"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` must be positive, found: {getattr(self, name)}")


def hidden_states(clips: Dataset, encoder: FrozenEncoder, batch_size: int) -> Iterator[torch.Tensor | None]:
    """Of each clip (num_frames, hidden_size) in float16; `None` of one that cannot be used."""
    reader = ClipReader(encoder.sampling_rate)
    for start in range(0, len(clips), batch_size):
        waveforms = []
        for audio in clips[start : start + batch_size]["audio"]:
            try:
                waveforms.append(reader.decode(audio))
            except UnusableClip as error:
                tqdm.write(f"Without states: {audio['path'] or 'a clip'}: {error}")
                waveforms.append(None)
        states = iter(encoder([clip for clip in waveforms if clip is not None], encoder.sampling_rate))
        yield from (None if clip is None else next(states).half().cpu() for clip in waveforms)


def as_table(clips: Dataset, states: list[torch.Tensor | None], teacher: dict) -> pa.Table:
    """The clips with their states, flat, and what is to know of them in the metadata."""
    table = clips.with_format("arrow")[:]
    counts = [0 if frames is None else len(frames) for frames in states]
    flat = [None if frames is None else frames.flatten().numpy() for frames in states]
    table = table.append_column(TEACHER_COLUMN, pa.array(flat, pa.list_(pa.float16())))
    table = table.append_column(NUM_FRAMES_COLUMN, pa.array(counts, pa.int32()))
    return table.replace_schema_metadata({"teacher": json.dumps(teacher)})


def is_written(path: Path, clips: Dataset, teacher: dict) -> bool:
    """Whether the table is there; one of another teacher, or of clips of other paths, is refused."""
    if not path.exists():
        return False
    found = json.loads((pq.read_schema(path).metadata or {}).get(b"teacher", b"{}"))
    paths = pq.ParquetFile(path).read(columns=["audio.path"])["audio"].to_pylist()
    if found != teacher or paths != [{"path": clip["path"]} for clip in clips["audio"]]:
        raise ValueError(
            f"{path} must be of this teacher and these clips, {teacher}, found: {found}. Give another --output_dir."
        )
    return True


def precompute(clips: Dataset, encoder: FrozenEncoder, teacher: dict, args: PrecomputingArguments) -> list[Path]:
    """
    Writes the tables that are not there yet.

    Args:
        clips (`Dataset`): With the column `audio`, undecoded.
        encoder (`FrozenEncoder`): The teacher.
        teacher (`dict`): What the tables' metadata shall say of it, next to the width and the number of clips.
        args (`PrecomputingArguments`): Where they go.

    Returns:
        `list[Path]`: All tables, in the clips' order.

    Raises:
        `ValueError`: A table of another teacher or of other clips is in the way.
    """
    folder = Path(args.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    teacher = {**teacher, "hidden_size": encoder.hidden_size, "num_clips": len(clips)}
    starts = range(0, len(clips), args.clips_per_file)
    paths = [folder / f"clips-{i:05d}-of-{len(starts):05d}.parquet" for i in range(len(starts))]
    num_unusable = 0
    with tqdm(total=len(clips), desc="Computing the teacher's states", unit="clip") as progress:
        for start, path in zip(starts, paths, strict=True):
            some = clips.select(range(start, min(start + args.clips_per_file, len(clips))))
            if is_written(path, some, teacher):
                progress.update(len(some))
                continue
            states = []
            for frames in hidden_states(some, encoder, args.batch_size):
                states.append(frames)
                progress.update()
            num_unusable += states.count(None)
            partial = path.with_suffix(".partial")
            pq.write_table(as_table(some, states, teacher), partial, row_group_size=100)
            os.replace(partial, path)
    if num_unusable:
        print(f"{num_unusable} clips cannot be used and have no states: the training passes over them.")
    return paths
