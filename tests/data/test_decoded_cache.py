"""Clips decoded once: what the cache gives is what decoding gives, whatever interrupted it."""

import pickle

import numpy as np
import pytest
import soundfile

from hear_hf.data import clips, decoded_cache, preparation
from hear_hf.data.decoded_cache import DecodedCache, as_float
from hear_hf.data.decoding import decode_audio
from hear_hf.data.preparation import prepare_clips
from hear_hf.data.pretraining_clips import load_pretraining_clips
from hear_hf.data.spoken_digits import spoken_digits
from hear_hf.data.unlabelled import PretrainingDataArguments


@pytest.fixture
def files(tmp_path):
    """Six clips of different rates, one of which is broken."""
    (tmp_path / "clips").mkdir()
    rng = np.random.default_rng(0)
    for i in range(5):
        samples = 0.1 * rng.standard_normal(8_000 + 100 * i)
        soundfile.write(tmp_path / "clips" / f"{i}.wav", samples, 16_000 if i < 3 else 22_050)
    (tmp_path / "clips" / "broken.wav").write_bytes(b"RIFF, but no more")
    return tmp_path / "clips"


def entries(files):
    return [{"path": str(path), "bytes": None} for path in sorted(files.iterdir())]


def test_it_gives_what_decoding_gives(files, tmp_path):
    cache = DecodedCache(tmp_path / "cache", 16_000)
    cache.fill(entries(files))
    for entry in entries(files):
        if "broken" in entry["path"]:
            assert cache.get(entry) is None
        else:
            np.testing.assert_allclose(as_float(cache.get(entry)), decode_audio(entry, 16_000), atol=1 / 2**15)
    by_bytes = {"bytes": (files / "0.wav").read_bytes(), "path": "elsewhere.wav"}
    assert cache.get(by_bytes) is None
    cache.fill([by_bytes])
    assert np.array_equal(cache.get(by_bytes), cache.get(entries(files)[0]))
    assert cache.get({"path": str(tmp_path / "none.wav")}) is None


def test_a_clip_is_decoded_once_and_again_where_its_file_has_changed(files, tmp_path, monkeypatch):
    DecodedCache(tmp_path / "cache", 16_000).fill(entries(files))
    decoded, decode = [], decoded_cache.decode_usable
    monkeypatch.setattr(decoded_cache, "decode_usable", lambda *args: decoded.append(args[0]) or decode(*args))
    soundfile.write(files / "1.wav", 0.1 * np.ones(9_000), 16_000)
    cache = DecodedCache(tmp_path / "cache", 16_000)
    cache.fill(entries(files))
    assert sorted(entry["path"][-10:] for entry in decoded) == ["broken.wav", "lips/1.wav"]
    assert len(cache.get(entries(files)[1])) == 9_000


def test_an_interrupted_run_goes_on_where_it_ended(files, tmp_path):
    cache = DecodedCache(tmp_path / "cache", 16_000)
    cache.fill(entries(files)[:2])
    for path in (cache.samples_file, cache.index_file):
        with path.open("ab") as file:
            file.write(b"half a rec")
    again = DecodedCache(tmp_path / "cache", 16_000)
    again.fill(entries(files))
    for entry in entries(files)[:5]:
        np.testing.assert_allclose(as_float(again.get(entry)), decode_audio(entry, 16_000), atol=1 / 2**15)
    assert again.samples_file.stat().st_size == 2 * sum(length for _, length in again.records.values())


def test_a_worker_is_sent_no_samples(files, tmp_path):
    cache = DecodedCache(tmp_path / "cache", 16_000)
    cache.fill(entries(files))
    expected = cache.get(entries(files)[0])
    assert len(pickle.dumps(cache)) < 3_000
    assert np.array_equal(pickle.loads(pickle.dumps(cache)).get(entries(files)[0]), expected)


def test_training_clips_are_those_without_it_and_nothing_is_decoded_as_they_are_read(files, tmp_path, monkeypatch):
    def load(**options):
        args = PretrainingDataArguments(data_dir=str(files), max_unusable_share=0.5, **options)
        return load_pretraining_clips(args, 16_000, 0.2, seed=1)

    plain = [part[i]["input_values"] for part in load() for i in range(len(part))]
    train, validation = load(decoded_cache=str(tmp_path / "cache"))
    decode = clips.decode_usable

    def only_broken(audio, *args):
        assert "broken" in audio["path"]
        return decode(audio, *args)

    monkeypatch.setattr(clips, "decode_usable", only_broken)
    cached = [part[i]["input_values"] for part in (train, validation) for i in range(len(part))]
    for ours, theirs in zip(cached, plain, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1 / 2**15)


def test_labelled_clips_are_those_without_it_and_are_not_decoded_as_they_are_read(tmp_path, monkeypatch):
    digits = spoken_digits(0)["validation"].select(range(4))
    plain = prepare_clips(digits, 16_000)[:]
    cached = prepare_clips(prepare_clips(digits, 16_000), 16_000, cache=DecodedCache(tmp_path, 16_000))
    monkeypatch.setattr(preparation, "decode_audio", lambda *args: pytest.fail("decoded again"))
    for ours, theirs in zip(cached[:]["input_values"], plain["input_values"], strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1 / 2**15)
    assert np.array_equal(cached[:]["labels"], plain["labels"])


def test_what_is_above_full_scale_is_made_quieter_and_not_clipped(tmp_path):
    loud = 10 * np.sin(np.arange(8_000) / 5).astype(np.float32)
    soundfile.write(tmp_path / "loud.wav", loud, 16_000, subtype="FLOAT")
    cache, clip = DecodedCache(tmp_path / "cache", 16_000), {"path": str(tmp_path / "loud.wav"), "bytes": None}
    cache.fill([clip])
    np.testing.assert_allclose(10 * as_float(cache.get(clip)), loud, atol=10 / 2**14)


def test_a_stream_has_no_cache():
    with pytest.raises(ValueError, match="`decoded_cache` must come without `streaming`"):
        PretrainingDataArguments(streaming=True, decoded_cache="cache")
