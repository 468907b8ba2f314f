"""Labels and rows as people write them: what is taken for one class, for several labels, and for one clip."""

import io
import json
import logging
import unicodedata

import datasets
import numpy as np
import pytest
import soundfile
from datasets import Audio, ClassLabel, Dataset, List

from hear_hf.arguments import parse_arguments
from hear_hf.data.labelled import DataArguments, load_labelled_audio
from hear_hf.sharing.datasets import DatasetArguments

BUFFER = io.BytesIO()
soundfile.write(BUFFER, 0.1 * np.random.default_rng(0).standard_normal(800), 16_000, format="WAV")


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def write_table(path, rows, **columns):
    """JSON Lines of `rows` of (file, label), with the clips beside it."""
    for name, _ in rows:
        (path.parent / name).write_bytes(BUFFER.getvalue())
    table = [{"audio": name, "label": label} for name, label in rows]
    for column, values in columns.items():
        for row, value in zip(table, values, strict=True):
            row[column] = value
    path.write_text("\n".join(map(json.dumps, table)))
    return [str(path)]


def numbered(labels):
    return [(f"{index}.wav", label) for index, label in enumerate(labels)]


def load(folder, labels, **arguments):
    file = write_table(folder / "train.jsonl", numbered(labels))
    return load_labelled_audio(DataArguments(train_file=file, **arguments))


# Several labels a clip


def test_a_semicolon_makes_labels_several_and_says_so(tmp_path, caplog):
    splits = load(tmp_path, ["dog", "cat", "Speech; male", "dog"] * 2)
    assert splits["train"].features["label"] == List(ClassLabel(names=["Speech", "cat", "dog", "male"]))
    assert "2 of 8 labels hold ';', the first 'Speech; male'" in caplog.text
    assert "--multi_label, or keep such names whole with --multi_label False" in caplog.text


def test_names_with_a_semicolon_stay_whole_on_request(tmp_path, caplog):
    splits = load(tmp_path, ["dog", "Speech; male"] * 3, multi_label=False)
    assert splits["train"].features["label"] == ClassLabel(names=["Speech; male", "dog"]) and not caplog.records


def test_who_asks_for_several_labels_is_not_warned(tmp_path, caplog):
    load(tmp_path, ["dog;cat", "cat", "dog"] * 3, multi_label=True)
    assert not caplog.records


def test_lists_contradict_a_single_label(tmp_path):
    with pytest.raises(ValueError, match="With --multi_label False each clip must have one label, found lists"):
        load(tmp_path, [["dog", "cat"], ["cat"]] * 3, multi_label=False)


@pytest.mark.parametrize("options", [DataArguments, DatasetArguments])
@pytest.mark.parametrize(
    ("words", "expected"), [([], None), (["--multi_label"], True), (["--multi-label", "False"], False)]
)
def test_the_option_is_a_flag_with_a_third_state(options, words, expected):
    (arguments,) = parse_arguments(options, words)
    assert arguments.multi_label is expected


# Names of classes


@pytest.mark.parametrize("other", ["dog ", " dog", "dog\t", "dog\N{NO-BREAK SPACE}", "dog\u200b", "\ufeffdog"])
def test_labels_that_differ_in_spaces_at_their_ends_are_one_class_with_a_warning(tmp_path, caplog, other):
    splits = load(tmp_path, ["dog", "cat", other] * 3)
    assert splits["train"].features["label"].names == ["cat", "dog"]
    assert "spaces at their ends" in caplog.text and ascii(sorted(["dog", other])) in caplog.text


def test_accents_may_be_encoded_in_two_ways(tmp_path, caplog):
    splits = load(tmp_path, ["caf\xe9", "tea", unicodedata.normalize("NFD", "caf\xe9")] * 3)
    assert splits["train"].features["label"].names == ["caf\xe9", "tea"]
    assert r"['cafe\u0301', 'caf\xe9']" in caplog.text


def test_labels_of_other_splits_are_merged_in_the_same_way(tmp_path):
    train = write_table(tmp_path / "train.jsonl", numbered(["a", "b"] * 3))
    test = write_table(tmp_path / "test.jsonl", [("x.wav", "a "), ("y.wav", "b")])
    splits = load_labelled_audio(DataArguments(train_file=train, test_file=test))
    assert splits["test"]["label"][:] == [0, 1]


@pytest.mark.parametrize(
    ("one", "other"), [("Dog", "dog"), ("a b", "a\u00a0b"), ("a b", "a  b"), ("A", "\uff21"), ("ab", "a\u200bb")]
)
def test_labels_that_look_the_same_stay_two_classes_with_a_warning(tmp_path, caplog, one, other):
    splits = load(tmp_path, [one, other, "cat"] * 3)
    assert sorted(splits["train"].features["label"].names) == sorted([one, other, "cat"])
    assert f"look the same stay classes apart: {sorted([one, other])}" in caplog.text


