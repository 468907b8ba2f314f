"""Folders of labelled clips as people have them, against the splits and labels that their owners mean."""

import io
import json
import os
import unicodedata

import datasets
import numpy as np
import pytest
import soundfile

from hear_hf.data.annotated import AnnotatedDataArguments, load_annotated_audio
from hear_hf.data.folders import load_folder
from hear_hf.data.labelled import DataArguments, load_labelled_audio
from hear_hf.data.soundscapes import SoundscapeArguments
from hear_hf.data.sources import audio_files
from hear_hf.data.unlabelled import PretrainingDataArguments, load_unlabelled_audio

BUFFER = io.BytesIO()
soundfile.write(BUFFER, 0.1 * np.random.default_rng(0).standard_normal(800), 16_000, format="WAV")
CLIP = BUFFER.getvalue()


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


def write(folder, *names, content=CLIP):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def write_metadata(path, rows, **columns):
    """A metadata file of `rows` {name: label}, and the clips that it lists."""
    write(path.parent, *rows)
    table = [{"file_name": name, "label": label} | {key: "s" for key in columns} for name, label in rows.items()]
    if path.suffix == ".jsonl":
        path.write_text("\n".join(map(json.dumps, table)))
    else:
        path.write_text("\n".join([",".join(table[0]), *(",".join(row.values()) for row in table)]))


def found(folder, label_column="label"):
    """Of each split the labels by the paths below the folder."""
    return {
        split: {os.path.relpath(row["audio"]["path"], folder): row["label"] for row in dataset}
        for split, dataset in load_folder(folder, label_column).items()
    }


# Hugging Face's audiofolder


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl"])
@pytest.mark.parametrize("splits", [("train", "test"), ("Train", "TEST"), ("training", "Val")])
def test_each_split_s_metadata_names_its_labels(tmp_path, name, splits):
    for split in splits:
        write_metadata(tmp_path / split / name, {"0.wav": "cat", "sub/1.wav": "dog", "2.wav": "dog"})
    ours = {"training": "train", "val": "validation"}
    assert found(tmp_path) == {
        ours.get(split.lower(), split.lower()): {
            f"{split}/0.wav": "cat",
            f"{split}/sub/1.wav": "dog",
            f"{split}/2.wav": "dog",
        }
        for split in splits
    }
    splits = load_labelled_audio(DataArguments(data_dir=str(tmp_path), validation_share=0.4, max_unusable_share=0))
    assert splits["train"].features["label"].names == ["cat", "dog"]


def test_clips_beside_their_metadata_and_below_it_are_one_split(tmp_path):
    rows = {"./0.wav": "cat", "data/a train.wav": "dog", "data/test.wav": "cat"}
    write_metadata(tmp_path / "metadata.csv", rows)
    assert found(tmp_path) == {"train": {os.path.normpath(name): label for name, label in rows.items()}}


def test_one_metadata_file_above_all_splits_is_divided_by_their_folders(tmp_path):
    rows = {"data/train/0.wav": "cat", "data/test/0.wav": "dog", "data/train/1.wav": "dog"}
    write_metadata(tmp_path / "metadata.jsonl", rows)
    assert found(tmp_path) == {
        "train": {"data/train/0.wav": "cat", "data/train/1.wav": "dog"},
        "test": {"data/test/0.wav": "dog"},
    }


def test_the_metadata_of_several_folders_are_joined(tmp_path):
    for batch in ("batch1", "batch2"):
        write_metadata(tmp_path / batch / "metadata.csv", {"0.wav": "cat"})
    assert found(tmp_path) == {"train": {"batch1/0.wav": "cat", "batch2/0.wav": "cat"}}


def test_further_columns_of_the_metadata_are_kept(tmp_path):
    write_metadata(tmp_path / "metadata.csv", {f"{i}.wav": "ab"[i % 2] for i in range(6)}, speaker="s")
    splits = load_labelled_audio(DataArguments(data_dir=str(tmp_path)), keep_columns=("speaker",))
    assert splits["train"].column_names == ["audio", "speaker", "label"]


def test_the_label_column_may_have_another_name(tmp_path):
    write(tmp_path, "0.wav")
    (tmp_path / "metadata.csv").write_text("file_name,species,label\n0.wav,wren,7\n")
    assert found(tmp_path, "species") == {"train": {"0.wav": "wren"}}


def test_metadata_without_labels_leave_the_class_folders_their_say(tmp_path):
    write(tmp_path, "dog/0.wav", "cat/0.wav")
    (tmp_path / "metadata.csv").write_text("file_name,transcription\ndog/0.wav,woof\n")
    assert found(tmp_path) == {"train": {"cat/0.wav": "cat", "dog/0.wav": "dog"}}


def test_metadata_without_labels_or_class_folders_name_the_option(tmp_path):
    write(tmp_path, "0.wav")
    (tmp_path / "metadata.csv").write_text("file_name,species\n0.wav,wren\n")
    with pytest.raises(
        ValueError, match=r"--label_column_name.*metadata.csv with the columns \['file_name', 'species'\]"
    ):
        load_folder(tmp_path, "label")


