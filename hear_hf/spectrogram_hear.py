"""HEAR's front end: waveform -> normalised log-mel and log-power frames, without parameters, always in float32.

Shapes: B batch, N samples, T spectrogram frames (10 ms), n = T // 2 encoder frames (20 ms), S samples of a segment.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import nn

from .configuration_hear import MEL_SAMPLING_RATE, HEARConfig, HEARQuantizerConfig
from .frames_hear import frame_mask, in_segments, num_encoder_frames
from .graphs_hear import at_once, exported_as, is_readable, multiplied_power_spectrogram, without_autocast

MEL_N_FFT = 1024
MEL_HOP_LENGTH = MEL_SAMPLING_RATE // 100  # 160 samples = 10 ms
MEL_WIN_LENGTH = MEL_SAMPLING_RATE // 40  # 400 samples = 25 ms
MEL_MAX_FREQUENCY = 8_000  # Hz
LOG_FLOOR = 1e-6
STD_FLOOR = 1e-6
FRAMES_AT_ONCE = 3_000  # 30 s: an hour's log-power alone would be 740 MB
FRAMES_PER_SEGMENT = 500  # of a longer clip


def htk_mel_filters(num_frequency_bins: int, num_mel_bins: int) -> torch.Tensor:
    """Triangular mel filters from 0 to 8 kHz, (num_frequency_bins, num_mel_bins).

    The HTK scale, no area normalisation. Computed in float32 on purpose: it equals the original's table to the bit,
    from which `transformers.audio_utils.mel_filter_bank` (float64) differs by 1e-5.
    """
    frequencies = torch.linspace(0, MEL_MAX_FREQUENCY, num_frequency_bins, dtype=torch.float32, device="cpu")
    top = 2595.0 * math.log10(1.0 + MEL_MAX_FREQUENCY / 700.0)
    corners = 700.0 * (
        10.0 ** (torch.linspace(0.0, top, num_mel_bins + 2, dtype=torch.float32, device="cpu") / 2595.0) - 1.0
    )
    widths = corners.diff()
    distance = corners - frequencies[:, None]  # (num_frequency_bins, num_mel_bins + 2)
    rising, falling = -distance[:, :-2] / widths[:-1], distance[:, 2:] / widths[1:]
    return torch.minimum(rising, falling).clamp(min=0.0)


def sinc_resampling_kernel(source: int, target: int, zero_crossings: int = 6, rolloff: float = 0.99) -> torch.Tensor:
    """Hann-windowed sinc low-pass for rates without a common factor: (target, 1, 2 * width + source), one phase a row.

    Source: J. O. Smith, "Digital Audio Resampling", https://ccrma.stanford.edu/~jos/resample/.
    """
    cutoff = min(source, target) * rolloff
    width = math.ceil(zero_crossings * source / cutoff)
    taps = torch.arange(-width, width + source, dtype=torch.float64, device="cpu") / source
    phases = torch.arange(target, dtype=torch.float64, device="cpu") / target
    crossings = ((taps - phases[:, None]) * cutoff).clamp(-zero_crossings, zero_crossings)
    window = torch.cos(crossings * math.pi / zero_crossings / 2).square()
    return (torch.sinc(crossings) * window * cutoff / source).float().unsqueeze(1)


@dataclass
class HEARClips:
    """The clips of a batch without their means. Padding, on either side, is never read.

    `waveform` is (B, N); `starts`, `lengths` and `means` are (B, 1), the first two (1, 1) without padding.
    """

    waveform: torch.Tensor
    starts: torch.Tensor
    lengths: torch.Tensor
    means: torch.Tensor
    padded: bool

    @classmethod
    def from_batch(cls, waveform: torch.Tensor, attention_mask: torch.Tensor | None) -> "HEARClips":
        if attention_mask is None or has_no_padding(attention_mask):
            lengths = torch.full((1, 1), waveform.shape[1], device=waveform.device)
            return cls(waveform, torch.zeros_like(lengths), lengths, waveform.mean(-1, keepdim=True), False)
        real = attention_mask.bool()
        lengths = real.sum(-1, keepdim=True).clamp(min=1)
        means = torch.where(real, waveform, 0.0).sum(-1, keepdim=True) / lengths
        starts = real.int().argmax(-1, keepdim=True)
        if may_have_holes(real):  # they become silence, the clip's mean
            waveform = torch.where(real, waveform, means)
            places = torch.arange(1, real.shape[1] + 1, dtype=torch.int32, device=real.device)
            stops = torch.where(real, places, 0).amax(-1, keepdim=True)
            lengths = (stops - starts).clamp(min=1)
        return cls(waveform, starts, lengths, means, True)

    def spectrogram_mask(self, hop_length: int) -> torch.Tensor:
        """True where a spectrogram frame is valid, (B, T), or (1, T) without padding."""
        return frame_mask(1 + self.lengths // hop_length, 1 + self.waveform.shape[1] // hop_length)

    def frame_mask(self, hop_length: int) -> torch.Tensor | None:
        """True where an encoder frame is valid, (B, n), at least the first of each clip; `None` without padding."""
        if not self.padded:
            return None
        lengths = num_encoder_frames(self.lengths, hop_length).clamp(min=1)
        return frame_mask(lengths, num_encoder_frames(self.waveform.shape[1], hop_length))

    def segment(self, start: int, stop: int) -> torch.Tensor:
        """Samples start..stop of each clip, (B, S), mirrored at the clip's own ends."""
        position = torch.arange(start, stop, device=self.waveform.device)
        position = torch.maximum(position, -position)  # OpenVINO 2026.4 leaves constant integers negative in `abs`
        position = torch.where(position < self.lengths, position, 2 * (self.lengths - 1) - position).clamp(min=0)
        if self.padded:
            return self.waveform.gather(1, self.starts + position) - self.means
        return self.waveform.index_select(1, position[0]) - self.means  # several times as fast

    def resample(self, kernel: torch.Tensor, source: int) -> "HEARClips":
        """Resamples by a `sinc_resampling_kernel` from the rate `source`."""
        target, _, taps = kernel.shape
        num_samples = self.waveform.shape[1]
        width = (taps - source) // 2
        samples = self.segment(0, num_samples) * frame_mask(self.lengths, num_samples)
        samples = nn.functional.pad(samples, (width, width + source))
        phases = nn.functional.conv1d(samples.unsqueeze(1), kernel, stride=source)  # (B, target, S)
        waveform = phases.transpose(1, 2).flatten(1)[:, : -(-target * num_samples // source)]
        lengths = -(-target * self.lengths // source)
        return HEARClips(waveform, torch.zeros_like(lengths), lengths, torch.zeros_like(self.means), self.padded)


@dataclass
class HEARLogPower:
    """Normalised log-power frames. Those of a long clip are computed on demand: an hour's would be 740 MB.

    `power(start, stop)` gives power frames; `log_power` holds the logarithms of all of them where the clip is short.
    """

    power: Callable[[int, int], torch.Tensor]
    log_power: torch.Tensor | None
    mean: torch.Tensor
    std: torch.Tensor

    def frames(self, start: int, stop: int) -> torch.Tensor:
        """The frames start..stop, (B, stop - start, n_fft // 2 + 1)."""
        whole = self.log_power
        log_power = floored_log(self.power(start, stop)) if whole is None else whole[:, start:stop]
        return (log_power - self.mean) / (self.std + STD_FLOOR)


class HEARFrontEnd(nn.Module):
    """The fixed tables of a front end, which are neither saved nor rounded, and the power spectrogram of 16 kHz."""

    mel_window: torch.Tensor
    mel_filters: torch.Tensor
    resampling_kernel: torch.Tensor

    def __init__(self, config: HEARConfig | HEARQuantizerConfig):
        super().__init__()
        self.num_mel_bins, self.hop_length = config.num_mel_bins, config.hop_length
        common = math.gcd(config.sampling_rate, MEL_SAMPLING_RATE)
        self.source_rate, self.mel_rate = config.sampling_rate // common, MEL_SAMPLING_RATE // common
        self.resamples = self.source_rate != self.mel_rate
        for name, table in self.tables().items():
            self.register_buffer(name, table, persistent=False)

    def tables(self) -> dict[str, torch.Tensor]:
        """The fixed tables by buffer name; `_init_weights` refills the buffers with them."""
        tables = {
            "mel_window": torch.hann_window(MEL_WIN_LENGTH, dtype=torch.float32, device="cpu"),
            "mel_filters": htk_mel_filters(MEL_N_FFT // 2 + 1, self.num_mel_bins),
        }
        if self.resamples:
            tables["resampling_kernel"] = sinc_resampling_kernel(self.source_rate, self.mel_rate)
        return tables

    def _load_from_state_dict(self, *args, **kwargs) -> None:
        # `to_empty`, after which a state dict is loaded, leaves anything in the tables, which no state dict has.
        super()._load_from_state_dict(*args, **kwargs)
        for name, table in self.tables().items():
            getattr(self, name).copy_(table)

    def _apply(self, fn, recurse=True):
        # `.half()` and `.to(dtype)` move the tables but must not round them.
        tables = dict(self.named_buffers(recurse=False))
        super()._apply(fn, recurse)
        for name, table in tables.items():
            moved = getattr(self, name)
            if moved.dtype != table.dtype:
                setattr(self, name, table.to(moved.device))
        return self

    def resampled(self, clips: HEARClips) -> HEARClips:
        return clips.resample(self.resampling_kernel, self.source_rate) if self.resamples else clips

    def mel_power(self, clips: HEARClips, start: int, stop: int) -> torch.Tensor:
        return power_spectrogram(clips, start, stop, MEL_N_FFT, MEL_HOP_LENGTH, self.mel_window)


class HEARLogMel(HEARFrontEnd):
    """Waveform -> log-mel frames and the mask of the valid encoder frames."""

    def forward(
        self, input_values: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """
        Args:
            input_values (`torch.Tensor` of shape `(batch_size, num_samples)`): Waveform in [-1, 1].
            attention_mask (`torch.Tensor` of shape `(batch_size, num_samples)`, *optional*): 1 = real sample.

        Returns:
            log-mel `(batch_size, num_frames, num_mel_bins)` and the mask `(batch_size, num_frames // 2)` of the valid
            encoder frames, or `None` where no `attention_mask` is given, or on a CPU one without padding.
        """
        with without_autocast(input_values.device.type):
            clips = HEARClips.from_batch(input_values.float(), attention_mask)
            log_mel = self.log_mel(clips)
        return log_mel, clips.frame_mask(self.hop_length)

    def log_mel(self, clips: HEARClips) -> torch.Tensor:
        mel_clips, spectrogram_mask = self.resampled(clips), clips.spectrogram_mask(self.hop_length)

        def compute(start: int, stop: int) -> tuple[torch.Tensor, ...]:
            log_mel = floored_log(self.mel_power(mel_clips, start, stop) @ self.mel_filters)
            return log_mel, frame_moments(log_mel)

        log_mel, moments = in_spectrogram_segments(compute, spectrogram_mask.shape[1])
        return normalised_in_place(log_mel, *clip_moments(moments, spectrogram_mask))


class HEARSpectrogram(HEARFrontEnd):
    """Waveform -> log-mel frames, log-power frames and the mask of the valid encoder frames (paper, section 3.1)."""

    window: torch.Tensor

    def __init__(self, config: HEARConfig):
        self.n_fft, self.win_length = config.n_fft, config.win_length
        super().__init__(config)
        self.shares_stft = not self.resamples and self.n_fft == MEL_N_FFT

    def tables(self) -> dict[str, torch.Tensor]:
        window = torch.hann_window(self.win_length, dtype=torch.float32, device="cpu")
        return {"window": window} | super().tables()

    def forward(
        self, input_values: torch.Tensor, attention_mask: torch.Tensor | None = None
    ) -> tuple[torch.Tensor, HEARLogPower, torch.Tensor | None]:
        """Computes what [`HEARLogMel`] does and, between the two, the [`HEARLogPower`] of the same frames."""
        with without_autocast(input_values.device.type):
            clips = HEARClips.from_batch(input_values.float(), attention_mask)
            log_mel, log_power = self.log_spectra(clips)
        return log_mel, log_power, clips.frame_mask(self.hop_length)

    def log_spectra(self, clips: HEARClips) -> tuple[torch.Tensor, HEARLogPower]:
        mel_clips, spectrogram_mask = self.resampled(clips), clips.spectrogram_mask(self.hop_length)
        num_frames = spectrogram_mask.shape[1]
        keeps_log_power = at_once(num_frames, FRAMES_AT_ONCE)

        def compute(start: int, stop: int) -> tuple[torch.Tensor, ...]:
            power = self.power(clips, start, stop)
            mel_power = power if self.shares_stft else self.mel_power(mel_clips, start, stop)
            log_power, log_mel = floored_log(power), floored_log(mel_power @ self.mel_filters)
            computed = log_mel, frame_moments(log_mel), frame_moments(log_power)
            return (*computed, log_power) if keeps_log_power else computed

        log_mel, mel_moments, power_moments, *kept = in_spectrogram_segments(compute, num_frames)
        log_mel = normalised_in_place(log_mel, *clip_moments(mel_moments, spectrogram_mask))
        moments, log_power = clip_moments(power_moments, spectrogram_mask), kept[0] if kept else None
        return log_mel, HEARLogPower(partial(self.power, clips), log_power, *moments)

    def power(self, clips: HEARClips, start: int, stop: int) -> torch.Tensor:
        return power_spectrogram(clips, start, stop, self.n_fft, self.hop_length, self.window)


def has_no_padding(attention_mask: torch.Tensor) -> bool:
    """Whether a mask is known to mark no padding; the model is faster without it."""
    return is_readable(attention_mask) and bool(attention_mask.min() > 0)  # `all` would copy it


def may_have_holes(real: torch.Tensor) -> bool:
    """Whether a mask hides samples between others, or is not known not to."""
    if not is_readable(real):
        return True
    begins = (real[:, 1:] > real[:, :-1]).sum(-1) + real[:, 0]
    return bool((begins > 1).any())


def in_spectrogram_segments(
    compute: Callable[[int, int], tuple[torch.Tensor, ...]], num_frames: int
) -> tuple[torch.Tensor, ...]:
    length = FRAMES_AT_ONCE if at_once(num_frames, FRAMES_AT_ONCE) else FRAMES_PER_SEGMENT
    return in_segments(compute, num_frames, length)


@exported_as(multiplied_power_spectrogram)
def power_spectrogram(
    clips: HEARClips, start: int, stop: int, n_fft: int, hop_length: int, window: torch.Tensor
) -> torch.Tensor:
    """|STFT|^2 of the frames start..stop, each centred on its hop: (B, stop - start, n_fft // 2 + 1)."""
    samples = clips.segment(start * hop_length - n_fft // 2, (stop - 1) * hop_length + n_fft // 2)
    spectrum = torch.stft(
        samples, n_fft, hop_length, len(window), window, center=False, onesided=True, return_complex=True
    )
    real, imag = torch.view_as_real(spectrum).unbind(-1)
    return real.square().add_(imag.square()).transpose(1, 2)  # (B, F, T) -> (B, T, F)


def floored_log(power: torch.Tensor) -> torch.Tensor:
    """Computes ln(power + LOG_FLOOR) - ln(LOG_FLOOR), a shift that the normalisation removes.

    Silence is then exactly 0, and dividing by its vanishing deviation does not amplify rounding errors.
    """
    return (power / LOG_FLOOR).log1p_()


def frame_moments(frames: torch.Tensor) -> torch.Tensor:
    """Mean and variance of each frame over its bins: (B, T, F) -> (B, T, 2)."""
    mean = frames.mean(-1, keepdim=True)  # `torch.var_mean` takes six times as long
    return torch.cat([mean, (frames - mean).square().mean(-1, keepdim=True)], dim=-1)


def normalised_in_place(frames: torch.Tensor, mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Normalises without a copy: an hour's log-mel is 180 MB."""
    return frames.sub_(mean).div_(std + STD_FLOOR)


def clip_moments(moments: torch.Tensor, spectrogram_mask: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and population standard deviation of each clip, (B, 1, 1), by the law of total variance.

    All frames have equally many bins, so a clip's moments follow from its frames' without another pass over the bins.
    """
    mean, variance = moments.unbind(-1)
    weights = spectrogram_mask / spectrogram_mask.sum(-1, keepdim=True)
    clip_mean = (mean * weights).sum(-1, keepdim=True)
    clip_variance = ((variance + (mean - clip_mean).square()) * weights).sum(-1, keepdim=True)
    return clip_mean.unsqueeze(-1), clip_variance.clamp(min=1e-30).sqrt().unsqueeze(-1)