def test_a_label_of_spaces_alone_is_none(tmp_path):
    with pytest.raises(ValueError, match="found 1 of 3 in the train split without"):
        load(tmp_path, ["a", "b", "  "])


# Rows that are listed twice


def test_a_link_to_a_clip_is_that_clip(tmp_path, caplog):
    file = write_table(tmp_path / "train.jsonl", numbered("abab") + [("link.wav", "a")])
    (tmp_path / "link.wav").unlink()
    (tmp_path / "link.wav").symlink_to("0.wav")
    load_labelled_audio(DataArguments(train_file=file))
    assert "listed several times: 1" in caplog.text


def test_rows_that_say_they_are_of_another_split_are_counted(tmp_path, caplog):
    split = ["train", "train", "Test", "test", "train", "val"]
    file = write_table(tmp_path / "train.jsonl", numbered("ababab"), split=split)
    load_labelled_audio(DataArguments(train_file=file))
    said = "The column 'split' of the train split is not read, and says of 3 of 6 clips that they are of"
    assert f"{said} ['Test', 'test', 'val']" in caplog.text


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("again", ["{}.wav", "./{}.wav", "../clips/{}.wav"])
def test_a_clip_listed_again_is_never_in_train_and_validation(tmp_path, caplog, seed, again):
    (tmp_path / "clips").mkdir()
    rows = [(f"{i}.wav", "ab"[i % 2]) for i in range(10)]
    rows += [(again.format(i), "ab"[i % 2]) for i in range(10) if i not in (3, 4)]
    file = write_table(tmp_path / "clips" / "train.jsonl", rows)
    splits = load_labelled_audio(DataArguments(train_file=file, validation_share=0.4), seed)
    names = {split: {audio["path"].split("/")[-1] for audio in dataset["audio"]} for split, dataset in splits.items()}
    assert not names["train"] & names["validation"] and len(names["train"] | names["validation"]) == 10
    assert sum(map(len, splits.values())) == 18
    assert "Clips of the train split that are listed several times: 8, of them with different labels: 0" in caplog.text


def test_a_clip_stored_twice_is_never_in_train_and_validation(tmp_path):
    clips = [{"bytes": BUFFER.getvalue() + bytes([i % 8]), "path": None} for i in range(16)]
    table = Dataset.from_dict({"audio": clips, "label": ["a", "b"] * 8})
    table.cast_column("audio", Audio(decode=False)).to_parquet(tmp_path / "t.parquet")
    splits = load_labelled_audio(DataArguments(train_file=[str(tmp_path / "t.parquet")], validation_share=0.4))
    encoded = {split: {audio["bytes"] for audio in dataset["audio"]} for split, dataset in splits.items()}
    assert len(encoded["train"]) + len(encoded["validation"]) == 8


def test_groups_that_share_a_clip_stay_together(tmp_path):
    rows = [(f"{i}.wav", "ab"[i % 2]) for i in range(12)] + [("0.wav", "a")]
    groups = [str(i // 4) for i in range(12)] + ["2"]  # 0.wav is in the groups 0 and 2
    file = write_table(tmp_path / "train.jsonl", rows, speaker=groups)
    splits = load_labelled_audio(DataArguments(train_file=file, group_column="speaker", validation_share=0.3))
    assert {audio["path"].split("/")[-1] for audio in splits["validation"]["audio"]} == {
        f"{i}.wav" for i in range(4, 8)
    }


def test_a_clip_with_two_labels_is_counted_and_named(tmp_path, caplog):
    rows = [*numbered(["a", "b"] * 4), ("3.wav", "a")]
    load_labelled_audio(DataArguments(train_file=write_table(tmp_path / "train.jsonl", rows)))
    assert "that are listed several times: 1, of them with different labels: 1" in caplog.text
    assert f"The first is {tmp_path / '3.wav'}" in caplog.text


def test_clips_of_train_in_another_split_are_counted_and_named(tmp_path, caplog):
    train = write_table(tmp_path / "train.jsonl", numbered(["a", "b"] * 4))
    test = write_table(tmp_path / "test.jsonl", [("0.wav", "a"), ("new.wav", "b")])
    with caplog.at_level(logging.WARNING):
        load_labelled_audio(DataArguments(train_file=train, test_file=test))
    assert "Clips of the test split that are in train too: 1 of 2." in caplog.text
    assert f"The first is {tmp_path / '0.wav'}" in caplog.text
