"""Distillation of a whole HEAR from one or several teachers, on unlabelled audio.

Teachers and student hear the same waveforms: crops, gains and mixtures are made first. All losses are means over the
clips of a step. The projectors, which bring the student's embeddings to the teachers' widths, are not part of the
model that a run leaves.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from .. import HEARConfig
from ..arguments import option
from ..data.clips import LABELS_COLUMN, PretrainingClips, StreamedClips
from ..data.mixtures import MixtureArguments, centre, draw, vary, widen
from ..data.teacher_outputs import OUTPUTS_COLUMN
from ..data.teacher_states import NUM_STATISTICS_CLIPS
from ..frame_head_hear import pool_frame_logits
from ..frames_hear import num_encoder_frames
from .averaging import WeightAverage
from .distillation_students import Student
from .distillation_teachers import (
    DistillationTeacher,
    TeacherTargets,
    first_labelled,
    save_statistics,
)
from .pretraining import PretrainingArguments, PretrainingTrainer
from .stored_teachers import StoredTeacher, as_teacher_outputs
from .student_probe import StudentProbe
from .teacher_readers import TeacherOutputs, TimedFrames, is_frame_classifier

PROJECTORS_NAME = "projectors.safetensors"
UNAVERAGED_NAME = "unaveraged.safetensors"  # in a checkpoint whose model and projectors are averages
CENTRED_SHARE = 0.5  # of the training clips that teachers hear in silence, the model hears so too


@dataclass
class DistillationArguments(PretrainingArguments):
    """TrainingArguments whose defaults suit distillation, and the weights of its losses."""

    output_dir: str = option(default="runs/distilled", help="The folder for the model and its report.")
    learning_rate: float = option(default=1e-3, help="Peak learning rate.")
    num_train_epochs: float = option(default=5.0, help="Passes over the clips.")
    label_loss_weight: float = option(
        default=0.3, help="Weight of the cross entropy to the teacher's labels, summed over them."
    )
    label_temperature: float = option(
        default=2.0, help="Divide the logits by this where the teacher's labels share a softmax (arXiv:1503.02531)."
    )
    true_label_loss_weight: float = option(
        default=0.3, help="Weight of the cross entropy to the labels that clips have, summed over them."
    )
    label_window_seconds: float = option(
        default=2.0,
        help="With `frame_labels`: let a teacher of whole clips name what is in windows of this length, a quarter of "
        "it apart.",
    )
    clip_embedding_loss_weight: float = option(
        default=2.0, help="Weight of the cosine distance to each teacher's embedding of the clip."
    )
    frame_embedding_loss_weight: float = option(
        default=2.0, help="Weight of the cosine distance to each teacher's time-resolved embedding."
    )
    num_statistics_clips: int = option(
        default=NUM_STATISTICS_CLIPS, help="Measure the teachers on this many clips before the training."
    )
    ema_decay: float | None = option(
        default=None,
        help="Evaluate and save an exponential moving average of the weights, of which each step keeps this share, "
        "for example 0.999; by default the weights themselves.",
    )

    def __post_init__(self):
        super().__post_init__()
        if self.ema_decay is not None and not 0 < self.ema_decay < 1:
            raise ValueError(f"`ema_decay` must be above 0 and below 1, found: {self.ema_decay}")
        if self.label_window_seconds < 0.1:
            raise ValueError(f"`label_window_seconds` must be at least 0.1, found: {self.label_window_seconds}")


@dataclass
class LossWeights:
    """The weights of the kinds of losses, and the temperature of a softmax teacher."""

    label: float
    true_label: float
    clip_embedding: float
    frame_embedding: float
    temperature: float = 1.0

    @classmethod
    def of(cls, args: DistillationArguments) -> "LossWeights":
        return cls(
            args.label_loss_weight,
            args.true_label_loss_weight,
            args.clip_embedding_loss_weight,
            args.frame_embedding_loss_weight,
            args.label_temperature,
        )


class DistillationModel(nn.Module):
    """
    The student and, for each teacher, its projectors: waveforms and targets -> losses.

    Args:
        student (`HEARForAudioClassification` or `HEARForAudioFrameClassification`): The model to train.
        teachers (`Sequence[TeacherTargets]`): Decide the widths and the names of the losses.
        weights (`LossWeights`): Of the losses.
    """

    def __init__(self, student: Student, teachers: Sequence[TeacherTargets], weights: LossWeights):
        super().__init__()
        self.student, self.weights = student, weights
        self.has_frame_head = is_frame_classifier(type(student).__name__)
        labelled = first_labelled(teachers)
        self.is_multi_label = labelled is not None and labelled.is_multi_label
        self.names = loss_names(teachers)
        width = student.config.task_hidden_size
        self.projectors = nn.ModuleDict(
            {
                "clip": nn.ModuleList(nn.Linear(3 * width, teacher.clip_width) for teacher in teachers),
                "frame": nn.ModuleList(nn.Linear(width, teacher.frame_width) for teacher in teachers),
            }
        )
        if labelled is None:
            student.classifier.requires_grad_(False)

    @property
    def config(self) -> HEARConfig:
        return self.student.config

    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor,
        clip_targets: list[torch.Tensor],
        frame_targets: list[torch.Tensor],
        covered: list[torch.Tensor],
        teacher_logits: torch.Tensor | None = None,
        true_labels: torch.Tensor | None = None,
        frame_labels: torch.Tensor | None = None,
        labelled_frames: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """
        Args:
            input_values (`torch.Tensor` of shape `(batch_size, num_samples)`): What the teachers heard.
            attention_mask (`torch.Tensor` of shape `(batch_size, num_samples)`): 1 = real sample.
            clip_targets (`list[torch.Tensor]`): Of each teacher, `(batch_size, clip_width)`.
            frame_targets (`list[torch.Tensor]`): Of each teacher, `(batch_size, num_frames, frame_width)`.
            covered (`list[torch.Tensor]`): Of each teacher the frames that it covers, `(batch_size, num_frames)`.
            teacher_logits (`torch.Tensor` of shape `(batch_size, num_labels)`, *optional*): Of the labelled teacher.
            true_labels (`torch.Tensor` of shape `(batch_size, num_labels)`, *optional*):
                1 where a clip has a label, 0 elsewhere; a clip without any is not scored.
            frame_labels (`torch.Tensor` of shape `(batch_size, num_frames, num_labels)`, *optional*):
                Probabilities of that teacher's labels over time, which are then learned in place of the clip's.
            labelled_frames (`torch.Tensor` of shape `(batch_size, num_frames)`, *optional*): The frames that have
                some.

        Returns:
            `dict[str, torch.Tensor]`: The weighted sum `loss`, each loss by its name, and `logits` of the clips.
        """
        outputs = self.student.hear(input_values, attention_mask)
        logits, frame_logits = self.logits(outputs)
        losses: dict[str, torch.Tensor] = {}
        total = torch.zeros((), device=logits.device)
        for i, (clip_name, frame_name) in enumerate(self.names):
            predicted = self.projectors["clip"][i](outputs.pooler_output)  # type: ignore[index]  # a ModuleList
            losses[clip_name] = cosine_distance(predicted, clip_targets[i]).mean()
            predicted = self.projectors["frame"][i](outputs.last_hidden_state)  # type: ignore[index]  # a ModuleList
            scored = covered[i] & outputs.frame_mask
            losses[frame_name] = mean_over_frames(cosine_distance(predicted, frame_targets[i]), scored).mean()
            total = total + self.weights.clip_embedding * losses[clip_name]
            total = total + self.weights.frame_embedding * losses[frame_name]
        if teacher_logits is not None:
            losses["agreement"] = (logits.argmax(-1) == teacher_logits.argmax(-1)).float().mean()
            if frame_labels is None:
                losses["label_loss"] = self.label_loss(logits.float(), teacher_logits)
            else:
                scored = labelled_frames & outputs.frame_mask
                losses["label_loss"] = frame_label_loss(frame_logits.float(), frame_labels, scored)
            total = total + self.weights.label * losses["label_loss"]
        if true_labels is not None:
            losses["true_label_loss"] = self.true_label_loss(logits.float(), true_labels)
            total = total + self.weights.true_label * losses["true_label_loss"]
        return {"loss": total, **losses, "logits": logits}

    def logits(self, outputs: Any) -> tuple[torch.Tensor, Any]:
        """Those of the clips and, where the student scores its frames, of these."""
        student: Any = self.student
        if not self.has_frame_head:
            return student.classifier(outputs.pooler_output), None
        frames = student.frame_classifier(student.dropout(outputs.last_hidden_state))
        return pool_frame_logits(frames, outputs.frame_mask, student.config.frame_pooling), frames

    def label_loss(self, logits: torch.Tensor, teacher_logits: torch.Tensor) -> torch.Tensor:
        """Cross entropy to each label's probability, summed; or of a softmax the divergence at a temperature."""
        if self.is_multi_label:
            probabilities = teacher_logits.sigmoid()
            losses = nn.functional.binary_cross_entropy_with_logits(logits, probabilities, reduction="none")
            return losses.sum(-1).mean()
        temperature = self.weights.temperature
        ours, theirs = (x.div(temperature).log_softmax(-1) for x in (logits, teacher_logits))
        divergence = nn.functional.kl_div(ours, theirs, reduction="batchmean", log_target=True)
        return temperature**2 * divergence  # so that its gradients keep their size (arXiv:1503.02531, 2.1)

    def true_label_loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Cross entropy to labels of 0 or 1, summed; the mean over all clips, of which those without count 0."""
        if self.is_multi_label:
            losses = nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none").sum(-1)
        else:
            losses = -(logits.log_softmax(-1) * labels).sum(-1) / labels.sum(-1).clamp(min=1)
        return (losses * labels.any(-1)).mean()


class DistillationTrainer(PretrainingTrainer):
    """Trains a [`DistillationModel`] on what its teachers make of the clips, and saves the student."""

    args: DistillationArguments

    def __init__(
        self,
        model: DistillationModel,
        *args,
        teachers: Sequence[TeacherTargets],
        mixture_args: MixtureArguments,
        probe: StudentProbe | None = None,
        **kwargs,
    ):
        wrapped: Any = model  # not a model of Transformers itself
        super().__init__(wrapped, *args, **kwargs)
        self.distillation_model, self.student = model, model.student
        self.teachers, self.mixture_args, self.probe = teachers, mixture_args, probe
        unheard = ("mixture_share", "random_shift_seconds", "random_speed", "centre_seconds")
        if isinstance(teachers[0], StoredTeacher) and any(getattr(mixture_args, name) for name in unheard):
            raise ValueError(
                "`stored_teachers` must come without mixtures, shifts, other speeds and silence, which the teachers "
                f"did not hear, found {', '.join(f'{name}={getattr(mixture_args, name)}' for name in unheard)}. Give "
                f"{' '.join(f'--{name} 0' for name in unheard)}."
            )
        if probe is not None and self.eval_dataset is None:
            raise ValueError(
                "`probe_file` must come with held-out clips, at whose evaluation it is read, found none: raise "
                "`validation_share` or give `validation_file`."
            )
        self.labelled = first_labelled(teachers)
        self.average = None if self.args.ema_decay is None else WeightAverage(model, self.args.ema_decay)
        if self.average is not None:
            self.add_callback(self.average)

    def num_codes(self):
        return 0

    def scored(self, batch):
        return batch["attention_mask"].any(-1)  # every clip

    @torch.no_grad()
    def complete(self, inputs):
        if "clip_targets" in inputs:
            return inputs
        waveform, mask = inputs["input_values"], inputs["attention_mask"]
        partners = torch.arange(len(waveform), device=waveform.device)
        rate = self.student.config.sampling_rate
        with torch.autocast(self.args.device.type, enabled=False):
            if self.distillation_model.training:
                waveform, partners = vary(waveform, mask, self.mixture_args, rate)
            heard, heard_mask, before = centre(waveform, mask, round(self.mixture_args.centre_seconds * rate))
            if self.distillation_model.training and self.mixture_args.centre_seconds > 0:
                is_centred = draw(waveform) < CENTRED_SHARE
                waveform = torch.where(is_centred, heard, widen(waveform, heard.shape[1]))
                mask = torch.where(is_centred, heard_mask, widen(mask, heard.shape[1]))
                before = before * ~is_centred
            outputs = self.teacher_outputs(heard, heard_mask, inputs.get(OUTPUTS_COLUMN))
            over_time = self.labels_over_time(outputs, heard, heard_mask)
            outputs = [replace(out, first_center=out.first_center - before / rate) for out in outputs]
        num_frames = num_encoder_frames(waveform.shape[1], self.student.config.hop_length)
        targets = [teacher.targets(out, num_frames) for teacher, out in zip(self.teachers, outputs, strict=True)]
        clip_targets, frame_targets, covered = (list(parts) for parts in zip(*targets, strict=True))
        completed = {"input_values": waveform, "attention_mask": mask, "clip_targets": clip_targets}
        completed |= {"frame_targets": frame_targets, "covered": covered}
        if self.labelled is not None:
            completed["teacher_logits"] = outputs[self.teachers.index(self.labelled)].logits
        if over_time is not None:
            over_time = replace(over_time, first_center=over_time.first_center - before / rate)
            completed["frame_labels"], completed["labelled_frames"] = over_time.at_encoder_frames(num_frames)
        if "label_ids" in inputs and self.labelled is not None:
            labels = multi_hot(inputs["label_ids"], self.labelled.num_labels)
            is_known = (labels.any(-1) & labels[partners].any(-1)).unsqueeze(-1)
            completed["true_labels"] = labels.maximum(labels[partners]) * is_known  # of a mixture, if both have some
        return completed

    def teacher_outputs(
        self, waveform: torch.Tensor, mask: torch.Tensor, stored: list[dict[str, torch.Tensor]] | None
    ) -> list[TeacherOutputs]:
        if stored is not None:
            return [as_teacher_outputs(fields) for fields in stored]
        return [teacher(waveform, mask) for teacher in self.teachers if isinstance(teacher, DistillationTeacher)]

    def labels_over_time(
        self, outputs: list[TeacherOutputs], waveform: torch.Tensor, mask: torch.Tensor
    ) -> TimedFrames | None:
        """What the labelled teacher hears when; `None` where the model does not learn it, or tables do not hold it."""
        teacher = self.labelled
        if not (self.distillation_model.has_frame_head and isinstance(teacher, DistillationTeacher)):
            return None
        of_clips = outputs[self.teachers.index(teacher)]
        return teacher.labels_over_time(of_clips, waveform, mask, self.args.label_window_seconds)

    def logged(self, inputs, outputs):
        return {name: value for name, value in outputs.items() if name not in ("loss", "logits")}, None

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """Returns, beside the loss, the logits of student and teacher."""
        inputs = self.complete(self._prepare_inputs(inputs))
        with torch.no_grad(), self.compute_loss_context_manager():
            loss, outputs = self.compute_loss(model, inputs, return_outputs=True)
        if self.labelled is None or prediction_loss_only:
            return loss.detach(), None, None
        return loss.detach(), outputs["logits"].float(), inputs["teacher_logits"]

    def averaged(self) -> AbstractContextManager[None]:
        """Gives the model its averaged weights within the context, if these are wanted."""
        return nullcontext() if self.average is None else self.average.swapped_in()

    def evaluation_loop(
        self, dataloader, description, prediction_loss_only=None, ignore_keys=None, metric_key_prefix="eval"
    ):
        with self.averaged():
            output = super().evaluation_loop(
                dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
            )
            probed = {} if self.probe is None else self.probe(self.student.hear, self.args.eval_batch_size)
        probed = {f"{metric_key_prefix}_{name}": score for name, score in probed.items()}
        return output._replace(metrics=(output.metrics or {}) | probed)

    def _save(self, output_dir=None, state_dict=None):
        """Saves the student as the model, and in a checkpoint its projectors and what is averaged beside it."""
        whole, folder = self.model, Path(str(output_dir or self.args.output_dir))
        is_checkpoint = self.args.should_save and folder.name.startswith(PREFIX_CHECKPOINT_DIR)
        self.model = self.student
        try:
            with self.averaged():
                super()._save(str(folder))
                if is_checkpoint:
                    save_file(self.distillation_model.projectors.state_dict(), folder / PROJECTORS_NAME)
                    save_statistics(self.teachers, folder)
        finally:
            self.model = whole
        if is_checkpoint and self.average is not None:
            save_file(self.distillation_model.state_dict(), folder / UNAVERAGED_NAME)

    def _load_from_checkpoint(self, resume_from_checkpoint, model=None):
        folder = Path(resume_from_checkpoint)
        self.student.load_state_dict(load_file(folder / "model.safetensors"))
        self.distillation_model.projectors.load_state_dict(load_file(folder / PROJECTORS_NAME))
        if self.average is not None:
            self.average.restart()
            if (folder / UNAVERAGED_NAME).exists():
                self.distillation_model.load_state_dict(load_file(folder / UNAVERAGED_NAME))

    def _load_best_model(self):
        self._load_from_checkpoint(self.state.best_model_checkpoint)


def loss_names(teachers: Sequence[TeacherTargets]) -> list[tuple[str, str]]:
    """The names of each teacher's losses, with a number where it is not the only one of its name."""
    names = [teacher.facts.name.rpartition("/")[2] for teacher in teachers]
    names = [f"{name}_{i}" if names.count(name) > 1 else name for i, name in enumerate(names, start=1)]
    return [(f"clip_embedding_loss_{name}", f"frame_embedding_loss_{name}") for name in names]


