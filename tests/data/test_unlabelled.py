"""Unlabelled clips: sources against their files, crops and features against plain loops, runs against resumed ones."""

import io
import itertools
import json
import logging
import os
import subprocess
import sys
import time
from collections import Counter
from dataclasses import fields

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from datasets import Dataset
from torch.utils.data import DataLoader
from transformers import HfArgumentParser, TrainingArguments

from hear_hf.data import unlabelled as unlabelled_audio
from hear_hf.data.clips import ClipReader, PretrainingClips, StreamedClips
from hear_hf.data.pretraining_clips import load_pretraining_clips
from hear_hf.data.teacher_states import TeacherFeatures, TeacherStatesArguments
from hear_hf.data.unlabelled import PretrainingDataArguments, load_unlabelled_audio
from hear_hf.training.loading import ClipsTrainer, EpochSampler

RATE = 16_000
FRAME = 320  # samples of an encoder frame


def noise(seconds=0.2, seed=0):
    return 0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE)).clip(-3, 3)


def encode(samples, subtype="PCM_16"):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, RATE, format="WAV", subtype=subtype)
    return buffer.getvalue()


def write_shard(path, clips, metadata=None, name="clip", **columns):
    """A parquet table of encoded clips: arrays or bytes."""
    audio = [
        {"bytes": clip if isinstance(clip, bytes) else encode(clip), "path": f"{name}{i}.wav"}
        for i, clip in enumerate(clips)
    ]
    table = pa.table({"audio": audio, **columns})
    pq.write_table(table.replace_schema_metadata(metadata and {"teacher": json.dumps(metadata)}), path)
    return str(path)


def write_shards(folder, num_shards, clips_each=4, seconds=0.1):
    """Shards whose clips differ in their first sample: 0.001 times the clip's number."""
    for shard in range(num_shards):
        clips = [noise(seconds, shard * clips_each + i) for i in range(clips_each)]
        for i, clip in enumerate(clips):
            clip[0] = (shard * clips_each + i) / 1000
        write_shard(folder / f"{shard:02}.parquet", clips, name=f"{shard}_")
    return [str(folder / "*.parquet")]


def number(item):
    return round(float(item["input_values"][0]) * 1000)


def clips_of(folder, lengths=(1.0, 1.1, 1.2, 1.3, 1.4, 1.5), max_length=0.3, seed=0, training=True, **columns):
    path = write_shard(folder / "clips.parquet", [noise(s, i) for i, s in enumerate(lengths)], **columns)
    dataset, _ = load_unlabelled_audio(PretrainingDataArguments(train_file=[path], validation_share=0))
    return PretrainingClips(dataset, ClipReader(RATE, max_length, seed=seed), training)


def load(max_length=10.0, max_unusable_share=1, **arguments):
    """Clips with their teacher's states, however many of them are unusable."""
    names = {field.name for field in fields(TeacherStatesArguments)} & arguments.keys()
    teacher_args = TeacherStatesArguments(**{name: arguments.pop(name) for name in names})
    data_args = PretrainingDataArguments(**arguments, max_unusable_share=max_unusable_share)
    return load_pretraining_clips(data_args, RATE, max_length, teacher_args=teacher_args)


def paths(dataset):
    return [clip["path"] for clip in dataset["audio"]]


def first_item(items):
    return items[0]


@pytest.fixture(autouse=True)
def own_cache_and_no_torchcodec(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))
    monkeypatch.setitem(sys.modules, "torchcodec", None)


# Sources


