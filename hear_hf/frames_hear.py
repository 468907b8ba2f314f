"""Functions of samples, frames, segments and masks that the models share.

Shapes: B batch, n frames, D width.
"""

from collections.abc import Callable

import torch

from .graphs_hear import at_once


def num_encoder_frames(num_samples, hop_length: int):
    """Encoder frames (20 ms) of clips of `num_samples`, an `int` or an integer tensor; an odd last hop is dropped."""
    return (1 + num_samples // hop_length) // 2


def frame_mask(lengths: torch.Tensor, num_frames: int) -> torch.Tensor:
    """True where a frame is valid: lengths (B,) or (B, 1) -> (B, num_frames)."""
    return torch.arange(num_frames, device=lengths.device) < lengths.view(-1, 1)


def all_valid(hidden_states: torch.Tensor) -> torch.Tensor:
    """The frame mask of a batch without padding: (B, n, D) -> (B, n)."""
    return torch.ones(hidden_states.shape[:2], dtype=torch.bool, device=hidden_states.device)


def at_least_float32(values: torch.Tensor) -> torch.Tensor:
    """Half precision as float32, for sums and logarithms; float64 stays."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def in_segments(
    compute: Callable[[int, int], tuple[torch.Tensor, ...]],
    num_frames: int,
    length: int,
    out: tuple[torch.Tensor, ...] = (),
) -> tuple[torch.Tensor, ...]:
    """Joins the tensors `compute(start, stop)`, each (B, stop - start, ...), of all segments of `length` frames.

    Each is copied into its whole, one of `out` where given, as soon as it is computed: kept between freed temporaries,
    the parts would fragment the heap, by a gigabyte in an hour.
    """
    if at_once(num_frames, length):
        return compute(0, num_frames)
    for start in range(0, num_frames, length):
        stop = min(start + length, num_frames)
        parts = compute(start, stop)
        out = out or tuple(part.new_empty(part.shape[0], num_frames, *part.shape[2:]) for part in parts)
        for whole, part in zip(out, parts, strict=True):
            whole[:, start:stop] = part
    return out
