"""What a training run leaves beside its model: plots, a model card, and a summary in the terminal."""

from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from datasets import DatasetDict
from sklearn.metrics import classification_report, confusion_matrix
from transformers import PreTrainedModel, Trainer
from transformers.trainer_utils import PredictionOutput

from ..adapters import is_adapter, plain_model
from ..data.clips import PretrainingClips
from ..data.labelled import DataArguments
from ..data.sources import describe_source, hub_datasets
from ..evaluation.metrics import METRIC_NAMES
from ..sharing.cards import (
    PLACEHOLDER,
    CardFacts,
    TrainingRun,
    classifier_card,
    distilled_card,
    pretraining_card,
    score_name,
)
from .distillation import DistillationTrainer, loss_names
from .plots import plot_codes, plot_confusion_matrix, plot_curves, plot_spectrograms
from .pretraining import PretrainingTrainer

CLASSIFIER_PANELS = {
    "Loss": {"loss": "training", "eval_loss": "validation"},
    "Validation": {f"eval_{metric}": name for metric, name in METRIC_NAMES.items()},
}
PRETRAINING_SCORES = {
    "loss": "Loss",
    "reconstruction_loss": "Reconstruction loss",
    "distillation_loss": "Distillation loss",
    "masked_accuracy": "Masked accuracy",
    "code_perplexity": "Code perplexity",
    "code_usage": "Share of codes in use",
    "temperature": "Temperature",
    "audio_hours_per_second": "Audio hours per second",
}
PRETRAINING_PANELS = {
    name: {metric: "training", f"eval_{metric}": "held out"} for metric, name in PRETRAINING_SCORES.items()
}
NUM_EXAMPLES = 20  # clips among which the one to draw is chosen


def report_classifier(
    trainer: Trainer,
    dataset: DatasetDict,
    split: str,
    prediction: PredictionOutput,
    data_args: DataArguments,
    base_model: str | None,
) -> None:
    """
    Writes `training_curve.png`, `confusion_matrix.png`, `per_label.txt` and `README.md`, and prints a summary.

    Args:
        trainer (`Trainer`): After training.
        dataset (`DatasetDict`): The clips by split.
        split (`str`): The one that `prediction` is of.
        prediction (`PredictionOutput`): Logits, labels and metrics.
        data_args (`DataArguments`): Where the clips came from.
        base_model (`str`, *optional*): What training started from; random weights by default.
    """
    folder, metrics = Path(str(trainer.args.output_dir)), prediction.metrics or {}
    logits, targets = np.asarray(prediction.predictions), np.asarray(prediction.label_ids)
    found = {name: metrics.get(f"{split}_{name}") for name in METRIC_NAMES}
    scores = {name: score for name, score in found.items() if score is not None}
    clips = {name: len(clips) for name, clips in dataset.items()}
    run = TrainingRun(trainer.args, trainer.state.global_step, epochs=trainer.state.epoch, clips=clips)
    facts = card_facts(trainer, run, data_args, scores, split, base_model)
    facts.is_adapter = is_adapter(folder)

    plot_curves(trainer.state.log_history, CLASSIFIER_PANELS, folder / "training_curve.png")
    if targets.ndim == 1:
        counts = confusion_matrix(targets, logits.argmax(-1), labels=range(len(facts.labels)))
        plot_confusion_matrix(counts, facts.labels, folder / "confusion_matrix.png")
    (folder / "per_label.txt").write_text(per_label_table(logits, targets, facts.labels), encoding="utf-8")
    classifier_card(facts).save(folder / "README.md")
    print_summary(facts, folder, f"predict.py {folder} CLIP.wav")


def report_pretraining(trainer: PretrainingTrainer, metrics: dict[str, float], data_args, origin: str) -> None:
    """
    Writes `training_curves.png`, `codes.png`, `clip.png` and `README.md`, and prints a summary.

    Args:
        trainer (`PretrainingTrainer`): After training, and after the evaluation that gave `metrics`.
        metrics (`dict[str, float]`): Metrics of the held-out clips; empty where there are none.
        data_args (`PretrainingDataArguments`): Where the clips came from.
        origin (`str`): A sentence on the teacher or the quantizer.
    """
    folder = Path(str(trainer.args.output_dir))
    found = {name: metrics.get(f"eval_{metric}") for metric, name in PRETRAINING_SCORES.items()}
    scores = {name: score for name, score in found.items() if score is not None}
    run = unlabelled_run(trainer, origin)
    facts = card_facts(trainer, run, data_args, scores)
    means = trainer.eval_means if metrics else trainer.train_means

    plot_curves(trainer.state.log_history, PRETRAINING_PANELS, folder / "training_curves.png")
    plot_codes(means.code_counts.cpu().numpy(), folder / "codes.png")
    plot_spectrograms(example_spectrograms(trainer), folder / "clip.png")
    pretraining_card(facts).save(folder / "README.md")
    is_quantizer = facts.config.model_type == "hear_quantizer"
    next_command = "pretrain.py --quantizer_name_or_path" if is_quantizer else "finetune.py --model_name_or_path"
    print_summary(facts, folder, f"{next_command} {folder}")