def test_a_folder_gives_every_audio_file_below_it_in_order_and_no_hidden_one(tmp_path):
    for name in ("b.wav", "a/z.FLAC", "a/deep/er/y.wav", ".hidden.wav", ".cache/x.wav", "a/notes.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"notes" if name.endswith("txt") else encode(noise()))
    train, validation = load_unlabelled_audio(PretrainingDataArguments(data_dir=str(tmp_path), validation_share=0))
    assert paths(train) == [str(tmp_path / name) for name in ("a/deep/er/y.wav", "a/z.FLAC", "b.wav")]
    assert validation is None


def test_files_and_patterns_of_audio_and_tables_join_in_the_order_given(tmp_path):
    for name in ("c.wav", "a.wav", "b.wav"):
        (tmp_path / name).write_bytes(encode(noise()))
    write_shard(tmp_path / "clips.parquet", [noise(seed=1)])
    (tmp_path / "table.csv").write_text("audio,note\nb.wav,no\n")
    files = [str(tmp_path / name) for name in ("clips.parquet", "[ac].wav", "table.csv")]
    train, _ = load_unlabelled_audio(PretrainingDataArguments(train_file=files, validation_share=0))
    assert paths(train) == ["clip0.wav", *(str(tmp_path / name) for name in ("a.wav", "c.wav", "b.wav"))]
    assert train.column_names == ["audio"]


@pytest.mark.parametrize("suffix", ["csv", "tsv", "json", "jsonl", "parquet"])
@pytest.mark.parametrize("streaming", [False, True])
def test_paths_in_a_table_are_relative_to_it(tmp_path, suffix, streaming):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a.wav").write_bytes(encode(noise()))
    table = pd.DataFrame({"file": ["sub/a.wav"], "audio": ["something else"]})
    write = {
        "csv": lambda path: table.to_csv(path),
        "tsv": lambda path: table.to_csv(path, sep="\t"),
        "parquet": table.to_parquet,
        "json": lambda path: table.to_json(path, orient="records"),
        "jsonl": lambda path: table.to_json(path, orient="records", lines=True),
    }
    write[suffix](tmp_path / f"clips.{suffix}")
    files = [str(tmp_path / f"clips.{suffix}")]
    train, _ = load(train_file=files, audio_column_name="file", streaming=streaming, validation_share=0)
    item = next(iter(train)) if streaming else train[0]
    np.testing.assert_allclose(item["input_values"], noise(), atol=1 / 2**15)


@pytest.mark.parametrize("streaming", [False, True])
def test_a_dataset_by_name_is_read_undecoded(tmp_path, streaming):
    feature = {"info": {"features": {"audio": {"sampling_rate": RATE, "_type": "Audio"}}}}
    table = pa.table({"audio": [{"bytes": encode(noise()), "path": "a.wav"}]})
    (tmp_path / "named").mkdir()
    pq.write_table(
        table.replace_schema_metadata({"huggingface": json.dumps(feature)}), tmp_path / "named" / "train.parquet"
    )
    train, _ = load(dataset_name=str(tmp_path / "named"), streaming=streaming)
    item = next(iter(train)) if streaming else train[0]
    np.testing.assert_allclose(item["input_values"], noise(), atol=1 / 2**15)


def test_without_a_source_the_spoken_digits_serve(monkeypatch):
    digits = Dataset.from_dict({"audio": [{"bytes": encode(noise()), "path": "a.wav"}] * 5, "label": [0] * 5})
    monkeypatch.setattr(unlabelled_audio, "spoken_digits", lambda seed: {"train": digits})
    train, validation = load()
    assert (len(train), len(validation)) == (4, 1)
    assert len(train[0]["input_values"]) == 3200


def test_each_listing_of_a_file_draws_crops_of_its_own_and_none_of_a_clip_held_out(tmp_path):
    often = write_shard(tmp_path / "a.parquet", [noise(1.0, i) for i in range(8)], name="a")
    once = write_shard(tmp_path / "b.parquet", [noise(1.0, i) for i in range(8, 16)], name="b")
    train, validation = load(0.1, train_file=[often, once, often, often], validation_share=0.25)
    listed = Counter(paths(train.dataset.with_format(None)))
    held_out = paths(validation.dataset.with_format(None))
    assert len(held_out) == 4 and not set(held_out) & set(listed)
    assert all(count == (3 if name.startswith("a") else 1) for name, count in listed.items())
    assert len({item["seed"] for item in train}) == len(train) == sum(listed.values())


def test_held_out_clips_are_a_share_and_not_trained_on(tmp_path):
    path = write_shard(tmp_path / "a.parquet", [noise(0.05, i) for i in range(40)])
    split = [
        load_unlabelled_audio(PretrainingDataArguments(train_file=[path], validation_share=0.1), s) for s in (0, 0, 1)
    ]
    held_out = [paths(validation) for _, validation in split]
    assert len(held_out[0]) == 4 and held_out[0] == held_out[1] != held_out[2]
    assert set(paths(split[0][0])).isdisjoint(held_out[0]) and len(split[0][0]) == 36
    few = load(train_file=[path], max_train_samples=7, max_eval_samples=2, validation_share=0.5)
    assert [len(clips) for clips in few] == [7, 2]


def test_a_validation_file_holds_out_nothing_and_may_go_with_a_stream(tmp_path):
    train_file = write_shard(tmp_path / "a.parquet", [noise(0.05, i) for i in range(5)])
    validation_file = write_shard(tmp_path / "b.parquet", [noise(0.05, i) for i in range(3)])
    for streaming in (False, True):
        train, validation = load(train_file=[train_file], validation_file=[validation_file], streaming=streaming)
        assert len(validation) == 3
        assert isinstance(train, StreamedClips if streaming else PretrainingClips)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"data_dir": "x", "train_file": ["y"]}, "must be one source .* found: data_dir, train_file"),
        ({"teacher_file": ["x"]}, "`teacher_file` must come with the `train_file`"),
        ({"validation_share": 1.0}, "`validation_share` must be at least 0 and below 1, found: 1.0"),
        ({"train_file": ["x"], "teacher_file": ["y"], "streaming": True}, "must come without `streaming`"),
        ({"train_file": ["x"], "max_train_samples": 3, "streaming": True}, "limit a stream with --max_steps"),
        ({"data_dir": "nowhere"}, "must be a folder with audio files in or below it, found none in nowhere"),
        ({"train_file": ["nowhere/*.wav"]}, "'nowhere/.*' must lead to files .* found: no file"),
        ({"train_file": [__file__]}, "must lead to files that end in one of .* found: .*test_unlabelled.py"),
    ],
)
def test_arguments_that_lead_nowhere_are_clear_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        load(**arguments)


