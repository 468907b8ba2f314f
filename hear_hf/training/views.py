"""Features of clips from a frozen HEAR: of each clip as it is, and of varied views of it."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import torch
from datasets import Dataset
from tqdm.auto import tqdm

from .. import HEARFeatureExtractor, HEARForAudioClassification
from ..arguments import option
from ..data.augmentation import AugmentationArguments, augment
from ..data.decoding import decode_audio
from ..data.surroundings import place
from ..data.unusable import (
    MAX_NAMED,
    MIN_SECONDS,
    UnusableClip,
    decode_usable,
    describe,
    refuse_too_many,
    warn_of_skipped,
)
from ..evaluation.logistic import Views

BATCH_SIZE = 16
BACKGROUND_RANGE_DB = 20.0  # what the taught clips are heard before: at their level or up to so much below


@dataclass
class ViewArguments(AugmentationArguments):
    """How often to read each clip, and how to vary it."""

    num_views: int = option(default=4, help="Read each clip so many times: once as it is, else varied at random.")
    random_shift_seconds: float = option(default=0.1, help="Shift each view in time by up to this much, either way.")
    random_speed: float = option(
        default=0.1, help="Play each view faster or slower, and so higher or lower, by up to this share."
    )
    random_noise_db: float | None = option(
        default=5.0, help="Add white noise that lies at least this much below each view, and up to 20 dB further."
    )

    def __post_init__(self):
        super().__post_init__()
        if self.num_views < 1:
            raise ValueError(f"`num_views` must be at least 1, found: {self.num_views}")
        if self.mixup_alpha:
            raise ValueError(f"`mixup_alpha` must be 0, as each view has its clip's labels, found: {self.mixup_alpha}")


class Reader:
    """
    A frozen HEAR that reads clips: waveforms in, its pooled output out.

    Args:
        model (`HEARForAudioClassification`): It is put into eval mode, on a GPU where there is one.
        feature_extractor (`HEARFeatureExtractor`): The model's.
    """

    def __init__(self, model: HEARForAudioClassification, feature_extractor: HEARFeatureExtractor):
        self.model = model.eval().to("cuda" if torch.cuda.is_available() else "cpu")
        self.feature_extractor, self.sampling_rate = feature_extractor, feature_extractor.sampling_rate

    def read(self, waveforms: Iterable[np.ndarray]) -> np.ndarray:
        """Reads clips of shape (num_samples,) and of any lengths in batches: (num_clips, width)."""
        rows, batch = [], []
        for waveform in waveforms:
            batch.append(waveform)
            if len(batch) == BATCH_SIZE:
                rows.append(self._read_batch(batch))
                batch = []
        return np.concatenate([*rows, self._read_batch(batch)]) if batch else np.concatenate(rows)

    @torch.no_grad()
    def _read_batch(self, waveforms: list[np.ndarray]) -> np.ndarray:
        inputs = self.feature_extractor(waveforms, sampling_rate=self.sampling_rate, padding=True, return_tensors="pt")
        return self.model.hear(**inputs.to(self.model.device)).pooler_output.float().cpu().numpy()


def read_views(
    reader: Reader, clips: Dataset, args: ViewArguments, background: list[np.ndarray], num_samples: int
) -> Views:
    """
    Reads each clip as it is, and varied.

    Args:
        reader (`Reader`): The frozen model.
        clips (`Dataset`): With the undecoded column `audio`.
        args (`ViewArguments`): How often, and how to vary them.
        background (`list[np.ndarray]`): Other sounds, in one of which every view is heard; none by default.
        num_samples (`int`): The length of these views.
    """

    def varied(waveform: np.ndarray) -> np.ndarray:
        view = augment(waveform, reader.sampling_rate, args)
        if not background:
            return view
        other = background[int(torch.randint(len(background), ()))]
        return place(view, other, num_samples, BACKGROUND_RANGE_DB)

    def waveforms() -> Iterator[np.ndarray]:
        for entry in tqdm(clips["audio"], desc="Reading clips", unit="clip"):
            waveform = decode_audio(entry, reader.sampling_rate)
            yield waveform
            yield from (varied(waveform) for _ in range(args.num_views - 1))

    return Views(reader.read(waveforms()), np.repeat(np.arange(len(clips)), args.num_views))


def cut_recordings(
    clips: Dataset, sampling_rate: int, seconds: float, limit: int, max_unusable_share: float, seed: int
) -> tuple[list[np.ndarray], np.ndarray]:
    """
    Joins recordings in random order to a stream, of which it cuts at most `limit` windows.

    Windows that end where a recording does, in silence, would be told from taught clips by that alone.

    Args:
        clips (`Dataset`): Recordings of any lengths, with the undecoded column `audio`. Of a long one so much is
            taken that all of them get their share of the windows.
        sampling_rate (`int`): To which they are decoded, in Hz.
        seconds (`float`): The length of a window.
        limit (`int`): At most this many windows; at least one.
        max_unusable_share (`float`): Raise an error where more of the recordings cannot be read.
        seed (`int`): Decides which windows.

    Returns:
        The windows, and of each of them the number of the recording that it begins in, `(num_windows,)`.
    """
    rng, num_samples = np.random.default_rng(seed), round(seconds * sampling_rate)
    largest = -(-limit // len(clips)) * num_samples
    cut: list[np.ndarray] = []
    numbers: list[int] = []
    unusable: list[str] = []
    rest, begun, num_read = np.zeros(0, np.float32), 0, 0
    for number in tqdm(rng.permutation(len(clips)).tolist(), desc="Reading unknown sounds", unit="clip"):
        audio, num_read = clips[number]["audio"], num_read + 1
        try:
            waveform = decode_usable(audio, MIN_SECONDS, sampling_rate)
        except UnusableClip as error:
            unusable.append(describe(audio, f"recording {number}", error))
            warn_of_skipped(unusable[-1], len(unusable))
            continue
        start = int(rng.integers(max(len(waveform) - largest, 0) + 1))
        begun = begun if len(rest) else number
        rest = np.concatenate([rest, waveform[start : start + largest]])
        while len(rest) >= num_samples and len(cut) < limit:
            cut.append(rest[:num_samples].copy())  # else all of the recording would stay in memory
            numbers.append(begun)
            rest, begun = rest[num_samples:], number
        if len(cut) == limit:
            break
    refuse_too_many(len(unusable), num_read, max_unusable_share, unusable[:MAX_NAMED])
    return (cut, np.array(numbers)) if cut else ([rest], np.array([begun]))
