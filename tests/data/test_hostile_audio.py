"""Damaged audio files: whatever stands in them, they are decoded, or refused by name, or skipped and counted.

Pretraining, probing, publishing and the demo have tests of their own for this beside those here.
"""

import io
import struct

import numpy as np
import pytest
import soundfile
from hypothesis import example, given, settings
from hypothesis import strategies as st

import finetune
import predict
import stream
from hear_hf import HEARFeatureExtractor
from hear_hf.data.clips import ClipReader, UnusableClip
from hear_hf.data.decoding import decode_audio
from helpers import small_model

RATE = 16_000
FORMATS = {"wav": "PCM_16", "flac": "PCM_16", "ogg": "VORBIS", "mp3": "MPEG_LAYER_III"}


def encoded(suffix: str, seconds: float = 0.3) -> bytes:
    samples = 0.3 * np.sin(2 * np.pi * 440 * np.arange(int(seconds * RATE)) / RATE)
    file = io.BytesIO()
    soundfile.write(file, samples, RATE, format=suffix.upper(), subtype=FORMATS[suffix])
    return file.getvalue()


CLIPS = {suffix: encoded(suffix) for suffix in FORMATS}


def decoded_or_refused(content: bytes, name: str) -> np.ndarray | None:
    try:
        samples = decode_audio({"bytes": content, "path": name}, RATE)
    except ValueError as error:
        assert name in str(error)
        return None
    assert samples.dtype == np.float32 and samples.ndim == 1 and len(samples) > 0
    assert np.isfinite(samples).all() and np.abs(samples).max() <= 16
    return samples


@st.composite
def damaged(draw):
    """A clip of some format cut short, with bytes overwritten, left out, doubled, or behind another file's head."""
    suffix = draw(st.sampled_from(sorted(CLIPS)))
    content = bytearray(CLIPS[suffix])
    for _ in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["cut", "overwrite", "leave out", "double", "head"]))
        start = draw(st.integers(0, max(len(content) - 1, 0)) | st.integers(0, 64))
        length = draw(st.integers(1, 64))
        if kind == "cut":
            del content[start:]
        elif kind == "overwrite":
            content[start : start + length] = draw(st.binary(min_size=length, max_size=length))
        elif kind == "leave out":
            del content[start : start + length]
        elif kind == "double":
            content[start:start] = content[start : start + length]
        else:
            content[:length] = CLIPS[draw(st.sampled_from(sorted(CLIPS)))][:length]
    return bytes(content), suffix


HUGE = bytearray(CLIPS["flac"])
HUGE[21:26] = b"\x0f\xff\xff\xff\xff"  # the head's number of samples: almost 2**36


@settings(max_examples=300, deadline=None)
@given(damaged())
@example((bytes(HUGE), "flac"))
def test_a_damaged_file_is_decoded_or_refused_by_name(case):
    content, suffix = case
    decoded_or_refused(content, f"broken.{suffix}")


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=2_000))
def test_bytes_that_are_no_audio_are_refused(content):
    assert decoded_or_refused(content, "noise.wav") is None


@settings(max_examples=100, deadline=None)
@given(damaged())
def test_pretraining_skips_a_damaged_file_or_reads_it(case):
    reader = ClipReader(RATE, max_length_seconds=0.2)
    try:
        example = reader.read({"audio": {"bytes": case[0], "path": None}}, epoch=0)
    except UnusableClip:
        return
    assert 2 * RATE // 50 <= len(example["input_values"]) <= 0.2 * RATE


@pytest.mark.parametrize("declared", [0, 1, 2**31 - 1, 2**32 - 1])
def test_a_length_that_the_head_makes_up_reserves_no_memory_for_it(declared):
    content = bytearray(CLIPS["wav"])
    place = content.index(b"data") + 4
    content[place : place + 4] = struct.pack("<I", declared)
    samples = decoded_or_refused(bytes(content), "liar.wav")
    assert samples is None or len(samples) <= len(content) // 2


