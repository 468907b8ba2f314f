"""Events found in probabilities of frames, and their metrics by sed_scores_eval, against cases computed by hand."""

import sys
import tracemalloc

import numpy as np
import pytest

from hear_hf.evaluation.sound_events import Decoding, EventMetrics
from hear_hf.events import EventTracker, HEAREvent, find_events, frame_boundaries, median_filter


def probabilities(*spans, num_frames=100, num_labels=3, low=0.1, high=0.9):
    """`high` in spans of (first frame, one past the last, label), `low` elsewhere."""
    rows = np.full((num_frames, num_labels), low, dtype=np.float32)
    for first, stop, label in spans:
        rows[first:stop, label] = high
    return rows


def truth(*events):
    return [dict(zip(("start", "end", "label"), event, strict=True)) for event in events]


def test_events_are_runs_of_frames_with_their_highest_probability():
    rows = probabilities((0, 10, 0), (20, 30, 0), (25, 100, 2))
    rows[22, 0] = 0.95
    found = find_events(rows, ["a", "b", "c"])
    expected = [(0.0, 0.195, "a", 0.9), (0.395, 0.595, "a", 0.95), (0.495, 1.995, "c", 0.9)]
    for event, (start, end, label, score) in zip(found, expected, strict=True):
        assert isinstance(event, HEAREvent) and event.label == label
        np.testing.assert_allclose((event.start, event.end, event.score), (start, end, score), rtol=1e-6)


def test_thresholds_are_of_labels_and_the_median_filter_comes_first():
    rows = probabilities((10, 30, 0), (10, 30, 1), high=0.4)
    rows[20, :2] = 0.0
    assert [event.label for event in find_events(rows, "abc", [0.3, 0.5, 0.5])] == ["a", "a"]
    (event,) = find_events(rows, "abc", [0.3, 0.5, 0.5], median_frames=5)
    np.testing.assert_allclose((event.start, event.end), (0.195, 0.595))


def test_a_median_filter_keeps_edges_and_ends():
    rows = probabilities((0, 40, 0), (98, 100, 1))
    np.testing.assert_array_equal(median_filter(rows, 5), rows)
    assert median_filter(rows[:0], 5).shape == (0, 3)


def test_the_median_of_a_long_clip_is_that_of_each_frame_s_neighbours():
    rows = np.random.default_rng(0).random((600, 2), np.float32)
    filtered = median_filter(rows, 51)
    assert filtered.shape == rows.shape
    for frame in (0, 24, 256, 300, 599):
        around = rows[np.clip(np.arange(frame - 25, frame + 26), 0, 599)]
        np.testing.assert_array_equal(filtered[frame], np.median(around, axis=0))


def test_a_median_filter_holds_few_windows_at_a_time():
    rows = np.random.default_rng(0).random((10_000, 50)).astype(np.float32)
    tracemalloc.start()
    median_filter(rows, 101)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 101 * rows.nbytes / 10


@pytest.mark.parametrize("median_frames", [1, 5])
@pytest.mark.parametrize("size", [1, 3, 40])
def test_a_stream_of_frames_has_the_events_of_the_whole(size, median_frames):
    rows = np.random.default_rng(0).random((200, 3)).astype(np.float32)
    rows[50:150, 1] = 0.9
    tracker = EventTracker("abc", [0.6, 0.5, 0.7], median_frames)
    found = [event for first in range(0, 200, size) for event in tracker.push(rows[first : first + size])]
    found += tracker.finish()
    expected = find_events(rows, "abc", [0.6, 0.5, 0.7], median_frames)
    assert sorted(found, key=lambda event: (event.start, event.label)) == expected and len(expected) > 5
    smooth = median_filter(rows, median_frames)
    for event in expected:
        first, stop = (round((side + 0.005) / 0.02) for side in (event.start, event.end))
        column = "abc".index(event.label)
        assert event.score == smooth[first:stop, column].max()
        assert (smooth[first:stop, column] >= tracker.thresholds[column]).all()
    assert tracker.finish() == []  # the stream is over


def test_another_number_of_thresholds_is_refused():
    with pytest.raises(ValueError, match="a threshold for each label, found: 2 for 3 labels"):
        find_events(probabilities(), "abc", [0.5, 0.5])


