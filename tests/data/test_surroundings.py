"""Clips within other sounds, and varied speed and noise: against plain arithmetic on tones."""

import numpy as np
import pytest
import torch

from hear_hf.data.augmentation import AugmentationArguments, augment, noise_below
from hear_hf.data.surroundings import place, root_mean_square

RATE = 16_000
TONE = np.sin(2 * np.pi * 440 * np.arange(RATE) / RATE).astype(np.float32)


def test_a_clip_lies_anywhere_in_its_background_and_above_it():
    clip, background = TONE[:1000], np.random.default_rng(0).normal(size=700).astype(np.float32)
    starts = set()
    for seed in range(8):
        torch.manual_seed(seed)
        mixture = place(clip, background, 4000, 20.0)
        rest = mixture - np.pad(clip, (start := np.correlate(mixture, clip).argmax(), 3000 - start))
        starts.add(int(start))
        below = 20 * np.log10(root_mean_square(clip) / root_mean_square(rest))
        assert len(mixture) == 4000 and -0.5 < below < 20.5 and mixture.dtype == np.float32
    assert len(starts) > 4


def test_a_random_part_of_a_longer_clip_is_heard():
    mixture = place(np.arange(1.0, 5001.0, dtype=np.float32), np.zeros(10, np.float32), 1000, 0.0)
    assert len(mixture) == 1000 and np.allclose(np.diff(mixture), 1)


def test_silence_as_a_background_stays_silence():
    assert np.array_equal(place(TONE, np.zeros(5, np.float32), RATE, 0.0), TONE)


def test_another_speed_changes_length_and_pitch_alike():
    torch.manual_seed(0)
    lengths = {len(augment(TONE, RATE, AugmentationArguments(random_speed=0.1))) for _ in range(20)}
    assert len(lengths) > 10 and RATE / 1.1 - 2 <= min(lengths) and max(lengths) <= RATE / 0.9 + 2
    varied = augment(TONE, RATE, AugmentationArguments(random_speed=0.1))
    peak = np.abs(np.fft.rfft(varied)).argmax() * RATE / len(varied)
    assert peak == pytest.approx(440 * RATE / len(varied), abs=2)


def test_a_clip_that_would_become_too_short_keeps_its_speed():
    for _ in range(20):
        assert len(augment(TONE[:201], RATE, AugmentationArguments(random_speed=0.5))) >= 201


@pytest.mark.parametrize("decibels", [0.0, 10.0, 30.0])
def test_noise_lies_so_far_below_the_clip(decibels):
    noise = noise_below(TONE, decibels)
    assert 20 * np.log10(root_mean_square(TONE) / root_mean_square(noise)) == pytest.approx(decibels, abs=0.3)
    assert augment(TONE, RATE, AugmentationArguments(random_noise_db=10.0)).dtype == np.float32


@pytest.mark.parametrize("speed", [-0.1, 1.0])
def test_an_impossible_speed_is_refused(speed):
    with pytest.raises(ValueError, match="`random_speed` must be at least 0 and below 1"):
        AugmentationArguments(random_speed=speed)
