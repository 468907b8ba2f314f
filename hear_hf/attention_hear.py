"""HEAR's attention with learned relative positions in keys and values.

Shapes: B batch, n encoder frames (20 ms) of a window, m queries, D width, H heads of size d.
"""

import math
from itertools import groupby

import torch
from torch import nn

from .configuration_hear import HEARConfig, HEARQuantizerConfig
from .graphs_hear import attend_in_blocks, compiled_as, exported_as, padded_keys_to_distances

PACKED_QUERIES = 100  # of a packed float32 window at once: fewer distances for each, and scores that fit the cache


def distances_to_keys(scores: torch.Tensor) -> torch.Tensor:
    """Skews scores of m queries by distance into scores by key: (..., m, m + n), column j - i + m -> (..., m, n), j.

    A view (the trick of Music Transformer, arXiv:1809.04281): a row that is one shorter starts one column later.
    """
    m = scores.shape[-2]
    n = scores.shape[-1] - m
    return scores.flatten(-2)[..., m:].unflatten(-1, (m, m + n - 1))[..., :n]


@compiled_as(padded_keys_to_distances)
def keys_to_distances(probs: torch.Tensor) -> torch.Tensor:
    """Reverses the skew: (..., m, n), column j -> (..., m, m + n), column j - i + m, zero elsewhere."""
    m, n = probs.shape[-2:]
    flat = probs.new_zeros(*probs.shape[:-2], m * (m + n))
    flat[..., m:].unflatten(-1, (m, m + n - 1))[..., :n] = probs
    return flat.unflatten(-1, (m, m + n))


class HEARAttention(nn.Module):
    """Self-attention with learned relative positions in keys and values (paper, section 3.2)."""

    def __init__(self, config: HEARConfig | HEARQuantizerConfig):
        super().__init__()
        width, self.num_heads = config.hidden_size, config.num_attention_heads
        self.head_dim = width // self.num_heads
        self.zero_distance = config.window_length  # its row in the tables
        self.dropout = config.attention_dropout
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)
        self.content_bias = nn.Parameter(torch.zeros(self.num_heads, self.head_dim))
        self.position_bias = nn.Parameter(torch.zeros(self.num_heads, self.head_dim))
        self.relative_keys = nn.Parameter(torch.zeros(2 * config.window_length, self.head_dim))
        self.relative_values = nn.Parameter(torch.zeros(2 * config.window_length, self.head_dim))

    def forward(
        self,
        hidden_states: torch.Tensor,
        frame_mask: torch.Tensor | None,
        window_lengths: list[int] | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Output, (B, n, D) as the input, and probabilities, (B, H, n, n), which packed windows do not return."""
        heads = (*hidden_states.shape[:-1], self.num_heads, self.head_dim)
        query = self.q_proj(hidden_states).view(heads) / math.sqrt(self.head_dim)
        key = self.k_proj(hidden_states).view(heads).transpose(1, 2)  # (B, n, H, d) -> (B, H, n, d)
        value = self.v_proj(hidden_states).view(heads).transpose(1, 2)

        if window_lengths is not None:
            output, weights = self.attend_packed_windows(query, key, value, window_lengths), None
        else:
            frame_mask = None if frame_mask is None else frame_mask[:, None, None, :]
            output, weights = self.attend_window(query, key, value, frame_mask)
        return self.out_proj(output.flatten(2)), weights

    def attend_packed_windows(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, window_lengths: list[int]
    ) -> torch.Tensor:
        """Computes [`HEARAttention.attend`] within each of the windows that lie one after another in a single row."""
        output, start = torch.empty_like(query), 0
        for length, windows in groupby(window_lengths):
            shape = (sum(1 for _ in windows), length)
            rows = slice(start, start := start + math.prod(shape))
            result, queries = (part[0, rows].unflatten(0, shape) for part in (output, query))
            keys, values = (part[0, :, rows].unflatten(1, shape).transpose(0, 1) for part in (key, value))
            step = PACKED_QUERIES if query.dtype == torch.float32 else length
            for first in range(0, length, step):
                block = queries[:, first : first + step]
                tables = self.relative_tables(first, block.shape[1], length)
                result[:, first : first + step], _ = self.attend(block, keys, values, *tables, None)
        return output

    @exported_as(attend_in_blocks)
    def attend_window(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, frame_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Computes [`HEARAttention.attend`] for all queries of a window."""
        tables = self.relative_tables(0, query.shape[1], key.shape[2])
        return self.attend(query, key, value, *tables, frame_mask)

    def attend(
        self,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        relative_keys: torch.Tensor,
        relative_values: torch.Tensor,
        frame_mask: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Output (B, m, H, d) and probabilities (B, H, m, n) of m queries (B, m, H, d), keys and values (B, H, n, d).

        The tables, (m + n, d), start at one below the distance from the last query to key 0. The mask is (B, 1, 1, n).
        """
        scale = 1 / math.sqrt(self.head_dim)
        content = (query + self.content_bias * scale).transpose(-3, -2) @ key.transpose(-2, -1)
        position = (query + self.position_bias * scale).transpose(-3, -2) @ relative_keys.transpose(-2, -1)
        scores = content + distances_to_keys(position)
        if frame_mask is not None:
            # The lowest finite number, not -inf: a clip without a valid frame in this window must not become NaN.
            scores = scores.masked_fill(~frame_mask, torch.finfo(scores.dtype).min)

        weights = scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(value.dtype)
        probs = nn.functional.dropout(weights, p=self.dropout, training=self.training)
        output = probs @ value + keys_to_distances(probs) @ relative_values
        return output.transpose(-3, -2), weights

    def relative_tables(self, start: int, num_queries: int, num_keys: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows of both tables for m queries from `start` on and n keys from 0 on, each (m + n, d)."""
        zero = self.zero_distance - start
        rows = slice(zero - num_queries, zero + num_keys)
        return self.relative_keys[rows], self.relative_values[rows]
