"""Teachers of a whole model by their outputs in tables: computed once, learned from without the teachers."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from .. import HEARConfig
from ..data.teacher_outputs import OUTPUTS_COLUMN, Outputs, as_column, collate_outputs
from ..data.unlabelled import DistillationDataArguments, teacher_metadata
from ..sharing.cards import TeacherFacts
from .distillation_teachers import DistillationTeacher, TeacherTargets
from .teacher_readers import TeacherOutputs

DISTILLATION = "distillation"  # where a table's metadata describe the teachers


class OutputsToStore:
    """
    What teachers make of whole clips at the student's rate, for [`precompute`].

    Args:
        teachers (`list[DistillationTeacher]`): At least one.
    """

    sampling_rate: int = HEARConfig.sampling_rate
    noun = "outputs"

    def __init__(self, teachers: list[DistillationTeacher]):
        self.teachers = teachers
        names = [teacher.facts.name for teacher in teachers]
        self.metadata: dict[str, Any] = {"names": names, DISTILLATION: [describe(teacher) for teacher in teachers]}

    def read(self, waveforms: list[np.ndarray]) -> list[list[Outputs]]:
        """Returns of each clip the outputs of each teacher."""
        teachers = [clips_of(teacher.read_clips(waveforms), teacher.num_labels > 0) for teacher in self.teachers]
        return [list(clip) for clip in zip(*teachers, strict=True)]

    def columns(self, rows: list[list[Outputs] | None]) -> dict[str, pa.Array]:
        return {OUTPUTS_COLUMN: as_column(rows, len(self.teachers))}


def clips_of(outputs: TeacherOutputs, has_labels: bool) -> list[Outputs]:
    """Takes a batch apart, into arrays of each clip without padding."""
    clips = []
    for i, count in enumerate(outputs.num_frames[:, 0].tolist()):
        values = {
            "clip_embedding": outputs.clip_embedding[i],
            "frames": outputs.frames[i, :count],
            "logits": outputs.logits[i] if has_labels and outputs.logits is not None else torch.zeros(0),
            "num_frames": outputs.num_frames[i],
            "first_center": outputs.first_center[i],
            "step": outputs.step[i],
        }
        clips.append({name: value.float().cpu().numpy() for name, value in values.items()})
    return clips


def describe(teacher: DistillationTeacher) -> dict[str, Any]:
    """What the metadata of a table keep of a teacher."""
    return {
        **vars(teacher.facts),
        "problem_type": teacher.problem_type,
        "labels": list(teacher.id2label.values())[: teacher.num_labels],
        "clip_width": teacher.clip_width,
        "frame_width": teacher.frame_width,
    }


class StoredTeacher(TeacherTargets):
    """
    A teacher whose outputs the clips bring along.

    Args:
        index (`int`): Its place among the stored ones.
        device (`torch.device`): Where the targets are made.
        problem_type (`str`), labels (`list[str]`), clip_width (`int`), frame_width (`int`), **facts:
            As `describe` gives them.
    """

    def __init__(
        self,
        index: int,
        device: torch.device,
        problem_type: str,
        labels: list[str],
        clip_width: int,
        frame_width: int,
        **facts: Any,
    ):
        self.index, self.device, self.facts = index, device, TeacherFacts(**facts)
        self.problem_type, self.id2label, self.num_labels = problem_type, dict(enumerate(labels)), len(labels)
        self.clip_width, self.frame_width = clip_width, frame_width

    def sample(self, clips, num_clips: int) -> Iterator[TeacherOutputs]:
        for row in clips.sample_outputs(num_clips):
            fields = collate_outputs([row])[self.index]
            yield as_teacher_outputs({name: tensor.to(self.device) for name, tensor in fields.items()})


def as_teacher_outputs(fields: dict[str, torch.Tensor]) -> TeacherOutputs:
    """Makes the outputs of a batch of what `collate_outputs` gives."""
    outputs = TeacherOutputs(**fields)
    return outputs if fields["logits"].shape[1] > 0 else replace(outputs, logits=None)


def load_stored_teachers(args: DistillationDataArguments, device: torch.device) -> list[TeacherTargets]:
    """
    Reads from the tables which teachers' outputs they hold.

    Raises:
        `ValueError`: They hold none, or not all the same.
    """
    metadata = teacher_metadata([*(args.train_file or []), *(args.validation_file or [])])
    if DISTILLATION not in metadata:
        raise ValueError(
            "`stored_teachers` must come with tables in `train_file` that `precompute_teacher.py --for_distillation` "
            "made, found none. Make them, or name teachers by `teacher_name_or_path`."
        )
    return [StoredTeacher(i, device, **description) for i, description in enumerate(metadata[DISTILLATION])]