def test_tables_that_hold_no_clips_are_clear_errors(tmp_path):
    (tmp_path / "a.csv").write_text("audio\ngone.wav\n")
    with pytest.raises(ValueError, match="must lead to files, .* found no file; 1 were tried, the first .*gone.wav"):
        load(train_file=[str(tmp_path / "a.csv")])
    path = write_shard(tmp_path / "a.parquet", [noise()])
    with pytest.raises(ValueError, match=r"must have the column 'sound', found: \['audio'\]"):
        load(train_file=[path], audio_column_name="sound")
    other = write_shard(tmp_path / "b.parquet", [noise()], codes=[[1] * 10])
    (tmp_path / "sub").mkdir()
    (tmp_path / "b.parquet").rename(tmp_path / "sub" / "b.parquet")
    with pytest.raises(ValueError, match="All files must have the same of our columns"):
        load(train_file=[path, str(tmp_path / "sub" / other.split("/")[-1])])


def test_the_arguments_parse_from_a_command_line():
    line = "--train_file a.parquet b.parquet --teacher_file c.parquet d.parquet --max_length_seconds 4".split()
    parser = HfArgumentParser((PretrainingDataArguments, TeacherStatesArguments))
    data_args, teacher_args = parser.parse_args_into_dataclasses(line)
    assert teacher_args.teacher_file == ["c.parquet", "d.parquet"] and data_args.max_length_seconds == 4.0


# Crops


def test_crops_are_whole_windows_cut_at_whole_frames(tmp_path):
    clips, clip, grid, starts = clips_of(tmp_path), noise(1.0), range(0, RATE - 4800 + 1, FRAME), set()
    for epoch in range(20):
        clips.set_epoch(epoch)
        item = clips[0]
        errors = {start: np.abs(clip[start : start + 4800] - item["input_values"]).max() for start in grid}
        assert len(item["input_values"]) == 4800 and min(errors.values()) < 1 / 2**15
        starts.add(min(errors, key=errors.get))
    assert len(starts) > 8


def test_crops_of_random_length_are_for_training_alone(tmp_path):
    path = write_shard(tmp_path / "clips.parquet", [noise(1.0, i) for i in range(40)])
    train, held_out = load(0.5, train_file=[path], min_crop_seconds=0.1, validation_share=0.25)
    lengths = [len(item["input_values"]) / RATE for item in train]
    assert 0.1 <= min(lengths) < 0.2 and 0.4 < max(lengths) <= 0.5 and len(set(lengths)) == 30
    assert {len(item["input_values"]) / RATE for item in held_out} == {0.5}
    with pytest.raises(ValueError, match="`min_crop_seconds` must lie between 0.04 and .* found: 2.0 with 0.5"):
        load(0.5, train_file=[path], min_crop_seconds=2.0)


def test_crops_at_another_speed_last_as_long_and_have_another_pitch(tmp_path):
    time = np.arange(2 * RATE) / RATE
    tone = (0.3 * np.sin(2 * np.pi * 1000 * time)).astype(np.float32)
    path = write_shard(tmp_path / "clips.parquet", [tone])
    args = PretrainingDataArguments(train_file=[path], validation_share=0)
    clips, _ = load_pretraining_clips(args, RATE, 0.5, random_speed=0.5)
    pitches = []
    for epoch in range(12):
        clips.set_epoch(epoch)
        crop = clips[0]["input_values"]
        assert 0.49 < len(crop) / RATE <= 0.5
        pitches.append(np.abs(np.fft.rfft(crop, RATE)).argmax())
    assert 1000 / 1.5 - 2 <= min(pitches) < 900 and 1100 < max(pitches) <= 1502


def test_an_item_depends_on_seed_epoch_and_clip_alone(tmp_path):
    clips = clips_of(tmp_path)
    expected = [clips[i] for i in range(6)]
    torch.manual_seed(7)
    np.random.seed(7)
    other = PretrainingClips(clips.dataset.with_format(None).select([5, 2]), clips.reader)
    for item, index in ((other[0], 5), (other[1], 2), (clips[3], 3)):
        np.testing.assert_array_equal(item["input_values"], expected[index]["input_values"])
        assert item["seed"] == expected[index]["seed"]
    assert torch.initial_seed() == 7 and torch.rand(()) == torch.rand((), generator=torch.Generator().manual_seed(7))
    (tmp_path / "b").mkdir()
    assert clips_of(tmp_path / "b", seed=1)[0]["seed"] != expected[0]["seed"]


@pytest.mark.parametrize("num_workers, persistent", [(0, False), (2, False), (2, True)])
def test_each_epoch_reaches_workers_and_gives_the_same_items_with_any_number(tmp_path, num_workers, persistent):
    clips = clips_of(tmp_path)
    loader = DataLoader(clips, None, num_workers=num_workers, persistent_workers=persistent)
    seeds = []
    for epoch in (0, 1, 0):
        clips.set_epoch(epoch)
        seeds.append([item["seed"] for item in loader])
        assert seeds[-1] == [clips[i]["seed"] for i in range(len(clips))]
    assert seeds[0] == seeds[2] and not set(seeds[0]) & set(seeds[1])


def test_validation_crops_are_the_same_in_every_epoch(tmp_path):
    clips = clips_of(tmp_path, training=False)
    before = clips[0]["seed"]
    clips.set_epoch(3)
    assert clips[0]["seed"] == before


def test_files_are_known_by_their_path(tmp_path):
    for name in ("a.wav", "b.wav"):
        (tmp_path / name).write_bytes(encode(noise(1.0)))
    train, _ = load(0.3, data_dir=str(tmp_path), validation_share=0)
    assert train[0]["seed"] != train[1]["seed"]


