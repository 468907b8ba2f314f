"""`examples/push_dataset.py` on a few tones, against a Hub on the loopback interface."""

import json
import os
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from datasets import Audio, ClassLabel, List, load_dataset
from huggingface_hub import DatasetCard

import push_dataset
from hear_hf.data.labelled import DataArguments, load_labelled_audio
from hear_hf.sharing import datasets
from local_hub import connect

REPOSITORY = ("datasets", "alice/tones")
LABELS = ["<i>high</i>", "low: `0`"]


def write_tone(path, frequency=440, seconds=0.2):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.3 * np.sin(2 * np.pi * frequency * np.arange(int(seconds * 8000)) / 8000), 8000)
    return path


@pytest.fixture
def folder(tmp_path):
    """Two splits of two classes, one folder per class."""
    for split in ("train", "test"):
        for i in range(3):
            for name in ("high", "low: `0`"):
                write_tone(tmp_path / "tones" / split / name / f"{i}.wav", 300 + 100 * i)
    return tmp_path / "tones"


@pytest.fixture
def table(tmp_path):
    """A table with a speaker and the absolute path of each clip's first recording."""
    rows = ["audio,label,speaker,original"]
    for i in range(4):
        path = write_tone(tmp_path / "clips" / f"{i}.wav", 300 + 100 * i)
        rows.append(f"clips/{i}.wav,{LABELS[i % 2]},s{i % 3},{path}")
    (tmp_path / "train.csv").write_text("\n".join(rows))
    return tmp_path / "train.csv"


def push(*arguments, to="alice/tones"):
    push_dataset.main([*map(str, arguments[:1]), to, *map(str, arguments[1:])])


def refused(*arguments, **options):
    with pytest.raises(SystemExit) as failure:
        push(*arguments, **options)
    return failure.value.code


def files_of(hub):
    return hub.repositories[REPOSITORY].main.files


