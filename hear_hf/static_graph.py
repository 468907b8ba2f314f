"""A HEAR classifier for clips of one length, made of the few operators that the runtimes of phones compute fast.

What depends on the length alone is computed when it is built: the windows and their weights, and the rows of the
tables of relative positions.

Shapes: N samples, T spectrogram frames (10 ms), n encoder frames (20 ms), D width, H heads of size d, F bins.
"""

import copy
import functools
import math
from typing import Any

import torch
from torch import nn

from .acoustic_model_hear import FrameMasks, HEARAcousticModel, HEARPairConv, Window
from .attention_hear import PACKED_QUERIES, HEARAttention, distances_to_keys
from .configuration_hear import HEARConfig
from .frame_head_hear import pool_frame_logits
from .frames_hear import all_valid, num_encoder_frames
from .graphs_hear import padded_keys_to_distances
from .modeling_hear import HEARForAudioClassification, HEARForAudioFrameClassification
from .spectrogram_hear import LOG_FLOOR, MEL_HOP_LENGTH, MEL_N_FFT, STD_FLOOR, HEARSpectrogram
from .task_model_hear import POOLING_EPS, HEARTaskModel


class StaticClassifier(nn.Module):
    """
    Computes what a classifier does for one clip of a fixed length, without padding.

    Args:
        model (`HEARForAudioClassification` or `HEARForAudioFrameClassification`):
            A model in float32 and evaluation mode, on a CPU.
        num_samples (`int`): The length, at most that of one segment of the task model (30 s).

    Raises:
        `ValueError`: The clip would be too short or too long.
    """

    def __init__(self, model: HEARForAudioClassification | HEARForAudioFrameClassification, num_samples: int):
        super().__init__()
        check_length(model.config, num_samples)
        num_frames = num_encoder_frames(num_samples, model.config.hop_length)
        windows = model.hear.acoustic_model.clip_windows(0, num_frames)
        self.model = with_static_layers(model, {window.length for window in windows})
        hear = self.model.hear
        self.spectrogram = StaticSpectrogram(hear.spectrogram, num_samples)
        self.acoustic_model = StaticAcousticModel(hear.acoustic_model, windows)
        self.task_model = StaticTaskModel(hear.task_model, num_frames)
        self.eval()

    def forward(self, input_values: torch.Tensor) -> torch.Tensor | tuple[torch.Tensor, torch.Tensor]:
        """
        Args:
            input_values (`torch.Tensor` of shape `(1, num_samples)`): Waveform in [-1, 1].

        Returns:
            `torch.Tensor`: Logits `(1, num_labels)`, or of a model of frames the pair of its logits,
            `(1, num_frames, num_labels)`, and those of the clip.
        """
        log_mel, log_power = self.spectrogram(input_values)
        hidden_states = self.acoustic_model(log_mel)
        hidden_states = self.task_model(self.model.hear.spectrogram_mixture(hidden_states, log_power))
        if isinstance(self.model, HEARForAudioClassification):
            return self.model.classifier(static_statistics(hidden_states))
        logits = self.model.frame_classifier(hidden_states)
        return logits, pool_frame_logits(logits, all_valid(logits), self.model.config.frame_pooling)


def check_length(config: HEARConfig, num_samples: int) -> None:
    """Refuses clips that hold no window of the spectrogram, or more than one segment of the task model."""
    shortest, longest = config.win_length, config.max_position_embeddings * config.inputs_to_logits_ratio
    if not shortest <= num_samples <= longest:
        raise ValueError(
            f"Clips of one length must hold {shortest} to {longest} samples, at most "
            f"{longest / config.sampling_rate:g} s, found: {num_samples}. Give another length in seconds."
        )


def with_static_layers(model: Any, window_lengths: set[int]) -> Any:
    """A copy without layers that first change the weights they compute with, or need operators that phones lack."""
    model = copy.deepcopy(model)
    model.hear.spectrogram_mixture.activation = nn.GELU()
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.LayerNorm):
            model.set_submodule(name, StaticLayerNorm(layer))
        elif isinstance(layer, HEARPairConv):
            model.set_submodule(name, StaticPairConv(layer))
        elif isinstance(layer, HEARAttention):
            model.set_submodule(name, StaticAttention(layer, window_lengths))
    return model