def test_recordings_that_the_metadata_do_not_list_are_counted_and_named(tmp_path, caplog):
    write_metadata(tmp_path / "metadata.csv", {"0.wav": "cat"})
    write(tmp_path, "more/1.wav")
    load_folder(tmp_path, "label")
    assert f"Left out of {tmp_path}, as no row of the metadata lists them: more/1.wav (1 in all)" in caplog.text


def test_a_row_without_a_path_is_an_unusable_clip_and_dots_in_paths_are_resolved(tmp_path, caplog):
    write(tmp_path, "clips/0.wav", "clips/1.wav", "clips/2.wav")
    rows = "file_name,label\n../clips/0.wav,a\n,b\n1.wav,b\n2.wav,b\n"
    (tmp_path / "clips" / "metadata.csv").write_text(rows)
    splits = load_labelled_audio(DataArguments(data_dir=str(tmp_path), max_unusable_share=0.3))
    assert sum(map(len, splits.values())) == 3 and "Skipped 1 of 4 clips" in caplog.text
    assert "Left out" not in caplog.text


def test_clips_inside_and_outside_split_folders_are_an_error(tmp_path):
    write_metadata(tmp_path / "metadata.csv", {"train/0.wav": "cat", "1.wav": "dog"})
    with pytest.raises(ValueError, match=r"split folders .*, or none, found 1 outside, the first .*1\.wav"):
        load_folder(tmp_path, "label")


def test_two_metadata_files_in_one_folder_are_an_error(tmp_path):
    for name in ("metadata.csv", "metadata.jsonl"):
        write_metadata(tmp_path / name, {"0.wav": "cat"})
    with pytest.raises(ValueError, match="must hold one file of metadata, found several"):
        load_folder(tmp_path, "label")


def test_splits_without_one_to_train_on_are_an_error(tmp_path):
    write_metadata(tmp_path / "test" / "metadata.csv", {"0.wav": "cat"})
    with pytest.raises(ValueError, match=r"must hold clips to train on, .* found only: \['test'\]"):
        load_folder(tmp_path, "label")


# Class folders


@pytest.mark.parametrize("names", [("train", "test"), ("Train", "Val", "Test")])
def test_split_folders_without_labels_are_no_classes(tmp_path, names):
    write(tmp_path, *(f"{name}/{i}.wav" for name in names for i in range(3)))
    with pytest.raises(ValueError, match=f"{names[0]} must hold one sub-folder .* or a metadata.csv"):
        load_folder(tmp_path, "label")


def test_split_folders_of_any_case_stand_above_class_folders(tmp_path):
    write(tmp_path, *(f"{split}/{label}/0.wav" for split in ("Train", "VALID", "Testing") for label in ("a", "b")))
    assert {split: list(rows.values()) for split, rows in found(tmp_path).items()} == {
        split: ["a", "b"] for split in ("train", "validation", "test")
    }


def test_folders_below_a_class_folder_are_no_classes(tmp_path):
    write(tmp_path, "a/0.wav", "a/session1/1.wav", "a/session1/take2/2.wav", "b/monday/3.wav")
    assert found(tmp_path) == {
        "train": {"a/0.wav": "a", "a/session1/1.wav": "a", "a/session1/take2/2.wav": "a", "b/monday/3.wav": "b"}
    }


@pytest.mark.parametrize(
    "names", [("dog/train/0.wav", "dog/test/0.wav", "cat/train/0.wav"), ("data/Train/dog/0.wav",)]
)
def test_split_folders_below_class_folders_are_not_mixed(tmp_path, names):
    write(tmp_path, *names)
    with pytest.raises(ValueError, match=r"Splits must be folders above the classes, found \['[Tt]"):
        load_folder(tmp_path, "label")


def test_splits_without_train_are_no_classes(tmp_path):
    write(tmp_path, "test/a/0.wav", "dev/b/0.wav")
    with pytest.raises(ValueError, match=r"must hold train/ beside its other splits, found: \['dev', 'test'\]"):
        load_folder(tmp_path, "label")


@pytest.mark.parametrize("names", [("train_set", "test_set"), ("train-clean", "test-clean"), ("fold1", "fold2")])
def test_classes_with_the_same_folders_inside_may_be_splits_and_are_named(tmp_path, names, caplog):
    write(tmp_path, *(f"{name}/{label}/0.wav" for name in names for label in ("cat", "dog")))
    load_folder(tmp_path, "label")
    assert f"The classes are {sorted(names)}, and each has the folders ['cat', 'dog']" in caplog.text


def test_a_name_whose_accents_are_stored_in_the_other_way_is_found(tmp_path):
    for form, other in (("NFC", "NFD"), ("NFD", "NFC")):
        written, listed = (unicodedata.normalize(one, "caf\xe9/th\xe9.wav") for one in (form, other))
        write(tmp_path / form / "train", written)
        (tmp_path / form / "train" / "metadata.csv").write_text(f"file_name,label\n{listed},tea", encoding="utf-8")
        assert found(tmp_path / form) == {"train": {f"train/{written}": "tea"}}


