"""HEAR's spectrogram mixture, task model and classification head: acoustic hidden states -> logits.

Shapes: B batch, n encoder frames (20 ms), D width, H heads of size d, F bins of the log-power spectrum.
"""

import math

import torch
from torch import nn
from transformers.activations import ACT2FN

from .configuration_hear import HEARConfig
from .frames_hear import at_least_float32
from .graphs_hear import at_once, without_autocast

POOLING_EPS = 1e-8


class HEARSpectrogramMixture(nn.Module):
    """Mixes the log-power spectrum into the acoustic hidden states, which gate it (paper, section 3.3)."""

    def __init__(self, config: HEARConfig):
        super().__init__()
        self.gate = nn.Linear(config.hidden_size, config.hidden_size)
        self.spectrum = nn.Linear(2 * (config.n_fft // 2 + 1), config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        # Written in Python: for PyTorch's own GELU oneDNN would compile and keep a kernel for each length on a CPU.
        self.activation = ACT2FN["gelu_python"]
        self.output = nn.Linear(2 * config.hidden_size, config.task_hidden_size)

    def forward(self, hidden_states: torch.Tensor, log_power: torch.Tensor) -> torch.Tensor:
        pairs = log_power.unflatten(1, (-1, 2)).transpose(2, 3).flatten(2)  # (B, 2n, F) -> (B, n, 2F), bin-major
        spectrum = self.spectrum(pairs) * self.gate(hidden_states).sigmoid()
        spectrum = self.activation(self.layer_norm(spectrum))
        return self.output(torch.cat([hidden_states, spectrum], dim=-1))


class HEARTaskModel(nn.Module):
    """One post-norm transformer layer over the clip, or over each segment of a longer one (paper, section 3.4)."""

    def __init__(self, config: HEARConfig):
        super().__init__()
        width = config.task_hidden_size
        self.num_heads = config.task_num_attention_heads
        self.dropout = config.task_dropout
        self.position_embeddings = nn.Parameter(torch.zeros(1, config.max_position_embeddings, width))
        self.qkv_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)
        self.attention_layer_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)
        self.intermediate_dense = nn.Linear(width, config.task_intermediate_size)
        self.output_dense = nn.Linear(config.task_intermediate_size, width)
        self.final_layer_norm = nn.LayerNorm(width, eps=config.layer_norm_eps)

    def forward(
        self, hidden_states: torch.Tensor, frame_mask: torch.Tensor | None, output_attentions: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        hidden_states = hidden_states + self.position_embeddings[:, : hidden_states.shape[1]]
        attended, weights = self.attend(hidden_states, frame_mask, output_attentions)
        hidden_states = self.attention_layer_norm(hidden_states + self.drop(attended))
        expanded = self.drop(nn.functional.relu(self.intermediate_dense(hidden_states)))
        return self.final_layer_norm(hidden_states + self.drop(self.output_dense(expanded))), weights

    def drop(self, hidden_states: torch.Tensor) -> torch.Tensor:
        return nn.functional.dropout(hidden_states, p=self.dropout, training=self.training)

    def attend(
        self, hidden_states: torch.Tensor, frame_mask: torch.Tensor | None, output_attentions: bool
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        qkv = self.qkv_proj(hidden_states).unflatten(-1, (3, self.num_heads, -1))
        query, key, value = qkv.permute(2, 0, 3, 1, 4)  # (B, n, 3, H, d) -> 3 x (B, H, n, d)
        if output_attentions:
            weights = attention_weights(query, key, frame_mask)
            attended = self.drop(weights) @ value
        else:
            weights, bias, dropout = None, None, self.dropout if self.training else 0.0
            if frame_mask is not None:
                bias = torch.zeros_like(frame_mask, dtype=query.dtype)
                bias = bias.masked_fill(~frame_mask, torch.finfo(query.dtype).min)[:, None, None, :]
            attended = nn.functional.scaled_dot_product_attention(query, key, value, bias, dropout)
        return self.out_proj(attended.transpose(1, 2).flatten(2)), weights


def attention_weights(query: torch.Tensor, key: torch.Tensor, frame_mask: torch.Tensor | None) -> torch.Tensor:
    """Attention probabilities, (B, H, n, n), which fused attention does not return."""
    scores = query @ key.transpose(2, 3) / math.sqrt(query.shape[-1])
    if frame_mask is not None:  # a sum with the lowest number would become -inf in float16
        scores = scores.masked_fill(~frame_mask[:, None, None, :], torch.finfo(scores.dtype).min)
    return scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(query.dtype)


def pool_statistics(hidden_states: torch.Tensor, frame_mask: torch.Tensor, segment_length: int) -> torch.Tensor:
    """Mean, maximum and standard deviation over the valid frames, in float32: (B, n, D) -> (B, 3D).

    Long clips are pooled in segments, which needs no copy of all their frames.
    """
    if at_once(hidden_states.shape[1], segment_length):
        count, mean, maximum, square = segment_statistics(hidden_states, frame_mask)
    else:
        count, mean, maximum, square = joined_statistics(hidden_states, frame_mask, segment_length)
    deviation = (square / (count - 1).clamp(min=1) + POOLING_EPS).sqrt()
    return torch.cat([mean, maximum, deviation], dim=-1)


def segment_statistics(hidden_states: torch.Tensor, frame_mask: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Number of valid frames, (B, 1), and their mean, maximum and sum of squares about the mean, (B, D) each."""
    hidden_states, weights = at_least_float32(hidden_states), frame_mask.unsqueeze(-1)
    count = weights.sum(1)
    mean = (hidden_states * weights).sum(1) / count.clamp(min=1)
    maximum = hidden_states.masked_fill(~weights, torch.finfo(hidden_states.dtype).min).amax(1)
    squares = ((hidden_states - mean.unsqueeze(1)).square() * weights).sum(1)
    return count, mean, maximum, squares


def joined_statistics(
    hidden_states: torch.Tensor, frame_mask: torch.Tensor, segment_length: int
) -> tuple[torch.Tensor, ...]:
    """Statistics of all frames, those of [`segment_statistics`], joined from the segments' own.

    These are copied into whole tensors: kept between freed temporaries, they would fragment the heap.
    """
    segments = zip(hidden_states.split(segment_length, dim=1), frame_mask.split(segment_length, dim=1), strict=True)
    batch_size, num_frames, width = hidden_states.shape
    num_segments = -(-num_frames // segment_length)
    dtype = torch.promote_types(hidden_states.dtype, torch.float32)
    moments = hidden_states.new_empty(3, num_segments, batch_size, width, dtype=dtype)
    counts = hidden_states.new_empty(num_segments, batch_size, 1, dtype=dtype)
    for i, segment in enumerate(segments):
        counts[i], moments[0, i], moments[1, i], moments[2, i] = segment_statistics(*segment)

    means, maxima, squares = moments
    count = counts.sum(0)
    mean = (counts * means).sum(0) / count.clamp(min=1)
    square = (squares + counts * (means - mean).square()).sum(0)
    return count, mean, maxima.amax(0), square


class HEARBatchNorm(nn.BatchNorm1d):
    """Batch norm that in training, too, may normalise by the running statistics, and leaves them as they are.

    It does so where it is frozen, for an adapter does not save them, and with one clip, which has no variance.
    """

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if self.training and (hidden_states.shape[0] == 1 or not self.weight.requires_grad):
            return nn.functional.batch_norm(
                hidden_states, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        return super().forward(hidden_states)


class HEARClassificationHead(nn.Module):
    """Pooled statistics -> logits; in float32 under autocast.

    The batch norm's inputs lie far from zero (2 to 3 deviations from scratch, more with a higher learning rate):
    rounding them to bfloat16 before their mean is subtracted can cost a third of their deviation.
    """

    def __init__(self, config: HEARConfig):
        super().__init__()
        width: int = config.classifier_proj_size  # type: ignore[assignment]  # else the head is linear
        self.dense = nn.Linear(3 * config.task_hidden_size, width)
        self.batch_norm = HEARBatchNorm(width)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.out_proj = nn.Linear(width, config.num_labels)  # type: ignore[arg-type]  # never None

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        with without_autocast(pooled.device.type):
            # Not the linear layer's type: a quantised one may have another than its inputs, or none.
            hidden_states = self.dense(pooled.to(self.batch_norm.weight.dtype))
            hidden_states = nn.functional.relu(self.batch_norm(hidden_states))
            return self.out_proj(self.dropout(hidden_states))


class HEARLinearHead(nn.Module):
    """Pooled statistics -> logits without a hidden layer, where `classifier_proj_size` is `None`."""

    def __init__(self, config: HEARConfig):
        super().__init__()
        self.out_proj = nn.Linear(3 * config.task_hidden_size, config.num_labels)  # type: ignore[arg-type]

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        weight = self.out_proj.weight  # of a quantised layer integers, or a function
        is_plain = isinstance(weight, torch.Tensor) and weight.is_floating_point()
        with without_autocast(pooled.device.type):
            return self.out_proj(pooled.to(weight.dtype) if is_plain else at_least_float32(pooled))
