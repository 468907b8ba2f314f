"""The plots of a training run. Names, which may be anything, are drawn as they are."""

from pathlib import Path

import numpy as np
import torch
from matplotlib import rc_context
from matplotlib.figure import Figure

from ..events import HEAREvent

MAX_COLUMNS = 3
MAX_MARKED_POINTS = 50
MAX_NAMED_LABELS = 60  # more names than that are unreadable on an axis
MAX_COUNTED_LABELS = 15  # so are more numbers in a confusion matrix
names_as_they_are = rc_context({"text.parse_math": False})  # and not as formulas


@names_as_they_are
def plot_curves(log_history: list[dict[str, float]], panels: dict[str, dict[str, str]], path: Path) -> None:
    """
    Plots logged values over the steps.

    Args:
        log_history (`list[dict]`): As Trainer's state has it.
        panels (`dict[str, dict[str, str]]`): By title, the name in the legend of each value. Those without a value
            are left out.
        path (`Path`): The image to write.
    """
    logged = set().union(*log_history)
    panels = {title: names for title, names in panels.items() if logged & names.keys()}
    num_columns = max(min(len(panels), MAX_COLUMNS), 1)
    num_rows = max(-(-len(panels) // num_columns), 1)
    figure = Figure(figsize=(4.5 * num_columns, 3.5 * num_rows), layout="constrained")
    grid = figure.subplots(num_rows, num_columns, squeeze=False)
    for axes, (title, names) in zip(grid.flat, panels.items(), strict=False):
        for key, name in names.items():
            points = [(entry["step"], entry[key]) for entry in log_history if key in entry]
            if points:
                marker = "." if len(points) < MAX_MARKED_POINTS else None
                axes.plot(*zip(*points, strict=True), label=name, marker=marker)
        axes.set(title=title, xlabel="step")
        axes.grid(alpha=0.3)
        axes.legend()
    for axes in grid.flat[len(panels) :]:
        axes.axis("off")
    figure.savefig(path, dpi=120)


@names_as_they_are
def plot_confusion_matrix(counts: np.ndarray, names: list[str], path: Path) -> None:
    """Plots the share of each true label's clips that was given each label, from counts (num_labels, num_labels)."""
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = min(max(4.0, 0.35 * len(names)), 20.0)
    figure = Figure(figsize=(size + 1, size), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="viridis")
    axes.set(xlabel="predicted", ylabel="true", title=f"Confusion matrix, {counts.sum()} clips")
    if len(names) <= MAX_NAMED_LABELS:
        axes.set_xticks(range(len(names)), names, rotation=90)
        axes.set_yticks(range(len(names)), names)
    if len(names) <= MAX_COUNTED_LABELS:
        for row, column in np.argwhere(counts > 0):
            colour = "black" if shares[row, column] > 0.6 else "white"
            axes.text(column, row, counts[row, column], ha="center", va="center", color=colour, fontsize=8)
    figure.colorbar(image, ax=axes, label="share of the true label's clips")
    figure.savefig(path, dpi=120)


def plot_codes(counts: np.ndarray, path: Path) -> None:
    """Plots how often each code occurs, the most frequent first, from counts (codebook_size,)."""
    shares = np.sort(counts)[::-1] / max(counts.sum(), 1)
    figure = Figure(figsize=(8, 3.5), layout="constrained")
    axes = figure.subplots()
    axes.bar(np.arange(len(shares)), shares, width=1.0)
    axes.axhline(1 / len(shares), color="black", linestyle=":", label="all equally often")
    title = f"{np.count_nonzero(counts)} of {len(counts)} codes in use, {int(counts.sum())} frames"
    axes.set(title=title, xlabel="code, by frequency", ylabel="share of the frames", yscale="log")
    axes.legend()
    figure.savefig(path, dpi=120)


def plot_spectrograms(panels: dict[str, torch.Tensor], path: Path) -> None:
    """Plots spectrograms of one clip by their titles, (num_frames, num_mel_bins) each, in the same colours."""
    images = {title: panel.float().cpu().numpy().T for title, panel in panels.items()}
    low, high = np.nanpercentile(next(iter(images.values())), [1, 99.5])
    figure = Figure(figsize=(9, 2.6 * len(images)), layout="constrained")
    grid = figure.subplots(len(images), 1, sharex=True, squeeze=False)[:, 0]
    for axes, (title, values) in zip(grid, images.items(), strict=True):
        extent = (0, values.shape[1] / 100, 0, len(values))  # 10 ms a frame
        image = axes.imshow(values, origin="lower", aspect="auto", vmin=low, vmax=high, extent=extent)
        axes.set(title=title, ylabel="mel bin")
    grid[-1].set(xlabel="seconds")
    figure.colorbar(image, ax=grid, label="normalised log power")
    figure.savefig(path, dpi=120)


@names_as_they_are
def plot_events(waveform: np.ndarray, sampling_rate: int, events: dict[str, list[HEAREvent]], path: Path) -> None:
    """
    Plots a clip's spectrogram, and under it the events of each kind, such as the true ones and those that were found,
    of the first 60 labels.

    Args:
        waveform (`np.ndarray` of shape `(num_samples,)`): The clip.
        sampling_rate (`int`): Its rate in Hz.
        events (`dict[str, list[HEAREvent]]`): By the kind's name in the legend.
        path (`Path`): The image to write.
    """
    seconds = len(waveform) / sampling_rate
    all_names = list(dict.fromkeys(event.label for found in events.values() for event in found))
    names = all_names[:MAX_NAMED_LABELS]
    figure = Figure(figsize=(9, 3.4 + 0.35 * len(names)), layout="constrained")
    top, bottom = figure.subplots(2, sharex=True, height_ratios=(2.4, 0.6 + 0.35 * len(names)))
    length = sampling_rate // 25
    top.specgram(waveform, NFFT=length, Fs=sampling_rate, noverlap=length - sampling_rate // 100, scale="dB")
    top.set(ylabel="Hz")
    height = 0.8 / len(events)
    for number, (kind, listed) in enumerate(events.items()):
        found = [event for event in listed if event.label in names]
        rows = [names.index(event.label) - 0.4 + height * (number + 0.5) for event in found]
        lengths, starts = [event.end - event.start for event in found], [event.start for event in found]
        bottom.barh(rows, lengths, height, starts, label=kind)
    bottom.set_yticks(range(len(names)), names)
    bottom.set(xlabel="seconds", xlim=(0, seconds), ylim=(len(names) - 0.5, -0.5))
    if len(names) < len(all_names):
        bottom.set(title=f"{len(names)} of {len(all_names)} labels")
    bottom.grid(axis="x", alpha=0.3)
    bottom.legend(loc="upper right")
    figure.savefig(path, dpi=120)
