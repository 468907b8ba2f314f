"""The slow baseline: HEAR as the original computes it, in plain eager PyTorch, with the original's tensor names.

Written anew from the paper (arXiv:2603.26098). What sets it apart from `hear_hf`: each layer gathers the relative
positions of all pairs of frames, two tables of (n, n, d); each branch of the front end has a transform of its own; the
last window is padded to full length; and padding in a batch takes part in each clip's normalisation.

Shapes: B batch, N samples, T spectrogram frames (10 ms), n encoder frames (20 ms), L window, W windows, D width,
H heads of size d.
"""

import math

import torch
from torch import nn
from transformers.audio_utils import mel_filter_bank

from hear_hf import HEARConfig, HEARQuantizerConfig

N_FFT, WIN_LENGTH, HOP_LENGTH = 1024, 400, 160  # samples at 16 kHz
EPS = 1e-6


def normalised_log(power: torch.Tensor) -> torch.Tensor:
    log = (power + EPS).log()
    return (log - log.mean((1, 2), keepdim=True)) / (log.std((1, 2), keepdim=True, correction=0) + EPS)


class FrontEnd(nn.Module):
    """Waveform (B, N) -> normalised log-mel (B, T, mel) and log-power (B, T, F), in float32."""

    def __init__(self, num_mel_bins: int = 128):
        super().__init__()
        filters = mel_filter_bank(N_FFT // 2 + 1, num_mel_bins, 0, 8000, 16_000, norm=None, mel_scale="htk")
        self.register_buffer("window", torch.hann_window(WIN_LENGTH), persistent=False)
        self.register_buffer("mel_filters", torch.from_numpy(filters).float(), persistent=False)

    def power(self, waveform: torch.Tensor) -> torch.Tensor:
        spectrum = torch.stft(waveform, N_FFT, HOP_LENGTH, WIN_LENGTH, self.window, return_complex=True)
        return spectrum.abs().square().transpose(1, 2)  # (B, F, T) -> (B, T, F)

    def log_mel(self, waveform: torch.Tensor) -> torch.Tensor:
        return normalised_log(self.power(waveform - waveform.mean(-1, keepdim=True)) @ self.mel_filters)

    def forward(self, waveform: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.log_mel(waveform), normalised_log(self.power(waveform - waveform.mean(-1, keepdim=True)))


class RelativePosition(nn.Module):
    """Gathers the vectors of all pairs of frames, (n, n, d)."""

    def __init__(self, window_length: int, head_dim: int):
        super().__init__()
        self.window_length = window_length
        self.positional_embedding = nn.Embedding(2 * window_length, head_dim)

    def forward(self, num_frames: int) -> torch.Tensor:
        position = torch.arange(num_frames, device=self.positional_embedding.weight.device)
        return self.positional_embedding(position - position[:, None] + self.window_length)


class Attention(nn.Module):
    def __init__(self, config: HEARConfig | HEARQuantizerConfig):
        super().__init__()
        width, self.num_heads = config.hidden_size, config.num_attention_heads
        head_dim = width // self.num_heads
        self.linear_q, self.linear_k, self.linear_v = (nn.Linear(width, width) for _ in range(3))
        self.linear_out = nn.Linear(width, width)
        self.query_bias1 = nn.Parameter(torch.zeros(self.num_heads, head_dim))
        self.query_bias2 = nn.Parameter(torch.zeros(self.num_heads, head_dim))
        self.relative_position_k = RelativePosition(config.window_length, head_dim)
        self.relative_position_v = RelativePosition(config.window_length, head_dim)
        self.dropout = nn.Dropout(config.attention_dropout)

    def forward(self, x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        query, key, value = (
            linear(x).unflatten(-1, (self.num_heads, -1)) for linear in (self.linear_q, self.linear_k, self.linear_v)
        )
        content = torch.einsum("bihd,bjhd->bhij", query + self.query_bias1, key)
        position = torch.einsum("bihd,ijd->bhij", query + self.query_bias2, self.relative_position_k(x.shape[1]))
        scores = (content + position) / math.sqrt(query.shape[-1])
        scores = scores.masked_fill(~valid[:, None, None], torch.finfo(scores.dtype).min)
        probs = self.dropout(scores.softmax(-1))
        output = torch.einsum("bhij,bjhd->bihd", probs, value)
        output = output + torch.einsum("bhij,ijd->bihd", probs, self.relative_position_v(x.shape[1]))
        return self.linear_out(output.flatten(2))


class FeedForward(nn.Module):
    def __init__(self, config: HEARConfig | HEARQuantizerConfig):
        super().__init__()
        self.layer_norm = nn.LayerNorm(config.hidden_size)
        self.intermediate_dense = nn.Linear(config.hidden_size, config.intermediate_size)
        self.output_dense = nn.Linear(config.intermediate_size, config.hidden_size)
        self.intermediate_dropout, self.output_dropout = (
            nn.Dropout(config.activation_dropout),
            nn.Dropout(config.hidden_dropout),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.intermediate_dropout(nn.functional.silu(self.intermediate_dense(self.layer_norm(x))))
        return self.output_dropout(self.output_dense(x))


class Layer(nn.Module):
    def __init__(self, config: HEARConfig | HEARQuantizerConfig):
        super().__init__()
        self.layer_norm1, self.layer_norm2 = nn.LayerNorm(config.hidden_size), nn.LayerNorm(config.hidden_size)
        self.self_attn, self.ffn = Attention(config), FeedForward(config)

    def forward(self, x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        x = x + self.self_attn(self.layer_norm1(x), valid)
        return x + self.ffn(self.layer_norm2(x))


class AcousticModel(nn.Module):
    """Log-mel (B, T, mel) and the mask of the valid frames (B, n) -> (B, n, D)."""

    def __init__(self, config: HEARConfig | HEARQuantizerConfig):
        super().__init__()
        self.length, self.overlap = config.window_length, config.window_overlap
        conv = nn.Conv1d(config.num_mel_bins, config.hidden_size, kernel_size=2, stride=2)
        self.feature_extractor = nn.ModuleDict({"conv": conv})
        self.contextual_encoder = nn.ModuleDict(
            {"layers": nn.ModuleList([Layer(config) for _ in range(config.num_hidden_layers)])}
        )

    def forward(self, log_mel: torch.Tensor, valid: torch.Tensor, hidden: torch.Tensor | None = None) -> torch.Tensor:
        conv = self.feature_extractor["conv"]
        x = conv(log_mel.transpose(1, 2).to(conv.weight.dtype)).relu().transpose(1, 2)  # (B, T, mel) -> (B, n, D)
        if hidden is not None:
            x = x.masked_fill(hidden[..., None], 0)
        return self.encode(x, valid) if x.shape[1] <= self.length else self.encode_windows(x, valid)

    def encode(self, x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        for layer in self.contextual_encoder["layers"]:
            x = layer(x, valid)
        return x

    def encode_windows(self, x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        """All windows, the last one padded, as one batch; then overlap-add by raised-cosine weights."""
        num_frames, stride = x.shape[1], self.length - self.overlap
        starts = range(0, num_frames - self.overlap, stride)
        padding = starts[-1] + self.length - num_frames
        windows = nn.functional.pad(x, (0, 0, 0, padding)).unfold(1, self.length, stride).transpose(2, 3)
        masks = nn.functional.pad(valid, (0, padding)).unfold(1, self.length, stride)  # (B, W, L)
        encoded = self.encode(windows.flatten(0, 1), masks.flatten(0, 1)).unflatten(0, masks.shape[:2])

        ramp = (0.5 - 0.5 * torch.cos(math.pi * torch.linspace(0, 1, self.overlap, device=x.device))).clamp(min=1e-3)
        weight = torch.ones(self.length, device=x.device)
        weight[: self.overlap], weight[self.length - self.overlap :] = ramp, ramp.flip(0)
        merged = torch.zeros_like(nn.functional.pad(x, (0, 0, 0, padding)), dtype=torch.float32)
        total = torch.zeros_like(merged[..., :1])
        for i, start in enumerate(starts):
            # A window that brings a clip no new frame has no part in it.
            num_known = start + self.overlap if start else 0
            window_weight = (weight * (valid.sum(1, keepdim=True) > num_known))[..., None]
            merged[:, start : start + self.length] += window_weight * encoded[:, i]
            total[:, start : start + self.length] += window_weight
        return (merged / total.clamp(min=1e-8))[:, :num_frames].to(x.dtype)


class SpectrogramMixture(nn.Module):
    def __init__(self, config: HEARConfig):
        super().__init__()
        self.gate_linear = nn.Linear(config.hidden_size, config.hidden_size)
        self.spectrum_linear = nn.Linear(config.n_fft + 2, config.hidden_size)
        self.layer_norm = nn.LayerNorm(config.hidden_size)
        self.mixture = nn.Linear(2 * config.hidden_size, config.task_hidden_size)

    def forward(self, x: torch.Tensor, log_power: torch.Tensor) -> torch.Tensor:
        pairs = log_power[:, : 2 * x.shape[1]].unflatten(1, (-1, 2)).transpose(2, 3).flatten(2).to(x.dtype)
        spectrum = self.spectrum_linear(pairs) * self.gate_linear(x).sigmoid()
        return self.mixture(torch.cat([x, nn.functional.gelu(self.layer_norm(spectrum))], dim=-1))


class TaskModel(nn.Module):
    def __init__(self, config: HEARConfig):
        super().__init__()
        width = config.task_hidden_size
        self.pos_embed = nn.Parameter(0.02 * torch.randn(1, config.max_position_embeddings, width))
        self.transformer = nn.TransformerEncoderLayer(
            width,
            config.task_num_attention_heads,
            config.task_intermediate_size,
            config.task_dropout,
            batch_first=True,
        )

    def forward(self, x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        return self.transformer(x + self.pos_embed[:, : x.shape[1]], src_key_padding_mask=~valid)


class Decoder(nn.Module):
    def __init__(self, config: HEARConfig):
        super().__init__()
        self.linear = nn.Linear(3 * config.task_hidden_size, config.classifier_proj_size)
        self.batch_norm = nn.BatchNorm1d(config.classifier_proj_size)
        self.dropout = nn.Dropout(config.classifier_dropout)
        self.out = nn.Linear(config.classifier_proj_size, config.num_labels)

    def forward(self, x: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        count, weights = valid.sum(1, keepdim=True), valid[..., None]
        mean = (x * weights).sum(1) / count
        maximum = x.masked_fill(~weights, torch.finfo(x.dtype).min).amax(1)
        variance = ((x - mean[:, None]).square() * weights).sum(1) / (count - 1)
        pooled = torch.cat([mean, maximum, (variance + 1e-8).sqrt()], dim=-1)
        return self.out(self.dropout(self.batch_norm(self.linear(pooled)).relu()))


def valid_frames(log_mel: torch.Tensor, num_samples: torch.Tensor | None) -> torch.Tensor:
    """True where an encoder frame belongs to its clip, (B, n)."""
    frames = torch.arange(log_mel.shape[1] // 2, device=log_mel.device).expand(len(log_mel), -1)
    return frames >= 0 if num_samples is None else frames < ((1 + num_samples // HOP_LENGTH) // 2)[:, None]


class OriginalHEAR(nn.Module):
    """The classifier: waveforms (B, N) and, where they are padded, their lengths (B,) -> logits (B, num_labels)."""

    def __init__(self, config: HEARConfig):
        super().__init__()
        self.preprocessor = FrontEnd(config.num_mel_bins)
        self.acoustic_model = AcousticModel(config)
        self.spectrogram_mixture = SpectrogramMixture(config)
        self.task_model = TaskModel(config)
        self.decoder = Decoder(config)

    def forward(self, waveform: torch.Tensor, num_samples: torch.Tensor | None = None) -> torch.Tensor:
        log_mel, log_power = self.preprocessor(waveform)
        valid = valid_frames(log_mel, num_samples)
        x = self.spectrogram_mixture(self.acoustic_model(log_mel, valid), log_power)
        return self.decoder(self.task_model(x, valid), valid)


class OriginalPretraining(nn.Module):
    """Masked audio modelling: waveforms (B, N) and their lengths (B,) -> loss against a frozen tokenizer's codes."""

    def __init__(self, config: HEARConfig, quantizer_config: HEARQuantizerConfig, mask_prob: float):
        super().__init__()
        self.preprocessor = FrontEnd(config.num_mel_bins)
        self.tokenizer = nn.ModuleDict(
            {
                "encoder": AcousticModel(quantizer_config),
                "linear": nn.Linear(quantizer_config.hidden_size, quantizer_config.codebook_size),
            }
        ).requires_grad_(False)
        self.encoder = AcousticModel(config)
        self.out_linear = nn.Linear(config.hidden_size, config.codebook_size)
        self.mask_prob = mask_prob

    def forward(self, waveform: torch.Tensor, num_samples: torch.Tensor) -> torch.Tensor:
        log_mel = self.preprocessor.log_mel(waveform)
        valid = valid_frames(log_mel, num_samples)
        with torch.no_grad():
            codes = self.tokenizer["linear"](self.tokenizer["encoder"](log_mel, valid)).argmax(-1)
        hidden = valid & (torch.rand(valid.shape, device=valid.device) < self.mask_prob)
        logits = self.out_linear(self.encoder(log_mel, valid, hidden))
        return nn.functional.cross_entropy(logits[hidden].float(), codes[hidden])
