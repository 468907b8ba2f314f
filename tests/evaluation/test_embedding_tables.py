"""`embed.py`: its tables against the model's own outputs, of whole and broken files, in killed and shared runs."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from datasets import Dataset
from filelock import FileLock

import embed
from hear_hf import HEARFeatureExtractor
from hear_hf.data import windows
from hear_hf.data.decoding import decode_audio
from hear_hf.data.live import file_blocks
from hear_hf.evaluation.clip_embedder import ClipEmbedder, EmbeddingArguments
from hear_hf.evaluation.embedding_tables import EmbeddingTable, unusable_in
from hear_hf.evaluation.embeddings import EmbeddingModel
from helpers import noise, write_tone

RATE = 16_000
WIDTH = 3 * 56


@pytest.fixture
def folder(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    HEARFeatureExtractor().save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def sounds(tmp_path):
    for i in range(5):
        write_tone(tmp_path / "sounds" / f"{i}.wav", 300 * (i + 1), 0.4 + 0.3 * i, seed=i)
    return tmp_path / "sounds"


def run(folder, sounds, output, *options):
    return embed.main(
        [f"--model_name_or_path={folder}", f"--data_dir={sounds}", f"--output_dir={output}", *map(str, options)]
    )


def rows_of(paths):
    return pa.concat_tables(map(pq.read_table, paths)).to_pylist()


def expected(folder, path, start=0.0, end=None):
    waveform = decode_audio(path, RATE)[round(start * RATE) : None if end is None else round(end * RATE)]
    return EmbeddingModel.from_pretrained(folder).read([waveform])


def test_each_clip_has_its_embedding_and_labels(folder, sounds, tmp_path, capsys):
    rows = rows_of(run(folder, sounds, tmp_path / "index", "--top_k", 2))
    assert [row["path"] for row in rows] == [str(sounds / f"{i}.wav") for i in range(5)]
    assert rows[4]["start"] == 0 and rows[4]["end"] == pytest.approx(1.6)
    outputs = expected(folder, rows[4]["path"])
    np.testing.assert_array_equal(np.float16(rows[4]["embedding"]), outputs.pooler_output[0].half().numpy())
    scores = EmbeddingModel.from_pretrained(folder).scores(outputs)[0]
    assert rows[4]["labels"] == [f"LABEL_{i}" for i in scores.topk(2).indices.tolist()]
    assert rows[4]["scores"] == pytest.approx(scores.topk(2).values.tolist(), abs=1e-6)
    assert f"5 embeddings are in {tmp_path / 'index'}." in capsys.readouterr().out


def test_windows_of_a_clip_are_embedded_each_by_itself(folder, sounds, tmp_path):
    options = ("--window_seconds", 0.5, "--hop_seconds", 0.4, "--batch_size", 3)
    rows = [row for row in rows_of(run(folder, sounds, tmp_path / "index", *options)) if row["clip"] == 4]
    places = [(0.0, 0.5), (0.4, 0.9), (0.8, 1.3), (1.2, 1.6)]
    assert [(round(row["start"], 6), round(row["end"], 6)) for row in rows] == places
    for row, place in zip(rows, places, strict=True):
        embedding = expected(folder, row["path"], *place).pooler_output[0].numpy()
        np.testing.assert_allclose(np.float32(row["embedding"]), embedding, rtol=1e-3, atol=1e-3)


def test_the_tables_load_as_a_data_set_and_say_what_made_them(folder, sounds, tmp_path):
    paths = run(folder, sounds, tmp_path / "index", "--clips_per_file", 2, "--window_seconds", 1)
    assert [path.name for path in paths] == [f"embeddings-{i:05d}-of-00003.parquet" for i in range(3)]
    dataset = Dataset.from_parquet([str(path) for path in paths])
    assert dataset.features["embedding"].length == WIDTH and dataset.features["embedding"].feature.dtype == "float16"
    for path in paths:
        made_by = json.loads(pq.read_schema(path).metadata[b"embeddings"])
        assert made_by["model"] == str(folder) and made_by["revision"] is None
        assert made_by["weights"] == EmbeddingModel.from_pretrained(folder).digest()
        assert (made_by["sampling_rate"], made_by["window_seconds"], made_by["hop_seconds"]) == (RATE, 1, 1)
        assert (made_by["num_clips"], made_by["embedding_size"]) == (5, WIDTH)


def test_a_model_without_a_head_gives_no_labels(model, sounds, tmp_path):
    model.hear.save_pretrained(tmp_path / "base")
    HEARFeatureExtractor().save_pretrained(tmp_path / "base")
    (path,) = run(tmp_path / "base", sounds, tmp_path / "index")
    assert pq.read_schema(path).names == ["clip", "path", "start", "end", "embedding"]


@pytest.mark.parametrize("options", [(), ("--window_seconds", "0.2")])
def test_broken_files_are_named_and_counted_and_cost_no_other(folder, sounds, tmp_path, capsys, caplog, options):
    (sounds / "1.wav").write_bytes(b"no audio at all")
    soundfile.write(sounds / "6.wav", noise(100).numpy(), RATE)
    paths = run(folder, sounds, tmp_path / "index", "--max_unusable_share", 0.5, "--clips_per_file", 3, *options)
    assert {row["clip"] for row in rows_of(paths)} == {0, 2, 3, 4}
    named = [error for path in paths for error in unusable_in(path)]
    assert named[0].startswith(str(sounds / "1.wav")) and "it lasts 6.2 ms" in named[1] and len(named) == 2
    assert "2 clips could not be read" in capsys.readouterr().out
    assert "Skipping" in caplog.text and "1.wav" in caplog.text


def test_a_file_that_breaks_in_its_middle_leaves_no_windows(folder, sounds, tmp_path, monkeypatch):
    def breaking(path, rate):
        yield from file_blocks(path, rate)
        if path.endswith("3.wav"):
            raise ValueError("3.wav must be whole")

    monkeypatch.setattr(windows, "file_blocks", breaking)
    options = ("--window_seconds", 0.5, "--max_unusable_share", 0.5)
    (path,) = run(folder, sounds, tmp_path / "index", *options)
    assert {row["clip"] for row in rows_of([path])} == {0, 1, 2, 4} and "must be whole" in unusable_in(path)[0]


def test_too_many_broken_files_end_the_run_and_leave_no_table(folder, sounds, tmp_path):
    (sounds / "1.wav").write_bytes(b"no audio at all")
    with pytest.raises(ValueError, match="At most 10% of the clips may be unusable, found 1 of"):
        run(folder, sounds, tmp_path / "index")
    assert not list((tmp_path / "index").glob("*.parquet")) and not list((tmp_path / "index").glob("*.partial"))


def test_a_run_that_was_killed_goes_on_after_its_last_table(folder, sounds, tmp_path, monkeypatch):
    whole = run(folder, sounds, tmp_path / "whole", "--clips_per_file", 1)
    index, read, add = tmp_path / "index", [], EmbeddingTable.add

    def killed(table, rows):
        if len(list(index.glob("*.parquet"))) == 3:
            raise KeyboardInterrupt
        return add(table, rows)

    monkeypatch.setattr(EmbeddingTable, "add", killed)
    with pytest.raises(KeyboardInterrupt):
        run(folder, sounds, index, "--clips_per_file", 1)
    monkeypatch.setattr(EmbeddingTable, "add", lambda table, rows: (read.append(table.path.name), add(table, rows))[1])
    paths = run(folder, sounds, index, "--clips_per_file", 1)
    assert read == [path.name for path in whole[3:]] and rows_of(paths) == rows_of(whole)


def test_clips_in_tables_need_no_file(folder, sounds, tmp_path):
    entries = [{"bytes": (sounds / f"{i}.wav").read_bytes(), "path": name} for i, name in enumerate(["a.wav", None])]
    Dataset.from_dict({"audio": entries}).to_parquet(tmp_path / "clips.parquet")
    arguments = [f"--model_name_or_path={folder}", f"--train_file={tmp_path / 'clips.parquet'}"]
    rows = rows_of(embed.main([*arguments, f"--output_dir={tmp_path / 'index'}", "--window_seconds=0.5"]))
    assert [(row["path"], row["clip"]) for row in rows] == [("a.wav", 0), ("clip 1", 1), ("clip 1", 1)]


def test_tables_of_another_checkpoint_or_of_other_clips_are_not_continued(model, folder, sounds, tmp_path):
    index = tmp_path / "index"
    run(folder, sounds, index)
    with pytest.raises(ValueError, match="windows of 1 s every 1 s.*make them anew"):
        run(folder, sounds, index, "--window_seconds", 1)
    with pytest.raises(ValueError, match="must hold tables of this run alone"):
        run(folder, sounds, index, "--clips_per_file", 2)
    bias = model.classifier.out_proj.bias
    bias.data, before = bias + 1, bias.data
    model.save_pretrained(folder)  # whose embeddings are the same, but not the labels
    with pytest.raises(ValueError, match="head: .*, head: .*make them anew"):
        run(folder, sounds, index)
    bias.data = before
    model.save_pretrained(folder)
    model.hear.task_model.position_embeddings.data += 1
    model.save_pretrained(tmp_path / "other")
    HEARFeatureExtractor().save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match=f"{folder} .*local folder.*{tmp_path / 'other'} .*local folder"):
        run(tmp_path / "other", sounds, index)
    write_tone(sounds / "3.wav", 999, 0.9)
    with pytest.raises(ValueError, match="the same clips as before"):
        run(folder, sounds, index)


def test_one_folder_is_of_one_run(folder, sounds, tmp_path):
    (tmp_path / "index").mkdir()
    with FileLock(tmp_path / "index" / ".lock"), pytest.raises(ValueError, match="found another at work"):
        run(folder, sounds, tmp_path / "index")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"hop_seconds": 1}, "must come with `window_seconds`"),
        ({"window_seconds": 0}, "`window_seconds` must be at least"),
        ({"num_proc": 0}, "`num_proc` must be at least 1"),
        ({"num_proc": 2, "ray_workers": 2}, "must come without `ray_workers`"),
        ({"top_k": -1}, "`top_k` must be at least 0"),
    ],
)
def test_options_that_make_no_sense_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        EmbeddingArguments(model_name_or_path="model", **options)


def test_a_batch_of_long_clips_is_read_in_parts(folder):
    embedder = ClipEmbedder(EmbeddingArguments(model_name_or_path=str(folder)))
    read, sizes = EmbeddingModel.read, []
    embedder.model.read = lambda clips: (sizes.append(len(clips)), read(embedder.model, clips))[1]
    entries = [{"bytes": None, "path": None, "array": None}] * 3
    embedder._windows = lambda entry: [(0, noise(120 * RATE).numpy())]
    rows = embedder(pa.table({"audio": pa.array(entries)}))
    assert sizes == [2, 1] and len(rows) == 3


@pytest.mark.slow
def test_several_processes_make_the_same_tables(folder, sounds, tmp_path):
    script = [sys.executable, embed.__file__, f"--model_name_or_path={folder}", f"--data_dir={sounds}"]
    options = ["--num_proc=2", "--batch_size=2", f"--output_dir={tmp_path / 'shared'}"]
    result = subprocess.run([*script, *options], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    shared = rows_of(sorted((tmp_path / "shared").glob("*.parquet")))
    assert_same_rows(shared, rows_of(run(folder, sounds, tmp_path / "alone", "--batch_size=2")))


@pytest.mark.slow
def test_two_workers_of_ray_make_the_same_tables(folder, sounds, tmp_path):
    ray = pytest.importorskip("ray")
    shutil.copy(sounds / "0.wav", sounds / "5.wav")
    (sounds / "6.wav").write_bytes(b"no audio at all")
    options = ("--window_seconds", 0.5, "--batch_size", 2, "--clips_per_file", 3, "--max_unusable_share", 0.5)
    alone = run(folder, sounds, tmp_path / "alone", *options)
    ray.init(num_cpus=2, include_dashboard=False)
    try:
        shared = run(folder, sounds, tmp_path / "shared", *options, "--ray_workers", 2)
    finally:
        ray.shutdown()
    assert_same_rows(rows_of(shared), rows_of(alone))
    assert [unusable_in(path) for path in shared] == [unusable_in(path) for path in alone] != [[], [], []]


def assert_same_rows(rows, others):
    assert [(row["path"], row["start"], row["labels"]) for row in rows] == [
        (row["path"], row["start"], row["labels"]) for row in others
    ]
    np.testing.assert_allclose(
        [row["embedding"] for row in rows], [row["embedding"] for row in others], rtol=0, atol=2e-3
    )
