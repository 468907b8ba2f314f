"""PyTorch EfficientAT (arXiv:2211.04772): MobileNetV3-Large on log-mel spectrograms, at any width.

The published code is https://github.com/fschmid56/EfficientAT. There the padding of a batch changes a clip's result;
here it does not: frames behind a clip's end are read as the zeros that convolutions pad with, and no mean counts them.
Only in training do the batch norms see them.

Shapes: B batch, N samples, C channels, M mel bins (fewer after each stride), T frames, D width.
"""

from dataclasses import dataclass

import torch
from torch import nn
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .configuration_efficientat import EfficientATConfig, round_to_eight
from .modeling_waveforms import (
    WaveformFrontEnd,
    WaveformModelOutput,
    WaveformPreTrainedModel,
    align_clips,
    frames_output,
    mean_over_frequency,
)

PREEMPHASIS = 0.97
LOG_FLOOR = 1e-5

# MobileNetV3-Large (arXiv:1905.02244, table 1): kernel, expanded width, width, squeeze-excitation, activation, stride.
BLOCKS = (
    (3, 16, 16, False, "relu", 1),
    (3, 64, 24, False, "relu", 2),
    (3, 72, 24, False, "relu", 1),
    (5, 72, 40, True, "relu", 2),
    (5, 120, 40, True, "relu", 1),
    (5, 120, 40, True, "relu", 1),
    (3, 240, 80, False, "hardswish", 2),
    (3, 200, 80, False, "hardswish", 1),
    (3, 184, 80, False, "hardswish", 1),
    (3, 184, 80, False, "hardswish", 1),
    (3, 480, 112, True, "hardswish", 1),
    (3, 672, 112, True, "hardswish", 1),
    (5, 672, 160, True, "hardswish", 2),
    (5, 960, 160, True, "hardswish", 1),
    (5, 960, 160, True, "hardswish", 1),
)
ACTIVATIONS = {"relu": nn.ReLU, "hardswish": nn.Hardswish, None: nn.Identity}


@dataclass
class EfficientATForAudioClassificationOutput(ModelOutput):
    """
    Output of [`EfficientATForAudioClassification`].

    Args:
        loss (`torch.FloatTensor` of shape `(1,)`, *optional*, with `labels`):
            Binary cross entropy, cross entropy or squared error, as `config.problem_type` says.
        logits (`torch.FloatTensor` of shape `(batch_size, num_labels)`):
            Scores of the labels, before the sigmoid.
        last_hidden_state (`torch.FloatTensor` of shape `(batch_size, num_frames, hidden_size)`):
            As in [`WaveformModelOutput`], like those below.
        pooler_output (`torch.FloatTensor` of shape `(batch_size, hidden_size)`):
            The embedding.
        frame_mask (`torch.BoolTensor` of shape `(batch_size, num_frames)`):
            True where a frame belongs to the clip.
        hidden_states (`tuple(torch.FloatTensor)`, *optional*, with `output_hidden_states=True`):
            Output of each stage.
    """

    loss: torch.Tensor | None = None
    logits: torch.Tensor | None = None
    last_hidden_state: torch.Tensor | None = None
    pooler_output: torch.Tensor | None = None
    frame_mask: torch.Tensor | None = None
    hidden_states: tuple[torch.Tensor, ...] | None = None


def kaldi_mel_filters(config: EfficientATConfig) -> torch.Tensor:
    """Triangles of equal width on Kaldi's mel scale, from 0 Hz, without area normalisation, (num_mel_bins, F)."""

    def mel(frequency: torch.Tensor) -> torch.Tensor:
        return 1127.0 * torch.log1p(frequency / 700.0)

    bins = torch.arange(config.n_fft // 2 + 1, dtype=torch.float64, device="cpu") * (
        config.sampling_rate / config.n_fft
    )
    top = mel(torch.tensor(config.max_frequency, dtype=torch.float64, device="cpu"))
    # In units of a triangle's half width, filter m rises from m to m + 1 and falls to m + 2.
    position = mel(bins) / (top / (config.num_mel_bins + 1))
    start = torch.arange(config.num_mel_bins, dtype=torch.float64, device="cpu")[:, None]
    return torch.minimum(position - start, start + 2 - position).clamp(min=0.0).float()


