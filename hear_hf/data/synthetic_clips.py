"""Tables of clips that programs make: as many hours as asked for, drawn by number, in any number of processes."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from typing import Literal

import numpy as np
from tqdm.auto import tqdm

from ..arguments import option
from .clip_tables import ClipTable, encode_clip
from .workers import map_in_order

SAMPLING_RATE = 16_000
CHUNK = 16  # clips given to a process at a time
MIN_PEAK = 1e-3  # of full scale; what stays below is taken for silence
MAX_PAUSE_SECONDS = 0.3  # before what is heard, and behind it
PEAKS = (0.05, 0.95)  # of full scale, any between them


@dataclass
class SyntheticClipsArguments:
    """How much to make, and where to write it."""

    output_file: str = option(default="clips.parquet", help="Write the clips into this parquet file.")
    hours: float = option(default=10.0, help="Make this many hours of clips.")
    audio_format: Literal["opus", "flac"] = option(
        default="opus", help="Encode in this format; FLAC is faster and takes four times the room."
    )
    seed: int = option(default=0, help="Draw the clips from this seed.")
    num_proc: int = option(default=1, help="Make clips in this many processes.")

    def __post_init__(self):
        if not self.hours > 0:
            raise ValueError(f"`hours` must be above 0, found: {self.hours}")
        if self.num_proc < 1:
            raise ValueError(f"`num_proc` must be at least 1, found: {self.num_proc}")


@dataclass
class SyntheticClip:
    """A clip at 16 kHz, encoded, with its length in seconds and the text of each column."""

    encoded: bytes
    seconds: float
    texts: dict[str, str]


def trim(samples: np.ndarray) -> np.ndarray:
    """Cuts off silence on both sides, as much as there is."""
    heard = np.flatnonzero(np.abs(samples) > max(MIN_PEAK, 0.002 * np.abs(samples).max(initial=0)))
    return samples[heard[0] : heard[-1] + 1] if len(heard) else samples[:0]


def synthetic_clip(
    samples: np.ndarray, rng: np.random.Generator, audio_format: str, texts: dict[str, str]
) -> SyntheticClip:
    """Encodes samples of shape `(num_samples,)` at 16 kHz, between pauses and as loud as is drawn."""
    samples = np.pad(samples, rng.integers(0, int(MAX_PAUSE_SECONDS * SAMPLING_RATE), 2))
    samples = samples * np.exp(rng.uniform(*np.log(PEAKS))) / np.abs(samples).max()
    return SyntheticClip(encode_clip(samples, SAMPLING_RATE, audio_format), len(samples) / SAMPLING_RATE, texts)


def write_synthetic_clips(
    args: SyntheticClipsArguments, make: Callable[[int], SyntheticClip], columns: tuple[str, ...], doing: str
) -> int:
    """
    Writes clips until they last as long as asked for.

    Args:
        args (`SyntheticClipsArguments`): How much, and where to.
        make (`Callable`): Gives the clip of a number, always the same.
        columns (`tuple[str, ...]`): The columns of text beside `audio`.
        doing (`str`): What the progress bar says, one word.

    Returns:
        `int`: The number of clips.
    """
    wanted, seconds, num_clips = args.hours * 3600, 0.0, 0
    with (
        ClipTable(args.output_file, SAMPLING_RATE, columns) as table,
        tqdm(total=math.ceil(wanted), desc=doing, unit="s") as progress,
    ):
        for clip in map_in_order(make, count(), args.num_proc, CHUNK):
            table.add(clip.encoded, f"clips/{num_clips:07}.{args.audio_format}", **clip.texts)
            num_clips, seconds = num_clips + 1, seconds + clip.seconds
            progress.update(min(int(seconds), progress.total) - progress.n)
            if seconds >= wanted:
                break
    print(f"{num_clips} clips in {args.output_file}")
    return num_clips
