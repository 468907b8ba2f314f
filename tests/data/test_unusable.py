"""The one policy for unusable clips: what is one, what is skipped, counted and named, and when there are too many."""

import contextlib
import io
import itertools
import logging
import traceback

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from torch.utils.data import DataLoader

from hear_hf import HEARFeatureExtractor
from hear_hf.arguments import parse_arguments
from hear_hf.data import clips, unusable
from hear_hf.data.decoding import decode_audio
from hear_hf.data.labelled import DataArguments, load_labelled_audio
from hear_hf.data.pretraining_clips import load_pretraining_clips
from hear_hf.data.unlabelled import PretrainingDataArguments
from hear_hf.data.unusable import MIN_SECONDS, UnusableClip, decode_usable

RATE = 16_000


def encoded(num_samples=3_200, rate=RATE, seed=0):
    file = io.BytesIO()
    samples = 0.1 * np.random.default_rng(seed).standard_normal(num_samples).clip(-3, 3)
    soundfile.write(file, samples, rate, format="WAV")
    return file.getvalue()


SILENT = io.BytesIO()
soundfile.write(SILENT, np.zeros(3_200), RATE, format="WAV")
BAD = b"no audio"


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


# Labelled clips


def write_classes(folder, num_clips=10, **broken):
    """Folders of two classes, and in each the files of its name."""
    for label in ("cat", "dog"):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for i in range(num_clips):
            (folder / label / f"{i}.wav").write_bytes(encoded(seed=i))
        for i, content in enumerate(broken.get(label, [])):
            (folder / label / f"broken{i}.wav").write_bytes(content)
    return str(folder)


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("target", [16_000, 24_000, 32_000, 44_100])
def test_the_shortest_clip_that_passes_is_long_enough_for_the_feature_extractor_at_any_rate(rate, target):
    num_samples = next(n for n in itertools.count(1) if n / rate >= MIN_SECONDS)
    shortest = {"bytes": encoded(num_samples, rate), "path": None}
    assert len(decode_usable(shortest, MIN_SECONDS)) == num_samples
    waveform = decode_audio(shortest, target)
    HEARFeatureExtractor(sampling_rate=target)(waveform, sampling_rate=target)
    with pytest.raises(UnusableClip, match="it lasts 12.* ms, less than 12.6 ms"):
        decode_usable({"bytes": encoded(num_samples - 1, rate), "path": None}, MIN_SECONDS)


def test_at_the_extractor_s_own_rate_no_clip_is_refused_that_it_takes():
    assert len(decode_usable({"bytes": encoded(201), "path": None}, MIN_SECONDS)) == 201


def test_broken_labelled_clips_are_skipped_counted_and_named_in_every_split(tmp_path, caplog):
    for split in ("train", "validation", "test"):
        write_classes(tmp_path / split, cat=[BAD] if split != "train" else [encoded(200)])
    with caplog.at_level(logging.WARNING):
        splits = load_labelled_audio(DataArguments(data_dir=str(tmp_path)))
    assert {split: len(dataset) for split, dataset in splits.items()} == dict.fromkeys(splits, 20)
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.startswith("Skipped 3 of 63 clips, which cannot be used:\n")
    assert f"{tmp_path}/train/cat/broken0.wav: it lasts 12.5 ms, less than 12.6 ms" in message
    assert f"{tmp_path}/test/cat/broken0.wav: must be audio that soundfile or torchcodec reads" in message


def test_a_clip_keeps_its_label_when_those_before_it_are_skipped(tmp_path):
    folder = write_classes(tmp_path, cat=[BAD])
    splits = load_labelled_audio(DataArguments(data_dir=folder))
    for dataset in splits.values():
        names = [dataset.features["label"].names[label] for label in dataset["label"]]
        assert all(f"/{name}/" in audio["path"] for name, audio in zip(names, dataset["audio"], strict=True))


def test_silent_labelled_clips_are_usable(tmp_path, caplog):
    splits = load_labelled_audio(DataArguments(data_dir=write_classes(tmp_path, cat=[SILENT.getvalue()])))
    assert sum(map(len, splits.values())) == 21 and not caplog.records


def test_ten_clips_are_named_and_the_others_counted(tmp_path, caplog):
    folder = write_classes(tmp_path, cat=[BAD] * 12)
    load_labelled_audio(DataArguments(data_dir=folder, max_unusable_share=0.5))
    assert "Skipped 12 of 32" in caplog.text and caplog.text.count("broken") == 10 and "\n..." in caplog.text
    with pytest.raises(
        ValueError, match=r"(?s)At most 10% .* found 12 of 32 read:\n.*\n\.\.\.\n.*--max_unusable_share"
    ):
        load_labelled_audio(DataArguments(data_dir=folder))


def test_a_class_or_a_split_left_without_clips_is_named(tmp_path):
    folder = write_classes(tmp_path / "a")
    (tmp_path / "a" / "eel").mkdir()
    (tmp_path / "a" / "eel" / "1.wav").write_bytes(BAD)
    with pytest.raises(ValueError, match=r"Each class must keep a usable training clip, found none of \['eel'\]"):
        load_labelled_audio(DataArguments(data_dir=folder))
    for split in ("train", "test"):
        write_classes(tmp_path / "b" / split)
    for clip in (tmp_path / "b" / "test").glob("*/*.wav"):
        clip.write_bytes(BAD)
    with pytest.raises(ValueError, match=r"Each split must keep a usable clip, found none in \['test'\]"):
        load_labelled_audio(DataArguments(data_dir=str(tmp_path / "b"), max_unusable_share=1))