class StaticLayerNorm(nn.Module):
    """Layer norm whose means are products with a constant: XNNPACK has no layer norm, and slow means."""

    def __init__(self, layer_norm: nn.LayerNorm):
        super().__init__()
        self.layer_norm = layer_norm
        (width,) = layer_norm.normalized_shape
        self.averaging = nn.Buffer(torch.full((1, width), 1 / width), persistent=False)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        centred = hidden_states - self.mean(hidden_states)
        deviation = (self.mean(centred.square()) + self.layer_norm.eps).rsqrt()
        return centred * deviation * self.layer_norm.weight + self.layer_norm.bias

    def mean(self, values: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(values, self.averaging)


class StaticPairConv(nn.Module):
    """[`HEARPairConv`] with its weights as it multiplies by them."""

    def __init__(self, conv: HEARPairConv):
        super().__init__()
        self.weight, self.bias = nn.Parameter(conv.weight.transpose(1, 2).flatten(1)), conv.bias

    def forward(self, frames: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(frames.reshape(1, -1, self.weight.shape[1]), self.weight, self.bias)


def rows(tensor: torch.Tensor, start: int, stop: int) -> torch.Tensor:
    """The rows start..stop of (., m, D), without an operator where these are all."""
    return tensor if (start, stop) == (0, tensor.shape[1]) else tensor[:, start:stop]


def joined(tensors: list[torch.Tensor]) -> torch.Tensor:
    """Tensors (., m, D) one below another, without an operator where there is one."""
    return torch.cat(tensors, dim=1) if len(tensors) > 1 else tensors[0]


class StaticSpectrogram(nn.Module):
    """Computes what [`HEARSpectrogram`] does: waveform (1, N) -> normalised log-mel and log-power, (1, 2n, .)."""

    def __init__(self, spectrogram: HEARSpectrogram, num_samples: int):
        super().__init__()
        self.front_end = spectrogram
        num_frames = 1 + num_samples // spectrogram.hop_length
        self.num_used = num_frames // 2 * 2
        n_fft, hop_length, window = spectrogram.n_fft, spectrogram.hop_length, spectrogram.window
        self.power = StaticPower(num_samples, num_frames, n_fft, hop_length, window)
        if not spectrogram.shares_stft:
            self.num_mel_samples = -(-num_samples * spectrogram.mel_rate // spectrogram.source_rate)
            mel_window = spectrogram.mel_window
            self.mel_power = StaticPower(self.num_mel_samples, num_frames, MEL_N_FFT, MEL_HOP_LENGTH, mel_window)
        self.mel_filters = nn.Buffer(spectrogram.mel_filters.T.contiguous(), persistent=False)

    def forward(self, waveform: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        waveform = waveform - mean_of_all(waveform.reshape(1, 1, -1)).reshape(1, 1)
        power = self.power(waveform)
        mel_power = power if self.front_end.shares_stft else self.mel_power(self.resample(waveform))
        log_mel = normalised_log(nn.functional.linear(mel_power, self.mel_filters))
        return rows(log_mel, 0, self.num_used), rows(normalised_log(power), 0, self.num_used)

    def resample(self, waveform: torch.Tensor) -> torch.Tensor:
        if not self.front_end.resamples:
            return waveform
        kernel, source = self.front_end.resampling_kernel, self.front_end.source_rate
        width = (kernel.shape[2] - source) // 2
        samples = nn.functional.pad(waveform, (width, width + source)).reshape(1, 1, -1)
        phases = nn.functional.conv1d(samples, kernel, stride=source)  # (1, target, S)
        return phases.transpose(1, 2).flatten(1)[:, : self.num_mel_samples]


class StaticPower(nn.Module):
    """|STFT|^2 by matrix products: samples (1, N) -> (1, T, F)."""

    def __init__(self, num_samples: int, num_frames: int, n_fft: int, hop_length: int, window: torch.Tensor):
        super().__init__()
        self.hop_length, self.length, self.num_frames = hop_length, len(window), num_frames
        left = n_fft // 2 - (n_fft - self.length) // 2
        right = (num_frames - 1) * hop_length + self.length - left - num_samples
        self.left_mirror = nn.Buffer(torch.eye(left).flip(0), persistent=False)
        self.right_mirror = nn.Buffer(torch.eye(right).flip(0), persistent=False)
        turns = torch.arange(n_fft // 2 + 1)[:, None] * torch.arange(self.length) % n_fft
        angle = turns.double() * (2 * math.pi / n_fft)
        self.cosines = nn.Buffer((window * angle.cos()).float(), persistent=False)
        self.sines = nn.Buffer((window * angle.sin()).float(), persistent=False)

    def forward(self, samples: torch.Tensor) -> torch.Tensor:
        left = nn.functional.linear(samples[:, 1 : 1 + len(self.left_mirror)], self.left_mirror)
        right = nn.functional.linear(samples[:, -1 - len(self.right_mirror) : -1], self.right_mirror)
        samples = torch.cat([left, samples, right], dim=1)
        hops_per_frame = -(-self.length // self.hop_length)
        samples = nn.functional.pad(samples, (0, hops_per_frame * self.hop_length - self.length))
        hops = samples.reshape(1, -1, self.hop_length)
        frames = torch.cat([rows(hops, i, i + self.num_frames) for i in range(hops_per_frame)], dim=-1)
        frames = frames[..., : self.length]
        real, imag = nn.functional.linear(frames, self.cosines), nn.functional.linear(frames, self.sines)
        return real.square() + imag.square()


def mean_of_all(values: torch.Tensor) -> torch.Tensor:
    """The mean of (1, T, F), (1, 1, 1): XNNPACK has means over the last two of four dimensions."""
    return values.reshape(1, 1, *values.shape[1:]).mean((2, 3), keepdim=True).reshape(1, 1, 1)


def normalised_log(power: torch.Tensor) -> torch.Tensor:
    """Logarithms without their mean, by their deviation."""
    logarithms = (power / LOG_FLOOR + 1.0).log()  # 1 would be an integer, which is cast outside of XNNPACK
    centred = logarithms - mean_of_all(logarithms)
    return centred / (mean_of_all(centred.square()).sqrt() + STD_FLOOR)


class StaticAcousticModel(nn.Module):
    """Computes what [`HEARAcousticModel`] does, all windows in one row: log-mel (1, 2n, mel) -> (1, n, D)."""

    def __init__(self, acoustic_model: HEARAcousticModel, windows: list[Window]):
        super().__init__()
        self.acoustic_model, self.windows, self.num_frames = acoustic_model, windows, windows[-1].stop
        self.window_lengths = [window.length for window in windows]
        ramp, total = acoustic_model.window_ramp(torch.device("cpu")), torch.zeros(self.num_frames, 1)
        for window in windows:
            total[window.start : window.stop] += ramp[: window.length]
        shares = [ramp[: window.length] / total[window.start : window.stop] for window in windows]
        self.shares = nn.Buffer(torch.cat(shares), persistent=False)

    def forward(self, log_mel: torch.Tensor) -> torch.Tensor:
        row = joined([rows(log_mel, 2 * window.start, 2 * window.stop) for window in self.windows])
        states, _ = self.acoustic_model.encode_window(row, FrameMasks(), False, False, self.window_lengths)
        return states[-1] if len(self.windows) == 1 else self.overlap_add(states[-1] * self.shares)

    def overlap_add(self, weighted: torch.Tensor) -> torch.Tensor:
        """Sums windows, which lie one after another in a row, at their places."""
        places, start = [], 0
        for window in self.windows:
            states = rows(weighted, start, start + window.length)
            places.append(nn.functional.pad(states, (0, 0, window.start, self.num_frames - window.stop)))
            start += window.length
        return functools.reduce(torch.add, places)


class StaticAttention(nn.Module):
    """Computes what [`HEARAttention`] does for windows in a row: (1, m, D) -> the same shape."""

    def __init__(self, attention: HEARAttention, window_lengths: set[int]):
        super().__init__()
        self.attention = attention
        for length in window_lengths:
            for first in range(0, length, PACKED_QUERIES):
                keys, values = attention.relative_tables(first, min(PACKED_QUERIES, length - first), length)
                self.register_buffer(f"keys_{length}_{first}", keys.detach().clone(), persistent=False)
                self.register_buffer(f"values_{length}_{first}", values.detach().T.contiguous(), persistent=False)

    def forward(self, hidden_states, frame_mask, window_lengths: list[int]) -> tuple[torch.Tensor, None]:
        attention, scale = self.attention, 1 / math.sqrt(self.attention.head_dim)
        query = attention.q_proj(hidden_states) * scale
        content = self.heads(query + attention.content_bias.flatten() * scale)
        position = self.heads(query + attention.position_bias.flatten() * scale)
        key = self.heads(attention.k_proj(hidden_states))
        value = self.heads(attention.v_proj(hidden_states))
        outputs, start = [], 0
        for length in window_lengths:
            stop = start + length
            outputs += self.attend(*(rows(heads, start, stop) for heads in (content, position, key, value)))
            start = stop
        output = joined(outputs).transpose(0, 1)  # (H, m, d) -> (m, H, d)
        return attention.out_proj(output.reshape(hidden_states.shape)), None

    def heads(self, projected: torch.Tensor) -> torch.Tensor:
        """(1, m, D) -> (H, m, d)."""
        return projected.reshape(-1, self.attention.num_heads, self.attention.head_dim).transpose(0, 1)

    def attend(self, content, position, key, value) -> list[torch.Tensor]:
        """Outputs (H, m, d) of the blocks of queries of one window, which are given by their content and position."""
        outputs, num_keys = [], key.shape[1]
        for first in range(0, num_keys, PACKED_QUERIES):
            block = first, min(first + PACKED_QUERIES, num_keys)
            table = f"{num_keys}_{first}"
            scores = nn.functional.linear(rows(position, *block), self.get_buffer(f"keys_{table}"))
            scores = torch.bmm(rows(content, *block), key.transpose(1, 2)) + distances_to_keys(scores)
            probs = scores.softmax(dim=-1)
            related = nn.functional.linear(padded_keys_to_distances(probs), self.get_buffer(f"values_{table}"))
            outputs.append(torch.bmm(probs, value) + related)
        return outputs


class StaticTaskModel(nn.Module):
    """Computes what [`HEARTaskModel`] does: (1, n, D) -> the same shape."""

    def __init__(self, task_model: HEARTaskModel, num_frames: int):
        super().__init__()
        self.task_model = task_model
        self.positions = nn.Parameter(task_model.position_embeddings[:, :num_frames].clone())

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        model, hidden_states = self.task_model, hidden_states + self.positions
        hidden_states = model.attention_layer_norm(hidden_states + self.attend(hidden_states))
        expanded = nn.functional.relu(model.intermediate_dense(hidden_states))
        return model.final_layer_norm(hidden_states + model.output_dense(expanded))

    def attend(self, hidden_states: torch.Tensor) -> torch.Tensor:
        num_frames, width = hidden_states.shape[1:]
        num_heads = self.task_model.num_heads
        qkv = self.task_model.qkv_proj(hidden_states).reshape(num_frames, 3 * num_heads, -1).transpose(0, 1)
        query, key, value = (qkv[i * num_heads : (i + 1) * num_heads] for i in range(3))  # (H, n, d)
        weights = torch.bmm(query / math.sqrt(query.shape[2]), key.transpose(1, 2)).softmax(dim=-1)
        attended = torch.bmm(weights, value).transpose(0, 1).reshape(1, num_frames, width)
        return self.task_model.out_proj(attended)


def static_statistics(hidden_states: torch.Tensor) -> torch.Tensor:
    """Mean, maximum and standard deviation over all frames: (1, n, D) -> (1, 3D)."""
    num_frames = hidden_states.shape[1]
    columns = hidden_states.transpose(1, 2).unsqueeze(-1)  # (1, D, n, 1)
    mean = columns.mean((2, 3), keepdim=True)
    maximum = nn.functional.max_pool2d(columns, (num_frames, 1))
    square = (columns - mean).square().mean((2, 3), keepdim=True) * (num_frames / max(num_frames - 1, 1))
    return torch.cat([mean, maximum, (square + POOLING_EPS).sqrt()], dim=1).flatten(1)
