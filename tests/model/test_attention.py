"""The skewed relative attention against the formula of the paper, which gathers a vector for each pair of frames."""

import math

import pytest
import torch

from hear_hf import HEARConfig
from hear_hf.attention_hear import HEARAttention, distances_to_keys, keys_to_distances
from helpers import SMALL


@pytest.fixture
def attention():
    attention = HEARAttention(HEARConfig(**SMALL)).double().eval()
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return attention


def gathered_attention(layer, x, valid):
    """o_i = sum_j p_ij (v_j + RV[j - i + L]), p = softmax(((q_i + u) k_j + (q_i + v) RK[j - i + L]) / sqrt(d))."""
    n, length = x.shape[1], len(layer.relative_keys) // 2
    q, k, v = (proj(x).unflatten(-1, (layer.num_heads, -1)) for proj in (layer.q_proj, layer.k_proj, layer.v_proj))
    distance = torch.arange(n)[None, :] - torch.arange(n)[:, None] + length  # j - i + L
    content = torch.einsum("bihd,bjhd->bhij", q + layer.content_bias, k)
    position = torch.einsum("bihd,ijd->bhij", q + layer.position_bias, layer.relative_keys[distance])
    scores = (content + position) / math.sqrt(layer.head_dim)
    probs = scores.masked_fill(~valid[:, None, None, :], -math.inf).softmax(-1)
    values = v.permute(0, 2, 1, 3)[:, :, None] + layer.relative_values[distance]  # (B, H, i, j, d)
    output = torch.einsum("bhij,bhijd->bihd", probs, values)
    return layer.out_proj(output.flatten(2)), probs


@pytest.mark.parametrize("num_frames", [1, 2, 3, 17, 29, 30])
def test_outputs_and_gradients_are_those_of_the_gathered_formula(attention, num_frames):
    x = torch.randn(3, num_frames, 48, dtype=torch.float64, requires_grad=True)
    valid = torch.arange(num_frames) < torch.tensor([[num_frames], [1], [max(1, num_frames // 2)]])
    variables, results = [x, *attention.parameters()], []
    for output, probs in (attention(x, valid), gathered_attention(attention, x, valid)):
        gradients = torch.autograd.grad((output * valid[..., None]).square().sum(), variables)
        results.append((output, probs, *gradients))
    torch.testing.assert_close(*results, rtol=1e-9, atol=1e-9)


def test_every_key_counts_where_there_is_no_mask(attention):
    x = torch.randn(2, 13, 48, dtype=torch.float64)
    everything = torch.ones(2, 13, dtype=torch.bool)
    torch.testing.assert_close(attention(x, None)[0], attention(x, everything)[0])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_frames_without_any_valid_key_stay_finite(attention, dtype):
    output, probs = attention.to(dtype)(torch.randn(1, 5, 48, dtype=dtype), torch.zeros(1, 5, dtype=torch.bool))
    assert output.isfinite().all() and probs.isfinite().all()


@pytest.mark.parametrize("n", [1, 2, 7])
def test_skewing_moves_each_distance_to_its_key(n):
    by_distance = torch.randn(2, 3, n, 2 * n)
    i, j = torch.arange(n)[:, None], torch.arange(n)[None, :]
    assert torch.equal(distances_to_keys(by_distance), by_distance[:, :, i, j - i + n])


@pytest.mark.parametrize("n", [1, 2, 7])
def test_skewing_back_restores_the_distances_and_fills_in_zeros(n):
    by_key = torch.randn(2, 3, n, n)
    by_distance = keys_to_distances(by_key)
    assert torch.equal(distances_to_keys(by_distance), by_key)
    assert by_distance.count_nonzero() == by_key.count_nonzero()
