"""Metrics of sound events, by `sed_scores_eval` (arXiv:2201.13148): how well a model says what is heard when.

Needs the package `sed-scores-eval`: `pip install "hear_hf[events]"`.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ..events import DEFAULT_THRESHOLD, frame_boundaries, median_filter

COLLAR_SECONDS = 0.2  # an event is found if its start, and its end, are this near; the end of a long one by its length
COLLARS = {"onset_collar": COLLAR_SECONDS, "offset_collar": COLLAR_SECONDS, "offset_collar_rate": 0.2}
SEGMENT_SECONDS = 1.0
# Of the first scenario of DCASE 2021 to 2023, which asks for good times.
PSDS = {"dtc_threshold": 0.7, "gtc_threshold": 0.7, "alpha_st": 1, "max_efpr": 100}
MEDIAN_FRAMES = (1, 5, 9, 15, 25, 51)  # of 20 ms
CHOICE_DECIMALS = 2  # of probabilities among which thresholds are chosen: thousands of them would take minutes
TIME_DECIMALS = 6  # of seconds; the boundaries of frames are exact in three


def metrics_package() -> Any:
    """Imports `sed_scores_eval`, or says how to install it."""
    try:
        import sed_scores_eval
    except ImportError as error:
        raise ImportError(
            "The metrics of sound events need sed_scores_eval, and the package `sed-scores-eval` is not installed: "
            'pip install "hear_hf[events]"'
        ) from error
    return sed_scores_eval


class Decoding(NamedTuple):
    """How events are found in the probabilities of frames, as the config says it."""

    thresholds: list[float]
    median_frames: int = 1


class EventMetrics:
    """
    Scores the probabilities of frames against the events of a split.

    Labels without an event in the split are left out.

    Args:
        events (`Sequence[Sequence[Mapping]]`): Of each recording its events: `start`, `end` and `label`, a number.
            Those of one label must not touch.
        num_labels (`int`): The number of labels.

    Raises:
        `ImportError`: `sed-scores-eval` is not installed.
        `ValueError`: There is no event.
    """

    def __init__(self, events: Sequence[Sequence[Mapping[str, Any]]], num_labels: int):
        self.package, self.num_labels = metrics_package(), num_labels
        used = sorted({event["label"] for found in events for event in found})
        if not used:
            raise ValueError("The metrics of sound events need recordings with events, found none. Add some.")
        self.columns = {label: f"label_{label}" for label in used}  # names of labels may be anything
        self.truth = {
            str(clip): [(event["start"], event["end"], self.columns[event["label"]]) for event in found]
            for clip, found in enumerate(events)
        }

    def __call__(
        self, probabilities: Sequence[np.ndarray], decoding: Decoding | None = None, per_label: bool = False
    ) -> dict[str, Any]:
        """
        Computes all metrics, each a mean over the labels.

        Args:
            probabilities (`Sequence[np.ndarray]`): Of each recording, `(num_frames, num_labels)`.
            decoding (`Decoding`, *optional*): How to find events; a threshold of 0.5 by default.
            per_label (`bool`, *optional*, defaults to `False`): Whether to add `event_f1_by_label`, a dictionary.

        Returns:
            `dict`: `event_f1` (both ends within 200 ms, the end of a long event within a fifth of its length),
            `segment_f1` (of seconds in which a label is heard) and `psds` (independent of thresholds).
        """
        decoding = decoding or Decoding([DEFAULT_THRESHOLD] * self.num_labels)
        frames, durations = self._frames(probabilities, decoding.median_frames)
        given = {"scores": frames, "ground_truth": self._truth_within(durations)}
        thresholds = {column: decoding.thresholds[label] for label, column in self.columns.items()}
        package = self.package
        by_label = package.collar_based.fscore(**given, threshold=thresholds, **COLLARS, time_decimals=TIME_DECIMALS)[
            0
        ]
        segments = package.segment_based.fscore(
            **given, audio_durations=durations, threshold=thresholds, segment_length=SEGMENT_SECONDS
        )[0]
        psds = package.intersection_based.psds(**given, audio_durations=durations, **PSDS)[0]
        found = {"event_f1": by_label["macro_average"], "segment_f1": segments["macro_average"], "psds": psds}
        result: dict[str, Any] = {name: float(value) for name, value in found.items()}
        if per_label:
            result["event_f1_by_label"] = {label: float(by_label[column]) for label, column in self.columns.items()}
        return result

    def event_f1(self, probabilities: Sequence[np.ndarray]) -> float:
        """Computes the event-based F1 at a threshold of 0.5 alone, of probabilities in hundredths: in a second."""
        rounded = [rows.round(CHOICE_DECIMALS) for rows in probabilities]
        frames, durations = self._frames(rounded, 1)
        scores = self.package.collar_based.fscore(
            frames, self._truth_within(durations), DEFAULT_THRESHOLD, **COLLARS, time_decimals=TIME_DECIMALS
        )[0]
        return float(scores["macro_average"])

    def choose(self, probabilities: Sequence[np.ndarray]) -> Decoding:
        """Chooses, on this split, the median filter and each label's threshold of the best event-based F1."""
        best, best_score = None, -1.0
        probabilities = [rows.round(CHOICE_DECIMALS) for rows in probabilities]
        for width in MEDIAN_FRAMES:
            frames, durations = self._frames(probabilities, width)
            scores, _, _, thresholds, _ = self.package.collar_based.best_fscore(
                frames, self._truth_within(durations), **COLLARS, time_decimals=TIME_DECIMALS
            )
            if scores["macro_average"] > best_score:
                best_score = scores["macro_average"]
                chosen = [
                    thresholds.get(self.columns.get(label), DEFAULT_THRESHOLD) for label in range(self.num_labels)
                ]
                best = Decoding([_usable(threshold) for threshold in chosen], width)
        assert best is not None
        return best

    def _frames(self, probabilities: Sequence[np.ndarray], width: int) -> tuple[dict[str, Any], dict[str, float]]:
        """The tables that the package reads, and the durations of the recordings."""
        from sed_scores_eval.base_modules.scores import create_score_dataframe

        tables, durations, columns = {}, {}, list(self.columns.values())
        for clip, rows in enumerate(probabilities):
            bounds = frame_boundaries(len(rows))
            table = create_score_dataframe(median_filter(rows[:, list(self.columns)], width), bounds, columns)
            # As float32, which the package copies: columns of pandas 3 are read-only, and it refuses such float64.
            tables[str(clip)] = table.astype(dict.fromkeys(columns, np.float32))
            durations[str(clip)] = float(bounds[-1])
        return tables, durations

    def _truth_within(self, durations: dict[str, float]) -> dict[str, list[tuple[float, float, str]]]:
        """The events as far as there are frames, of which the last may end 25 ms before the recording."""
        return {
            clip: [(start, min(end, durations[clip]), label) for start, end, label in found if start < durations[clip]]
            for clip, found in self.truth.items()
        }


def _usable(threshold: float) -> float:
    """A threshold that a config can hold: that of a label without events on the split is infinite."""
    return float(threshold) if 0 <= threshold <= 1 else DEFAULT_THRESHOLD
