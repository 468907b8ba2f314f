"""How a teacher of a whole model reads a batch of waveforms: all at once, or as its feature extractor can.

Shapes: B batch, N samples, T frames of a teacher, n encoder frames (20 ms), D width of a teacher.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from .. import HEARForAudioFrameClassification
from ..evaluation.frozen_encoders import FrozenEncoder
from ..events import ENCODER_FRAME_SECONDS, FIRST_FRAME_SECONDS
from ..frames_hear import frame_mask


@dataclass
class TimedFrames:
    """
    What a teacher gives of a batch over time, in float32.

    Args:
        frames (`torch.Tensor` of shape `(batch_size, num_frames, frame_width)`): Of each of its frames.
        num_frames (`torch.Tensor` of shape `(batch_size, 1)`): How many frames of each clip are valid.
        first_center (`torch.Tensor` of shape `(batch_size, 1)`): Where the first frame is centred, in seconds.
        step (`torch.Tensor` of shape `(batch_size, 1)`): Time from one frame to the next, in seconds.
    """

    frames: torch.Tensor
    num_frames: torch.Tensor
    first_center: torch.Tensor
    step: torch.Tensor

    def at_encoder_frames(self, num_frames: int) -> tuple[torch.Tensor, torch.Tensor]:
        """
        Interpolates between the centres of the teacher's frames, as `TeacherFeatures` does of a single clip.

        Returns:
            The frames at the times of the encoder's, (B, n, D), and a mask of those that the teacher covers, (B, n).
        """
        seconds = FIRST_FRAME_SECONDS + ENCODER_FRAME_SECONDS * torch.arange(num_frames, device=self.frames.device)
        position = (seconds - self.first_center) / self.step  # (B, n)
        is_covered = (position >= -0.5) & (position <= self.num_frames - 0.5)
        position = position.clamp(min=0).minimum((self.num_frames - 1).clamp(min=0))
        left = position.long().minimum((self.num_frames - 2).clamp(min=0))
        right = (left + 1).minimum((self.num_frames - 1).clamp(min=0))
        weight = (position - left).unsqueeze(-1)
        rows = [self.frames.gather(1, i.unsqueeze(-1).expand(-1, -1, self.frames.shape[2])) for i in (left, right)]
        return (1 - weight) * rows[0] + weight * rows[1], is_covered


@dataclass
class TeacherOutputs(TimedFrames):
    """
    All that a teacher gives of a batch: its time-resolved embedding, and what it makes of the whole clips.

    Args:
        clip_embedding (`torch.Tensor` of shape `(batch_size, clip_width)`): One vector per clip.
        logits (`torch.Tensor` of shape `(batch_size, num_labels)`, *optional*): Of a teacher with labels.
        frame_logits (`torch.Tensor` of shape `(batch_size, num_frames, num_labels)`, *optional*): Of one whose labels
            are of its frames.
    """

    clip_embedding: torch.Tensor
    logits: torch.Tensor | None
    frame_logits: torch.Tensor | None = None


class BaseOutputs:
    """Runs a model, with its head if it has one: the outputs of its base model, the logits of clips and of frames.

    Args:
        model (`PreTrainedModel`): Any model; where it has a base model, a hook keeps what that returns.
    """

    def __init__(self, model: PreTrainedModel):
        self.model, self.kept = model, None
        if model.base_model is not model:
            model.base_model.register_forward_hook(self._keep)

    def _keep(self, module, args, output) -> None:
        self.kept = output

    def __call__(self, **inputs) -> tuple[Any, torch.Tensor | None, torch.Tensor | None]:
        outputs = self.model(**inputs)
        base, self.kept = outputs if self.kept is None else self.kept, None
        logits, clip_logits = getattr(outputs, "logits", None), getattr(outputs, "clip_logits", None)
        if clip_logits is not None:
            return base, clip_logits.float(), outputs.logits.float()
        return base, logits.float() if logits is not None and logits.ndim == 2 else None, None


class PaddedReader:
    """Reads a padded batch of waveforms at once, on its device: a model whose outputs say which frames are valid."""

    def __init__(self, model: PreTrainedModel, feature_extractor: Any):
        self.run, self.device = BaseOutputs(model), model.device
        config = model.config
        self.sampling_rate: int = feature_extractor.sampling_rate
        self.min_samples: int = getattr(feature_extractor, "min_num_samples", 1)
        self.has_grid = hasattr(config, "first_frame_center")
        if self.has_grid:
            self.first_center = config.first_frame_center / self.sampling_rate
            self.step = config.inputs_to_logits_ratio / self.sampling_rate

    @staticmethod
    def fits(model: PreTrainedModel, feature_extractor: Any) -> bool:
        """Whether the feature extractor leaves waveforms as they are, and the outputs have a `frame_mask`."""
        rate = feature_extractor.sampling_rate
        clip = probe_clip(rate)
        features = feature_extractor([clip], sampling_rate=rate, return_tensors="pt")
        values = features.get("input_values")
        if values is None or values.shape != (1, len(clip)) or not np.allclose(values[0], clip):
            return False
        with torch.no_grad():
            outputs, *_ = BaseOutputs(model)(input_values=values.to(model.device))
        return getattr(outputs, "frame_mask", None) is not None and frames_of(outputs) is not None

    def __call__(self, waveform: torch.Tensor, lengths: torch.Tensor) -> TeacherOutputs:
        """Reads waveforms (B, N), 0 in padding, of the lengths (B, 1)."""
        lengths = lengths.clamp(min=self.min_samples)
        waveform = torch.nn.functional.pad(waveform, (0, max(self.min_samples - waveform.shape[1], 0)))
        mask = frame_mask(lengths, waveform.shape[1]).long()
        outputs, logits, frame_logits = self.run(input_values=waveform, attention_mask=mask)
        frames, valid = frames_of(outputs).float(), outputs.frame_mask
        pooled = getattr(outputs, "pooler_output", None)
        pooled = mean_of_valid(frames, valid) if pooled is None else pooled.float()
        num_frames = valid.sum(1, keepdim=True)
        if self.has_grid:
            step, first_center = (torch.full_like(num_frames, s, dtype=torch.float32) for s in self.grid())
        else:
            step = lengths / self.sampling_rate / num_frames
            first_center = step / 2
        return TeacherOutputs(frames, num_frames, first_center, step, pooled, logits, frame_logits)

    def grid(self) -> tuple[float, float]:
        return self.step, self.first_center


class EncoderReader:
    """Reads clips by the model's own feature extractor, only those together that it can read so."""

    def __init__(self, model: PreTrainedModel, feature_extractor: Any):
        self.encoder = HeadedEncoder(model, feature_extractor)
        self.sampling_rate, self.device = self.encoder.sampling_rate, self.encoder.device

    def __call__(self, waveform: torch.Tensor, lengths: torch.Tensor) -> TeacherOutputs:
        clips = [row[:length].cpu().numpy() for row, length in zip(waveform, lengths[:, 0].tolist(), strict=True)]
        frames: list[list[torch.Tensor]] = [[] for _ in clips]
        logits: list[list[torch.Tensor]] = [[] for _ in clips]
        for batch, outputs in self.encoder.outputs(clips, self.sampling_rate):
            for i, rows in enumerate(self.encoder.valid_frames(outputs, batch, -1)):
                clip = batch[i][0]
                frames[clip].append(rows)
                if self.encoder.logits is not None:
                    logits[clip].append(self.encoder.logits[i])
        joined = [torch.cat(rows) for rows in frames]
        num_frames = torch.tensor([[len(rows)] for rows in joined], device=self.device)
        step = lengths.to(self.device) / self.sampling_rate / num_frames
        return TeacherOutputs(
            torch.nn.utils.rnn.pad_sequence(joined, batch_first=True),
            num_frames,
            step / 2,
            step,
            torch.stack([rows.mean(0) for rows in joined]),
            torch.stack([torch.stack(rows).mean(0) for rows in logits]) if logits[0] else None,
        )


