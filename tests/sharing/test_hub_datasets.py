"""Data sets on a Hub on the loopback interface: their metadata may lead to their own files and the Hub's alone."""

import io

import datasets
import numpy as np
import pandas as pd
import pytest
import soundfile
from huggingface_hub import HfApi, constants

from hear_hf.data.annotated import AnnotatedDataArguments, load_annotated_audio
from hear_hf.data.labelled import DataArguments, load_labelled_audio
from hear_hf.data.own_files import load_own
from hear_hf.data.soundscapes import SoundscapeArguments
from hear_hf.data.unlabelled import PretrainingDataArguments, load_unlabelled_audio


@pytest.fixture(autouse=True)
def reads_from_the_hub(hub, online, monkeypatch, tmp_path):
    settings = {
        "HF_ENDPOINT": hub.url,
        "HUB_DATASETS_URL": hub.url + "/datasets/{repo_id}/resolve/{revision}/{path}",
        "HF_HUB_OFFLINE": False,
        "HF_DATASETS_CACHE": tmp_path / "cache",
    }
    for name, value in settings.items():
        monkeypatch.setattr(datasets.config, name, value)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))


def table(num_clips=4):
    """The bytes of a parquet file with clips of two labels."""
    clip, file = io.BytesIO(), io.BytesIO()
    soundfile.write(clip, np.random.default_rng(0).normal(scale=0.1, size=16_000), 16_000, format="WAV")
    audio = [{"bytes": clip.getvalue(), "path": f"{i}.wav"} for i in range(num_clips)]
    pd.DataFrame({"audio": audio, "label": ["a", "b"] * (num_clips // 2)}).to_parquet(file)
    return file.getvalue()


METADATA = {
    "absolute path": "configs:\n- config_name: default\n  data_files: '{private}'",
    "pattern": "configs:\n- config_name: default\n  data_files: '{folder}/*.parquet'",
    "address of a file": "configs:\n- config_name: default\n  data_files: 'file://{private}'",
    "chain": "configs:\n- config_name: default\n  data_files: 'zip://*.parquet::{private}'",
    "address": "configs:\n- config_name: default\n  data_files: '{hub}/private.parquet'",
    "split": "configs:\n- config_name: default\n  data_files:\n  - split: train\n    path: ['*.parquet', '{private}']",
    "folder": "configs:\n- config_name: default\n  data_dir: '{folder}'",
    "folder above": "configs:\n- config_name: default\n  data_dir: '../other'",
    "another configuration": "configs:\n- config_name: default\n  data_files: '*.parquet'\n"
    "- config_name: b\n  data_files: '{private}'",
}


def hostile_files(kind, hub, tmp_path):
    private = tmp_path / "private.parquet"
    private.write_bytes(table())
    return METADATA[kind].format(private=private, folder=tmp_path, hub=hub.url)


@pytest.mark.parametrize("file", ["README.md", ".huggingface.yaml"])
@pytest.mark.parametrize("kind", METADATA)
def test_metadata_on_the_hub_lead_to_no_table_elsewhere(hub, tmp_path, kind, file):
    metadata = hostile_files(kind, hub, tmp_path)
    content = f"---\n{metadata}\n---\n" if file == "README.md" else f"# a comment\n---\n{metadata}\n"
    name = f"alice/{kind.replace(' ', '-')}{len(file)}"
    hub.create(name, "datasets", {"data.parquet": table(), file: content.encode()})
    with pytest.raises(ValueError, match="must consist of its own files and those of the Hub, found: "):
        load_labelled_audio(DataArguments(dataset_name=name))
    assert not any("private" in request for request in hub.requests)


def test_no_task_follows_such_a_card(hub, tmp_path):
    metadata = hostile_files("absolute path", hub, tmp_path)
    hub.create("alice/tasks", "datasets", {"data.parquet": table(), "README.md": f"---\n{metadata}\n---\n".encode()})
    refused = pytest.raises(ValueError, match="must consist of its own files")
    for streaming in (False, True):
        with refused:
            load_unlabelled_audio(PretrainingDataArguments(dataset_name="alice/tasks", streaming=streaming))
    with refused:
        load_annotated_audio(AnnotatedDataArguments(dataset_name="alice/tasks"), SoundscapeArguments())


def test_a_card_may_name_its_own_tables(hub):
    metadata = (
        "---\nconfigs:\n- config_name: default\n  data_files:\n"
        "  - split: train\n    path: 'shards/*.parquet'\n  - split: test\n    path: 'test.parquet'\n---\n"
    )
    files = {"shards/0.parquet": table(), "test.parquet": table(2), "README.md": metadata.encode()}
    hub.create("alice/own", "datasets", files)
    splits = load_labelled_audio(DataArguments(dataset_name="alice/own"), hold_out=False)
    assert {name: len(split) for name, split in splits.items()} == {"train": 4, "test": 2}


def test_the_commit_whose_card_was_checked_is_the_one_that_is_loaded(hub, tmp_path, monkeypatch):
    repository = hub.create("alice/changing", "datasets", {"data.parquet": table()})
    download = HfApi.dataset_info

    def look_and_change(self, *args, **kwargs):
        found = download(self, *args, **kwargs)
        metadata = hostile_files("absolute path", hub, tmp_path)
        repository.commit({"data.parquet": table(), "README.md": f"---\n{metadata}\n---\n".encode()}, "later")
        return found

    monkeypatch.setattr(HfApi, "dataset_info", look_and_change)
    assert len(load_own("alice/changing")["train"]) == 4
