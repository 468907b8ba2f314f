"""Losses, learning rates, optimizers and batch-norm statistics of the training runs."""

import re
from collections import Counter

import torch
from transformers import PreTrainedModel, Trainer, TrainerCallback

from .runs import RunArguments

# Layers that read spectra or write logits and targets, which Muon does not suit.
FIRST_OR_LAST_LAYER = re.compile(
    r"(\b(spectrum|code_head|mel_head|teacher_head|classifier(\.out_proj)?|frame_classifier)|projectors\.\w+\.\d+)$"
)


class ClassificationLoss:
    """
    Cross entropy, or binary cross entropy where a clip has any number of labels, against hard or mixed targets.

    It is the mean over the clips of a whole optimizer step, so that gradient accumulation changes nothing.

    Args:
        multi_label (`bool`): Whether a clip has any number of labels.
        label_weights (`torch.Tensor` of shape `(num_labels,)`, *optional*): Weights of the labels.
        label_smoothing (`float`, *optional*, defaults to 0): Share of a target that is spread over all labels, where a
            clip has one label.
    """

    def __init__(self, multi_label: bool, label_weights: torch.Tensor | None = None, label_smoothing: float = 0.0):
        self.multi_label, self.label_weights, self.label_smoothing = multi_label, label_weights, label_smoothing

    def __call__(self, outputs, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None = None):
        logits = outputs["logits"].float()
        weights = None if self.label_weights is None else self.label_weights.to(logits.device)
        if self.multi_label:
            losses = torch.nn.functional.binary_cross_entropy_with_logits(
                logits, labels, reduction="none", pos_weight=weights
            ).mean(-1)
        else:
            losses = torch.nn.functional.cross_entropy(
                logits, labels, weight=weights, reduction="none", label_smoothing=self.label_smoothing
            )
        labels_per_clip = labels.numel() / len(labels)
        num_clips = len(labels) if num_items_in_batch is None else num_items_in_batch / labels_per_clip
        return losses.sum() / num_clips


def balanced_label_weights(labels: list, num_labels: int, multi_label: bool) -> torch.Tensor:
    """
    Weights labels by the inverse of their frequency.

    Args:
        labels (`list`): The label of each clip, or its list of labels.
        num_labels (`int`): How many labels there are.
        multi_label (`bool`): Whether a clip has any number of labels.

    Returns:
        `torch.Tensor` of shape `(num_labels,)`: Weights whose mean over the clips is 1; with any number of labels per
        clip, how many clips lack a label for each that has it, and at least 1.
    """
    counts = Counter(index for label in labels for index in (label if multi_label else [label]))
    occurrences = torch.tensor([max(counts[index], 1) for index in range(num_labels)], dtype=torch.float32)
    if multi_label:
        return ((len(labels) - occurrences) / occurrences).clamp(min=1.0)
    return len(labels) / (len(counts) * occurrences)


def parameter_groups(
    model: PreTrainedModel,
    learning_rate: float,
    weight_decay: float,
    acoustic_scale: float = 1.0,
    layerwise_decay: float = 1.0,
    muon: bool = False,
) -> list[dict]:
    """
    Groups the trainable parameters by learning rate and weight decay. Biases and norms do not decay.

    Args:
        model (`PreTrainedModel`): The model; its acoustic layers are those named `acoustic_model.layers.<i>`.
        learning_rate (`float`): Peak rate of everything but the acoustic model.
        weight_decay (`float`): Decay of the matrices.
        acoustic_scale (`float`, *optional*, defaults to 1): Factor on the acoustic model's rate.
        layerwise_decay (`float`, *optional*, defaults to 1): Further factor for each acoustic layer below the top one.
        muon (`bool`, *optional*, defaults to `False`): Whether to keep apart, by `use_muon`, what Muon can optimize.

    Returns:
        `list[dict]`: Groups for a `torch.optim` optimizer.
    """
    inner = inner_matrices(model) if muon else set()
    num_layers = getattr(model.config, "num_hidden_layers", 0)
    groups: dict[tuple[float, float, bool], list] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        rate = learning_rate
        if "acoustic_model." in name:
            layer = re.search(r"\.layers\.(\d+)\.", name)
            depth = num_layers - 1 - int(layer[1]) if layer else num_layers
            rate *= acoustic_scale * layerwise_decay**depth
        decays = parameter.ndim > 1 and not name.endswith("bias")
        groups.setdefault((rate, weight_decay if decays else 0.0, name in inner), []).append(parameter)
    return [
        {"params": params, "lr": rate, "weight_decay": decay} | ({"use_muon": is_inner} if muon else {})
        for (rate, decay, is_inner), params in groups.items()
    ]


