"""Properties of the extractor, the model, the masks and the windows, on whatever clips hypothesis thinks of."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hear_hf import HEARFeatureExtractor
from hear_hf.frames_hear import num_encoder_frames
from helpers import noise, ragged_batch, small_model

MODEL = small_model()
SHORTEST, LONGEST = 201, 60_000  # samples; the small model's windows hold 9440, its task model's segments 48,000
SOUNDS = ("noise", "silence", "offset", "clipped", "clicks", "tone", "quiet")

lengths = st.integers(SHORTEST, 1_000) | st.integers(SHORTEST, LONGEST) | st.sampled_from([9_439, 9_440, 48_000])


def sound(kind: str, num_samples: int, seed: int) -> torch.Tensor:
    clip = noise(num_samples, seed)
    time = torch.arange(num_samples) / 16_000
    return {
        "noise": clip,
        "silence": torch.zeros(num_samples),
        "offset": 0.5 + clip,  # a fainter sound on it would be lost in the rounding of the samples
        "clipped": (50 * clip).clamp(-1, 1),
        "clicks": (time * 20 % 1 < 1e-3).float(),
        "tone": 0.5 * torch.sin(2 * torch.pi * (50 + 37 * (seed % 200)) * time),
        "quiet": 1e-6 * clip,
    }[kind]


clips = st.builds(sound, st.sampled_from(SOUNDS), lengths, st.integers(0, 1_000))


@settings(max_examples=60, deadline=None)
@given(st.lists(clips, min_size=1, max_size=4), st.sampled_from(["left", "right"]), st.sampled_from(["noise", 0, 1e9]))
@torch.no_grad()
def test_a_clip_has_the_same_logits_alone_and_beside_any_others(batch, side, fill):
    logits = MODEL(*ragged_batch(batch, side=side, fill=fill)).logits
    expected = torch.cat([MODEL(clip[None]).logits for clip in batch])
    assert torch.isfinite(logits).all()
    torch.testing.assert_close(logits, expected, rtol=0, atol=2e-4)


@settings(max_examples=40, deadline=None)
@given(clips, st.integers(0, 5_000), st.integers(1, 50))
@torch.no_grad()
def test_a_mask_may_have_holes_and_rows_without_a_sample(clip, start, length):
    mask = torch.ones(2, len(clip), dtype=torch.long)
    mask[0, start : start + length] = 0
    mask[1] = 0
    outputs = MODEL(clip.expand(2, -1), mask)
    assert torch.isfinite(outputs.logits).all()


@settings(max_examples=60, deadline=None)
@given(lengths)
@torch.no_grad()
def test_there_is_one_frame_for_each_20_ms_begun(num_samples):
    outputs = MODEL.hear(noise(num_samples)[None])
    assert outputs.last_hidden_state.shape[1] == num_encoder_frames(num_samples, 160) == (1 + num_samples // 160) // 2
    assert torch.isfinite(outputs.last_hidden_state).all()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.integers(SHORTEST, 3_000), min_size=1, max_size=5),
    st.sampled_from(["float16", "float32", "float64", "int16", "int32"]),
    st.sampled_from(["array", "list", "tensor", "strided", "reversed"]),
    st.integers(0, 1_000),
)
def test_clips_of_any_type_and_layout_are_padded_and_masked(counts, dtype, layout, seed):
    rng = np.random.default_rng(seed)
    samples = [rng.uniform(-1, 1, count) for count in counts]
    full_scale = 1.0 if dtype.startswith("float") else -float(np.iinfo(dtype).min)
    stored = [(clip * (full_scale if full_scale == 1.0 else full_scale - 1)).astype(dtype) for clip in samples]
    expected = [clip.astype(np.float64) / full_scale for clip in stored]
    if layout == "list":
        stored = [clip if full_scale > 1 else clip.tolist() for clip in stored]  # a list of integers has no full scale
    elif layout == "tensor":
        stored = [torch.from_numpy(clip) for clip in stored]
    elif layout == "strided":
        stored = [np.repeat(clip, 3)[::3] for clip in stored]
    elif layout == "reversed":
        stored = [np.ascontiguousarray(clip[::-1])[::-1] for clip in stored]
    batch = HEARFeatureExtractor()(stored, sampling_rate=16_000, padding=True, return_tensors="np")
    assert batch["input_values"].shape == batch["attention_mask"].shape == (len(counts), max(counts))
    for row, mask, clip in zip(batch["input_values"], batch["attention_mask"], expected, strict=True):
        assert mask.sum() == len(clip) and mask[: len(clip)].all() and not row[len(clip) :].any()
        np.testing.assert_allclose(row[: len(clip)], clip, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, SHORTEST - 1) | st.just(5_000), st.sampled_from([None, np.nan, np.inf, -np.inf]))
def test_too_short_clips_and_values_that_are_no_sound_are_refused(num_samples, value):
    clip = np.zeros(num_samples, np.float32)
    if value is not None and num_samples:
        clip[num_samples // 2] = value
    if value is None and num_samples >= SHORTEST:
        assert len(HEARFeatureExtractor()(clip, sampling_rate=16_000)["input_values"][0]) == num_samples
        return
    with pytest.raises(ValueError, match="(?s)must .*found"):
        HEARFeatureExtractor()(clip, sampling_rate=16_000)


@pytest.mark.slow
@torch.no_grad()
def test_ten_minutes_are_finite_beside_the_shortest_clip():
    batch = [noise(600 * 16_000), noise(SHORTEST)]
    logits = MODEL(*ragged_batch(batch)).logits
    torch.testing.assert_close(logits, torch.cat([MODEL(clip[None]).logits for clip in batch]), rtol=0, atol=2e-4)