def test_frames_follow_one_another_without_a_gap():
    bounds = frame_boundaries(50)
    assert bounds[0] == 0 and len(bounds) == 51
    np.testing.assert_allclose(np.diff(bounds[1:]), 0.02)


@pytest.fixture
def metrics():
    pytest.importorskip("sed_scores_eval", reason="the metrics need the extra `events`")
    events = [truth((0.2, 0.6, 0), (1.0, 1.4, 2)), truth((0.5, 1.5, 0)), truth()]
    return EventMetrics(events, 3)


GOOD = [probabilities((10, 30, 0), (51, 70, 2)), probabilities((25, 75, 0)), probabilities()]


def test_events_found_where_they_are_score_1(metrics):
    assert metrics(GOOD) == {"event_f1": 1.0, "segment_f1": 1.0, "psds": 1.0}
    assert metrics.event_f1(GOOD) == 1.0


@pytest.mark.parametrize(("late", "expected"), [(8, 1.0), (12, 0.5)], ids=["160 ms", "240 ms"])
def test_both_ends_must_be_within_200_ms(metrics, late, expected):
    moved = [probabilities((10 + late, 30 + late, 0), (51, 70, 2)), probabilities((25, 75, 0)), probabilities()]
    found = metrics(moved, per_label=True)
    assert found["event_f1_by_label"] == {0: expected, 2: 1.0}
    assert found["event_f1"] == (expected + 1) / 2 == metrics.event_f1(moved)


def test_an_event_of_nothing_costs_precision(metrics):
    wrong = [*GOOD[:2], probabilities((10, 30, 0))]  # of label 0: 2 right, 1 wrong
    assert metrics(wrong, per_label=True)["event_f1_by_label"][0] == pytest.approx(0.8)


def test_thresholds_are_chosen_that_find_the_events(metrics):
    quiet = [0.3 * rows for rows in GOOD]
    assert metrics(quiet)["event_f1"] == 0
    decoding = metrics.choose(quiet)
    assert decoding.median_frames == 1 and decoding.thresholds[1] == 0.5  # of a label that never occurs
    assert all(0.03 < decoding.thresholds[label] < 0.27 for label in (0, 2))
    assert metrics(quiet, decoding)["event_f1"] == 1.0
    labels = [event.label for event in find_events(quiet[0], "abc", *decoding)]
    assert labels == ["a", "c"]


def test_a_median_filter_is_chosen_where_probabilities_flicker(metrics):
    flickering = [rows.copy() for rows in GOOD]
    for rows in flickering:
        rows[::6] = 0.1
    decoding = metrics.choose(flickering)
    assert decoding.median_frames > 1
    assert metrics(flickering, decoding)["event_f1"] == 1.0 > metrics(flickering)["event_f1"]


def test_the_metrics_agree_with_the_events_that_are_found(metrics):
    """Those of our own decoding, scored as certain, are those of the probabilities."""
    rng = np.random.default_rng(0)
    rows = [np.clip(rows + 0.4 * rng.normal(size=rows.shape), 0, 1).astype(np.float32) for rows in GOOD]
    decoding = Decoding([0.45, 0.5, 0.55], 9)
    found = []
    for one in rows:
        events, certain = find_events(one, "abc", *decoding), np.zeros_like(one)
        for event in events:
            first, stop = (np.searchsorted(frame_boundaries(100), side - 1e-6) for side in (event.start, event.end))
            certain[first:stop, "abc".index(event.label)] = 1
        found.append(certain)
    ours, theirs = metrics(found), metrics(rows, decoding)
    assert ours["event_f1"] == pytest.approx(theirs["event_f1"])
    assert ours["segment_f1"] == pytest.approx(theirs["segment_f1"])


def test_recordings_without_any_event_are_refused():
    pytest.importorskip("sed_scores_eval", reason="the metrics need the extra `events`")
    with pytest.raises(ValueError, match="need recordings with events, found none"):
        EventMetrics([[], []], 3)


def test_without_the_package_the_error_gives_the_command(monkeypatch):
    monkeypatch.setitem(sys.modules, "sed_scores_eval", None)
    with pytest.raises(ImportError, match=r'pip install "hear_hf\[events\]"'):
        EventMetrics([truth((0.2, 0.6, 0))], 3)
