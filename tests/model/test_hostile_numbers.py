"""Numbers and masks that would make a model answer wrongly, or not at all: each is refused by what it is, or right."""

import numpy as np
import pytest
import torch

from hear_hf import HEARFeatureExtractor, HEARModel, HEARStream
from hear_hf.events import find_events
from helpers import noise

RATE = 16_000


@pytest.mark.parametrize("peak", [1e300, -1e300, 1e38, -1e30])
def test_a_float_whose_power_no_float32_holds_is_refused(peak):
    clip = noise(1000).double().numpy()
    clip[500] = peak
    with pytest.raises(
        ValueError, match=r"Clip 0 must hold floats in \[-1, 1\], found: a peak of 1e\+.*Decode it again"
    ):
        HEARFeatureExtractor()(clip, sampling_rate=RATE)


@torch.no_grad()
def test_the_largest_samples_that_are_taken_have_finite_logits(model):
    clip = np.float32(2**31) * np.sign(noise(RATE).numpy())
    inputs = HEARFeatureExtractor()(clip, sampling_rate=RATE, return_tensors="pt")
    assert model(**inputs).logits.isfinite().all()


def test_a_stream_goes_on_after_a_block_of_1e300(model):
    stream, clean = HEARStream(model, RATE), HEARStream(model, RATE)
    for push in (stream.push, clean.push):
        push(noise(5000))
    with pytest.raises(ValueError, match="The block must hold floats"):
        stream.push(np.full(100, 1e300))
    assert torch.equal(stream.finish().logits, clean.finish().logits)


@pytest.mark.parametrize("place", [(0, 400, 500), (1, 1, 1599)])
@torch.no_grad()
def test_the_samples_in_a_hole_of_a_mask_are_silence_and_never_read(model, place):
    row, start, stop = place
    waveform, mask = torch.stack([noise(1600), noise(1600, 1)]), torch.ones(2, 1600, dtype=torch.long)
    mask[row, start:stop] = 0
    outputs = []
    for hidden in (0.0, 1e4, float("nan"), waveform[row][mask[row] == 1].mean().item()):
        waveform[row, start:stop] = hidden
        outputs.append(model(waveform, mask).logits)
    outputs.append(model(waveform).logits)  # the last one fills the hole with the clip's mean
    for logits in outputs[1:]:
        torch.testing.assert_close(logits, outputs[0], rtol=0, atol=1e-5)


@pytest.mark.parametrize("mask", [None, torch.ones(0, 1600)])
@pytest.mark.parametrize("kind", ["classifier", "model"])
def test_a_batch_of_no_clips_is_refused(model, kind, mask):
    called = model if kind == "classifier" else HEARModel(model.config).eval()
    with pytest.raises(ValueError, match="`input_values` must hold at least one clip, found: none"):
        called(torch.zeros(0, 1600), mask)


@torch.no_grad()
def test_float16_attentions_stay_finite_where_a_clip_has_no_valid_frame(model):
    task_model = model.hear.task_model
    query, key, value = task_model.qkv_proj.bias.fill_(0).chunk(3)
    query.fill_(10), key.fill_(-10), value.fill_(1)  # their product and the lowest float16 sum to -inf
    task_model.qkv_proj.weight.fill_(0)
    states, frame_mask = torch.ones(1, 3, model.config.task_hidden_size), torch.zeros(1, 3, dtype=torch.bool)
    _, weights = task_model.half().attend(states.half(), frame_mask, output_attentions=True)
    torch.testing.assert_close(weights.float(), torch.full_like(weights, 1 / 3).float(), rtol=0, atol=1e-3)


@pytest.mark.parametrize("options", [{"window_seconds": float("nan")}, {"hop_seconds": float("inf")}])
def test_a_length_that_is_no_number_of_seconds_is_refused(model, options):
    with pytest.raises(ValueError, match="Lengths must be finite, found"):
        HEARStream(model, 16_000, **options)


@pytest.mark.parametrize("rate", ["16000", 16_000.5, None])
def test_a_rate_that_is_no_whole_number_is_refused(rate):
    with pytest.raises(ValueError, match=f"must be from 16000 to 768000 Hz, found: {rate!r}"):
        HEARFeatureExtractor(sampling_rate=rate)


@pytest.mark.parametrize("median_frames", [0, 2, -1])
def test_a_median_of_an_even_number_of_frames_is_refused(median_frames):
    with pytest.raises(ValueError, match=f"must be odd and positive, found: {median_frames}"):
        find_events(np.ones((5, 1)), ["dog"], [0.5], median_frames)