def test_only_clips_that_are_drawn_are_checked(tmp_path, monkeypatch):
    checked, check = [], unusable._check
    monkeypatch.setattr(unusable, "_check", lambda audio: checked.append(audio) or check(audio))
    load_labelled_audio(DataArguments(data_dir=write_classes(tmp_path), max_train_samples=6, max_eval_samples=1))
    assert len(checked) == 7


def test_a_clip_so_long_that_a_step_may_not_hold_it_is_named_with_the_remedy(tmp_path, caplog):
    folder = write_classes(tmp_path)
    load_labelled_audio(DataArguments(data_dir=folder, validation_share=0.2))
    assert "longest clip" not in caplog.text
    (tmp_path / "cat" / "0.wav").write_bytes(encoded(121 * 1_000, rate=1_000))
    (tmp_path / "dog" / "0.wav").write_bytes(encoded(122 * 1_000, rate=1_000))
    load_labelled_audio(DataArguments(data_dir=folder, validation_share=0.1))
    assert "The longest clip lasts 12" in caplog.text and "--max_length_seconds" in caplog.text


@pytest.mark.parametrize("arguments", [DataArguments, PretrainingDataArguments])
@pytest.mark.parametrize("share", [-0.1, 1.1])
def test_a_share_beyond_0_and_1_is_an_error(arguments, share):
    with pytest.raises(ValueError, match=f"`max_unusable_share` must lie between 0 and 1, found: {share}"):
        parse_arguments((arguments,), ["--max_unusable_share", str(share)])


# Pretraining


def load(tmp_path, contents, name="clips", **arguments):
    audio = [{"bytes": content, "path": f"{name}{i}.wav"} for i, content in enumerate(contents)]
    pq.write_table(pa.table({"audio": audio}), tmp_path / f"{name}.parquet")
    arguments = {"validation_share": 0} | arguments
    args = PretrainingDataArguments(train_file=[str(tmp_path / f"{name}.parquet")], **arguments)
    return load_pretraining_clips(args, RATE, 1.0)


@contextlib.contextmanager
def refused(match):
    """Expects an error, and ends the workers at once: where the garbage collection finds them, each takes 5 s."""
    with pytest.raises(ValueError, match=match) as failure:
        yield
    traceback.clear_frames(failure.tb)


def good(num_clips):
    return [encoded(seed=i) for i in range(num_clips)]


def test_of_a_small_set_the_share_is_that_of_the_whole_set(tmp_path, caplog):
    train, _ = load(tmp_path, [*good(18), BAD, SILENT.getvalue()])
    assert len([train[i] for i in range(20)]) == 20 and train.num_skipped == 2  # a tenth, but no more
    train, _ = load(tmp_path, [BAD, *good(17), BAD, SILENT.getvalue()])
    with pytest.raises(ValueError, match=r"At most 10% .* found 3 of 20 read:\nclips19.wav: it is silent"):
        [train[i] for i in range(20)]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_of_a_large_set_the_share_is_that_of_the_clips_read(tmp_path, monkeypatch, num_workers):
    monkeypatch.setattr(clips, "MIN_CLIPS_READ", 10)
    train, _ = load(tmp_path, [*good(20), *([BAD] * 10), *good(70)])
    with refused("At most 10% of the clips may be unusable, found [34] of 2[2-4] read"):
        list(DataLoader(train, None, num_workers=num_workers, prefetch_factor=1 if num_workers else None))
    train, _ = load(tmp_path, [*good(90), *([BAD] * 10)])  # as many behind good ones are never too large a share
    assert len(list(train)) == 100 and train.num_skipped == 10


@pytest.mark.parametrize("num_workers", [0, 2])
def test_of_a_stream_the_share_is_that_of_the_clips_read_in_all_passes_and_workers(tmp_path, monkeypatch, num_workers):
    monkeypatch.setattr(clips, "MIN_CLIPS_READ_OF_STREAM", 20)
    few, _ = load(tmp_path, [*good(19), BAD], streaming=True)
    assert len(list(itertools.islice(DataLoader(few, None, num_workers=num_workers), 200))) == 200
    many, _ = load(tmp_path, [*good(8), BAD, BAD], name="many", streaming=True)
    with refused(r"At most 10% .* found \d+ of \d+ read"):
        list(itertools.islice(DataLoader(many, None, num_workers=num_workers), 200))


def test_a_clip_held_out_counts_among_the_training_clips_and_one_of_a_file_among_its_own(tmp_path):
    contents = good(100)
    _, validation = load(tmp_path, contents, validation_share=0.02)
    held_out = [audio["path"] for audio in validation.dataset.with_format(None)["audio"]]
    contents[int(held_out[0][5:-4])] = BAD
    _, validation = load(tmp_path, contents, validation_share=0.02)
    assert len(list(validation)) == 2 and validation.num_skipped == 1
    load(tmp_path, [*good(1), BAD], name="few")
    _, validation = load(tmp_path, contents, validation_file=[str(tmp_path / "few.parquet")])
    with pytest.raises(ValueError, match="found 1 of 2 read:\nfew1.wav: must be audio"):
        list(validation)


def test_a_share_of_one_lets_a_single_good_clip_do(tmp_path):
    train, _ = load(tmp_path, [BAD] * 9 + good(1), max_unusable_share=1)
    assert len(list(train)) == 10 and train.num_skipped == 9
