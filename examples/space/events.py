"""Events from probabilities of frames: what is heard from when to when. It needs neither PyTorch nor a model."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

ENCODER_FRAME_SECONDS = 0.02
# Frame t spans the spectrogram frames 2t and 2t + 1, which are centred at 20 t ms and 20 t + 10 ms.
FIRST_FRAME_SECONDS = 0.005
DEFAULT_THRESHOLD = 0.5
SPANS_AT_ONCE = 256  # each is copied: 25 MB of a median over 51 frames and 500 labels


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


def frame_boundary(frame: int) -> float:
    """Where a frame of 20 ms begins, and the one before it ends, in seconds."""
    return round(max(FIRST_FRAME_SECONDS + ENCODER_FRAME_SECONDS * (frame - 0.5), 0.0), 3)


def frame_boundaries(num_frames: int) -> np.ndarray:
    """Where frames of 20 ms begin, and where the last one ends, in seconds: (num_frames + 1,)."""
    return np.array([frame_boundary(frame) for frame in range(num_frames + 1)])


def median_filter(probabilities: np.ndarray, num_frames: int) -> np.ndarray:
    """Takes the median over an odd number of frames around each, of (n, num_labels); the ends are repeated."""
    if num_frames == 1 or len(probabilities) == 0:
        return probabilities
    padded = np.pad(probabilities, ((num_frames // 2, num_frames // 2), (0, 0)), mode="edge")
    return _medians(padded, num_frames)


def _medians(probabilities: np.ndarray, num_frames: int) -> np.ndarray:
    """The medians of all spans of so many frames, (n - num_frames + 1, num_labels)."""
    if len(probabilities) < num_frames:
        return probabilities[:0]
    spans = np.lib.stride_tricks.sliding_window_view(probabilities, num_frames, axis=0)
    return np.concatenate(
        [np.median(spans[i : i + SPANS_AT_ONCE], axis=-1) for i in range(0, len(spans), SPANS_AT_ONCE)]
    )


class EventTracker:
    """
    Finds the events of a stream of frames: runs whose probability is at least that of the label's threshold.

    Args:
        labels (`Sequence[str]`): The names of the labels.
        thresholds (`Sequence[float]`, *optional*): Of each label: the config's `event_thresholds`; 0.5 by default.
        median_frames (`int`, *optional*, defaults to 1): The config's `event_median_frames`. Events are known half of
            them later.

    Raises:
        `ValueError`: The numbers of labels and thresholds differ, or `median_frames` is even.
    """

    def __init__(self, labels: Sequence[str], thresholds: Sequence[float] | None = None, median_frames: int = 1):
        thresholds = [DEFAULT_THRESHOLD] * len(labels) if thresholds is None else thresholds
        if len(labels) != len(thresholds):
            raise ValueError(
                f"There must be a threshold for each label, found: {len(thresholds)} for {len(labels)} labels. Choose "
                "thresholds for these labels, or none."
            )
        if median_frames < 1 or median_frames % 2 == 0:
            raise ValueError(f"`median_frames` must be odd and positive, found: {median_frames}.")
        self.labels, self.thresholds, self.median_frames = list(labels), np.asarray(thresholds), median_frames
        self._reset()

    def _reset(self) -> None:
        self._unsettled: np.ndarray | None = None  # frames whose median needs later ones, and those before them
        self._num_settled = 0
        self._heard = np.zeros(len(self.labels), dtype=bool)
        self._first = np.zeros(len(self.labels), dtype=np.int64)  # frame of what is heard
        self._highest = np.zeros(len(self.labels))

    def push(self, probabilities: np.ndarray) -> list[HEAREvent]:
        """
        Adds the next frames.

        Args:
            probabilities (`np.ndarray` of shape `(num_frames, num_labels)`): Of frames of 20 ms.

        Returns:
            `list[HEAREvent]`: The events that ended, in the order of their starts.
        """
        if probabilities.shape[1:] != (len(self.labels),):
            raise ValueError(
                f"`probabilities` must have shape (num_frames, {len(self.labels)}), found: {probabilities.shape}."
            )
        if len(probabilities) == 0:
            return []
        if self._unsettled is None:
            self._unsettled = np.repeat(probabilities[:1], self.median_frames // 2, axis=0)
        rows = np.concatenate([self._unsettled, probabilities])
        settled = rows if self.median_frames == 1 else _medians(rows, self.median_frames)
        self._unsettled = rows[len(settled) :]
        return self._settle(settled)

    def finish(self) -> list[HEAREvent]:
        """Returns the events that are still heard at the end; the next frames begin a new stream."""
        events = []
        if self._unsettled is not None and len(self._unsettled):
            events = self.push(np.repeat(self._unsettled[-1:], self.median_frames // 2, axis=0))
        events += [self._event(label, self._num_settled) for label in np.flatnonzero(self._heard).tolist()]
        self._reset()
        return in_order(events)

    def _settle(self, rows: np.ndarray) -> list[HEAREvent]:
        heard, events, starts = rows >= self.thresholds, [], np.zeros(len(self.labels), dtype=np.int64)
        before = np.concatenate([self._heard[None], heard[:-1]])
        for row, label in np.argwhere(heard != before).tolist():
            if heard[row, label]:
                starts[label], self._first[label], self._highest[label] = row, self._num_settled + row, 0.0
            else:
                self._update(label, rows[starts[label] : row, label])
                events.append(self._event(label, self._num_settled + row))
        self._heard = heard[-1] if len(heard) else self._heard
        for label in np.flatnonzero(self._heard).tolist():
            self._update(label, rows[starts[label] :, label])
        self._num_settled += len(rows)
        return in_order(events)

    def _update(self, label: int, probabilities: np.ndarray) -> None:
        self._highest[label] = max(self._highest[label], probabilities.max(initial=0.0))

    def _event(self, label: int, stop: int) -> HEAREvent:
        start, end = frame_boundary(int(self._first[label])), frame_boundary(stop)
        return HEAREvent(start, end, self.labels[label], float(self._highest[label]))


def in_order(events: list[HEAREvent]) -> list[HEAREvent]:
    return sorted(events, key=lambda event: (event.start, event.label))


def find_events(
    probabilities: np.ndarray,
    labels: Sequence[str],
    thresholds: Sequence[float] | None = None,
    median_frames: int = 1,
) -> list[HEAREvent]:
    """
    Finds the events of a clip, as [`EventTracker`] does of a stream.

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
    tracker = EventTracker(labels, thresholds, median_frames)
    return in_order(tracker.push(probabilities) + tracker.finish())
