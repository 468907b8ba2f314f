"""Inference on clips of very unlike lengths, in parts that memory holds."""

from collections.abc import Callable

import numpy as np
import torch
from torch.nn.utils.rnn import pad_sequence

MAX_SAMPLES = 2**24  # of a part with its padding: 17 minutes at 16 kHz


def collate_clips(examples: list[dict]) -> dict[str, torch.Tensor | list[torch.Tensor]]:
    """Collects `labels` and, without padding, `clips`."""
    labels = torch.as_tensor(np.stack([example["labels"] for example in examples]))
    return {"labels": labels, "clips": [torch.as_tensor(example["input_values"]) for example in examples]}


def in_parts(function: Callable[..., torch.Tensor], clips: list[torch.Tensor]) -> torch.Tensor:
    """
    Calls a model whose result for a clip does not depend on its batch, on some clips at a time.

    A padded batch is as long as its longest clip. Hence clips of like lengths go together, as many as make at most
    `MAX_SAMPLES` samples, and a longer one goes alone.

    Args:
        function (`Callable`): Takes `input_values` and `attention_mask`, and returns one row for each clip.
        clips (`list[torch.Tensor]`): Of shape `(num_samples,)` each.

    Returns:
        `torch.Tensor` of shape `(num_clips, ...)`: What `function` returns, in the order of the clips.
    """
    lengths = torch.tensor([len(clip) for clip in clips])
    waiting, results = lengths.argsort(), []
    order = waiting.flip(0)
    while len(waiting):
        count = max(1, MAX_SAMPLES // int(lengths[waiting[-1]]))
        part, waiting = waiting[-count:].flip(0), waiting[:-count]
        padded = pad_sequence([clips[index] for index in part], batch_first=True)
        mask = torch.arange(padded.shape[1]) < lengths[part][:, None]
        results.append(function(input_values=padded, attention_mask=mask.to(padded.device, torch.int32)))
    return torch.cat(results)[order.argsort().to(results[0].device)]
