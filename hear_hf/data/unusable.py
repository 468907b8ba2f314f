"""Clips that cannot be used, and the one policy of all who train or probe.

They are skipped and counted, the first few are named with the reason, and too large a share of them is an error.
"""

import logging
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import numpy as np
from datasets import Dataset
from tqdm.auto import tqdm

from ..arguments import on_one_line
from ..feature_extraction_hear import HEARFeatureExtractor
from .decoding import decode_audio, read_audio

logger = logging.getLogger(__name__)

MAX_UNUSABLE_SHARE = 0.1
MAX_NAMED = 10
RENAMING = "`convmv -f latin1 -t utf8 -r --notest FOLDER`"  # of names that are no UTF-8
# Of labelled clips: 201 samples at 16 kHz, and enough at any higher rate.
MIN_SECONDS = HEARFeatureExtractor().min_num_samples / HEARFeatureExtractor().sampling_rate
LONG_SECONDS = 120  # of a clip: a batch is as long as its longest, and a training step holds all of it
NUM_THREADS = min(8, os.cpu_count() or 1)  # of a check; each holds a whole clip, which may be long
CLIPS_AT_ONCE = 256


class UnusableClip(ValueError):
    """A clip that cannot be decoded, is too short, or lacks what the training needs of it."""


def read_usable(audio: Any, min_seconds: float, sampling_rate: int | None = None) -> tuple[np.ndarray, int]:
    """
    Decodes a clip.

    Args:
        audio (`Any`): What `decode_audio` takes.
        min_seconds (`float`): The shortest clip to accept.
        sampling_rate (`int`, *optional*): The rate to decode to, in Hz; the clip's own by default.

    Returns:
        The samples, float32 of shape `(num_samples,)`, and their rate.

    Raises:
        `UnusableClip`: It cannot be decoded or is too short.
    """
    with errors_of_one_clip():
        if sampling_rate is None:
            samples, sampling_rate = read_audio(audio)
        else:
            samples = decode_audio(audio, sampling_rate)
    check_length(len(samples) / sampling_rate, min_seconds)
    return samples, sampling_rate


@contextmanager
def errors_of_one_clip() -> Iterator[None]:
    """Raises `UnusableClip` for whatever a decoder raises on a broken file: it must not end the run."""
    try:
        yield
    except UnicodeEncodeError as error:
        raise UnusableClip(f"its name must be UTF-8, found another encoding: rename it with {RENAMING}") from error
    except Exception as error:
        raise UnusableClip(str(error)) from error


def check_length(seconds: float, min_seconds: float) -> None:
    if seconds < min_seconds:
        raise UnusableClip(f"it lasts {1000 * seconds:.1f} ms, less than {1000 * min_seconds:.1f} ms")


def decode_usable(audio: Any, min_seconds: float, sampling_rate: int | None = None) -> np.ndarray:
    """Returns the samples of `read_usable` alone."""
    return read_usable(audio, min_seconds, sampling_rate)[0]


def describe(audio: Any, default: str, error: Exception) -> str:
    """Names a clip, by its path where it has one, and says why it is unusable: a line for the terminal."""
    path = audio.get("path") if isinstance(audio, dict) else audio
    name = path if isinstance(path, str) and path else default
    return on_one_line(f"{name}: {str(error).removeprefix(f'{name} ')}")


def warn_of_skipped(description: str, num_unusable: int) -> None:
    """Names a clip as it is skipped, if it is one of the first few."""
    if num_unusable <= MAX_NAMED:
        more = " Further ones are only counted." if num_unusable == MAX_NAMED else ""
        logger.warning(f"Skipping {description.rstrip('.')}.{more}")


def refuse_too_many(
    num_unusable: int, num_read: int, max_share: float, descriptions: Iterable[str], min_read: int = 0
) -> None:
    """
    Raises an error that names some unusable clips where more than a share of the clips is so.

    Args:
        num_unusable (`int`): Number of clips that were found unusable.
        num_read (`int`): Number of clips that were read.
        max_share (`float`): The largest share to accept.
        descriptions (`Iterable[str]`): Of some of them, as `describe` gives them.
        min_read (`int`, *optional*, defaults to 0): Count the share as if at least this many clips had been read.
    """
    if num_unusable > max_share * max(num_read, min_read):
        raise ValueError(
            f"At most {max_share:.0%} of the clips may be unusable, found {num_unusable} of {num_read} read:\n"
            + "\n".join(descriptions)
            + "\nCorrect or remove them, or raise --max_unusable_share."
        )


def skip_unusable(splits: dict[str, Dataset], max_share: float) -> dict[str, Dataset]:
    """
    Decodes every clip once, at its own rate, and leaves out those that cannot be used.

    Args:
        splits (`dict[str, Dataset]`): Each with the undecoded column `audio`.
        max_share (`float`): Of all clips together; more unusable ones are an error.

    Returns:
        `dict[str, Dataset]`: The splits of the other clips; a warning counts and names what is missing.

    Raises:
        `ValueError`: Too many are unusable.
    """
    unusable = {split: _find_unusable(dataset, split) for split, dataset in splits.items()}
    descriptions = [description for found in unusable.values() for description in found.values()]
    if not descriptions:
        return splits
    num_clips = sum(map(len, splits.values()))
    named = descriptions[:MAX_NAMED] + ["..."] * (len(descriptions) > MAX_NAMED)
    refuse_too_many(len(descriptions), num_clips, max_share, named)
    listed = "\n".join(named)
    logger.warning(f"Skipped {len(descriptions)} of {num_clips} clips, which cannot be used:\n{listed}")
    return {
        split: dataset.select([index for index in range(len(dataset)) if index not in unusable[split]])
        for split, dataset in splits.items()
    }


def _find_unusable(dataset: Dataset, split: str) -> dict[int, str]:
    """Descriptions of the unusable clips by their index; a very long one to train on is warned of."""
    found, longest = {}, (0.0, "")
    with ThreadPoolExecutor(NUM_THREADS) as pool, tqdm(total=len(dataset), desc=f"Checking {split}") as progress:
        for start in range(0, len(dataset), CLIPS_AT_ONCE):
            clips = dataset[start : start + CLIPS_AT_ONCE]["audio"]
            for index, (audio, result) in enumerate(zip(clips, pool.map(_check, clips), strict=True), start):
                if isinstance(result, UnusableClip):
                    found[index] = describe(audio, f"clip {index} of {split}", result)
                else:
                    longest = max(longest, (result, audio["path"] or f"clip {index} of {split}"))
            progress.update(len(clips))
    if split == "train" and longest[0] > LONG_SECONDS:
        logger.warning(
            f"The longest clip lasts {longest[0]:.0f} s: {on_one_line(longest[1])}. In fine-tuning, each step holds "
            "its batch at the length of its longest clip: train on crops with --max_length_seconds, or cut that clip."
        )
    return found


def _check(audio: Any) -> float | UnusableClip:
    """How long a clip lasts in seconds, or why it is unusable."""
    try:
        samples, rate = read_usable(audio, MIN_SECONDS)
    except UnusableClip as error:
        return error
    return len(samples) / rate