# Which files are clips


SUFFIXES = "wav wave bwf rf64 sph voc snd mp2 WAV xyz".split()


def test_what_soundfile_reads_is_a_clip_whatever_its_suffix(tmp_path):
    names = [f"a/clip.{suffix}" for suffix in SUFFIXES] + ["a/no_suffix"]
    write(tmp_path, *names, "b/0.wav")
    assert set(found(tmp_path)["train"]) == {*names, "b/0.wav"}


def test_what_is_no_audio_is_counted_and_named(tmp_path, caplog):
    write(tmp_path, "a/0.wav", "b/1.wav", "loose.wav")
    write(tmp_path, "a/notes.txt", "b/1.TextGrid", "a/samples.raw", content=b"xmin = 0\n" * 50)
    write(tmp_path, "b/windows.txt", content="Straße 1".encode("utf-16"))
    assert set(found(tmp_path)["train"]) == {"a/0.wav", "b/1.wav"}
    named = "a/notes.txt, a/samples.raw, b/1.TextGrid, b/windows.txt"
    assert f"Left out of {tmp_path}, as they hold no audio: {named} (4 in all)" in caplog.text
    assert f"Left out of {tmp_path}, as they lie in no class folder: loose.wav (1 in all)" in caplog.text


def test_what_systems_leave_behind_is_no_clip_and_not_worth_a_word(tmp_path, caplog):
    write(tmp_path, "a/0.wav", "b/0.wav")
    write(tmp_path, "a/._0.wav", "a/.DS_Store", "b/Thumbs.db", "b/desktop.ini", "__MACOSX/a/0.wav", "@eaDir/0.wav")
    assert audio_files(tmp_path) == [tmp_path / "a" / "0.wav", tmp_path / "b" / "0.wav"]
    assert set(found(tmp_path)["train"]) == {"a/0.wav", "b/0.wav"} and not caplog.records


@pytest.mark.timeout(60)
def test_a_named_pipe_is_left_out_and_not_waited_for(tmp_path, caplog):
    write(tmp_path, "a/0.wav", "b/0.wav")
    os.mkfifo(tmp_path / "metadata.csv")
    os.mkfifo(tmp_path / "a" / "0.txt")
    assert set(found(tmp_path)["train"]) == {"a/0.wav", "b/0.wav"} and "metadata.csv" in caplog.text
    with pytest.raises(ValueError, match="found none"):
        load_annotated_audio(AnnotatedDataArguments(data_dir=str(tmp_path)), SoundscapeArguments())


def test_links_to_folders_are_followed_but_not_in_circles(tmp_path):
    write_metadata(tmp_path / "disk" / "metadata.csv", {"0.wav": "cat", "1.wav": "dog"})
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "train").symlink_to(tmp_path / "disk", target_is_directory=True)
    (tmp_path / "disk" / "self").symlink_to(tmp_path / "disk", target_is_directory=True)
    assert found(tmp_path / "data") == {"train": {"train/0.wav": "cat", "train/1.wav": "dog"}}


def test_pretraining_counts_what_it_leaves_out_too(tmp_path, caplog):
    write(tmp_path, "a/0.wav", "a/deep/1.wave")
    write(tmp_path, "a/cover.jpg", content=b"\xff\xd8\xff\xe0 no sound")
    args = PretrainingDataArguments(data_dir=str(tmp_path), validation_share=0)
    assert len(load_unlabelled_audio(args)[0]) == 2
    assert f"Left out of {tmp_path}, as they hold no audio: a/cover.jpg (1 in all)" in caplog.text


@pytest.mark.skipif(os.name == "nt", reason="names of files are text on Windows")
@pytest.mark.parametrize("name", [b"a/caf\xe9.wav", b"caf\xe9/0.wav"])
def test_a_name_in_latin_1_bytes_is_named_with_the_remedy(tmp_path, name):
    write(tmp_path, "a/0.wav", "b/0.wav")
    try:
        write(tmp_path, os.fsdecode(name))
    except OSError:
        pytest.skip("this file system takes only UTF-8")
    with pytest.raises(ValueError, match=r"must be UTF-8, found 1 .*Latin-1, the first .*caf\\xe9.*convmv -f latin1"):
        load_folder(tmp_path, "label")
    with pytest.raises(ValueError, match="must be UTF-8"):
        load_unlabelled_audio(PretrainingDataArguments(data_dir=str(tmp_path)))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_a_named_pipe_is_no_clip_and_not_waited_for(tmp_path):
    write(tmp_path, "a/0.wav", "b/0.wav")
    os.mkfifo(tmp_path / "a" / "pipe")
    assert set(found(tmp_path)["train"]) == {"a/0.wav", "b/0.wav"}