def inner_matrices(model: torch.nn.Module) -> set[str]:
    """The names of the weights of linear layers, without those that read spectra or write logits."""
    return {
        f"{name}.weight"
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and not FIRST_OR_LAST_LAYER.search(name)
    }


def build_optimizer(
    model: PreTrainedModel, args: RunArguments, acoustic_scale: float = 1.0, layerwise_decay: float = 1.0
) -> torch.optim.Optimizer:
    """Builds the optimizer that `args` name, over `parameter_groups`."""
    optimizer_class, settings = Trainer.get_optimizer_cls_and_kwargs(args, model)
    rates = (args.learning_rate, args.weight_decay, acoustic_scale, layerwise_decay)
    groups = parameter_groups(model, *rates, muon=args.uses_muon)
    return MuonAndAdamW(groups, settings) if args.uses_muon else optimizer_class(groups, **settings)


class MuonAndAdamW(torch.optim.Optimizer):
    """
    Muon for the groups marked `use_muon`, AdamW for the others (https://kellerjordan.github.io/posts/muon/).

    Both work on this optimizer's groups and state, so that schedules and checkpoints know one optimizer. Muon's steps
    are scaled to the size of AdamW's: one learning rate and weight decay suits both (arXiv:2502.16982).

    Args:
        groups (`list[dict]`): As of `parameter_groups`.
        adamw_settings (`dict`): Further settings of AdamW.

    Raises:
        `ValueError`: This PyTorch has no Muon.
    """

    def __init__(self, groups: list[dict], adamw_settings: dict):
        if not hasattr(torch.optim, "Muon"):
            raise ValueError(
                f"`--optim muon` must run on PyTorch 2.9 or later, found {torch.__version__}. Update it, or leave the "
                "option out."
            )
        self.parts: list[tuple[bool, torch.optim.Optimizer]] = []
        if inner := [group for group in groups if group["use_muon"]]:
            self.parts.append((True, torch.optim.Muon(inner, adjust_lr_fn="match_rms_adamw")))
        if others := [group for group in groups if not group["use_muon"]]:
            self.parts.append((False, torch.optim.AdamW(others, **adamw_settings)))
        super().__init__(inner + others, {})  # which by now hold the settings of their optimizers

    def step(self, closure=None):
        loss = None if closure is None else closure()
        for uses_muon, part in self.parts:
            part.param_groups = [group for group in self.param_groups if group["use_muon"] == uses_muon]
            part.state = self.state
            part.step()
        return loss


class BatchNormCalibration(TrainerCallback):
    """
    Measures a batch norm's statistics again, on random training batches, before each evaluation.

    Adam at a high learning rate moves the mean of what the norm reads faster than its running average follows: on
    spoken digits, a model of 96 % accuracy by its batches' own statistics had 65 % by the running ones.

    Args:
        train_dataset (`Dataset`): The prepared training clips.
        collator (`Callable`): What makes a batch of them.
        num_batches (`int`, *optional*, defaults to 16): How many batches to measure on.
    """

    def __init__(self, train_dataset, collator, num_batches: int = 16):
        self.train_dataset, self.collator, self.num_batches = train_dataset, collator, num_batches

    def on_step_end(self, args, state, control, model=None, **kwargs):
        if control.should_evaluate:
            self.calibrate(model, args.per_device_train_batch_size)

    on_epoch_end = on_step_end

    def calibrate(self, model: PreTrainedModel, batch_size: int) -> None:
        norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm1d)]
        norms = [norm for norm in norms if norm.weight.requires_grad]  # a frozen one keeps its statistics
        if batch_size == 1 or not norms:
            return
        sampler = torch.utils.data.RandomSampler(self.train_dataset, num_samples=self.num_batches * batch_size)
        loader = torch.utils.data.DataLoader(
            self.train_dataset, batch_size, sampler=sampler, collate_fn=self.collator, drop_last=True
        )
        momenta, was_training = [norm.momentum for norm in norms], model.training
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean over all batches
        model.train()
        with torch.no_grad():
            for batch in loader:
                model(**{name: x.to(model.device) for name, x in batch.items() if name != "labels"})
        model.train(was_training)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
