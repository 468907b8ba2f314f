"""Metrics of audio classification as local `evaluate.Metric`s: nothing is downloaded."""

import datasets
import evaluate
import numpy as np
from sklearn.metrics import accuracy_score, average_precision_score, f1_score
from transformers import EvalPrediction

METRIC_NAMES = {"accuracy": "Accuracy", "macro_f1": "Macro-F1", "mean_average_precision": "Mean average precision"}


class _LocalMetric(evaluate.Metric):
    feature = datasets.Value("int64")
    citation = "scikit-learn, https://scikit-learn.org"

    def _info(self):
        features = datasets.Features({"predictions": self.feature, "references": self.feature})
        return evaluate.MetricInfo(
            description=self.__doc__, citation=self.citation, inputs_description="", features=features
        )


class Accuracy(_LocalMetric):
    """Share of clips whose most likely label is the right one."""

    def _compute(self, predictions, references):
        return {"accuracy": float(accuracy_score(references, predictions))}


class MacroF1(_LocalMetric):
    """F1 of each label that occurs, averaged without regard to how often it does."""

    def _compute(self, predictions, references):
        return {"macro_f1": float(f1_score(references, predictions, average="macro", zero_division=0))}


class MeanAveragePrecision(_LocalMetric):
    """Area under the precision-recall curve of each label that occurs, averaged (the mAP of AudioSet)."""

    feature = datasets.Sequence(datasets.Value("float32"))

    def _compute(self, predictions, references):
        scores, targets = np.asarray(predictions), np.asarray(references) > 0.5
        occurring = targets.any(axis=0)
        if not occurring.any():
            return {"mean_average_precision": 0.0}
        value = average_precision_score(targets[:, occurring], scores[:, occurring], average="macro")
        return {"mean_average_precision": float(value)}


def single_label_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Accuracy and macro-F1 of logits `(num_clips, num_labels)` against class indices `(num_clips,)`."""
    predicted = np.argmax(prediction.predictions, axis=-1)
    results = [
        metric.compute(predictions=predicted, references=prediction.label_ids) for metric in (Accuracy(), MacroF1())
    ]
    return {name: value for result in results for name, value in result.items()}


def multi_label_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Mean average precision, and macro-F1 at probability 0.5, of logits against 0 or 1 per label."""
    result = MeanAveragePrecision().compute(predictions=prediction.predictions, references=prediction.label_ids)
    predicted, targets = prediction.predictions > 0, prediction.label_ids > 0.5
    return {**result, "macro_f1": float(f1_score(targets, predicted, average="macro", zero_division=0))}
