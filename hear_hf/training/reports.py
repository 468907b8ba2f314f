"""What a run leaves beside its model: plots, the model card, and a last word on the terminal."""

from pathlib import Path

import matplotlib
import numpy as np
from datasets import DatasetDict
from sklearn.metrics import classification_report, confusion_matrix
from transformers import Trainer
from transformers.trainer_utils import PredictionOutput

from ..data.labelled import DataArguments
from ..data.sources import describe_source, hub_datasets
from ..evaluation.metrics import METRIC_NAMES
from ..sharing.cards import classifier_card

matplotlib.use("Agg")  # no display needed
import matplotlib.pyplot as plt

MAX_NAMED_LABELS = 60  # more names than that are unreadable on an axis


def report(
    trainer: Trainer,
    dataset: DatasetDict,
    split: str,
    prediction: PredictionOutput,
    data_args: DataArguments,
    base_model: str | None,
) -> None:
    """Writes `training_curve.png`, `confusion_matrix.png`, `per_label.txt` and `README.md`, and prints a summary."""
    folder = Path(trainer.args.output_dir)
    names = [trainer.model.config.id2label[i] for i in range(trainer.model.config.num_labels)]
    plot_training_curve(trainer.state.log_history, folder / "training_curve.png")
    if prediction.label_ids.ndim == 1:
        plot_confusion_matrix(prediction, names, folder / "confusion_matrix.png")
    (folder / "per_label.txt").write_text(per_label_table(prediction, names), encoding="utf-8")

    scores = {name: prediction.metrics.get(f"{split}_{name}") for name in METRIC_NAMES}
    scores = {name: score for name, score in scores.items() if score is not None}
    write_model_card(trainer, dataset, split, scores, data_args, base_model)
    print_summary(trainer, dataset, split, scores)


def per_label_table(prediction: PredictionOutput, names: list[str]) -> str:
    """Precision, recall and F1 of each label."""
    if prediction.label_ids.ndim == 1:
        truth, predicted = prediction.label_ids, prediction.predictions.argmax(-1)
    else:
        truth, predicted = prediction.label_ids > 0.5, prediction.predictions > 0
    return classification_report(truth, predicted, labels=range(len(names)), target_names=names, zero_division=0)


def plot_training_curve(log_history: list[dict], path: Path) -> None:
    """Training and validation loss, and the validation metrics, over the steps."""
    figure, (losses, scores) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
    curves = [(losses, "loss", "training loss"), (losses, "eval_loss", "validation loss")]
    curves += [(scores, f"eval_{name}", title) for name, title in METRIC_NAMES.items()]
    for axes, key, title in curves:
        points = [(entry["step"], entry[key]) for entry in log_history if key in entry]
        if points:
            axes.plot(*zip(*points, strict=True), label=title, marker="." if len(points) < 50 else None)
    for axes, title in ((losses, "Loss"), (scores, "Validation")):
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def plot_confusion_matrix(prediction: PredictionOutput, names: list[str], path: Path) -> None:
    """Row-normalised confusion matrix: the share of each true label's clips that was given each label."""
    counts = confusion_matrix(prediction.label_ids, prediction.predictions.argmax(-1), labels=range(len(names)))
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = min(max(4.0, 0.35 * len(names)), 20.0)
    figure, axes = plt.subplots(figsize=(size + 1, size), layout="constrained")
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="viridis")
    axes.set(xlabel="predicted", ylabel="true", title=f"Confusion matrix, {len(prediction.label_ids)} clips")
    if len(names) <= MAX_NAMED_LABELS:
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
    if len(names) <= 15:
        for row, column in np.argwhere(counts > 0):
            colour = "black" if shares[row, column] > 0.6 else "white"
            axes.text(column, row, counts[row, column], ha="center", va="center", color=colour, fontsize=8)
    figure.colorbar(image, ax=axes, label="share of the true label's clips")
    figure.savefig(path, dpi=120)
    plt.close(figure)


def write_model_card(
    trainer: Trainer,
    dataset: DatasetDict,
    split: str,
    scores: dict[str, float],
    data_args: DataArguments,
    base_model: str | None,
) -> None:
    """The folder's README.md: metadata that the Hub reads, and how the model was made and how well it does."""
    card = classifier_card(
        trainer.model,
        trainer.processing_class.sampling_rate,
        Path(trainer.args.output_dir).name,
        scores,
        split,
        source=describe_source(data_args),
        repository=trainer.hub_model_id,
        base_model=base_model,
        datasets=hub_datasets(data_args),
        args=trainer.args,
        steps=trainer.state.global_step,
        epochs=f"{trainer.state.epoch:.4g}",
        clips={name: len(clips) for name, clips in dataset.items()},
    )
    card.save(Path(trainer.args.output_dir) / "README.md")


def print_summary(trainer: Trainer, dataset: DatasetDict, split: str, scores: dict[str, float]) -> None:
    folder = trainer.args.output_dir
    sizes = ", ".join(f"{len(clips)} {name}" for name, clips in dataset.items())
    print(
        f"\nTrained {trainer.state.global_step} steps to tell {trainer.model.config.num_labels} labels apart "
        f"(clips: {sizes})."
        f"\nOn the {split} clips: "
        + ", ".join(f"{METRIC_NAMES[name]} {score:.4f}" for name, score in scores.items())
        + "."
        f"\nIn {folder}: the model, its card (README.md), per_label.txt and the plots."
        f"\nNext: python examples/predict.py {folder} CLIP.wav"
    )
