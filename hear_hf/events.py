"""Events from probabilities of frames: what is heard from when to when. It needs neither PyTorch nor a model."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ENCODER_FRAME_SECONDS = 0.02
# Frame t spans the spectrogram frames 2t and 2t + 1, which are centred at 20 t ms and 20 t + 10 ms.
FIRST_FRAME_SECONDS = 0.005
DEFAULT_THRESHOLD = 0.5


@dataclass(frozen=True)
class HEAREvent:
    """
    A sound that was found in a clip.

    Args:
        start (`float`): When it begins, in seconds.
        end (`float`): When it ends.
        label (`str`): What it is.
        score (`float`): The highest probability of its frames.
    """

    start: float
    end: float
    label: str
    score: float


def frame_boundaries(num_frames: int) -> np.ndarray:
    """Where frames of 20 ms begin, and where the last one ends, in seconds: (num_frames + 1,)."""
    return np.maximum(FIRST_FRAME_SECONDS + ENCODER_FRAME_SECONDS * (np.arange(num_frames + 1) - 0.5), 0.0)


def median_filter(probabilities: np.ndarray, num_frames: int) -> np.ndarray:
    """Takes the median over an odd number of frames around each, of (n, num_labels); the ends are repeated."""
    if num_frames == 1 or len(probabilities) == 0:
        return probabilities
    padded = np.pad(probabilities, ((num_frames // 2, num_frames // 2), (0, 0)), mode="edge")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, num_frames, axis=0), axis=-1)


def find_events(
    probabilities: np.ndarray,
    labels: Sequence[str],
    thresholds: Sequence[float] | None = None,
    median_frames: int = 1,
) -> list[HEAREvent]:
    """
    Finds the events of a clip: runs of frames whose probability is at least that of the label's threshold.

    Args:
        probabilities (`np.ndarray` of shape `(num_frames, num_labels)`): Of the clip's frames of 20 ms.
        labels (`Sequence[str]`): The names of the labels.
        thresholds (`Sequence[float]`, *optional*): Of each label: the config's `event_thresholds`; 0.5 by default.
        median_frames (`int`, *optional*, defaults to 1): The config's `event_median_frames`.

    Returns:
        `list[HEAREvent]`: In the order of their starts.

    Raises:
        `ValueError`: The numbers of labels, thresholds and columns differ.
    """
    thresholds = [DEFAULT_THRESHOLD] * len(labels) if thresholds is None else thresholds
    if not len(labels) == len(thresholds) == probabilities.shape[1]:
        raise ValueError(
            f"There must be a probability and a threshold for each label, found: {probabilities.shape[1]} and "
            f"{len(thresholds)} for {len(labels)} labels. Choose thresholds for these labels, or none."
        )
    smooth, bounds, events = median_filter(probabilities, median_frames), frame_boundaries(len(probabilities)), []
    heard = np.pad(smooth >= np.asarray(thresholds), ((1, 1), (0, 0)))
    for index, label in enumerate(labels):
        edges = np.flatnonzero(np.diff(heard[:, index].astype(np.int8)))
        for first, stop in edges.reshape(-1, 2).tolist():
            score = float(smooth[first:stop, index].max())
            events.append(HEAREvent(float(bounds[first]), float(bounds[stop]), label, score))
    return sorted(events, key=lambda event: (event.start, event.label))