def test_a_folder_comes_back_by_load_dataset_with_audio_and_class_label(folder, hub, tmp_path, capsys):
    push(folder, "--private")
    assert "The downloaded clips and labels are the same." in capsys.readouterr().out
    script = (
        "import json, sys; from datasets import Audio, load_dataset\n"
        "splits = load_dataset('alice/tones')\n"
        "clip = splits['test'].cast_column('audio', Audio(decode=False))[5]\n"
        "found = [str(splits['train'].features), len(splits['train']), clip['audio']['bytes'].hex(), clip['label']]\n"
        "open(sys.argv[1], 'w').write(json.dumps(found))"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "found.json")]
    result = subprocess.run(
        command, env=os.environ | {"HF_HOME": str(tmp_path / "home")}, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    features, length, encoded, label = json.loads((tmp_path / "found.json").read_text())
    assert "Audio(" in features and "ClassLabel(names=['high', 'low: `0`'])" in features
    assert (length, label) == (6, 1)
    assert bytes.fromhex(encoded) == (folder / "test" / "low: `0`" / "2.wav").read_bytes()


def test_an_audiofolder_goes_up_with_the_labels_and_columns_of_its_metadata(hub, tmp_path, capsys):
    for split in ("Train", "Test"):
        for i in range(3):
            write_tone(tmp_path / split / f"{i}.wav", 300 + 100 * i)
        rows = [f"{i}.wav,{LABELS[i % 2]},s{i}" for i in range(3)]
        (tmp_path / split / "metadata.csv").write_text("\n".join(["file_name,label,speaker", *rows]))
    push(tmp_path)
    (tmp_path / "shard.parquet").write_bytes(files_of(hub)["data/test-00000-of-00001.parquet"])
    rows = pq.read_table(tmp_path / "shard.parquet").to_pylist()
    assert [(row["label"], row["speaker"]) for row in rows] == [(0, "s0"), (1, "s1"), (0, "s2")]


def test_everything_goes_up_in_one_commit(folder, hub):
    push(folder)
    assert len(hub.repositories[REPOSITORY].commits) == 2  # the Hub's own first one, and ours
    names = {"README.md", "data/train-00000-of-00001.parquet", "data/test-00000-of-00001.parquet"}
    assert set(files_of(hub)) == names | {".gitattributes"}


def test_no_folder_of_this_machine_goes_up(table, hub, tmp_path):
    push(table)
    for content in files_of(hub).values():
        assert str(tmp_path).encode() not in content
    (tmp_path / "shard").write_bytes(files_of(hub)["data/train-00000-of-00001.parquet"])
    rows = pq.read_table(tmp_path / "shard").to_pylist()
    assert (
        [row["audio"]["path"] for row in rows] == [row["original"] for row in rows] == [f"{i}.wav" for i in range(4)]
    )


def read_back(hub, tmp_path, split="train"):
    """The rows of a split's only file."""
    (tmp_path / "shard").write_bytes(files_of(hub)[f"data/{split}-00000-of-00001.parquet"])
    return pq.read_table(tmp_path / "shard").to_pylist()


def test_paths_below_the_source_are_names_at_any_depth_and_text_stays_as_it_is(hub, tmp_path):
    clips = [str(write_tone(tmp_path / "my clips" / f"{i}.wav")) for i in range(2)]
    text = {
        "ipa": "/kæt/",
        "group": "/r/birds is great",
        "note": "C:\\x",
        "web": "file:///etc/hosts",
        "odd": "file://[x",
        "near": f"{tmp_path}2/x",
    }
    below = {"folder": str(tmp_path), "double": f"{tmp_path}//my clips/../my clips/0.wav", "bare": f"file:{clips[0]}"}
    nested = {
        "paths": [clips[0], "/kæt/"],
        "meta": {"url": (tmp_path / "my clips" / "1.wav").as_uri(), "deep": [{"path": clips[1], "n": 1.5}]},
    }
    text_and_paths = text | below | nested
    rows = [{"audio": clip, "label": label, **text_and_paths} for clip, label in zip(clips, "ab", strict=True)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    push(tmp_path / "train.jsonl")
    row = read_back(hub, tmp_path)[0]
    assert {name: row[name] for name in text} == text
    assert [row[name] for name in below] == [tmp_path.name, "0.wav", "0.wav"]
    assert row["paths"] == ["0.wav", "/kæt/"]
    assert row["meta"] == {"url": "1.wav", "deep": [{"path": "1.wav", "n": 1.5}]}


def test_a_path_below_a_source_that_is_reached_by_a_link_is_a_name_too(hub, tmp_path):
    clips = [write_tone(tmp_path / "real" / f"{i}.wav") for i in range(2)]
    (tmp_path / "link").symlink_to(tmp_path / "real")
    rows = ["audio,label,original", f"0.wav,a,{clips[0]}", f"1.wav,b,{tmp_path}/link/1.wav"]
    (tmp_path / "real" / "train.csv").write_text("\n".join(rows))
    push(tmp_path / "link" / "train.csv")
    assert [row["original"] for row in read_back(hub, tmp_path)] == ["0.wav", "1.wav"]


@pytest.mark.parametrize("column", ["speaker", "original", "label", "audio"])
def test_a_column_that_comes_back_otherwise_is_noticed(table, monkeypatch, column):
    write, changed = (
        datasets.write_shard,
        {"speaker": "s9", "original": "/x", "label": 1, "audio": {"bytes": b"", "path": None}},
    )
    monkeypatch.setattr(
        datasets,
        "write_shard",
        lambda rows, *others: write([rows[0] | {column: changed[column]}, *rows[1:]], *others),
    )
    assert "The split train must be as it was uploaded, found otherwise" in refused(table)


def test_numbers_dates_and_missing_values_come_back_as_they_were(hub, tmp_path, capsys):
    clips = [str(write_tone(tmp_path / f"{i}.wav")) for i in range(2)]
    columns = {
        "audio": clips,
        "label": ["a", "b"],
        "half": np.array([0.1, np.nan], dtype=np.float32),
        "when": np.array(["2024-05-01T10:00:00.5", "NaT"], dtype="datetime64[ns]"),
        "vector": [[1, 2], None],
        "blob": [b"\x00/", None],
    }
    pq.write_table(pa.table(columns), tmp_path / "train.parquet")
    push(tmp_path / "train.parquet")
    assert "The downloaded clips and labels are the same." in capsys.readouterr().out
    assert read_back(hub, tmp_path)[0]["vector"] == [1, 2]


def test_further_columns_of_a_table_are_kept(table, hub, tmp_path):
    push(table)
    (tmp_path / "back" / "data").mkdir(parents=True)
    (tmp_path / "back" / "data" / "train-0.parquet").write_bytes(files_of(hub)["data/train-00000-of-00001.parquet"])
    back = load_dataset(str(tmp_path / "back"), split="train", cache_dir=str(tmp_path / "cache"))
    assert back["speaker"][:] == ["s0", "s1", "s2", "s0"]
    assert back.features["label"] == ClassLabel(names=LABELS) and back.features["audio"] == Audio()


def test_clips_of_several_labels_are_lists_of_classes(hub, tmp_path):
    rows = [{"audio": write_tone(tmp_path / f"{i}.wav").name, "label": ["a", "b"][: i + 1]} for i in range(2)]
    (tmp_path / "train.jsonl").write_text("\n".join(map(json.dumps, rows)))
    push(tmp_path / "train.jsonl")
    metadata = DatasetCard(files_of(hub)["README.md"].decode()).data.to_dict()
    (tmp_path / "shard.parquet").write_bytes(files_of(hub)["data/train-00000-of-00001.parquet"])
    back = load_dataset("parquet", data_files=str(tmp_path / "shard.parquet"), cache_dir=str(tmp_path / "cache"))[
        "train"
    ]
    assert back.features["label"] == List(ClassLabel(names=["a", "b"])) and back["label"][1] == [0, 1]
    assert metadata["task_categories"] == ["audio-classification"]


def test_large_splits_are_cut_into_files(folder, hub, monkeypatch):
    monkeypatch.setattr(datasets, "MAX_SHARD_SIZE", 6000)
    push(folder)
    shards = [name for name in files_of(hub) if name.startswith("data/train-")]
    assert len(shards) == 3 and "data/train-00002-of-00003.parquet" in shards


def test_an_update_removes_the_files_of_earlier_ones(folder, hub):
    hub.create("alice/tones", "datasets", files={"data/train-00000-of-00009.parquet": b"", "notes.md": b"kept"})
    push(folder)
    assert "notes.md" in files_of(hub) and "data/train-00000-of-00009.parquet" not in files_of(hub)


def test_the_card_tells_the_hub_of_splits_features_and_sizes(table, hub):
    push(table, "--license", "cc0-1.0")
    card = DatasetCard(files_of(hub)["README.md"].decode())
    metadata = card.data.to_dict()
    assert metadata["license"] == "cc0-1.0" and metadata["size_categories"] == ["n<1K"]
    assert metadata["configs"] == [
        {"config_name": "default", "data_files": [{"split": "train", "path": "data/train-*"}]}
    ]
    assert metadata["dataset_info"]["splits"][0]["num_examples"] == 4
    assert "`<i>high</i>`: 2 train" in card.text and "`` low: `0` ``: 2 train" in card.text


def test_a_card_in_the_folder_is_kept_and_completed(folder, hub):
    (folder / "README.md").write_text("---\nlicense: cc-by-4.0\nsize_categories: [n>1T]\n---\n# Tones of mine\n")
    push(folder)
    card = DatasetCard(files_of(hub)["README.md"].decode())
    assert card.data.license == "cc-by-4.0" and card.text.strip() == "# Tones of mine"
    assert card.data.to_dict()["size_categories"] == ["n<1K"] and "configs" in card.data


def test_broken_clips_are_counted_named_and_refused(folder, hub, tmp_path):
    (folder / "train" / "high" / "broken.wav").write_bytes(b"no audio")
    (folder / "test" / "high" / "empty.wav").write_bytes(b"")
    message = refused(folder)
    assert "2 of 14 clips cannot be used" in message and "broken.wav" in message and "empty.wav" in message
    assert not hub.requests


def test_a_clip_that_fine_tuning_would_skip_is_refused_in_the_same_words(folder, hub):
    short = folder / "train" / "high" / "blip.wav"
    soundfile.write(short, np.zeros(100), 8_000)
    message = refused(folder, "--dry_run")
    with pytest.raises(ValueError) as of_fine_tuning:
        load_labelled_audio(DataArguments(data_dir=str(folder), max_unusable_share=0))
    expected = f"{short}: it lasts 12.5 ms, less than 12.6 ms"
    assert expected in message and expected in str(of_fine_tuning.value)


def test_missing_files_and_empty_rows_of_a_table_are_broken_clips(hub, tmp_path):
    write_tone(tmp_path / "0.wav")
    (tmp_path / "train.csv").write_text("audio,label\n0.wav,a\n,b\ngone.wav,b\n")
    message = refused(tmp_path / "train.csv")
    assert "2 of 3 clips cannot be used" in message and "clip 1 of train" in message and "gone.wav" in message


def test_broken_clips_are_left_out_on_request(folder, hub, capsys):
    (folder / "train" / "high" / "broken.wav").write_bytes(b"no audio")
    push(folder, "--skip-broken")
    assert "Skipped: 1 of 13 clips" in capsys.readouterr().out
    metadata = DatasetCard(files_of(hub)["README.md"].decode()).data.to_dict()
    assert [split["num_examples"] for split in metadata["dataset_info"]["splits"]] == [6, 6]


def test_a_split_is_told_by_the_table_s_name(tmp_path):
    names = ["train.csv", "validation_clean.csv", "dev-2.tsv", "test.parquet", "clips.csv"]
    splits = [datasets.split_of(tmp_path / name) for name in names]
    assert splits == ["train", "validation", "validation", "test", "train"]


def test_a_dry_run_needs_neither_network_nor_token(folder, hub, monkeypatch, tmp_path, capsys):
    connect(hub, monkeypatch, tmp_path, token=None)
    push(folder, "--dry_run")
    assert not hub.requests and "data/train-00000-of-00001.parquet" in capsys.readouterr().out


def test_a_source_that_is_none_is_refused(tmp_path):
    assert "must hold one sub-folder of audio files per class" in refused(tmp_path)
    assert "absent.csv' must lead to files that end in one of" in refused(tmp_path / "absent.csv")


def test_the_comparison_follows_no_metadata_of_others_out_of_the_data_set(folder, hub, tmp_path):
    (tmp_path / "private.csv").write_text("secret\n1\n")
    metadata = f"configs:\n- config_name: default\n  data_files: '{tmp_path / 'private.csv'}'\n"
    hub.create("alice/tones", "datasets", files={".huggingface.yaml": metadata.encode()})
    assert "must consist of its own files and those of the Hub" in refused(folder)


def test_an_upload_that_breaks_leaves_the_repository_as_it_was(folder, hub):
    before = hub.create("alice/tones", "datasets").main
    hub.fail("PUT /lfs", at=2)
    assert "This changed nothing on the Hub." in refused(folder)
    assert hub.repositories[REPOSITORY].main is before


def test_a_repository_made_for_an_upload_that_breaks_is_deleted_again(folder, hub):
    hub.fail("POST .*/commit/")
    assert "was deleted again" in refused(folder)
    assert not hub.repositories


def test_a_data_set_of_somebody_else_can_be_proposed_a_change(folder, hub, monkeypatch, tmp_path, capsys):
    before = hub.create("alice/tones", "datasets").main
    connect(hub, monkeypatch, tmp_path, token="hf_bob")
    push(folder, "--create_pr")
    assert hub.repositories[REPOSITORY].main is before
    assert "/datasets/alice/tones/discussions/1" in capsys.readouterr().out
