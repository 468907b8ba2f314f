"""Augmentation of labelled waveforms: random crop, speed, shift, noise, gain and mixup. SpecAugment is the model's.

All draws come from torch's generator, which Trainer seeds and restores when it resumes.
"""

from dataclasses import dataclass

import numpy as np
import soxr
import torch

from ..arguments import option
from .unusable import MIN_SECONDS


@dataclass
class AugmentationArguments:
    """How to vary the training clips."""

    max_length_seconds: float | None = option(
        default=None, help="Train on a random crop of this length of each longer clip."
    )
    random_shift_seconds: float = option(
        default=0.0,
        help="Shift each clip in time by up to this much, either way; what leaves at one end enters at the other.",
    )
    random_speed: float = option(
        default=0.0, help="Play each clip faster or slower, and so higher or lower, by up to this share."
    )
    random_noise_db: float | None = option(
        default=None, help="Add white noise that lies at least this much below each clip, and up to 20 dB further."
    )
    random_gain_db: float = option(default=0.0, help="Amplify or attenuate each clip by up to this much.")
    mixup_alpha: float = option(
        default=0.0,
        help="Mix pairs of clips in shares drawn from Beta(alpha, alpha) (arXiv:1710.09412); 0 mixes none.",
    )

    def __post_init__(self):
        if self.max_length_seconds is not None and self.max_length_seconds < MIN_SECONDS:
            raise ValueError(
                f"`max_length_seconds` must be at least {MIN_SECONDS:.4f}, which the model needs, found: "
                f"{self.max_length_seconds}. Give seconds, not milliseconds or samples."
            )
        if not 0 <= self.random_speed < 1:
            raise ValueError(f"`random_speed` must be at least 0 and below 1, found: {self.random_speed}")


def uniform(low: float, high: float) -> float:
    return low + (high - low) * torch.rand(()).item()


def augment(waveform: np.ndarray, sampling_rate: int, args: AugmentationArguments) -> np.ndarray:
    """Crops, plays, shifts, noises and amplifies a clip at random: (num_samples,) -> (about num_samples at most,)."""
    if args.max_length_seconds is not None:
        length = round(args.max_length_seconds * sampling_rate)
        start = int(uniform(0, max(len(waveform) - length, 0) + 1))
        waveform = waveform[start : start + length]
    if args.random_speed > 0:
        waveform = at_speed(waveform, sampling_rate, 1 + uniform(-args.random_speed, args.random_speed))
    if args.random_shift_seconds > 0:
        shift = round(uniform(-args.random_shift_seconds, args.random_shift_seconds) * sampling_rate)
        waveform = np.roll(waveform, shift)
    if args.random_noise_db is not None:
        waveform = waveform + noise_below(waveform, uniform(args.random_noise_db, args.random_noise_db + 20))
    if args.random_gain_db > 0:
        waveform = waveform * np.float32(10 ** (uniform(-args.random_gain_db, args.random_gain_db) / 20))
    return waveform


def at_speed(waveform: np.ndarray, sampling_rate: int, speed: float) -> np.ndarray:
    """Plays a clip at another speed; one that would become too short for the model stays as it is."""
    played = soxr.resample(waveform, sampling_rate, sampling_rate / speed)
    return played if len(played) >= MIN_SECONDS * sampling_rate else waveform


def noise_below(waveform: np.ndarray, decibels: float) -> np.ndarray:
    """White noise (num_samples,) so much below a clip."""
    level = np.sqrt(np.mean(np.square(waveform))) * 10 ** (-decibels / 20)
    return np.float32(level) * torch.randn(len(waveform)).numpy()


def mixup(waveforms: list[np.ndarray], targets: np.ndarray, alpha: float) -> tuple[list[np.ndarray], np.ndarray]:
    """
    Adds to each clip another of the batch, both at the same level, and mixes their targets in the same shares.

    Args:
        waveforms (`list[np.ndarray]` of shape `(num_samples,)`): Clips of any lengths. Each keeps its own.
        targets (`np.ndarray` of shape `(batch_size, num_labels)`): Of each label 0, 1 or a share.
        alpha (`float`): Shape of the Beta distribution. Small values leave most clips nearly pure.

    Returns:
        The mixed clips and their targets, of the same shapes.
    """
    partners = torch.randperm(len(waveforms)).tolist()
    shares = torch.distributions.Beta(alpha, alpha).sample((len(waveforms),)).numpy()
    shares = np.maximum(shares, 1 - shares)  # the clip that gives the length is the louder one
    mixed = [
        _blend(_normalise(waveform), _normalise(waveforms[partner]), share)
        for waveform, partner, share in zip(waveforms, partners, shares, strict=True)
    ]
    shares = shares[:, None].astype(np.float32)
    return mixed, shares * targets + (1 - shares) * targets[partners]


def _normalise(waveform: np.ndarray) -> np.ndarray:
    waveform = waveform - waveform.mean()
    return waveform / max(np.sqrt(np.mean(waveform**2)), 1e-5) * np.float32(0.05)


def _blend(first: np.ndarray, second: np.ndarray, share: float) -> np.ndarray:
    second = np.resize(second, len(first)) if len(second) else second  # repeats a shorter partner
    return (share * first + (1 - share) * second).astype(np.float32)
