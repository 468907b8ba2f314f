"""`search.py` on tables of `embed.py`: what is nearest, against a plain comparison of all, and what is refused."""

import csv
import json
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import embed
import search
from hear_hf import HEARFeatureExtractor
from hear_hf.evaluation import search as library
from hear_hf.evaluation.search import EmbeddingIndex, Hit, SearchArguments
from hear_hf.evaluation.search_page import write_page
from helpers import write_tone

WIDTH = 8
MADE_BY = {
    "model": "me/mine",
    "revision": "abc123",
    "weights": "0123456789abcdef",
    "embedding_size": WIDTH,
    "window_seconds": None,
    "hop_seconds": None,
}


def write_table(path, vectors, paths=None, clips=None, **changes):
    numbers = list(range(len(vectors)))
    embeddings = pa.array(list(np.float16(vectors)), pa.list_(pa.float16(), vectors.shape[1]))
    columns = {
        "clip": numbers if clips is None else clips,
        "path": paths or [f"{i}.wav" for i in numbers],
        "start": [0.0] * len(numbers),
        "end": [1.0] * len(numbers),
        "embedding": embeddings,
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {"embeddings": json.dumps(MADE_BY | changes)}
    pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path)


def random_vectors(num_rows):
    return np.random.default_rng(0).normal(size=(num_rows, WIDTH)) + 0.5


@pytest.fixture
def exact(monkeypatch):
    """As where FAISS is missing, and in many blocks."""
    monkeypatch.setattr(library, "find_spec", lambda name: None)
    monkeypatch.setattr(library, "ROWS_AT_ONCE", 7)


@pytest.fixture
def index(tmp_path):
    write_table(tmp_path / "index" / "embeddings-00000-of-00002.parquet", random_vectors(40)[:25])
    names, clips = [f"{i}.wav" for i in range(25, 40)], list(range(25, 40))
    write_table(tmp_path / "index" / "embeddings-00001-of-00002.parquet", random_vectors(40)[25:], names, clips)
    return EmbeddingIndex.load(tmp_path / "index")


def cosines(queries, vectors):
    queries, vectors = (np.float32(np.float16(rows)) for rows in (queries, vectors))
    lengths = np.linalg.norm(queries, axis=1)[:, None] * np.linalg.norm(vectors, axis=1)
    return queries @ vectors.T / lengths


def check_nearest(index):
    expected = cosines(random_vectors(40)[:3], random_vectors(40))
    scores, rows = index.nearest(np.float16(random_vectors(40)[:3]), 9)
    np.testing.assert_array_equal(rows, np.argsort(-expected, axis=1)[:, :9])
    np.testing.assert_allclose(scores, -np.sort(-expected, axis=1)[:, :9], atol=1e-5)
    assert index.nearest(np.float16(random_vectors(40)[:3]), 99)[1].shape == (3, 40)


def test_the_exact_search_finds_the_nearest_in_all_tables(index, exact):
    check_nearest(index)


def test_faiss_finds_the_same(index):
    pytest.importorskip("faiss")
    check_nearest(index)
    assert index.rows.list_indexes() == ["embedding"]


def test_a_clip_is_as_like_as_its_nearest_example_and_examples_are_left_out(index, exact):
    examples, vectors = random_vectors(40)[[3, 17]], random_vectors(40)
    expected = cosines(examples, vectors).max(axis=0)
    expected[[3, 17]] = -1
    hits = index.like(np.float16(examples), 5, {"3.wav", "17.wav"})
    assert [hit.path for hit in hits] == [f"{i}.wav" for i in np.argsort(-expected)[:5]]
    assert [hit.similarity for hit in hits] == pytest.approx(sorted(expected)[::-1][:5], abs=1e-5)


def test_near_duplicates_are_grouped_across_clips_alone(tmp_path, exact):
    vectors = random_vectors(30)
    vectors[20], vectors[28], vectors[11] = 2 * vectors[3], vectors[3] + 0.01, vectors[10]
    clips = list(range(30))
    clips[11] = 10  # another window of the same clip
    write_table(tmp_path / "index" / "t.parquet", vectors, clips=clips)
    groups = EmbeddingIndex.load(tmp_path / "index").duplicates(0.999)
    assert [[hit.path for hit in hits] for _, hits in groups] == [["3.wav", "20.wav", "28.wav"]]
    assert all(hit.similarity > 0.999 for hit in groups[0][1])


