"""A clip's result is the same alone and in any batch, whatever the padding holds and on whichever side it is."""

import pytest
import torch

from hear_hf.acoustic_model_hear import FrameMasks
from helpers import noise, ragged_batch, samples_of, small_model

# Windows of 30 frames start every 24, segments of the task model every 150: each first and last frame of both.
BOUNDARIES = [1, 2, 29, 30, 31, 53, 54, 55, 78, 79, 149, 150, 151, 300, 301]


@torch.no_grad()
def alone_and_together(model, clips, **padding):
    """Outputs of each clip by itself, and the rows of one ragged batch cut to their own frames."""
    waveform, mask = ragged_batch(clips, **padding)
    batch = model(waveform, mask, output_hidden_states=True)
    for row, clip in enumerate(clips):
        alone = model(clip[None], output_hidden_states=True)
        num_frames = alone.hidden_states[-1].shape[1]
        together = [state[row, :num_frames] for state in batch.hidden_states]
        yield (alone.logits[0], *(state[0] for state in alone.hidden_states)), (batch.logits[row], *together)


def assert_same(model, clips, **padding):
    for (logits, *states), (batch_logits, *batch_states) in alone_and_together(model, clips, **padding):
        torch.testing.assert_close(batch_logits, logits, rtol=0, atol=1e-5)
        torch.testing.assert_close(batch_states, states, rtol=0, atol=5e-5)  # values up to 10


def test_different_clips_differ_so_that_the_other_tests_can_fail(model):
    logits = torch.stack([alone[0] for alone, _ in alone_and_together(model, [noise(9000, i) for i in range(4)])])
    assert logits.std(0).min() > 0.01


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("fill", ["noise", float("nan"), float("inf")])
def test_padding_is_never_read(model, side, fill):
    assert_same(model, [noise(length, length) for length in (201, 1600, 5000, 16_001, 40_000)], side=side, fill=fill)


@pytest.mark.parametrize("extra", [0, 159, 160, 319], ids=lambda extra: f"{extra} samples more")
def test_clips_at_every_window_and_segment_boundary_agree(model, extra):
    assert_same(model, [noise(max(201, samples_of(frames) + extra), frames) for frames in BOUNDARIES])


@pytest.mark.parametrize("fill", ["noise", float("nan")])
def test_silent_and_constant_clips_agree(model, fill):
    clips = [torch.zeros(3000), torch.full((9000,), 0.5), noise(20_000), noise(12_000) + 100, 1e-6 * noise(7000)]
    assert_same(model, clips, fill=fill)


@pytest.mark.parametrize("num_samples", [0, 1, 150, 200])
def test_a_row_too_short_to_be_a_clip_is_finite_and_disturbs_no_other(model, num_samples):
    waveform, mask = ragged_batch([noise(9000), noise(30_000), noise(300)])
    mask[2, num_samples:] = 0
    logits = model(waveform, mask).logits
    assert logits.isfinite().all()
    torch.testing.assert_close(logits[:2], model(waveform[:2], mask[:2]).logits, rtol=0, atol=1e-5)


def test_pooled_statistics_and_frame_mask_agree(model):
    clips = [noise(length, length) for length in (700, 9000, 30_000)]
    waveform, mask = ragged_batch(clips)
    batch = model.hear(waveform, mask)
    for row, clip in enumerate(clips):
        alone = model.hear(clip[None])
        torch.testing.assert_close(batch.pooler_output[row], alone.pooler_output[0], rtol=0, atol=1e-5)
        assert batch.frame_mask[row].sum() == alone.frame_mask.sum() == alone.last_hidden_state.shape[1]


def test_a_mask_of_ones_changes_nothing(model):
    waveform = noise(40_000)[None]
    expected = model(waveform).logits
    for dtype in (torch.long, torch.int32, torch.bool, torch.float32):
        logits = model(waveform, torch.ones_like(waveform, dtype=dtype)).logits
        torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


def test_order_of_the_clips_does_not_matter(model):
    waveform, mask = ragged_batch([noise(length, length) for length in (700, 9000, 30_000)])
    logits = model(waveform, mask).logits
    torch.testing.assert_close(model(waveform.flip(0), mask.flip(0)).logits.flip(0), logits, rtol=0, atol=1e-5)


def test_clips_at_32_khz_agree():
    model = small_model(sampling_rate=32_000, n_fft=2048)
    clips = [noise(length, length) for length in (401, 3200, 30_001, 31_999)]
    assert_same(model, clips, fill=float("nan"))
    assert_same(model, clips, side="left")


@pytest.mark.slow
def test_the_published_size_agrees_from_a_tenth_of_a_second_to_70_seconds(full_model):
    for seconds in [(0.1, 70), (1, 6.1, 11, 31)]:
        assert_same(full_model, [noise(int(16_000 * s), int(s)) for s in seconds])


def test_a_window_that_brings_a_clip_no_new_frame_is_skipped(model):
    model = model.hear.acoustic_model
    lengths, log_mel = torch.tensor([80, 54, 55, 31, 30, 7]), torch.randn(6, 160, 128)
    valid = torch.arange(80) < lengths[:, None]
    merged = model(log_mel, FrameMasks(valid)).last_hidden_state
    for row, length in enumerate(lengths):
        expected = merged_by_hand(model, log_mel[row], int(length))
        torch.testing.assert_close(merged[row, :length], expected, rtol=0, atol=1e-5)


def merged_by_hand(model, log_mel, num_frames, length=30, overlap=6):
    """The original's merge of one clip: whole zero-padded windows, raised-cosine ramps, a division by their sum."""
    ramp = (0.5 - 0.5 * torch.cos(torch.pi * torch.linspace(0, 1, overlap))).clamp(min=1e-3)
    weight = torch.cat([ramp, torch.ones(length - 2 * overlap), ramp.flip(0)])[:, None]
    total, weights = torch.zeros(num_frames + length, 48), torch.zeros(num_frames + length, 1)
    for start in range(0, max(1, num_frames - overlap), length - overlap):
        window = torch.zeros(1, 2 * length, 128)
        known = log_mel[2 * start : 2 * min(start + length, num_frames)]
        window[0, : len(known)] = known
        valid = torch.arange(length)[None] < len(known) // 2
        (state,), _ = model.encode_window(window, FrameMasks(valid), False, False)
        total[start : start + length] += weight * state[0]
        weights[start : start + length] += weight
    return (total / weights.clamp(min=1e-8))[:num_frames]
