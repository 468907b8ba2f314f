"""HEAR's acoustic model: log-mel frames -> acoustic hidden states, window by window.

Shapes: B batch, T spectrogram frames (10 ms), n = T // 2 encoder frames (20 ms), L window, D width, H heads of size d.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutput

from .attention_hear import HEARAttention
from .configuration_hear import HEARConfig, HEARQuantizerConfig
from .graphs_hear import at_once, fits, is_readable, of_fixed_length

WINDOWS_PER_PASS = 4  # bounds the memory of long clips
PACKED_FRAMES = 600  # bounds it where windows are packed
MIN_RAMP = 1e-3
MIN_WINDOW_WEIGHT = 1e-8


class HEARPairConv(nn.Conv1d):
    """Convolution over pairs of frames, (B, T, mel) -> (B, n, D); an odd last frame is dropped.

    Computed as the linear layer that it is, for which oneDNN does not compile and keep a kernel for each length. An
    adapter of PEFT consists of two of these, the second of single frames.
    """

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        size = self.kernel_size[0]
        num_groups = frames.shape[1] // size
        groups = frames[:, : size * num_groups].unflatten(1, (num_groups, size)).flatten(2)  # (B, n, size * mel)
        return nn.functional.linear(groups, self.weight.transpose(1, 2).flatten(1), self.bias)


class HEARFeatureEncoder(nn.Module):
    """Two log-mel frames -> one encoder frame."""

    def __init__(self, config: HEARConfig | HEARQuantizerConfig):
        super().__init__()
        self.conv = HEARPairConv(config.num_mel_bins, config.hidden_size, kernel_size=2, stride=2)

    def forward(self, log_mel: torch.Tensor) -> torch.Tensor:
        return nn.functional.relu(self.conv(log_mel))


class HEARFeedForward(nn.Module):
    def __init__(self, config: HEARConfig | HEARQuantizerConfig):
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
    """Pre-norm layer. The feed-forward part has another norm of its own after the layer's, as in the original."""

    def __init__(self, config: HEARConfig | HEARQuantizerConfig):
        super().__init__()
        self.attention_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = HEARAttention(config)
        self.feed_forward_layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.feed_forward = HEARFeedForward(config)

    def forward(
        self,
        hidden_states: torch.Tensor,
        frame_mask: torch.Tensor | None,
        window_lengths: list[int] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        attended, weights = self.attention(self.attention_layer_norm(hidden_states), frame_mask, window_lengths)
        hidden_states = hidden_states + attended
        return hidden_states + self.feed_forward(self.feed_forward_layer_norm(hidden_states)), weights


@dataclass
class FrameMasks:
    """Which frames are valid, `frame_mask` (B, n), and which frames and features to mask, (B, n) and (B, D)."""

    frame_mask: torch.Tensor | None = None
    mask_time_indices: torch.Tensor | None = None
    mask_feature_indices: torch.Tensor | None = None

    @property
    def masks_nothing(self) -> bool:
        return self.mask_time_indices is None and self.mask_feature_indices is None

    def windows(self, frames: torch.Tensor) -> "FrameMasks":
        """Masks of the windows that hold these `frames`, (W, L): (B * W, L) and (B * W, D)."""

        def cut(mask: torch.Tensor | None) -> torch.Tensor | None:
            if mask is None:
                return None
            return mask.index_select(1, frames.flatten()).unflatten(1, frames.shape).flatten(0, 1)

        features = self.mask_feature_indices
        if features is not None:
            features = features[:, None].expand(-1, frames.shape[0], -1).flatten(0, 1)
        return FrameMasks(cut(self.frame_mask), cut(self.mask_time_indices), features)

    def masked(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Sets masked frames and features to zero."""
        if self.mask_time_indices is not None:
            hidden_states = hidden_states.masked_fill(self.mask_time_indices.unsqueeze(-1), 0.0)
        if self.mask_feature_indices is not None:
            hidden_states = hidden_states.masked_fill(self.mask_feature_indices.unsqueeze(1), 0.0)
        return hidden_states


@dataclass
class Window:
    """The frames `start` to `stop` of a `clip`."""

    clip: int
    start: int
    stop: int

    @property
    def length(self) -> int:
        return self.stop - self.start


@dataclass
class WindowGroup:
    """`count` windows of equal length, the first of which begins at frame `start`; `weight` 0 leaves them out."""

    start: int
    count: int
    length: int
    weight: int = 1

    def frames(self, stride: int, device: torch.device) -> torch.Tensor:
        """The frames of each, (count, length)."""
        starts = self.start + stride * torch.arange(self.count, device=device)
        return starts[:, None] + torch.arange(self.length, device=device)

    def span(self, stride: int) -> slice:
        """All frames from the first window's start to the last one's end."""
        return slice(self.start, self.start + (self.count - 1) * stride + self.length)


class WindowSums:
    """Weighted sums of windows' hidden states, and of their weights, over the frames of a batch."""

    def __init__(self, batch_size: int, num_frames: int, device: torch.device):
        # In float32, for float16 has no 1e-8.
        self.weight = torch.zeros(batch_size, num_frames, 1, dtype=torch.float32, device=device)
        self.states: list[torch.Tensor] = []

    def add(self, place: tuple, weight: torch.Tensor | float, states: list[torch.Tensor]) -> None:
        """Adds weighted `states` and their `weight` to the frames `place`."""
        self.weight[place] += weight
        self.states = self.states or [state.new_zeros(*self.weight.shape[:2], state.shape[-1]) for state in states]
        for total, state in zip(self.states, states, strict=True):
            total[place] += state

    def means(self) -> list[torch.Tensor]:
        weight = self.weight.clamp(min=MIN_WINDOW_WEIGHT)
        return [state.div_(weight) for state in self.states]


class HEARWindowedLayers(nn.Module):
    """Layers that read clips of any length window by window: (batch_size, num_frames, D) -> the same shape."""

    inputs_per_frame = 1

    def __init__(self, config: HEARConfig | HEARQuantizerConfig):
        super().__init__()
        self.window_length, self.window_overlap = config.window_length, config.window_overlap
        self.stride = config.window_length - config.window_overlap
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
        """Maps inputs (batch_size, inputs_per_frame * num_frames, .) to states (batch_size, num_frames, D)."""
        masks = FrameMasks() if masks is None else masks
        attentions: list = []
        if not output_attentions and can_be_packed(inputs, masks):
            states = self.encode_packed(inputs, masks.frame_mask, output_hidden_states)
        elif fits(inputs.shape[1] // self.inputs_per_frame, self.window_length):
            states, attentions = self.encode_window(inputs, masks, output_attentions, output_hidden_states)
        else:
            states, attentions = self.encode_windows(inputs, masks, output_attentions, output_hidden_states)
        return BaseModelOutput(
            last_hidden_state=states[-1],
            hidden_states=tuple(states) if output_hidden_states else None,
            attentions=tuple(attentions) if output_attentions else None,
        )

    def encode_window(
        self,
        inputs: torch.Tensor,
        masks: FrameMasks,
        output_attentions: bool,
        output_hidden_states: bool,
        window_lengths: list[int] | None = None,
    ) -> tuple[list[torch.Tensor], list]:
        """All hidden states of one window, or the last alone, and its attention probabilities."""
        hidden_states = masks.masked(self.embed(inputs))
        states = [hidden_states]
        attentions: list[torch.Tensor] = []
        for layer in self.layers:
            hidden_states, weights = layer(hidden_states, masks.frame_mask, window_lengths)
            states = [*states, hidden_states] if output_hidden_states else [hidden_states]
            if output_attentions:
                attentions.append(weights)
        return states, attentions

    def encode_windows(
        self, inputs: torch.Tensor, masks: FrameMasks, output_attentions: bool, output_hidden_states: bool
    ) -> tuple[list[torch.Tensor], list]:
        """Windows of L frames, the last one shorter, joined by weights that fall and rise where two overlap."""
        inputs, num_inputs = of_fixed_length(inputs)
        batch_size, num_frames = inputs.shape[0], num_inputs // self.inputs_per_frame
        by_frame = inputs[:, : self.inputs_per_frame * num_frames].unflatten(1, (num_frames, self.inputs_per_frame))
        sums = WindowSums(batch_size, num_frames, inputs.device)
        attentions: list[tuple[torch.Tensor, ...]] = []
        for group in self.window_groups(num_frames):
            frames = group.frames(self.stride, inputs.device)
            windows = by_frame.index_select(1, frames.flatten()).unflatten(1, frames.shape)  # (B, W, L, ., F)
            windows = windows.flatten(2, 3).flatten(0, 1)  # (B, W, L, ., F) -> (B * W, L * ., F)
            states, weights = self.encode_window(
                windows, masks.windows(frames), output_attentions, output_hidden_states
            )
            attentions += zip(*(layer.unflatten(0, (batch_size, -1)).unbind(1) for layer in weights), strict=True)

            weight = self.window_weights(group, frames, masks.frame_mask)
            weighted = [(weight * state.unflatten(0, (batch_size, group.count))).to(state.dtype) for state in states]
            place = slice(None), group.span(self.stride)
            sums.add(place, self.overlap_add(weight), [self.overlap_add(state) for state in weighted])
        return sums.means(), list(zip(*attentions, strict=True))

    def encode_packed(
        self, inputs: torch.Tensor, frame_mask: torch.Tensor | None, output_hidden_states: bool
    ) -> list[torch.Tensor]:
        """Computes [`HEARWindowedLayers.encode_windows`] with several windows in one row and no padding among them.

        The matrices are larger, and a clip costs its own length. Frames past a clip's end become zero.
        """
        batch_size, num_frames = inputs.shape[0], inputs.shape[1] // self.inputs_per_frame
        lengths = [num_frames] * batch_size if frame_mask is None else frame_mask.sum(-1).tolist()
        sums, ramp = WindowSums(batch_size, num_frames, inputs.device), self.window_ramp(inputs.device)
        for windows in packs([window for clip in enumerate(lengths) for window in self.clip_windows(*clip)]):
            row = torch.cat([self.window_inputs(inputs, window) for window in windows]).unsqueeze(0)
            window_lengths = [window.length for window in windows]
            states, _ = self.encode_window(row, FrameMasks(), False, output_hidden_states, window_lengths)
            for window, *parts in zip(windows, *(state[0].split(window_lengths) for state in states), strict=True):
                is_alone = lengths[window.clip] <= self.window_length
                weight = 1.0 if is_alone else ramp[: window.length]
                weighted = [(weight * part).to(part.dtype) for part in parts]
                sums.add((window.clip, slice(window.start, window.stop)), weight, weighted)
        return sums.means()

    def clip_windows(self, clip: int, num_frames: int) -> list[Window]:
        """The windows of a clip that bring new frames."""
        starts = range(0, max(1, num_frames - self.window_overlap), self.stride)
        return [Window(clip, start, min(start + self.window_length, num_frames)) for start in starts]

    def window_inputs(self, inputs: torch.Tensor, window: Window) -> torch.Tensor:
        return inputs[window.clip, self.inputs_per_frame * window.start : self.inputs_per_frame * window.stop]

    def window_groups(self, num_frames: int) -> list[WindowGroup]:
        """The windows that bring new frames, those of full length in groups, the last one by itself."""
        length, stride = self.window_length, self.stride
        num_full = torch.sym_max((num_frames - self.window_overlap - 1) // stride, 0)
        last = WindowGroup(num_full * stride, 1, num_frames - num_full * stride)
        if at_once(num_full, WINDOWS_PER_PASS):
            # In an exported graph clips of a single window have a first group, too: a frame of weight 0.
            length = torch.sym_min(length, 1 + num_full * length)
            return [WindowGroup(0, torch.sym_max(num_full, 1), length, torch.sym_min(num_full, 1)), last]
        sizes = (min(WINDOWS_PER_PASS, num_full - i) for i in range(0, num_full, WINDOWS_PER_PASS))
        return [WindowGroup(i * WINDOWS_PER_PASS * stride, size, length) for i, size in enumerate(sizes)] + [last]

    def overlap_add(self, windows: torch.Tensor) -> torch.Tensor:
        """Sums windows where they overlap: (B, W, L, D) -> (B, (W - 1) * stride + L, D)."""
        count, length = windows.shape[1:3]
        num_parts = -(-self.window_length // self.stride)
        windows = nn.functional.pad(windows, (0, 0, 0, num_parts * self.stride - length))
        total = windows.new_zeros(())
        for i, part in enumerate(windows.split(self.stride, dim=2)):
            later = (num_parts - 1 - i) * self.stride
            total = total + nn.functional.pad(part.flatten(1, 2), (0, 0, i * self.stride, later))
        return total[:, : (count - 1) * self.stride + length]

    def window_weights(
        self, group: WindowGroup, frames: torch.Tensor, frame_mask: torch.Tensor | None
    ) -> torch.Tensor:
        """Raised-cosine ramps at both ends, (1 or B, W, L, 1); 0 for a clip to which a window brings no frame."""
        ramp = self.window_ramp(frames.device)[: group.length]
        weight = (group.weight * ramp).expand(1, group.count, -1, 1)
        if frame_mask is None:
            return weight
        starts = frames[:, 0]
        num_known = torch.where(starts > 0, starts + self.window_overlap, 0)
        return weight * (frame_mask.sum(-1, keepdim=True) > num_known)[..., None, None]

    def window_ramp(self, device: torch.device) -> torch.Tensor:
        """The weights of a full window's frames, (L, 1)."""
        ramp = torch.linspace(0, 1, self.window_overlap, device=device)
        ramp = (0.5 - 0.5 * torch.cos(math.pi * ramp)).clamp(min=MIN_RAMP)
        weight = torch.ones(self.window_length, device=device)
        weight[: self.window_overlap] = ramp
        weight[self.window_length - self.window_overlap :] = ramp.flip(0)
        return weight.unsqueeze(-1)


def can_be_packed(inputs: torch.Tensor, masks: FrameMasks) -> bool:
    """Whether windows may be packed, for which Python must know the clips' lengths.

    Only in inference: gradients of many small pieces would cost more than packing saves.
    """
    return masks.masks_nothing and is_readable(inputs) and not torch.is_grad_enabled()


def packs(windows: list[Window]) -> Iterator[list[Window]]:
    """Windows in groups of at most `PACKED_FRAMES` frames, or of one window."""
    group: list[Window] = []
    for window in windows:
        if group and sum(packed.length for packed in [*group, window]) > PACKED_FRAMES:
            yield group
            group = []
        group.append(window)
    if group:
        yield group


class HEARAcousticModel(HEARWindowedLayers):
    """Log-mel frames -> acoustic hidden states, window by window (paper, section 3.2)."""

    inputs_per_frame = 2

    def __init__(self, config: HEARConfig | HEARQuantizerConfig):
        super().__init__(config)
        self.feature_encoder = HEARFeatureEncoder(config)

    def embed(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.feature_encoder(inputs)
