"""The one reader of files and tables, for labelled and unlabelled clips alike, against what the tests wrote."""

import io
import json
import os

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile

from hear_hf.data import sources
from hear_hf.data.labelled import DataArguments, load_labelled_audio, load_splits
from hear_hf.data.sources import audio_files, find_files, read_tables, undecoded, with_absolute_paths
from hear_hf.data.unlabelled import PretrainingDataArguments, load_unlabelled_audio

RATE = 16_000


def encoded(seed=0):
    file = io.BytesIO()
    soundfile.write(file, 0.1 * np.random.default_rng(seed).standard_normal(RATE // 5).clip(-3, 3), RATE, format="WAV")
    return file.getvalue()


def write_clips(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(encoded())


def read(*paths, column="audio", streaming=False):
    """The rows of tables, with absolute paths, as they are and as `load_labelled_audio` reads them."""
    rows = []
    for table, folder in read_tables(list(paths), streaming):
        rows += list(with_absolute_paths(undecoded(table, column), column, folder))
    return rows


def path_of(audio):
    return audio["path"] if isinstance(audio, dict) else audio


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path_factory.mktemp("cache"))


# Files


@pytest.mark.parametrize("labelled", [False, True])
def test_a_path_that_exists_is_that_file_and_others_are_patterns(tmp_path, labelled):
    write_clips(tmp_path, *(f"{i}.wav" for i in range(4)))
    for i, name in enumerate(["a.csv", "b.csv", "[ab].csv"]):
        (tmp_path / name).write_text(f"audio,label\n{i}.wav,x\n3.wav,y\n")

    def read_first(pattern):
        if labelled:
            splits = load_splits(DataArguments(train_file=[str(tmp_path / pattern)]), seed=0)
            return [audio["path"] for audio in splits["train"]["audio"]][::2]
        args = PretrainingDataArguments(train_file=[str(tmp_path / pattern)], validation_share=0)
        return [audio["path"] for audio in load_unlabelled_audio(args)[0]["audio"]][::2]

    assert read_first("[ab].csv") == [str(tmp_path / "2.wav")]
    (tmp_path / "[ab].csv").unlink()
    assert read_first("[ab].csv") == [str(tmp_path / "0.wav"), str(tmp_path / "1.wav")]


def test_hidden_files_and_folders_are_no_clips(tmp_path):
    write_clips(tmp_path, "a.wav", "._a.wav", "deep/b.FLAC", "deep/._b.wav", ".trash/c.wav")
    (tmp_path / ".DS_Store").touch()
    assert audio_files(tmp_path) == [tmp_path / "a.wav", tmp_path / "deep" / "b.FLAC"]


def test_paths_are_absolute_wherever_the_command_was_started(tmp_path, monkeypatch):
    write_clips(tmp_path, "clips/a.wav")
    (tmp_path / "clips" / "table.csv").write_text("audio\na.wav\n")
    monkeypatch.chdir(tmp_path)
    expected = tmp_path / "clips" / "a.wav"
    assert audio_files("clips") == find_files(["clips/*.wav"], [".wav"]) == [expected]
    (row,) = read(*find_files(["clips/table.csv"], [".csv"]))
    assert row["audio"]["path"] == str(expected)


# Tables


@pytest.mark.parametrize("suffix", ["csv", "tsv"])
@pytest.mark.parametrize("streaming", [False, True])
def test_columns_of_text_tables_are_text_without_missing_values(tmp_path, suffix, streaming):
    write_clips(tmp_path, "a.wav")
    values = ["01", "none", "NA", "", "1.0", "true"]
    table = pd.DataFrame({"audio": ["a.wav"] * 6, "label": values})
    table.to_csv(tmp_path / f"t.{suffix}", sep=sources.SEPARATORS[f".{suffix}"], index=False)
    assert [row["label"] for row in read(tmp_path / f"t.{suffix}", streaming=streaming)] == values


@pytest.mark.parametrize("streaming", [False, True])
def test_neighbours_of_different_columns_are_each_read_whole(tmp_path, streaming):
    write_clips(tmp_path, "a.wav")
    (tmp_path / "1.csv").write_text("audio,label\na.wav,x\n")
    (tmp_path / "2.csv").write_text("label,fold,audio\ny,3,a.wav\n")
    rows = read(tmp_path / "1.csv", tmp_path / "2.csv", streaming=streaming)
    assert [row["label"] for row in rows] == ["x", "y"] and rows[1]["fold"] == "3" and "fold" not in rows[0]
    assert all(path_of(row["audio"]) == str(tmp_path / "a.wav") for row in rows)


def test_labelled_tables_of_one_folder_with_different_columns_are_an_error(tmp_path):
    write_clips(tmp_path, "a.wav")
    (tmp_path / "1.csv").write_text("audio,label\na.wav,x\n")
    (tmp_path / "2.csv").write_text("audio,label,fold\na.wav,y,3\n")
    with pytest.raises(ValueError, match="must have the same columns"):
        load_labelled_audio(DataArguments(train_file=[str(tmp_path / "*.csv")]))


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl"])
@pytest.mark.parametrize(
    ("encoding", "named"),
    [
        ("latin-1", "ISO-8859-1"),
        ("cp1252", "WINDOWS-1252"),
        ("utf-16", "UTF-16"),
        ("utf-16-le", "UTF-16"),
        ("utf-32", "UTF-32"),
    ],
)
@pytest.mark.parametrize("line", [2, 200_000])
def test_text_that_is_no_utf_8_is_named_with_its_encoding_and_the_remedy(tmp_path, suffix, encoding, named, line):
    label = "“café”" if encoding == "cp1252" else "café"
    text = "audio,label\n" + "a.wav,x\n" * (line - 2) + f"a.wav,{label}\n"
    (tmp_path / f"t.{suffix}").write_bytes(text.encode(encoding))
    first = r"\d" if named in ("UTF-16", "UTF-32") else line
    remedy = rf"probably {named}\..*iconv -f {named} -t UTF-8 t\.{suffix} > utf8_t\.{suffix}"
    with pytest.raises(ValueError, match=rf"t\.{suffix} must be text in UTF-8, found .* in line {first}, {remedy}"):
        read(tmp_path / f"t.{suffix}")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.jsonl", b'{"audio": "a.wav", "label": "cat"}\n{"audio"'),
        ("t.csv", b"audio,label\na.wav,cat\na.wav,cat,dog\n"),
        ("t.csv", b'audio,label\n"a.wav,cat\n'),
        ("t.parquet", b"no table"),
    ],
)
def test_a_table_that_cannot_be_read_is_named(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=f"{name} must be a table that can be read, found: .*Correct it"):
        list(read_tables([tmp_path / name]))


