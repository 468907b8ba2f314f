"""Windows of a clip of any length, which is read block by block."""

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from .decoding import decode_audio
from .live import file_blocks
from .unusable import MIN_SECONDS, check_length, errors_of_one_clip


def windows_of(audio: dict[str, Any], sampling_rate: int, size: int, hop: int) -> Iterator[tuple[int, np.ndarray]]:
    """
    Cuts a clip into windows, and never holds all of a file.

    Args:
        audio (`dict`): Of `bytes` and `path`, one of which may be `None`.
        sampling_rate (`int`): The rate to resample to, in Hz.
        size (`int`): Samples of a window; the last one may be shorter.
        hop (`int`): Samples from one window's start to the next one's.

    Yields:
        The first sample of a window, and its samples, float32 of shape `(num_samples,)`. Each window holds samples
        that none before it did; a rest too short for the model is left out.

    Raises:
        `UnusableClip`: It cannot be decoded, perhaps in its middle, or is too short.
    """
    path, min_samples = audio.get("path"), MIN_SECONDS * sampling_rate
    with errors_of_one_clip():
        is_file = audio.get("bytes") is None and path
        blocks = file_blocks(str(path), sampling_rate) if is_file else [decode_audio(audio, sampling_rate)]
        for start, samples in _cut(blocks, size, hop):
            if start == 0:
                check_length(len(samples) / sampling_rate, MIN_SECONDS)
            if len(samples) >= min_samples:
                yield start, samples


def _cut(blocks: Iterable[np.ndarray], size: int, hop: int) -> Iterator[tuple[int, np.ndarray]]:
    start = 0  # of the next window
    held, first = np.zeros(0, np.float32), 0  # samples, and the position of the first of them
    waiting: list[np.ndarray] = []  # joined only once a window is complete
    num_read = 0
    for block in blocks:
        waiting.append(block)
        num_read += len(block)
        if num_read < start + size:
            continue
        held, waiting = np.concatenate([held, *waiting]), []
        while num_read >= start + size:
            yield start, held[start - first : start - first + size]
            start += hop
        num_used = min(start - first, len(held))
        held, first = held[num_used:], first + num_used
    if start == 0 or num_read > max(start, start - hop + size):
        yield start, np.concatenate([held, *waiting])[start - first :]
