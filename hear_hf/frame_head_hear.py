"""What is heard when: a clip's logits from those of its frames, and the loss against labels of frames or of clips.

Shapes: B batch, n encoder frames (20 ms), L labels.
"""

import torch
from torch import nn

from .frames_hear import at_least_float32

IGNORED_LABEL = -100


def pool_frame_logits(logits: torch.Tensor, frame_mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """
    Pools the probabilities of each clip's valid frames: (B, n, L) -> logits of the clip, (B, L), in float32.

    Args:
        logits (`torch.Tensor` of shape `(batch_size, num_frames, num_labels)`): Of the frames.
        frame_mask (`torch.BoolTensor` of shape `(batch_size, num_frames)`): True where a frame is valid.
        pooling (`str`): "max", "mean", or "linear_softmax": the mean in which each frame weighs as much as its own
            probability ([Wang et al., 2019](https://huggingface.co/papers/1810.09050)).
    """
    heard, silent = pooling_terms(logits, frame_mask, pooling)
    return heard - silent


def pooling_terms(logits: torch.Tensor, frame_mask: torch.Tensor, pooling: str) -> tuple[torch.Tensor, torch.Tensor]:
    """
    Two logarithms, (B, L) each, whose difference is the pooled logit; those of stretches join by [`join_terms`].

    So pooling is exact where probabilities are near 0 or 1.
    """
    logits, padding = at_least_float32(logits), ~frame_mask.unsqueeze(-1)
    lowest = torch.finfo(logits.dtype).min
    if pooling == "max":
        highest = logits.masked_fill(padding, lowest).amax(1)
        return highest, torch.zeros_like(highest)
    heard, silent = nn.functional.logsigmoid(logits), nn.functional.logsigmoid(-logits)
    if pooling == "linear_softmax":
        heard, silent = 2 * heard, heard + silent
    return heard.masked_fill(padding, lowest).logsumexp(1), silent.masked_fill(padding, lowest).logsumexp(1)


def join_terms(
    first: tuple[torch.Tensor, torch.Tensor], second: tuple[torch.Tensor, torch.Tensor], pooling: str
) -> tuple[torch.Tensor, torch.Tensor]:
    """Joins the terms of two stretches of a clip."""
    join = torch.maximum if pooling == "max" else torch.logaddexp
    return join(first[0], second[0]), join(first[1], second[1])


def binary_loss(logits: torch.Tensor, labels: torch.Tensor, num_scored: torch.Tensor | int | None = None):
    """
    Binary cross entropy in float32, a mean over the labels that are not -100.

    Args:
        logits (`torch.Tensor` of any shape): Of frames or of clips.
        labels (`torch.Tensor` of the same shape): From 0 to 1; -100 = not scored.
        num_scored (`torch.Tensor` or `int`, *optional*): What to divide the sum by, where it is the mean over more
            than these labels.
    """
    scored = labels != IGNORED_LABEL
    targets = labels.masked_fill(~scored, 0).to(torch.promote_types(logits.dtype, torch.float32))
    losses = nn.functional.binary_cross_entropy_with_logits(at_least_float32(logits), targets, reduction="none")
    total = (losses * scored).sum()
    return total / (scored.sum().clamp(min=1) if num_scored is None else num_scored)
