"""Rows of data sets of others may name their own files and the Hub's, never an address or a file of this machine."""

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from datasets import Audio, Features, Image, Value

from hear_hf.data.labelled import DataArguments, load_labelled_audio
from hear_hf.data.own_files import ADDRESS
from hear_hf.data.pretraining_clips import load_pretraining_clips
from hear_hf.data.unlabelled import PretrainingDataArguments


@pytest.fixture
def server():
    """The address of a server on the loopback interface, and the requests that it got."""
    requests = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            requests.append(self.path)
            self.send_error(404)

        do_HEAD = do_GET

    with HTTPServer(("127.0.0.1", 0), Handler) as found:
        threading.Thread(target=found.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{found.server_port}/clip.wav", requests
        found.shutdown()


def write_clip(path):
    soundfile.write(path, np.random.default_rng(0).normal(scale=0.1, size=16_000), 16_000)
    return str(path)


def data_set(folder, paths, as_structs):
    folder.mkdir(exist_ok=True)
    audio = [{"bytes": None, "path": path} if as_structs else path for path in paths]
    pd.DataFrame({"audio": audio, "label": ["a"] * len(paths)}).to_parquet(folder / "train.parquet")
    return str(folder)


@pytest.mark.parametrize("as_structs", [True, False])
@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("kind", ["address", "file address", "path", "relative path", "chain", "link"])
def test_pretraining_follows_no_address_and_no_path_out_of_the_data_set(
    tmp_path, server, monkeypatch, kind, streaming, as_structs
):
    address, requests = server
    private = write_clip(tmp_path / "private.wav")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "linked.wav").symlink_to(private)
    named = {
        "link": str(tmp_path / "set" / "linked.wav"),
        "address": address,
        "file address": f"file://{private}",
        "path": private,
        "relative path": "private.wav",
        "chain": f"file://{private}::hf://datasets/a/b/c.zip",
    }
    name = data_set(tmp_path / "set", [named[kind]] * 2, as_structs)
    arguments = PretrainingDataArguments(dataset_name=name, streaming=streaming, validation_share=0.0)
    with pytest.raises(ValueError, match="must hold its clips itself"):
        clips, _ = load_pretraining_clips(arguments, 16_000, 1.0)
        next(iter(clips)) if streaming else clips[0]
    assert not requests


def test_fine_tuning_follows_no_address_either(tmp_path, server):
    address, requests = server
    with pytest.raises(ValueError, match="must hold its clips itself"):
        load_labelled_audio(DataArguments(dataset_name=data_set(tmp_path / "set", [address] * 4, True)))
    assert not requests


@pytest.mark.parametrize("streaming", [True, False])
def test_a_data_set_s_own_files_are_read(tmp_path, streaming):
    (tmp_path / "set").mkdir()
    path = write_clip(tmp_path / "set" / "clip.wav")
    arguments = PretrainingDataArguments(
        dataset_name=data_set(tmp_path / "set", [path] * 2, True), streaming=streaming, validation_share=0.0
    )
    clips, _ = load_pretraining_clips(arguments, 16_000, 1.0)
    example = next(iter(clips)) if streaming else clips[0]
    assert len(example["input_values"]) == 16_000


def with_images(folder, address, column):
    """A data set with a column that is declared to hold images, and has an address in place of each."""
    clip = Path(write_clip(folder.parent / "clip.wav")).read_bytes()
    columns = {"audio": [{"bytes": clip, "path": "0.wav"}] * 4, "label": ["a", "b", "a", "b"]}
    columns |= {column: [{"bytes": None, "path": address}] * 4}
    features = Features({"audio": Audio(), "label": Value("string"), column: Image()})
    folder.mkdir()
    pq.write_table(pa.Table.from_pydict(columns, schema=features.arrow_schema), folder / "train.parquet")
    return str(folder)


@pytest.mark.parametrize("column", ["label", "speaker", "audio"])
def test_no_column_is_decoded_where_an_image_would_be_fetched(tmp_path, server, column):
    address, requests = server
    name = with_images(tmp_path / "set", address, column)
    with pytest.raises(ValueError, match="must (be|hold)"):
        load_labelled_audio(DataArguments(dataset_name=name, group_column="speaker" if column == "speaker" else None))
    assert not requests


def test_an_image_beside_clips_is_not_fetched(tmp_path, server):
    address, requests = server
    name = with_images(tmp_path / "set", address, "cover")
    splits = load_labelled_audio(DataArguments(dataset_name=name), keep_columns=("cover",), hold_out=False)
    assert splits["train"][0]["cover"] == {"bytes": None, "path": address} and not requests


def test_a_stream_of_images_is_not_fetched(tmp_path, server):
    address, requests = server
    arguments = PretrainingDataArguments(dataset_name=with_images(tmp_path / "set", address, "audio"), streaming=True)
    with pytest.raises(ValueError, match="must hold its clips itself"):
        next(iter(load_pretraining_clips(arguments, 16_000, 1.0)[0]))
    assert not requests


def test_addresses_of_the_hub_are_taken_and_those_that_only_look_so_are_not():
    assert ADDRESS.fullmatch("hf://datasets/a/b@c0ffee/clip.wav")
    assert ADDRESS.fullmatch("zip://clip.wav::hf://datasets/a/b@c0ffee/clips.zip")
    for other in ("http://hf://a", "hf://a::http://b", "zip://a::http://b", "file://a::hf://b", "HF://a"):
        assert not ADDRESS.fullmatch(other)


@pytest.mark.parametrize("place", ["../private/*.parquet", "{private}/train.parquet"])
def test_a_card_leads_to_no_table_outside_of_its_data_set(tmp_path, place):
    private = data_set(tmp_path / "private", ["clip.wav"], True)
    folder = tmp_path / "set"
    folder.mkdir()
    files = place.format(private=private)
    (folder / "README.md").write_text(f"---\nconfigs:\n- config_name: default\n  data_files: '{files}'\n---\n")
    with pytest.raises(ValueError, match="set must consist of its own files and those of the Hub, found: "):
        load_labelled_audio(DataArguments(dataset_name=str(folder)))


@pytest.mark.parametrize("form", ["'{}'", "['{}']", "!!set {{'{}': null}}", "{{train: '{}'}}"])
def test_a_card_leads_to_no_address_in_whichever_form(tmp_path, server, form):
    address, requests = server
    name = data_set(tmp_path / "set", ["clip.wav"], True)
    files = form.format(address.replace("wav", "parquet"))
    (tmp_path / "set" / "README.md").write_text(f"---\nconfigs:\n- config_name: a\n  data_files: {files}\n---\n")
    with pytest.raises(ValueError, match="must consist of its own files"):
        load_labelled_audio(DataArguments(dataset_name=name))
    assert not requests


def test_a_data_set_in_brackets_is_not_taken_for_a_pattern_that_leads_to_another(tmp_path):
    data_set(tmp_path / "set1", ["clip.wav"], True)
    name = data_set(tmp_path / "set[1]", ["clip.wav"], True)
    with pytest.raises(ValueError, match="must consist of its own files .*set1/train.parquet"):
        load_labelled_audio(DataArguments(dataset_name=name))
