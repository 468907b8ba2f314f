"""What models of waveforms share: clips of a padded batch, front ends that stay float32, and outputs of frames.

Shapes: B batch, N samples, M frequency bands, T frames, D width.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers import PreTrainedModel
from transformers import initialization as init
from transformers.utils import ModelOutput


@dataclass
class WaveformModelOutput(ModelOutput):
    """
    Output of a model that turns waveforms into frames.

    Args:
        last_hidden_state (`torch.FloatTensor` of shape `(batch_size, num_frames, hidden_size)`):
            One vector per frame. `config.inputs_to_logits_ratio` is the distance between two frames in samples,
            `config.first_frame_center` the sample at which the first is centred.
        pooler_output (`torch.FloatTensor` of shape `(batch_size, hidden_size)`):
            Mean of `last_hidden_state` over each clip's valid frames.
        frame_mask (`torch.BoolTensor` of shape `(batch_size, num_frames)`):
            True where a frame belongs to the clip, False where it is padding.
        hidden_states (`tuple(torch.FloatTensor)`, *optional*, with `output_hidden_states=True`):
            Output of each stage, averaged over frequency, of shape `(batch_size, num_stage_frames, stage_width)`; last
            `last_hidden_state`.
    """

    last_hidden_state: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None
    frame_mask: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None


class WaveformFrontEnd(nn.Module):
    """A front end without parameters, whose tables stay float32 whatever the model's dtype.

    Args:
        config ([`PreTrainedConfig`]): Kept for the tables.
    """

    def __init__(self, config):
        super().__init__()
        self.config = config
        for name, table in self.tables().items():
            self.register_buffer(name, table, persistent=False)

    def tables(self) -> dict[str, torch.Tensor]:
        """The fixed tables by buffer name; `_init_weights` refills the buffers with them."""
        raise NotImplementedError

    def _apply(self, fn, recurse=True):
        # `.half()` and `.to(dtype)` move the tables but must not round them.
        tables = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)
        for name, table in tables.items():
            moved = getattr(self, name)
            if moved.dtype != table.dtype:
                setattr(self, name, table.to(moved.device))
        return self


class WaveformPreTrainedModel(PreTrainedModel):
    """Weight initialisation, and downloading and loading of checkpoints.

    | part | initial values |
    |---|---|
    | convolutions | normal, Kaiming fan-in |
    | linear layers | normal, `initializer_range` |
    | biases | 0 |
    | norms | 1, 0 |
    """

    main_input_name = "input_values"
    input_modalities = "audio"

    @torch.no_grad()
    def _init_weights(self, module):
        super()._init_weights(module)
        if isinstance(module, WaveformFrontEnd):
            for name, table in module.tables().items():
                init.copy_(getattr(module, name), table)
        elif isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight)

    def check_inputs(self, input_values: torch.Tensor, attention_mask: torch.Tensor | None) -> None:
        if input_values.ndim != 2:
            raise ValueError(
                f"`input_values` must have shape (batch_size, num_samples), found: {tuple(input_values.shape)}. "
                "Average the channels, and give a single clip as `input_values[None]`."
            )
        if input_values.shape[1] < self.config.min_num_samples:
            raise ValueError(
                f"`input_values` must hold at least {self.config.min_num_samples} samples a clip, found: "
                f"{input_values.shape[1]}."
            )
        if attention_mask is not None and attention_mask.shape != input_values.shape:
            raise ValueError(
                f"`attention_mask` must have the shape of `input_values`, {tuple(input_values.shape)}, found: "
                f"{tuple(attention_mask.shape)}. It marks samples, not frames."
            )

    def wants_hidden_states(self, output_hidden_states: bool | None) -> bool:
        """What is asked for, or else what the configuration says."""
        return bool(self.config.output_hidden_states if output_hidden_states is None else output_hidden_states)


def align_clips(
    input_values: torch.Tensor, attention_mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Moves each clip to the start of its row and puts zeros behind it, so that padding is never read.

    Returns:
        samples (B, N) in float32 and lengths (B, 1), or `None` where all clips fill their row.
    """
    samples = input_values.float()
    if attention_mask is None or hides_nothing(attention_mask):
        return samples, None
    valid = attention_mask.bool()
    lengths = valid.sum(-1, keepdim=True).clamp(min=1)
    position = torch.arange(samples.shape[1], device=samples.device)
    source = (valid.int().argmax(-1, keepdim=True) + position).clamp(max=samples.shape[1] - 1)
    return samples.gather(1, source).masked_fill(position >= lengths, 0.0), lengths


def hides_nothing(attention_mask: torch.Tensor) -> bool:
    """Whether a mask may be left out, which is faster. A GPU would have to wait for the answer, a graph cannot ask."""
    if attention_mask.device.type != "cpu" or torch.compiler.is_compiling():
        return False
    return bool(attention_mask.min() > 0)


def frame_mask(hidden_states: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
    """True where a frame is valid: hidden states (B, T, D) and lengths (B, 1) -> (B, T)."""
    if lengths is None:
        return torch.ones(hidden_states.shape[:2], dtype=torch.bool, device=hidden_states.device)
    return torch.arange(hidden_states.shape[1], device=hidden_states.device) < lengths


def masked_mean(hidden_states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean over the valid frames: (B, T, D) and (B, T) -> (B, D)."""
    total = hidden_states.masked_fill(~mask.unsqueeze(-1), 0.0).sum(1)
    return total / mask.sum(1, keepdim=True)


def mean_over_frequency(hidden_states: torch.Tensor) -> torch.Tensor:
    """(B, D, M, T) -> (B, T, D)"""
    return hidden_states.mean(2).transpose(1, 2)


def frames_output(
    frames: torch.Tensor, lengths: torch.Tensor | None, hidden_states: list[torch.Tensor]
) -> WaveformModelOutput:
    """The output of a model, from its frames (B, T, D), how many of each clip are valid, and those of its stages."""
    mask = frame_mask(frames, lengths)
    return WaveformModelOutput(
        last_hidden_state=frames,
        pooler_output=masked_mean(frames, mask),
        frame_mask=mask,
        hidden_states=tuple(hidden_states) or None,
    )
