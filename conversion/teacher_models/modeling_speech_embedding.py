"""PyTorch speech_embedding (arXiv:2002.01322): 20 convolutions over windows of 0.78 s, one vector per 80 ms.

Published for one window at a time. No convolution pads in time, so over a whole clip it gives the same vectors, and
padding behind a clip reaches none of them.

Shapes: B batch, N samples, C channels, M mel bins (halved by each stage), T frames.
"""

import torch
from torch import nn
from transformers.audio_utils import mel_filter_bank
from transformers.utils.generic import can_return_tuple

from .configuration_speech_embedding import SpeechEmbeddingConfig
from .modeling_waveforms import (
    WaveformFrontEnd,
    WaveformModelOutput,
    WaveformPreTrainedModel,
    align_clips,
    frames_output,
    mean_over_frequency,
)

PCM_SCALE = 2.0**15  # the published front end reads 16-bit samples
POWER_FLOOR = 1e-10
DYNAMIC_RANGE = 80.0  # dB
NEGATIVE_SLOPE, ACTIVATION_FLOOR = 0.2, -0.4

# Kernels of each stage's convolutions and of the pooling behind them, time x frequency.
SEPARABLE = ((1, 3), (3, 1), (1, 3), (3, 1))
STAGES = (
    (((3, 3), (1, 3), (3, 1)), (2, 2)),
    (SEPARABLE, (1, 2)),
    (SEPARABLE, (2, 2)),
    (SEPARABLE, (1, 2)),
    (SEPARABLE, (2, 2)),
)
OUTPUT_KERNEL = (3, 1)


def num_output_frames(num_samples, config: SpeechEmbeddingConfig):
    """Vectors for clips of `num_samples`, an `int` or an integer tensor, at least of a window."""
    num_frames = (num_samples - config.n_fft) // config.hop_length + 1
    return (num_frames - config.window_frames) // config.time_stride + 1