def multi_hot(label_ids: torch.Tensor, num_labels: int) -> torch.Tensor:
    """Indices padded by -1, (B, any) -> 0 or 1 for each label, (B, num_labels)"""
    columns = torch.zeros(len(label_ids), num_labels + 1, device=label_ids.device)
    return columns.scatter(1, label_ids + 1, 1.0)[:, 1:]


def cosine_distance(predicted: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """1 less the cosine, in float32: (..., D) -> (...)"""
    return 1 - nn.functional.cosine_similarity(predicted.float(), target.float(), dim=-1)


def mean_over_frames(values: torch.Tensor, scored: torch.Tensor) -> torch.Tensor:
    """Mean over the scored frames of each clip, 0 where there are none: (B, n) -> (B,)"""
    return (values * scored).sum(-1) / scored.sum(-1).clamp(min=1)


def frame_label_loss(logits: torch.Tensor, probabilities: torch.Tensor, scored: torch.Tensor) -> torch.Tensor:
    """Cross entropy to each label's probability, summed; the mean over each clip's scored frames: (B, n, L) -> ()"""
    losses = nn.functional.binary_cross_entropy_with_logits(logits, probabilities, reduction="none")
    return mean_over_frames(losses.sum(-1), scored).mean()


def use_labels(clips: PretrainingClips | StreamedClips | None, labelled: TeacherTargets | None) -> None:
    """Lets clips bring along their labels, which the teacher must know, if they have any."""
    if not isinstance(clips, PretrainingClips) or LABELS_COLUMN not in clips.dataset.column_names:
        return
    if labelled is None:
        raise ValueError(
            "`label_column_name` must come with a teacher that has labels, found none. Fine-tune on your labels after "
            "the distillation."
        )
    clips.use_labels({name: index for index, name in labelled.id2label.items()})