@pytest.mark.parametrize("suffix", sorted(FORMATS))
def test_the_content_decides_and_not_the_suffix(suffix, tmp_path):
    path = tmp_path / "clip.txt"
    path.write_bytes(CLIPS[suffix])
    assert len(decode_audio(path, RATE)) == len(decode_audio({"bytes": CLIPS[suffix], "path": None}, RATE)) > 0


def test_an_empty_file_is_refused_by_name(tmp_path):
    (tmp_path / "empty.wav").touch()
    with pytest.raises(ValueError, match="empty.wav"):
        decode_audio(tmp_path / "empty.wav", RATE)


BROKEN = {
    "empty.wav": b"",
    "short.wav": encoded("wav", seconds=200 / RATE),
    "zeros.wav": bytes(5_000),
    "head.wav": CLIPS["wav"][:30],
    "cut.ogg": CLIPS["ogg"][: len(CLIPS["ogg"]) // 20],
    "text.mp3": b"this is no sound\n" * 40,
    "picture.flac": b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4,
}


@pytest.fixture
def checkpoint(tmp_path):
    small_model().save_pretrained(tmp_path / "model")
    HEARFeatureExtractor().save_pretrained(tmp_path / "model")
    return str(tmp_path / "model")


@pytest.fixture
def broken(tmp_path):
    for name, content in BROKEN.items():
        (tmp_path / name).write_bytes(content)
    return [str(tmp_path / name) for name in BROKEN]


def test_prediction_names_each_broken_file_and_goes_on(checkpoint, broken, tmp_path, capsys):
    (tmp_path / "good.wav").write_bytes(CLIPS["wav"])
    with pytest.raises(SystemExit, match=f"{len(broken)} of {len(broken) + 1} files"):
        predict.main([checkpoint, *broken, str(tmp_path / "good.wav")])
    printed = capsys.readouterr()
    assert all(name in printed.err for name in BROKEN) and "good.wav: LABEL_" in printed.out


@pytest.mark.parametrize("name", BROKEN)
def test_a_stream_of_a_broken_file_ends_with_a_message(checkpoint, broken, tmp_path, name):
    with pytest.raises(SystemExit) as error:
        stream.main([checkpoint, str(tmp_path / name)])
    assert "must" in str(error.value)


def fine_tune(tmp_path, name, *more):
    """Fine-tunes on two classes of eight clips, each with a broken one."""
    for label in ("one", "two"):
        (tmp_path / "clips" / label).mkdir(parents=True, exist_ok=True)
        for i in range(8):
            (tmp_path / "clips" / label / f"{i}.wav").write_bytes(CLIPS["wav"])
        (tmp_path / "clips" / label / name).write_bytes(BROKEN[name])
    tiny = "hidden_size=12,num_hidden_layers=1,intermediate_size=8,task_hidden_size=8,task_intermediate_size=8"
    arguments = ["--data_dir", str(tmp_path / "clips"), "--output_dir", str(tmp_path / "run"), "--use_cpu", "True"]
    arguments += ["--disable_tqdm", "True", "--num_train_epochs", "1", "--config_overrides", tiny]
    return finetune.main([*arguments, *more])


@pytest.mark.parametrize("name", BROKEN)
def test_fine_tuning_names_skips_and_counts_broken_files(tmp_path, name, caplog):
    metrics = fine_tune(tmp_path, name, "--max_unusable_share", "0.12")
    assert 0 <= metrics["validation_accuracy"] <= 1
    assert "Skipped 2 of 18 clips" in caplog.text
    assert all(str(tmp_path / "clips" / label / name) in caplog.text for label in ("one", "two"))


@pytest.mark.parametrize("name", BROKEN)
def test_fine_tuning_on_too_many_broken_files_ends_with_their_names_before_the_first_step(tmp_path, name):
    with pytest.raises(ValueError, match=f"(?s)At most 10% .* found 2 of 18 read:.*one/{name}: .*two/{name}: "):
        fine_tune(tmp_path, name)
    assert not (tmp_path / "run").exists()
