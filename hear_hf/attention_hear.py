"""HEAR's attention with learned relative positions in keys and values.

Shapes: B batch, n encoder frames (20 ms) of a window, m queries, D width, H heads of size d.
"""

import math
from itertools import groupby

import torch
from torch import nn

from .configuration_hear import HEARConfig, HEARQuantizerConfig

PACKED_QUERIES = 100  # of a packed float32 window at once: fewer distances for each, and scores that fit the cache
EXPORTED_BLOCKS = 3  # of the queries in a graph, for the same reason


def distances_to_keys(scores: torch.Tensor) -> torch.Tensor:
    """Skews scores of m queries by distance into scores by key: (..., m, m + n), column j - i + m -> (..., m, n), j.

    A view (the trick of Music Transformer, arXiv:1809.04281): a row that is one shorter starts one column later.
    """
    m = scores.shape[-2]
    n = scores.shape[-1] - m
    return scores.flatten(-2)[..., m:].unflatten(-1, (m, m + n - 1))[..., :n]


def keys_to_distances(probs: torch.Tensor) -> torch.Tensor:
    """The reverse: (..., m, n), column j -> (..., m, m + n), column j - i + m, zero elsewhere."""
    m, n = probs.shape[-2:]
    if torch.compiler.is_compiling():  # one kernel, and operators that can be exported
        flat = nn.functional.pad(nn.functional.pad(probs, (0, m - 1)).flatten(-2), (m, 0))
    else:
        flat = probs.new_zeros(*probs.shape[:-2], m * (m + n))
        flat[..., m:].unflatten(-1, (m, m + n - 1))[..., :n] = probs
    return flat.unflatten(-1, (m, m + n))


class HEARAttention(nn.Module):
    """Self-attention with learned relative positions in keys and values (paper, section 3.2)."""

    def __init__(self, config: HEARConfig | HEARQuantizerConfig):
        super().__init__()
        width, self.num_heads = config.hidden_size, config.num_attention_heads
        self.head_dim = width // self.num_heads
        self.zero_distance = config.window_length  # its row of the tables
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
        """(B, n, D) -> the same shape, and the probabilities (B, H, n, n), or `None` of packed windows."""
        heads = (*hidden_states.shape[:-1], self.num_heads, self.head_dim)
        query = self.q_proj(hidden_states).view(heads) / math.sqrt(self.head_dim)
        key = self.k_proj(hidden_states).view(heads).transpose(1, 2)  # (B, n, H, d) -> (B, H, n, d)
        value = self.v_proj(hidden_states).view(heads).transpose(1, 2)

        if frame_mask is not None:
            frame_mask = frame_mask[:, None, None, :]
        if window_lengths is not None:
            output, weights = self.attend_within_windows(query, key, value, window_lengths), None
        elif torch.compiler.is_exporting():
            output, weights = self.attend_in_blocks(query, key, value, frame_mask)
        else:
            tables = self.relative_tables(0, query.shape[1], key.shape[2])
            output, weights = self.attend(query, key, value, *tables, frame_mask)
        return self.out_proj(output.flatten(2)), weights

    def attend_within_windows(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, window_lengths: list[int]
    ) -> torch.Tensor:
        """As [`HEARAttention.attend`] for windows of these lengths that lie one after another in a single row."""
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

    def attend_in_blocks(
        self, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, frame_mask: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """As [`HEARAttention.attend`] for all queries of a window, in blocks that stand side by side in one graph.

        Each block has fewer distances. The last one is padded, and its padding may ask for distances beyond the table.
        """
        num_queries, num_keys, num_blocks = query.shape[1], key.shape[2], EXPORTED_BLOCKS
        size = (num_queries + num_blocks - 1) // num_blocks
        query = nn.functional.pad(query, (0, 0, 0, 0, 0, num_blocks * size - num_queries))
        starts = size * torch.arange(num_blocks, device=query.device)
        distances = torch.arange(size + num_keys, device=query.device) - size - starts[:, None]
        rows = (distances + self.zero_distance).clamp(0, 2 * self.zero_distance - 1)
        keys_by_block = nn.functional.embedding(rows, self.relative_keys).unsqueeze(1)  # (blocks, 1, m + n, d)
        values_by_block = nn.functional.embedding(rows, self.relative_values).unsqueeze(1)
        if frame_mask is not None:
            frame_mask = frame_mask.unsqueeze(1)
        blocks = query.unflatten(1, (num_blocks, size))
        output, weights = self.attend(
            blocks, key.unsqueeze(1), value.unsqueeze(1), keys_by_block, values_by_block, frame_mask
        )
        weights = weights.transpose(1, 2).flatten(2, 3)  # (B, blocks, H, m, n) -> (B, H, blocks * m, n)
        return output.flatten(1, 2)[:, :num_queries], weights[:, :, :num_queries]

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

        The tables, (m + n, d), hold the distances from one below the last query's to key 0 on.
        """
        scale = 1 / math.sqrt(self.head_dim)
        content = (query + self.content_bias * scale).transpose(-3, -2) @ key.transpose(-2, -1)
        position = (query + self.position_bias * scale).transpose(-3, -2) @ relative_keys.transpose(-2, -1)
        scores = content + distances_to_keys(position)
        if frame_mask is not None:
            # The least finite number, not -inf: a clip without a valid frame in this window must not become NaN.
            scores = scores.masked_fill(~frame_mask, torch.finfo(scores.dtype).min)

        weights = scores.softmax(dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(value.dtype)
        probs = nn.functional.dropout(weights, p=self.dropout, training=self.training)
        output = probs @ value + keys_to_distances(probs) @ relative_values
        return output.transpose(-3, -2), weights

    def relative_tables(self, start: int, num_queries: int, num_keys: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The rows of the distances from one below the last query's to key 0, each (m + n, d)."""
        zero = self.zero_distance - start
        rows = slice(zero - num_queries, zero + num_keys)
        return self.relative_keys[rows], self.relative_values[rows]
