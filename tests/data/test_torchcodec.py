"""What soundfile cannot read, by the real torchcodec: skipped where it or FFmpeg is not installed."""

import logging

import numpy as np
import pytest
import torch

try:
    from torchcodec.encoders import AudioEncoder
except (ImportError, OSError, RuntimeError):  # RuntimeError: it found no FFmpeg
    pytest.skip("needs torchcodec and FFmpeg", allow_module_level=True)

from hear_hf.data import decoding
from hear_hf.data.decoding import decode_audio
from hear_hf.data.live import file_blocks

RATE = 16_000
TONE = (0.3 * np.sin(2 * np.pi * 440 * np.arange(3 * 48_000) / 48_000)).astype(np.float32)  # three seconds
FORMATS = ["mp4", "mov", "adts", "wv"]


def encoded(format: str, samples: np.ndarray = TONE) -> bytes:
    return AudioEncoder(torch.from_numpy(samples), sample_rate=48_000).to_tensor(format=format).numpy().tobytes()


@pytest.mark.parametrize("format", FORMATS)
def test_each_container_is_read_whole_and_in_blocks(format, tmp_path, caplog):
    (tmp_path / "clip").write_bytes(encoded(format, np.stack([TONE, TONE])))
    clip = decode_audio(tmp_path / "clip", RATE)
    assert len(clip) == pytest.approx(3 * RATE, abs=0.1 * RATE)
    assert np.abs(np.fft.rfft(clip[RATE : 2 * RATE])).argmax() == 440
    blocks = np.concatenate(list(file_blocks(str(tmp_path / "clip"), RATE)))
    np.testing.assert_allclose(blocks, clip[: len(blocks)], atol=1e-3)
    assert not caplog.records


def test_a_recording_cut_short_is_named_with_both_lengths(caplog):
    content = encoded("webm")
    with caplog.at_level(logging.WARNING):
        clip = decode_audio({"bytes": content[: len(content) // 2], "path": "cut.webm"}, RATE)
    assert len(clip) < 2 * RATE and "cut.webm holds 1." in caplog.text and "declares" in caplog.text


@pytest.mark.parametrize("format", ["mp4", "adts"])
def test_a_recording_that_breaks_is_refused_with_the_command_that_mends_it(format):
    content = encoded(format)
    with pytest.raises(ValueError, match="cut must be audio .* Convert it with `ffmpeg"):
        decode_audio({"bytes": content[: len(content) // 2 + 7], "path": "cut"}, RATE)


def test_no_more_is_decoded_than_is_held_where_no_length_is_declared(monkeypatch):
    monkeypatch.setattr(decoding, "MAX_DECODED", 48_000)
    with pytest.raises(ValueError, match="clip.aac must hold at most 48000 numbers"):
        decode_audio({"bytes": encoded("adts"), "path": "clip.aac"}, RATE)
