"""The fingerprint of clips: the same for the same sounds and labels, wherever they lie, and another for others."""

import os
import shutil

import pytest
from datasets import Dataset

from hear_hf.data import fingerprints
from hear_hf.data.fingerprints import fingerprint
from hear_hf.data.labelled import DataArguments, load_labelled_audio
from hear_hf.data.sources import from_files
from helpers import write_tone


@pytest.fixture
def folder(tmp_path):
    for label, frequency in (("low", 200), ("high", 5000)):
        for i in range(6):
            write_tone(tmp_path / "tones" / label / f"{i}.wav", frequency, 0.2, seed=i)
    return tmp_path / "tones"


def of(folder):
    return fingerprint(load_labelled_audio(DataArguments(data_dir=str(folder)))["train"])


def embedded(folder):
    rows = [{"bytes": path.read_bytes(), "path": str(path)} for path in sorted(folder.rglob("*.wav"))]
    return Dataset.from_dict({"audio": rows, "label": [0, 1] * 6})


def streamed(folder):
    return from_files(sorted(folder.rglob("*.wav")), streaming=True)


def test_a_folder_that_was_copied_anew_counts_as_the_same(folder, tmp_path):
    before = of(folder)
    copy = shutil.copytree(folder, tmp_path / "elsewhere", copy_function=shutil.copyfile)
    os.utime(folder / "low" / "0.wav", (0, 0))
    assert of(copy) == of(folder) == before


def test_the_same_sounds_under_other_labels_count_as_others(folder):
    before = of(folder)
    (folder / "low").rename(folder / "other")
    (folder / "high").rename(folder / "low")
    (folder / "other").rename(folder / "high")
    assert of(folder) != before


def test_swapped_labels_of_a_table_count_as_others(folder):
    clips = embedded(folder)
    swapped = clips.remove_columns("label").add_column("label", [1, 0] * 6)
    assert fingerprint(swapped) != fingerprint(clips)


@pytest.mark.parametrize("read", [embedded, streamed])
def test_another_sound_of_the_same_size_counts_as_another(folder, read):
    before, path = fingerprint(read(folder)), folder / "low" / "3.wav"
    size = path.stat().st_size
    write_tone(path, 300, 0.2, seed=3)
    assert path.stat().st_size == size and fingerprint(read(folder)) != before


def test_of_many_clips_some_of_the_whole_set_are_read(folder, monkeypatch):
    clips, opened = embedded(folder), []
    monkeypatch.setattr(fingerprints, "MAX_CLIPS", 4)
    monkeypatch.setattr(fingerprints, "_sound", lambda audio: opened.append(audio["path"]) or ("", 0, b""))
    fingerprint(clips)
    assert opened == [audio["path"] for audio in clips["audio"][::3]]


def of_name(name):
    return fingerprint(Dataset.from_dict({"audio": [{"bytes": None, "path": str(name)}]}))


@pytest.mark.timeout(60)
def test_a_named_pipe_counts_by_its_name_and_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "x.wav")
    assert of_name(tmp_path / "x.wav") == of_name("/a/x.wav")


def test_a_clip_that_is_not_here_counts_by_its_name():
    assert of_name("/a/x.wav") == of_name("hf://datasets/b/c@d/x.wav") != of_name("/a/y.wav")
