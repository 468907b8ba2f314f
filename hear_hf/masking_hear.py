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
