"""Fine-tunes HEAR, or trains it from scratch, on labelled audio (paper, section 4.3).

On the embedded spoken digits, on a laptop in minutes:

    python examples/finetune.py --output_dir runs/digits

On your own sounds, one folder a class, from a pretrained checkpoint:

    python examples/finetune.py --data_dir my_sounds --model_name_or_path runs/pretrained --output_dir runs/mine
"""

from dataclasses import dataclass, field
from functools import partial
from typing import Literal

import numpy as np
import torch
from datasets import ClassLabel, Dataset, DatasetDict
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    EarlyStoppingCallback,
    PreTrainedModel,
    Trainer,
    TrainingArguments,
)

from audio_datasets import DataArguments, load_labelled_audio
from audio_decoding import decode_audio
from augmentation import AugmentationArguments, augment, mixup
from hear_hf import HEARConfig, HEARFeatureExtractor, HEARForAudioClassification
from metrics import multi_label_metrics, single_label_metrics
from optimization import BatchNormCalibration, ClassificationLoss, balanced_label_weights, build_optimizer
from reporting import report
from scripting import SaveAtEpochEnd, last_checkpoint, parse_arguments, start


@dataclass
class ModelArguments:
    """Which model to start from, and which of its parts to train how fast."""

    model_name_or_path: str | None = field(
        default=None, metadata={"help": "A checkpoint of the Hub or a folder. Without it HEAR starts from scratch."}
    )
    model_revision: str = field(default="main", metadata={"help": "The branch, tag or commit of the checkpoint."})
    trust_remote_code: bool = field(
        default=False, metadata={"help": "Run the code that a checkpoint of the Hub brings along."}
    )
    config_overrides: str | None = field(
        default=None, metadata={"help": "Fields of the config to change, for example `num_hidden_layers=3`."}
    )
    freeze: Literal["none", "feature_encoder", "acoustic_model", "base_model"] = field(
        default="none", metadata={"help": "The part to leave as it is; `base_model` trains the head alone."}
    )
    acoustic_learning_rate_scale: float = field(
        default=1.0,
        metadata={"help": "Factor on the learning rate of the acoustic model; 0.1 to 0.3 if it is pretrained."},
    )
    layerwise_learning_rate_decay: float = field(
        default=1.0, metadata={"help": "Further factor for each acoustic layer further down, at most 1."}
    )


@dataclass
class FineTuningArguments(TrainingArguments):
    """TrainingArguments whose defaults suit HEAR."""

    output_dir: str = field(default="runs/finetune", metadata={"help": "Where the model and its report go."})
    learning_rate: float = field(default=5e-4, metadata={"help": "Peak learning rate of AdamW."})
    weight_decay: float = field(default=0.05, metadata={"help": "Weight decay of the matrices."})
    lr_scheduler_type: str = field(default="cosine", metadata={"help": "How the learning rate falls."})
    warmup_steps: float = field(default=0.1, metadata={"help": "Steps of warm-up, or below 1 their share."})
    num_train_epochs: float = field(default=10.0, metadata={"help": "Passes over the training clips."})
    per_device_train_batch_size: int = field(default=32, metadata={"help": "Clips per device and step."})
    per_device_eval_batch_size: int = field(default=32, metadata={"help": "Clips per device in evaluation."})
    eval_strategy: str = field(default="epoch", metadata={"help": "When to evaluate."})
    save_strategy: str = field(default="epoch", metadata={"help": "When to save a checkpoint."})
    save_total_limit: int | None = field(default=1, metadata={"help": "Checkpoints to keep beside the best one."})
    logging_steps: float = field(default=10, metadata={"help": "Steps between two logged losses."})
    load_best_model_at_end: bool = field(default=True, metadata={"help": "Whether to end with the best checkpoint."})
    dataloader_pin_memory: bool = field(
        default=torch.cuda.is_available(), metadata={"help": "Whether batches reach the GPU through pinned memory."}
    )
    remove_unused_columns: bool = field(default=False, metadata={"help": "Clips are decoded on the fly: keep False."})
    early_stopping_patience: int | None = field(
        default=None, metadata={"help": "Stop after this many evaluations without a better one."}
    )
    class_balanced: bool = field(
        default=False, metadata={"help": "Weight each label by the inverse of its frequency in the loss."}
    )


def label_feature(dataset: Dataset) -> tuple[ClassLabel, bool]:
    """The label names of a dataset, and whether a clip may have several."""
    feature = dataset.features["label"]
    return (feature, False) if isinstance(feature, ClassLabel) else (feature.feature, True)


def load_model(args: ModelArguments, label_names: list[str], multi_label: bool):
    """The feature extractor and the model, with a new head where the checkpoint's labels are others."""
    settings = {
        "id2label": dict(enumerate(label_names)),
        "label2id": {name: i for i, name in enumerate(label_names)},
        "problem_type": "multi_label_classification" if multi_label else "single_label_classification",
    }
    if args.model_name_or_path is None:
        config = HEARConfig(**settings)
    else:
        source = {"revision": args.model_revision, "trust_remote_code": args.trust_remote_code}
        config = AutoConfig.from_pretrained(args.model_name_or_path, **source, **settings)
    if args.config_overrides:
        config.update_from_string(args.config_overrides)
        config.validate()
    if args.model_name_or_path is None:
        return HEARFeatureExtractor(sampling_rate=config.sampling_rate), HEARForAudioClassification(config)
    model = AutoModelForAudioClassification.from_pretrained(
        args.model_name_or_path, config=config, ignore_mismatched_sizes=True, **source
    )
    return AutoFeatureExtractor.from_pretrained(args.model_name_or_path, **source), model


