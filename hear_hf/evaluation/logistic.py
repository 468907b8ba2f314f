"""Linear heads on frozen features: standardised logistic regression whose strength is chosen by cross-validation.

The standardisation is folded into the weights, so that a head is one matrix and one vector.
"""

import warnings
from typing import NamedTuple

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from .folds import Division
from .probing import REGULARISATION

DEFAULT_STRENGTH = 0.1  # where there are too few clips to choose
MAX_ITERATIONS = 300
NEVER = -1e3  # the logit of a label that no clip to learn from has


class Head(NamedTuple):
    """Features `(num_clips, width)` -> logits `(num_clips, num_labels)`: `weight` is `(num_labels, width)`."""

    weight: np.ndarray
    bias: np.ndarray

    def __call__(self, features: np.ndarray) -> np.ndarray:
        return features @ self.weight.T + self.bias


class Views(NamedTuple):
    """Features of clips, of which each has one or several views: as it is in its first row, and varied in others.

    `features` are `(num_rows, width)`, and `clips` `(num_rows,)` says which clip each row is of, in rising order.
    """

    features: np.ndarray
    clips: np.ndarray

    @property
    def weights(self) -> np.ndarray:
        """The share of each row in its clip, (num_rows,)."""
        return 1 / np.bincount(self.clips)[self.clips]

    @property
    def originals(self) -> np.ndarray:
        """The clips as they are, (num_clips, width)."""
        return self.features[np.unique(self.clips, return_index=True)[1]]


class CrossValidation(NamedTuple):
    """What cross-validation gave: `strength`, the `logits` of each clip by heads that have not learned from it, and
    of each fold the positions of the `scored` clips.

    The logits of a fold are those of the strength that was best on the other folds, so that none chooses for itself.
    Those of one strength, on one scale, are `logits_of_strength`.
    """

    strength: float
    logits: np.ndarray
    logits_of_strength: np.ndarray
    scored: list[np.ndarray]


def fit_heads(features: np.ndarray, targets: np.ndarray, weights: np.ndarray, strengths: list[float]) -> list[Head]:
    """
    Fits a head for each strength.

    Args:
        features (`np.ndarray` of shape `(num_rows, width)`): What it reads.
        targets (`np.ndarray`):
            Classes `(num_rows,)`, counted from 0, for one multinomial regression; or 0 and 1 `(num_rows, num_labels)`
            for one regression a label.
        weights (`np.ndarray` of shape `(num_rows,)`): How much each row counts.
        strengths (`list[float]`): Of LogisticRegression's C, rising: each fit starts where the last one ended.
    """
    scaler = StandardScaler().fit(features, sample_weight=weights)
    rows = scaler.transform(features).astype(np.float32)
    if targets.ndim == 1:
        parts = [_fit_classes(rows, targets, weights, strengths)]
    else:
        parts = [_fit_label(rows, column, weights, strengths) for column in targets.T]
    heads = []
    for fits in zip(*parts, strict=True):
        weight = np.concatenate([head.weight for head in fits]) / scaler.scale_
        bias = np.concatenate([head.bias for head in fits])
        heads.append(Head(weight, bias - weight @ scaler.mean_))
    return heads


def _fit_classes(rows, targets, weights, strengths) -> list[Head]:
    classes = np.unique(targets)
    heads = []
    for head in _regress(rows, targets, weights, strengths):
        if len(classes) == 2:  # of which scikit-learn gives one row
            head = Head(np.concatenate([-head.weight, head.weight]) / 2, np.concatenate([-head.bias, head.bias]) / 2)
        whole = Head(np.zeros((targets.max() + 1, rows.shape[1])), np.full(targets.max() + 1, NEVER))
        whole.weight[classes], whole.bias[classes] = head
        heads.append(whole)
    return heads


def _fit_label(rows, column, weights, strengths) -> list[Head]:
    if len(np.unique(column)) == 2:
        return _regress(rows, column, weights, strengths)
    return [Head(np.zeros((1, rows.shape[1])), np.array([-NEVER if column[0] else NEVER]))] * len(strengths)


def _regress(rows, targets, weights, strengths) -> list[Head]:
    model, heads = LogisticRegression(max_iter=MAX_ITERATIONS, warm_start=True), []
    for strength in strengths:
        model.C = strength
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)  # then it is but regularised a little more
            model.fit(rows, targets, sample_weight=weights)
        heads.append(Head(model.coef_.astype(np.float64), model.intercept_.astype(np.float64)))
    return heads


def cross_validate(views: Views, targets: np.ndarray, divisions: list[Division]) -> CrossValidation:
    """
    Scores each clip by heads that have not learned from it, and chooses the strength by their mean log loss.

    Args:
        views (`Views`): All clips. Heads learn from all views, and are scored on the clips as they are.
        targets (`np.ndarray`): As `fit_heads` takes them, a row for each clip.
        divisions (`list[Division]`): Positions of the clips to learn from and of those to score, at least two.
    """
    originals, weights = views.originals, views.weights
    logits = np.full((len(REGULARISATION), len(targets), num_labels(targets)), NEVER)
    losses = np.zeros((len(divisions), len(REGULARISATION)))
    for fold, (train, test) in enumerate(divisions):
        rows = np.isin(views.clips, train)
        learned = targets[views.clips[rows]]
        for i, head in enumerate(fit_heads(views.features[rows], learned, weights[rows], REGULARISATION)):
            found = head(originals[test])
            logits[i, test, : found.shape[1]] = found
            losses[fold, i] = log_loss(logits[i, test], targets[test])
    best = logits[0].copy()
    for fold, (_, test) in enumerate(divisions):
        others = np.arange(len(divisions)) != fold
        best[test] = logits[losses[others].mean(0).argmin(), test]
    chosen = losses.mean(0).argmin()
    return CrossValidation(REGULARISATION[chosen], best, logits[chosen], [test for _, test in divisions])


def num_labels(targets: np.ndarray) -> int:
    """How many labels targets have, as `fit_heads` takes them."""
    return int(targets.max()) + 1 if targets.ndim == 1 else targets.shape[1]


def log_loss(logits: np.ndarray, targets: np.ndarray) -> float:
    """Mean cross entropy of classes, or mean binary cross entropy of 0 and 1 per label."""
    if targets.ndim == 2:
        return float((np.logaddexp(0, logits) - targets * logits).mean())
    return float((np.logaddexp.reduce(logits, axis=1) - logits[np.arange(len(targets)), targets]).mean())
