"""Random masks over frames or features. In every mask True means hidden."""

import torch


def span_mask(valid: torch.Tensor, mask_prob: float, mask_length: int, min_masks: int = 0) -> torch.Tensor:
    """Hides random spans of the valid positions of each row, as [SpecAugment](https://huggingface.co/papers/1904.08779).

    Spans may overlap, so `mask_prob` is an upper bound of the hidden share. A row too short for one span keeps all.

    Args:
        valid (`torch.Tensor` of shape `(batch_size, length)`): True where a position may be hidden; valid positions
            come first.
        mask_prob (`float`): Share of each row's valid positions to hide, between 0 and 1.
        mask_length (`int`): Positions of each span.
        min_masks (`int`, *optional*, defaults to 0): Least number of spans of each row.

    Returns:
        `torch.Tensor` of shape `(batch_size, length)`: True where a position is hidden.
    """
    lengths = valid.sum(-1, keepdim=True)
    num_starts = (lengths - mask_length + 1).clamp(min=0)
    rounding = torch.rand(lengths.shape, device=valid.device)
    num_spans = (mask_prob * lengths / mask_length + rounding).floor().clamp(min=min_masks)
    num_spans = torch.minimum(num_spans, num_starts)

    may_start = torch.arange(valid.shape[1], device=valid.device) < num_starts
    order = torch.rand(valid.shape, device=valid.device).masked_fill(~may_start, -1.0)
    rank = order.argsort(dim=-1, descending=True).argsort(dim=-1)
    starts_until = (rank < num_spans).cumsum(-1)
    starts_before_span = torch.nn.functional.pad(starts_until, (mask_length, 0))[:, : valid.shape[1]]
    return starts_until > starts_before_span


def share_mask(
    valid: torch.Tensor, mask_prob: float, mask_length: int = 1, generator: torch.Generator | None = None
) -> torch.Tensor:
    """Hides exactly a share of each row's valid positions, in random spans: the mask of masked audio modelling.

    The last span may be shorter, and spans may touch. Of `n` valid positions `round(mask_prob * n)` are hidden, at
    least one where `mask_prob > 0`.

    Args:
        valid (`torch.Tensor` of shape `(batch_size, length)`): True where a position may be hidden.
        mask_prob (`float`): Share of each row's valid positions to hide, between 0 and 1.
        mask_length (`int`, *optional*, defaults to 1): Positions of each span.
        generator (`torch.Generator`, *optional*): Of the device of `valid`; draws the same mask again.

    Returns:
        `torch.Tensor` of shape `(batch_size, length)`: True where a position is hidden.

    Raises:
        `ValueError`: if the share or the length is out of range.
    """
    if not 0 <= mask_prob <= 1 or mask_length < 1:
        raise ValueError(
            "`mask_prob` must be between 0 and 1 and `mask_length` at least 1, found: "
            f"mask_prob={mask_prob} and mask_length={mask_length}."
        )
    position = valid.cumsum(-1) - 1  # among the row's valid ones
    # Spans lie on a grid of `mask_length` with a random offset; whole spans come in random order of their draws.
    offset = torch.randint(mask_length, (valid.shape[0], 1), generator=generator, device=valid.device)
    span = (position + offset) // mask_length
    num_spans = valid.shape[1] // mask_length + 2
    draws = torch.rand(valid.shape[0], num_spans, generator=generator, device=valid.device)
    draws = draws.gather(1, span.clamp(min=0)).masked_fill(~valid.bool(), 2.0)
    order = draws.argsort(dim=-1, stable=True)
    rank = torch.empty_like(order).scatter_(
        1, order, torch.arange(valid.shape[1], device=valid.device).expand_as(order)
    )
    num_valid = valid.sum(-1, keepdim=True)
    num_hidden = (mask_prob * num_valid).round().clamp(min=1 if mask_prob > 0 else 0)
    return (rank < num_hidden) & valid.bool()
