"""HEARFeatureExtractor: calling habits and padding against Wav2Vec2's, PCM, and what every error says."""

import logging

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor, Wav2Vec2FeatureExtractor
from transformers.utils import logging as transformers_logging

from hear_hf import HEARFeatureExtractor
from hear_hf.feature_extraction_hear import logger
from helpers import noise

CLIPS = [noise(length, seed=length).numpy() for length in (1000, 250, 1601)]


@pytest.fixture
def extractor():
    return HEARFeatureExtractor()


@pytest.fixture
def wav2vec2():
    return Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True)


@pytest.mark.parametrize(
    "options",
    [
        {"padding": True},
        {"padding": "longest", "return_tensors": "pt"},
        {"padding": "longest", "pad_to_multiple_of": 512, "return_tensors": "np"},
        {"padding": "max_length", "max_length": 2000, "return_tensors": "pt"},
        {"padding": "max_length", "max_length": 800, "truncation": True, "return_tensors": "np"},
        {"padding": True, "max_length": 800, "truncation": True},
        {"padding": True, "max_length": 800, "truncation": True, "pad_to_multiple_of": 512},
        {"padding": True, "return_attention_mask": False, "return_tensors": "pt"},
        {"padding": False},
        {},
    ],
)
def test_padding_truncation_and_masks_are_wav2vec2_s(extractor, wav2vec2, options):
    ours, theirs = (extract(CLIPS, sampling_rate=16_000, **options) for extract in (extractor, wav2vec2))
    assert ours.keys() == theirs.keys()
    for key in theirs:
        if "return_tensors" in options:
            assert type(ours[key]) is type(theirs[key])
        for row, expected in zip(ours[key], theirs[key], strict=True):
            np.testing.assert_array_equal(row, expected)
            assert row.dtype == expected.dtype


def test_left_padding_is_wav2vec2_s(extractor, wav2vec2):
    extractor.padding_side = wav2vec2.padding_side = "left"
    ours, theirs = (f(CLIPS, sampling_rate=16_000, padding=True, return_tensors="np") for f in (extractor, wav2vec2))
    np.testing.assert_array_equal(ours.input_values, theirs.input_values)
    np.testing.assert_array_equal(ours.attention_mask, theirs.attention_mask)


@pytest.mark.parametrize("form", [np.asarray, torch.tensor, list, tuple, np.ndarray.tolist])
def test_one_clip_may_be_any_kind_of_sequence(extractor, form):
    features = extractor(form(CLIPS[0]), sampling_rate=16_000, return_tensors="np")
    np.testing.assert_array_equal(features.input_values, CLIPS[0][None])
    np.testing.assert_array_equal(features.attention_mask, np.ones((1, 1000)))


@pytest.mark.parametrize("form", [np.asarray, torch.tensor, list, np.ndarray.tolist])
def test_a_batch_may_be_a_list_of_any_of_them(extractor, form):
    features = extractor([form(clip) for clip in CLIPS], sampling_rate=16_000, padding=True, return_tensors="pt")
    for row, mask, clip in zip(features.input_values, features.attention_mask, CLIPS, strict=True):
        assert row.dtype == torch.float32 and mask.sum() == len(clip)
        np.testing.assert_array_equal(row[mask.bool()], clip)


@pytest.mark.parametrize("form", [np.stack, lambda clips: torch.tensor(np.stack(clips))])
def test_the_rows_of_a_two_dimensional_array_are_clips(extractor, form):
    features = extractor(form([CLIPS[0], CLIPS[0][::-1]]), sampling_rate=16_000, return_tensors="np")
    np.testing.assert_array_equal(features.input_values, [CLIPS[0], CLIPS[0][::-1]])


def test_a_tensor_that_requires_gradients_is_read(extractor):
    clip = torch.tensor(CLIPS[0], requires_grad=True)
    np.testing.assert_array_equal(extractor(clip, sampling_rate=16_000).input_values[0], CLIPS[0])


