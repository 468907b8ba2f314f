"""Clips of many windows and segments: computed group by group, they are what a single pass would give."""

import pytest
import torch

from hear_hf import acoustic_model_hear, spectrogram_hear
from hear_hf.acoustic_model_hear import FrameMasks
from hear_hf.frames_hear import frame_mask
from helpers import noise, ragged_batch, samples_of, small_model

CLIPS = [noise(samples_of(400)), noise(samples_of(403) + 100), noise(samples_of(35))]


@pytest.mark.parametrize("windows_per_pass", [1, 2, 5, 17])
def test_the_number_of_windows_per_pass_does_not_matter(model, monkeypatch, windows_per_pass):
    batch = ragged_batch(CLIPS)
    monkeypatch.setattr(acoustic_model_hear, "WINDOWS_PER_PASS", 1000)
    single_pass = model(*batch).logits
    monkeypatch.setattr(acoustic_model_hear, "WINDOWS_PER_PASS", windows_per_pass)
    torch.testing.assert_close(model(*batch).logits, single_pass, rtol=0, atol=1e-5)


@pytest.mark.parametrize("frames_per_segment", [100, 101, 300, 799])
@torch.no_grad()
def test_the_front_end_s_segments_do_not_matter(model, monkeypatch, frames_per_segment):
    batch = ragged_batch(CLIPS)
    single_pass = model(*batch, output_hidden_states=True)
    monkeypatch.setattr(spectrogram_hear, "FRAMES_AT_ONCE", 0)
    monkeypatch.setattr(spectrogram_hear, "FRAMES_PER_SEGMENT", frames_per_segment)
    outputs = model(*batch, output_hidden_states=True)
    torch.testing.assert_close(outputs.logits, single_pass.logits, rtol=0, atol=1e-5)
    torch.testing.assert_close(outputs.hidden_states, single_pass.hidden_states, rtol=0, atol=5e-5)


@torch.no_grad()
def test_the_task_model_reads_a_long_clip_segment_by_segment(model):
    waveform = noise(samples_of(340))[None]
    outputs = model.hear(waveform)
    _, log_power, _ = model.hear.spectrogram(waveform)
    for start, stop in [(0, 150), (150, 300), (300, 340)]:
        acoustic = outputs.acoustic_hidden_states[:, start:stop]
        mixed = model.hear.spectrogram_mixture(acoustic, log_power.frames(2 * start, 2 * stop))
        segment, _ = model.hear.task_model(mixed, None)
        torch.testing.assert_close(outputs.last_hidden_state[:, start:stop], segment, rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_head_pools_over_all_segments(model):
    outputs = model.hear(noise(samples_of(340))[None])
    frames = outputs.last_hidden_state[0]
    expected = torch.cat([frames.mean(0), frames.amax(0), (frames.var(0) + 1e-8).sqrt()])
    torch.testing.assert_close(outputs.pooler_output[0], expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_acoustic_model_is_local(model):
    log_mel, other = torch.randn(1, 800, 128), torch.randn(1, 800, 128)
    other[:, :400] = log_mel[:, :400]
    ours, theirs = (model.hear.acoustic_model(x).last_hidden_state[0] for x in (log_mel, other))
    torch.testing.assert_close(ours[:170], theirs[:170], rtol=0, atol=1e-5)
    assert (ours[200:] - theirs[200:]).abs().min(0).values.max() > 0.01


@pytest.mark.parametrize("num_frames", [31, 53, 54, 55, 78, 400])
def test_windows_cover_every_frame_and_each_brings_a_new_one(model, num_frames):
    seen = set()
    for group in model.hear.acoustic_model.window_groups(num_frames):
        for window in group.frames(24, torch.device("cpu")).tolist():
            assert set(window) - seen and len(window) <= 30
            seen |= set(window)
    assert seen == set(range(num_frames))


@torch.no_grad()
def test_padding_by_whole_windows_leaves_no_trace(model):
    log_mel = torch.randn(1, 140, 128)
    padded = torch.cat([log_mel, torch.full((1, 300, 128), 1e4)], dim=1)
    masks = FrameMasks(frame_mask(torch.tensor([70]), 220))
    expected = model.hear.acoustic_model(log_mel).last_hidden_state
    hidden_states = model.hear.acoustic_model(padded, masks).last_hidden_state[:, :70]
    torch.testing.assert_close(hidden_states, expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_hidden_states_that_the_classifier_does_not_want_are_overwritten_and_others_kept():
    model = small_model(task_hidden_size=48)  # as wide as the acoustic model
    batch = ragged_batch(CLIPS)
    expected = model.hear(*batch, output_hidden_states=True)
    outputs = model.hear(*batch, _in_place=True)
    assert outputs.acoustic_hidden_states is None
    torch.testing.assert_close(outputs.last_hidden_state, expected.last_hidden_state, rtol=0, atol=1e-5)
    kept = model.hear(*batch, output_hidden_states=True, _in_place=True).hidden_states
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(kept, expected.hidden_states, strict=True))


def test_a_long_clip_trains(model):
    model.train()(noise(samples_of(340))[None], labels=torch.tensor([1])).loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
