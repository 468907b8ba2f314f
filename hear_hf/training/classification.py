"""Training of audio classifiers: arguments, model and Trainer (paper, section 4.3).

dataset = load_labelled_audio(DataArguments(data_dir="my_sounds"))
trainer = build_trainer(dataset, FineTuningArguments(output_dir="runs/mine"))
trainer.train()
trainer.save_model()
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from datasets import Dataset, DatasetDict
from torch.utils.data import DataLoader
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    EarlyStoppingCallback,
    TrainerCallback,
    set_seed,
)

from .. import HEARConfig, HEARFeatureExtractor, HEARForAudioClassification, HEARForAudioFrameClassification
from ..adapters import plain_model
from ..arguments import option
from ..data.augmentation import AugmentationArguments
from ..data.decoded_cache import DecodedCache
from ..data.labelled import label_feature
from ..data.preparation import prepare_clips
from ..evaluation.metrics import multi_label_metrics, single_label_metrics
from ..rates import check_rates
from .adapters import AdapterArguments, add_adapter, learning_head
from .heads import embed, fit_head
from .optimization import BatchNormCalibration, ClassificationLoss, balanced_label_weights, build_optimizer
from .parts import collate_clips, in_parts
from .runs import SaveAtEpochEnd
from .supervised import SupervisedArguments, SupervisedTrainer

logger = logging.getLogger(__name__)


@dataclass
class ModelArguments:
    """Which model to start from, and which of its parts to train how fast."""

    model_name_or_path: str | None = option(
        default=None, help="Start from this checkpoint of the Hub or folder. Without it, HEAR is trained from scratch."
    )
    model_revision: str = option(default="main", help="The branch, tag or commit of the checkpoint.")
    trust_remote_code: bool = option(default=False, help="Run the code that a checkpoint of the Hub comes with.")
    config_overrides: str | None = option(
        default=None, help="Change these fields of the config, for example `num_hidden_layers=3`."
    )
    freeze: Literal["none", "feature_encoder", "acoustic_model", "base_model"] = option(
        default="none", help="Leave this part as it is; `base_model` trains the head alone."
    )
    acoustic_learning_rate_scale: float = option(
        default=1.0,
        help="Multiply the learning rate of the acoustic model by this; 0.1 to 0.3 suit a pretrained one.",
    )
    layerwise_learning_rate_decay: float = option(
        default=1.0,
        help="Multiply it by this once more for each acoustic layer below the top one; at most 1.",
    )


@dataclass
class FineTuningArguments(SupervisedArguments):
    """TrainingArguments whose defaults suit HEAR."""

    output_dir: str = option(default="runs/finetune", help="Where the model and its report go.")
    learning_rate: float = option(default=5e-4, help="Peak learning rate of AdamW.")
    per_device_train_batch_size: int = option(default=32, help="Clips per device and step.")
    per_device_eval_batch_size: int = option(default=32, help="Clips per device in evaluation.")
    metric_for_best_model: str | None = option(
        default=None,
        help="Choose the best checkpoint by this validation metric: accuracy, macro_f1, mean_average_precision or "
        "loss. By default accuracy, or mean_average_precision where a clip has any number of labels.",
    )
    head_learning_rate: float = option(default=1e-3, help="First learning rate of the head alone.")
    decoded_cache: str | None = option(
        default=None,
        help="Decode each clip once into this folder, which then takes 115 MB per hour at 16 kHz, and read it from "
        "there, in this run and in later ones.",
    )
    class_balanced: bool = option(default=False, help="Weight each label by the inverse of its frequency in the loss.")

    def cache(self, sampling_rate: int) -> DecodedCache | None:
        """Opens the cache of decoded clips, if there is to be one."""
        return None if self.decoded_cache is None else DecodedCache(self.decoded_cache, sampling_rate)


def load_model(
    args: ModelArguments, label_names: list[str], multi_label: bool
) -> tuple[HEARFeatureExtractor, HEARForAudioClassification]:
    """Loads the feature extractor and the model, with a new head where the checkpoint has other labels."""
    config = load_config(args, label_names, multi_label)
    if args.model_name_or_path is None:
        logger.warning(
            "HEAR starts from random weights. From what a model knows already it needs fewer clips: give one, for "
            "example --model_name_or_path checkpoints/hear-tiny of the repository."
        )
        return HEARFeatureExtractor(sampling_rate=config.sampling_rate), HEARForAudioClassification(config)
    return load_with_new_head(args, config, AutoModelForAudioClassification)


def load_with_new_head(args: ModelArguments, config: HEARConfig, auto_class: Any) -> tuple[HEARFeatureExtractor, Any]:
    """Loads a checkpoint, with a new head where it has another or none."""
    name = args.model_name_or_path
    source = {"revision": args.model_revision, "trust_remote_code": args.trust_remote_code}
    model = auto_class.from_pretrained(name, config=config, ignore_mismatched_sizes=True, **source)
    feature_extractor = AutoFeatureExtractor.from_pretrained(name, **source)
    check_rates(str(name), config, feature_extractor)
    return feature_extractor, model


def load_config(args: ModelArguments, label_names: list[str], multi_label: bool) -> HEARConfig:
    settings: dict[str, Any] = {
        "id2label": dict(enumerate(label_names)),
        "label2id": {name: i for i, name in enumerate(label_names)},
        "problem_type": "multi_label_classification" if multi_label else "single_label_classification",
        "false_alarm_rate": None,  # that of a taught checkpoint is not the new head's
    }
    if args.model_name_or_path is None:
        config = HEARConfig(**settings)
    else:
        source = {"revision": args.model_revision, "trust_remote_code": args.trust_remote_code}
        config = AutoConfig.from_pretrained(args.model_name_or_path, **source, **settings)
    if args.config_overrides:
        config.update_from_string(args.config_overrides)
        config.validate()
    return config


def freeze(model: HEARForAudioClassification | HEARForAudioFrameClassification, part: str) -> None:
    """Keeps a part of the model from training, as `ModelArguments.freeze` names it."""
    base_model: Any = model.base_model
    if part == "feature_encoder":
        model.freeze_feature_encoder()
    elif part == "acoustic_model":
        base_model.acoustic_model.requires_grad_(False)
    elif part == "base_model":
        base_model.requires_grad_(False)


def collate(examples: list[dict], feature_extractor: HEARFeatureExtractor) -> dict[str, torch.Tensor]:
    """Pads clips of any lengths to a batch, with the mask that keeps the padding out of the results."""
    batch = feature_extractor(
        [example["input_values"] for example in examples],
        sampling_rate=feature_extractor.sampling_rate,
        padding=True,
        return_tensors="pt",
    )
    return {**batch, "labels": torch.as_tensor(np.stack([example["labels"] for example in examples]))}


class FineTuningTrainer(SupervisedTrainer):
    """A Trainer whose loss is the mean over the clips of a whole step."""

    args: FineTuningArguments
    model: HEARForAudioClassification
    processing_class: HEARFeatureExtractor
    compute_loss_func: ClassificationLoss

    def get_eval_dataloader(self, *args, **kwargs) -> DataLoader:
        return self._without_padding(super().get_eval_dataloader, *args, **kwargs)

    def get_test_dataloader(self, *args, **kwargs) -> DataLoader:
        return self._without_padding(super().get_test_dataloader, *args, **kwargs)

    def _without_padding(self, get: Callable, *args, **kwargs) -> DataLoader:
        """Gets batches for evaluation, which reads long clips in parts and pads these alone."""
        padding, self.data_collator = self.data_collator, collate_clips
        try:
            return get(*args, **kwargs)
        finally:
            self.data_collator = padding

    def compute_loss(self, model, inputs, *args, **kwargs):
        """Computes the loss as Trainer does, where the batch is one for evaluation in parts."""

        def classify(clips: list[torch.Tensor], **_) -> dict[str, torch.Tensor]:
            return {"logits": in_parts(lambda **part: model(**part).logits, clips)}

        called: Any = classify if "clips" in inputs else model
        return super().compute_loss(called, inputs, *args, **kwargs)

    def train_head(self) -> None:
        """
        Trains a new head alone, on the training clips as they are.

        All of it is drawn anew: what the layers below its output know of other labels is in their way.
        """
        args, model = self.args, plain_model(self.model)
        head = learning_head(model)
        new_head = type(head)(model.config)
        head.load_state_dict(new_head.state_dict())  # in place: the optimizer knows its parameters
        rate = self.processing_class.sampling_rate
        clips = prepare_clips(self.train_dataset, rate, cache=args.cache(rate))
        loader = DataLoader(
            clips, args.eval_batch_size, collate_fn=collate_clips, num_workers=args.dataloader_num_workers
        )
        embeddings, labels = embed(model, loader, self.compute_loss_context_manager)
        loss = fit_head(
            head,
            embeddings,
            labels,
            self.compute_loss_func,
            args.head_epochs,
            args.head_learning_rate,
            args.weight_decay,
            args.seed,
        )
        logger.info(f"The head alone reached a training loss of {loss:.3f}.")

    def merge_adapter(self) -> None:
        """Makes one plain model of the model and its adapter."""
        adapted: Any = self.model
        self.model = self.model_wrapped = adapted.merge_and_unload()

    def _save(self, output_dir: str | None = None, state_dict=None) -> None:
        """Saves as Trainer does; beside an adapter the config, which has the labels, and no draft of a card."""
        card = Path(output_dir or str(self.args.output_dir), "README.md")
        ours = card.read_bytes() if card.is_file() else None
        super()._save(output_dir, state_dict)
        model = plain_model(self.model)
        if model is not self.model:
            model.config.architectures = [type(model).__name__]  # as `save_pretrained` of a whole model does
            model.config.save_pretrained(card.parent)
            card.unlink() if ours is None else card.write_bytes(ours)


def build_trainer(
    dataset: DatasetDict,
    training_args: FineTuningArguments,
    model_args: ModelArguments | None = None,
    augmentation_args: AugmentationArguments | None = None,
    adapter_args: AdapterArguments | None = None,
) -> FineTuningTrainer:
    """
    Builds the Trainer of a classifier, with its model, feature extractor, optimizer and metrics.

    Args:
        dataset (`DatasetDict`): The splits `train` and `validation`, as `load_labelled_audio` returns them.
        training_args (`FineTuningArguments`): How to train.
        model_args (`ModelArguments`, *optional*): What to start from; HEAR from scratch by default.
        augmentation_args (`AugmentationArguments`, *optional*): How to vary the training clips; not at all by default.
        adapter_args (`AdapterArguments`, *optional*): Which adapter to train; the model itself by default.
    """
    model_args = model_args or ModelArguments()
    set_seed(training_args.seed)  # before a new head is drawn; Trainer does so only behind it
    label_names, multi_label = label_feature(dataset["train"])
    feature_extractor, model = load_model(model_args, label_names.names, multi_label)
    freeze(model, model_args.freeze)
    if adapter_args is not None and adapter_args.lora_r is not None:
        base = model_args.model_name_or_path
        if training_args.push_to_hub and base and Path(base).exists() and not adapter_args.merge_adapter:
            raise ValueError(
                f"`push_to_hub` of an adapter needs a base model on the Hub, found: {base}. Publish that and give its "
                "name there, or give --merge_adapter."
            )
        model = add_adapter(model, adapter_args, model_args.model_name_or_path, model_args.model_revision)
    rate = feature_extractor.sampling_rate
    cache = training_args.cache(rate)
    train = prepare_clips(dataset["train"], rate, augmentation_args, cache)
    collator = partial(collate, feature_extractor=feature_extractor)
    rate_factors = (model_args.acoustic_learning_rate_scale, model_args.layerwise_learning_rate_decay)
    return FineTuningTrainer(
        model,
        training_args.best_by("mean_average_precision" if multi_label else "accuracy"),
        data_collator=collator,
        train_dataset=train,
        eval_dataset=prepare_clips(dataset["validation"], rate, cache=cache),
        processing_class=feature_extractor,
        compute_metrics=multi_label_metrics if multi_label else single_label_metrics,
        compute_loss_func=build_loss(dataset["train"], training_args),
        optimizers=(build_optimizer(model, training_args, *rate_factors), None),
        callbacks=build_callbacks(train, collator, training_args),
    )


def build_loss(clips: Dataset, training_args: FineTuningArguments) -> ClassificationLoss:
    label_names, multi_label = label_feature(clips)
    weights = None
    if training_args.class_balanced:
        weights = balanced_label_weights(clips["label"][:], label_names.num_classes, multi_label)
    return ClassificationLoss(multi_label, weights, training_args.label_smoothing_factor)


def build_callbacks(train: Dataset, collator: partial, training_args: FineTuningArguments) -> list[TrainerCallback]:
    callbacks: list[TrainerCallback] = [BatchNormCalibration(train, collator), SaveAtEpochEnd()]
    if training_args.early_stopping_patience is not None:
        callbacks.append(EarlyStoppingCallback(training_args.early_stopping_patience))
    return callbacks