def freeze(model: PreTrainedModel, part: str) -> None:
    if part == "feature_encoder":
        model.freeze_feature_encoder()
    elif part == "acoustic_model":
        model.base_model.acoustic_model.requires_grad_(False)
    elif part == "base_model":
        model.base_model.requires_grad_(False)


class Preparation:
    """Decodes a batch of the dataset, augments it where `augmentation` is given, and encodes its labels."""

    def __init__(
        self, sampling_rate: int, num_labels: int, multi_label: bool, augmentation: AugmentationArguments | None = None
    ):
        self.sampling_rate, self.num_labels, self.multi_label = sampling_rate, num_labels, multi_label
        self.augmentation = augmentation

    def __call__(self, batch: dict[str, list]) -> dict[str, list]:
        waveforms = [decode_audio(audio, self.sampling_rate) for audio in batch["audio"]]
        labels = self.multi_hot(batch["label"]) if self.multi_label else np.asarray(batch["label"])
        if self.augmentation is not None:
            waveforms = [augment(waveform, self.sampling_rate, self.augmentation) for waveform in waveforms]
            if self.augmentation.mixup_alpha > 0:
                targets = labels if self.multi_label else self.multi_hot([[label] for label in labels])
                waveforms, labels = mixup(waveforms, targets, self.augmentation.mixup_alpha)
        return {"input_values": waveforms, "labels": list(labels)}

    def multi_hot(self, labels: list[list[int]]) -> np.ndarray:
        targets = np.zeros((len(labels), self.num_labels), dtype=np.float32)
        for row, indices in zip(targets, labels, strict=True):
            row[indices] = 1.0
        return targets


def collate(examples: list[dict], feature_extractor) -> dict[str, torch.Tensor]:
    """Pads clips of any lengths to a batch, with the mask that keeps the padding out of the results."""
    batch = feature_extractor(
        [example["input_values"] for example in examples],
        sampling_rate=feature_extractor.sampling_rate,
        padding=True,
        return_tensors="pt",
    )
    return {**batch, "labels": torch.as_tensor(np.stack([example["labels"] for example in examples]))}


def prepare_splits(
    dataset: DatasetDict, sampling_rate: int, augmentation_args: AugmentationArguments
) -> dict[str, Dataset]:
    """Each split, decoded on the fly; the training split augmented too."""
    names, multi_label = label_feature(dataset["train"])
    prepare = partial(Preparation, sampling_rate, names.num_classes, multi_label)
    return {
        split: clips.with_transform(prepare(augmentation_args if split == "train" else None))
        for split, clips in dataset.items()
    }


class FineTuningTrainer(Trainer):
    def create_model_card(self, *args, **kwargs):
        """Leaves the card to `report`: before each push Trainer would overwrite it by a draft."""


def build_trainer(model, feature_extractor, dataset, prepared, model_args, training_args) -> Trainer:
    names, multi_label = label_feature(dataset["train"])
    if training_args.metric_for_best_model in (None, "loss"):
        training_args.metric_for_best_model = "mean_average_precision" if multi_label else "accuracy"
        training_args.greater_is_better = True
    learning_rate_factors = (model_args.acoustic_learning_rate_scale, model_args.layerwise_learning_rate_decay)
    weights = None
    if training_args.class_balanced:
        weights = balanced_label_weights(dataset["train"]["label"], names.num_classes, multi_label)
    collator = partial(collate, feature_extractor=feature_extractor)
    callbacks = [BatchNormCalibration(prepared["train"], collator), SaveAtEpochEnd()]
    if training_args.early_stopping_patience is not None:
        callbacks.append(EarlyStoppingCallback(training_args.early_stopping_patience))
    trainer = FineTuningTrainer(
        model,
        training_args,
        data_collator=collator,
        train_dataset=prepared["train"],
        eval_dataset=prepared["validation"],
        processing_class=feature_extractor,
        compute_metrics=multi_label_metrics if multi_label else single_label_metrics,
        compute_loss_func=ClassificationLoss(multi_label, weights, training_args.label_smoothing_factor),
        optimizers=(build_optimizer(model, training_args, *learning_rate_factors), None),
        callbacks=callbacks,
    )
    trainer.accelerator.gradient_accumulation_steps = 1  # Transformers 5.4 lets accelerate divide the loss once more
    return trainer


def main(argv: list[str] | None = None) -> dict[str, float]:
    arguments = parse_arguments((ModelArguments, DataArguments, AugmentationArguments, FineTuningArguments), argv)
    model_args, data_args, augmentation_args, training_args = arguments
    start(training_args)

    with training_args.main_process_first(desc="loading the clips"):
        dataset = load_labelled_audio(data_args, training_args.seed)
    names, multi_label = label_feature(dataset["train"])
    feature_extractor, model = load_model(model_args, names.names, multi_label)
    freeze(model, model_args.freeze)
    prepared = prepare_splits(dataset, feature_extractor.sampling_rate, augmentation_args)
    trainer = build_trainer(model, feature_extractor, dataset, prepared, model_args, training_args)

    result = trainer.train(resume_from_checkpoint=last_checkpoint(training_args))
    trainer.save_model()
    trainer.save_state()
    trainer.save_metrics("train", result.metrics)

    split = "test" if "test" in prepared else "validation"
    prediction = trainer.predict(prepared[split], metric_key_prefix=split)
    trainer.save_metrics(split, prediction.metrics)
    if trainer.is_world_process_zero():
        report(trainer, dataset, split, prediction, data_args, model_args.model_name_or_path)
    if training_args.push_to_hub:
        trainer.push_to_hub()
    return prediction.metrics


if __name__ == "__main__":
    main()