class EfficientATSpectrogram(WaveformFrontEnd):
    """Waveform -> log-mel spectrogram, always in float32."""

    window: torch.Tensor
    mel_filters: torch.Tensor

    def tables(self) -> dict[str, torch.Tensor]:
        window = torch.hann_window(self.config.win_length, periodic=False, dtype=torch.float32, device="cpu")
        return {"window": window, "mel_filters": kaldi_mel_filters(self.config)}

    def forward(
        self, input_values: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        Args:
            input_values (`torch.Tensor` of shape `(batch_size, num_samples)`): Waveform in [-1, 1].
            attention_mask (`torch.Tensor` of shape `(batch_size, num_samples)`, *optional*): 1 = real sample.

        Returns:
            log-mel `(batch_size, num_mel_bins, num_frames)` and the frames `(batch_size, 1)` of each clip, or `None`
            where all clips fill their row.
        """
        config = self.config
        with torch.autocast(device_type=input_values.device.type, enabled=False):
            samples, lengths = align_clips(input_values, attention_mask)
            samples = samples[:, 1:] - PREEMPHASIS * samples[:, :-1]
            lengths = None if lengths is None else (lengths - 1).clamp(min=1)
            samples = mirror_ends(samples, lengths, config.n_fft // 2)
            spectrum = torch.stft(
                samples, config.n_fft, config.hop_length, config.win_length, self.window, center=False,
                return_complex=True,
            )  # fmt: skip
            real, imag = torch.view_as_real(spectrum).unbind(-1)
            log_mel = (self.mel_filters @ (real.square() + imag.square()) + LOG_FLOOR).log()
        return (log_mel + 4.5) / 5, None if lengths is None else 1 + lengths // config.hop_length


def mirror_ends(samples: torch.Tensor, lengths: torch.Tensor | None, margin: int) -> torch.Tensor:
    """Adds a margin on either side, mirrored at each clip's own ends: (B, N) -> (B, margin + N + margin)."""
    num_samples = samples.shape[1]
    ends = torch.full((1, 1), num_samples, device=samples.device) if lengths is None else lengths
    position = torch.arange(-margin, num_samples + margin, device=samples.device).abs()
    position = torch.where(position < ends, position, 2 * (ends - 1) - position).clamp(min=0)
    return samples.gather(1, position.expand(len(samples), -1))


def zero_padding(hidden_states: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
    """Zeros behind each clip's end, where a clip alone meets those of the convolution: (B, C, M, T)."""
    if lengths is None:
        return hidden_states
    valid = torch.arange(hidden_states.shape[-1], device=hidden_states.device) < lengths
    return hidden_states * valid[:, None, None].to(hidden_states.dtype)


class EfficientATConvolution(nn.Module):
    """Convolution without bias, batch norm and activation."""

    def __init__(
        self,
        config: EfficientATConfig,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        groups: int = 1,
        activation: str | None = None,
    ):
        super().__init__()
        self.kernel_size, self.stride = kernel_size, stride
        self.convolution = nn.Conv2d(
            in_channels, out_channels, kernel_size, stride, kernel_size // 2, groups=groups, bias=False
        )
        self.norm = nn.BatchNorm2d(out_channels, eps=config.batch_norm_eps, momentum=config.batch_norm_momentum)
        self.activation = ACTIVATIONS[activation]()

    def forward(
        self, hidden_states: torch.Tensor, lengths: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        if self.kernel_size > 1:
            hidden_states = zero_padding(hidden_states, lengths)
            lengths = None if lengths is None else (lengths - 1) // self.stride + 1
        return self.activation(self.norm(self.convolution(hidden_states))), lengths


class EfficientATSqueezeExcitation(nn.Module):
    """Scales each channel by what its mean over frequency and time calls for (arXiv:1709.01507)."""

    def __init__(self, channels: int):
        super().__init__()
        self.squeeze = nn.Linear(channels, round_to_eight(channels // 4))
        self.excite = nn.Linear(round_to_eight(channels // 4), channels)

    def forward(self, hidden_states: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        mean = zero_padding(hidden_states, lengths).mean((2, 3))
        if lengths is not None:
            mean = mean * (hidden_states.shape[-1] / lengths).to(mean.dtype)
        scale = self.excite(self.squeeze(mean).relu()).sigmoid()
        return hidden_states * scale[:, :, None, None]


class EfficientATBlock(nn.Module):
    """Inverted residual: expand, convolve each channel by itself, squeeze and excite, project."""

    def __init__(
        self,
        config: EfficientATConfig,
        in_channels: int,
        kernel_size: int,
        expanded_channels: int,
        out_channels: int,
        has_squeeze_excitation: bool,
        activation: str,
        stride: int,
    ):
        super().__init__()
        self.is_residual = stride == 1 and in_channels == out_channels
        expands = expanded_channels != in_channels
        # In the order of the published code, which counts its layers.
        self.expand = (
            EfficientATConvolution(config, in_channels, expanded_channels, activation=activation) if expands else None
        )
        self.depthwise = EfficientATConvolution(
            config, expanded_channels, expanded_channels, kernel_size, stride, expanded_channels, activation
        )
        self.squeeze_excitation = EfficientATSqueezeExcitation(expanded_channels) if has_squeeze_excitation else None
        self.project = EfficientATConvolution(config, expanded_channels, out_channels)

    def forward(
        self, hidden_states: torch.Tensor, lengths: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        residual = hidden_states
        if self.expand is not None:
            hidden_states, lengths = self.expand(hidden_states, lengths)
        hidden_states, lengths = self.depthwise(hidden_states, lengths)
        if self.squeeze_excitation is not None:
            hidden_states = self.squeeze_excitation(hidden_states, lengths)
        hidden_states, lengths = self.project(hidden_states, lengths)
        return hidden_states + residual if self.is_residual else hidden_states, lengths


class EfficientATClassificationHead(nn.Module):
    def __init__(self, config: EfficientATConfig):
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.classifier_proj_size)
        self.activation = nn.Hardswish()
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.out_proj = nn.Linear(config.classifier_proj_size, config.num_labels)  # type: ignore[arg-type]  # never None

    def forward(self, pooled: torch.Tensor) -> torch.Tensor:
        return self.out_proj(self.dropout(self.activation(self.dense(pooled))))


class EfficientATPreTrainedModel(WaveformPreTrainedModel):
    config_class = EfficientATConfig
    config: EfficientATConfig
    base_model_prefix = "efficientat"
    _no_split_modules = ["EfficientATBlock"]


class EfficientATModel(EfficientATPreTrainedModel):
    """Waveform -> embedding, and one vector per 0.32 s.

    Memory grows with the length of a clip: its means are over the whole of it. Give hours in parts.

    Args:
        config ([`EfficientATConfig`]): Sizes of the model.
    """

    def __init__(self, config: EfficientATConfig):
        super().__init__(config)
        self.spectrogram = EfficientATSpectrogram(config)
        width = round_to_eight(16 * config.width_mult)
        layers: list[nn.Module] = [EfficientATConvolution(config, 1, width, 3, 2, activation="hardswish")]
        for kernel_size, expanded, out, has_squeeze_excitation, activation, stride in BLOCKS:
            expanded, out = round_to_eight(expanded * config.width_mult), round_to_eight(out * config.width_mult)
            layers.append(
                EfficientATBlock(config, width, kernel_size, expanded, out, has_squeeze_excitation, activation, stride)
            )
            width = out
        layers.append(EfficientATConvolution(config, width, config.hidden_size, activation="hardswish"))
        self.layers = nn.ModuleList(layers)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> WaveformModelOutput:
        r"""
        Args:
            input_values (`torch.FloatTensor` of shape `(batch_size, num_samples)`):
                Mono waveform in [-1, 1] at `config.sampling_rate`. See [`EfficientATFeatureExtractor`].
            attention_mask (`torch.Tensor` of shape `(batch_size, num_samples)`, *optional*):
                1 = real sample, 0 = padding.
            output_hidden_states (`bool`, *optional*): Whether to return the output of each layer.
            return_dict (`bool`, *optional*): Whether to return a `WaveformModelOutput` rather than a tuple.
        """
        self.check_inputs(input_values, attention_mask)
        log_mel, lengths = self.spectrogram(input_values, attention_mask)
        hidden_states = log_mel[:, None].to(self.dtype)  # (B, M, T) -> (B, 1, M, T)
        all_frames: list[torch.Tensor] = []
        for layer in self.layers:
            hidden_states, lengths = layer(hidden_states, lengths)
            if self.wants_hidden_states(output_hidden_states):
                all_frames.append(mean_over_frequency(hidden_states))
        return frames_output(mean_over_frequency(hidden_states), lengths, all_frames)


class EfficientATForAudioClassification(EfficientATPreTrainedModel):
    """EfficientAT with its classification head, of AudioSet's 527 labels where it is published.

    Args:
        config ([`EfficientATConfig`]): Sizes, labels (`id2label`) and `problem_type`.
    """

    def __init__(self, config: EfficientATConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.efficientat = EfficientATModel(config)
        self.classifier = EfficientATClassificationHead(config)
        self.post_init()

    def freeze_base_model(self) -> None:
        """Stops the training of everything but the classification head."""
        self.efficientat.requires_grad_(False)

    @can_return_tuple
    def forward(
        self,
        input_values: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> EfficientATForAudioClassificationOutput:
        r"""
        Args:
            input_values (`torch.FloatTensor` of shape `(batch_size, num_samples)`):
                Mono waveform in [-1, 1] at `config.sampling_rate`. See [`EfficientATFeatureExtractor`].
            attention_mask (`torch.Tensor` of shape `(batch_size, num_samples)`, *optional*):
                1 = real sample, 0 = padding.
            labels (`torch.Tensor` of shape `(batch_size,)` or `(batch_size, num_labels)`, *optional*):
                Class indices (cross entropy), a float 0 or 1 per label (binary cross entropy), or targets of a
                regression (mean squared error), as `config.problem_type` says or, where it is `None`, their type.
            output_hidden_states (`bool`, *optional*): Whether to return the output of each layer.
            return_dict (`bool`, *optional*): Whether to return the output's class rather than a tuple.
        """
        outputs = self.efficientat(
            input_values, attention_mask, output_hidden_states=output_hidden_states, return_dict=True
        )
        logits = self.classifier(outputs.pooler_output)
        loss = None if labels is None else self.loss_function(labels, logits.float(), self.config)
        return EfficientATForAudioClassificationOutput(loss=loss, logits=logits, **outputs)


__all__ = ["EfficientATForAudioClassification", "EfficientATModel", "EfficientATPreTrainedModel"]
