"""Training of models that say what is heard when: arguments, model and Trainer.

dataset = load_annotated_audio(AnnotatedDataArguments(data_dir="my_recordings"), SoundscapeArguments())
trainer = build_frame_trainer(dataset, FrameTrainingArguments(output_dir="runs/mine"))
trainer.train()
trainer.choose_decoding()
trainer.save_model()
"""

import logging
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from torch.utils.data import DataLoader, SequentialSampler
from transformers import (
    AutoModelForAudioFrameClassification,
    EarlyStoppingCallback,
    EvalPrediction,
    TrainerCallback,
    set_seed,
)

from .. import HEARFeatureExtractor, HEARForAudioFrameClassification
from ..arguments import option
from ..data.annotated import label_names
from ..data.frame_labels import prepare_recordings
from ..evaluation.metrics import multi_label_metrics
from ..evaluation.sound_events import Decoding, EventMetrics
from ..frame_head_hear import IGNORED_LABEL, binary_loss
from ..frames_hear import num_encoder_frames
from .classification import ModelArguments, freeze, load_config, load_with_new_head
from .heads import fit_frame_head
from .optimization import build_optimizer
from .runs import SaveAtEpochEnd
from .supervised import SupervisedArguments, SupervisedTrainer

logger = logging.getLogger(__name__)


@dataclass
class FrameTrainingArguments(SupervisedArguments):
    """TrainingArguments whose defaults suit HEAR and what is heard when."""

    output_dir: str = option(default="runs/frames", help="Where the model and its report go.")
    learning_rate: float = option(default=1e-3, help="Peak learning rate of AdamW.")
    per_device_train_batch_size: int = option(default=16, help="Recordings per device and step.")
    per_device_eval_batch_size: int = option(default=16, help="Recordings per device in evaluation.")
    metric_for_best_model: str | None = option(
        default=None,
        help="Choose the best checkpoint by this validation metric: event_f1 or loss; mean_average_precision where "
        "there are labels of whole clips alone. By default the first or the last.",
    )
    head_learning_rate: float = option(default=1e-2, help="First learning rate of the head alone.")
    crop_seconds: float | None = option(
        default=10.0, help="Train on a random part of this length of each longer recording, with the events in it."
    )
    frame_pooling: str | None = option(
        default=None,
        metadata={"choices": ["max", "mean", "linear_softmax"]},
        help="How the probabilities of frames are pooled to those of the clip, from which weak labels are learned; by "
        "default as the config says, which is linear_softmax.",
    )


def load_frame_model(
    args: ModelArguments, names: list[str], frame_pooling: str | None = None
) -> tuple[HEARFeatureExtractor, HEARForAudioFrameClassification]:
    """Loads the feature extractor and the model, with a new head where the checkpoint has other labels."""
    config = load_config(args, names, multi_label=True)
    config.event_thresholds, config.event_median_frames = None, 1  # of the checkpoint's own labels
    config.frame_pooling = frame_pooling or config.frame_pooling
    if args.model_name_or_path is None:
        extractor = HEARFeatureExtractor(sampling_rate=config.sampling_rate)
        return extractor, HEARForAudioFrameClassification(config)
    return load_with_new_head(args, config, AutoModelForAudioFrameClassification)


