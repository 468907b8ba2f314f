"""Balanced sampling: the draws of an epoch against the weights, and a resumed run's against an uninterrupted one's."""

from collections import Counter

import numpy as np
import pytest
from test_unlabelled import encode, load, noise, write_shard

from hear_hf.data.balance import SourceBalance, balance_sources
from hear_hf.training.loading import EpochSampler


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def files(folder, **seconds):
    """A folder for each source, with a file for each of its durations; the entries that lead to them."""
    for source, durations in seconds.items():
        (folder / source).mkdir()
        for i, duration in enumerate(durations):
            (folder / source / f"{i}.wav").write_bytes(encode(noise(duration, i)))
    return [str(folder / source / "*.wav") for source in seconds]


def shares(clips, epoch=0):
    """How often an epoch draws from each source."""
    clips.set_epoch(epoch)
    sources = clips.dataset.with_format(None)["source"][:]
    return Counter(sources[index] for index, _ in EpochSampler(clips))


def test_a_source_s_clips_are_drawn_once_before_any_is_drawn_again():
    balance = SourceBalance(np.array([0] * 3 + [1] * 17), np.array([1.0, 1.0]))
    drawn = list(balance.draw(np.random.default_rng(0)))
    small = sorted(pair for pair in drawn if pair[0] < 3)
    assert len(set(drawn)) == len(drawn) == 20 and len(small) == 10
    assert [turn for _, turn in small].count(0) == [turn for _, turn in small].count(2) == 3
    assert {turn for index, turn in drawn if index >= 3} == {0}
    assert drawn == list(balance.draw(np.random.default_rng(0))) != list(balance.draw(np.random.default_rng(1)))


@pytest.mark.parametrize(
    "weights, expected", [(["equal"], (10, 10)), (["sqrt_duration"], (5, 15)), (["1", "3"], (5, 15))]
)
def test_each_entry_is_a_source_that_is_drawn_by_its_weight(tmp_path, weights, expected):
    entries = files(tmp_path, words=[0.1] * 2, music=[0.1] * 18)  # 0.2 s and 1.8 s
    train, _ = load(train_file=entries, source_weights=weights, validation_share=0)
    for epoch in range(2):
        assert tuple(shares(train, epoch)[entry] for entry in entries) == expected


@pytest.mark.parametrize("cached", [False, True])
def test_long_clips_are_drawn_more_often_than_short_ones(tmp_path, cached):
    durations = [0.1, 0.4, 0.9, 1.6]  # one, two, three and four of ten
    entries = files(tmp_path, words=durations, music=[0.2] * 16)
    options = {"clip_weights": "sqrt_duration", "decoded_cache": str(tmp_path / "cache") if cached else None}
    train, _ = load(train_file=entries, source_weights=["equal"], validation_share=0, **options)
    drawn = sorted(train.balance.draw(np.random.default_rng(0)))
    assert [pair for pair in drawn if pair[0] < 4] == [
        (0, 0),
        *((1, i) for i in range(2)),
        *((2, i) for i in range(3)),
        *((3, i) for i in range(4)),
    ]
    assert len(drawn) == 20 and {turn for index, turn in drawn if index >= 4} == {0}
    assert max(Counter(index for index, _ in drawn if index >= 4).values()) == 1


def test_without_sources_all_clips_are_one(tmp_path):
    entries = files(tmp_path, words=[0.1] * 9, music=[0.9] * 3)
    train, _ = load(train_file=entries, clip_weights="sqrt_duration", validation_share=0)
    assert Counter(index >= 9 for index, _ in train.balance.draw(np.random.default_rng(0))) == {True: 6, False: 6}


def test_the_values_of_a_column_are_sources_too(tmp_path):
    path = write_shard(tmp_path / "clips.parquet", [noise(seed=i) for i in range(8)], field=["b"] * 6 + ["a"] * 2)
    train, _ = load(train_file=[path], source_column="field", source_weights=["3", "1"], validation_share=0)
    assert shares(train) == {"a": 6, "b": 2}


def test_a_clip_that_is_drawn_again_is_cropped_anew(tmp_path):
    path = write_shard(tmp_path / "clips.parquet", [noise(1.0, i) for i in range(6)], source=["a"] + ["b"] * 5)
    train, _ = load(0.2, train_file=[path], source_column="source", source_weights=["equal"], validation_share=0)
    drawn = [pair for pair in EpochSampler(train) if pair[0] == 0]
    crops = {train[pair]["input_values"].tobytes() for pair in drawn}
    assert len(drawn) == len(crops) == 3 and train[0]["input_values"].tobytes() in crops


@pytest.mark.parametrize(
    "options, message",
    [
        ({"source_weights": ["1"]}, "a positive number for each of the 2 sources .*words.*, found: 1"),
        ({"source_weights": ["1", "-1"]}, "a positive number for each of the 2 sources"),
        ({"source_weights": ["1", "inf"]}, "a positive number for each of the 2 sources"),
        ({"source_weights": ["some"]}, "must be 'equal', 'sqrt_duration' or a positive number .* found: some"),
        ({"source_weights": ["equal"], "streaming": True}, "must come without `streaming`"),
        ({"clip_weights": "sqrt_duration", "streaming": True}, "must come without `streaming`"),
        ({"clip_weights": "duration"}, "`clip_weights` must be 'equal' or 'sqrt_duration', found: 'duration'"),
        ({"source_weights": ["equal"], "source_column": "x"}, "found audio files alone"),
    ],
)
def test_weights_that_fit_no_sources_are_refused(tmp_path, options, message):
    entries = files(tmp_path, words=[0.1], music=[0.1])
    with pytest.raises(ValueError, match=message):
        load(train_file=entries, validation_share=0, **options)


def test_sources_that_share_a_file_or_are_none_are_refused(tmp_path):
    entries = files(tmp_path, words=[0.1], music=[0.1])
    with pytest.raises(ValueError, match="must share nothing, found .*0.wav in 2"):
        load(train_file=[*entries, entries[0]], source_weights=["equal"])
    with pytest.raises(ValueError, match="several entries of `train_file`, or with a `source_column`, found neither"):
        load(data_dir=str(tmp_path), source_weights=["equal"])
    with pytest.raises(ValueError, match="must have clips to train on, found none of 'b'"):
        balance_sources(["a"], ["a", "b"], ["equal"], lambda index: 1.0)
    with pytest.raises(ValueError, match="must have usable clips, found none among 1 of 'b'"):
        balance_sources(["a", "b"], ["a", "b"], ["sqrt_duration"], lambda index: 1.0 - index)
