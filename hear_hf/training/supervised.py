"""What training on labels has in common, whether of clips or of frames: arguments, and the head first."""

import copy
from dataclasses import dataclass
from typing import Self

import torch

from ..arguments import option
from .run_trainer import RunTrainer
from .runs import RunArguments


@dataclass
class SupervisedArguments(RunArguments):
    """TrainingArguments whose defaults suit HEAR and labelled clips."""

    weight_decay: float = option(default=0.05, help="Weight decay of the matrices.")
    lr_scheduler_type: str = option(default="cosine", help="How the learning rate falls.")
    warmup_steps: float = option(default=0.1, help="Steps of warm-up, or below 1 their share.")
    num_train_epochs: float = option(default=10.0, help="Passes over the training clips.")
    eval_strategy: str = option(default="epoch", help="When to evaluate.")
    save_strategy: str = option(default="epoch", help="When to save a checkpoint.")
    save_total_limit: int | None = option(default=1, help="Checkpoints to keep beside the best one.")
    logging_steps: float = option(default=10, help="Steps between two logged losses.")
    load_best_model_at_end: bool = option(default=True, help="End with the best checkpoint.")
    dataloader_pin_memory: bool = option(
        default=torch.cuda.is_available(), help="Whether batches reach the GPU through pinned memory."
    )
    early_stopping_patience: int | None = option(
        default=None, help="Stop after this many evaluations without a better one."
    )
    head_epochs: int = option(
        default=0,
        help="First draw a new head and train it alone, for so many passes over what the frozen model makes of the "
        "clips (arXiv:2202.10054), which it reads once; 20 to 50 suit a pretrained model.",
    )

    def __post_init__(self):
        self.has_default_metric = self.metric_for_best_model is None  # TrainingArguments fills in the loss
        super().__post_init__()
        if self.head_epochs < 0:
            raise ValueError(f"`head_epochs` must be at least 0, found: {self.head_epochs}")

    def best_by(self, metric: str) -> Self:
        """Returns the same arguments with `metric` choosing the best checkpoint, unless they name one themselves."""
        if not self.has_default_metric:
            return self
        arguments = copy.copy(self)
        arguments.metric_for_best_model, arguments.greater_is_better = metric, True
        return arguments


class SupervisedTrainer(RunTrainer):
    """A Trainer that may train the head alone first, with a loss that is the mean over a whole step."""

    args: SupervisedArguments

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.accelerator.gradient_accumulation_steps = 1  # Transformers 5.4 lets accelerate divide the loss once more

    def train(self, resume_from_checkpoint=None, *args, **kwargs):
        """Trains as any Trainer, but first the head alone where that is asked for; a checkpoint has such a head."""
        if self.args.head_epochs and not resume_from_checkpoint:
            self.train_head()
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def train_head(self) -> None:
        """Trains the head alone."""
        raise NotImplementedError
