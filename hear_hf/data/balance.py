"""Balanced sampling: how often clips of each source are drawn, where sources differ in size."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np

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
    """

    def __init__(self, sources: np.ndarray, weights: np.ndarray):
        self.clips = [np.flatnonzero(sources == index) for index in range(len(weights))]
        ends = np.round(np.cumsum(weights / weights.sum()) * len(sources)).astype(int)
        self.counts = np.diff(ends, prepend=0).tolist()

    def draw(self, rng: np.random.Generator) -> Iterator[tuple[int, int]]:
        """Yields the index of each clip of an epoch, and how often the epoch has drawn it before."""
        drawn = [_in_turns(clips, count, rng) for clips, count in zip(self.clips, self.counts, strict=True)]
        indices, turns = np.concatenate(drawn, axis=1)[:, rng.permutation(sum(self.counts))].tolist()
        return zip(indices, turns, strict=True)


def _in_turns(clips: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Draws so many clips, all of them before any a second time: (2, count), the indices and their turns."""
    num_turns = -(-count // len(clips))
    orders = [rng.permutation(clips) for _ in range(num_turns)]
    return np.stack([np.concatenate([*orders, clips[:0]])[:count], np.arange(count) // len(clips)])


def balance_sources(
    names: Sequence[str], source_names: Sequence[str], words: Sequence[str], seconds: Callable[[int], float]
) -> SourceBalance:
    """
    Makes the balance that `--source_weights` asks for.

    Args:
        names (`Sequence[str]` of length `num_clips`): The source of each clip.
        source_names (`Sequence[str]` of length `num_sources`): All sources, in the order of the weights.
        words (`Sequence[str]`): `equal`, `sqrt_duration`, or a number for each source.
        seconds (`Callable`): The duration of a clip by its index, 0 where it cannot be used. A source's is estimated
            from at most `NUM_MEASURED` of its clips.

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
    if list(words) == [EQUAL]:
        return SourceBalance(sources, np.ones(len(source_names)))
    if list(words) == [SQRT_DURATION]:
        durations = np.array([_seconds_of(np.flatnonzero(sources == index), seconds) for index in numbers.values()])
        if not durations.all():
            raise ValueError(
                f"Each source must have usable clips, found none among {NUM_MEASURED} of "
                f"{source_names[int(durations.argmin())]!r}. Correct them or leave the source out."
            )
        return SourceBalance(sources, np.sqrt(durations))
    return SourceBalance(sources, _numbers(words, source_names))


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
