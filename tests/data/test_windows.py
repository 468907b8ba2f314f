"""Windows of files that are read in blocks, against slices of the whole clip."""

import numpy as np
import pytest
import soundfile

from hear_hf.data.decoding import decode_audio
from hear_hf.data.windows import windows_of
from helpers import noise

RATE = 16_000


@pytest.fixture
def clip(tmp_path):
    soundfile.write(tmp_path / "clip.wav", noise(50_000).numpy(), RATE, subtype="FLOAT")
    return {"path": str(tmp_path / "clip.wav"), "bytes": None}


def starts_and_ends(clip, size, hop):
    whole, places = decode_audio(clip, RATE), []
    for start, window in windows_of(clip, RATE, size, hop):
        np.testing.assert_array_equal(window, whole[start : start + size])
        places.append((start, start + len(window)))
    return places


def test_windows_are_slices_of_the_clip_the_last_of_which_is_shorter(clip):
    assert starts_and_ends(clip, 20_000, 20_000) == [(0, 20_000), (20_000, 40_000), (40_000, 50_000)]


def test_overlapping_windows_end_where_nothing_new_is_heard(clip):
    assert starts_and_ends(clip, 20_000, 10_000) == [(i, i + 20_000) for i in (0, 10_000, 20_000, 30_000)]
    assert starts_and_ends(clip, 20_000, 9000)[-2:] == [(27_000, 47_000), (36_000, 50_000)]


def test_windows_may_leave_gaps(clip):
    assert starts_and_ends(clip, 1000, 24_000) == [(0, 1000), (24_000, 25_000), (48_000, 49_000)]
    assert starts_and_ends(clip, 1000, 25_000) == [(0, 1000), (25_000, 26_000)]


def test_a_short_clip_is_one_window(clip):
    assert starts_and_ends(clip, 60_000, 10_000) == [(0, 50_000)]


def test_encoded_bytes_give_the_same_windows(clip):
    with open(clip["path"], "rb") as file:
        encoded = {"path": None, "bytes": file.read()}
    assert starts_and_ends(encoded, 7000, 3500) == starts_and_ends(clip, 7000, 3500)


def test_windows_of_a_file_of_another_rate_are_those_of_the_resampled_clip(tmp_path):
    soundfile.write(tmp_path / "clip.wav", noise(44_100).numpy(), 44_100, subtype="FLOAT")
    audio = {"path": str(tmp_path / "clip.wav"), "bytes": None}
    whole = decode_audio(audio, RATE)
    windows = [window for _, window in windows_of(audio, RATE, 3000, 3000)]
    np.testing.assert_allclose(np.concatenate(windows), whole, rtol=0, atol=1e-5)
