"""What teaching leaves beside its model: figures, a confusion matrix, a model card, and a summary in the terminal."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import confusion_matrix
from transformers import EvalPrediction

from ..arguments import on_one_line
from ..data.labelled import DataArguments
from ..data.sources import describe_source, hub_datasets
from ..evaluation.logistic import CrossValidation
from ..evaluation.metrics import multi_label_metrics, single_label_metrics
from ..sharing.cards import CardFacts, TaughtLabel, TeachingFacts, classifier_card, label_names, score_name
from .few_shot import Lesson, TeachingArguments, thresholds_at
from .plots import plot_confusion_matrix
from .records import check_same_run, in_use, write_record
from .reports import per_label_table
from .views import ViewArguments

# What another lesson in the same folder has in common; how it is taught may change.
SAME = ("kind", "labels", "model_name_or_path", "dataset_name", "data_dir", "train_file")


def report_teaching(
    lesson: Lesson,
    feature_extractor: Any,
    args: TeachingArguments,
    data_args: DataArguments,
    view_args: ViewArguments,
) -> dict[str, Any]:
    """
    Saves the model and its feature extractor with `teaching.json`, `README.md`, and where clips were held out
    `per_label.txt` and, of one label a clip, `confusion_matrix.png`; and prints a summary.

    Returns:
        `dict`: What `teaching.json` holds: mean and standard deviation of each score over the folds, and more.

    Raises:
        `ValueError`: The folder holds another model, or a run is at work there.
    """
    folder = Path(args.output_dir)
    scores, spread = fold_scores(lesson)
    facts = CardFacts(
        lesson.model,
        feature_extractor.sampling_rate,
        title=folder.resolve().name,
        scores=scores,
        split="cross-validated",
        source=describe_source(data_args),
        datasets=hub_datasets(data_args),
        base_model=args.model_name_or_path,
        teaching=teaching_facts(lesson, args, view_args, spread),
    )
    figures = {"scores": scores, **asdict(facts.teaching)} | scores_of_test(lesson)  # type: ignore[arg-type]
    labels = label_names(lesson.model.config)
    record = asdict(args) | asdict(data_args) | asdict(view_args) | {"kind": "teaching", "labels": labels}
    with in_use(folder):
        check_same_run({name: record[name] for name in SAME}, folder)
        lesson.model.save_pretrained(folder)
        feature_extractor.save_pretrained(folder)
        write_record(record, folder)
        (folder / "teaching.json").write_text(json.dumps(figures, indent=2) + "\n", encoding="utf-8")
        classifier_card(facts).save(folder / "README.md")
        if lesson.validation is not None:
            write_held_out(lesson, folder)
    print_summary(lesson, figures, args)
    return figures


def judged(lesson: Lesson, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Held-out logits of some clips, from which the thresholds are subtracted, and their targets."""
    validation: CrossValidation = lesson.validation  # type: ignore[assignment]  # asked for only where there is one
    logits = validation.logits if lesson.thresholds is None else validation.logits_of_strength - lesson.thresholds
    return logits[positions], lesson.labelled.targets[positions]


