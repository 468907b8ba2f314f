"""The plots of `hear_hf.training.plots`: names that look like formulas, and runs that logged little or nothing."""

import numpy as np
import pytest
from matplotlib.figure import Figure

from hear_hf.events import HEAREvent
from hear_hf.training.plots import MAX_NAMED_LABELS, plot_confusion_matrix, plot_curves, plot_events


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved."""
    figures, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *args, **kw: figures.append(self) or save(self, *args, **kw))
    return figures


def test_a_label_that_looks_like_a_formula_is_drawn_as_it_is(drawn, tmp_path):
    names = ["$x_$", "$a$", "\\frac"]
    plot_confusion_matrix(np.eye(3, dtype=int), names, tmp_path / "matrix.png")
    axes = drawn[0].axes[0]
    for ticks in (axes.get_xticklabels(), axes.get_yticklabels()):
        assert [tick.get_text() for tick in ticks] == names and not any(tick.get_parse_math() for tick in ticks)


def test_a_metric_that_looks_like_a_formula_is_drawn_as_it_is(drawn, tmp_path):
    plot_curves([{"step": 1, "loss": 3.0}], {"$x_$": {"loss": "of $y_$"}}, tmp_path / "curves.png")
    axes = drawn[0].axes[0]
    assert axes.get_title() == "$x_$" and axes.get_legend().get_texts()[0].get_text() == "of $y_$"


def test_events_of_thousands_of_labels_make_no_picture_of_any_height(drawn, tmp_path):
    events = [HEAREvent(0.1, 0.4, f"${label}$", 0.5) for label in range(2_000)]
    plot_events(
        np.random.default_rng(0).normal(size=16_000), 16_000, {"truth": events, "model": events}, tmp_path / "e.png"
    )
    names = [tick.get_text() for tick in drawn[0].axes[1].get_yticklabels()]
    assert names == [f"${label}$" for label in range(MAX_NAMED_LABELS)] and drawn[0].get_figheight() < 30
    assert drawn[0].axes[1].get_title() == f"{MAX_NAMED_LABELS} of 2000 labels"


def test_a_confusion_matrix_shows_shares_of_each_true_label(drawn, tmp_path):
    plot_confusion_matrix(np.array([[3, 1], [0, 0]]), ["a", "b"], tmp_path / "matrix.png")
    image = drawn[0].axes[0].images[0].get_array()
    np.testing.assert_array_equal(image, [[0.75, 0.25], [0, 0]])


def test_curves_show_what_was_logged_alone(drawn, tmp_path):
    history = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}, {"step": 2, "eval_loss": 2.5}]
    panels = {"Loss": {"loss": "training", "eval_loss": "held out"}, "Accuracy": {"accuracy": "training"}}
    plot_curves(history, panels, tmp_path / "curves.png")
    (axes,) = drawn[0].axes
    lines = {line.get_label(): line.get_xydata().tolist() for line in axes.lines}
    assert axes.get_title() == "Loss" and lines == {"training": [[1, 3], [2, 2]], "held out": [[2, 2.5]]}


def test_a_run_that_logged_nothing_still_leaves_a_plot(tmp_path):
    plot_curves([], {"Loss": {"loss": "training"}}, tmp_path / "curves.png")
    assert (tmp_path / "curves.png").stat().st_size > 0