@pytest.mark.parametrize(("dtype", "full_scale"), [(np.int16, 2**15), (np.int32, 2**31)])
@pytest.mark.parametrize("form", [np.asarray, torch.tensor])
def test_pcm_is_scaled_to_one(extractor, dtype, full_scale, form):
    pcm = np.full(400, full_scale // 4, dtype)
    pcm[0] = -full_scale
    (clip,) = extractor(form(pcm), sampling_rate=16_000).input_values
    assert clip.dtype == np.float32
    np.testing.assert_array_equal(clip, [-1.0] + [0.25] * 399)


def test_pcm_may_have_either_byte_order(extractor):
    pcm = np.round(CLIPS[0] * 2**15).clip(-(2**15), 2**15 - 1).astype(np.int16)
    for dtype in ("<i2", ">i2"):
        (clip,) = extractor(pcm.astype(dtype), sampling_rate=16_000).input_values
        np.testing.assert_array_equal(clip, pcm / np.float32(2**15))
        assert clip.dtype == np.float32


def test_a_bfloat16_tensor_is_read(extractor):
    clip = torch.tensor(CLIPS[0]).bfloat16()
    for form in (clip, [clip], clip[None]):
        np.testing.assert_array_equal(extractor(form, sampling_rate=16_000).input_values[0], clip.float())


@pytest.mark.parametrize("key", ["array", "raw"])
def test_clips_may_be_dictionaries_as_for_a_pipeline(extractor, key):
    batch = [{key: clip, "sampling_rate": 16_000, "path": None} for clip in CLIPS]
    expected = extractor(CLIPS, sampling_rate=16_000).input_values
    for clip, row in zip(extractor(batch).input_values, expected, strict=True):
        np.testing.assert_array_equal(clip, row)
    np.testing.assert_array_equal(extractor(batch[0]).input_values[0], expected[0])


def test_the_rate_in_a_dictionary_is_checked(extractor):
    for batch in ({"array": CLIPS[0], "sampling_rate": 8_000}, [{"array": CLIPS[0], "sampling_rate": 8_000}]):
        with pytest.raises(ValueError, match="must be 16000 Hz.*found: 8000 Hz"):
            extractor(batch, sampling_rate=16_000)
    with pytest.raises(ValueError, match="must be 16000 Hz.*found: 44100 Hz"):
        extractor({"array": CLIPS[0], "sampling_rate": 16_000}, sampling_rate=44_100)


def test_a_rate_that_is_text_is_refused_as_text(extractor):
    with pytest.raises(TypeError, match=r"must be a number of Hz, found the text '16000'\. Pass it through `int\(\)`"):
        extractor(CLIPS[0], sampling_rate="16000")


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ">f4"])
def test_other_floats_become_float32(extractor, dtype):
    (clip,) = extractor(CLIPS[0].astype(dtype), sampling_rate=16_000).input_values
    assert clip.dtype == np.float32
    np.testing.assert_array_equal(clip, CLIPS[0].astype(dtype).astype(np.float32))


def test_arguments_are_left_as_they_were(extractor):
    clips = [clip.copy() for clip in CLIPS]
    features = extractor(clips, sampling_rate=16_000, padding=True, max_length=300, truncation=True)
    features.input_values[0] *= 0
    assert all(np.array_equal(clip, copy) for clip, copy in zip(CLIPS[1:], clips[1:], strict=True))
    assert len(clips) == 3 and len(clips[2]) == 1601


def test_the_shortest_clip_is_one_that_can_be_mirrored(extractor):
    assert extractor.min_num_samples == 201
    assert HEARFeatureExtractor(sampling_rate=32_000).min_num_samples == 401
    assert extractor(CLIPS[0][:201], sampling_rate=16_000).input_values[0].shape == (201,)


