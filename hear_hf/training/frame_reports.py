"""What a training run of a model of frames leaves beside it: plots, a model card, and a summary in the terminal."""

from pathlib import Path

from datasets import Dataset, DatasetDict

from ..data.annotated import AnnotatedDataArguments, describe_annotated, label_names
from ..data.decoding import decode_audio
from ..evaluation.metrics import METRIC_NAMES
from ..events import DEFAULT_THRESHOLD, HEAREvent, find_events
from ..sharing.cards import TrainingRun, frames_card
from ..sharing.cards import label_names as config_labels
from .frames import FrameScores, FrameTrainer
from .plots import plot_curves, plot_events
from .reports import card_facts, print_summary

FRAME_PANELS = {
    "Loss": {"loss": "training", "eval_loss": "validation"},
    "Validation": {f"eval_{metric}": name for metric, name in METRIC_NAMES.items()},
}
NUM_EXAMPLES = 20  # recordings among which the one to draw is chosen
MAX_DRAWN_SECONDS = 60


def report_frames(
    trainer: FrameTrainer,
    dataset: DatasetDict,
    split: str,
    scores: FrameScores,
    data_args: AnnotatedDataArguments,
    base_model: str | None,
) -> None:
    """
    Writes `training_curve.png`, `events.png`, `per_label.txt` and `README.md`, and prints a summary.

    Args:
        trainer (`FrameTrainer`): After training, and after its thresholds were chosen.
        dataset (`DatasetDict`): The recordings by split.
        split (`str`): The one that `scores` are of.
        scores (`FrameScores`): What `FrameTrainer.score` returned.
        data_args (`AnnotatedDataArguments`): Where the recordings came from.
        base_model (`str`, *optional*): What training started from; random weights by default.
    """
    folder = Path(str(trainer.args.output_dir))
    clips = {name: len(recordings) for name, recordings in dataset.items()}
    run = TrainingRun(trainer.args, trainer.state.global_step, epochs=trainer.state.epoch, clips=clips)
    facts = card_facts(trainer, run, data_args, scores.metrics, split, base_model)
    facts.source = describe_annotated(data_args)
    plot_curves(trainer.state.log_history, FRAME_PANELS, folder / "training_curve.png")
    if scores.event_f1_by_label is not None:
        draw_example(trainer, dataset[split], folder / "events.png")
        (folder / "per_label.txt").write_text(per_label_table(trainer, scores.event_f1_by_label), encoding="utf-8")
    frames_card(facts).save(folder / "README.md")
    print_summary(facts, folder, f"predict.py {folder} CLIP.wav")


def draw_example(trainer: FrameTrainer, recordings: Dataset, path: Path) -> None:
    """Draws the recording with most events of a few, with its true events and those that the model finds."""
    few = recordings.select(range(min(len(recordings), NUM_EXAMPLES)))
    index = max(range(len(few)), key=lambda index: len(few[index]["events"]))
    names, rate, config = label_names(few), trainer.processing_class.sampling_rate, trainer.model.config
    truth = [HEAREvent(event["start"], event["end"], names[event["label"]], 1.0) for event in few[index]["events"]]
    (probabilities,) = trainer.probabilities(few.select([index]))
    found = find_events(probabilities, names, config.event_thresholds, config.event_median_frames)
    waveform = decode_audio(few[index]["audio"], rate)[: MAX_DRAWN_SECONDS * rate]
    plot_events(waveform, rate, {"truth": truth, "model": found}, path)


def per_label_table(trainer: FrameTrainer, event_f1: dict[int, float]) -> str:
    """The event-based F1 of each label that occurs, and its threshold."""
    config = trainer.model.config
    names = config_labels(config)
    thresholds = config.event_thresholds or [DEFAULT_THRESHOLD] * len(names)
    width = max(map(len, names))
    lines = [f"{'label':{width}}  event-based F1  threshold"]
    for index, name in enumerate(names):
        score = f"{event_f1[index]:14.3f}" if index in event_f1 else f"{'no events':>14}"
        lines.append(f"{name:{width}}  {score}  {thresholds[index]:9.3f}")
    return "\n".join([*lines, f"Median filter: {20 * config.event_median_frames} ms", ""])
