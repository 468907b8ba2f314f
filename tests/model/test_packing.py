"""Inference on a CPU, which packs windows into rows without padding, against the padded windows of training."""

import pytest
import torch

from hear_hf import acoustic_model_hear, attention_hear
from helpers import noise, ragged_batch, samples_of

NUM_FRAMES = (3, 30, 31, 55, 103)  # 1, 1, 2, 3 and 5 windows of 30, of which neighbours share 6
CLIPS = [noise(samples_of(num_frames)) for num_frames in NUM_FRAMES]


def frames_read(model, *batch) -> int:
    """How many frames the first acoustic layer reads in all, padding included."""
    counts = []
    layer = model.hear.acoustic_model.layers[0]
    with layer.register_forward_pre_hook(lambda _, inputs: counts.append(inputs[0].shape[:2].numel())):
        model(*batch)
    return sum(counts)


@pytest.mark.parametrize("clips", [CLIPS, CLIPS[:2], CLIPS[3:4], CLIPS[4:] * 3], ids=["all", "short", "one", "equal"])
def test_packed_windows_give_what_padded_ones_give(model, clips):
    batch = ragged_batch(clips)
    padded = model.hear(*batch, output_hidden_states=True)
    with torch.no_grad():
        packed = model.hear(*batch, output_hidden_states=True)
    torch.testing.assert_close(packed.pooler_output, padded.pooler_output, rtol=0, atol=1e-5)
    for ours, theirs in zip(packed.hidden_states, padded.hidden_states, strict=True):
        valid = padded.frame_mask
        torch.testing.assert_close(ours[valid], theirs[valid], rtol=0, atol=5e-5)


@pytest.mark.parametrize(
    "module, name, values",
    [(acoustic_model_hear, "PACKED_FRAMES", (1, 60, 10_000)), (attention_hear, "PACKED_QUERIES", (1, 7, 30))],
)
@torch.no_grad()
def test_how_much_is_computed_at_once_does_not_matter(model, monkeypatch, module, name, values):
    batch = ragged_batch(CLIPS)
    expected = model(*batch).logits
    for value in values:
        monkeypatch.setattr(module, name, value)
        torch.testing.assert_close(model(*batch).logits, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_a_clip_costs_its_own_frames_and_those_that_its_windows_share(model):
    assert frames_read(model, *ragged_batch(CLIPS)) == sum(NUM_FRAMES) + 6 * (1 + 2 + 4)


@torch.no_grad()
def test_padding_becomes_zero(model):
    outputs = model.hear(*ragged_batch(CLIPS))
    assert outputs.acoustic_hidden_states[outputs.frame_mask].any(-1).all()
    assert not outputs.acoustic_hidden_states[~outputs.frame_mask].any()


@torch.no_grad()
def test_attention_probabilities_do_not_change_the_result(model):
    batch = ragged_batch(CLIPS)
    expected, outputs = model(*batch), model(*batch, output_attentions=True)
    torch.testing.assert_close(outputs.logits, expected.logits, rtol=0, atol=1e-5)


@torch.no_grad()
def test_hidden_frames_stay_hidden(model):
    waveform, hidden = CLIPS[4][None], torch.arange(103)[None] % 9 < 4
    states = model.hear(waveform, mask_time_indices=hidden, output_hidden_states=True).hidden_states[0]
    assert not states[hidden].any() and states[~hidden].any(-1).all()
