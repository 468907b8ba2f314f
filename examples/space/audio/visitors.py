"""Clips of strangers, as a public page or endpoint reads them: bounded before they are held in memory."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from .decoding import decode_audio, read_blocks

MIN_SECONDS = 0.1
MAX_SECONDS = 600
SILENT_PEAK = 1e-3  # -60 dB of full scale


def read_clip(path: str | Path, sampling_rate: int) -> np.ndarray:
    """
    Decodes one clip to mono at `sampling_rate`, (num_samples,).

    Raises:
        `ValueError`: It cannot be read, is empty, silent, shorter than `MIN_SECONDS` or longer than `MAX_SECONDS`. The
            message names the file without its folder.
    """
    name = Path(path).name
    try:
        blocks, rate = read_blocks(path, blocks_per_second=1)
        _check_length(name, blocks, rate)  # before hours are held in memory; what the head declares may be wrong
        waveform = decode_audio(path, sampling_rate)
    except (OSError, ValueError) as error:
        raise ValueError(str(error).replace(str(path), name)) from error
    seconds, peak = len(waveform) / sampling_rate, np.abs(waveform).max()
    if seconds < MIN_SECONDS:
        raise ValueError(f"{name} must last at least {MIN_SECONDS} s, found: {seconds:.3f} s.")
    if peak < SILENT_PEAK:
        raise ValueError(f"{name} must hold sound, found: silence (a peak of {peak:.1g} of full scale).")
    return waveform


def _check_length(name: str, blocks: Iterable[np.ndarray], rate: int) -> None:
    seconds = 0.0
    for block in blocks:
        seconds += len(block) / rate
        if seconds > MAX_SECONDS:
            raise ValueError(f"{name} must last at most {MAX_SECONDS // 60} minutes, found: more. Cut it.")
