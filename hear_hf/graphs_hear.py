"""Compiled and exported graphs: where they must compute otherwise than eager PyTorch, and what they compute there.

`torch.compile` may trace another graph for other lengths, but cannot read a tensor's values. `torch.export` traces one
graph for clips of all lengths, from operators that other runtimes have. No other file asks which of them is running.

Shapes: B batch, T spectrogram frames (10 ms), F frequency bins, n encoder frames (20 ms), D width, H heads of size d.
"""

import functools
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from torch import nn

EXPORTED_BLOCKS = 3  # of a window's queries: fewer distances for each, and scores that fit the cache

Function = TypeVar("Function", bound=Callable)


def is_traced() -> bool:
    """Whether a graph is made of what is being computed: by `torch.compile`, `torch.export` or `torch.jit.trace`."""
    return torch.compiler.is_compiling() or torch.jit.is_tracing()


def at_once(num_frames: int, length: int) -> bool:
    """Whether frames are computed in one piece, as in every graph, rather than in segments of `length`."""
    return is_traced() or num_frames <= length


def fits(num_frames: int, length: int) -> bool:
    """Whether frames fit in one window or segment of `length`; an exported graph must not depend on the answer."""
    return not torch.compiler.is_exporting() and num_frames <= length


def is_readable(tensor: torch.Tensor) -> bool:
    """Whether Python may read values without waiting for a GPU; a graph that is traced must not depend on them."""
    return tensor.device.type == "cpu" and not is_traced()


def without_autocast(device_type: str) -> AbstractContextManager:
    """A context without autocast; none where a graph is exported: most of what reads it knows no graph within."""
    if torch.compiler.is_exporting():
        return nullcontext()
    return torch.autocast(device_type=device_type, enabled=False)


