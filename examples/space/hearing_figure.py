"""The picture of a clip: its log-mel spectrogram and, on the same time axis, which label is heard when."""

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from transformers.audio_utils import hertz_to_mel, mel_filter_bank

from sound_events import Hearing

NUM_MEL_BINS = 96
DYNAMIC_RANGE = 80  # dB
FREQUENCY_TICKS = (0, 250, 500, 1000, 2000, 4000, 8000, 16_000)  # Hz
MAX_ROWS = 8


def log_mel(waveform: np.ndarray, sampling_rate: int) -> np.ndarray:
    """Log-mel spectrogram in dB below its maximum, one frame per 10 ms, (NUM_MEL_BINS, num_frames)."""
    hop_length, win_length, n_fft = sampling_rate // 100, sampling_rate // 40, sampling_rate // 15
    window = torch.hann_window(win_length)
    spectrum = torch.stft(
        torch.from_numpy(waveform), n_fft, hop_length, win_length, window, pad_mode="constant", return_complex=True
    )
    filters = mel_filter_bank(
        n_fft // 2 + 1, NUM_MEL_BINS, 0, sampling_rate / 2, sampling_rate, norm=None, mel_scale="htk"
    )
    mel = torch.from_numpy(filters.T).float() @ spectrum.abs().square()
    decibels = 10 * torch.log10(mel + 1e-10)
    return (decibels - decibels.max()).clamp(min=-DYNAMIC_RANGE).numpy()


def draw(hearing: Hearing) -> Figure:
    """The spectrogram above the scores of the labels that reach most, in the order in which they peak."""
    rows = np.argsort(-hearing.scores.max(axis=0))[:MAX_ROWS]
    rows = rows[np.argsort(hearing.scores[:, rows].argmax(axis=0), kind="stable")]
    timeline_height = 0.6 + 0.3 * len(rows)  # inches
    figure = Figure(figsize=(6, 2.6 + timeline_height), dpi=150, layout="constrained")
    top, bottom = figure.subplots(2, sharex=True, height_ratios=(2, timeline_height))
    _draw_spectrogram(top, hearing)
    scores = _draw_timeline(bottom, hearing, rows)
    figure.colorbar(scores, ax=(top, bottom), pad=0.01, aspect=40)
    return figure


def _draw_spectrogram(axes: Axes, hearing: Hearing) -> None:
    nyquist = hearing.sampling_rate / 2
    ticks = [frequency for frequency in FREQUENCY_TICKS if frequency <= nyquist]
    axes.imshow(
        log_mel(hearing.waveform, hearing.sampling_rate),
        origin="lower",
        aspect="auto",
        cmap="magma",
        extent=(0, hearing.edges[-1], 0, hertz_to_mel(nyquist, mel_scale="htk")),
    )
    axes.set_yticks([hertz_to_mel(float(frequency), mel_scale="htk") for frequency in ticks], ticks)
    axes.set_ylabel("Frequency (Hz)")
    axes.set_title("Log-mel spectrogram")


def _draw_timeline(axes: Axes, hearing: Hearing, rows: np.ndarray) -> QuadMesh:
    mesh = axes.pcolormesh(
        hearing.edges, np.arange(len(rows) + 1), hearing.scores[:, rows].T, cmap="Blues", vmin=0, vmax=1
    )
    axes.set_yticks(np.arange(len(rows)) + 0.5, [hearing.labels[row] for row in rows], parse_math=False)
    axes.invert_yaxis()
    axes.hlines(np.arange(1, len(rows)), 0, hearing.edges[-1], color="0.85", linewidth=0.6)
    axes.set_xlabel("Time (s)")
    axes.set_title("Score of each label")
    return mesh
