"""Shifts, gains and mixtures of the clips of a padded batch, made on its device: student and teachers hear the same.

All draws come from torch's CPU generator, which Trainer seeds and restores when it resumes.
"""

from dataclasses import dataclass

import torch
from torch import nn

from ..arguments import option
from ..frames_hear import frame_mask

SILENCE = 1e-5  # the level, as a root mean square, below which a clip is not amplified to another's


@dataclass
class MixtureArguments:
    """How to vary the training clips, for the student and its teachers alike."""

    random_shift_seconds: float = option(
        default=0.0,
        help="Shift each training clip in time by up to this much, either way; what leaves at one end enters at the "
        "other.",
    )
    random_speed: float = option(
        default=0.0,
        help="Play each training clip faster or slower, and so higher or lower, by up to this share.",
    )
    centre_seconds: float = option(
        default=0.0,
        help="Let the teachers hear each clip shorter than this in the middle of so much silence, without which some "
        "do not know short words. The model hears half of its training clips so, too.",
    )
    random_gain_db: float = option(default=6.0, help="Amplify or attenuate each training clip by up to this much.")
    mixture_share: float = option(
        default=0.5, help="Add another clip of the batch to this share of the training clips."
    )
    mixture_range_db: float = option(
        default=12.0, help="Add it at the clip's own level or up to this much below, at random."
    )

    def __post_init__(self):
        if not 0 <= self.mixture_share <= 1:
            raise ValueError(f"`mixture_share` must be between 0 and 1, found: {self.mixture_share}")
        for name in ("random_shift_seconds", "random_speed", "centre_seconds", "random_gain_db", "mixture_range_db"):
            if getattr(self, name) < 0:
                raise ValueError(f"`{name}` must not be negative, found: {getattr(self, name)}")


def centre(
    waveform: torch.Tensor, attention_mask: torch.Tensor, num_samples: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """
    Puts each shorter clip in the middle of silence.

    Args:
        waveform (`torch.Tensor` of shape `(batch_size, num_samples)`): Clips of any lengths, padded on the right.
        attention_mask (`torch.Tensor` of shape `(batch_size, num_samples)`): 1 = real sample.
        num_samples (`int`): The length that each clip shall have at least.

    Returns:
        Waveforms and mask, where the silence counts as real samples, of the same or the larger width, and how many
        samples of silence precede each clip, `(batch_size, 1)`.
    """
    waveform = widen(waveform, num_samples)
    lengths = attention_mask.sum(-1, keepdim=True)
    wanted = lengths.clamp(min=num_samples)
    before = (wanted - lengths) // 2
    position = torch.arange(waveform.shape[1], device=waveform.device) - before
    is_clip = (position >= 0) & (position < lengths)
    mask = frame_mask(wanted, waveform.shape[1]).to(attention_mask.dtype)
    return waveform.gather(1, position.clamp(0, waveform.shape[1] - 1)) * is_clip, mask, before


def widen(batch: torch.Tensor, num_samples: int) -> torch.Tensor:
    """Pads a narrower batch (B, N) with zeros on the right."""
    return nn.functional.pad(batch, (0, max(num_samples - batch.shape[1], 0)))


def vary(
    waveform: torch.Tensor, attention_mask: torch.Tensor, args: MixtureArguments, sampling_rate: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Shifts, mixes and amplifies clips at random.

    Args:
        waveform (`torch.Tensor` of shape `(batch_size, num_samples)`): Clips of any lengths, padded on the right.
        attention_mask (`torch.Tensor` of shape `(batch_size, num_samples)`): 1 = real sample.
        args (`MixtureArguments`): How much.
        sampling_rate (`int`): Of the clips, in Hz.

    Returns:
        `torch.Tensor` of shape `(batch_size, num_samples)`: Clips of the same lengths, 0 in padding.
        `torch.Tensor` of shape `(batch_size,)`: The clip of the batch that each is mixed with; itself if with none.
    """
    lengths = attention_mask.sum(-1, keepdim=True).clamp(min=1)
    waveform = waveform * frame_mask(lengths, waveform.shape[1])
    if args.random_shift_seconds > 0:
        waveform = shift(waveform, lengths, args.random_shift_seconds * sampling_rate)
    mixed, partners = mix(waveform, lengths, args)
    return mixed * amplitude(args.random_gain_db * (2 * draw(waveform) - 1)), partners


def shift(waveform: torch.Tensor, lengths: torch.Tensor, max_samples: float) -> torch.Tensor:
    """Turns each clip (B, N) within its length by up to so many samples, either way."""
    offsets = (max_samples * (2 * draw(waveform) - 1)).round().long()
    position = (torch.arange(waveform.shape[1], device=waveform.device) - offsets) % lengths
    return waveform.gather(1, position) * frame_mask(lengths, waveform.shape[1])


def mix(waveform: torch.Tensor, lengths: torch.Tensor, args: MixtureArguments) -> tuple[torch.Tensor, torch.Tensor]:
    """Adds to a share of the clips (B, N) another one, at a level drawn for each, repeated to the clip's length."""
    own, partners = (
        torch.arange(len(waveform), device=waveform.device),
        torch.randperm(len(waveform)).to(waveform.device),
    )
    is_mixed, level_db = draw(waveform) < args.mixture_share, -args.mixture_range_db * draw(waveform)
    level = (waveform.square().sum(-1, keepdim=True) / lengths).sqrt()
    position = torch.arange(waveform.shape[1], device=waveform.device) % lengths[partners]
    partner = waveform[partners].gather(1, position) * frame_mask(lengths, waveform.shape[1])
    factor = amplitude(level_db) * level / level[partners].clamp(min=SILENCE)
    return waveform + is_mixed * factor * partner, partners.where(is_mixed[:, 0], own)


def amplitude(decibels: torch.Tensor) -> torch.Tensor:
    return 10 ** (decibels / 20)


def draw(waveform: torch.Tensor) -> torch.Tensor:
    """Uniform numbers, one for each clip: (B, 1)."""
    return torch.rand(len(waveform), 1).to(waveform.device)