def of_fixed_length(frames: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Frames (B, T, F) and their number, which `torch.jit.trace` fixes: its graph refuses to run on another one."""
    if not torch.jit.is_tracing():
        return frames, frames.shape[1]
    num_frames = int(frames.shape[1])  # otherwise a tensor
    return frames.expand(-1, num_frames, -1), num_frames


def compiled_as(alternative: Callable) -> Callable[[Function], Function]:
    """Decorates a function in place of which graphs of all kinds compute the `alternative`."""
    return _replaced_where(is_traced, alternative)


def exported_as(alternative: Callable) -> Callable[[Function], Function]:
    """Decorates a function in place of which exported graphs compute the `alternative`."""
    return _replaced_where(torch.compiler.is_exporting, alternative)


def _replaced_where(condition: Callable[[], bool], alternative: Callable):
    def decorate(function):
        @functools.wraps(function)
        def choose(*args, **kwargs):
            return alternative(*args, **kwargs) if condition() else function(*args, **kwargs)

        return choose

    return decorate


def padded_keys_to_distances(probs: torch.Tensor) -> torch.Tensor:
    """Computes `keys_to_distances` by padding: one kernel when compiled, and operators that can be exported."""
    m, n = probs.shape[-2:]
    flat = nn.functional.pad(nn.functional.pad(probs, (0, m - 1)).flatten(-2), (m, 0))
    return flat.unflatten(-1, (m, m + n))


def attend_in_blocks(
    attention, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, frame_mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Computes [`HEARAttention.attend_window`] in blocks of queries, side by side.

    The last block is padded, and its padding may ask for distances beyond the tables.
    """
    num_queries, num_keys, num_blocks = query.shape[1], key.shape[2], EXPORTED_BLOCKS
    size = (num_queries + num_blocks - 1) // num_blocks
    query = nn.functional.pad(query, (0, 0, 0, 0, 0, num_blocks * size - num_queries))
    starts = size * torch.arange(num_blocks, device=query.device)
    distances = torch.arange(size + num_keys, device=query.device) - size - starts[:, None]
    rows = (distances + attention.zero_distance).clamp(0, 2 * attention.zero_distance - 1)
    relative_keys = nn.functional.embedding(rows, attention.relative_keys).unsqueeze(1)  # (blocks, 1, m + n, d)
    relative_values = nn.functional.embedding(rows, attention.relative_values).unsqueeze(1)
    frame_mask = None if frame_mask is None else frame_mask.unsqueeze(1)
    blocks = query.unflatten(1, (num_blocks, size))
    output, weights = attention.attend(
        blocks, key.unsqueeze(1), value.unsqueeze(1), relative_keys, relative_values, frame_mask
    )
    weights = weights.transpose(1, 2).flatten(2, 3)  # (B, blocks, H, m, n) -> (B, H, blocks * m, n)
    return output.flatten(1, 2)[:, :num_queries], weights[:, :, :num_queries]


def integrate_in_one_batch(
    model,
    acoustic_hidden_states: torch.Tensor,
    log_power,
    frame_mask: torch.Tensor | None,
    output_attentions: bool,
    in_place: bool,
) -> tuple[torch.Tensor, None]:
    """Computes [`HEARModel.integrate_segments`] with the segments, the last one padded, in the rows of one batch."""
    if output_attentions:
        raise ValueError(
            "`output_attentions` needs a model that is not compiled, or clips of at most "
            f"{model.config.max_position_embeddings} frames, found: {acoustic_hidden_states.shape[1]}."
        )
    batch_size = acoustic_hidden_states.shape[0]
    acoustic_hidden_states, num_frames = of_fixed_length(acoustic_hidden_states)
    length = torch.sym_min(num_frames, model.config.max_position_embeddings)
    num_segments = (num_frames + length - 1) // length

    def cut(frames, rows_per_frame):
        missing = rows_per_frame * (num_segments * length - num_frames)
        padded = nn.functional.pad(frames, (0, 0, 0, missing))
        return padded.reshape(batch_size * num_segments, rows_per_frame * length, frames.shape[2])

    if frame_mask is None:
        frame_mask = torch.ones(batch_size, num_frames, dtype=torch.bool, device=acoustic_hidden_states.device)
    frame_mask = cut(frame_mask.unsqueeze(-1), 1).squeeze(-1)
    spectrum = cut(log_power.frames(0, 2 * num_frames), 2)
    output, _ = model.integrate_segment(cut(acoustic_hidden_states, 1), spectrum, frame_mask, False)
    return output.reshape(batch_size, num_segments * length, -1)[:, :num_frames], None


def multiplied_power_spectrogram(
    clips, start: int, stop: int, n_fft: int, hop_length: int, window: torch.Tensor
) -> torch.Tensor:
    """Computes `power_spectrogram` by matrix products, for few runtimes have a good FFT."""
    real, imag = fourier_transform(clips, start, stop, n_fft, hop_length, window)
    return real.square() + imag.square()


def fourier_transform(
    clips, start: int, stop: int, n_fft: int, hop_length: int, window: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Real and imaginary part of the STFT up to phase, each (B, T, F).

    The window is symmetric about its middle, and its first weight is 0. So cosines multiply sums of two mirrored
    samples, and sines their differences, which halves the products.
    """
    length, num_frames = len(window), stop - start
    first = start * hop_length + (n_fft - length) // 2 - n_fft // 2
    samples = clips.segment(first, first + (num_frames + length // hop_length) * hop_length)
    hops = samples.unflatten(1, (-1, hop_length))
    frames = torch.cat([hops[:, i : i + num_frames] for i in range(1 + length // hop_length)], dim=-1)[..., :length]
    right = frames[..., (length + 1) // 2 :]
    left = frames[..., 1 : length // 2 + 1].flip(-1)

    frequency = torch.arange(n_fft // 2 + 1, device=window.device)
    doubled_distance = 2 * torch.arange((length + 1) // 2, length, device=window.device)[:, None] - length
    turns = doubled_distance * frequency % (2 * n_fft)  # in units of 1 / (2 * n_fft)
    angle = turns.float() * (math.pi / n_fft)
    weights = window[(length + 1) // 2 :, None] * torch.where(doubled_distance == 0, 0.5, 1.0)  # the middle: twice
    return (right + left) @ (weights * angle.cos()), (right - left) @ (weights * angle.sin())
