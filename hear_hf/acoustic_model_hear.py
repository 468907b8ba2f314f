"""HEAR's acoustic model: log-mel frames -> acoustic hidden states, window by window.

Shapes: B batch, T spectrogram frames (10 ms), n = T // 2 encoder frames (20 ms), L window, D width, H heads of size d.
"""

import math
from dataclasses import dataclass

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput

from .configuration_hear import HEARConfig

WINDOWS_PER_PASS = 4  # bounds the memory of long clips
MIN_RAMP = 1e-3
MIN_WINDOW_WEIGHT = 1e-8


def distances_to_keys(scores: torch.Tensor) -> torch.Tensor:
    """Skews scores by distance into scores by key: (..., n, 2n), column j - i + n -> (..., n, n), column j.

    A view (the trick of Music Transformer, arXiv:1809.04281): a row that is one shorter starts one column later.
    """
    n = scores.shape[-2]
    return scores.flatten(-2)[..., n:].unflatten(-1, (n, 2 * n - 1))[..., :n]


def keys_to_distances(probs: torch.Tensor) -> torch.Tensor:
    """The reverse: (..., n, n), column j -> (..., n, 2n), column j - i + n, zero elsewhere."""
    n = probs.shape[-1]
    flat = nn.functional.pad(probs, (0, n - 1)).flatten(-2)
    return nn.functional.pad(flat, (n, 0)).unflatten(-1, (n, 2 * n))


class HEARFeatureEncoder(nn.Module):
    """Two mel frames -> one encoder frame."""

    def __init__(self, config: HEARConfig):
        super().__init__()
        self.conv = nn.Conv1d(config.num_mel_bins, config.hidden_size, kernel_size=2, stride=2)

    def forward(self, log_mel: torch.Tensor) -> torch.Tensor:
        hidden_states = self.conv(log_mel.transpose(1, 2))  # (B, T, mel) -> (B, D, n)
        return nn.functional.relu(hidden_states).transpose(1, 2)  # (B, D, n) -> (B, n, D)


