"""Metrics of audio classification, as `evaluate.Metric`s that need no download."""

import datasets
import evaluate
import numpy as np
from sklearn.metrics import accuracy_score, average_precision_score, f1_score
from transformers import EvalPrediction

METRIC_NAMES = {
    "accuracy": "Accuracy",
    "macro_f1": "Macro-F1",
    "mean_average_precision": "Mean average precision",
    "event_f1": "Event-based F1",
    "segment_f1": "Segment-based F1",
    "psds": "PSDS (scenario 1)",
}


class _LocalMetric(evaluate.Metric):
    feature = datasets.Value("int64")
    citation = "scikit-learn, https://scikit-learn.org"

    def _info(self):
        features = datasets.Features({"predictions": self.feature, "references": self.feature})
        return evaluate.MetricInfo(
            description=self.__doc__, citation=self.citation, inputs_description="", features=features
        )


class Accuracy(_LocalMetric):
    """The share of clips whose most likely label is the true one."""

    def _compute(self, predictions, references):
        return {"accuracy": float(accuracy_score(references, predictions))}


class MacroF1(_LocalMetric):
    """The unweighted mean of the labels' F1 scores, over labels that occur or are predicted."""

    def _compute(self, predictions, references):
        return {"macro_f1": float(f1_score(references, predictions, average="macro", zero_division=0))}


class MeanAveragePrecision(_LocalMetric):
    """The mean area under the precision-recall curve of the labels that occur, as AudioSet's mAP."""

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
    logits, targets = np.asarray(prediction.predictions), np.asarray(prediction.label_ids) > 0.5
    result = MeanAveragePrecision().compute(predictions=logits, references=prediction.label_ids)
    of_labels = [f1_score(*columns, zero_division=0) for columns in zip(targets.T, logits.T > 0, strict=True)]
    return {**result, "macro_f1": float(np.mean(of_labels))}


def teacher_label_metrics(prediction: EvalPrediction) -> dict[str, float]:
    """Mean average precision of a student, where its teacher's likeliest label and all above a half are true."""
    logits, theirs = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
    targets = (theirs > 0) | (theirs == theirs.max(axis=-1, keepdims=True))
    result = MeanAveragePrecision().compute(predictions=logits, references=targets.astype(np.float32))
    return result or {}