def test_a_window_shorter_than_the_shortest_clip_is_a_clear_error():
    with pytest.raises(ValueError, match="`max_length_seconds` must be at least `min_length_seconds`"):
        ClipReader(RATE, max_length_seconds=0.01)


# Bad clips

BAD = {
    "undecodable": b"not audio at all",
    "truncated": encode(noise())[:30],
    "empty": encode(np.zeros(0)),
    "silent": encode(np.zeros(3200)),
    "constant": encode(np.full(3200, 0.25)),
    "short": encode(noise()[:639]),
    "NaN": encode(np.where(np.arange(3200) == 5, np.nan, noise()), "FLOAT"),
}


@pytest.mark.parametrize("bad", BAD)
def test_a_bad_clip_gives_way_to_the_next_and_is_warned_about_once(tmp_path, bad, caplog):
    path = write_shard(tmp_path / "a.parquet", [noise(0.2, 1), noise(0.2, 2), BAD[bad]])
    train, _ = load(train_file=[path], validation_share=0)
    with caplog.at_level(logging.WARNING):
        items = [train[i] for i in (0, 1, 2, 2)]
    np.testing.assert_array_equal(items[2]["input_values"], items[0]["input_values"])
    assert train.num_skipped == 1
    assert [record.message[:18] for record in caplog.records] == ["Skipping clip2.wav"]


def test_a_clip_of_two_frames_is_good(tmp_path):
    path = write_shard(tmp_path / "a.parquet", [noise()[:640], noise()])
    assert len(load(train_file=[path], validation_share=0)[0][0]["input_values"]) == 640


def test_null_and_missing_files_are_passed_over(tmp_path):
    (tmp_path / "a.wav").write_bytes(encode(noise()))
    pq.write_table(pa.table({"audio": ["a.wav", None, "gone.wav"]}), tmp_path / "a.parquet")
    train, _ = load(train_file=[str(tmp_path / "a.parquet")], validation_share=0)
    assert [len(train[i]["input_values"]) for i in range(3)] == [3200] * 3
    assert train.num_skipped == 2


def test_bad_clips_are_counted_over_workers_and_warned_about_ten_times_at_most(tmp_path, caplog):
    path = write_shard(tmp_path / "a.parquet", [noise(), *([BAD["silent"]] * 20)])
    train, _ = load(train_file=[path], validation_share=0)
    assert len(list(DataLoader(train, None, num_workers=2))) == 21
    assert train.num_skipped == 20
    fresh, _ = load(train_file=[path], validation_share=0)
    with caplog.at_level(logging.WARNING):
        list(fresh)
    assert len(caplog.records) == 10 and "only counted" in caplog.records[-1].message


@pytest.mark.parametrize("streaming", [False, True])
def test_a_set_without_a_good_clip_is_a_clear_error(tmp_path, streaming):
    path = write_shard(tmp_path / "a.parquet", [BAD["silent"]] * 3)
    train, _ = load(train_file=[path], validation_share=0, streaming=streaming)
    with pytest.raises(ValueError, match="must hold usable clips, found 3 in a row that are not; .*silent"):
        next(iter(train))


# Teacher features and codes

TEACHER = np.random.default_rng(5).standard_normal((15, 3)).astype(np.float32)


def plain_crop(frames, step, start, num_samples, num_frames):
    """The definition, frame by frame: linear between the centres of the frames that overlap the crop."""
    stop = start + num_samples / RATE
    overlapping = [i for i in range(len(frames)) if (i + 1) * step > start + 1e-9 and i * step < stop - 1e-9]
    centres = [(i + 0.5) * step for i in overlapping]
    times = start + 0.02 * np.arange(num_frames) + 0.005
    return np.stack([np.interp(times, centres, frames[overlapping, k]) for k in range(frames.shape[1])], axis=1)