class SpeechEmbeddingSpectrogram(WaveformFrontEnd):
    """Waveform -> log-mel spectrogram in units of 10 dB, always in float32."""

    window: torch.Tensor
    mel_filters: torch.Tensor

    def tables(self) -> dict[str, torch.Tensor]:
        config = self.config
        num_bins = config.n_fft // 2 + 1
        filters = mel_filter_bank(
            num_bins, config.num_mel_bins, 60.0, 3800.0, config.sampling_rate, norm="slaney", mel_scale="slaney"
        )
        window = torch.hann_window(config.win_length, dtype=torch.float32, device="cpu")
        return {"window": window, "mel_filters": torch.from_numpy(filters).float()}

    def forward(
        self, input_values: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        Args:
            input_values (`torch.Tensor` of shape `(batch_size, num_samples)`): Waveform in [-1, 1].
            attention_mask (`torch.Tensor` of shape `(batch_size, num_samples)`, *optional*): 1 = real sample.

        Returns:
            log-mel `(batch_size, num_frames, num_mel_bins)` and the samples `(batch_size, 1)` of each clip, at least
            of a window, or `None` where all clips fill their row.
        """
        config = self.config
        with torch.autocast(device_type=input_values.device.type, enabled=False):
            samples, lengths = align_clips(input_values, attention_mask)
            missing = max(config.window_samples - samples.shape[1], 0)
            samples = nn.functional.pad(PCM_SCALE * samples, (0, missing))
            lengths = None if lengths is None else lengths.clamp(min=config.window_samples)
            spectrum = torch.stft(
                samples, config.n_fft, config.hop_length, config.win_length, self.window, center=False,
                return_complex=True,
            )  # fmt: skip
            real, imag = torch.view_as_real(spectrum.transpose(1, 2)).unbind(-1)  # (B, F, T, 2) -> (B, T, F)
            power = (real.square() + imag.square()) @ self.mel_filters
            decibels = 10 * power.clamp(min=POWER_FLOOR).log10()
            return self.limit_range(decibels, lengths) / 10 + 2, lengths

    def limit_range(self, decibels: torch.Tensor, lengths: torch.Tensor | None) -> torch.Tensor:
        """Not below each clip's maximum less 80 dB."""
        loudness = decibels.amax(-1)  # (B, T, M) -> (B, T)
        if lengths is not None:
            num_frames = (lengths - self.config.n_fft) // self.config.hop_length + 1
            position = torch.arange(loudness.shape[1], device=loudness.device)
            loudness = loudness.masked_fill(position >= num_frames, -torch.inf)
        return torch.maximum(decibels, loudness.amax(-1)[:, None, None] - DYNAMIC_RANGE)


def activate(hidden_states: torch.Tensor) -> torch.Tensor:
    return nn.functional.leaky_relu(hidden_states, NEGATIVE_SLOPE).clamp(min=ACTIVATION_FLOOR)


class SpeechEmbeddingStage(nn.Module):
    """Convolutions padded in frequency alone, each followed by the activation; last max pooling."""

    def __init__(self, in_channels: int, out_channels: int, kernels: tuple, pooling: tuple[int, int]):
        super().__init__()
        widths = [in_channels] + [out_channels] * len(kernels)
        self.convolutions = nn.ModuleList(
            nn.Conv2d(width, out_channels, kernel, padding=(0, kernel[1] // 2))
            for width, kernel in zip(widths, kernels, strict=False)
        )
        self.pooling = nn.MaxPool2d(pooling)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        for convolution in self.convolutions:
            hidden_states = activate(convolution(hidden_states))
        return self.pooling(hidden_states)


class SpeechEmbeddingPreTrainedModel(WaveformPreTrainedModel):
    config_class = SpeechEmbeddingConfig
    config: SpeechEmbeddingConfig
    base_model_prefix = "speech_embedding"


class SpeechEmbeddingModel(SpeechEmbeddingPreTrainedModel):
    """Waveform -> one vector per 80 ms that tells what is spoken. Clips shorter than 0.78 s are followed by silence.

    Args:
        config ([`SpeechEmbeddingConfig`]): Sizes of the model.
    """

    def __init__(self, config: SpeechEmbeddingConfig):
        super().__init__(config)
        self.spectrogram = SpeechEmbeddingSpectrogram(config)
        widths = [1, *config.conv_dim]
        self.stages = nn.ModuleList(
            SpeechEmbeddingStage(widths[i], widths[i + 1], kernels, pooling)
            for i, (kernels, pooling) in enumerate(STAGES)
        )
        self.output = nn.Conv2d(widths[-1], config.hidden_size, OUTPUT_KERNEL)
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
                Mono waveform in [-1, 1] at `config.sampling_rate`. See [`SpeechEmbeddingFeatureExtractor`].
            attention_mask (`torch.Tensor` of shape `(batch_size, num_samples)`, *optional*):
                1 = real sample, 0 = padding.
            output_hidden_states (`bool`, *optional*): Whether to return the output of each stage.
            return_dict (`bool`, *optional*): Whether to return a `WaveformModelOutput` rather than a tuple.
        """
        self.check_inputs(input_values, attention_mask)
        log_mel, lengths = self.spectrogram(input_values, attention_mask)
        hidden_states = log_mel[:, None].to(self.dtype)  # (B, T, M) -> (B, 1, T, M)
        all_frames: list[torch.Tensor] = []
        for stage in (*self.stages, self.output):
            hidden_states = stage(hidden_states)
            if self.wants_hidden_states(output_hidden_states):
                all_frames.append(mean_over_frequency(hidden_states.transpose(2, 3)))
        num_frames = None if lengths is None else num_output_frames(lengths, self.config)
        return frames_output(mean_over_frequency(hidden_states.transpose(2, 3)), num_frames, all_frames)


__all__ = ["SpeechEmbeddingModel", "SpeechEmbeddingPreTrainedModel"]
