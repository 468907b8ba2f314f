"""Balanced sampling: how often sources of unlike size are drawn, and clips of unlike length."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
from tqdm.auto import tqdm

SOURCE_COLUMN = "source"
EQUAL, SQRT_DURATION = "equal", "sqrt_duration"
NUM_MEASURED = 256  # clips of a source that its duration is estimated from


class SourceBalance:
    """
    Draws as many clips as there are, a share of them from each source.

    A source's clips are passed through in random orders, again and again if it is small, in part if it is large.

    Args:
        sources (`np.ndarray` of shape `(num_clips,)`): The index of each clip's source.
        weights (`np.ndarray` of shape `(num_sources,)`): How often to draw from each, up to a common factor.
        clip_weights (`np.ndarray` of shape `(num_clips,)`, *optional*):
            How often to draw each clip, up to a factor of its source. All clips of a source alike by default.
    """

    def __init__(self, sources: np.ndarray, weights: np.ndarray, clip_weights: np.ndarray | None = None):
        self.clips = [np.flatnonzero(sources == index) for index in range(len(weights))]
        clip_weights = np.ones(len(sources)) if clip_weights is None else clip_weights
        self.clip_weights = [clip_weights[clips] for clips in self.clips]
        ends = np.round(np.cumsum(weights / weights.sum()) * len(sources)).astype(int)
        self.counts = np.diff(ends, prepend=0).tolist()

    def draw(self, rng: np.random.Generator) -> Iterator[tuple[int, int]]:
        """Yields the index of each clip of an epoch, and how often the epoch has drawn it before."""
        sources = zip(self.clips, self.clip_weights, self.counts, strict=True)
        drawn = [_in_turns(clips, weights, count, rng) for clips, weights, count in sources]
        indices, turns = np.concatenate(drawn, axis=1)[:, rng.permutation(sum(self.counts))].tolist()
        return zip(indices, turns, strict=True)


def _in_turns(clips: np.ndarray, weights: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draws so many clips, each as often as its weight asks, rounded: (2, count), the indices and their turns."""
    order = rng.permutation(len(clips))
    ends = np.floor(np.cumsum(weights[order]) / weights.sum() * count + rng.random()).astype(int)
    ends[-1] = count  # whatever the sum was rounded to
    times = np.diff(ends, prepend=0)
    return np.stack([np.repeat(clips[order], times), np.concatenate([np.arange(n) for n in times])])


def balance_sources(
    names: Sequence[str],
    source_names: Sequence[str],
    words: Sequence[str],
    seconds: Callable[[int], float],
    clip_weights: str = EQUAL,
) -> SourceBalance:
    """
    Makes the balance that `--source_weights` and `--clip_weights` ask for.

    Args:
        names (`Sequence[str]` of length `num_clips`): The source of each clip.
        source_names (`Sequence[str]` of length `num_sources`): All sources, in the order of the weights.
        words (`Sequence[str]`): `equal`, `sqrt_duration`, or a number for each source.
        seconds (`Callable`): The duration of a clip by its index, 0 where it cannot be used. A source's is estimated
            from at most `NUM_MEASURED` of its clips.
        clip_weights (`str`, *optional*, defaults to `"equal"`): `equal` or `sqrt_duration`, within a source.

    Raises:
        `ValueError`: There is not a positive weight for each source, or a source has no usable clip.
    """
    numbers = {name: index for index, name in enumerate(source_names)}
    sources = np.array([numbers[name] for name in names])
    counts = np.bincount(sources, minlength=len(source_names))
    if not counts.all():
        raise ValueError(
            f"Each source must have clips to train on, found none of {source_names[int(counts.argmin())]!r}. Leave it "
            "out, or train on more clips."
        )
    weights = _source_weights(sources, source_names, words, seconds)
    if clip_weights == EQUAL:
        return SourceBalance(sources, weights)
    durations = np.array(
        [seconds(index) for index in tqdm(range(len(sources)), "Measuring", leave=False, unit="clip")]
    )
    _check_usable(np.bincount(sources, durations), counts, source_names)
    return SourceBalance(sources, weights, np.sqrt(durations))


def _source_weights(
    sources: np.ndarray, source_names: Sequence[str], words: Sequence[str], seconds: Callable[[int], float]
) -> np.ndarray:
    if list(words) == [EQUAL]:
        return np.ones(len(source_names))
    if list(words) != [SQRT_DURATION]:
        return _numbers(words, source_names)
    clips = [np.flatnonzero(sources == index) for index in range(len(source_names))]
    durations = np.array([_seconds_of(of_source, seconds) for of_source in clips])
    _check_usable(durations, np.minimum(np.bincount(sources), NUM_MEASURED), source_names)
    return np.sqrt(durations)


def _check_usable(durations: np.ndarray, num_measured: np.ndarray, source_names: Sequence[str]) -> None:
    if not durations.all():
        index = int(durations.argmin())
        raise ValueError(
            f"Each source must have usable clips, found none among {num_measured[index]} of {source_names[index]!r}. "
            "Correct them or leave the source out."
        )


def _seconds_of(clips: np.ndarray, seconds: Callable[[int], float]) -> float:
    spread = np.linspace(0, len(clips) - 1, min(len(clips), NUM_MEASURED)).astype(int)
    return len(clips) * float(np.mean([seconds(int(index)) for index in clips[spread]]))


def _numbers(words: Sequence[str], source_names: Sequence[str]) -> np.ndarray:
    try:
        weights = np.array([float(word) for word in words])
    except ValueError:
        weights = np.zeros(0)
    if len(weights) != len(source_names) or not (np.isfinite(weights) & (weights > 0)).all():
        raise ValueError(
            f"`source_weights` must be {EQUAL!r}, {SQRT_DURATION!r} or a positive number for each of the "
            f"{len(source_names)} sources {list(source_names)[:10]}, found: {' '.join(map(str, words))}"
        )
    return weights