@pytest.mark.parametrize("step", [None, 0.07, 0.013, 0.02])
@pytest.mark.parametrize("start, num_samples", [(0, 4800), (640, 4800), (11200, 4800), (3200, 640)])
def test_teacher_frames_follow_the_crop(step, start, num_samples):
    frames = np.random.default_rng(5).standard_normal((15 if step is None else round(1.0 / step), 3))
    num_frames = (1 + num_samples // 160) // 2
    crop = TeacherFeatures(3, step).crop(frames, 1.0, start / RATE, (start + num_samples) / RATE, num_frames)
    expected = plain_crop(frames, step or 1.0 / 15, start / RATE, num_samples, num_frames)
    assert crop.dtype == np.float32 and crop.shape == (num_frames, 3)
    np.testing.assert_allclose(crop, expected, atol=1e-5)


@pytest.mark.parametrize("step", [0.1, 0.02, 0.007])
def test_a_running_teacher_s_frames_come_to_the_encoder_s_as_stored_ones_do(step):
    frames = np.random.default_rng(5).standard_normal((round(1 / step), 3)).astype(np.float32)
    features = TeacherFeatures(3)
    features.measure([frames], whitening=0.5)
    targets = features.targets(torch.from_numpy(frames), step, 0.0, 50)
    expected = (plain_crop(frames, step, 0, RATE, 50) - frames.mean(0)) / frames.std(0) ** 0.5
    assert targets.dtype == torch.float32
    np.testing.assert_allclose(targets.numpy(), expected, atol=1e-5)
    np.testing.assert_array_equal(features.targets(frames, step, 0.0, 50), targets.numpy())


def test_teacher_frames_keep_a_line_where_it_was_in_time_and_one_alone_is_repeated():
    line = np.linspace(0.05, 0.95, 10, dtype=np.float32)[:, None]  # the centres of ten frames of 0.1 s
    finer = TeacherFeatures(1).targets(line, 0.1, 0.0, 50)[:, 0]
    np.testing.assert_allclose(finer[3:-3], 0.005 + 0.02 * np.arange(50)[3:-3], atol=1e-6)
    np.testing.assert_array_equal(TeacherFeatures(1).targets(line[:1], 1.0, 0.0, 4), line[:1].repeat(4, 0))


def test_a_crop_brings_the_teacher_frames_and_codes_of_its_own_place(tmp_path):
    """Features and codes that count their frames tell where the crop was cut."""
    num_frames = (1 + 16000 // 160) // 2
    ramp = [[[float(i)] for i in range(100)]]  # 10 ms each
    path = write_shard(
        tmp_path / "a.parquet", [noise(1.0)], teacher_hidden_states=ramp, codes=[list(range(num_frames))]
    )
    train, _ = load(0.3, train_file=[path], validation_share=0, standardize_teacher=False)
    for epoch in range(5):
        train.set_epoch(epoch)
        item = train[0]
        start = 320 * item["codes"][0]
        np.testing.assert_allclose(item["input_values"], noise(1.0)[start : start + 4800], atol=1 / 2**15)
        np.testing.assert_array_equal(item["codes"], item["codes"][0] + np.arange(15))
        expected = 2 * item["codes"][:, None]  # frame t is centred in the teacher's frame 2 t
        np.testing.assert_allclose(item["teacher_hidden_states"], expected, atol=1e-3)
    assert item["codes"].dtype == np.int64


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("form", ["nested", "flat", "metadata", "int8", "fixed", "renamed"])
def test_every_form_of_teacher_column_reads_the_same(tmp_path, form, streaming):
    quantized = np.round(TEACHER * 20).astype(np.int8)
    values = (quantized / 20).astype(np.float32)
    flat, nested = [values.ravel().tolist()], [values.tolist()]
    columns, metadata, name = {
        "nested": ({"teacher_hidden_states": nested}, None, None),
        "flat": ({"teacher_hidden_states": flat, "num_frames": [15]}, None, None),
        "metadata": ({"teacher_hidden_states": flat}, {"hidden_size": 3, "kind": "any"}, None),
        "int8": (
            {"teacher_hidden_states": pa.array([quantized.ravel().tolist()], pa.list_(pa.int8()))},
            {"hidden_size": 3, "scale": [0.05] * 3},
            None,
        ),
        "fixed": ({"teacher_hidden_states": pa.array(nested, pa.list_(pa.list_(pa.float32(), 3)))}, None, None),
        "renamed": ({"layer_9": nested, "teacher_hidden_states": [0]}, None, "layer_9"),
    }[form]
    path = write_shard(tmp_path / "a.parquet", [noise(1.0)], metadata, **columns)
    named = {} if name is None else {"teacher_column_name": name}
    train, _ = load(train_file=[path], validation_share=0, standardize_teacher=False, streaming=streaming, **named)
    item = next(iter(train)) if streaming else train[0]
    expected = plain_crop(values, 1.0 / 15, 0, RATE, 50)
    np.testing.assert_allclose(item["teacher_hidden_states"], expected, atol=1e-5)
    assert train.teacher.hidden_size == 3


def test_metadata_and_argument_give_the_time_between_frames(tmp_path):
    columns = {"teacher_hidden_states": [TEACHER.tolist()]}
    path = write_shard(tmp_path / "a.parquet", [noise(1.0)], {"frame_seconds": 0.08}, **columns)
    assert load(train_file=[path], validation_share=0)[0].teacher.frame_seconds == 0.08
    train, _ = load(train_file=[path], validation_share=0, teacher_frame_seconds=0.07, standardize_teacher=False)
    np.testing.assert_allclose(train[0]["teacher_hidden_states"], plain_crop(TEACHER, 0.07, 0, RATE, 50), atol=1e-5)


@pytest.mark.parametrize("streaming", [False, True])
def test_standardized_features_have_mean_0_and_deviation_1_over_the_set(tmp_path, streaming):
    rng = np.random.default_rng(0)
    features = [(rng.standard_normal((5 + i, 3)) * [1, 10, 0] + [0, 100, 3]).tolist() for i in range(6)]
    path = write_shard(tmp_path / "a.parquet", [noise(0.1, i) for i in range(6)], teacher_hidden_states=features)
    train, _ = load(train_file=[path], validation_share=0, streaming=streaming)
    joined = np.concatenate(features)
    np.testing.assert_allclose(train.teacher.mean, joined.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(train.teacher.std[:2], joined.std(axis=0)[:2], rtol=1e-5)
    item = next(iter(train)) if streaming else train[0]
    assert np.abs(item["teacher_hidden_states"]).max() < 4 and (item["teacher_hidden_states"][:, 2] == 0).all()


@pytest.mark.parametrize("whitening", [0.0, 0.5])
def test_partly_whitened_features_keep_a_power_of_their_deviation(tmp_path, whitening):
    features = (np.random.default_rng(0).standard_normal((4, 200, 2)) * [0.5, 8] + [0, 100]).tolist()
    path = write_shard(tmp_path / "a.parquet", [noise(10, i) for i in range(4)], teacher_hidden_states=features)
    train, _ = load(train_file=[path], validation_share=0, teacher_whitening=whitening, teacher_frame_seconds=0.05)
    joined = np.concatenate(features)
    crop = train.teacher.crop(joined, 40, 0, 40, len(joined))
    np.testing.assert_allclose(train.teacher.std, joined.std(axis=0) ** whitening, rtol=1e-5)
    assert np.abs(crop.mean(axis=0)).max() < 1
    with pytest.raises(ValueError, match="`teacher_whitening` must be between 0 and 1, found: 2"):
        load(train_file=[path], teacher_whitening=2)


def test_validation_clips_share_the_statistics_of_the_training_clips(tmp_path):
    features = {"teacher_hidden_states": [TEACHER.tolist()] * 4}
    path = write_shard(tmp_path / "a.parquet", [noise(0.2, i) for i in range(4)], **features)
    train, validation = load(train_file=[path], validation_share=0.25)
    assert validation.teacher is train.teacher and "teacher_hidden_states" in validation[0]
    bare = write_shard(tmp_path / "b.parquet", [noise()])
    with pytest.raises(ValueError, match="must have the column 'teacher_hidden_states', found"):
        load(train_file=[path], validation_file=[bare])


def test_teacher_files_join_their_tables_row_by_row(tmp_path):
    features = np.arange(4.0).reshape(2, 2, 1)
    train_file, teacher_file = [], []
    for i, name in enumerate("ab"):
        train_file.append(
            write_shard(tmp_path / f"{name}.parquet", [noise(0.2, 2 * i), noise(0.2, 2 * i + 1)], name=name)
        )
        columns = {"path": [f"{name}0.wav", f"{name}1.wav"], "teacher_hidden_states": (features + 10 * i).tolist()}
        pq.write_table(pa.table(columns), tmp_path / f"{name}_teacher.parquet")
        teacher_file.append(str(tmp_path / f"{name}_teacher.parquet"))
    arguments = {"validation_share": 0, "standardize_teacher": False}
    train, _ = load(train_file=train_file, teacher_file=teacher_file, **arguments)
    assert [float(item["teacher_hidden_states"][0, 0]) for item in train] == [0, 2, 10, 12]
    with pytest.raises(ValueError, match="found those of b0.wav beside a0.wav in row 0"):
        load(train_file=train_file, teacher_file=teacher_file[::-1], **arguments)
    with pytest.raises(ValueError, match="one table for each table of `train_file`, found 1 for 2"):
        load(train_file=train_file, teacher_file=teacher_file[:1], **arguments)
    short = write_shard(tmp_path / "short.parquet", [noise()])
    with pytest.raises(ValueError, match="and the 1 rows of .*short.parquet, found: .* and 2 rows"):
        load(train_file=[short], teacher_file=teacher_file[:1], **arguments)


@pytest.mark.parametrize("broken, message", [
    ([[1.0, 2.0], [3.0]], r"frames 2 wide, found another size in row 1 \(clip1.wav\)"),
    ([[1.0, 2.0, 3.0]], r"frames 2 wide, found another size in row 1 \(clip1.wav\)"),
    ([[1.0, 2.0], [3.0, float("nan")]], r"finite numbers, found NaN or infinity in row 1 \(clip1.wav\)"),
])  # fmt: skip
def test_a_broken_teacher_row_is_named(tmp_path, broken, message):
    rows = [[[1.0, 2.0]] * 3, broken, [[3.0, 4.0]]]
    path = write_shard(tmp_path / "a.parquet", [noise(0.2, i) for i in range(3)], teacher_hidden_states=rows)
    with pytest.raises(ValueError, match=message):
        load(train_file=[path], validation_share=0)
    train, _ = load(train_file=[path], streaming=True)
    items = list(itertools.islice(train, 2))
    assert all(np.isfinite(item["teacher_hidden_states"]).all() for item in items) and train.num_skipped <= 1


def test_a_broken_flat_teacher_row_is_named(tmp_path):
    for rows, num_frames in (([[1.0] * 4, [1.0] * 3], [2, 2]), ([[1.0] * 4, [1.0] * 6], [2, 2])):
        columns = {"teacher_hidden_states": rows, "num_frames": num_frames}
        path = write_shard(tmp_path / "a.parquet", [noise(0.2, i) for i in range(2)], **columns)
        with pytest.raises(ValueError, match="found another size in row 1"):
            load(train_file=[path], validation_share=0, standardize_teacher=False)


@pytest.mark.parametrize("streaming", [False, True])
def test_clips_without_features_or_with_too_few_are_passed_over(tmp_path, streaming):
    rows = [None, [], [[1.0]] * 3, [[1.0]] * 10]  # of 0.2 s
    columns = {"teacher_hidden_states": rows, "codes": [[1] * 10] * 4}
    path = write_shard(tmp_path / "a.parquet", [noise(0.2, i) for i in range(4)], {"frame_seconds": 0.02}, **columns)
    train, _ = load(train_file=[path], validation_share=0, streaming=streaming)
    items = list(itertools.islice(train, 2)) if streaming else list(train)
    assert len({item["seed"] for item in items}) == (2 if streaming else 1)  # a stream's second pass draws anew
    assert train.num_skipped == 3


def test_clips_whose_codes_are_of_another_length_are_passed_over(tmp_path):
    path = write_shard(tmp_path / "a.parquet", [noise(0.2, i) for i in range(3)], codes=[[1] * 10, [1] * 9, None])
    train, _ = load(train_file=[path], validation_share=0)
    assert [len(item["codes"]) for item in train] == [10] * 3 and train.num_skipped == 2


def test_tables_of_several_teachers_are_a_clear_error(tmp_path):
    columns = {"teacher_hidden_states": [TEACHER.tolist()]}
    files = [write_shard(tmp_path / f"{i}.parquet", [noise()], {"scale": [i] * 3}, **columns) for i in (1, 2)]
    with pytest.raises(ValueError, match="must say the same of the teacher"):
        load(train_file=files)
    with pytest.raises(ValueError, match="must show the width of the teacher's frames"):
        flat = write_shard(tmp_path / "c.parquet", [noise()], teacher_hidden_states=[[1.0, 2.0]])
        load(train_file=[flat], validation_share=0)


def test_teacher_features_are_read_from_arrow_within_a_millisecond(tmp_path):
    features = pa.array([[0] * 300 * 768] * 20, pa.list_(pa.int8()))  # 6 s of a base-sized encoder
    path = write_shard(tmp_path / "a.parquet", [noise()] * 20, {"hidden_size": 768}, teacher_hidden_states=features)
    train, _ = load(train_file=[path], validation_share=0, standardize_teacher=False)
    start = time.process_time()
    for i in range(20):
        row = train._row(i)
    assert isinstance(row["teacher_hidden_states"], np.ndarray) and len(row["teacher_hidden_states"]) == 300 * 768
    assert (time.process_time() - start) / 20 < 1e-3


# Streams


def test_a_stream_gives_every_clip_once_a_pass_in_an_order_of_its_own(tmp_path):
    train, _ = load(train_file=write_shards(tmp_path, 3), streaming=True)
    numbers = [number(item) for item in itertools.islice(train, 24)]
    first, second = numbers[:12], numbers[12:]
    assert sorted(first) == sorted(second) == list(range(12))
    assert first != sorted(first) and first != second
    assert numbers == [number(item) for item in itertools.islice(train, 24)]


def test_each_pass_of_a_stream_crops_anew_and_as_a_map_style_epoch_does(tmp_path):
    files = write_shards(tmp_path, 2, seconds=0.5)
    stream, _ = load(0.1, train_file=files, streaming=True)
    clips, _ = load(0.1, train_file=files, validation_share=0)
    seeds = [item["seed"] for item in itertools.islice(stream, 16)]
    assert set(seeds[:8]) == {item["seed"] for item in clips}
    clips.set_epoch(1)
    assert set(seeds[8:]) == {item["seed"] for item in clips}
    stream.set_epoch(1)
    assert [item["seed"] for item in itertools.islice(stream, 8)] == seeds[8:]


@pytest.mark.parametrize("num_shards, num_ranks, num_workers", [(4, 2, 0), (4, 2, 2), (3, 2, 0), (2, 3, 2), (1, 1, 2)])
def test_ranks_and_workers_divide_the_clips_of_a_pass(tmp_path, num_shards, num_ranks, num_workers):
    args = PretrainingDataArguments(train_file=write_shards(tmp_path, num_shards, 6), streaming=True)
    seen = []
    for rank in range(num_ranks):
        stream, _ = load_pretraining_clips(args, RATE, 1.0, rank=rank, world_size=num_ranks)
        loader = DataLoader(stream, None, num_workers=num_workers)
        # Workers take turns and have equally many clips, so that no second pass begins before the first has ended.
        seen += [number(item) for item in itertools.islice(loader, 6 * num_shards // num_ranks)]
    assert sorted(seen) == list(range(6 * num_shards))


def test_a_stream_goes_on_past_bad_clips_and_counts_each_once(tmp_path, caplog):
    path = write_shard(tmp_path / "a.parquet", [noise(0.2, 1), BAD["NaN"], noise(0.2, 2), BAD["undecodable"]])
    train, _ = load(train_file=[path], streaming=True)
    with caplog.at_level(logging.WARNING):
        items = list(itertools.islice(train, 7))
    assert len(items) == 7 and train.num_skipped == 2 and len(caplog.records) == 2
    loader = DataLoader(load(train_file=[path], streaming=True)[0], None, num_workers=1)
    list(itertools.islice(loader, 7))
    assert loader.dataset.num_skipped == 2


def test_loose_files_stream_too(tmp_path):
    for i in range(6):
        (tmp_path / f"{i}.wav").write_bytes(encode(noise(0.1, i)))
    train, _ = load(data_dir=str(tmp_path), streaming=True)
    assert len({item["seed"] for item in itertools.islice(train, 6)}) == 6
    assert train.dataset.num_shards == 6


# Under Trainer


class Recorder(torch.nn.Module):
    """Remembers the seed of each clip that it is trained on."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(()))
        self.seeds = []

    def forward(self, input_values, seeds):
        self.seeds.append(seeds.tolist())
        return {"loss": self.weight * input_values.square().mean()}


def collate(items):
    waveforms = [torch.from_numpy(item["input_values"][:640]) for item in items]
    return {"input_values": torch.stack(waveforms), "seeds": torch.tensor([item["seed"] for item in items])}


def train_recorder(clips, folder, resume=None, **arguments):
    defaults = {
        "per_device_train_batch_size": 2,
        "report_to": [],
        "disable_tqdm": True,
        "use_cpu": True,
        "save_steps": 1,
    }
    defaults |= {"remove_unused_columns": False, "dataloader_pin_memory": False, "logging_strategy": "no"}
    model = Recorder()
    args = TrainingArguments(str(folder), **{**defaults, **arguments})
    ClipsTrainer(model, args, train_dataset=clips, data_collator=collate).train(resume_from_checkpoint=resume)
    return model.seeds


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_run_resumed_within_an_epoch_sees_the_crops_of_an_uninterrupted_one(tmp_path, num_workers):
    arguments = {"num_train_epochs": 2, "dataloader_num_workers": num_workers}
    arguments["dataloader_persistent_workers"] = num_workers > 0
    whole = train_recorder(clips_of(tmp_path), tmp_path / "run", **arguments)
    epochs = [sum(whole[i : i + 3], []) for i in (0, 3)]
    assert len(set(itertools.chain(*epochs))) == 12  # six clips, cut anew in each epoch
    expected = clips_of(tmp_path)
    for epoch in range(2):
        expected.set_epoch(epoch)
        assert sorted(epochs[epoch]) == sorted(item["seed"] for item in expected)
    for step in (2, 3):
        checkpoint = str(tmp_path / "run" / f"checkpoint-{step}")
        assert train_recorder(clips_of(tmp_path), tmp_path / "again", checkpoint, **arguments) == whole[step:]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_resumed_stream_goes_on_where_it_stopped(tmp_path, num_workers):
    files = write_shards(tmp_path, 2)
    arguments = {"max_steps": 7, "dataloader_num_workers": num_workers}
    whole = train_recorder(load(train_file=files, streaming=True)[0], tmp_path / "run", **arguments)
    assert len(whole) == 7
    checkpoint = str(tmp_path / "run" / "checkpoint-5")
    resumed = train_recorder(load(train_file=files, streaming=True)[0], tmp_path / "again", checkpoint, **arguments)
    assert resumed == whole[5:]


def test_the_order_of_an_epoch_is_a_permutation_drawn_from_seed_and_epoch(tmp_path):
    clips = clips_of(tmp_path)
    orders = []
    for epoch in (0, 1, 0):
        sampler = EpochSampler(clips)
        sampler.set_epoch(epoch)
        orders.append(list(sampler))
    assert sorted(orders[0]) == list(range(6)) and orders[0] == orders[2] != orders[1]
    assert clips.epoch == 0


RANK_SCRIPT = """
import json, os, sys
import test_unlabelled as t
from pathlib import Path

folder, files = Path(sys.argv[1]), [sys.argv[2]]
t.datasets.config.SLEEP_TIME_ON_THREADS_SHUTDOWN = 0
rank, world_size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
stream = t.PretrainingDataArguments(train_file=files, streaming=True)
files = t.PretrainingDataArguments(train_file=files, validation_share=0)
seen = {}
for name, args, steps in (("stream", stream, {"max_steps": 6}), ("files", files, {"num_train_epochs": 2})):
    for checkpoint in (None, f"checkpoint-{3 if name == 'stream' else 4}"):
        clips, _ = t.load_pretraining_clips(args, t.RATE, 0.1, rank=rank, world_size=world_size)
        resume = checkpoint and str(folder / name / checkpoint)
        output = folder / (name if checkpoint is None else "resumed")
        # Old releases of accelerate save an optimizer's state as of the device "cpu:0", which torch does not read.
        steps |= {"ddp_backend": "gloo", "save_only_model": True}
        seen[f"{name} {checkpoint is not None}"] = t.train_recorder(clips, output, resume, **steps)
(folder / f"{rank}.json").write_text(json.dumps(seen))
"""


@pytest.mark.slow
def test_two_processes_divide_the_clips_of_each_pass_and_resume_where_they_stopped(tmp_path):
    (files,) = write_shards(tmp_path, 2, clips_each=6, seconds=0.4)
    (tmp_path / "rank.py").write_text(RANK_SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "rank.py"]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path), "HF_DATASETS_CACHE": str(tmp_path / "cache")}
    subprocess.run([*command, str(tmp_path), files], cwd=tmp_path, env=environment, check=True, timeout=170)
    ranks = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]

    clips = load(0.1, train_file=[files], validation_share=0)[0]
    for name, epoch in itertools.product(("stream", "files"), (0, 1)):
        clips.set_epoch(epoch)
        seen = [step for rank in ranks for step in rank[f"{name} False"][3 * epoch : 3 * epoch + 3]]
        assert sorted(itertools.chain(*seen)) == sorted(item["seed"] for item in clips)
    for rank in ranks:
        assert rank["stream True"] == rank["stream False"][3:]
        assert rank["files True"] == rank["files False"][4:]
