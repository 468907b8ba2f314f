"""SpecAugment: off unless asked for, and hiding only valid frames, in whole spans, within the configured share."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hear_hf import HEARConfig
from hear_hf.masking_hear import span_mask
from helpers import noise, ragged_batch, samples_of, small_model

EVERYTHING = {"apply_spec_augment": True, "mask_time_prob": 0.3, "mask_time_length": 3, "mask_feature_prob": 0.2}


def spans(row: torch.Tensor) -> list[int]:
    """Lengths of the runs of True."""
    _, lengths = torch.unique_consecutive(row, return_counts=True)
    return lengths[int(not row[0]) :: 2].tolist()


@given(
    lengths=st.lists(st.integers(0, 60), min_size=1, max_size=4),
    mask_prob=st.floats(0, 1),
    mask_length=st.integers(1, 12),
    min_masks=st.integers(0, 3),
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_spans_are_whole_valid_and_within_their_bounds(lengths, mask_prob, mask_length, min_masks):
    valid = torch.arange(60) < torch.tensor(lengths)[:, None]
    hidden = span_mask(valid, mask_prob, mask_length, min_masks)
    assert hidden.shape == valid.shape and hidden.dtype == torch.bool
    assert not (hidden & ~valid).any()
    for row, length in zip(hidden, lengths, strict=True):
        assert all(span >= mask_length for span in spans(row))
        assert row.sum() <= max(mask_prob * length + mask_length, min_masks * mask_length)
        if min_masks > 0 and length >= mask_length:
            assert row.sum() >= mask_length


def test_the_least_number_of_spans_is_kept():
    hidden = span_mask(torch.ones(200, 400, dtype=torch.bool), 0.0, mask_length=1, min_masks=5)
    assert (hidden.sum(1) == 5).all()


def test_the_mean_share_is_what_was_asked_for_where_spans_cannot_overlap():
    hidden = span_mask(torch.ones(4000, 37, dtype=torch.bool), 0.3, mask_length=1)
    assert abs(hidden.float().mean() - 0.3) < 0.005


def test_every_position_is_as_likely_to_start_a_span():
    hidden = span_mask(torch.ones(20_000, 10, dtype=torch.bool), 0.1, mask_length=1)
    torch.testing.assert_close(hidden.float().mean(0), torch.full((10,), 0.1), rtol=0, atol=0.012)


def test_nothing_is_hidden_without_a_share_or_where_no_span_fits():
    assert not span_mask(torch.ones(3, 50, dtype=torch.bool), 0.0, mask_length=5).any()
    assert not span_mask(torch.ones(3, 4, dtype=torch.bool), 1.0, mask_length=5, min_masks=2).any()


def test_rows_draw_their_own_spans():
    hidden = span_mask(torch.ones(2, 300, dtype=torch.bool), 0.3, mask_length=5)
    assert not torch.equal(*hidden)


def test_it_is_off_by_default(model):
    assert HEARConfig().apply_spec_augment is False
    model.config.mask_time_prob = model.config.mask_feature_prob = 0.9
    masks = model.train().hear.frame_masks(None, None, batch_size=2, num_frames=50)
    assert masks.mask_time_indices is None and masks.mask_feature_indices is None


def test_nothing_is_hidden_in_eval_mode():
    augmented, plain = small_model(**EVERYTHING), small_model()
    waveform = noise(samples_of(60))[None]
    assert torch.equal(augmented(waveform).logits, plain(waveform).logits)


def test_only_valid_frames_are_hidden_and_the_bounds_hold():
    model = small_model(**EVERYTHING).train()
    valid = torch.arange(80) < torch.tensor([[80], [30], [2]])
    for _ in range(20):
        hidden = model.hear.frame_masks(valid, None, 3, 80).mask_time_indices
        assert not (hidden & ~valid).any() and hidden[:2].any(1).all() and not hidden[2].any()
        assert (hidden.sum(1) <= 0.3 * valid.sum(1) + 3).all()


def test_hidden_frames_and_features_are_zero_in_front_of_the_layers():
    model = small_model(**EVERYTHING | {"mask_feature_min_masks": 1}).train()
    outputs = model.hear(*ragged_batch([noise(samples_of(n)) for n in (30, 20)]), output_hidden_states=True)
    first = outputs.hidden_states[0]
    is_frame_hidden = (first == 0).all(-1) & outputs.frame_mask
    is_feature_hidden = (first == 0).all(1)
    assert 3 <= is_frame_hidden[0].sum() <= 12 and 3 <= is_frame_hidden[1].sum() <= 9
    assert (10 <= is_feature_hidden.sum(1)).all() and not is_feature_hidden.all(1).any()


def test_one_frame_is_hidden_in_both_windows_that_hold_it():
    model = small_model(**EVERYTHING | {"mask_feature_prob": 0.0}).train()
    masks, layer = [], model.hear.acoustic_model.layers[0]
    layer.register_forward_pre_hook(lambda _, arguments: masks.append((arguments[0] == 0).all(-1)))
    for _ in range(10):
        model.hear(noise(samples_of(54))[None])
    first, second = torch.cat(masks).unflatten(0, (-1, 2)).unbind(1)  # each forward's two windows
    assert torch.equal(first[:, 24:], second[:, :6]) and first[:, 24:].any()


def test_a_given_mask_takes_the_place_of_the_drawn_one():
    model = small_model(**EVERYTHING).train()
    given_mask = torch.arange(50)[None] == 7
    assert torch.equal(model.hear.frame_masks(None, given_mask, 1, 50).mask_time_indices, given_mask)


@pytest.mark.parametrize("num_samples", [201, 500, 1000, 3000])
def test_short_clips_train(num_samples):
    model = small_model(**EVERYTHING | {"mask_time_length": 10}).train()
    loss = model(noise(num_samples).repeat(2, 1), labels=torch.tensor([0, 1])).loss
    loss.backward()
    assert loss.isfinite()


def test_masking_follows_the_seed():
    model = small_model(**EVERYTHING).train()
    draws = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        draws.append(model.hear.frame_masks(None, None, 2, 100).mask_time_indices)
    assert torch.equal(draws[0], draws[1]) and not torch.equal(draws[0], draws[2])
