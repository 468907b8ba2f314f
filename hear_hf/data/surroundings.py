"""Clips within other sounds, as a stream has them."""

import numpy as np

from .augmentation import uniform

SILENCE = 1e-5  # the level, as a root mean square, below which a sound is not amplified to another's


def place(waveform: np.ndarray, background: np.ndarray, num_samples: int, max_range_db: float) -> np.ndarray:
    """
    Lets a clip be heard at a random place in another sound, below which it never lies.

    Args:
        waveform (`np.ndarray` of shape `(num_clip_samples,)`): The clip. A random part is taken of a longer one.
        background (`np.ndarray` of shape `(num_background_samples,)`): The other sound, repeated to the length.
        num_samples (`int`): The length of the result.
        max_range_db (`float`): The clip is louder than the background by up to this much, at random.

    Returns:
        `np.ndarray` of shape `(num_samples,)`: The mixture, at the level of the clip.
    """
    start = int(uniform(0, abs(len(waveform) - num_samples) + 1))
    level = root_mean_square(waveform) / max(root_mean_square(background), SILENCE)
    mixture = np.resize(background, num_samples) * np.float32(level * 10 ** (-uniform(0, max_range_db) / 20))
    if len(waveform) > num_samples:
        return mixture + waveform[start : start + num_samples]
    mixture[start : start + len(waveform)] += waveform
    return mixture


def root_mean_square(waveform: np.ndarray) -> float:
    return float(np.sqrt(np.mean(np.square(waveform))))
