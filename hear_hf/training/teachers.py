"""A frozen audio model of Transformers as the quantizer's teacher, run beside it on the same clips."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from tqdm.auto import tqdm

from ..arguments import option
from ..data.teacher_states import TeacherFeatures
from ..evaluation.frozen_encoders import FrozenEncoder


@dataclass
class TeacherArguments:
    """The model to distil from, where the clips bring no `teacher_hidden_states`."""

    teacher_name_or_path: str | None = option(
        default=None,
        help="Any audio model of Transformers, from the Hub or a folder. Without it, nothing is distilled.",
    )
    teacher_layer: int = option(default=-1, help="Which of its `hidden_states`; negative ones count from the end.")
    teacher_revision: str = option(default="main", help="The branch, tag or commit of the teacher.")
    teacher_trust_remote_code: bool = option(default=False, help="Run the code that the teacher brings along.")


def load_encoder(args: TeacherArguments, device: torch.device | None = None) -> FrozenEncoder:
    if args.teacher_name_or_path is None:
        raise ValueError("`teacher_name_or_path` must name an audio model of Transformers, found none.")
    return FrozenEncoder.from_pretrained(
        args.teacher_name_or_path,
        layer=args.teacher_layer,
        device=device,
        revision=args.teacher_revision,
        trust_remote_code=args.teacher_trust_remote_code,
    )


class Teacher:
    """
    Computes the targets that the same model's stored states would give.

    Of a clip longer than the window the model reads the crop alone, where stored states are those of the whole clip.

    Args:
        encoder (`FrozenEncoder`): The model.
        sampling_rate (`int`): Rate of the clips that it will be given, in Hz.
    """

    def __init__(self, encoder: FrozenEncoder, sampling_rate: int):
        self.encoder, self.sampling_rate = encoder, sampling_rate
        self.features = TeacherFeatures(encoder.hidden_size)

    @property
    def hidden_size(self) -> int:
        return self.encoder.hidden_size

    def standardize(self, waveforms: Iterable[np.ndarray], whitening: float = 1.0) -> None:
        """
        Measures mean and deviation of each component: a few are far larger than the others, and a cosine would see
        them alone.

        Args:
            waveforms (`Iterable[np.ndarray]`): Clips of shape `(num_samples,)`.
            whitening (`float`, *optional*, defaults to 1.0): As of [`TeacherFeatures.measure`].
        """
        clips = tqdm(waveforms, desc="Measuring the teacher", unit="clip", leave=False)
        self.features.measure((self.encoder([clip], self.sampling_rate)[0].cpu().numpy() for clip in clips), whitening)

    def __call__(
        self, input_values: torch.Tensor, attention_mask: torch.Tensor, num_frames: list[int]
    ) -> torch.Tensor:
        """
        Computes the targets of a batch.

        Args:
            input_values (`torch.Tensor` of shape `(batch_size, num_samples)`): Padded waveforms.
            attention_mask (`torch.Tensor` of shape `(batch_size, num_samples)`): 1 = real sample.
            num_frames (`list[int]` of length `batch_size`): Frames of 20 ms of each clip.

        Returns:
            `torch.Tensor` of shape `(batch_size, max(num_frames), hidden_size)`: float32, 0 in padding.
        """
        clips = [x[mask.bool()].float().cpu().numpy() for x, mask in zip(input_values, attention_mask, strict=True)]
        rows = []
        for clip, states, n in zip(clips, self.encoder(clips, self.sampling_rate), num_frames, strict=True):
            step = len(clip) / self.sampling_rate / len(states)
            rows.append(self.features.targets(states, step, 0.0, n))
        return pad_sequence(rows, batch_first=True).to(input_values.device)