class HeadedEncoder(FrozenEncoder):
    """A frozen encoder under its head, if it has one: a pass gives hidden states and leaves `logits`."""

    logits: torch.Tensor | None = None

    def __init__(self, model: PreTrainedModel, feature_extractor: Any):
        self.run = BaseOutputs(model) if is_classifier(type(model).__name__) else None
        base: Any = model.base_model
        super().__init__(base, feature_extractor, device=model.device)

    @torch.no_grad()
    def _forward(self, waveforms: list[np.ndarray]):
        if self.run is None:
            return super()._forward(waveforms)
        inputs = self.family.inputs(waveforms, self.model.dtype).to(self.device)
        outputs, self.logits, _ = self.run(**inputs, output_hidden_states=True)
        return outputs


def is_classifier(class_name: str) -> bool:
    return class_name.endswith(("ForAudioClassification", "ForSequenceClassification"))


def is_frame_classifier(class_name: str) -> bool:
    return class_name == HEARForAudioFrameClassification.__name__  # others do not score each label by itself


def probe_clip(sampling_rate: int) -> np.ndarray:
    """A second of noise."""
    return 0.1 * np.random.default_rng(0).standard_normal(sampling_rate).astype(np.float32)


def frames_of(outputs: Any) -> Any:
    """The last hidden states of a model; of a pretrained HEAR, those of its acoustic model."""
    states = getattr(outputs, "last_hidden_state", None)
    return getattr(outputs, "acoustic_hidden_states", None) if states is None else states


def mean_of_valid(frames: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """(B, T, D) and (B, T) -> (B, D)"""
    return (frames * valid.unsqueeze(-1)).sum(1) / valid.sum(1, keepdim=True).clamp(min=1)