class HEARAttention(nn.Module):
    """Self-attention with learned relative positions in keys and values (paper, section 3.2)."""

    def __init__(self, config: HEARConfig):
        super().__init__()
        width, self.num_heads = config.hidden_size, config.num_attention_heads
        self.head_dim = width // self.num_heads
        self.dropout = config.attention_dropout
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self.content_bias = nn.Parameter(torch.zeros(self.num_heads, self.head_dim))
        self.position_bias = nn.Parameter(torch.zeros(self.num_heads, self.head_dim))
        self.relative_keys = nn.Parameter(torch.zeros(2 * config.window_length, self.head_dim))
        self.relative_values = nn.Parameter(torch.zeros(2 * config.window_length, self.head_dim))

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        heads = (*hidden_states.shape[:-1], self.num_heads, self.head_dim)
        query = self.q_proj(hidden_states).view(heads) / math.sqrt(self.head_dim)
        key = self.k_proj(hidden_states).view(heads).transpose(1, 2)  # (B, n, H, d) -> (B, H, n, d)
        value = self.v_proj(hidden_states).view(heads).transpose(1, 2)

        relative_keys, relative_values = self.relative_tables(hidden_states.shape[1])
        scale = 1 / math.sqrt(self.head_dim)
        content = (query + self.content_bias * scale).transpose(1, 2) @ key.transpose(2, 3)
        position = (query + self.position_bias * scale).transpose(1, 2) @ relative_keys.t()
        scores = content + distances_to_keys(position)
        if attention_mask is not None:
            # The least finite number, not -inf: a clip without a valid frame in this window must not become NaN.
            scores = scores.masked_fill(~attention_mask[:, None, None, :], torch.finfo(scores.dtype).min)

        weights = scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(value.dtype)
        probs = nn.functional.dropout(weights, p=self.dropout, training=self.training)
        output = probs @ value + keys_to_distances(probs) @ relative_values
        return self.out_proj(output.transpose(1, 2).flatten(2)), weights

    def relative_tables(self, num_frames: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The rows of the distances -n .. n - 1, each (2n, d)."""
        zero = self.relative_keys.shape[0] // 2
        rows = slice(zero - num_frames, zero + num_frames)
        return self.relative_keys[rows], self.relative_values[rows]


class HEARFeedForward(nn.Module):
    def __init__(self, config: HEARConfig):
        super().__init__()
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.intermediate_dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.intermediate_dropout = nn.Dropout(config.activation_dropout)
        self.output_dense = nn.Linear(config.intermediate_size, config.hidden_size)
        self.output_dropout = nn.Dropout(config.hidden_dropout)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        hidden_states = self.activation(self.intermediate_dense(self.layer_norm(hidden_states)))
        return self.output_dropout(self.output_dense(self.intermediate_dropout(hidden_states)))


class HEARLayer(GradientCheckpointingLayer):
    """Pre-norm layer. The feed-forward part has a norm of its own after the layer's, as in the original."""

    def __init__(self, config: HEARConfig):
        super().__init__()
        self.attention_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = HEARAttention(config)
        self.feed_forward_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.feed_forward = HEARFeedForward(config)

    def forward(
        self, hidden_states: torch.Tensor, attention_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        attended, weights = self.attention(self.attention_layer_norm(hidden_states), attention_mask)
        hidden_states = hidden_states + attended
        return hidden_states + self.feed_forward(self.feed_forward_layer_norm(hidden_states)), weights


@dataclass
class FrameMasks:
    """What is valid and what is hidden: `valid` (B, n), `hidden_time` (B, n), `hidden_features` (B, D)."""

    valid: torch.Tensor | None = None
    hidden_time: torch.Tensor | None = None
    hidden_features: torch.Tensor | None = None

    def __getitem__(self, frames: slice) -> "FrameMasks":
        cut = (mask if mask is None else mask[:, frames] for mask in (self.valid, self.hidden_time))
        return FrameMasks(*cut, self.hidden_features)

    @staticmethod
    def cat(masks: list["FrameMasks"]) -> "FrameMasks":
        fields = zip(*((mask.valid, mask.hidden_time, mask.hidden_features) for mask in masks), strict=True)
        return FrameMasks(*(None if parts[0] is None else torch.cat(parts) for parts in fields))

    def hide(self, hidden_states: torch.Tensor) -> torch.Tensor:
        if self.hidden_time is not None:
            hidden_states = hidden_states.masked_fill(self.hidden_time.unsqueeze(-1), 0.0)
        if self.hidden_features is not None:
            hidden_states = hidden_states.masked_fill(self.hidden_features.unsqueeze(1), 0.0)
        return hidden_states


class HEARWindowedLayers(nn.Module):
    """Layers that read clips of any length window by window: (batch_size, num_frames, D) -> the same shape."""

    inputs_per_frame = 1

    def __init__(self, config: HEARConfig):
        super().__init__()
        self.window_length, self.window_overlap = config.window_length, config.window_overlap
        self.layers = nn.ModuleList([HEARLayer(config) for _ in range(config.num_hidden_layers)])

    def embed(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs

    def forward(
        self,
        inputs: torch.Tensor,
        masks: FrameMasks | None = None,
        output_attentions: bool = False,
        output_hidden_states: bool = False,
    ) -> BaseModelOutput:
        """`inputs` (batch_size, inputs_per_frame * num_frames, .) -> states (batch_size, num_frames, D)."""
        masks = FrameMasks() if masks is None else masks
        fits = inputs.shape[1] // self.inputs_per_frame <= self.window_length
        encode = self.encode if fits else self.encode_windows
        states, attentions = encode(inputs, masks, output_attentions, output_hidden_states)
        return BaseModelOutput(
            last_hidden_state=states[-1],
            hidden_states=tuple(states) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,
        )

    def encode(self, inputs: torch.Tensor, masks: FrameMasks, output_attentions: bool, output_hidden_states: bool):
        """One window: lists of all hidden states (or the last alone) and of the attention probabilities."""
        hidden_states = masks.hide(self.embed(inputs))
        states, attentions = [hidden_states], []
        for layer in self.layers:
            hidden_states, weights = layer(hidden_states, masks.valid)
            states = [*states, hidden_states] if output_hidden_states else [hidden_states]
            if output_attentions:
                attentions.append(weights)
        return states, attentions

    def encode_windows(
        self, inputs: torch.Tensor, masks: FrameMasks, output_attentions: bool, output_hidden_states: bool
    ):
        """Windows of L frames, the last one shorter, joined by weights that fall and rise where two overlap."""
        batch_size, num_frames = inputs.shape[0], inputs.shape[1] // self.inputs_per_frame
        num_states = len(self.layers) + 1 if output_hidden_states else 1
        merged, attentions = [None] * num_states, []
        total = inputs.new_zeros(batch_size, num_frames, 1, dtype=torch.float32)  # float16 has no 1e-8

        for group in self.window_groups(num_frames):
            stacked = torch.cat([self.input_window(inputs, window) for window in group])
            stacked_masks = FrameMasks.cat([masks[window] for window in group])
            states, weights = self.encode(stacked, stacked_masks, output_attentions, output_hidden_states)
            attentions += zip(*(layer.split(batch_size) for layer in weights), strict=True)
            for i, window in enumerate(group):
                rows = slice(i * batch_size, (i + 1) * batch_size)
                weight = self.window_weight(window, masks.valid, inputs)
                total[:, window] += weight
                for k, state in enumerate(states):
                    if merged[k] is None:
                        merged[k] = state.new_zeros(batch_size, num_frames, state.shape[-1])
                    merged[k][:, window] += (weight * state[rows]).to(state.dtype)

        total = total.clamp(min=MIN_WINDOW_WEIGHT)
        return [state.div_(total) for state in merged], list(zip(*attentions, strict=True))

    def input_window(self, inputs: torch.Tensor, window: slice) -> torch.Tensor:
        return inputs[:, self.inputs_per_frame * window.start : self.inputs_per_frame * window.stop]

    def window_groups(self, num_frames: int) -> list[list[slice]]:
        """The windows that bring new frames, those of full length in groups, a shorter last one by itself."""
        stride = self.window_length - self.window_overlap
        starts = range(0, num_frames - self.window_overlap, stride)
        windows = [slice(start, min(start + self.window_length, num_frames)) for start in starts]
        num_full = len(windows) - (windows[-1].stop - windows[-1].start < self.window_length)
        groups = [windows[i : min(i + WINDOWS_PER_PASS, num_full)] for i in range(0, num_full, WINDOWS_PER_PASS)]
        return groups + ([windows[num_full:]] if num_full < len(windows) else [])

    def window_weight(self, window: slice, valid: torch.Tensor | None, like: torch.Tensor) -> torch.Tensor:
        """Raised-cosine ramps at both ends, (1 or B, frames, 1); 0 for a clip to which the window brings no frame."""
        ramp = torch.linspace(0, 1, self.window_overlap, device=like.device)
        ramp = (0.5 - 0.5 * torch.cos(math.pi * ramp)).clamp(min=MIN_RAMP)
        weight = torch.ones(self.window_length, device=like.device)
        weight[: self.window_overlap] = ramp
        weight[self.window_length - self.window_overlap :] = ramp.flip(0)
        weight = weight[None, : window.stop - window.start, None]
        if valid is None or window.start == 0:
            return weight
        num_known = window.start + self.window_overlap
        return weight * (valid.sum(-1) > num_known)[:, None, None]


class HEARAcousticModel(HEARWindowedLayers):
    """Log-mel frames -> acoustic hidden states, window by window (paper, section 3.2)."""

    inputs_per_frame = 2

    def __init__(self, config: HEARConfig):
        super().__init__(config)
        self.feature_encoder = HEARFeatureEncoder(config)

    def embed(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.feature_encoder(inputs)