def report_distillation(
    trainer: DistillationTrainer, metrics: dict[str, float], data_args, base_model: str | None
) -> None:
    """
    Writes `training_curves.png` and `README.md`, and prints a summary.

    Args:
        trainer (`DistillationTrainer`): After training, and after the evaluation that gave `metrics`.
        metrics (`dict[str, float]`): Metrics of the held-out clips; empty where there are none.
        data_args (`PretrainingDataArguments`): Where the clips came from.
        base_model (`str`, *optional*): What training started from; random weights by default.
    """
    folder = Path(str(trainer.args.output_dir))
    losses = ("loss", *sum(loss_names(trainer.teachers), ()), "label_loss", "true_label_loss")
    metric_names = ("agreement", "mean_average_precision", "probe_accuracy", "probe_mean_average_precision")
    names = [*losses, *metric_names, "audio_hours_per_second"]
    scores = {name: metrics[f"eval_{name}"] for name in names if f"eval_{name}" in metrics}
    run = unlabelled_run(trainer, "Teachers and model heard the same crops, shifts, gains and mixtures of two clips.")
    facts = card_facts(trainer, run, data_args, scores, base_model=base_model, model=trainer.student)
    facts.teachers, facts.has_labels = [teacher.facts for teacher in trainer.teachers], trainer.labelled is not None

    panels = {score_name(name): {name: "training", f"eval_{name}": "held out"} for name in names}
    plot_curves(trainer.state.log_history, panels, folder / "training_curves.png")
    distilled_card(facts).save(folder / "README.md")
    next_command = (
        f"predict.py {folder} CLIP.wav" if facts.has_labels else f"finetune.py --model_name_or_path {folder}"
    )
    print_summary(facts, folder, next_command)


def unlabelled_run(trainer: PretrainingTrainer, origin: str) -> TrainingRun:
    """What the card says of a run on unlabelled clips."""
    clips = cast(Any, trainer.train_dataset)
    splits = {"training": clips, "held-out": trainer.eval_dataset}
    return TrainingRun(
        trainer.args,
        trainer.state.global_step,
        clips={name: len(split) for name, split in splits.items() if isinstance(split, PretrainingClips)},
        crop_seconds=clips.reader.max_samples / clips.reader.sampling_rate,
        origin=origin,
    )


def card_facts(
    trainer: Trainer,
    run: TrainingRun,
    data_args,
    scores: dict[str, float],
    split: str = "held-out",
    base_model: str | None = None,
    model: PreTrainedModel | None = None,
) -> CardFacts:
    """What the card says of a model that a run has just trained, the Trainer's own by default."""
    return CardFacts(
        model or plain_model(trainer.model),
        cast(Any, trainer.processing_class).sampling_rate,
        title=Path(str(trainer.args.output_dir)).name,
        scores=scores,
        split=split,
        source=describe_source(data_args),
        datasets=hub_datasets(data_args),
        repository=trainer.hub_model_id or PLACEHOLDER,
        base_model=base_model,
        run=run,
    )


def per_label_table(logits: np.ndarray, targets: np.ndarray, names: list[str]) -> str:
    """Precision, recall and F1 of each label, of class indices (num_clips,) or of 0 and 1 (num_clips, num_labels)."""
    labels = range(len(names))
    if targets.ndim == 1:
        predicted = logits.argmax(-1)
    elif len(names) > 1:
        targets, predicted = targets > 0.5, logits > 0
    else:  # which scikit-learn would take for two classes
        targets, predicted, labels = targets[:, 0] > 0.5, logits[:, 0] > 0, range(1, 2)
    return classification_report(targets, predicted, labels=labels, target_names=names, zero_division=0)


@torch.no_grad()
def example_spectrograms(trainer: PretrainingTrainer) -> dict[str, torch.Tensor]:
    """The spectrogram of a clip, and its reconstruction from the codes, or itself with its masked frames left out."""
    model = cast(Any, trainer.accelerator.unwrap_model(trainer.model)).eval()
    inputs = trainer.complete(trainer._prepare_inputs(trainer.data_collator([example_clip(trainer)])))
    if model.config.model_type == "hear_quantizer":
        outputs = model(**inputs)
        return {
            "Log-mel spectrogram": outputs.log_mel[0],
            "Reconstruction from the codes": outputs.reconstruction[0],
        }
    masked = inputs["mask_time_indices"][0].repeat_interleave(2)
    log_mel = model.hear.spectrogram(inputs["input_values"], inputs["attention_mask"])[0][0, : len(masked)]
    return {
        "Log-mel spectrogram": log_mel,
        "Without the masked frames": log_mel.masked_fill(masked[:, None], float("nan")),
    }


def example_clip(trainer: PretrainingTrainer) -> dict[str, Any]:
    """The longest of a few clips, held-out ones where there are any."""
    clips: Any = trainer.eval_dataset or trainer.train_dataset
    if isinstance(clips, PretrainingClips):
        chosen = [clips[index] for index in range(min(len(clips), NUM_EXAMPLES))]
    else:
        chosen = [clip for clip, _ in zip(clips, range(NUM_EXAMPLES), strict=False)]
    return max(chosen, key=lambda clip: len(clip["input_values"]))


def print_summary(facts: CardFacts, folder: Path, next_command: str) -> None:
    """Says what was trained on how much, how well it does, where it is, and the command that comes next."""
    run = cast(TrainingRun, facts.run)
    clips = ", ".join(f"{count} {split}" for split, count in run.clips.items())
    scores = ", ".join(f"{name} {score:.4g}" for name, score in facts.named_scores.items())
    print(
        f"\nTrained {facts.class_name} for {run.steps} steps{f' (clips: {clips})' if clips else ''}."
        f"\nOn the {facts.split} clips: {scores or 'no scores'}."
        f"\nIn {folder}: the model, its card (README.md) and its plots."
        f"\nNext: python examples/{next_command}"
    )
