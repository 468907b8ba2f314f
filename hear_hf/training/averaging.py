"""An exponential moving average of a model's weights, kept beside the training and used in place of them."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import TrainerCallback


class WeightAverage(TrainerCallback):
    """
    Averages a model's weights, and the statistics of its batch norm with them, after each step.

    Args:
        model (`torch.nn.Module`): What is trained, on its device.
        decay (`float`): The average keeps this share of itself in each step.
    """

    def __init__(self, model: torch.nn.Module, decay: float):
        self.model = model
        self.average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)

    def on_step_end(self, args, state, control, **kwargs):
        self.average.update_parameters(self.model)

    def restart(self) -> None:
        """Makes the present weights the average."""
        self.average.n_averaged.zero_()
        self.average.update_parameters(self.model)

    @contextmanager
    def swapped_in(self) -> Iterator[None]:
        """Gives the model the averaged weights within the context."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        ours, theirs = (chain(model.parameters(), model.buffers()) for model in (self.model, self.average.module))
        for a, b in zip(ours, theirs, strict=True):
            kept = a.clone()
            a.copy_(b)
            b.copy_(kept)
