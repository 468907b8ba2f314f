"""Random masks of frames or features. In every mask True means masked."""

import torch


def span_mask(maskable: torch.Tensor, mask_prob: float, mask_length: int, min_masks: int = 0) -> torch.Tensor:
    """Masks random spans of each row, as [SpecAugment](https://huggingface.co/papers/1904.08779) does.

    Spans may overlap, so `mask_prob` is an upper bound of the masked share. A row too short for a span is not masked.

    Args:
        maskable (`torch.Tensor` of shape `(batch_size, length)`): True where a frame or feature may be masked; these
            come first.
        mask_prob (`float`): Share of each row's maskable positions to mask, between 0 and 1.
        mask_length (`int`): Positions of each span.
        min_masks (`int`, *optional*, defaults to 0): Least number of spans of each row.

    Returns:
        `torch.Tensor` of shape `(batch_size, length)`: True where a frame or feature is masked.
    """
    lengths = maskable.sum(-1, keepdim=True)
    num_starts = (lengths - mask_length + 1).clamp(min=0)
    rounding = torch.rand(lengths.shape, device=maskable.device)
    num_spans = (mask_prob * lengths / mask_length + rounding).floor().clamp(min=min_masks)
    num_spans = torch.minimum(num_spans, num_starts)

    may_start = torch.arange(maskable.shape[1], device=maskable.device) < num_starts
    order = torch.rand(maskable.shape, device=maskable.device).masked_fill(~may_start, -1.0)
    rank = order.argsort(dim=-1, descending=True).argsort(dim=-1)
    starts_until = (rank < num_spans).cumsum(-1)
    starts_before_span = torch.nn.functional.pad(starts_until, (mask_length, 0))[:, : maskable.shape[1]]
    return starts_until > starts_before_span


def share_mask(
    frame_mask: torch.Tensor, mask_prob: float, mask_length: int = 1, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Masks exactly a share of each row's valid frames, in random spans: the mask of masked audio modelling.

    The last span may be shorter, and spans may touch. Of `n` valid frames `round(mask_prob * n)` are masked, at least
    one where `mask_prob > 0`.

    Args:
        frame_mask (`torch.Tensor` of shape `(batch_size, num_frames)`): True where a frame is valid.
        mask_prob (`float`): Share of each row's valid frames to mask, between 0 and 1.
        mask_length (`int`, *optional*, defaults to 1): Frames of each span.
        generator (`torch.Generator`, *optional*): On the device of `frame_mask`; draws the same mask again.

    Returns:
        `torch.Tensor` of shape `(batch_size, num_frames)`: True where a frame is masked.

    Raises:
        `ValueError`: if the share or the length is out of range.
    """
    if not 0 <= mask_prob <= 1 or mask_length < 1:
        raise ValueError(
            "`mask_prob` must be between 0 and 1 and `mask_length` at least 1, found: "
            f"mask_prob={mask_prob} and mask_length={mask_length}."
        )
    batch_size, num_frames = frame_mask.shape
    device = frame_mask.device
    position = frame_mask.cumsum(-1) - 1  # among the row's valid ones
    # Spans lie on a grid of `mask_length` with a random offset; whole spans come in random order of their draws.
    offset = torch.randint(mask_length, (batch_size, 1), generator=generator, device=device)
    span = (position + offset) // mask_length
    draws = torch.rand(batch_size, num_frames // mask_length + 2, generator=generator, device=device)
    draws = draws.gather(1, span.clamp(min=0)).masked_fill(~frame_mask.bool(), 2.0)
    order = draws.argsort(dim=-1, stable=True)
    rank = torch.empty_like(order).scatter_(1, order, torch.arange(num_frames, device=device).expand_as(order))
    num_valid = frame_mask.sum(-1, keepdim=True)
    num_masked = (mask_prob * num_valid).round().clamp(min=1 if mask_prob > 0 else 0)
    return (rank < num_masked) & frame_mask.bool()
