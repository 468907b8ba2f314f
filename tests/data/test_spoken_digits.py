"""The embedded spoken digits: what they contain, that they repeat, and that a model could learn them."""

import io
import sys

import numpy as np
import pytest
import soundfile
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from hear_hf.data import spoken_digits as spoken_digits_module
from hear_hf.data.spoken_digits import DIGITS, FEMALE_VOICES, MALE_VOICES, spoken_digits

NUM_VOICES = {"train": 30, "validation": 4, "test": 6}


def variants(dataset):
    return {voice.partition("+")[2] for voice in dataset["voice"]}


def encoded(splits):
    return [clip["bytes"] for dataset in splits.values() for clip in dataset["audio"]]


def decoded(dataset):
    return [soundfile.read(io.BytesIO(clip["bytes"]), dtype="float32")[0] for clip in dataset["audio"]]


@pytest.fixture(scope="module")
def digits():
    pytest.importorskip("espeakng_loader", reason="the spoken digits need the extra `demo` (espeakng-loader)")
    return spoken_digits(seed=0, num_takes=1)


def test_each_voice_says_each_digit_once_a_take(digits):
    for split, num_voices in NUM_VOICES.items():
        assert np.bincount(digits[split]["label"]).tolist() == [num_voices] * len(DIGITS)
    assert digits["train"].features["label"].names == list(DIGITS)


def test_no_voice_is_in_two_splits(digits):
    voices = {split: variants(dataset) for split, dataset in digits.items()}
    assert {split: len(names) for split, names in voices.items()} == NUM_VOICES
    assert len(set.union(*voices.values())) == sum(NUM_VOICES.values())


def test_each_split_has_female_and_male_voices(digits):
    for dataset in digits.values():
        assert variants(dataset) & set(FEMALE_VOICES) and variants(dataset) & set(MALE_VOICES)


def test_clips_are_mono_16_bit_wav_at_16_khz(digits):
    for clip in digits["validation"]["audio"]:
        info = soundfile.info(io.BytesIO(clip["bytes"]))
        assert (info.samplerate, info.channels, info.format, info.subtype) == (16000, 1, "WAV", "PCM_16")


def test_clips_are_short_loud_enough_and_not_clipped(digits):
    for samples in decoded(digits["validation"]):
        assert 0.1 < len(samples) / 16000 < 2
        assert 0.19 < np.abs(samples).max() < 0.91


def test_same_seed_gives_the_same_bytes_in_the_same_process(digits):
    assert encoded(spoken_digits(seed=0, num_takes=1)) == encoded(digits)


def test_another_seed_gives_other_test_voices(digits):
    assert variants(spoken_digits(seed=1, num_takes=1)["test"]) != variants(digits["test"])


def test_takes_differ():
    pytest.importorskip("espeakng_loader", reason="the spoken digits need the extra `demo` (espeakng-loader)")
    clips = encoded(spoken_digits(num_takes=2))
    assert len(set(clips)) == len(clips) == 2 * 10 * sum(NUM_VOICES.values())


def test_digits_of_unheard_voices_resemble_those_of_the_training_voices(digits):
    mel_filters = mel_filter_bank(257, 32, 100, 7600, 16000, norm=None, mel_scale="htk")
    window = window_function(400, "hann")

    def picture(samples):
        log_mel = spectrogram(samples, window, 400, 160, 512, power=2.0, mel_filters=mel_filters, log_mel="log")
        frames = np.linspace(0, log_mel.shape[1] - 1, 12).astype(int)
        return (log_mel - log_mel.mean(axis=1, keepdims=True))[:, frames].ravel()

    pictures = {split: np.stack([picture(clip) for clip in decoded(digits[split])]) for split in ("train", "test")}
    labels = {split: np.array(digits[split]["label"]) for split in ("train", "test")}
    centroids = np.stack([pictures["train"][labels["train"] == digit].mean(axis=0) for digit in range(10)])
    distances = ((pictures["test"][:, None] - centroids) ** 2).sum(axis=-1)
    assert (distances.argmin(axis=1) == labels["test"]).mean() > 0.6  # chance is 0.1


def test_nothing_is_printed_and_torchcodec_is_not_imported(digits, capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "torchcodec", None)
    spoken_digits(num_takes=1)
    assert capfd.readouterr().out == ""


def test_an_unknown_variant_is_an_error(digits):
    with spoken_digits_module._Speaker(seed=0) as speaker, pytest.raises(RuntimeError, match="the variant 'nobody'"):
        speaker.say("one", "en", "nobody", rate=175, pitch=50, pitch_range=50)


def test_a_missing_package_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(ImportError, match=r'pip install "hear_hf\[demo\]"'):
        spoken_digits()