@pytest.mark.parametrize("mark", [";", "\t", "|"])
def test_columns_separated_otherwise_are_named_with_the_remedy(tmp_path, mark):
    (tmp_path / "t.csv").write_text(f"audio{mark}label\na.wav{mark}cat\n")
    with pytest.raises(ValueError, match="columns of .*t.csv must be separated by ',', found .* 'audio.*label'"):
        list(read_tables([tmp_path / "t.csv"]))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_text_in_utf_8_is_read_with_and_without_a_byte_order_mark(tmp_path, encoding):
    write_clips(tmp_path, "é.wav")
    (tmp_path / "t.csv").write_bytes("audio,label\né.wav,café\n".encode(encoding))
    assert [row["label"] for row in read(tmp_path / "t.csv")] == ["café"]


@pytest.mark.parametrize("content", ["", "audio,label\n"])
@pytest.mark.parametrize("streaming", [False, True])
def test_a_table_without_rows_is_named(tmp_path, content, streaming):
    (tmp_path / "empty.csv").write_text(content)
    with pytest.raises(ValueError, match=r"empty\.csv must hold clips, found none"):
        read(tmp_path / "empty.csv", streaming=streaming)


@pytest.mark.parametrize("suffix", ["json", "parquet"])
@pytest.mark.parametrize("streaming", [False, True])
def test_other_tables_without_rows_are_errors_too(tmp_path, suffix, streaming):
    if suffix == "json":
        (tmp_path / "empty.json").write_text("[]")
    else:
        pq.write_table(pa.table({"audio": pa.array([], pa.string())}), tmp_path / "empty.parquet")
    with pytest.raises(ValueError, match="must hold clips, found none"):
        read(tmp_path / f"empty.{suffix}", streaming=streaming)