@pytest.mark.parametrize(
    ("clip", "error", "must", "came", "to_do"),
    [
        (CLIPS[0][:200], ValueError, "at least 201 samples", "200", "Drop it or join it"),
        ([], ValueError, "must hold samples", "an empty array", None),
        (np.zeros(0, np.float32), ValueError, "must hold samples", "an empty array", None),
        ([np.zeros(0, np.float32)], ValueError, "must hold samples", "an empty array", None),
        ([CLIPS[0], np.zeros((2, 500))], ValueError, "Clip 1 must be mono", r"\(2, 500\)", "Average its channels"),
        (np.zeros((1, 2, 500)), ValueError, "a mono clip or a batch", r"\(1, 2, 500\)", "Average the channels"),
        ([CLIPS[0], np.full(300, np.nan)], ValueError, "Clip 1 must be finite", "300 NaN", "Decode it again"),
        (np.full(300, -np.inf), ValueError, "must be finite", "300 NaN or infinite", "Decode it again"),
        (np.zeros(300, bool), TypeError, "floats in .* or int16 or int32", "bool", "Convert it"),
        (np.zeros(300, np.int64), TypeError, "floats in .* or int16 or int32", "int64", "Convert it"),
        (np.zeros(300, np.uint8), TypeError, "floats in .* or int16 or int32", "uint8", "Convert it"),
        (np.zeros(300, complex), TypeError, "floats in .* or int16 or int32", "complex128", "Convert it"),
        (np.array(["a"] * 300), TypeError, "floats in .* or int16 or int32", "<U1", "Convert it"),
        ([CLIPS[0], [0.0, [1.0]]], TypeError, "Clip 1 must be an array of numbers", "list", None),
        ("clip.wav", TypeError, "must be an array", "str", None),
        ({"path": "clip.wav"}, TypeError, "must be an array", None, "Decode it"),
        (bytes(800), TypeError, "Clip 0 must be an array of numbers", "bytes", "np.frombuffer"),
        ([bytes(800)], TypeError, "Clip 0 must be an array of numbers", "bytes", "np.frombuffer"),
        (np.zeros((800, 2)), ValueError, "rows .* must be mono clips", r"\(800, 2\)", "Average them first"),
        (torch.zeros(800, 6), ValueError, "rows .* must be mono clips", r"\(800, 6\)", "Average them first"),
        (None, TypeError, "must be an array", "NoneType", None),
        (np.zeros((0, 300)), ValueError, "at least one clip", "none", None),
    ],
)
def test_an_error_says_what_must_hold_what_came_and_what_to_do(extractor, clip, error, must, came, to_do):
    with pytest.raises(error, match=f"{must}.*found.*{came or ''}.*{to_do or ''}"):
        extractor(clip, sampling_rate=16_000)


@pytest.mark.parametrize("sampling_rate", [8_000, 44_100])
def test_another_rate_is_refused_with_the_ways_to_resample(extractor, sampling_rate):
    ways = rf"soxr.resample\(clip, {sampling_rate}, 16000\).*datasets.Audio\(sampling_rate=16000\)"
    with pytest.raises(ValueError, match=f"must be 16000 Hz.*found: {sampling_rate} Hz.*{ways}"):
        extractor(CLIPS, sampling_rate=sampling_rate)


def test_a_missing_rate_warns_once(extractor, monkeypatch):
    messages = []
    transformers_logging.warning_once.cache_clear()
    monkeypatch.setattr(logger, "warning", lambda message, *args, **kwargs: messages.append(message))
    for _ in range(3):
        extractor(CLIPS, sampling_rate=16_000)
    assert messages == []
    for _ in range(3):
        extractor(CLIPS)
    assert len(messages) == 1 and "pass `sampling_rate`" in messages[0] and "16000 Hz" in messages[0]
    assert logger.level <= logging.WARNING


@pytest.mark.parametrize("auto", [HEARFeatureExtractor, AutoFeatureExtractor])
def test_settings_survive_a_round_trip(tmp_path, config, auto):
    extractor = HEARFeatureExtractor(
        sampling_rate=32_000, padding_value=0.5, return_attention_mask=False, padding_side="left"
    )
    extractor.save_pretrained(tmp_path)
    config.save_pretrained(tmp_path)
    loaded = auto.from_pretrained(tmp_path)
    assert isinstance(loaded, HEARFeatureExtractor)
    assert loaded.to_dict() == extractor.to_dict()
    assert "attention_mask" not in loaded(CLIPS[0], sampling_rate=32_000)


@pytest.mark.parametrize("rate", [8_000, 4_000_000])
def test_a_rate_that_no_model_has_is_refused(rate):
    with pytest.raises(ValueError, match=f"`sampling_rate` must be from 16000 to 768000 Hz, found: {rate}"):
        HEARFeatureExtractor(sampling_rate=rate)
