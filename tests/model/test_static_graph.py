"""The classifier for clips of one length beside the model itself."""

import pytest
import torch

from hear_hf import HEARConfig, HEARForAudioFrameClassification
from hear_hf.static_graph import StaticClassifier
from helpers import SMALL, linear_model, noise, samples_of, small_model


def assert_equal(model, num_samples):
    clip = noise(num_samples, seed=3)[None]
    with torch.no_grad():
        static, outputs = StaticClassifier(model, num_samples)(clip), model(clip)
    if isinstance(static, tuple):
        torch.testing.assert_close(static, (outputs.logits, outputs.clip_logits), rtol=1e-5, atol=1e-5)
    else:
        torch.testing.assert_close(static, outputs.logits, rtol=1e-5, atol=1e-5)


# Windows start every 24 frames; T is odd or even, and the last samples fill a hop or not.
@pytest.mark.parametrize("num_frames", [2, 29, 30, 31, 54, 55, 79, 149])
@pytest.mark.parametrize("extra", [0, 170], ids="{} samples more".format)
def test_it_is_the_model_at_every_length(num_frames, extra):
    assert_equal(small_model(), samples_of(num_frames) + extra)


@pytest.mark.parametrize("window_overlap", [0, 20], ids="overlap of {}".format)
def test_it_is_the_model_whatever_its_windows_overlap(window_overlap):
    assert_equal(small_model(window_overlap=window_overlap), 30_000)


# A rate whose half is in the spectrum, one that 16 kHz does not divide, and a window of an odd number of samples.
@pytest.mark.parametrize("sampling_rate", [32_000, 44_000, 16_200])
def test_it_is_the_model_at_other_rates(sampling_rate):
    assert_equal(small_model(sampling_rate=sampling_rate, n_fft=2048), sampling_rate + 100)


@pytest.mark.parametrize("frame_pooling", ["max", "linear_softmax"])
def test_of_a_model_of_frames_it_gives_both_logits(frame_pooling):
    config = HEARConfig(**SMALL, frame_pooling=frame_pooling)
    assert_equal(HEARForAudioFrameClassification(config).eval(), 16_000)


def test_a_linear_head_stays_one():
    assert_equal(linear_model(), 16_000)


def test_the_model_stays_as_it_was():
    model, clip = small_model(), noise(16_000)[None]
    with torch.no_grad():
        before = model(clip).logits
        StaticClassifier(model, 16_000)(clip)
        assert torch.equal(model(clip).logits, before)


def test_silence_gives_finite_logits():
    model, clip = small_model(), torch.zeros(1, 16_000)
    with torch.no_grad():
        torch.testing.assert_close(StaticClassifier(model, 16_000)(clip), model(clip).logits, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("num_samples", [399, 48_001])
def test_a_length_without_a_window_or_of_several_segments_is_refused(num_samples):
    with pytest.raises(ValueError, match="must hold 400 to 48000 samples, at most 3 s"):
        StaticClassifier(small_model(), num_samples)
