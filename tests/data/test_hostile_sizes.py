"""Audio that is small in bytes and huge when decoded: refused by name before it is, or averaged block by block."""

import io
import tracemalloc

import numpy as np
import pytest
import soundfile

from hear_hf.data import decoding
from hear_hf.data.decoding import SoundfileReader, decode_audio, read_audio

RATE = 16_000


def encoded(format: str, num_frames: int, channels: int, rate: int, subtype: str | None = None) -> bytearray:
    file = io.BytesIO()
    soundfile.write(file, np.zeros((num_frames, channels)), rate, format=format, subtype=subtype)
    return bytearray(file.getvalue())


def refuse_to_read(*args, **kwargs):
    raise AssertionError("decoded, in place of refused")


@pytest.mark.parametrize("rate", [1, 999, 768_001, 2**31 - 1])
@pytest.mark.parametrize("sampling_rate", [None, RATE])
def test_an_absurd_rate_is_refused_by_name(rate, sampling_rate, monkeypatch):
    content = encoded("WAV", 6_000, 1, RATE)
    content[24:28] = rate.to_bytes(4, "little")
    monkeypatch.setattr(soundfile.SoundFile, "read", refuse_to_read)
    with pytest.raises(ValueError, match=f"odd.wav must have a rate of 1000 to 768000 Hz, found {rate} Hz"):
        clip = {"bytes": bytes(content), "path": "odd.wav"}
        decode_audio(clip, sampling_rate) if sampling_rate else read_audio(clip)


@pytest.mark.parametrize("rate", [1, 2**31 - 1])
def test_an_absurd_rate_of_an_array_is_refused(rate):
    with pytest.raises(ValueError, match=f"the clip must have a rate of .* found {rate} Hz"):
        decode_audio({"array": np.zeros(6_000), "sampling_rate": rate}, RATE)


def test_ten_minutes_of_eight_channels_at_655350_hz_are_refused_before_they_are_decoded(monkeypatch):
    content = encoded("FLAC", 1_000, 8, 655_350)
    frames = 600 * 655_350
    content[22:26] = frames.to_bytes(4, "big")  # of the head's 36 bits for the number of frames
    monkeypatch.setattr(soundfile.SoundFile, "read", refuse_to_read)
    with pytest.raises(ValueError, match="many.flac must hold at most .* found 600 s of 8 channels at 655350 Hz. Cut"):
        decode_audio({"bytes": bytes(content), "path": "many.flac"}, RATE)


def test_samples_after_resampling_are_bounded_before_decoding(monkeypatch):
    monkeypatch.setattr(decoding, "MAX_SAMPLES", 90_000)
    clip = {"bytes": bytes(encoded("WAV", 6_000, 1, 1_000)), "path": "slow.wav"}
    assert len(read_audio(clip)[0]) == 6_000
    monkeypatch.setattr(soundfile.SoundFile, "read", refuse_to_read)
    with pytest.raises(ValueError, match="slow.wav must hold at most .* found 6 s of 1 channels at 1000 Hz"):
        decode_audio(clip, RATE)


def test_a_clip_whose_head_hides_its_length_is_refused_as_soon_as_it_is_too_long(monkeypatch):
    monkeypatch.setattr(decoding, "MAX_SAMPLES", 100_000)
    content = encoded("FLAC", 300_000, 1, RATE)
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    with pytest.raises(ValueError, match="live.flac must hold at most .* 100000 samples"):
        decode_audio({"bytes": bytes(content), "path": "live.flac"}, RATE)


def test_many_channels_are_averaged_block_by_block():
    content = bytes(encoded("WAV", 100_000, 200, 48_000))
    tracemalloc.start()
    (block,) = SoundfileReader("many.wav", content).blocks(100_000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert block.shape == (100_000,) and peak < 4e6  # all channels: 80 MB