def test_one_clip_of_each_cluster_is_shown_the_largest_first(tmp_path):
    centres = 10 * np.eye(WIDTH)[:3]
    sizes = [5, 9, 2]
    vectors = np.concatenate([np.repeat(centre[None], size, 0) for centre, size in zip(centres, sizes, strict=True)])
    vectors = vectors + 0.1 * np.random.default_rng(0).normal(size=vectors.shape)
    write_table(tmp_path / "index" / "t.parquet", vectors)
    found = EmbeddingIndex.load(tmp_path / "index").clusters(3, seed=0)
    assert [size for _, size in found] == [9, 5, 2]
    members = [range(5, 14), range(5), range(14, 16)]
    assert all(int(Path(hit.path).stem) in place for (hit, _), place in zip(found, members, strict=True))
    with pytest.raises(ValueError, match="from 1 to the 16 embeddings, found: 17"):
        EmbeddingIndex.load(tmp_path / "index").clusters(17, seed=0)


def test_an_interrupted_index_is_searched_and_said_to_be_so(tmp_path, caplog):
    write_table(tmp_path / "index" / "embeddings-00001-of-00004.parquet", random_vectors(5))
    assert len(EmbeddingIndex.load(tmp_path / "index")) == 5
    assert "holds 1 of 4 tables: embed.py was interrupted" in caplog.text


def test_folders_that_hold_no_index_are_refused(tmp_path):
    with pytest.raises(ValueError, match="must hold the tables of embed.py, found: none"):
        EmbeddingIndex.load(tmp_path)
    (tmp_path / "embeddings-00000-of-00004.partial").touch()
    with pytest.raises(ValueError, match="00004.partial, of an interrupted run"):
        EmbeddingIndex.load(tmp_path)
    pq.write_table(pa.table({"audio": ["x.wav"]}), tmp_path / "others.parquet")
    with pytest.raises(ValueError, match="found: others.parquet"):
        EmbeddingIndex.load(tmp_path)


def test_an_index_in_which_no_clip_could_be_read_is_said_to_be_empty(tmp_path):
    write_table(tmp_path / "t.parquet", random_vectors(3)[:0])
    with pytest.raises(ValueError, match="no clip could be read"):
        EmbeddingIndex.load(tmp_path)


def test_tables_of_two_checkpoints_are_refused_with_both_names_and_revisions(tmp_path):
    write_table(tmp_path / "a.parquet", random_vectors(3))
    write_table(tmp_path / "b.parquet", random_vectors(3), model="you/yours", revision="def456", weights="f" * 16)
    with pytest.raises(ValueError, match="me/mine .revision: abc123.* you/yours .revision: def456"):
        EmbeddingIndex.load(tmp_path)


@pytest.mark.parametrize(
    ("changes", "columns", "found"),
    [
        ({"embedding_size": "8"}, {}, "must say which checkpoint made it"),
        ({"model": None}, {}, "must say which checkpoint made it"),
        ({"embedding_size": 10**9}, {}, "must have a column 'embedding'"),
        ({}, {"start": ["0"] * 3}, "must have a column 'start' of double"),
        ({}, {"embedding": [np.full(WIDTH, np.nan, np.float16)] * 3}, "must be finite"),
        ({"model": "/nowhere/at all"}, {}, "nowhere/at all"),
    ],
)
def test_tables_of_others_end_the_command_with_a_message(tmp_path, changes, columns, found):
    write_table(tmp_path / "t.parquet", random_vectors(3), **changes)
    table = pq.read_table(tmp_path / "t.parquet")
    for name, values in columns.items():
        kind = table.schema.field(name).type if name == "embedding" else pa.string()
        table = table.set_column(table.column_names.index(name), name, pa.array(values, kind))
    pq.write_table(table, tmp_path / "t.parquet")
    write_tone(tmp_path / "a.wav", 300)
    option = ["--like", str(tmp_path / "a.wav")] if changes.get("model") else ["--num_clusters", "2"]
    with pytest.raises(SystemExit, match=found):
        search.main([str(tmp_path), *option])


@pytest.fixture
def searched(model, tmp_path):
    """The folders of a model, of sounds, and of the index of these."""
    model.save_pretrained(tmp_path / "model")
    HEARFeatureExtractor().save_pretrained(tmp_path / "model")
    for name, frequency in {"a": 300, "b": 310, "c & <c>": 3000, "d#1?": 3100}.items():
        write_tone(tmp_path / "sounds" / f"{name}.wav", frequency, 0.5)
    paths = [f"--model_name_or_path={tmp_path / 'model'}", f"--data_dir={tmp_path / 'sounds'}"]
    embed.main([*paths, f"--output_dir={tmp_path / 'index'}"])
    return tmp_path