def metrics_of(logits: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    metrics = single_label_metrics if targets.ndim == 1 else multi_label_metrics
    return metrics(EvalPrediction(logits, targets))


def fold_scores(lesson: Lesson) -> tuple[dict[str, float], dict[str, float]]:
    """Mean and standard deviation of each metric over the folds; none without cross-validation."""
    if lesson.validation is None:
        return {}, {}
    found = [metrics_of(*judged(lesson, positions)) for positions in lesson.validation.scored]
    values = {name: [scores[name] for scores in found] for name in found[0]}
    return (
        {name: float(np.mean(each)) for name, each in values.items()},
        {name: float(np.std(each)) for name, each in values.items()},
    )


def scores_of_test(lesson: Lesson) -> dict[str, Any]:
    if lesson.test_logits is None or lesson.test_targets is None:
        return {}
    return {"test": metrics_of(lesson.test_logits, lesson.test_targets)}


def teaching_facts(
    lesson: Lesson, args: TeachingArguments, view_args: ViewArguments, spread: dict[str, float]
) -> TeachingFacts:
    labelled, folds = lesson.labelled, lesson.validation.scored if lesson.validation else []
    return TeachingFacts(
        labels=label_facts(lesson),
        num_views=view_args.num_views,
        strength=lesson.strength,
        num_folds=len(folds),
        spread=spread,
        num_kept=len(lesson.model.config.id2label or {}) - len(labelled.names),
        num_unknown=int(labelled.unknown.sum()),
        window_seconds=args.window_seconds,
        false_alarm_rate=lesson.model.config.false_alarm_rate,
        measured_rate=measured_rate(lesson, args.false_alarm_rate),
    )


def label_facts(lesson: Lesson) -> list[TaughtLabel]:
    """How many clips each label has, and to which share of the held-out ones it is given."""
    targets = lesson.labelled.targets
    is_label = targets[:, None] == np.arange(len(lesson.labelled.names)) if targets.ndim == 1 else targets == 1
    heard: list[float | None] = [None] * len(lesson.labelled.names)
    if lesson.validation is not None:
        scored = np.concatenate(lesson.validation.scored)
        logits, _ = judged(lesson, scored)
        given = logits == logits.max(1, keepdims=True) if targets.ndim == 1 else logits >= 0
        for index, own in enumerate(is_label[scored].T):
            heard[index] = float(given[own, index].mean()) if own.any() else None
    counts = is_label.sum(0).tolist()
    return [TaughtLabel(*facts) for facts in zip(lesson.labelled.names, counts, heard, strict=True)]


def measured_rate(lesson: Lesson, rate: float) -> float | None:
    """The share of unknown windows in which a label is heard, on average, by thresholds chosen on the other folds."""
    if lesson.validation is None or lesson.thresholds is None:
        return None
    unknown, logits = np.flatnonzero(lesson.labelled.unknown), lesson.validation.logits_of_strength
    alarms = []
    for positions in lesson.validation.scored:
        is_own = np.isin(unknown, positions)
        if is_own.any() and not is_own.all():
            thresholds = thresholds_at(logits[unknown[~is_own]], rate)
            alarms.append((logits[unknown[is_own]] >= thresholds).mean(1))
    return float(np.concatenate(alarms).mean()) if alarms else None


def write_held_out(lesson: Lesson, folder: Path) -> None:
    """Writes what the held-out clips were given, by label."""
    logits, targets = judged(lesson, np.sort(np.concatenate(lesson.validation.scored)))  # type: ignore[union-attr]
    names = lesson.labelled.names
    (folder / "per_label.txt").write_text(per_label_table(logits, targets, names), encoding="utf-8")
    if targets.ndim == 1:
        counts = confusion_matrix(targets, logits.argmax(1), labels=range(len(names)))
        plot_confusion_matrix(counts, names, folder / "confusion_matrix.png")


def print_summary(lesson: Lesson, figures: dict[str, Any], args: TeachingArguments) -> None:
    labelled, folder = lesson.labelled, args.output_dir
    num_clips, num_unknown = int((~labelled.unknown).sum()), int(labelled.unknown.sum())
    others = f", beside {num_unknown} unknown windows" if num_unknown else ""
    print(f"\nTaught {len(labelled.names)} labels by {num_clips} clips{others}.")
    found = [
        f"{score_name(name)} {score:.1%} ± {figures['spread'][name]:.1%}" for name, score in figures["scores"].items()
    ]
    print(f"Cross-validated: {', '.join(found) or 'nothing, as there are too few clips'}.")
    if figures["measured_rate"] is not None:
        heard = [f"{label['name']} {label['heard']:.0%}" for label in figures["labels"] if label["heard"] is not None]
        print(f"Heard at a false-alarm rate of {args.false_alarm_rate:.2%}: {on_one_line(', '.join(heard))}.")
    if "test" in figures:
        print("Test split: " + ", ".join(f"{score_name(name)} {score:.1%}" for name, score in figures["test"].items()))
    print(f"In {folder}: the model, its card (README.md) and its figures.")
    print(f"Next: python examples/predict.py {folder} CLIP.wav")
    if num_unknown:
        print(f"Live: python examples/stream.py {folder} --microphone --window {args.window_seconds:g}")
