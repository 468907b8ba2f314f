"""Outputs of teachers that tables hold beside the clips: read from a row, cut to a crop, padded to a batch.

A row holds what each teacher, `t0`, `t1` and so on, made of the whole clip: `clip_embedding`, `frames` one after
another, `num_frames`, `logits` (empty without labels), and the times of the frames in seconds, `first_center` and
`step`.
"""

from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch.nn.utils.rnn import pad_sequence

OUTPUTS_COLUMN = "teacher_outputs"
LISTS, NUMBERS = ("clip_embedding", "frames", "logits"), ("num_frames", "first_center", "step")
TEACHER_TYPE = pa.struct(
    [(name, pa.list_(pa.float16())) for name in LISTS] + [(name, pa.float32()) for name in NUMBERS]
)

Outputs = dict[str, np.ndarray]  # of one teacher; `frames` of shape (num_frames, width), single numbers of shape (1,)


def as_column(rows: list[list[Outputs] | None], num_teachers: int) -> pa.Array:
    """Makes a column of the outputs of all teachers, null for clips that have none."""

    def as_values(outputs: Outputs) -> dict[str, Any]:
        lists = {name: outputs[name].astype(np.float16).ravel() for name in LISTS}
        return lists | {name: float(outputs[name][0]) for name in NUMBERS}

    values = [None if row is None else {f"t{i}": as_values(one) for i, one in enumerate(row)} for row in rows]
    return pa.array(values, pa.struct([(f"t{i}", TEACHER_TYPE) for i in range(num_teachers)]))


def read_outputs(value: Any) -> list[Outputs] | None:
    """Reads the outputs of each teacher from a row's entry, which is an Arrow scalar or plain dictionaries."""
    if value is None or (isinstance(value, pa.Scalar) and not value.is_valid):
        return None
    return [_read(value[f"t{i}"]) for i in range(len(value))]


def _read(teacher: Any) -> Outputs:
    outputs = {name: _as_array(teacher[name]) for name in LISTS + NUMBERS}
    return outputs | {"frames": outputs["frames"].reshape(int(outputs["num_frames"][0]), -1)}


def _as_array(value: Any) -> np.ndarray:
    if isinstance(value, pa.ListScalar):
        return value.values.to_numpy(zero_copy_only=False).astype(np.float32)
    return np.atleast_1d(np.asarray(value.as_py() if isinstance(value, pa.Scalar) else value, np.float32))


def crop_outputs(outputs: Outputs, start: float, stop: float) -> Outputs:
    """Keeps the frames around a crop, from `start` to `stop` in seconds, and gives their times within it."""
    frames, first, step = outputs["frames"], outputs["first_center"], outputs["step"]
    low = int(np.clip(np.floor((start - first) / step), 0, len(frames) - 1)[0])
    high = int(np.clip(np.ceil((stop - first) / step) + 1, low + 1, len(frames))[0])
    return outputs | {"frames": frames[low:high], "first_center": first + low * step - start}


def collate_outputs(rows: list[list[Outputs]]) -> list[dict[str, torch.Tensor]]:
    """Pads the outputs of clips to a batch: of each teacher the fields of `TeacherOutputs`."""
    return [_collate(list(teacher)) for teacher in zip(*rows, strict=True)]


def _collate(clips: list[Outputs]) -> dict[str, torch.Tensor]:
    names = ("clip_embedding", "logits", "first_center", "step")
    batch = {name: torch.from_numpy(np.stack([clip[name] for clip in clips])) for name in names}
    batch["num_frames"] = torch.tensor([[len(clip["frames"])] for clip in clips])
    batch["frames"] = pad_sequence([torch.from_numpy(clip["frames"].copy()) for clip in clips], batch_first=True)
    return batch