def test_labels_and_paths_of_others_do_not_control_the_terminal(tmp_path, capsys):
    labels = pa.array([["\x1b[31mred"]] * 3, pa.list_(pa.string()))
    write_table(tmp_path / "t.parquet", random_vectors(3), paths=["\x1b[2J.wav", "a\nb.wav", "c.wav"])
    scores = pa.array([[0.5]] * 3, pa.list_(pa.float32()))
    table = pq.read_table(tmp_path / "t.parquet").append_column("labels", labels).append_column("scores", scores)
    pq.write_table(table, tmp_path / "t.parquet")
    search.main([str(tmp_path), "--num_clusters", "3"])
    output = capsys.readouterr().out
    assert "\x1b" not in output and "\\x1b[31mred" in output and "a\\nb.wav" in output


def test_the_command_shows_writes_and_plays_what_is_like_an_example(searched, capsys):
    page, table = searched / "pages" / "hits.html", searched / "hits.csv"
    options = ["--like", str(searched / "sounds" / "a.wav"), "--top_k", "2", "--page", str(page)]
    search.main([str(searched / "index"), *options, "--output_file", str(table)])
    output = capsys.readouterr().out
    rows = list(csv.DictReader(table.open(encoding="utf-8")))
    assert Path(rows[0]["path"]).name == "b.wav" and len(rows) == 2 and float(rows[0]["similarity"]) > 0.9
    assert rows[0]["path"] in output and rows[0]["labels"].split(";")[0] in output
    assert [Path(unquote(link)).name for link in links_of(page)] == [Path(row["path"]).name for row in rows]
    assert str(searched) not in page.read_text()


def test_a_folder_of_examples_is_read_whole(searched, capsys):
    examples = searched / "examples"
    write_tone(examples / "low.wav", 305, 0.5, seed=5)
    write_tone(examples / "high.wav", 3050, 0.5, seed=6)
    search.main([str(searched / "index"), "--like", str(examples), "--top_k", "4"])
    heading, *hits = capsys.readouterr().out.splitlines()
    assert all(name in heading for name in ("low.wav", "high.wav")) and len(hits) == 4


def test_an_index_of_another_checkpoint_is_refused_with_both_names(searched, model):
    model.hear.task_model.position_embeddings.data += 1
    model.save_pretrained(searched / "other")
    HEARFeatureExtractor().save_pretrained(searched / "other")
    like = ["--like", str(searched / "sounds" / "a.wav"), "--model_name_or_path", str(searched / "other")]
    with pytest.raises(SystemExit) as stop:
        search.main([str(searched / "index"), *like])
    message = str(stop.value)
    assert f"{searched / 'model'} (revision: a local folder" in message and f"{searched / 'other'} (rev" in message


def test_examples_that_cannot_be_read_are_named(searched):
    (searched / "broken.wav").write_bytes(b"no audio")
    for name in ("broken.wav", "missing.wav"):
        with pytest.raises(SystemExit, match=f"Each example must be a clip, found:\n.*{name}"):
            search.main([str(searched / "index"), "--like", str(searched / name)])


@pytest.mark.parametrize("options", [{}, {"like": ["a.wav"], "duplicates": True}, {"duplicates": True, "top_k": 0}])
def test_options_that_make_no_sense_are_refused(options):
    with pytest.raises(ValueError, match="must be"):
        SearchArguments(**options)


class Links(HTMLParser):
    def __init__(self):
        super().__init__()
        self.links, self.tags = [], set()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        self.links += [value for name, value in attributes if name in ("src", "href")]


def links_of(page):
    parser = Links()
    parser.feed(page.read_text(encoding="utf-8"))
    assert "script" not in parser.tags
    return [link.partition("#")[0] for link in parser.links]


def test_names_are_escaped_and_links_relative_on_the_page(tmp_path):
    name = '<script>alert("1")</script> #1? 100%.wav'.replace("/", "")
    write_tone(tmp_path / "sounds" / name, 300)
    gone = Hit(f"{tmp_path}/gone.wav", 0, 1, 0.8, [])
    hits = [Hit(str(tmp_path / "sounds" / name), 0.5, 1.25, 0.9, ["<b>loud</b>"]), gone]
    write_page("<i>title</i>", [("Like <x>", hits)], tmp_path / "pages" / "hits.html")
    (link,) = links_of(tmp_path / "pages" / "hits.html")  # a clip that is no file has no player
    assert (tmp_path / "pages" / unquote(link)).resolve() == (tmp_path / "sounds" / name).resolve()
    content = (tmp_path / "pages" / "hits.html").read_text(encoding="utf-8")
    assert "#t=0.5,1.25" in content and "http" not in content and str(tmp_path) not in content
    assert not [markup for markup in ("<i>", "<b>", "<x>", "<script>") if markup in content]