def collate_frames(examples: list[dict], feature_extractor: HEARFeatureExtractor) -> dict[str, torch.Tensor]:
    """Pads recordings to a batch, with their mask, and labels of frames with -100."""
    rate = feature_extractor.sampling_rate
    clips = [example["input_values"] for example in examples]
    batch = feature_extractor(clips, sampling_rate=rate, padding=True, return_tensors="pt")
    labels = [np.asarray(example["labels"]) for example in examples]
    if labels[0].ndim == 1:
        return {**batch, "labels": torch.as_tensor(np.stack(labels))}
    num_frames = num_encoder_frames(batch["input_values"].shape[1], rate // 100)
    padded = np.full((len(labels), num_frames, labels[0].shape[1]), IGNORED_LABEL, dtype=np.float32)
    for row, of_clip in zip(padded, labels, strict=True):
        row[: len(of_clip)] = of_clip
    return {**batch, "labels": torch.from_numpy(padded)}


def frame_loss(outputs, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None) -> torch.Tensor:
    """The loss over the labels of a whole step, of frames or of clips, which Trainer counts."""
    logits = outputs["clip_logits"] if labels.ndim == 2 else outputs["logits"]
    return binary_loss(logits, labels, num_items_in_batch)


class FrameScores(NamedTuple):
    """The metrics of a split, and its event-based F1 by the number of the label, where it has events."""

    metrics: dict[str, float]
    event_f1_by_label: dict[int, float] | None


class FrameTrainer(SupervisedTrainer):
    """A Trainer whose loss is the mean over the labels of a whole step, and whose metrics are those of events."""

    args: FrameTrainingArguments
    model: HEARForAudioFrameClassification
    processing_class: HEARFeatureExtractor

    def train_head(self) -> None:
        """Trains the head alone, on the training recordings as they are, or on a crop of each."""
        args = self.args
        loader: DataLoader = DataLoader(
            cast(Any, self.train_dataset),
            args.train_batch_size,
            collate_fn=self.data_collator,
            num_workers=args.dataloader_num_workers,
        )
        loss = fit_frame_head(
            self.model,
            loader,
            self.compute_loss_context_manager,
            args.head_epochs,
            args.head_learning_rate,
            args.weight_decay,
            args.seed,
        )
        logger.info(f"The head alone reached a training loss of {loss:.4f}.")

    def _get_eval_sampler(self, eval_dataset) -> SequentialSampler:
        """Reads recordings in their order, in which their events are known, however training samples them."""
        return SequentialSampler(eval_dataset)

    def probabilities(self, recordings: Dataset) -> list[np.ndarray]:
        """The probabilities of each recording's frames, (num_frames, num_labels)."""
        clips = prepare_recordings(recordings, self.processing_class.sampling_rate)
        compute_metrics, self.compute_metrics = self.compute_metrics, None
        try:
            return split_frames(self.predict(clips).predictions)
        finally:
            self.compute_metrics = compute_metrics

    def score(self, recordings: Dataset) -> FrameScores:
        """Scores recordings by their events, with the config's thresholds; those without by their labels."""
        if "events" not in recordings.features:
            clips = prepare_recordings(recordings, self.processing_class.sampling_rate)
            prediction = cast(Any, self.predict(clips))
            _, clip_logits, _ = prediction.predictions
            return FrameScores(multi_label_metrics(EvalPrediction(clip_logits, prediction.label_ids)), None)
        metrics, config = EventMetrics(recordings["events"][:], len(label_names(recordings))), self.model.config
        decoding = Decoding(config.event_thresholds, config.event_median_frames) if config.event_thresholds else None
        found = metrics(self.probabilities(recordings), decoding, per_label=True)
        by_label = found.pop("event_f1_by_label")
        return FrameScores(found, by_label)

    def choose_decoding(self) -> Decoding | None:
        """Chooses thresholds and median filter on the validation split, where it has events, and stores them."""
        recordings: Dataset = self.eval_dataset
        if "events" not in recordings.features:
            return None
        plain = recordings.with_format(None)
        metrics = EventMetrics(plain["events"][:], len(label_names(plain)))
        decoding = metrics.choose(self.probabilities(plain))
        config = self.model.config
        config.event_thresholds, config.event_median_frames = decoding
        return decoding


def probabilities_and_lengths(outputs: Any, labels: torch.Tensor) -> Any:
    """What evaluation keeps of the outputs: probabilities of frames, logits of clips, and numbers of frames."""
    logits, clip_logits, frame_mask = outputs[0], outputs[-2], outputs[-1]
    return logits.float().sigmoid(), clip_logits, frame_mask.sum(1)


def split_frames(predictions: Any) -> list[np.ndarray]:
    """Of each recording its own frames, from what `probabilities_and_lengths` keeps."""
    probabilities, _, lengths = predictions
    return [rows[:length] for rows, length in zip(probabilities, lengths, strict=True)]


class FrameMetrics:
    """Metrics of Trainer's predictions: event-based F1 at 0.5, or of labels of whole clips mean average precision."""

    def __init__(self, recordings: Dataset):
        self.events = None
        if "events" in recordings.features:
            self.events = EventMetrics(recordings["events"][:], len(label_names(recordings)))

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        if self.events is None:
            _, clip_logits, _ = cast(Any, prediction.predictions)
            return multi_label_metrics(EvalPrediction(clip_logits, prediction.label_ids))
        return {"event_f1": self.events.event_f1(split_frames(prediction.predictions))}


def build_frame_trainer(
    dataset: DatasetDict,
    training_args: FrameTrainingArguments,
    model_args: ModelArguments | None = None,
    weak_labels: bool = False,
) -> FrameTrainer:
    """
    Builds the Trainer of a model of frames, with its model, feature extractor, optimizer and metrics.

    Args:
        dataset (`DatasetDict`): The splits `train` and `validation`, as `load_annotated_audio` returns them.
        training_args (`FrameTrainingArguments`): How to train.
        model_args (`ModelArguments`, *optional*): What to start from; HEAR from scratch by default.
        weak_labels (`bool`, *optional*, defaults to `False`): Learn from which labels a recording has, not from when.
    """
    model_args = model_args or ModelArguments()
    set_seed(training_args.seed)  # before a new head is drawn; Trainer does so only behind it
    validation = dataset["validation"]
    metrics = FrameMetrics(validation)
    feature_extractor, model = load_frame_model(model_args, label_names(dataset["train"]), training_args.frame_pooling)
    freeze(model, model_args.freeze)
    rate = feature_extractor.sampling_rate
    callbacks: list[TrainerCallback] = [SaveAtEpochEnd()]
    if training_args.early_stopping_patience is not None:
        callbacks.append(EarlyStoppingCallback(training_args.early_stopping_patience))
    rate_factors = (model_args.acoustic_learning_rate_scale, model_args.layerwise_learning_rate_decay)
    return FrameTrainer(
        model,
        training_args.best_by("mean_average_precision" if metrics.events is None else "event_f1"),
        data_collator=partial(collate_frames, feature_extractor=feature_extractor),
        train_dataset=prepare_recordings(dataset["train"], rate, training_args.crop_seconds, weak_labels),
        eval_dataset=prepare_recordings(validation, rate),
        processing_class=feature_extractor,
        compute_metrics=metrics,
        preprocess_logits_for_metrics=probabilities_and_lengths,
        compute_loss_func=frame_loss,
        optimizers=(build_optimizer(model, training_args, *rate_factors), None),
        callbacks=callbacks,
    )