@pytest.mark.parametrize("streaming", [False, True])
def test_rows_of_paths_bytes_and_nothing_may_be_mixed(tmp_path, streaming):
    write_clips(tmp_path, "sub/a.wav", "b.wav")
    struct = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    rows = [
        {"bytes": None, "path": "sub/a.wav"},
        {"bytes": encoded(7), "path": "embedded.wav"},
        None,
        {"bytes": None, "path": None},
        {"bytes": None, "path": ""},
        {"bytes": None, "path": str(tmp_path / "b.wav")},
    ]
    pq.write_table(pa.table({"label": list("abcdef"), "audio": pa.array(rows, struct)}), tmp_path / "t.parquet")
    found = read(tmp_path / "t.parquet", streaming=streaming)
    first, embedded, *empty, last = (row["audio"] for row in found)
    assert [row["label"] for row in found] == list("abcdef") and empty == [None] * 3
    assert (first["path"], last["path"]) == (str(tmp_path / "sub" / "a.wav"), str(tmp_path / "b.wav"))
    assert embedded == {"bytes": encoded(7), "path": "embedded.wav"} and first["bytes"] is last["bytes"] is None


@pytest.mark.parametrize("streaming", [False, True])
def test_a_table_in_the_wrong_folder_is_refused_after_a_few_of_its_paths(tmp_path, monkeypatch, streaming):
    monkeypatch.setattr(sources, "NUM_PATHS_TRIED", 5)
    (tmp_path / "t.csv").write_text("audio\n" + "".join(f"{i}.wav\n" for i in range(100)))
    with pytest.raises(ValueError, match=r"found no file; 5 were tried, the first .*0\.wav. Move the table beside"):
        read(tmp_path / "t.csv", streaming=streaming)


@pytest.mark.parametrize("streaming", [False, True])
def test_not_every_path_of_a_large_table_is_looked_at(tmp_path, monkeypatch, streaming):
    write_clips(tmp_path, "3.wav", "99.wav")
    (tmp_path / "t.csv").write_text("audio\n" + "".join(f"{i}.wav\n" for i in range(100)))
    looked_at, isfile = [], os.path.isfile
    monkeypatch.setattr(os.path, "isfile", lambda path: looked_at.append(str(path)) or isfile(path))
    monkeypatch.setattr(sources, "NUM_PATHS_TRIED", 5)
    assert len(read(tmp_path / "t.csv", streaming=streaming)) == 100
    assert len([path for path in looked_at if path.endswith(".wav")]) <= 5


def test_a_column_of_nothing_is_an_error(tmp_path):
    (tmp_path / "t.jsonl").write_text("\n".join(json.dumps({"audio": value, "n": 1}) for value in ("", "")))
    with pytest.raises(ValueError, match="'audio' must hold audio, found only empty rows"):
        read(tmp_path / "t.jsonl")


def test_paths_as_windows_writes_them_are_told_how_to_write_them(tmp_path):
    write_clips(tmp_path, "clips/a.wav", "clips/b.wav")
    (tmp_path / "train.csv").write_text("audio,label\nclips\\a.wav,x\nclips\\b.wav,y\n")
    with pytest.raises(ValueError, match=r"found no file; 2 were tried.* Write / in place of \\\."):
        load_labelled_audio(DataArguments(train_file=[str(tmp_path / "train.csv")]))


@pytest.mark.parametrize("arguments", [DataArguments, PretrainingDataArguments])
def test_one_table_may_be_given_without_a_list(arguments):
    assert arguments(train_file="train.csv").train_file == ["train.csv"]
    assert DataArguments(train_file="train.csv", test_file="test.csv").test_file == ["test.csv"]
