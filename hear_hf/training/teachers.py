"""A frozen audio model of Transformers as the quantizer's teacher, run beside it on the same clips."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence
from torch.utils.data import Dataset, IterableDataset
from tqdm.auto import tqdm

from ..arguments import option
from ..evaluation.frozen_encoders import FrozenEncoder, interpolate_frames

NUM_STATISTICS_CLIPS = 256
MIN_DEVIATION = 1e-6


@dataclass
class TeacherArguments:
    """The model to distil from, where the data bring no precomputed `teacher_hidden_states`."""

    teacher_name_or_path: str | None = option(
        default=None,
        help="Any audio model of Transformers, from the Hub or a folder. Without it, nothing is distilled.",
    )
    teacher_layer: int = option(default=-1, help="Which of its `hidden_states`; negative from the end.")
    teacher_revision: str = option(default="main", help="The branch, tag or commit of the teacher.")
    teacher_trust_remote_code: bool = option(default=False, help="Run the code that the teacher brings along.")


class Teacher:
    """
    The hidden states of a frozen model, one for each frame of 20 ms, each component brought to mean 0 and deviation 1.

    A few components of a transformer's states are far larger than the others: a cosine would see them alone.

    Args:
        encoder (`FrozenEncoder`): The model.
        sampling_rate (`int`): Rate of the clips that it will be given, in Hz.
    """

    def __init__(self, encoder: FrozenEncoder, sampling_rate: int):
        self.encoder, self.sampling_rate = encoder, sampling_rate
        self.mean, self.std = torch.zeros(encoder.hidden_size), torch.ones(encoder.hidden_size)

    @property
    def hidden_size(self) -> int:
        return self.encoder.hidden_size

    def standardize(self, clips: Dataset | IterableDataset, whitening: float = 1.0) -> None:
        """Measures mean and deviation on the first clips of a stream, or on clips spread over a data set.

        Components are divided by their deviation to the power `whitening`: 1 makes them equal, 0 only centres them.
        """
        if isinstance(clips, IterableDataset):
            chosen = (clip for clip, _ in zip(clips, range(NUM_STATISTICS_CLIPS), strict=False))
        else:
            indices = np.linspace(0, len(clips) - 1, min(NUM_STATISTICS_CLIPS, len(clips))).astype(int)
            chosen = (clips[int(index)] for index in indices)
        count, total, squares = 0, 0.0, 0.0
        for clip in tqdm(chosen, desc="Measuring the teacher", total=NUM_STATISTICS_CLIPS, leave=False):
            states = self.encoder([clip["input_values"]], self.sampling_rate)[0].cpu().double()
            count, total, squares = count + len(states), total + states.sum(0), squares + states.square().sum(0)
        mean = total / count
        self.mean = mean.float()
        self.std = (squares / count - mean.square()).clamp(min=MIN_DEVIATION**2).sqrt().pow(whitening).float()

    def __call__(self, input_values: torch.Tensor, attention_mask: torch.Tensor, num_frames: list[int]):
        """
        Args:
            input_values (`torch.Tensor` of shape `(batch_size, num_samples)`): Padded waveforms.
            attention_mask (`torch.Tensor` of shape `(batch_size, num_samples)`): 1 = real sample.
            num_frames (`list[int]` of length `batch_size`): Frames of 20 ms of each clip.

        Returns:
            `torch.Tensor` of shape `(batch_size, max(num_frames), hidden_size)`: float32, 0 in padding.
        """
        clips = [x[mask.bool()].float().cpu().numpy() for x, mask in zip(input_values, attention_mask, strict=True)]
        states = self.encoder(clips, self.sampling_rate)
        mean, std = self.mean.to(states[0].device), self.std.to(states[0].device)
        rows = [interpolate_frames((x - mean) / std, n) for x, n in zip(states, num_frames, strict=True)]
        return pad_sequence(rows, batch_first=True).to(input_values.device)
